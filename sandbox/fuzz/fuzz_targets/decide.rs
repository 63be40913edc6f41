//! A foreign OCI spec is parsed and decided on without a panic, on whatever node and by whatever policy; what is
//! admitted is hardened, and within the profile that the node's policy gives.
#![no_main]

mod node;

use hardened_sandbox::bundle::{self, MountFlag, MountKind, Places};
use hardened_sandbox::policy::{Policy, Source};
use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{Admission, Kind, ProcessRequest, Request, Sandbox, Standing, decide, score, sources_to_locate};
use libfuzzer_sys::fuzz_target;

/// What a pod's own wishes begin with.
const WISH: &str = "io.containerd.hardened.v1/";

/// What separates the parts of an input: a spec, a policy and a node, of which the last two may be absent.
const SEPARATOR: &str = "\n---\n";

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (spec, rest) = text.split_once(SEPARATOR).unwrap_or((&text, ""));
    let (policy, node) = rest.split_once(SEPARATOR).unwrap_or((rest, ""));
    let arch = Arch::native().expect("an architecture that we know");
    let not_read = |path: &std::path::Path| Err(format!("{}: not read", path.display()));
    let file = Source::new("policy.toml".into(), policy.to_owned());
    let Ok(policy) = Policy::parse(&[file], &not_read, arch) else { return };
    let Ok(node) = serde_json::from_str::<node::Node>(if node.trim().is_empty() { "{}" } else { node }) else { return };
    let (kernel, observed) = node.values();
    let request = match Request::from_json(spec.as_bytes()) {
        Ok(request) => request,
        Err(refusal) => return assert!(!refusal.violations().is_empty() && !refusal.to_string().is_empty()),
    };
    assert!(sources_to_locate(&request, &observed).all(|(path, _)| !path.as_os_str().is_empty()));
    match decide(&request, &policy, &kernel, &observed) {
        Ok(admission) => check(&admission, &policy, spec, rest.is_empty() && !spec.contains(WISH)),
        Err(refusal) => assert!(!refusal.violations().is_empty() && !refusal.to_string().is_empty()),
    }
});

/// What holds for everything that is admitted. `plain`: by the built-in policy alone, on a node with everything.
fn check(admission: &Admission, policy: &Policy, spec: &str, plain: bool) {
    let profiles = [false, true].map(|privileged| policy.choose(admission.identity(), privileged).profile.sandbox());
    let sandbox = admission.sandbox();
    let is_pause = admission.identity().kind == Some(Kind::Sandbox);
    let gives_no_more = |profile: &Sandbox| {
        // A pod's sandbox has the pod's host namespaces, and is not refused for what it asks for: pause runs in it.
        sandbox.is_within(profile)
            || is_pause
                && sandbox.filter().is_within(profile.filter())
                && sandbox.capabilities().is_subset(profile.capabilities())
    };
    assert!(profiles.iter().any(|profile| gives_no_more(profile)), "{} gives more", admission.by());
    let plan = admission.plan();
    assert!(plan.capabilities.bounding.is_subset(sandbox.capabilities()));
    assert!(plan.capabilities.ambient.is_subset(plan.capabilities.bounding));
    let bundle = admission.bundle();
    if !admission.is_privileged() {
        assert!(bundle.masked_paths.len() > 10);
    }
    for mount in &bundle.mounts {
        assert!(mount.destination.is_absolute() && !mount.destination.ends_with(".."));
        let read_only = mount.flags.contains(MountFlag::ReadOnly) || admission.is_privileged();
        assert!(read_only || !matches!(mount.kind, MountKind::Sysfs | MountKind::Cgroup));
    }
    let places = Places {
        root: "/rootfs".into(),
        volumes: bundle.volumes().map(|(number, ..)| (number, "/volume".into())).collect(),
        cgroups: vec![("/cgroup".into(), "".into())],
        namespaces: bundle.namespaces.iter().map(|namespace| (namespace.kind, "/ns".into())).collect(),
    };
    let written = bundle::write(bundle, &places).expect("what is admitted can be written");
    assert_eq!(written.process().as_ref().and_then(|process| process.no_new_privileges()), Some(true));
    assert!(written.linux().as_ref().is_some_and(|linux| linux.seccomp().is_none() && linux.resources().is_none()));
    assert!(written.annotations().is_none());
    // What is kept for questions is read again as it was.
    let standing = Standing::new(admission);
    let kept = serde_json::to_vec(&standing).expect("it can be kept");
    assert_eq!(serde_json::from_slice::<Standing>(&kept).expect("and read"), standing);
    assert!(score(&standing.findings()) <= 100);
    // An exec of the same process gets no more.
    let stored: serde_json::Value = serde_json::from_str(spec).expect("it was parsed");
    let process = ProcessRequest::of_exec(stored["process"].to_string().as_bytes(), admission.identity())
        .expect("the container's own process is one");
    match admission.decide_exec(&process) {
        Ok(exec) => {
            assert_eq!(exec.plan().capabilities, plan.capabilities);
            assert!(!plain || exec.plan().seccomp == plan.seccomp);
        }
        Err(refusal) => assert!(!plain || is_pause, "{refusal}"),
    }
    if plain {
        let arch = Arch::native().expect("an architecture that we know");
        assert!(plan.capabilities.bounding.is_subset(BuiltIn::Baseline.sandbox(arch).capabilities()));
    }
}
