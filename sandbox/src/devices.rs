//! Devices: the standard ones, and nothing else.

use oci_spec::runtime::{Linux, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};

use crate::refusal::Violation;

/// Character devices that every container has: OCI runtime spec, "default devices".
const STANDARD: &[(i64, Option<i64>)] = &[
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console
    (5, Some(2)), // ptmx
    (136, None),  // pts/*
];

/// Paths on which device ioctls are allowed; `/dev/pts` with all below it.
pub(crate) const IOCTL_PATHS: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
    "/dev/pts",
];

/// Devices that a refusal names; a privileged container has a hundred.
const SHOWN_DEVICES: usize = 4;

/// `/dev/net/tun`, which containerd before 1.7 lists for every container. Cut, not refused.
const TUN: (i64, i64) = (10, 200);

/// Refuses devices beyond the standard set.
pub(crate) fn check(linux: &Linux, violations: &mut Vec<Violation>) {
    let beyond: Vec<String> = linux
        .devices()
        .iter()
        .flatten()
        .filter(|d| d.typ() != LinuxDeviceType::C || !is_standard(d.major(), Some(d.minor())))
        .map(|d| format!("{} ({}:{})", d.path().display(), d.major(), d.minor()))
        .collect();
    if !beyond.is_empty() {
        let more = match beyond.len().saturating_sub(SHOWN_DEVICES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let shown: Vec<&str> = beyond.iter().take(SHOWN_DEVICES).map(String::as_str).collect();
        violations.push(Violation::policy(
            "linux.devices",
            format!("host devices {}{more}", shown.join(", ")),
            "take the devices out of the pod; only the standard ones (null, zero, full, random, urandom, tty, pts) are \
             given",
        ));
    }
    let rules = linux.resources().as_ref().and_then(|r| r.devices().as_ref()).into_iter().flatten();
    for rule in rules.filter(|rule| rule.allow()) {
        // Making a node without the right to open it: Docker's and runc's default rules have it.
        if rule.access().as_deref() == Some("m") {
            continue;
        }
        let (major, minor) = (wildcard(rule.major()), wildcard(rule.minor()));
        let character = rule.typ() == Some(LinuxDeviceType::C);
        let standard = character && major.is_some_and(|major| is_standard(major, minor));
        if standard || (character && (major, minor) == (Some(TUN.0), Some(TUN.1))) {
            continue;
        }
        let shown = |number: Option<i64>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
        violations.push(Violation::policy(
            "linux.resources.devices",
            format!("access to devices {}:{} of the host", shown(major), shown(minor)),
            "run without privileged and without host devices; only the standard devices are given",
        ));
    }
}

/// The device rules of every container: all else is denied.
pub(crate) fn rules() -> Vec<LinuxDeviceCgroup> {
    let rule = |allow, typ, major: Option<i64>, minor: Option<i64>| {
        let mut builder = LinuxDeviceCgroupBuilder::default().allow(allow).typ(typ).access("rwm");
        if let Some(major) = major {
            builder = builder.major(major);
        }
        if let Some(minor) = minor {
            builder = builder.minor(minor);
        }
        builder.build()
    };
    std::iter::once(rule(false, LinuxDeviceType::A, None, None))
        .chain(STANDARD.iter().map(|(major, minor)| rule(true, LinuxDeviceType::C, Some(*major), *minor)))
        // A builder fails for a missing field only, and none is required here.
        .filter_map(Result::ok)
        .collect()
}

fn is_standard(major: i64, minor: Option<i64>) -> bool {
    STANDARD.iter().any(|(m, n)| *m == major && (n.is_none() || *n == minor))
}

/// -1 stands for "all" in an OCI device rule, like an absent number.
fn wildcard(number: Option<i64>) -> Option<i64> {
    number.filter(|n| *n >= 0)
}
