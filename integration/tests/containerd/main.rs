//! The shim under real containerd, of both generations.

use std::sync::Arc;

use anyhow::Result;
use hardened_integration::cri::Cri;
use hardened_integration::{Containerd, Generation};
use libtest_mimic::{Arguments, Trial};

mod adversity;
mod churn;
mod node;
mod pods;
mod policy;
mod programs;
mod recovery;
mod refusals;
mod rpc;
mod sandbox;
mod stdio;
mod task;

/// A named claim, tested against one containerd.
type Test = (&'static str, fn(&Containerd) -> Result<()>);

/// A named claim, tested against one containerd's CRI.
type PodTest = (&'static str, fn(&Cri) -> Result<()>);

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[crate::Test] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use tests;

macro_rules! pod_tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[crate::PodTest] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use pod_tests;

fn main() {
    let arguments = Arguments::from_args();
    let all = |generation| Ok((Arc::new(Containerd::start(generation)?), Arc::new(Cri::start(generation)?)));
    let daemons: Vec<(Arc<Containerd>, Arc<Cri>)> = if arguments.list {
        Vec::new()
    } else {
        let started: Result<Vec<_>> = Generation::ALL.into_iter().map(all).collect();
        match started {
            Ok(daemons) => daemons,
            Err(error) => {
                eprintln!("cannot start containerd: {error:#}");
                std::process::exit(1);
            }
        }
    };
    let modules = [
        ("task", task::TESTS),
        ("rpc", rpc::TESTS),
        ("stdio", stdio::TESTS),
        ("sandbox", sandbox::TESTS),
        ("refusals", refusals::TESTS),
        ("recovery", recovery::TESTS),
        ("adversity", adversity::TESTS),
        ("policy", policy::TESTS),
        ("churn", churn::TESTS),
        ("programs", programs::TESTS),
    ];
    let mut trials = Vec::new();
    for (at, generation) in Generation::ALL.into_iter().enumerate() {
        for (module, tests) in modules {
            // What a program finds in its container is the shim's doing, not containerd's.
            if module == "programs" && generation != Generation::Two {
                continue;
            }
            for (name, test) in tests {
                let daemon = daemons.get(at).map(|(daemon, _)| Arc::clone(daemon));
                trials.push(Trial::test(format!("{}::{module}::{name}", generation.name()), move || match daemon {
                    Some(daemon) => test(&daemon).map_err(|e| format!("{e:#}").into()),
                    None => Ok(()),
                }));
            }
        }
    }
    for (at, generation) in Generation::ALL.into_iter().enumerate() {
        for (module, tests) in [("pods", pods::TESTS), ("node", node::TESTS)] {
            for (name, test) in tests {
                let cri = daemons.get(at).map(|(_, cri)| Arc::clone(cri));
                trials.push(Trial::test(format!("{}::{module}::{name}", generation.name()), move || match cri {
                    Some(cri) => test(&cri).map_err(|e| format!("{e:#}").into()),
                    None => Ok(()),
                }));
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Torn down before the process exits, whatever the tests said.
    drop(daemons);
    conclusion.exit();
}
