//! A foreign OCI spec must be decided on without a panic, and what is admitted must be hardened.
#![no_main]

use hardened_sandbox::profile::Profile;
use hardened_sandbox::{Facts, Host, LockdownPlan, decide};
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::Spec;

fn host() -> Host {
    Host {
        landlock_abi: 7,
        seccomp: true,
        memfd_noexec: true,
        apparmor: false,
        selinux: false,
        may_raise_limits: false,
        oom_score_adj: 0,
        hard_limits: [("RLIMIT_NOFILE".to_owned(), 1024)].into(),
        processors: 2,
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<Spec>(data) else { return };
    let host = host();
    let admission = match decide(spec, &host, &Facts::default()) {
        Ok(admission) => admission,
        Err(refusal) => {
            assert!(!refusal.violations().is_empty() && !refusal.to_string().is_empty());
            return;
        }
    };
    let process = admission.spec().process().as_ref().expect("an admitted spec has a process");
    assert_eq!(process.no_new_privileges(), Some(true));
    let plan = admission.plan();
    assert!(plan.capabilities.bounding.is_subset(Profile::BASELINE.capabilities()));
    assert!(plan.capabilities.ambient.is_subset(Profile::BASELINE.capabilities()));
    let linux = admission.spec().linux().as_ref().expect("an admitted spec has a linux section");
    assert!(linux.seccomp().is_none() && linux.masked_paths().as_ref().is_some_and(|p| p.len() > 10));
    let bytes = plan.encode().expect("a plan that was made can be encoded");
    assert_eq!(&LockdownPlan::decode(&bytes).expect("and decoded"), plan);
    // An exec of the same process is admitted too, and gets no more.
    let exec = admission.decide_exec(process.clone()).expect("the container's own process may be executed");
    assert_eq!(exec.plan().capabilities, plan.capabilities);
    assert_eq!(exec.plan().seccomp, plan.seccomp);
});
