//! Devices: the standard ones, and nothing else.

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use crate::refusal::Violation;
use crate::sandbox::{Device, Sandbox};

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

/// Refuses devices beyond the standard set and the profile's.
pub(crate) fn check(linux: &Linux, sandbox: &Sandbox, violations: &mut Vec<Violation>) {
    if sandbox.privileged {
        return;
    }
    let given = |kind: Option<LinuxDeviceType>, major: Option<i64>, minor: Option<i64>| {
        major.is_some_and(|major| is_given(sandbox, kind, major, minor))
    };
    let beyond: Vec<String> = linux
        .devices()
        .iter()
        .flatten()
        .filter(|d| !given(Some(d.typ()), Some(d.major()), Some(d.minor())))
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
            "take the devices out of the pod; only the standard ones (null, zero, full, random, urandom, tty, pts) \
             and those of the profile are given",
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
        if given(rule.typ(), major, minor) || (character && (major, minor) == (Some(TUN.0), Some(TUN.1))) {
            continue;
        }
        let shown = |number: Option<i64>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
        violations.push(Violation::policy(
            "linux.resources.devices",
            format!("access to devices {}:{} of the host", shown(major), shown(minor)),
            "run without privileged and without host devices; only the standard devices and those of the profile are \
             given",
        ));
    }
}

/// Whether a device is one of the standard ones, or of the profile's.
fn is_given(sandbox: &Sandbox, kind: Option<LinuxDeviceType>, major: i64, minor: Option<i64>) -> bool {
    let block = match kind {
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => false,
        Some(LinuxDeviceType::B) => true,
        Some(LinuxDeviceType::A | LinuxDeviceType::P) | None => return false,
    };
    let device = Device { block, major, minor };
    (!block && is_standard(major, minor)) || sandbox.devices.iter().any(|given| given.covers(&device))
}

/// The device rules of a container: the standard ones and what it asks for of the profile's; all
/// else is denied. A privileged container keeps its own.
pub(crate) fn rules(asked: &LinuxResources, sandbox: &Sandbox) -> Vec<LinuxDeviceCgroup> {
    let asked = asked.devices().clone().unwrap_or_default();
    if sandbox.is_open() {
        return asked;
    }
    let of_profile = asked.into_iter().filter(|rule| {
        let given = |major| is_given(sandbox, rule.typ(), major, wildcard(rule.minor()));
        rule.allow() && wildcard(rule.major()).is_some_and(given) && !sandbox.devices.is_empty()
    });
    std::iter::once(rule(false, LinuxDeviceType::A, None, None, "rwm"))
        .chain(STANDARD.iter().map(|(major, minor)| rule(true, LinuxDeviceType::C, Some(*major), *minor, "rwm")))
        .chain(of_profile)
        .collect()
}

/// A device rule of the OCI spec; a number that is absent stands for all.
pub(crate) fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(Some(kind)).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
    rule
}

/// Paths of the devices that the spec brings: device ioctls are allowed on them.
pub(crate) fn paths(linux: &Linux) -> impl Iterator<Item = PathBuf> {
    linux.devices().iter().flatten().map(|device| device.path().clone())
}

fn is_standard(major: i64, minor: Option<i64>) -> bool {
    STANDARD.iter().any(|(m, n)| *m == major && (n.is_none() || *n == minor))
}

/// -1 stands for "all" in an OCI device rule, like an absent number.
fn wildcard(number: Option<i64>) -> Option<i64> {
    number.filter(|n| *n >= 0)
}
