//! The proofs themselves, and that they would fail.

mod arbitrary;
mod devices;
mod filters;
mod mutants;

use std::path::{Path, PathBuf};

use hardened_sandbox::Sandbox;
use hardened_sandbox::policy::{Policy, Source};
use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::seccomp::{Arch, Filter, Instruction, Program};

const ARCHS: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

/// A profile, with what `hardenctl policy show` calls it.
struct Named {
    name: String,
    sandbox: Sandbox,
}

/// Policy files that the project comes with.
fn policies(arch: Arch) -> Vec<(PathBuf, Policy)> {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let files = std::fs::read_dir(configs).unwrap().map(|entry| entry.unwrap().path());
    let policies: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| {
            let source = Source::new(path.clone(), std::fs::read_to_string(&path).unwrap());
            let policy = Policy::parse(&[source], &|path| Err(format!("{}: not read here", path.display())), arch);
            (path, policy.unwrap())
        })
        .collect();
    assert!(policies.len() >= 2, "configs/ has {} policies", policies.len());
    policies
}

/// The built-in profiles, and those of `configs/`.
fn profiles(arch: Arch) -> Vec<Named> {
    let built_in = BuiltIn::ALL.map(|built_in| Named { name: built_in.name().into(), sandbox: built_in.sandbox(arch) });
    let mut all = Vec::from(built_in);
    for (_, policy) in policies(arch) {
        let own =
            policy.profiles().filter(|profile| BuiltIn::ALL.iter().all(|built_in| built_in.name() != profile.name()));
        all.extend(own.map(|profile| Named { name: profile.name().into(), sandbox: profile.sandbox().clone() }));
    }
    all
}

/// The filters that a sandbox has loaded, by the container's init and by execs.
fn filters(sandbox: &Sandbox) -> Vec<Filter> {
    let (init, exec) = (sandbox.effective_filter(), sandbox.exec_filter());
    if init == exec { vec![init] } else { vec![init, exec] }
}

/// A program of these instructions, by way of its text.
fn program(instructions: &[Instruction]) -> Program {
    let text = instructions.iter().map(|i| format!("{:04x}{:02x}{:02x}{:08x}", i.code, i.jt, i.jf, i.k));
    Program::try_from(text.collect::<String>()).unwrap()
}

#[test]
fn no_part_of_the_runtime_depends_on_the_prover() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for part in ["shim", "sandbox", "sandbox/lockdown", "sandbox/node"] {
        let manifest = std::fs::read_to_string(workspace.join(part).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[dependencies]") && !manifest.contains("hardened-prove"), "{part}");
    }
}
