//! Proves what compiled filters answer, for every call.
//!
//! ```text
//! Program ──bpf──▶ term ┐
//!                       ├──▶ is there a call that contradicts the claim? ──solver──▶ no: proved; or that call
//! Claim ─────────▶ term ┘
//! ```
//!
//! A program and what is claimed of it become terms over a call of which nothing is known. The one is written from the
//! kernel's documentation, the other from what rules mean; neither knows the compiler.

#![forbid(unsafe_code)]

mod bpf;
mod call;
mod claim;
mod device;
mod ebpf;
mod rules;
mod script;
mod solver;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use hardened_sandbox::DeviceFilter;
use hardened_sandbox::bundle::DeviceRule;
use hardened_sandbox::seccomp::{Arch, Call, CompileError, Filter, Program};

pub use crate::claim::{Claim, Families, SocketCall};
pub use crate::device::DeviceAccess;
pub use crate::rules::Mode;
use crate::script::Script;
pub use crate::solver::{Solver, SolverError};

/// Why nothing is proved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError {
    /// There is no solver, or it has no answer.
    #[error(transparent)]
    Solver(#[from] SolverError),
    /// The rules make no program.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The program is none that the kernel takes, or that a filter compiles to.
    #[error("instruction {at} of the program {problem}")]
    Program {
        /// Which one, counted from 0.
        at: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The translation and `Program::answer` answer differently: one of them is wrong.
    #[error("the solver has {call:?} answered by {found:#x}, but the program that is run answers {run:x?}")]
    Contradiction {
        /// The call that the solver found.
        call: Box<Call>,
        /// The term's value for it.
        found: u64,
        /// What `Program::answer` says.
        run: Option<u32>,
    },
}

/// A call that contradicts a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterexample {
    /// The architecture of the filter.
    pub arch: Arch,
    /// The call.
    pub call: Call,
    /// What the program answers: `SECCOMP_RET_*`.
    pub answer: u32,
    /// What it should answer, where the claim says that.
    pub expected: Option<u32>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arch, call, answer, expected } = self;
        write!(f, "{} {}", call::Shown(call, *arch), rules::Shown(*answer))?;
        expected.map_or(Ok(()), |expected| write!(f, "; by the rules it {}", rules::Shown(expected)))
    }
}

/// Proves a claim about a program for an architecture, or finds a call that contradicts it.
///
/// # Errors
/// There is no solver, it gives no answer, or the program is none.
pub fn prove(
    solver: &mut Solver,
    arch: Arch,
    program: &Program,
    claim: &Claim<'_>,
) -> Result<Option<Counterexample>, ProveError> {
    let mut script = Script::default();
    call::declare(&mut script);
    let answer = bpf::define(program.instructions(), &mut script)?;
    let (violated, expected) = claim.violated(arch, &answer, &mut script);
    script.assert(violated);
    let terms: Vec<&str> = call::UNKNOWN.into_iter().chain([answer.as_str()]).chain(expected.as_deref()).collect();
    let Some(values) = solver.values(&script, &terms)? else { return Ok(None) };
    let (of_call, answers) = values.split_at(call::UNKNOWN.len());
    let answers: Vec<u32> = answers.iter().filter_map(|answer| u32::try_from(*answer).ok()).collect();
    let (Some(call), Some(answer)) = (call::from_values(of_call), answers.first().copied()) else {
        return Err(SolverError::Unexpected(format!("{values:x?}")).into());
    };
    // Nobody needs to believe the translation for a call that can be run.
    let run = program.answer(&call);
    if run != Some(answer) {
        return Err(ProveError::Contradiction { call: Box::new(call), found: answer.into(), run });
    }
    Ok(Some(Counterexample { arch, call, answer, expected: answers.get(1).copied() }))
}

/// Proves that each of the three programs that a filter compiles to answers every call as the rules do.
///
/// # Errors
/// Those of [`prove`], or there is no program.
pub fn prove_rules(
    solver: &mut Solver,
    filter: &Filter,
    quiet: &BTreeSet<u32>,
) -> Result<Option<Counterexample>, ProveError> {
    let explained = filter.compile_explained(quiet)?;
    let programs = [
        (filter.compile()?, Mode::Plain),
        (explained.unexplained(), Mode::Unexplained),
        (explained, Mode::Explained(quiet)),
    ];
    for (program, mode) in programs {
        let found = prove(solver, filter.arch(), &program, &Claim::Rules(filter, mode))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Proves that a device program answers each access to each device as its rules do, or finds one that it does not.
///
/// # Errors
/// There is no solver, it gives no answer, or the program is none.
pub fn prove_devices(
    solver: &mut Solver,
    program: &DeviceFilter,
    rules: &[DeviceRule],
) -> Result<Option<DeviceAccess>, ProveError> {
    device::differs(solver, program.instructions(), rules)
}
