//! Rules for TCP ports, as far as Landlock does not keep them.
//!
//! Landlock asks where a TCP socket is bound and where `connect` is called. What comes to the same by
//! other calls is refused by the filter. `TCP_FASTOPEN_CONNECT` is not among it: `connect` is called
//! all the same, and asked about, before anything is sent.

use super::Sandbox;
use crate::seccomp::socket::{Kind, NO_FAMILY, NO_PROTOCOL};
use crate::seccomp::{Action, Arch, Condition, Filter, Rule};

/// `sendto` and its kin connect where there is data to send with the first packet: linux/socket.h.
const MSG_FASTOPEN: u32 = 0x2000_0000;

/// What the kernel says of a protocol above TCP that it does not have: programs that want kTLS go on without.
const NO_ULP: Action = Action::Errno(libc::ENOENT as u16);

/// What a kernel answers that has fast open switched off; programs then call `connect`.
const NO_FASTOPEN: Action = Action::Errno(libc::EOPNOTSUPP as u16);

/// What Landlock answers to a port that is not in the rules.
const NO_PORT: Action = Action::Errno(libc::EACCES as u16);

/// TCP without an IP family: linux/socket.h. (RDS has a transport by TCP.)
const AF_RDS: u32 = 21;
const AF_SMC: u32 = 43;

impl Sandbox {
    /// The filter that is loaded: [`filter`](Self::filter), and what the ports that may be bound and
    /// connected to ask of it.
    #[must_use]
    pub fn effective_filter(&self) -> Filter {
        let bind = self.bind_tcp.as_ref().map(|ports| ports.is_empty());
        let connect = self.connect_tcp.as_ref().map(|ports| ports.is_empty());
        if bind.is_none() && connect.is_none() {
            return self.filter.clone();
        }
        let no_tcp = bind == Some(true) && connect == Some(true);
        self.filter.meet(&port_rules(self.filter.arch(), no_tcp, connect.is_some()))
    }

    /// The filter of an exec: its container's, and no sockets where the sandbox has none for execs.
    #[must_use]
    pub fn exec_filter(&self) -> Filter {
        let filter = self.effective_filter();
        if self.exec.no_network { filter.meet(&no_network(filter.arch())) } else { filter }
    }
}

/// A filter that lets only UNIX sockets be made.
fn no_network(arch: Arch) -> Filter {
    let mut filter = Filter::new(arch, Action::Allow, Action::Allow);
    if let Some(number) = arch.number("socket") {
        let unix = Condition::int(0, libc::AF_UNIX as u32);
        filter.set(number, vec![Rule { conditions: vec![unix], action: Action::Allow }, Rule::always(NO_FAMILY)]);
    }
    filter
}

/// What keeps rules for TCP ports, beside Landlock. It is met with the sandbox's filter, and so only
/// takes away.
fn port_rules(arch: Arch, no_tcp: bool, connect: bool) -> Filter {
    let mut filter = Filter::new(arch, Action::Allow, Action::Allow);
    let mut set = |name: &str, rules: Vec<Rule>| {
        if let Some(number) = arch.number(name) {
            filter.set(number, rules);
        }
    };
    set("socket", sockets(no_tcp));
    // A TCP socket that becomes one of SMC (net/smc/af_smc.c, `smc_ulp_init`) is none any more to Landlock.
    let smc = vec![Condition::int(1, libc::IPPROTO_TCP as u32), Condition::int(2, libc::TCP_ULP as u32)];
    set("setsockopt", vec![Rule { conditions: smc, action: NO_ULP }, Rule::always(Action::Allow)]);
    // Its sockets and what is sent by them are out of the filter's sight.
    set("io_uring_setup", vec![Rule::always(Action::EPERM)]);
    if connect {
        for (name, flags) in [("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)] {
            let fast_open = Condition::bits(flags, MSG_FASTOPEN, MSG_FASTOPEN);
            set(name, vec![Rule { conditions: vec![fast_open], action: NO_FASTOPEN }, Rule::always(Action::Allow)]);
        }
    }
    filter
}

/// Streams by IP are TCP itself or none: Landlock knows no port of `IPPROTO_MPTCP`, `IPPROTO_SMC` and
/// `IPPROTO_SCTP`. Where no port may be bound nor connected to, there is no TCP socket at all: one that
/// is never bound may listen, at a port of the kernel's choice.
fn sockets(no_tcp: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in [libc::AF_INET as u32, libc::AF_INET6 as u32] {
        let stream = [Condition::int(0, family), Kind::Stream.condition()];
        for protocol in [libc::IPPROTO_IP as u32, libc::IPPROTO_TCP as u32] {
            let conditions = [&stream[..], &[Condition::int(2, protocol)]].concat();
            rules.push(Rule { conditions, action: if no_tcp { NO_PORT } else { Action::Allow } });
        }
        rules.push(Rule { conditions: stream.to_vec(), action: NO_PROTOCOL });
    }
    for family in [AF_RDS, AF_SMC] {
        rules.push(Rule { conditions: vec![Condition::int(0, family)], action: NO_FAMILY });
    }
    rules.push(Rule::always(Action::Allow));
    rules
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::profile::BuiltIn;

    const STREAM: u64 = libc::SOCK_STREAM as u64;
    const INET: u64 = libc::AF_INET as u64;
    const MPTCP: u64 = 262;

    fn baseline(bind: Option<&[u16]>, connect: Option<&[u16]>) -> Sandbox {
        let ports = |list: Option<&[u16]>| list.map(|list| list.iter().copied().collect::<BTreeSet<_>>());
        let sandbox = BuiltIn::Baseline.sandbox(Arch::X86_64);
        Sandbox { bind_tcp: ports(bind), connect_tcp: ports(connect), ..sandbox }
    }

    fn ask(sandbox: &Sandbox, name: &str, arguments: [u64; 4]) -> Action {
        let [a, b, c, d] = arguments;
        sandbox.effective_filter().decide(Arch::X86_64.number(name).unwrap(), &[a, b, c, d, 0, 0])
    }

    #[test]
    fn what_connects_without_connect_is_refused_where_ports_are_limited() {
        let flags = u64::from(MSG_FASTOPEN) | 0x4000;
        for (name, arguments) in
            [("sendto", [3, 0, 0, flags]), ("sendmsg", [3, 0, flags, 0]), ("sendmmsg", [3, 0, 0, flags])]
        {
            for (bind, connect, expected) in [
                (None, None, Action::Allow),
                (Some(&[80][..]), None, Action::Allow),
                (None, Some(&[443][..]), NO_FASTOPEN),
                (None, Some(&[][..]), NO_FASTOPEN),
            ] {
                assert_eq!(ask(&baseline(bind, connect), name, arguments), expected, "{name} {bind:?} {connect:?}");
            }
            assert_eq!(ask(&baseline(None, Some(&[443])), name, [3, 0, 0, 0]), Action::Allow, "{name}");
        }
    }

    #[test]
    fn streams_are_tcp_where_ports_are_limited_and_none_where_there_is_no_port() {
        for (bind, connect, tcp) in [
            (Some(&[80][..]), None, Action::Allow),
            (None, Some(&[][..]), Action::Allow),
            (Some(&[][..]), Some(&[443][..]), Action::Allow),
            (Some(&[][..]), Some(&[][..]), NO_PORT),
        ] {
            // A node's profile may allow each socket: not past its own ports.
            let mut sandbox = baseline(bind, connect);
            let number = Arch::X86_64.number("socket").unwrap();
            sandbox.filter.set(number, vec![Rule::always(Action::Allow)]);
            for flags in [0, 0x80000, 0x1_0000_0000] {
                let socket = |family, kind, protocol| ask(&sandbox, "socket", [family, kind | flags, protocol, 0]);
                assert_eq!(socket(INET, STREAM, 0), tcp);
                assert_eq!(socket(10, STREAM, 6), tcp);
                for protocol in [MPTCP, 132, 256] {
                    assert_eq!(socket(INET, STREAM, protocol), NO_PROTOCOL, "{protocol}");
                    assert_eq!(socket(10, STREAM, protocol), NO_PROTOCOL, "{protocol}");
                }
                assert_eq!(socket(u64::from(AF_SMC), STREAM, 0), NO_FAMILY);
                assert_eq!(socket(INET, libc::SOCK_DGRAM as u64, 17), Action::Allow);
                assert_eq!(socket(1, STREAM, 0), Action::Allow);
            }
        }
    }

    proptest! {
        #[test]
        fn rules_for_ports_only_take_away(
            bind in proptest::option::of(proptest::collection::btree_set(any::<u16>(), 0..2)),
            connect in proptest::option::of(proptest::collection::btree_set(any::<u16>(), 0..2)),
            arguments in proptest::array::uniform6(proptest::sample::select(
                vec![0, 1, 2, 3, 6, 10, 43, MPTCP, u64::from(MSG_FASTOPEN), 0x1_0000_0002, u64::MAX]
            )),
        ) {
            for built_in in BuiltIn::ALL {
                let sandbox =
                    Sandbox { bind_tcp: bind.clone(), connect_tcp: connect.clone(), ..built_in.sandbox(Arch::X86_64) };
                let (plain, effective) = (sandbox.filter(), sandbox.effective_filter());
                prop_assert!(effective.is_within(plain));
                for number in 0..600 {
                    prop_assert!(effective.decide(number, &arguments) <= plain.decide(number, &arguments));
                }
            }
        }
    }
}
