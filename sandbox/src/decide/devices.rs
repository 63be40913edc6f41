//! Devices: the standard ones, and nothing else.

use std::path::{Path, PathBuf};

use crate::bundle::{DeviceNode, DeviceRule};
use crate::refusal::Violation;
use crate::request::Request;
use crate::sandbox::{Device, Sandbox};

/// Character devices that every container has: OCI runtime spec, "default devices". (Its `/dev/console` is
/// its own terminal: 5:1 is the host's.)
const STANDARD: &[(i64, Option<i64>)] = &[
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(2)), // ptmx
    (136, None),  // pts/*
];

/// Paths on which device ioctls are allowed; `/dev/pts` with all below it.
const IOCTL_PATHS: &[&str] = &[
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

/// Character devices that containerd's default rules have for every container, and that none gets: the
/// host's console, and before 1.7 `/dev/net/tun`. Cut, not refused.
const CUT: [(i64, i64); 2] = [(5, 1), (10, 200)];

/// Whether the spec asks for every device.
pub(crate) fn asks_for_all(request: &Request) -> bool {
    request.device_rules.iter().any(|rule| rule.allow && rule.major.is_none() && rule.access.contains('w'))
}

/// Refuses devices beyond the standard set and the profile's.
pub(crate) fn check(request: &Request, sandbox: &Sandbox, violations: &mut Vec<Violation>) {
    if sandbox.privileged {
        return;
    }
    let is_beyond = |node: &&DeviceNode| !is_given(sandbox, Some(node.block), node.major, Some(node.minor));
    let beyond: Vec<String> = request
        .devices
        .iter()
        .filter(is_beyond)
        .map(|node| format!("{} ({}:{})", node.path.display(), node.major, node.minor))
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
    let is_in_mount = |node: &&DeviceNode| {
        request.mounts.iter().any(|m| m.destination != Path::new("/dev") && node.path.starts_with(&m.destination))
    };
    for node in request.devices.iter().filter(is_in_mount) {
        violations.push(Violation::invalid(
            format!("linux.devices[{}]", node.path.display()),
            "would be created in a volume, or in a file system other than /dev",
            "give it a distinct path in /dev",
        ));
    }
    let mut after_grants = request.device_rules.iter().skip_while(|rule| !rule.allow || rule.access == "m");
    if after_grants.any(|rule| !rule.allow) {
        violations.push(Violation::invalid(
            "linux.resources.devices",
            "a rule denies what an earlier one allows; only allow-lists are supported",
            "leave both out",
        ));
    }
    for rule in request.device_rules.iter().filter(|rule| rule.allow) {
        // Making a node without the right to open it: Docker's and runc's default rules have it.
        if rule.access == "m" {
            continue;
        }
        let is_cut = rule.block == Some(false) && CUT.iter().any(|cut| rule.major.zip(rule.minor) == Some(*cut));
        if is_cut || rule.major.is_some_and(|major| is_given(sandbox, rule.block, major, rule.minor)) {
            continue;
        }
        let shown = |number: Option<i64>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
        violations.push(Violation::policy(
            "linux.resources.devices",
            format!("access to devices {}:{} of the host", shown(rule.major), shown(rule.minor)),
            "run without privileged and without host devices; only the standard devices and those of the profile are \
             given",
        ));
    }
}

/// Whether a device is one of the standard ones, or of the profile's.
fn is_given(sandbox: &Sandbox, block: Option<bool>, major: i64, minor: Option<i64>) -> bool {
    let Some(block) = block else { return false };
    let device = Device { block, major, minor };
    (!block && is_standard(major, minor)) || sandbox.devices.iter().any(|given| given.covers(&device))
}

/// The nodes that are made: of what calls itself a pod's sandbox, none that it may not open.
pub(crate) fn nodes(request: &Request, sandbox: &Sandbox) -> Vec<DeviceNode> {
    let is_taken =
        |node: &&DeviceNode| sandbox.is_open() || is_given(sandbox, Some(node.block), node.major, Some(node.minor));
    request.devices.iter().filter(is_taken).cloned().collect()
}

/// The device rules of a container: the standard ones and what it asks for of the profile's; all
/// else is denied. A privileged container keeps its own.
pub(crate) fn rules(request: &Request, sandbox: &Sandbox) -> Vec<DeviceRule> {
    if sandbox.is_open() {
        return request.device_rules.clone();
    }
    let of_profile = request.device_rules.iter().filter(|rule| {
        let given = |major| is_given(sandbox, rule.block, major, rule.minor);
        rule.allow && rule.major.is_some_and(given) && !sandbox.devices.is_empty()
    });
    let standard = STANDARD.iter().map(|(major, minor)| DeviceRule {
        allow: true,
        block: Some(false),
        major: Some(*major),
        minor: *minor,
        access: "rwm".to_owned(),
    });
    let none = DeviceRule { allow: false, block: None, major: None, minor: None, access: "rwm".to_owned() };
    std::iter::once(none).chain(standard).chain(of_profile.cloned()).collect()
}

/// Paths on which device ioctls are allowed: the standard devices', and those that the spec brings.
pub(crate) fn ioctl_paths(request: &Request, sandbox: &Sandbox) -> Vec<PathBuf> {
    let own = nodes(request, sandbox).into_iter().map(|device| device.path);
    IOCTL_PATHS.iter().map(PathBuf::from).chain(own).collect()
}

fn is_standard(major: i64, minor: Option<i64>) -> bool {
    STANDARD.iter().any(|(m, n)| *m == major && (n.is_none() || *n == minor))
}
