//! The shim under real containerd, of both generations.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use hardened_integration::cri::Cri;
use hardened_integration::{Containerd, Generation};
use libtest_mimic::{Arguments, Trial};

mod adversity;
mod agent;
mod apparmor;
mod churn;
mod conformance;
mod escapes;
mod explain;
mod faults;
mod hostile;
mod landlock;
mod lean;
mod node;
mod pods;
mod policy;
mod programs;
mod recovery;
mod refusals;
mod rpc;
mod sandbox;
mod selinux;
mod stdio;
mod task;
mod users;

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

/// A daemon, started by the first test that asks for it.
struct Lazy<T>(Mutex<Option<Result<Arc<T>, String>>>);

impl<T> Lazy<T> {
    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn get(&self, start: impl FnOnce() -> Result<T>) -> Result<Arc<T>, String> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert_with(|| start().map(Arc::new).map_err(|e| format!("cannot start containerd: {e:#}"))).clone()
    }
}

/// One for `ctr`, and one for the CRI.
type Daemons = (Lazy<Containerd>, Lazy<Cri>);

/// A claim that finds its daemon.
type Run = Box<dyn FnOnce(&Daemons) -> Result<(), String> + Send>;

fn on_ctr(generation: Generation, test: impl FnOnce(&Containerd) -> Result<()> + Send + 'static) -> Run {
    Box::new(move |daemons| {
        let containerd = daemons.0.get(|| Containerd::start(generation))?;
        test(&containerd).map_err(|e| format!("{e:#}"))
    })
}

fn main() {
    let mut arguments = Arguments::from_args();
    // Several parts of names, with commas between them.
    let parts = arguments.filter.take().unwrap_or_default();
    let daemons: Arc<[Daemons; Generation::ALL.len()]> = Arc::new([const { (Lazy::new(), Lazy::new()) }; _]);
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
        ("hostile", hostile::TESTS),
        ("faults", faults::TESTS),
        ("escapes", escapes::TESTS),
        ("escapes_unified", escapes::UNIFIED_TESTS),
        ("programs", programs::TESTS),
        ("apparmor", apparmor::TESTS),
        ("selinux", selinux::TESTS),
        ("landlock", landlock::TESTS),
        ("lean", lean::TESTS),
        ("users", users::TESTS),
        ("explain", explain::TESTS),
        ("agent", agent::TESTS),
        ("agent_audit", agent::AUDIT_TESTS),
    ];
    let pod_modules = [
        ("pods", pods::TESTS),
        ("conformance", conformance::TESTS),
        ("node", node::TESTS),
        ("apparmor", apparmor::POD_TESTS),
        ("selinux", selinux::POD_TESTS),
        ("users", users::POD_TESTS),
        ("escapes", escapes::POD_TESTS),
        ("explain", explain::POD_TESTS),
        ("agent", agent::POD_TESTS),
    ];
    // What this kernel does not run is counted as ignored; scripts/guest boots one that does.
    let ignored = |module: &str| match module {
        "apparmor" => !hardened_integration::has_apparmor(),
        "selinux" => !hardened_integration::has_selinux(),
        "landlock" => hardened_node::probe().landlock_abi > 0,
        "escapes_unified" => !hardened_integration::has_cgroup_v2(),
        "agent_audit" => !hardened_integration::audit::has_landlocks_records(),
        "users" => !hardened_integration::maps_owners(),
        _ => false,
    };
    let mut trials = Vec::new();
    for (at, generation) in Generation::ALL.into_iter().enumerate() {
        let mut add = |module: &str, name: &str, ignored: bool, test: Run| {
            let daemons = Arc::clone(&daemons);
            let name = format!("{}::{module}::{name}", generation.name());
            let trial = Trial::test(name, move || Ok(test(&daemons[at])?));
            trials.push(trial.with_ignored_flag(ignored));
        };
        for (module, tests) in modules {
            // What a program finds in its container is the shim's doing, not containerd's; and so is
            // what a container does to the host.
            if matches!(
                module,
                "escapes" | "escapes_unified" | "faults" | "hostile" | "programs" | "agent" | "agent_audit"
            ) && generation != Generation::Two
            {
                continue;
            }
            let ignored = ignored(module);
            for (name, test) in tests {
                add(module, name, ignored, on_ctr(generation, test));
            }
        }
        if generation == Generation::Two {
            for program in programs::PROGRAMS {
                add("programs", program.name, false, on_ctr(generation, |c| program.trial(c)));
            }
        }
        for (module, tests) in pod_modules {
            if module == "agent" && generation != Generation::Two {
                continue;
            }
            let ignored = ignored(module);
            for (name, test) in tests {
                let run = move |daemons: &Daemons| {
                    let cri = daemons.1.get(|| Cri::start(generation))?;
                    test(&cri).map_err(|e| format!("{e:#}"))
                };
                add(module, name, ignored, Box::new(run));
            }
        }
    }
    trials.retain(|trial| parts.split(',').any(|part| trial.name().contains(part)));
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Torn down before the process exits, whatever the tests said.
    drop(daemons);
    conclusion.exit();
}
