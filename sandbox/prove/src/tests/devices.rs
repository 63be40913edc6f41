//! Device programs of cgroup v2: equal to their rules.

use std::cell::RefCell;

use hardened_sandbox::bundle::DeviceRule;
use hardened_sandbox::policy::{Policy, Source};
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{DeviceFilter, KernelSupport, Observations, judge};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::arbitrary;
use crate::{ProveError, Solver, device, prove_devices};

const RANDOM_RULES: u32 = 200;

/// The device rules of a container that asks for all that it may be given.
fn of_container(policy: &Policy, profile: &str) -> Vec<DeviceRule> {
    let namespaces = ["mount", "pid", "ipc", "network", "uts", "cgroup"].map(|kind| serde_json::json!({"type": kind}));
    let spec = serde_json::json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["/bin/true"], "user": {"uid": 1000, "gid": 1000}},
        "linux": {
            "namespaces": namespaces,
            "resources": {"devices": [
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
                {"allow": true, "type": "b", "major": 8, "access": "r"},
            ]},
        },
    });
    let policy = policy.clone().with_profile_for_all(profile).unwrap();
    let observed = Observations { container: "c".into(), namespace: "default".into(), ..Observations::none(None) };
    let admission = judge(&serde_json::from_value(spec).unwrap(), &policy, &KernelSupport::assumed(), &observed);
    admission.map_err(|refusal| refusal.to_string()).unwrap().bundle().device_rules.clone()
}

/// Rules of a container that is given two devices, a block device among them.
fn with_devices() -> Vec<DeviceRule> {
    let text = "[profile.devices]\nextends = \"baseline\"\nhost.devices = [\"c 10:229\", \"b 8:*\"]\n";
    let source = Source::new("devices.toml".into(), text.into());
    let policy = Policy::parse(&[source], &|_| Err(String::new()), Arch::X86_64).unwrap();
    of_container(&policy, "devices")
}

#[test]
fn the_device_program_of_a_container_answers_every_access_as_its_rules_do() {
    let rules = with_devices();
    assert_eq!(rules.len(), 11, "{rules:?}");
    let mut solver = Solver::start().unwrap();
    assert_eq!(prove_devices(&mut solver, &DeviceFilter::compile(&rules), &rules).unwrap(), None);
    // Without the grant nothing is left of what is asked.
    let wider = prove_devices(&mut solver, &DeviceFilter::compile(&rules), &rules[..9]).unwrap().unwrap();
    assert!(wider.allowed && (wider.major == 10 || wider.major == 8), "{wider}");
    assert!(wider.to_string().ends_with(" is allowed"), "{wider}");
}

#[test]
fn random_device_programs_answer_every_access_as_their_rules_do() {
    let solver = RefCell::new(Solver::start().unwrap());
    let mut runner = TestRunner::new(Config { cases: RANDOM_RULES, failure_persistence: None, ..Config::default() });
    runner
        .run(&arbitrary::device_rules(), |rules| {
            let found = prove_devices(&mut solver.borrow_mut(), &DeviceFilter::compile(&rules), &rules).unwrap();
            prop_assert_eq!(found.map(|access| access.to_string()), None);
            Ok(())
        })
        .unwrap();
    println!("{RANDOM_RULES} random device programs, {} questions", solver.borrow().asked());
}

#[test]
fn a_device_program_that_is_wrong_in_one_place_is_found_out() {
    let rules = with_devices();
    let original = DeviceFilter::compile(&rules);
    let mut solver = Solver::start().unwrap();
    let (mut refuted, mut same) = (0, Vec::new());
    for (at, instruction) in original.instructions().iter().enumerate() {
        let changes: &[u64] = match *instruction as u8 {
            // Loads: another field.
            0x61 => &[4 << 16],
            // Constants: another one.
            0xb4 | 0x54 | 0x74 => &[1 << 32],
            // Jumps: another constant, and the opposite condition.
            0x16 | 0x56 => &[1 << 32, 0x40],
            _ => &[],
        };
        for change in changes {
            let mut program = original.instructions().to_vec();
            program[at] ^= change;
            match device::differs(&mut solver, &program, &rules) {
                Ok(Some(_)) | Err(ProveError::Program { .. }) => refuted += 1,
                Ok(None) => same.push((at, change)),
                Err(error) => panic!("{at}: {error}"),
            }
        }
    }
    println!("{refuted} wrong device programs found out, {} changed ones proved to mean the same", same.len());
    // The rule that denies all, which comes last, says what is so without it.
    assert!(refuted > 5 * same.len(), "{same:x?}");
}
