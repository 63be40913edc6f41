//! Who a container is, as far as the node can tell.

use std::collections::HashMap;
use std::path::Path;

/// Annotations that containerd's CRI sets itself, after it has copied the pod's: a pod cannot
/// choose them (containerd `internal/cri/annotations`).
const NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
const POD: &str = "io.kubernetes.cri.sandbox-name";
const POD_UID: &str = "io.kubernetes.cri.sandbox-uid";
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
const CONTAINER: &str = "io.kubernetes.cri.container-name";
const IMAGE: &str = "io.kubernetes.cri.image-name";
const KIND: &str = "io.kubernetes.cri.container-type";

/// The pod's own sandbox (pause) container, or one of the containers that a pod lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The pause container, which holds the pod's namespaces.
    Sandbox,
    /// An init, app, sidecar or ephemeral container.
    Container,
}

/// Facts that rules select by. All but the handler are absent for a container that `ctr` started.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Kubernetes namespace. Chosen by anyone who may create pods there.
    pub namespace: Option<String>,
    /// Pod name. Chosen by the pod's author.
    pub pod: Option<String>,
    /// Pod UID. Chosen by the API server.
    pub pod_uid: Option<String>,
    /// The sandbox's id. Chosen by containerd.
    pub sandbox_id: Option<String>,
    /// Container name. Chosen by the pod's author.
    pub container: Option<String>,
    /// Image reference. Chosen by the pod's author, but for its digest, which names the content.
    pub image: Option<String>,
    /// Which kind of container.
    pub kind: Option<Kind>,
    /// Runtime handler, by [`handler_of`]. Chosen by the pod's author, who names a RuntimeClass.
    pub handler: Option<String>,
}

/// The runtime handler that a shim serves: NAME of `containerd-shim-NAME-v1`, as which containerd
/// calls the program for the runtime type `io.containerd.NAME.v1`. containerd tells a shim nothing
/// else by which handlers could be told apart.
#[must_use]
pub fn handler_of(program: &Path) -> Option<&str> {
    let name = program.file_name()?.to_str()?;
    name.strip_prefix("containerd-shim-")?.strip_suffix("-v1").filter(|handler| !handler.is_empty())
}

impl Identity {
    /// Reads the CRI's annotations, which do not tell the handler.
    #[must_use]
    pub fn from_annotations(annotations: Option<&HashMap<String, String>>) -> Self {
        let get = |key| annotations.and_then(|a| a.get(key)).filter(|v| !v.is_empty()).cloned();
        Self {
            namespace: get(NAMESPACE),
            pod: get(POD),
            pod_uid: get(POD_UID),
            sandbox_id: get(SANDBOX_ID),
            container: get(CONTAINER),
            image: get(IMAGE),
            kind: match get(KIND).as_deref() {
                Some("sandbox") => Some(Kind::Sandbox),
                Some("container") => Some(Kind::Container),
                Some(_) | None => None,
            },
            handler: None,
        }
    }

    /// The pod's name and the container's in it, as `NAMESPACE/POD CONTAINER`; absent for a container that `ctr` started.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let (namespace, pod) = (self.namespace.as_deref()?, self.pod.as_deref()?);
        Some(format!("{namespace}/{pod} {}", self.container.as_deref().unwrap_or_default()).trim().to_owned())
    }

    /// The digest in the image reference: `sha256:` and 64 digits.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        let image = self.image.as_deref()?;
        let digest = image.rsplit_once('@').map_or(image, |(_, digest)| digest);
        let digits = digest.strip_prefix("sha256:")?;
        (digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_found_where_there_is_one() {
        let hex = "0123456789abcdef".repeat(4);
        let of = |image: &str| Identity { image: Some(image.to_owned()), ..Identity::default() };
        for image in [format!("registry/web@sha256:{hex}"), format!("sha256:{hex}")] {
            assert_eq!(of(&image).digest(), Some(format!("sha256:{hex}").as_str()));
        }
        for image in ["registry/web:1", "registry/web@sha256:short", "sha256:"] {
            assert_eq!(of(image).digest(), None);
        }
    }

    #[test]
    fn a_shim_tells_its_handler_by_the_name_that_it_is_called_by() {
        let of = |program: &'static str| handler_of(Path::new(program));
        assert_eq!(of("/usr/local/bin/containerd-shim-hardened-v1"), Some("hardened"));
        assert_eq!(of("containerd-shim-hardened-strict-v1"), Some("hardened-strict"));
        for other in ["/opt/shim", "containerd-shim--v1", "containerd-shim-v1", "containerd-shim-runc-v2", "/"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
