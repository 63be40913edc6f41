//! A node, as an input describes it: what its kernel has, and what was found on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use hardened_sandbox::bundle::{FileId, NamespaceKind};
use hardened_sandbox::{AppArmor, Joined, KernelSupport, Location, Mark, Observations, VolumeSource};
use serde::Deserialize;

/// What an input says of the node; all else is as on a current one.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    landlock: Option<u32>,
    /// Mechanisms that the kernel lacks: `seccomp`, `user-namespaces`, `apparmor`, `selinux`, `raise-limits`.
    lacks: BTreeSet<String>,
    /// The AppArmor profiles that are loaded; all of them where absent.
    profiles: Option<BTreeSet<String>>,
    limits: BTreeMap<String, u64>,
    processors: BTreeSet<u32>,
    container: Option<String>,
    handler: Option<String>,
    sources: BTreeMap<PathBuf, Source>,
    places: BTreeMap<PathBuf, (String, PathBuf)>,
    untrusted: BTreeSet<PathBuf>,
    volumes: Vec<(PathBuf, (String, PathBuf))>,
    /// Namespaces that are joined, and whether they are the host's.
    joined: BTreeMap<NamespaceKind, bool>,
    labels: Vec<String>,
    devices: Vec<PathBuf>,
    mark: Option<String>,
}

/// What is at the source of a bind mount.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Source {
    path: Option<PathBuf>,
    file: bool,
    location: Option<(String, PathBuf)>,
    known_as: Option<PathBuf>,
    below: Vec<(PathBuf, (String, PathBuf))>,
}

fn location((file_system, path): (String, PathBuf)) -> Location {
    Location { file_system, path }
}

fn located(all: Vec<(PathBuf, (String, PathBuf))>) -> Vec<(PathBuf, Location)> {
    all.into_iter().map(|(path, place)| (path, location(place))).collect()
}

impl Node {
    /// The two values that a decision takes.
    pub fn values(self) -> (KernelSupport, Observations) {
        let lacks = |what: &str| self.lacks.contains(what);
        let assumed = KernelSupport::assumed();
        let kernel = KernelSupport {
            landlock_abi: self.landlock.unwrap_or(assumed.landlock_abi),
            seccomp: !lacks("seccomp"),
            user_namespaces: !lacks("user-namespaces"),
            apparmor: match self.profiles {
                _ if lacks("apparmor") => AppArmor::Off,
                Some(profiles) => AppArmor::On(profiles),
                None => AppArmor::Assumed,
            },
            selinux: !lacks("selinux"),
            may_raise_limits: !lacks("raise-limits"),
            hard_limits: self.limits,
            processors: self.processors,
            ..assumed
        };
        let source = |(spelled, source): (PathBuf, Source)| {
            let found = VolumeSource {
                path: source.path.unwrap_or_else(|| spelled.clone()),
                file: FileId { device: 1, inode: 2 },
                is_directory: !source.file,
                location: source.location.map(location),
                known_as: source.known_as,
                below: located(source.below),
            };
            (spelled, found)
        };
        let joined = |(kind, is_hosts)| (kind, Joined { file: FileId { device: 4, inode: 3 }, is_hosts });
        let observed = Observations {
            container: self.container.unwrap_or_else(|| "container".to_owned()),
            namespace: "k8s.io".to_owned(),
            handler: self.handler,
            sources: self.sources.into_iter().map(source).collect(),
            places: self.places.into_iter().map(|(path, place)| (path, location(place))).collect(),
            untrusted: self.untrusted,
            volumes: located(self.volumes),
            namespaces: self.joined.into_iter().map(joined).collect(),
            unknown_labels: self.labels,
            other_devices: self.devices,
            mark: self.mark.and_then(|digits| Mark::from_random(&digits)),
        };
        (kernel, observed)
    }
}
