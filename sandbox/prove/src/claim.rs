//! What is claimed of a program, as a person would say it, and as a term.

use std::collections::BTreeSet;
use std::fmt;

use hardened_sandbox::seccomp::{Arch, Condition, Filter, Rule, Test};
use libc::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWTIME, CLONE_NEWUSER, CLONE_NEWUTS,
    TIOCLINUX, TIOCSTI,
};

use crate::call::{NUMBER, low};
use crate::rules::{self, Mode, is_foreign, runs};
use crate::script::{Script, all, any, word};

/// What is claimed of a program.
#[derive(Debug, Clone)]
pub enum Claim<'a> {
    /// It answers every call as the rules do.
    Rules(&'a Filter, Mode<'a>),
    /// No call of another ABI runs: of i386, x32 or 32-bit Arm.
    NoForeignAbi,
    /// No call makes or joins a namespace.
    NoNamespace,
    /// No call types into a terminal, or pastes into the console.
    NoTyping,
    /// No socket is made, by this call, of a family that is not listed.
    Sockets(SocketCall, Families),
    /// No call runs that one of these filters denies. What they are called together comes first.
    Within(&'a str, &'a [&'a Filter]),
}

/// A call that makes sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketCall {
    /// `socket`
    Single,
    /// `socketpair`
    Pair,
}

impl SocketCall {
    const fn name(self) -> &'static str {
        match self {
            Self::Single => "socket",
            Self::Pair => "socketpair",
        }
    }

    const fn made(self) -> &'static str {
        match self {
            Self::Single => "socket",
            Self::Pair => "socket pair",
        }
    }
}

/// Families of sockets, by their numbers in linux/socket.h.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Families {
    /// These.
    Only(BTreeSet<u32>),
    /// All but these.
    AllBut(BTreeSet<u32>),
}

impl Families {
    /// Those that the rules of a call name: the only ones that it allows, or where others are allowed without being named,
    /// the only ones that it denies. Whether it does is the claim's to prove.
    #[must_use]
    pub fn named(filter: &Filter, call: SocketCall) -> Self {
        let rules = filter.arch().number(call.name()).map_or(&[][..], |number| filter.of(number));
        let families = |rules: &mut dyn Iterator<Item = &Rule>| -> BTreeSet<u32> {
            rules.filter_map(|rule| rule.conditions.iter().find_map(family)).collect()
        };
        let allowed = families(&mut rules.iter().filter(|rule| rule.action.allows()));
        let denied = families(&mut rules.iter().filter(|rule| !rule.action.allows() && rule.conditions.len() == 1));
        let names_none = |rule: &Rule| rule.conditions.iter().all(|condition| family(condition).is_none());
        let allows_others = rules.iter().any(|rule| rule.action.allows() && names_none(rule));
        let denied = &denied - &allowed;
        if allows_others && !denied.is_empty() { Self::AllBut(denied) } else { Self::Only(allowed) }
    }
}

/// The family that a condition names.
fn family(condition: &Condition) -> Option<u32> {
    match condition.test {
        // A family is an int.
        Test::Equal { mask, value } => (condition.argument == 0 && mask as u32 == u32::MAX).then_some(value as u32),
        Test::NotEqual(_) | Test::Less(_) | Test::LessOrEqual(_) | Test::Greater(_) | Test::GreaterOrEqual(_) => None,
    }
}

impl Claim<'_> {
    /// The calls that contradict the claim, by what the program answers. The second term is what it should answer, where
    /// the claim says it.
    pub(crate) fn violated(&self, arch: Arch, answer: &str, script: &mut Script) -> (String, Option<String>) {
        let is = |name: &str| arch.number(name).map(|number| format!("(= {NUMBER} {})", word(number)));
        // Of a call that the architecture lacks there is nothing to violate.
        let call = |name: &str, with: String| is(name).map(|call| all([call, with]));
        let with_any_flag = |flags: u32| format!("(not (= (bvand {} {}) {}))", low(0), word(flags), word(0));
        let calls = match self {
            Self::Rules(filter, mode) => {
                let expected = rules::define(filter, *mode, script);
                return (format!("(not (= {answer} {expected}))"), Some(expected));
            }
            Self::NoForeignAbi => return (all([is_foreign(arch), runs(answer)]), None),
            Self::Within(_, filters) => {
                let answers = filters.iter().map(|filter| rules::define(filter, Mode::Plain, script));
                let denials: Vec<String> = answers.map(|answer| format!("(not {})", runs(&answer))).collect();
                return (all([runs(answer), any(denials)]), None);
            }
            Self::NoNamespace => vec![
                call("clone", with_any_flag(NEW_NAMESPACES)),
                call("unshare", with_any_flag(NEW_NAMESPACES | CLONE_NEWTIME as u32)),
                // Its flags are in memory.
                is("clone3"),
                is("setns"),
            ],
            Self::NoTyping => {
                let requests =
                    [TIOCSTI as u32, TIOCLINUX as u32].map(|request| format!("(= {} {})", low(1), word(request)));
                vec![call("ioctl", any(requests))]
            }
            Self::Sockets(by, families) => {
                let is_any =
                    |families: &BTreeSet<u32>| any(families.iter().map(|n| format!("(= {} {})", low(0), word(*n))));
                let unlisted = match families {
                    Families::Only(listed) => format!("(not {})", is_any(listed)),
                    Families::AllBut(unlisted) => is_any(unlisted),
                };
                vec![call(by.name(), unlisted)]
            }
        };
        let native = format!("(not {})", is_foreign(arch));
        (all([native, any(calls.into_iter().flatten()), runs(answer)]), None)
    }
}

/// `CLONE_NEW*` of clone(2). (`CLONE_NEWTIME` is a bit of its exit signal.)
const NEW_NAMESPACES: u32 =
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET) as u32;

impl fmt::Display for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules(..) => f.write_str("every call gets the answer that the rules give"),
            Self::NoForeignAbi => f.write_str("no call of a foreign ABI (i386, x32, 32-bit Arm) runs"),
            Self::NoNamespace => f.write_str("no call makes or joins a namespace (clone, clone3, unshare, setns)"),
            Self::NoTyping => f.write_str("no call types into a terminal (TIOCSTI, TIOCLINUX)"),
            Self::Sockets(call, Families::Only(none)) if none.is_empty() => write!(f, "no {} is made", call.made()),
            Self::Sockets(call, Families::Only(listed)) => {
                write!(f, "no {} is made except of {}", call.made(), names(listed))
            }
            Self::Sockets(call, Families::AllBut(unlisted)) => {
                write!(f, "no {} is made of {}", call.made(), names(unlisted))
            }
            Self::Within(name, _) => write!(f, "no call runs that {name} denies"),
        }
    }
}

/// Names of families, and numbers of those that policies have no name for.
fn names(families: &BTreeSet<u32>) -> String {
    let name = |number: &u32| match *number as i32 {
        libc::AF_UNIX => "unix".to_owned(),
        libc::AF_INET => "inet".to_owned(),
        libc::AF_INET6 => "inet6".to_owned(),
        libc::AF_NETLINK => "netlink".to_owned(),
        libc::AF_PACKET => "packet".to_owned(),
        libc::AF_VSOCK => "vsock".to_owned(),
        libc::AF_CAN => "can".to_owned(),
        libc::AF_BLUETOOTH => "bluetooth".to_owned(),
        libc::AF_ALG => "alg".to_owned(),
        number => format!("family {number}"),
    };
    families.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use hardened_sandbox::seccomp::Action;

    use super::*;

    fn named(rules: &[(&[Condition], Action)]) -> String {
        let mut filter = Filter::new(Arch::X86_64, Action::ENOSYS, Action::KillProcess);
        let number = Arch::X86_64.number("socket").unwrap();
        for (conditions, action) in rules {
            filter.push(number, Rule { conditions: conditions.to_vec(), action: *action });
        }
        Claim::Sockets(SocketCall::Single, Families::named(&filter, SocketCall::Single)).to_string()
    }

    #[test]
    fn families_are_those_that_the_rules_name() {
        let (unix, inet, alg) = (Condition::int(0, 1), Condition::int(0, 2), Condition::int(0, 38));
        let stream = Condition::bits(1, 0xf, 1);
        let (allow, deny) = (Action::Allow, Action::EPERM);
        assert_eq!(named(&[]), "no socket is made");
        assert_eq!(
            named(&[(&[unix], allow), (&[inet, stream], allow), (&[inet], deny)]),
            "no socket is made except of unix, inet"
        );
        assert_eq!(named(&[(&[alg], deny), (&[], allow)]), "no socket is made of alg");
        // Refuted: there are others, and none of them is named.
        assert_eq!(named(&[(&[], allow)]), "no socket is made");
        assert_eq!(named(&[(&[stream], allow), (&[unix], allow), (&[], deny)]), "no socket is made except of unix");
        assert_eq!(named(&[(&[Condition::int(0, 41)], allow)]), "no socket is made except of family 41");
    }
}
