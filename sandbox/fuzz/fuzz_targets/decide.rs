//! A foreign OCI spec must be parsed and decided on without a panic, and what is admitted must be hardened.
#![no_main]

use hardened_sandbox::bundle::{self, MountFlag, MountKind, Places};
use hardened_sandbox::policy::Policy;
use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{KernelSupport, Observations, ProcessRequest, Request, decide};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let arch = Arch::native().expect("an architecture that we know");
    let baseline = BuiltIn::Baseline.sandbox(arch).capabilities();
    let decided = Request::from_json(data)
        .and_then(|r| decide(&r, &Policy::built_in(arch), &KernelSupport::assumed(), &Observations::none(None)));
    let admission = match decided {
        Ok(admission) => admission,
        Err(refusal) => {
            assert!(!refusal.violations().is_empty() && !refusal.to_string().is_empty());
            return;
        }
    };
    let plan = admission.plan();
    assert!(plan.capabilities.bounding.is_subset(baseline));
    assert!(plan.capabilities.ambient.is_subset(baseline));
    let bundle = admission.bundle();
    assert!(bundle.masked_paths.len() > 10);
    for mount in &bundle.mounts {
        assert!(mount.destination.is_absolute() && !mount.destination.ends_with(".."));
        let read_only = mount.flags.contains(MountFlag::ReadOnly);
        assert!(read_only || !matches!(mount.kind, MountKind::Sysfs | MountKind::Cgroup));
    }
    let places = Places {
        root: "/rootfs".into(),
        volumes: bundle.volumes().map(|(number, ..)| (number, "/volume".into())).collect(),
        cgroups: vec![("/cgroup".into(), "".into())],
        namespaces: bundle.namespaces.iter().map(|namespace| (namespace.kind, "/ns".into())).collect(),
    };
    let spec = bundle::write(bundle, &places).expect("what is admitted can be written");
    assert_eq!(spec.process().as_ref().and_then(|process| process.no_new_privileges()), Some(true));
    assert!(spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_none() && linux.resources().is_none()));
    assert!(spec.annotations().is_none());
    // An exec of the same process is admitted too, and gets no more.
    let stored: serde_json::Value = serde_json::from_slice(data).expect("it was parsed");
    let process = ProcessRequest::of_exec(stored["process"].to_string().as_bytes(), admission.identity())
        .expect("the container's own process is one");
    let exec = admission.decide_exec(&process).expect("and may be executed");
    assert_eq!(exec.plan().capabilities, plan.capabilities);
    assert_eq!(exec.plan().seccomp, plan.seccomp);
});
