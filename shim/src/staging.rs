//! What the launcher mounts below the bundle before libcontainer starts: the source of every bind
//! mount, since libcontainer would follow its path anew, and whoever may write there could have made
//! it lead elsewhere since it was judged; and the namespaces of a container in a user namespace,
//! which does not reach them by itself: its root is nobody on the host.

use std::path::Path;

use hardened_sandbox::{is_bind, is_id_mapped};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

use crate::launcher::mounts::{USERS, places};
use crate::launcher::wire::{Owners, Volume};

/// What the launcher mounts below the bundle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    pub(crate) volumes: Vec<Volume>,
    /// The user namespace, where it is to be made.
    pub(crate) users: Option<Owners>,
}

/// Rewrites a spec so that a container finds its volumes below the bundle, and one inside of a user
/// namespace its namespaces too.
pub(crate) fn stage(spec: &mut Spec, inside: bool, bundle: &Path) -> Staged {
    let places = places(bundle);
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    let mut volumes = Vec::new();
    for (number, mount) in mounts.iter_mut().enumerate() {
        let Some(source) = mount.source().clone().filter(|_| is_bind(mount)) else { continue };
        let mapped = is_id_mapped(mount);
        let mut options = mount.options().clone().unwrap_or_default();
        let has = |option: &str| options.iter().any(|o| o == option);
        let name = number.to_string();
        mount.set_source(Some(places.join(&name)));
        volumes.push(Volume {
            name,
            source,
            links: false,
            recursive: has("rbind"),
            slave: ["slave", "rslave", "shared", "rshared"].into_iter().any(has),
            owners: mapped.then(|| Owners {
                uids: lines(given(mount.uid_mappings()).or(linux.uid_mappings().as_ref())),
                gids: lines(given(mount.gid_mappings()).or(linux.gid_mappings().as_ref())),
            }),
            map_all: has("ridmap"),
        });
        options.retain(|o| o != "idmap" && o != "ridmap");
        mount.set_options(Some(options)).set_uid_mappings(None).set_gid_mappings(None);
    }
    let mut users = None;
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    for namespace in namespaces.iter_mut().filter(|_| inside) {
        match (namespace.typ(), namespace.path().clone()) {
            // Joined first, and still by root of the host.
            (LinuxNamespaceType::User, Some(_)) => {}
            // libcontainer would have it made by other programs, and refuse groups at an exec.
            (LinuxNamespaceType::User, None) => {
                namespace.set_path(Some(places.join(USERS)));
                let (uids, gids) = (lines(linux.uid_mappings().as_ref()), lines(linux.gid_mappings().as_ref()));
                users = Some(Owners { uids, gids });
            }
            (kind, Some(source)) => {
                let name = kind.to_string();
                namespace.set_path(Some(places.join(&name)));
                volumes.push(Volume {
                    name,
                    source,
                    links: true,
                    recursive: false,
                    slave: false,
                    owners: None,
                    map_all: false,
                });
            }
            (_, None) => {}
        }
    }
    linux.set_namespaces(Some(namespaces));
    spec.set_linux(Some(linux)).set_mounts(Some(mounts));
    Staged { volumes, users }
}

fn given(mappings: &Option<Vec<LinuxIdMapping>>) -> Option<&Vec<LinuxIdMapping>> {
    mappings.as_ref().filter(|list| !list.is_empty())
}

/// Mappings as the kernel reads them: user_namespaces(7).
fn lines(mappings: Option<&Vec<LinuxIdMapping>>) -> String {
    let line = |m: &LinuxIdMapping| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size());
    mappings.into_iter().flatten().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn staged(inside: bool, mount: Value, namespaces: Value) -> (Value, Staged) {
        let mut spec: Spec = serde_json::from_value(json!({
            "ociVersion": "1.2.0",
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, mount],
            "linux": {
                "namespaces": namespaces,
                "uidMappings": [{"containerID": 0, "hostID": 65536, "size": 9}],
                "gidMappings": [{"containerID": 0, "hostID": 99999, "size": 9}],
            },
        }))
        .unwrap();
        let staged = stage(&mut spec, inside, Path::new("/b"));
        (serde_json::to_value(spec).unwrap(), staged)
    }

    fn volume(name: &str, source: &str) -> Volume {
        Volume {
            name: name.into(),
            source: source.into(),
            links: false,
            recursive: false,
            slave: false,
            owners: None,
            map_all: false,
        }
    }

    #[test]
    fn a_container_of_the_hosts_users_keeps_its_namespaces() {
        let mount = json!({"destination": "/v", "type": "bind", "source": "/srv/v", "options": ["rbind"]});
        let namespaces = json!([{"type": "network", "path": "/run/netns/x"}]);
        let (spec, staged) = staged(false, mount, namespaces.clone());
        let volumes = vec![Volume { recursive: true, ..volume("1", "/srv/v") }];
        assert_eq!(staged, Staged { volumes, users: None });
        let left = json!({"destination": "/v", "type": "bind", "source": "/b/mounts/1", "options": ["rbind"]});
        assert_eq!((&spec["mounts"][1], &spec["linux"]["namespaces"]), (&left, &namespaces));
        assert_eq!(spec["mounts"][0]["source"], "proc");
    }

    #[test]
    fn owners_are_mapped_by_the_mounts_ranges_or_the_containers() {
        let own = json!([{"containerID": 0, "hostID": 7, "size": 1}]);
        let ours = |uids: &str, gids: &str| Some(Owners { uids: uids.into(), gids: gids.into() });
        for (mount, owners, map_all) in [
            (json!({"options": ["ridmap", "rbind", "ro"]}), ours("0 65536 9\n", "0 99999 9\n"), true),
            (
                json!({"options": ["rbind", "ro"], "uidMappings": own, "gidMappings": own}),
                ours("0 7 1\n", "0 7 1\n"),
                false,
            ),
        ] {
            let mut mount = mount;
            (mount["destination"], mount["source"]) = ("/v".into(), "/srv/v".into());
            let (spec, staged) = staged(false, mount, json!([]));
            let volume = Volume { recursive: true, owners, map_all, ..volume("1", "/srv/v") };
            assert_eq!(staged.volumes, [volume]);
            let left = json!({"destination": "/v", "source": "/b/mounts/1", "options": ["rbind", "ro"]});
            assert_eq!(spec["mounts"][1], left);
        }
    }

    #[test]
    fn a_user_namespace_finds_all_below_the_bundle() {
        let mount = json!({"destination": "/v", "type": "bind", "source": "/srv/v"});
        let net = json!({"type": "network", "path": "/run/netns/x"});
        let (spec, made) = staged(true, mount.clone(), json!([{"type": "user"}, net, {"type": "mount"}]));
        let users = Owners { uids: "0 65536 9\n".into(), gids: "0 99999 9\n".into() };
        let net_volume = Volume { links: true, ..volume("net", "/run/netns/x") };
        let volumes = vec![volume("1", "/srv/v"), net_volume];
        assert_eq!(made, Staged { volumes: volumes.clone(), users: Some(users) });
        assert_eq!(spec["mounts"][1]["source"], "/b/mounts/1");
        assert_eq!(
            spec["linux"]["namespaces"],
            json!([
                {"type": "user", "path": "/b/mounts/user"},
                {"type": "network", "path": "/b/mounts/net"},
                {"type": "mount"},
            ])
        );
        let (spec, joined) = staged(true, mount, json!([{"type": "user", "path": "/proc/1/ns/user"}, net]));
        assert_eq!(joined, Staged { volumes, users: None });
        assert_eq!(spec["linux"]["namespaces"][0]["path"], "/proc/1/ns/user");
    }
}
