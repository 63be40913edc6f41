//! A foreign OCI spec must be decided on without a panic, and what is admitted must be hardened.
#![no_main]

use hardened_sandbox::policy::Policy;
use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{Observations, KernelSupport, LockdownPlan, decide};
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::Spec;

fuzz_target!(|data: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<Spec>(data) else { return };
    let arch = Arch::native().expect("an architecture that we know");
    let baseline = BuiltIn::Baseline.sandbox(arch).capabilities();
    let admission = match decide(spec, &Policy::built_in(arch), &KernelSupport::assumed(), &Observations::default()) {
        Ok(admission) => admission,
        Err(refusal) => {
            assert!(!refusal.violations().is_empty() && !refusal.to_string().is_empty());
            return;
        }
    };
    let process = admission.spec().process().as_ref().expect("an admitted spec has a process");
    assert_eq!(process.no_new_privileges(), Some(true));
    let plan = admission.plan();
    assert!(plan.capabilities.bounding.is_subset(baseline));
    assert!(plan.capabilities.ambient.is_subset(baseline));
    let linux = admission.spec().linux().as_ref().expect("an admitted spec has a linux section");
    assert!(linux.seccomp().is_none() && linux.masked_paths().as_ref().is_some_and(|p| p.len() > 10));
    let bytes = serde_json::to_vec(plan).expect("a plan that was made can be encoded");
    assert_eq!(&serde_json::from_slice::<LockdownPlan>(&bytes).expect("and decoded"), plan);
    // An exec of the same process is admitted too, and gets no more.
    let exec = admission.decide_exec(process.clone()).expect("the container's own process may be executed");
    assert_eq!(exec.plan().capabilities, plan.capabilities);
    assert_eq!(exec.plan().seccomp, plan.seccomp);
});
