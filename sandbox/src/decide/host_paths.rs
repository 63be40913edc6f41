//! Files of the host: which are the pod's own, and which the profile grants.
//!
//! What the kubelet and containerd keep for this pod is known by the exact form of its path. All else
//! is the host's, and is compared with what the profile grants by where both really lie: the file
//! system and the path in it. So it does not matter by how many paths the host shows a file.

use std::cmp::Ordering;
use std::path::{Component, Path, PathBuf};

use crate::observations::{Location, Observations, VolumeSource};
use crate::request::Request;
use crate::sandbox::{Access, HostPaths, Sandbox};

/// Volumes that the kubelet fills by itself, as root, following names in them: nobody else writes there
/// (Kubernetes `pkg/volume/util/atomic_writer.go`; read-only since CVE-2017-1002102).
const WRITTEN_BY_KUBELET: &[&str] =
    &["kubernetes.io~configmap", "kubernetes.io~downward-api", "kubernetes.io~projected", "kubernetes.io~secret"];

/// Files of a pod's sandbox (containerd `internal/cri/server/sandbox_run_linux.go`).
const SANDBOX_FILES: &[&str] = &["hostname", "hosts", "resolv.conf", "shm"];

/// What the source of a bind mount is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Kept by the kubelet or containerd for this very pod.
    Own {
        /// Whether it is never to be written to.
        read_only: bool,
    },
    /// A path of the host.
    Hosts {
        /// How the profile grants it; `None` is not at all.
        access: Option<Access>,
        /// What it is, in the words of a message.
        what: String,
    },
}

/// Judges the source of a bind mount.
pub(crate) fn judge(
    spelled: &Path,
    recursive: bool,
    request: &Request,
    sandbox: &Sandbox,
    observed: &Observations,
) -> Verdict {
    let source = observed.source(spelled);
    let real = source.map_or(spelled, |source| source.path.as_path());
    // Both as spelled and as found: a link that somebody planted has no such form, or another end.
    if let (Some(own), Some(found)) = (Own::of(spelled, request, observed), Own::of(real, request, observed))
        && own == found
    {
        match own {
            Own::Kept { read_only, .. } => return Verdict::Own { read_only },
            Own::PartOfVolume => {
                if let Some(read_only) = source.and_then(|source| volume_of(source, observed)) {
                    return Verdict::Own { read_only };
                }
            }
        }
    }
    let access = granted(spelled, source, recursive, sandbox, observed);
    let what = match source {
        Some(VolumeSource { known_as: Some(path), .. }) => path.display().to_string(),
        Some(source) if source.path != *spelled => {
            format!("{} (which is {})", spelled.display(), source.path.display())
        }
        Some(_) | None => spelled.display().to_string(),
    };
    match access {
        Ok(access) => Verdict::Hosts { access, what },
        Err(below) => Verdict::Hosts { access: None, what: format!("{what}, with {below} mounted below it,") },
    }
}

/// Sources of bind mounts that are not kept for the pod as a whole, as far as was observed yet, and
/// whether mounts below come along: to judge them takes where they lie.
pub fn sources_to_locate<'a>(
    request: &'a Request,
    observed: &'a Observations,
) -> impl Iterator<Item = (&'a Path, bool)> {
    request.sources().filter(|(spelled, _)| {
        let real = observed.source(spelled).map_or(*spelled, |source| source.path.as_path());
        let (own, found) = (Own::of(spelled, request, observed), Own::of(real, request, observed));
        !matches!((&own, &found), (Some(Own::Kept { .. }), Some(Own::Kept { .. })) if own == found)
    })
}

/// The folder in which the kubelet keeps the volumes of the pod, where a path is that of a part of one.
#[must_use]
pub fn folder_of_volumes(request: &Request, part: &Path) -> Option<PathBuf> {
    let pod = part.ancestors().nth(4)?;
    let is_pods = pod.file_name().and_then(|name| name.to_str()) == request.identity.pod_uid.as_deref();
    let is_part = part.ancestors().nth(3)?.file_name()? == "volume-subpaths";
    (is_pods && is_part).then(|| pod.join("volumes"))
}

/// Something that is kept for this pod, by the end of its path.
#[derive(Debug, PartialEq, Eq)]
enum Own<'a> {
    Kept {
        end: &'a Path,
        read_only: bool,
    },
    /// The kubelet mounts it separately, whatever the volume is, a `hostPath` too: the path does not tell.
    PartOfVolume,
}

impl<'a> Own<'a> {
    fn of(path: &'a Path, request: &Request, observed: &Observations) -> Option<Self> {
        let identity = &request.identity;
        let names: Vec<&str> = path
            .components()
            .map(|part| match part {
                Component::Normal(name) => name.to_str(),
                Component::RootDir => Some("/"),
                Component::Prefix(_) | Component::CurDir | Component::ParentDir => None,
            })
            .collect::<Option<_>>()?;
        let kept = |length: usize, read_only: bool| {
            let start = names.len().checked_sub(length).filter(|start| *start > 0)?;
            let before: PathBuf = names.get(..start)?.iter().collect();
            Some(Self::Kept { end: path.strip_prefix(before).ok()?, read_only })
        };
        let (uid, sandbox) = (identity.pod_uid.as_deref(), identity.sandbox_id.as_deref());
        let is = |name: &str, id: Option<&str>| id.is_some_and(|id| id == name);
        match names.as_slice() {
            [_, .., "pods", pod, "volumes", plugin, _] if is(pod, uid) && *plugin != "kubernetes.io~csi" => {
                kept(5, WRITTEN_BY_KUBELET.contains(plugin))
            }
            // Where CSI drivers mount (Kubernetes `pkg/volume/csi/csi_mounter.go`).
            [_, .., "pods", pod, "volumes", "kubernetes.io~csi", _, "mount"] if is(pod, uid) => kept(6, false),
            [_, .., "pods", pod, "etc-hosts"] if is(pod, uid) => kept(3, false),
            // The termination log.
            [_, .., "pods", pod, "containers", name, _] if is(pod, uid) && is(name, identity.container.as_deref()) => {
                kept(5, false)
            }
            [_, .., "pods", pod, "volume-subpaths", _, name, number]
                if is(pod, uid)
                    && is(name, identity.container.as_deref())
                    && number.bytes().all(|b| b.is_ascii_digit()) =>
            {
                Some(Self::PartOfVolume)
            }
            [_, .., "sandboxes", id, file] if is(id, sandbox) && SANDBOX_FILES.contains(file) => kept(3, false),
            // Volumes that an image declares, and volumes that are images.
            [_, .., "containers", id, "volumes", _] if uid.is_some() && *id == observed.container => kept(4, false),
            [_, .., "image-volumes", id, _] if is(id, sandbox) => kept(3, true),
            [_, .., "image-volumes", id, _, _] if is(id, sandbox) => kept(4, true),
            _ => None,
        }
    }
}

/// Whether a part of a volume lies in one that the kubelet keeps for this pod, and is never to be
/// written to.
fn volume_of(part: &VolumeSource, observed: &Observations) -> Option<bool> {
    let location = part.location.as_ref()?;
    // The innermost: volumes lie beside one another, but a file system may hold the folder of all.
    let (path, _) = observed
        .volumes
        .iter()
        .filter(|(_, volume)| location.is_within(volume))
        .max_by_key(|(_, volume)| volume.path.as_os_str().len())?;
    Some(path.components().any(|part| WRITTEN_BY_KUBELET.iter().any(|plugin| part.as_os_str() == *plugin)))
}

/// How every profile that the sandbox is the meet of grants a source, with all that is mounted below
/// it; or what below is not granted.
fn granted(
    spelled: &Path,
    source: Option<&VolumeSource>,
    recursive: bool,
    sandbox: &Sandbox,
    observed: &Observations,
) -> Result<Option<Access>, String> {
    let Some((source, location)) = source.and_then(|source| Some((source, source.location.as_ref()?))) else {
        // Nobody has looked where it lies: by its names.
        return Ok(sandbox.access(spelled).min(sandbox.access(source.map_or(spelled, |source| &source.path))));
    };
    let of = |location: &Location| {
        let each = sandbox.host_paths.iter().map(|paths| access_at(paths, location, observed));
        each.min().unwrap_or(Some(Access::ReadWrite))
    };
    let mut access = of(location);
    if access.is_some() && recursive {
        for (path, location) in &source.below {
            let below = of(location);
            if below.is_none() {
                return Err(path.display().to_string());
            }
            access = access.min(below);
        }
    }
    Ok(access)
}

/// How a profile grants what lies at a place: by the rule whose own place is innermost around it, as far
/// as all rules whose places lie below allow the same.
fn access_at(paths: &HostPaths, location: &Location, observed: &Observations) -> Option<Access> {
    let trusted = |path: &Path, access| if observed.untrusted.contains(path) { None } else { access };
    let places = || paths.grants().filter_map(|(path, access)| Some((path, access, observed.places.get(path)?)));
    let around = places().filter_map(|(path, _, place)| {
        let rest = location.path.strip_prefix(&place.path).ok().filter(|_| location.is_within(place))?;
        let named: PathBuf = path.join(rest).components().collect();
        Some((place.path.components().count(), trusted(path, paths.access(&named))))
    });
    // Two paths of one place: the stricter.
    let innermost = around.reduce(|one, other| match one.0.cmp(&other.0) {
        Ordering::Greater => one,
        Ordering::Less => other,
        Ordering::Equal => (one.0, one.1.min(other.1)),
    });
    let own = innermost.map_or(paths.other(), |(_, access)| access);
    let below = places().filter(|(_, _, place)| place.is_within(location) && *place != location);
    below.map(|(path, access, _)| trusted(path, access)).fold(own, Option::min)
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;
    use serde_json::json;

    use super::*;

    fn request() -> Request {
        let spec: Spec = serde_json::from_value(json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}},
            "linux": {},
            "annotations": {
                "io.kubernetes.cri.sandbox-uid": "uid-1",
                "io.kubernetes.cri.sandbox-id": "box",
                "io.kubernetes.cri.container-name": "web",
            },
        }))
        .unwrap();
        Request::parse(&spec).unwrap()
    }

    fn at(file_system: &str, path: &str) -> Location {
        Location { file_system: file_system.into(), path: path.into() }
    }

    #[test]
    fn what_is_kept_for_the_pod_is_known_by_the_exact_form_of_its_path() {
        let observed = Observations { container: "ctr".into(), ..Observations::default() };
        let request = request();
        let kubelet = "/var/lib/kubelet/pods/uid-1";
        let cri = "/run/containerd/io.containerd.grpc.v1.cri";
        for (path, read_only) in [
            (format!("{kubelet}/volumes/kubernetes.io~empty-dir/data"), false),
            (format!("{kubelet}/volumes/kubernetes.io~csi/pv/mount"), false),
            (format!("{kubelet}/volumes/kubernetes.io~secret/token"), true),
            (format!("{kubelet}/volumes/kubernetes.io~projected/kube-api-access"), true),
            (format!("{kubelet}/etc-hosts"), false),
            (format!("{kubelet}/containers/web/0a1b2c3d"), false),
            (format!("{cri}/sandboxes/box/resolv.conf"), false),
            (format!("{cri}/containers/ctr/volumes/0a1b"), false),
            (format!("{cri}/image-volumes/box/0a1b"), true),
        ] {
            let own = Own::of(Path::new(&path), &request, &observed);
            assert!(matches!(own, Some(Own::Kept { read_only: ro, .. }) if ro == read_only), "{path}: {own:?}");
        }
        for path in [
            "/var/lib/kubelet/pods".to_owned(),
            kubelet.to_owned(),
            format!("{kubelet}/volumes"),
            format!("{kubelet}/volumes/kubernetes.io~empty-dir"),
            format!("{kubelet}/volumes/kubernetes.io~empty-dir/data/below"),
            format!("{kubelet}/volumes/kubernetes.io~csi/pv"),
            format!("{kubelet}/containers/web"),
            format!("{kubelet}/containers/other/0a1b2c3d"),
            format!("{kubelet}/etc-hosts/x"),
            "/var/lib/kubelet/pods/uid-2/volumes/kubernetes.io~empty-dir/data".to_owned(),
            "pods/uid-1/etc-hosts".to_owned(),
            format!("{cri}/sandboxes/box"),
            format!("{cri}/sandboxes/box/rootfs"),
            format!("{cri}/sandboxes/other/hosts"),
            format!("{cri}/containers/other/volumes/x"),
        ] {
            assert_eq!(Own::of(Path::new(&path), &request, &observed), None, "{path}");
        }
    }

    #[test]
    fn a_part_of_a_volume_is_judged_by_where_it_lies() {
        let spelled = Path::new("/var/lib/kubelet/pods/uid-1/volume-subpaths/v/web/0");
        let volumes = "/var/lib/kubelet/pods/uid-1/volumes";
        let verdict = |location: Location| {
            let source = VolumeSource {
                path: spelled.into(),
                file: crate::bundle::FileId { device: 1, inode: 1 },
                is_directory: true,
                location: Some(location),
                known_as: None,
                below: Vec::new(),
            };
            let observed = Observations {
                sources: [(spelled.to_owned(), source)].into(),
                volumes: vec![
                    (format!("{volumes}/kubernetes.io~empty-dir/data").into(), at("8:1", "/k/empty-dir/data")),
                    (format!("{volumes}/kubernetes.io~configmap/cm").into(), at("8:1", "/k/configmap/cm")),
                    (format!("{volumes}/kubernetes.io~csi/pv/mount").into(), at("8:17", "/")),
                ],
                ..Observations::default()
            };
            let mut sandbox = crate::profile::BuiltIn::Baseline.sandbox(crate::seccomp::Arch::X86_64);
            sandbox.host_paths = [HostPaths::none()].into();
            judge(spelled, true, &request(), &sandbox, &observed)
        };
        assert_eq!(verdict(at("8:1", "/k/empty-dir/data/sub")), Verdict::Own { read_only: false });
        assert_eq!(verdict(at("8:1", "/k/configmap/cm/key")), Verdict::Own { read_only: true });
        assert_eq!(verdict(at("8:17", "/sub")), Verdict::Own { read_only: false });
        for hosts in [at("8:1", "/k"), at("8:1", "/etc"), at("8:2", "/k/empty-dir/data/sub"), at("8:1", "/")] {
            assert!(matches!(verdict(hosts.clone()), Verdict::Hosts { access: None, .. }), "{hosts:?}");
        }
    }

    #[test]
    fn grants_are_compared_by_place_and_with_what_is_mounted_below() {
        let rules = [
            ("/srv", Some(Access::ReadWrite)),
            ("/srv/secret", None),
            ("/data/disk", Some(Access::ReadOnly)),
            ("/gone", Some(Access::ReadWrite)),
        ];
        let mut paths = HostPaths::none();
        for (path, access) in rules {
            paths.set(path.into(), access);
        }
        let mut sandbox = crate::profile::BuiltIn::Baseline.sandbox(crate::seccomp::Arch::X86_64);
        sandbox.host_paths = [paths].into();
        let observed = Observations {
            places: [
                ("/srv".into(), at("8:1", "/srv")),
                ("/srv/secret".into(), at("8:1", "/srv/secret")),
                ("/data/disk".into(), at("8:17", "/")),
            ]
            .into(),
            ..Observations::default()
        };
        let access = |location: Location, below: &[Location]| {
            let source = VolumeSource {
                path: "/x".into(),
                file: crate::bundle::FileId { device: 1, inode: 1 },
                is_directory: true,
                location: Some(location),
                known_as: None,
                below: below.iter().map(|location| ("/x/below".into(), location.clone())).collect(),
            };
            granted(Path::new("/x"), Some(&source), true, &sandbox, &observed)
        };
        assert_eq!(access(at("8:1", "/srv/a"), &[]), Ok(Some(Access::ReadWrite)));
        // By whatever path: another name of what is denied, and of what is granted nowhere.
        assert_eq!(access(at("8:1", "/srv/secret/x"), &[]), Ok(None));
        assert_eq!(access(at("8:1", "/srv"), &[]), Ok(None), "it shows what is denied");
        assert_eq!(access(at("8:1", "/etc/ssh"), &[]), Ok(None));
        assert_eq!(access(at("8:1", "/"), &[]), Ok(None));
        assert_eq!(access(at("8:17", "/y"), &[]), Ok(Some(Access::ReadOnly)));
        // A link that a container may have made grants nothing, and still denies.
        let observed = Observations { untrusted: ["/srv".into()].into(), ..observed.clone() };
        let source = VolumeSource {
            path: "/x".into(),
            file: crate::bundle::FileId { device: 1, inode: 1 },
            is_directory: true,
            location: Some(at("8:1", "/srv/a")),
            known_as: None,
            below: Vec::new(),
        };
        assert_eq!(granted(Path::new("/x"), Some(&source), true, &sandbox, &observed), Ok(None));
        // What is mounted below comes along.
        assert_eq!(access(at("8:1", "/srv/a"), &[at("8:1", "/etc/ssh")]), Err("/x/below".to_owned()));
        assert_eq!(access(at("8:1", "/srv/a"), &[at("8:17", "/")]), Ok(Some(Access::ReadOnly)));
    }
}
