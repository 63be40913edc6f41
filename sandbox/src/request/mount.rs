//! Mounts, as a spec asks for them.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::ranges;
use crate::bundle::{IdMapping, IdMappings, MountFlag, MountFlags, MountKind, Propagation};
use crate::path;
use crate::refusal::Violation;

/// A mount that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MountRequest {
    pub(crate) destination: PathBuf,
    pub(crate) kind: RequestedKind,
    pub(crate) flags: MountFlags,
    pub(crate) recursive_flags: MountFlags,
    /// Whether mounts in the container would reach the host.
    pub(crate) shared: bool,
}

/// What is to be mounted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RequestedKind {
    /// Files of the host.
    Bind {
        /// As the spec spells it: absolute, without `..`.
        source: PathBuf,
        /// Whether mounts below come along.
        recursive: bool,
        /// How mounts of the host come along later.
        propagation: Propagation,
        /// Whether the owners are to be mapped, and in the mounts below too.
        mapped: Option<Mapped>,
    },
    /// A file system of the container's own.
    FileSystem(MountKind),
}

/// Owners of a mount that are mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// The mount's own ranges; absent for those of the container.
    pub(crate) own: Option<IdMappings>,
    pub(crate) recursive: bool,
}

/// Options of tmpfs and devpts that are known, with a value or without: tmpfs(5), mount(8).
const TMPFS_DATA: &[&str] = &["size=", "mode=", "uid=", "gid=", "nr_inodes=", "nr_blocks="];
const DEVPTS_DATA: &[&str] = &["newinstance", "ptmxmode=", "mode=", "gid=", "uid=", "max="];
/// Options of cgroup v2, which containerd copies from the host's mount for a privileged container
/// (Documentation/admin-guide/cgroup-v2.rst). A bind of the container's own cgroup has none.
const CGROUP_DATA: &[&str] = &[
    "nsdelegate",
    "favordynmods",
    "memory_localevents",
    "memory_recursiveprot",
    "memory_hugetlb_accounting",
    "pids_localevents",
];
const PROC_DATA: &[&str] = &["hidepid=", "subset=pid", "gid="];

/// All that the options of a mount say, with the last word on each.
#[derive(Default)]
struct Options {
    flags: MountFlags,
    recursive_flags: MountFlags,
    recursive: bool,
    bind: bool,
    slave: bool,
    shared: bool,
    idmap: bool,
    ridmap: bool,
    data: Vec<String>,
}

pub(super) fn parse_all(mounts: &[Mount], errors: &mut Vec<Violation>) -> Vec<MountRequest> {
    mounts.iter().filter_map(|mount| parse(mount, errors)).collect()
}

fn parse(mount: &Mount, errors: &mut Vec<Violation>) -> Option<MountRequest> {
    let field = format!("mounts[{}]", mount.destination().display());
    let mut wrong = |problem: String, advice: &str| errors.push(Violation::invalid(&field, problem, advice));
    // Relative destinations are from the root: OCI runtime spec, "Mounts".
    let destination = path::absolute(&Path::new("/").join(mount.destination()));
    let Some(destination) = destination.filter(|path| path != Path::new("/")) else {
        wrong("is not a path below / without ..".to_owned(), "mount it elsewhere");
        return None;
    };
    let kind = mount.typ().as_deref().unwrap_or_default();
    let options = match options(mount) {
        Ok(options) => options,
        Err(option) => {
            wrong(format!("{option:?} is not an option that may be given"), "leave it out");
            return None;
        }
    };
    let is_bind = kind == "bind" || options.bind;
    let known: &[&str] = match kind {
        _ if is_bind => &[],
        "tmpfs" => TMPFS_DATA,
        "devpts" => DEVPTS_DATA,
        "proc" => PROC_DATA,
        "cgroup" | "cgroup2" => CGROUP_DATA,
        _ => &[],
    };
    let is_known = |option: &str| {
        known.iter().any(|k| if k.ends_with('=') { option.starts_with(k) } else { option == *k })
            && option.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'%' | b'_'))
    };
    if let Some(option) = options.data.iter().find(|option| !is_known(option)) {
        wrong(format!("{option:?} is not an option that may be given"), "leave it out");
        return None;
    }
    let kind = if is_bind {
        let mapped = mapped(mount, &options, &field, errors);
        RequestedKind::Bind {
            source: source(mount, &field, errors)?,
            recursive: options.recursive,
            propagation: if options.slave || options.shared { Propagation::Slave } else { Propagation::Private },
            mapped,
        }
    } else {
        if options.idmap || options.ridmap || mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            wrong("only bind mounts can have their ids mapped".to_owned(), "leave idmap out");
        }
        RequestedKind::FileSystem(match kind {
            "proc" => MountKind::Proc { data: options.data },
            "sysfs" => MountKind::Sysfs,
            "tmpfs" => MountKind::Tmpfs(options.data),
            "devpts" => MountKind::Devpts(options.data),
            "mqueue" => MountKind::Mqueue,
            "cgroup" | "cgroup2" => MountKind::Cgroup,
            other => {
                errors.push(Violation::policy(
                    &field,
                    format!("a file system of type {other:?} is mounted"),
                    "mount it on the host, and that folder here (bind); or one of cgroup, cgroup2, devpts, mqueue, \
                     proc, sysfs, tmpfs",
                ));
                return None;
            }
        })
    };
    Some(MountRequest {
        destination,
        kind,
        flags: options.flags,
        recursive_flags: options.recursive_flags,
        shared: options.shared,
    })
}

fn source(mount: &Mount, field: &str, errors: &mut Vec<Violation>) -> Option<PathBuf> {
    let given = mount.source().as_deref().unwrap_or(Path::new(""));
    let source = path::absolute(given);
    if source.is_none() {
        let problem = format!("source {:?}", given.display().to_string());
        errors.push(Violation::invalid(field, problem, "give an absolute path without .."));
    }
    source
}

/// Reads the options of mount(8) and of the OCI spec's "Linux mount options": the last word on each
/// flag holds, and a recursive one is one for the mount itself too.
fn options(mount: &Mount) -> Result<Options, String> {
    let mut read = Options::default();
    for option in mount.options().iter().flatten() {
        let (recursive, name) = match option.strip_prefix('r') {
            Some(name) if is_recursive(name) => (true, name),
            Some(_) | None => (false, option.as_str()),
        };
        let (set, flag) = match name {
            "defaults" => continue,
            "bind" => {
                read.bind = true;
                continue;
            }
            "rbind" => {
                (read.bind, read.recursive) = (true, true);
                continue;
            }
            "private" | "rprivate" | "unbindable" | "runbindable" => {
                (read.slave, read.shared) = (false, false);
                continue;
            }
            "slave" | "rslave" => {
                (read.slave, read.shared) = (true, false);
                continue;
            }
            "shared" | "rshared" => {
                (read.slave, read.shared) = (false, true);
                continue;
            }
            "idmap" => {
                read.idmap = true;
                continue;
            }
            "ridmap" => {
                read.ridmap = true;
                continue;
            }
            "ro" => (true, MountFlag::ReadOnly),
            "rw" => (false, MountFlag::ReadOnly),
            "nosuid" => (true, MountFlag::NoSuid),
            "suid" => (false, MountFlag::NoSuid),
            "nodev" => (true, MountFlag::NoDev),
            "dev" => (false, MountFlag::NoDev),
            "noexec" => (true, MountFlag::NoExec),
            "exec" => (false, MountFlag::NoExec),
            "nosymfollow" => (true, MountFlag::NoSymFollow),
            "symfollow" => (false, MountFlag::NoSymFollow),
            "noatime" => (true, MountFlag::NoAtime),
            "atime" => (false, MountFlag::NoAtime),
            "nodiratime" => (true, MountFlag::NoDirAtime),
            "diratime" => (false, MountFlag::NoDirAtime),
            "relatime" => (true, MountFlag::RelAtime),
            "norelatime" => (false, MountFlag::RelAtime),
            "strictatime" => (true, MountFlag::StrictAtime),
            "nostrictatime" => (false, MountFlag::StrictAtime),
            data if !data.is_empty() => {
                read.data.push(data.to_owned());
                continue;
            }
            _ => return Err(option.clone()),
        };
        // These three exclude one another: mount_setattr(2), `MOUNT_ATTR__ATIME`.
        let times = [MountFlag::NoAtime, MountFlag::RelAtime, MountFlag::StrictAtime];
        for flags in [Some(&mut read.flags), recursive.then_some(&mut read.recursive_flags)].into_iter().flatten() {
            if set && times.contains(&flag) {
                times.into_iter().for_each(|other| flags.remove(other));
            }
            if set { flags.insert(flag) } else { flags.remove(flag) }
        }
        // The last word on a flag holds for the mounts below too.
        if !set {
            read.recursive_flags.remove(flag);
        }
    }
    Ok(read)
}

/// Whether an option has a recursive twin: OCI runtime spec, "Linux mount options".
fn is_recursive(name: &str) -> bool {
    const TWINS: &[&str] = &[
        "ro",
        "rw",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "nosymfollow",
        "symfollow",
        "noatime",
        "atime",
        "nodiratime",
        "diratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
    ];
    TWINS.contains(&name)
}

fn mapped(mount: &Mount, options: &Options, field: &str, errors: &mut Vec<Violation>) -> Option<Mapped> {
    let own = IdMappings { uids: ranges(mount.uid_mappings().as_ref()), gids: ranges(mount.gid_mappings().as_ref()) };
    let asked = options.idmap || options.ridmap || mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
    if !asked {
        return None;
    }
    let own = match (own.uids.is_empty(), own.gids.is_empty()) {
        (true, true) => None,
        (false, false) => {
            for (name, ranges) in [("uidMappings", &own.uids), ("gidMappings", &own.gids)] {
                check_ranges(&format!("{field}.{name}"), ranges, errors);
            }
            Some(own)
        }
        _ => {
            let problem = "uidMappings and gidMappings belong together";
            errors.push(Violation::invalid(field, problem, "give both, or leave idmap out"));
            None
        }
    };
    Some(Mapped { own, recursive: options.ridmap })
}

/// Refuses ranges that reach beyond the ids that there are.
pub(super) fn check_ranges(field: &str, ranges: &[IdMapping], errors: &mut Vec<Violation>) {
    for IdMapping { container, host, size } in ranges {
        if *size == 0 || host.checked_add(*size).is_none() || container.checked_add(*size).is_none() {
            let problem = format!("{size} ids from {host} on are no range");
            errors.push(Violation::invalid(field, problem, "map ids from 0 on to a range of the host above 0"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: &[&str]) -> Options {
        let mount = json!({"destination": "/v", "type": "bind", "source": "/s", "options": options});
        super::options(&serde_json::from_value(mount).unwrap()).unwrap_or_default()
    }

    #[test]
    fn the_last_word_on_each_flag_holds() {
        let ro = MountFlags::of(&[MountFlag::ReadOnly]);
        for (options, flags, below) in [
            (&["rrw", "ro"][..], &ro, &MountFlags::EMPTY),
            (&["rro", "rw"], &MountFlags::EMPTY, &MountFlags::EMPTY),
            (&["rro"], &ro, &ro),
            (&["ro", "rrw"], &MountFlags::EMPTY, &MountFlags::EMPTY),
            (&["rro", "ro"], &ro, &ro),
            (&["nosuid", "suid", "rsuid", "dev", "rexec"], &MountFlags::EMPTY, &MountFlags::EMPTY),
        ] {
            let read = read(options);
            assert_eq!((&read.flags, &read.recursive_flags), (flags, below), "{options:?}");
        }
        assert_eq!(read(&["relatime", "noatime"]).flags, MountFlags::of(&[MountFlag::NoAtime]));
        assert!(read(&["rshared", "rprivate", "rslave"]).slave && !read(&["rslave", "rshared"]).slave);
    }
}
