//! A policy and a pod's annotations must be read without a panic; whatever they say, nothing is
//! wider than the node's own profile, and nobody is privileged by annotation.
#![no_main]

use hardened_sandbox::policy::{Policy, Source};
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{ANNOTATIONS, KernelSupport, Observations, judge};
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::Spec;

const SPEC: &str = include_str!("../corpus/decide/containerd-default.json");

// The input: a policy, and annotations as `number value` lines behind a line `---`.
fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (policy, wishes) = text.split_once("\n---\n").unwrap_or((text, ""));
    let arch = Arch::native().expect("an architecture that we know");
    let file = Source::new("policy.toml".into(), policy.to_owned());
    let not_read = |path: &std::path::Path| Err(format!("{}: not read", path.display()));
    let policy = match Policy::parse(&[file], &not_read, arch) {
        Ok(policy) => policy,
        Err(errors) => {
            assert!(!errors.0.is_empty() && !errors.to_string().is_empty());
            return;
        }
    };
    for profile in policy.profiles() {
        assert!(profile.sandbox().describe().len() > 20);
    }
    let mut spec: serde_json::Value = serde_json::from_str(SPEC).expect("the seed is JSON");
    spec["process"]["args"] = serde_json::json!(["/bin/true"]);
    let alone: Spec = serde_json::from_value(spec.clone()).expect("the seed is a spec");
    for wish in wishes.lines() {
        let (number, value) = wish.split_once(' ').unwrap_or((wish, ""));
        let key = number.parse::<usize>().ok().and_then(|n| ANNOTATIONS.get(n)).map_or(number, |(key, _)| key);
        spec["annotations"][key] = value.into();
    }
    let wished: Spec = serde_json::from_value(spec).expect("annotations are strings");
    let judge = |spec: &Spec| judge(spec, &policy, &KernelSupport::assumed(), &Observations::none(None));
    let Ok(wished) = judge(&wished) else { return };
    assert!(!wished.is_privileged());
    let Ok(alone) = judge(&alone) else { return };
    assert!(wished.plan().capabilities.bounding.is_subset(alone.plan().capabilities.bounding));
    for (_, number) in arch.calls().step_by(7) {
        let allows =
            |admission: &hardened_sandbox::Admission| admission.sandbox().filter().decide(number, &[0; 6]).allows();
        assert!(!allows(&wished) || allows(&alone));
    }
});
