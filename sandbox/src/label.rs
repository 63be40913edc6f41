//! AppArmor profiles and SELinux labels: names and types.

/// This product's own AppArmor profile (`configs/apparmor/hardened`). Every process is in it,
/// and what a pod asks for is stacked on top: the kernel allows what both allow.
pub const OWN_APPARMOR: &str = "hardened";

/// The same, for sandboxes that give CAP_NET_RAW.
pub(crate) const OWN_APPARMOR_RAW: &str = "hardened-raw";

/// What containerd and Docker call `RuntimeDefault`: on this runtime, its own profile.
pub(crate) const RUNTIME_DEFAULT: [&str; 3] = ["runtime/default", "cri-containerd.apparmor.d", "docker-default"];

/// Label of a process that asks for none, in words.
pub(crate) const DEFAULT_SELINUX: &str = "container_t with the pod's own categories";

/// User and role of every container. (Kubernetes' Pod Security Standards let no pod choose them.)
pub(crate) const SELINUX_PROCESS: &str = "system_u:system_r";

/// Type of a process that asks for none, and of its files: container-selinux and refpolicy.
pub(crate) const SELINUX_TYPE: &str = "container_t";
pub(crate) const SELINUX_FILE_TYPE: &str = "system_u:object_r:container_file_t";

/// Types that a pod may ask for: those of Kubernetes' Pod Security Standards, level baseline.
pub(crate) const SELINUX_TYPES: [&str; 4] =
    ["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Two of the 1024 categories by the pod's id: pods are kept apart, and containers of one pod,
/// started by different shims, are not. (FNV-1a, for an answer that no later version changes.)
pub(crate) fn level(id: &str) -> String {
    let hash =
        id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let (low, high) = (hash % 1024, (hash >> 32) % 1023);
    let high = if high >= low { high + 1 } else { high };
    format!("s0:c{},c{}", low.min(high), low.max(high))
}

/// Whether any pod may ask for a label of this type, at whatever level.
pub(crate) fn is_baseline(label: &str) -> bool {
    has_user_and_role(label) && is_baseline_type(type_of(label))
}

/// Whether any pod may ask for this type.
pub(crate) fn is_baseline_type(kind: &str) -> bool {
    SELINUX_TYPES.contains(&kind)
}

pub(crate) fn type_of(label: &str) -> &str {
    label.split(':').nth(2).unwrap_or_default()
}

pub(crate) fn has_user_and_role(label: &str) -> bool {
    label.strip_prefix(SELINUX_PROCESS).is_some_and(|rest| rest.starts_with(':'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn pods_are_kept_apart_by_two_categories_that_differ() {
        let mut seen = BTreeSet::new();
        for n in 0..1000 {
            let level = level(&format!("pod-{n}"));
            let categories: Vec<u32> = level
                .strip_prefix("s0:c")
                .and_then(|c| c.split_once(",c"))
                .map(|(low, high)| [low, high].map(|c| c.parse().unwrap_or(9999)).to_vec())
                .unwrap_or_default();
            assert!(matches!(categories[..], [low, high] if low < high && high < 1024), "{level}");
            seen.insert(level);
        }
        assert!(seen.len() > 990, "{}", seen.len());
        assert_eq!(level("pod"), "s0:c615,c748", "the answer is the same for ever");
    }
}
