//! The node's policy, as containerd's configuration of the runtime points at it.

use std::path::Path;

use anyhow::Context;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{CodedInputStream, rt};
use hardened_node::policy_files;
use hardened_sandbox::policy::Policy;
use hardened_sandbox::seccomp::Arch;

use crate::fault::{Fault, Result};

/// What containerd hands to a runtime that is not runc's: the options of the runtime handler, or
/// `ctr run --runtime-config-path` (containerd `api/types/runtimeoptions/v1`).
const OPTIONS: &str = "runtimeoptions.v1.Options";

/// runc's own of containerd 2 and 1.7, and the numbers of `io_uid` and `io_gid` in them (containerd
/// `api/types/runc/options`, `api/types/runctypes`).
const RUNC_OPTIONS: [(&str, [u32; 2]); 2] =
    [("containerd.runc.v1.Options", [4, 5]), ("containerd.linux.runc.CreateOptions", [10, 11])];

/// Reads the policy from the folder that the options name in `ConfigPath`, or from `/etc/hardened`.
pub(crate) fn load(options: Option<&Any>) -> Result<Policy> {
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
                "hardened: the policy folder {folder} that the runtime's options name cannot be used: {problem} -> mend \
                 ConfigPath in containerd's configuration"
            ))
        })?;
        &folder
    };
    policy_files::load(Path::new(folder), policy_files::Trust::Root, arch).map_err(|errors| {
        Fault::state(format!(
            "hardened: the node's policy cannot be used, so no container is started: {errors} -> mend it; `hardenctl \
             policy lint` checks it"
        ))
    })
}

fn config_path(options: &Any) -> Result<String> {
    let kind = options.type_url.rsplit('/').next().unwrap_or_default();
    match kind {
        OPTIONS => read_config_path(&options.value).context("decode the runtime options").map_err(Fault::from),
        _ if says_who_owns_streams(kind, &options.value) => Ok(String::new()),
        _ => Err(Fault::invalid(format!(
            "hardened: runtime options of type {kind}; expected {OPTIONS}: take options of other runtimes out of this \
             runtime's section in containerd's configuration"
        ))),
    }
}

/// Whether options are runc's, and no more than what containerd gives to every runtime for a user
/// namespace: `io_uid` and `io_gid`. The streams have their owners without.
fn says_who_owns_streams(kind: &str, bytes: &[u8]) -> bool {
    let Some((_, fields)) = RUNC_OPTIONS.iter().find(|(name, _)| *name == kind) else { return false };
    let mut input = CodedInputStream::from_bytes(bytes);
    loop {
        match input.read_raw_tag_or_eof() {
            Ok(None) => return true,
            // A varint has the wire type 0.
            Ok(Some(tag)) if fields.iter().any(|field| field << 3 == tag) && input.read_uint32().is_ok() => {}
            Ok(Some(_)) | Err(_) => return false,
        }
    }
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
        assert!(given("crun.Options", b"").is_err());
    }
}
