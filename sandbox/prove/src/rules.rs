//! From a filter's rules to a term: what they mean, for every call at once.
//!
//! Written from what `Filter`, `Rule` and `Program` say of themselves, and not from the compiler.

use std::collections::BTreeSet;
use std::fmt;

use hardened_sandbox::seccomp::{Action, Arch, Condition, Filter, Test};
use libc::{
    EBUSY, SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW, SECCOMP_RET_DATA,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG, SECCOMP_RET_TRAP,
    SECCOMP_RET_USER_NOTIF, SECCOMP_SET_MODE_FILTER,
};

use crate::call::{ARCH, NUMBER, X32_BIT, audit, low};
use crate::script::{Script, Sort, all, any, long, word};

/// Who answers a call that gets an errno.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// The kernel: `Filter::compile`.
    Plain,
    /// The shim, except for these calls: `Filter::compile_explained`.
    Explained(&'a BTreeSet<u32>),
    /// The kernel, where the shim cannot be asked: `Program::unexplained`.
    Unexplained,
}

/// Defines what the rules answer, and names it.
pub(crate) fn define(filter: &Filter, mode: Mode<'_>, script: &mut Script) -> String {
    let seccomp = filter.arch().number("seccomp");
    let errno = |errno: u16, number: Option<u32>| {
        let asked = match mode {
            Mode::Plain | Mode::Unexplained => false,
            // EBUSY of seccomp says that there is a listener already, and is not asked about.
            Mode::Explained(_) if number.is_some() && number == seccomp && i32::from(errno) == EBUSY => false,
            Mode::Explained(quiet) => number.is_none_or(|number| !quiet.contains(&number)),
        };
        (if asked { SECCOMP_RET_USER_NOTIF } else { SECCOMP_RET_ERRNO }) | u32::from(errno)
    };
    let answer = |action: Action, number: Option<u32>| {
        word(match action {
            Action::KillProcess => SECCOMP_RET_KILL_PROCESS,
            Action::KillThread => SECCOMP_RET_KILL_THREAD,
            Action::Trap => SECCOMP_RET_TRAP,
            Action::Errno(value) => errno(value, number),
            Action::Log => SECCOMP_RET_LOG,
            Action::Allow => SECCOMP_RET_ALLOW,
        })
    };
    let mut numbers: BTreeSet<u32> = filter.rules().map(|(number, _)| number).chain(seccomp).collect();
    if let Mode::Explained(quiet) = mode {
        numbers.extend(quiet);
    }
    let mut answers = answer(filter.default(), None);
    for number in numbers {
        let mut of_call = answer(filter.default(), Some(number));
        for rule in filter.of(number).iter().rev() {
            let holds = all(rule.conditions.iter().map(holds));
            of_call = format!("(ite {holds} {} {of_call})", answer(rule.action, Some(number)));
        }
        if !matches!(mode, Mode::Plain) && Some(number) == seccomp {
            let busy = word(SECCOMP_RET_ERRNO | EBUSY as u32);
            let of_rules = script.define(Sort::Bits(32), of_call);
            of_call = format!("(ite {} {busy} {of_rules})", all([makes_listener(), runs(&of_rules)]));
        }
        answers = script.define(Sort::Bits(32), format!("(ite (= {NUMBER} {}) {of_call} {answers})", word(number)));
    }
    let foreign = answer(filter.foreign(), None);
    script.define(Sort::Bits(32), format!("(ite {} {foreign} {answers})", is_foreign(filter.arch())))
}

/// A call that is not one of the architecture's own.
pub(crate) fn is_foreign(arch: Arch) -> String {
    let other_arch = format!("(not (= {ARCH} {}))", word(audit(arch)));
    match arch {
        // x32 has x86_64's `AUDIT_ARCH`, and this bit in its numbers; x86_64 itself has no number as large.
        Arch::X86_64 => any([other_arch, format!("(bvuge {NUMBER} {})", word(X32_BIT))]),
        Arch::Aarch64 => other_arch,
    }
}

/// An answer by which the kernel lets the call run: seccomp(2). Whatever does not deny is taken for one. The shim, which
/// is asked in some cases, can only deny.
pub(crate) fn runs(answer: &str) -> String {
    let denials = [
        SECCOMP_RET_KILL_PROCESS,
        SECCOMP_RET_KILL_THREAD,
        SECCOMP_RET_TRAP,
        SECCOMP_RET_ERRNO,
        SECCOMP_RET_USER_NOTIF,
    ];
    let action = format!("((_ extract 31 16) {answer})");
    let denied = any(denials.map(|denial| format!("(= {action} #x{:04x})", denial >> 16)));
    format!("(not {denied})")
}

/// A call of seccomp(2) that makes a listener. Both arguments are of 32 bits.
fn makes_listener() -> String {
    let flag = word(SECCOMP_FILTER_FLAG_NEW_LISTENER as u32);
    let sets_filter = format!("(= {} {})", low(0), word(SECCOMP_SET_MODE_FILTER));
    all([sets_filter, format!("(= (bvand {} {flag}) {flag})", low(1))])
}

fn holds(condition: &Condition) -> String {
    let argument = format!("arg{}", condition.argument);
    match condition.test {
        Test::Equal { mask, value } => format!("(= (bvand {argument} {}) {})", long(mask), long(value)),
        Test::NotEqual(value) => format!("(not (= {argument} {}))", long(value)),
        Test::Less(value) => format!("(bvult {argument} {})", long(value)),
        Test::LessOrEqual(value) => format!("(bvule {argument} {})", long(value)),
        Test::Greater(value) => format!("(bvugt {argument} {})", long(value)),
        Test::GreaterOrEqual(value) => format!("(bvuge {argument} {})", long(value)),
    }
}

/// An answer in words: what becomes of the call.
pub(crate) struct Shown(pub(crate) u32);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.0 & SECCOMP_RET_DATA;
        match self.0 & SECCOMP_RET_ACTION_FULL {
            SECCOMP_RET_KILL_PROCESS => f.write_str("kills the process"),
            SECCOMP_RET_KILL_THREAD => f.write_str("kills the thread"),
            SECCOMP_RET_TRAP => f.write_str("raises SIGSYS"),
            SECCOMP_RET_ERRNO => write!(f, "fails with errno {data}"),
            SECCOMP_RET_USER_NOTIF => write!(f, "fails with errno {data}, by the shim"),
            SECCOMP_RET_LOG => f.write_str("is allowed and logged"),
            SECCOMP_RET_ALLOW => f.write_str("is allowed"),
            _ => write!(f, "gets the answer {:#010x}", self.0),
        }
    }
}
