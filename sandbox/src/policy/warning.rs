//! What a policy may say, and a person should think twice about.

use std::fmt;
use std::path::Path;

use super::{Origin, Place, Policy, Profile};
use crate::sandbox::{Access, HostPaths};

/// Folders whose holder owns the node: its programs and configuration, its kernel's interfaces, the
/// state and the sockets of what runs there. Used for warnings alone, so it need not be whole.
const OWN_THE_NODE: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/containerd",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    // The kubelet hands out, as root, what links in there lead to.
    "/var/log",
    "/var/run",
    "/var/spool",
];

/// Something that a policy says and that gives away more than it seems to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyWarning {
    /// Where the profile or the rule is written.
    pub place: Place,
    /// What it gives away.
    pub problem: String,
}

impl fmt::Display for PolicyWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.place, self.place.column, self.problem)
    }
}

impl Policy {
    /// What is allowed to be said, and gives away more than it seems to.
    #[must_use]
    pub fn warnings(&self) -> Vec<PolicyWarning> {
        let rules = self.rules().iter().filter(|rule| rule.lets_any_image_be_privileged()).map(|rule| PolicyWarning {
            place: rule.place.clone(),
            problem: format!(
                "rule {}: its digest is not sha256: and 64 digits, so it may match several images; name each \
                 image, or set acknowledge-risk = true",
                rule.number
            ),
        });
        self.profiles().flat_map(of_profile).chain(rules).collect()
    }
}

fn of_profile(profile: &Profile) -> Vec<PolicyWarning> {
    let Origin::File(place) = profile.origin() else { return Vec::new() };
    let name = profile.name();
    let problems = profile.sandbox().host_paths().flat_map(|paths| of_paths(name, paths));
    problems.map(|problem| PolicyWarning { place: place.clone(), problem }).collect()
}

fn of_paths(name: &str, paths: &HostPaths) -> Vec<String> {
    let mut problems = Vec::new();
    if paths.other().is_some() {
        problems.push(format!(
            "profile {name}: host.other-paths other than \"deny\" protects nothing: anyone who can create a pod with \
             this profile is root on the node; name the paths in host.paths"
        ));
    }
    let mut told: Vec<&Path> = Vec::new();
    for (path, _) in paths.grants() {
        // In order: what lies above a path comes before it.
        let is_told = told.iter().any(|above| path.starts_with(above));
        if is_told || !owns_the_node(path) || paths.access(path) != Some(Access::ReadWrite) {
            continue;
        }
        told.push(path);
        problems.push(format!(
            "profile {name}: host.paths grants {} read-write: anyone who can write there is root on the node",
            path.display()
        ));
    }
    problems
}

/// Whether a folder is one of those, shows one of those, or is a part of one.
fn owns_the_node(path: &Path) -> bool {
    OWN_THE_NODE.iter().any(|own| path.starts_with(own) || Path::new(own).starts_with(path))
}
