//! The meet and its order, field by field: what `policy.rs` draws at random, tried whole.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::path::PathBuf;

use hardened_sandbox::policy::{Policy, Source};
use hardened_sandbox::seccomp::{Action, Arch};
use hardened_sandbox::{HostNamespace, Sandbox};

/// The sandboxes of two profiles.
fn sandboxes(left: &str, right: &str) -> [Sandbox; 2] {
    let text = format!("[profile.left]\n{left}\n[profile.right]\n{right}\n");
    let file = Source::new(PathBuf::from("policy.toml"), text);
    let policy = Policy::parse(&[file], &|_| Err("not read".to_owned()), Arch::X86_64).unwrap();
    ["left", "right"].map(|name| policy.profile(name).unwrap().sandbox().clone())
}

/// A narrower and a wider profile, which differ in one field.
const ORDERED: &[(&str, &str)] = &[
    ("capabilities.drop = [\"CHOWN\"]", ""),
    ("", "capabilities.add = [\"SYS_TIME\"]"),
    ("seccomp.deny = [\"mkdir\"]", ""),
    ("", "explain = \"off\""),
    ("", "seccomp.quiet = [\"mkdir\"]"),
    ("", "files.system = \"writable\""),
    ("files.read-only-root = true", ""),
    ("files.no-write = [\"/srv\"]", ""),
    ("files.no-write = [\"/srv\", \"/var\"]", "files.no-write = [\"/var\"]"),
    ("files.no-execute = [\"/srv\"]", ""),
    ("files.hidden = [\"/srv\"]", ""),
    ("files.masked = [\"/proc/cpuinfo\"]", ""),
    ("files.read-only = [\"/proc/tty\"]", ""),
    ("files.execute-from-writable = false", ""),
    ("network.bind-tcp = [80]", ""),
    ("network.bind-tcp = [80]", "network.bind-tcp = [80, 443]"),
    ("network.bind-tcp = []", "network.bind-tcp = [80]"),
    ("network.connect-tcp = [80]", ""),
    ("network.connect-tcp = [80]", "network.connect-tcp = [80, 443]"),
    ("", "network.abstract-sockets = true"),
    ("", "host.namespaces = [\"pid\"]"),
    ("host.namespaces = [\"pid\"]", "host.namespaces = [\"pid\", \"ipc\"]"),
    ("", "host.paths = { \"/srv\" = \"read-only\" }"),
    ("host.paths = { \"/srv\" = \"read-only\" }", "host.paths = { \"/srv\" = \"read-write\" }"),
    ("host.paths = { \"/srv\" = \"deny\" }\nhost.other-paths = \"read-write\"", "host.other-paths = \"read-write\""),
    ("", "host.later-mounts = true"),
    ("", "host.hooks = [\"/usr/bin/x\"]"),
    ("host.hooks = [\"/usr/bin/x\"]", "host.hooks = [\"/usr/bin/x\", \"/usr/bin/y\"]"),
    ("", "host.devices = [\"c 10:229\"]"),
    ("host.devices = [\"c 10:229\"]", "host.devices = [\"c 10:*\"]"),
    ("host.devices = [\"c 10:229\"]", "host.devices = [\"c 10:229\", \"b 8:*\"]"),
    ("", "host.sysctls = [\"vm.*\"]"),
    ("limits = { RLIMIT_NOFILE = 10 }", ""),
    ("limits = { RLIMIT_NOFILE = 10 }", "limits = { RLIMIT_NOFILE = 11 }"),
    ("limits = { RLIMIT_NOFILE = 10, RLIMIT_CORE = 0 }", "limits = { RLIMIT_NOFILE = 10 }"),
    ("user.non-root = true", ""),
    ("user.own-namespace = true", ""),
    ("user.uids = [[1, 5]]", ""),
    ("user.uids = [[1, 5]]", "user.uids = [[1, 6]]"),
    ("user.uids = [[2, 5]]", "user.uids = [[1, 5]]"),
    ("user.uids = [[2, 3], [7, 8]]", "user.uids = [[1, 5], [7, 9]]"),
    ("user.gids = [[1, 5]]", ""),
    ("user.gids = [[1, 5]]", "user.gids = [[0, 9]]"),
    ("user = { non-root = true, uids = [[1, 5]] }", "user.uids = [[1, 5]]"),
    ("user = { own-namespace = true, uids = [[1, 5]] }", "user.uids = [[1, 5]]"),
    ("user = { non-root = true, gids = [[1, 5]] }", "user.non-root = true"),
    ("labels.apparmor = \"mine\"", ""),
    ("", "labels.selinux-types = [\"my_t\"]"),
    ("exec.refuse = true", ""),
    ("exec.read-only = true", ""),
    ("exec.no-network = true", ""),
    ("exec.hidden = [\"/run/secrets\"]", ""),
    ("exec.programs = [\"/bin/ls\"]", ""),
    ("exec.programs = [\"/bin/ls\"]", "exec.programs = [\"/bin/*\"]"),
    ("extends = \"restricted\"", "extends = \"baseline\""),
    ("extends = \"baseline\"", "extends = \"compatible\""),
    ("extends = \"compatible\"", "extends = \"privileged\""),
];

/// Two profiles of which neither is within the other.
const APART: &[(&str, &str)] = &[
    ("capabilities.drop = [\"CHOWN\"]", "capabilities.drop = [\"KILL\"]"),
    ("files.no-write = [\"/srv\", \"/x\"]", "files.no-write = [\"/var\", \"/x\"]"),
    ("files.no-execute = [\"/srv\", \"/x\"]", "files.no-execute = [\"/var\", \"/x\"]"),
    ("files.hidden = [\"/srv\", \"/x\"]", "files.hidden = [\"/var\", \"/x\"]"),
    ("files.masked = [\"/proc/cpuinfo\", \"/sys/x\"]", "files.masked = [\"/proc/tty\", \"/sys/x\"]"),
    ("files.read-only = [\"/proc/cpuinfo\", \"/sys/x\"]", "files.read-only = [\"/proc/tty\", \"/sys/x\"]"),
    ("network.bind-tcp = [80, 443]", "network.bind-tcp = [443, 8080]"),
    ("network.connect-tcp = [80, 443]", "network.connect-tcp = [443, 8080]"),
    ("seccomp.quiet = [\"mkdir\", \"mount\"]", "seccomp.quiet = [\"mount\", \"unshare\"]"),
    ("host.namespaces = [\"pid\", \"ipc\"]", "host.namespaces = [\"pid\", \"network\"]"),
    ("host.paths = { \"/srv\" = \"read-write\" }", "host.paths = { \"/var/x\" = \"read-only\" }"),
    ("host.hooks = [\"/usr/bin/x\", \"/usr/bin/y\"]", "host.hooks = [\"/usr/bin/y\", \"/usr/bin/z\"]"),
    ("host.devices = [\"c 10:*\"]", "host.devices = [\"c 10:229\", \"b 8:1\"]"),
    ("host.devices = [\"c 10:1\"]", "host.devices = [\"b 10:1\"]"),
    ("host.devices = [\"c 10:1\"]", "host.devices = [\"c 10:2\", \"c 11:1\"]"),
    ("limits = { RLIMIT_NOFILE = 10, RLIMIT_CORE = 5 }", "limits = { RLIMIT_NOFILE = 5, RLIMIT_CORE = 10 }"),
    ("limits = { RLIMIT_NOFILE = 10 }", "limits = { RLIMIT_CORE = 10 }"),
    ("user.non-root = true", "user.own-namespace = true"),
    ("user.uids = [[1, 5]]", "user.uids = [[4, 9]]"),
    ("user.uids = [[1, 5]]", "user.gids = [[1, 5]]"),
    ("labels.apparmor = \"mine\"", "labels.apparmor = \"other\""),
    ("labels.selinux-types = [\"my_t\", \"a_t\"]", "labels.selinux-types = [\"a_t\", \"b_t\"]"),
    ("exec.hidden = [\"/a\", \"/x\"]", "exec.hidden = [\"/b\", \"/x\"]"),
    ("exec.programs = [\"/bin/*\"]", "exec.programs = [\"/*/ls\"]"),
    ("exec.read-only = true", "exec.no-network = true"),
    ("exec.refuse = true", "files.read-only-root = true"),
];

/// In words, without what the two may say in more than one way.
fn words(sandbox: &Sandbox) -> String {
    let told = sandbox.describe().into_iter().map(|(what, how)| format!("{what}: {how}"));
    told.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_narrower_of_two_is_their_meet_and_within_the_wider() {
    for (narrow, wide) in ORDERED {
        let [narrow_one, wide_one] = sandboxes(narrow, wide);
        assert!(narrow_one.is_within(&wide_one), "{narrow} is not within {wide}");
        assert!(!wide_one.is_within(&narrow_one), "{wide} is within {narrow}");
        for meet in [narrow_one.meet(&wide_one), wide_one.meet(&narrow_one)] {
            assert!(
                meet.is_within(&narrow_one) && narrow_one.is_within(&meet),
                "{narrow} and {wide}: {}",
                words(&meet)
            );
        }
    }
}

#[test]
fn the_meet_of_two_that_are_apart_is_within_both() {
    let mut told = Vec::new();
    for (left, right) in APART {
        let [left_one, right_one] = sandboxes(left, right);
        assert!(!left_one.is_within(&right_one), "{left} is within {right}");
        assert!(!right_one.is_within(&left_one), "{right} is within {left}");
        for one in [&left_one, &right_one] {
            let itself = one.meet(one);
            assert_eq!((words(&itself), itself.names()), (words(one), one.names()));
        }
        let (meet, other) = (left_one.meet(&right_one), right_one.meet(&left_one));
        assert!(meet.is_within(&left_one) && meet.is_within(&right_one), "{left} and {right}");
        assert_eq!(words(&meet), words(&other));
        // What the meet says otherwise than the default.
        let plain = words(&sandboxes("", "")[0]);
        let lines: Vec<String> = words(&meet).lines().filter(|line| !plain.contains(line)).map(str::to_owned).collect();
        told.push(format!("{left}\n  and {right}:\n  {}", lines.join("\n  ")));
    }
    insta::assert_snapshot!("meets", told.join("\n"));
}

#[test]
fn a_sandbox_tells_what_it_is_made_of() {
    let [left, right] = sandboxes("host.namespaces = [\"pid\", \"network\"]", "user.non-root = true");
    let meet = left.meet(&right);
    assert_eq!(meet.names().iter().map(String::as_str).collect::<Vec<_>>(), ["left", "right"]);
    assert!(meet.needs_a_user() && !left.needs_a_user());
    assert_eq!(left.host_namespaces().map(HostNamespace::kind).collect::<Vec<_>>(), ["network", "pid"]);
    let ipc = sandboxes("host.namespaces = [\"ipc\"]", "")
        .map(|one| one.host_namespaces().map(HostNamespace::kind).collect::<Vec<_>>());
    assert_eq!(ipc, [vec!["ipc"], vec![]]);
    let filterless = left.without_filter();
    assert_eq!((filterless.filter().rules().count(), left.filter().rules().count() > 300), (0, true));
    assert_eq!(left.host_paths().count(), 1);
}

#[test]
fn a_capability_brings_the_calls_that_it_is_of_no_use_without() {
    let answer = |sandbox: &Sandbox, name: &str, arguments: [u64; 6]| {
        sandbox.filter().decide(Arch::X86_64.number(name).unwrap(), &arguments)
    };
    let [time, plain] = sandboxes("capabilities.add = [\"SYS_TIME\"]", "");
    assert!(answer(&time, "settimeofday", [0; 6]).allows() && !answer(&plain, "settimeofday", [0; 6]).allows());
    let packets = [libc::AF_PACKET as u64, libc::SOCK_RAW as u64, 0, 0, 0, 0];
    assert!(!answer(&time, "socket", packets).allows());
    let [raw, _] = sandboxes("capabilities.add = [\"NET_RAW\"]", "");
    assert!(answer(&raw, "socket", packets).allows() && !answer(&plain, "socket", packets).allows());
    let [ruled, denied] = sandboxes(
        "seccomp.rule = [{ calls = [\"ioctl\"], argument = 5, mask = 3, equals = 2, answer = \"deny\" }]",
        "capabilities.add = [\"SYS_TIME\"]\nseccomp.deny = [\"settimeofday\"]",
    );
    assert_eq!(answer(&ruled, "ioctl", [0, 0, 0, 0, 0, 6]), Action::EPERM);
    assert!(answer(&ruled, "ioctl", [0, 0, 0, 0, 0, 5]).allows());
    assert!(!answer(&denied, "settimeofday", [0; 6]).allows(), "what `seccomp` says comes later, and holds");
}
