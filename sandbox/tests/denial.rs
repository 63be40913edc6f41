//! Denied calls in words, from outside: why, by whom, and the line of a policy that allows them.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use hardened_sandbox::policy::{Policy, Source};
use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::seccomp::{Action, Arch, Call, Program};
use hardened_sandbox::{Admission, KernelSupport, Observations, judge};
use serde_json::{Value, json};

const CONTAINERD: &str = include_str!("../fuzz/corpus/decide/containerd-default.json");

fn admit(policy: &str, change: impl FnOnce(&mut Value)) -> Admission {
    let mut spec: Value = serde_json::from_str(CONTAINERD).unwrap();
    spec["process"]["args"] = json!(["/bin/true"]);
    change(&mut spec);
    let spec = serde_json::from_value(spec).unwrap();
    let files = [Source::new("policy.toml".into(), policy.to_owned())];
    let policy = Policy::parse(&files, &|_| Err(String::new()), Arch::native().unwrap()).unwrap();
    let observed =
        Observations { container: "c".to_owned(), namespace: "default".to_owned(), ..Observations::none(None) };
    judge(&spec, &policy, &KernelSupport::assumed(), &observed).unwrap()
}

fn call(name: &str, arguments: &[u64]) -> Call {
    let arch = Arch::native().unwrap();
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    Call { number: arch.number(name).unwrap(), arch: arch.audit(), arguments: all }
}

/// The errno that a container's filter asks its supervisor for.
fn errno(admission: &Admission, call: &Call) -> Option<u16> {
    admission.plan().seccomp.answer(call).and_then(Program::explained_errno)
}

/// What a person is told: the snapshot is the review.
#[test]
fn denials_are_told_in_words() {
    let all = [
        call("unshare", &[0x1002_0000]),
        call("unshare", &[0x80]),
        call("clone", &[0x1000_0091]),
        call("socket", &[40, 1, 0]),
        call("socket", &[17, 3, 0]),
        call("socket", &[2, 1, 132]),
        call("socket", &[16, 3, 15]),
        call("socketpair", &[16, 1, 0]),
        call("ioctl", &[0, 0x5412]),
        call("personality", &[0x004_0000]),
        call("mount", &[]),
        call("ptrace", &[16]),
        call("setuid", &[1000]),
        call("io_uring_setup", &[]),
        Call { number: 9999, ..call("read", &[]) },
    ];
    let some = [
        call("unshare", &[0x1000_0000]),
        call("chmod", &[]),
        call("capset", &[]),
        call("sendto", &[0, 0, 0, 0x2000_0000]),
        Call { number: 0x4000_0001, ..call("read", &[]) },
    ];
    let own = "default = \"web\"\n[profile.web]\nextends = \"restricted\"\n[profile.web.seccomp]\nforeign = \"enosys\"";
    let ports = "default = \"client\"\n[profile.client.network]\nconnect-tcp = [443]";
    let asks = |spec: &mut Value| spec["annotations"] = json!({"io.containerd.hardened.v1/profile": "restricted"});
    let names = |spec: &mut Value| {
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "syscalls": [{"names": ["chmod", "unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]});
    };
    let mut told = String::new();
    for (title, admission, calls) in [
        ("baseline", admit("", |_| {}), &all[..]),
        ("a profile of the node", admit(own, |_| {}), &some),
        ("ports", admit(ports, |_| {}), &some),
        ("restricted, by annotation", admit("", asks), &some),
        ("a filter of the pod's", admit("", names), &some),
    ] {
        writeln!(told, "{title}").unwrap();
        for call in calls {
            let Some(errno) = errno(&admission, call) else { continue };
            let e = admission.filters().explain(call);
            let argument = e.argument.unwrap_or_default();
            writeln!(
                told,
                "  {}({argument}) = {errno}, by {}: {}\n    -> {}\n    {}",
                e.call,
                e.denied_by.join("; "),
                e.reason,
                e.setting.unwrap_or_else(|| "nothing".to_owned()),
                e.tags.join(" ")
            )
            .unwrap();
        }
    }
    insta::assert_snapshot!(told);
}

/// A line that a person copies into a policy does what it says.
#[test]
fn the_setting_that_is_told_allows_the_call() {
    let arch = Arch::native().unwrap();
    for profile in [BuiltIn::Baseline, BuiltIn::Restricted] {
        let before = admit(&format!("default = \"{}\"", profile.name()), |_| {});
        let mut told = BTreeSet::new();
        for (name, number) in arch.calls() {
            for first in [0, 2, 10, 16, 17, 40, 0x1000_0000] {
                for second in [0, 1, 0x5412] {
                    for third in [0, 1, 132] {
                        let call = Call { number, arch: arch.audit(), arguments: [first, second, third, 0, 0, 0] };
                        if errno(&before, &call).is_none() {
                            continue;
                        }
                        let Some(setting) = before.filters().explain(&call).setting else { continue };
                        if !told.insert((number, setting.clone())) {
                            continue;
                        }
                        let policy =
                            format!("default = \"NAME\"\nprofile.NAME.extends = \"{}\"\n{setting}\n", profile.name());
                        let after = admit(&policy, |_| {});
                        let answer = after.plan().seccomp.answer(&call);
                        assert_eq!(answer, Some(Action::Allow.word()), "{name} {call:?}: {setting}");
                    }
                }
            }
        }
        assert!(told.len() > 100, "{}", told.len());
    }
}

#[test]
fn what_the_policy_says_is_not_told_is_answered_by_the_kernel() {
    let unshare = call("unshare", &[]);
    let clone3 = call("clone3", &[]);
    let denied = Action::EPERM.word();
    let quiet = admit("default = \"q\"\nprofile.q.seccomp.quiet = [\"unshare\"]", |_| {});
    assert_eq!(quiet.plan().seccomp.answer(&unshare), Some(denied));
    assert_eq!(quiet.plan().seccomp.answer(&clone3), Some(Action::ENOSYS.word()));
    assert!(quiet.plan().seccomp.explains());
    let off = admit("default = \"q\"\nprofile.q.explain = \"off\"", |_| {});
    assert!(!off.plan().seccomp.explains());
    assert_eq!(off.plan().seccomp.answer(&unshare), Some(denied));
    // The process could not hand its listener on, and would wait for an answer for ever.
    for deny in ["[\"sendmsg\"]", "[\"sendmsg\", \"read\"]"] {
        let off = admit(&format!("default = \"q\"\nprofile.q.seccomp.deny = {deny}"), |_| {});
        assert!(!off.plan().seccomp.explains(), "{deny}");
        assert!(off.notes().iter().any(|note| note.to_string().contains("not reported")), "{:?}", off.notes());
    }
}
