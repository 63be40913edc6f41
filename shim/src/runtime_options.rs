//! The node's policy, as containerd's configuration of the runtime points at it.

use std::path::Path;

use anyhow::Context;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{CodedInputStream, rt};
use hardened_node::policy_files;
use hardened_sandbox::Identity;
use hardened_sandbox::policy::Policy;
use hardened_sandbox::seccomp::Arch;

use crate::fault::{Fault, Result};
use crate::state;

/// What containerd hands to a runtime that is not runc's: the options of the runtime handler, or
/// `ctr run --runtime-config-path` (containerd `api/types/runtimeoptions/v1`).
const OPTIONS: &str = "runtimeoptions.v1.Options";

/// runc's own of containerd 2 and 1.7, with the numbers of what is taken of them: `shim_cgroup`, which is for the start
/// of a shim, and `io_uid` and `io_gid`, since streams have their owners without (containerd `api/types/runc/options`,
/// `api/types/runctypes`).
const RUNC_OPTIONS: [(&str, RuncOptions); 2] = [
    ("containerd.runc.v1.Options", RuncOptions { shim_cgroup: 3, owners: [4, 5] }),
    ("containerd.linux.runc.CreateOptions", RuncOptions { shim_cgroup: 9, owners: [10, 11] }),
];

/// Numbers of fields.
#[derive(Clone, Copy)]
struct RuncOptions {
    shim_cgroup: u32,
    owners: [u32; 2],
}

/// Reads the policy from the folder that the options name in `ConfigPath`, or from `/etc/hardened`, as far as it
/// concerns this pod. `asked_for` is the profile that the pod names, if any.
pub(crate) fn load(options: Option<&Any>, identity: &Identity, asked_for: Option<&str>) -> Result<Policy> {
    let arch = Arch::native().context("no seccomp filter can be made for this architecture; use x86_64 or aarch64")?;
    let folder = match options {
        Some(options) if !options.value.is_empty() => config_path(options)?,
        Some(_) | None => String::new(),
    };
    let folder = if folder.is_empty() {
        policy_files::FOLDER
    } else {
        policy_files::check_named(Path::new(&folder)).map_err(|problem| {
            Fault::state(format!(
                "hardened: the policy folder {folder} that the runtime's options name cannot be used: {problem} -> fix \
                 ConfigPath in containerd's configuration"
            ))
        })?;
        &folder
    };
    policy_files::load_for_pod(Path::new(folder), arch, &state::policies(), identity, asked_for).map_err(|errors| {
        Fault::state(format!(
            "hardened: the node's policy cannot be used, so no container is started: {errors} -> fix it; `hardenctl \
             policy lint` checks it"
        ))
    })
}

fn config_path(options: &Any) -> Result<String> {
    let kind = options.type_url.rsplit('/').next().unwrap_or_default();
    match kind {
        OPTIONS => read_config_path(&options.value).context("decode the runtime options").map_err(Fault::from),
        _ if runc_options(kind, &options.value).is_some() => Ok(String::new()),
        _ => Err(Fault::invalid(format!(
            "hardened: runtime options of type {kind}; expected {OPTIONS}: take options of other runtimes out of this \
             runtime's section in containerd's configuration"
        ))),
    }
}

/// The cgroup that a shim is to be in, of the options that containerd gives to its start.
pub(crate) fn shim_cgroup(options: &[Any]) -> Option<String> {
    let cgroup = |options: &Any| runc_options(options.type_url.rsplit('/').next()?, &options.value);
    options.iter().find_map(cgroup).filter(|cgroup| !cgroup.is_empty())
}

/// Of options that are runc's and no more than what is taken of those, the shim's cgroup.
fn runc_options(kind: &str, bytes: &[u8]) -> Option<String> {
    let (_, fields) = RUNC_OPTIONS.iter().find(|(name, _)| *name == kind)?;
    let mut input = CodedInputStream::from_bytes(bytes);
    let mut cgroup = String::new();
    while let Some(tag) = input.read_raw_tag_or_eof().ok()? {
        // The wire type: 2 is a text, 0 a number.
        match (tag >> 3, tag & 7) {
            (field, 2) if field == fields.shim_cgroup => cgroup = input.read_string().ok()?,
            (field, 0) if fields.owners.contains(&field) => drop(input.read_uint32().ok()?),
            _ => return None,
        }
    }
    Some(cgroup)
}

/// Field 2 of `Options`, the only one that is used.
fn read_config_path(bytes: &[u8]) -> anyhow::Result<String> {
    const CONFIG_PATH: u32 = 2 << 3 | 2;
    let mut input = CodedInputStream::from_bytes(bytes);
    let mut path = String::new();
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        if tag == CONFIG_PATH {
            path = input.read_string()?;
        } else {
            rt::skip_field_for_tag(tag, &mut input)?;
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_the_policy_is_read_from_the_options() {
        let options = b"\x0a\x01t\x12\x04/etc\x1a\x01x";
        assert_eq!(read_config_path(options).unwrap(), "/etc");
        assert_eq!(read_config_path(b"").unwrap(), "");
        assert!(read_config_path(b"\x12\x7f/").is_err());
    }

    #[test]
    fn the_shims_cgroup_is_read_from_what_its_start_gets() {
        let input = |kind: &str, value: &[u8]| {
            let other = Any { type_url: "types.containerd.io/other".into(), ..Any::default() };
            shim_cgroup(&[other, Any { type_url: kind.into(), value: value.to_vec(), ..Any::default() }])
        };
        assert_eq!(input("containerd.runc.v1.Options", b"\x1a\x02/a").as_deref(), Some("/a"));
        assert_eq!(input("containerd.linux.runc.CreateOptions", b"\x4a\x02/a").as_deref(), Some("/a"));
        assert_eq!(input("containerd.runc.v1.Options", b""), None);
        assert_eq!(input("runtimeoptions.v1.Options", b"\x1a\x02/a"), None);
        assert_eq!(shim_cgroup(&[]), None);
    }

    #[test]
    fn options_of_another_runtime_are_refused() {
        let given = |kind: &str, value: &[u8]| {
            config_path(&Any { type_url: kind.into(), value: value.to_vec(), ..Any::default() })
        };
        let runc = |value| given("containerd.runc.v1.Options", value);
        assert!(runc(b"\x32\x04crun").is_err());
        assert!(runc(b"\x20\xc0\x9a\x0c\x32\x04crun").is_err());
        assert_eq!(runc(b"\x20\xc0\x9a\x0c\x28\xc0\x9a\x0c").unwrap(), "");
        assert_eq!(given("containerd.linux.runc.CreateOptions", b"\x50\x01\x58\x01").unwrap(), "");
        assert!(given("containerd.linux.runc.CreateOptions", b"\x20\x01").is_err());
        // The shim's cgroup, alone and beside runc's OOM score or a number where a text belongs.
        assert_eq!(runc(b"\x1a\x02/a").unwrap(), "");
        assert!(runc(b"\x1a\x02/a\x08\x01").is_err() && runc(b"\x18\x01").is_err());
        assert!(given("crun.Options", b"").is_err());
    }
}
