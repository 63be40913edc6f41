//! Device rules as a term, and the question whether a program of cgroup v2 means the same.

use std::fmt;

use hardened_sandbox::bundle::DeviceRule;

use crate::script::{Script, Sort, all, word};
use crate::solver::{Solver, SolverError};
use crate::{ProveError, ebpf};

/// An access to a device, for which a program and its rules differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess {
    /// `BPF_DEVCG_DEV_*`: 1 for block devices, 2 for character devices.
    pub kind: u16,
    /// `BPF_DEVCG_ACC_*`: 1 makes a node, 2 reads, 4 writes.
    pub access: u16,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Whether the program allows it.
    pub allowed: bool,
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            BLOCK => f.write_str("b")?,
            CHARACTER => f.write_str("c")?,
            other => write!(f, "type {other}")?,
        }
        write!(f, " {}:{} ", self.major, self.minor)?;
        for (letter, _) in KINDS.iter().filter(|(_, bit)| self.access & bit != 0) {
            write!(f, "{letter}")?;
        }
        f.write_str(if self.allowed { " is allowed" } else { " is denied" })
    }
}

// linux/bpf.h.
const BLOCK: u16 = 1; // BPF_DEVCG_DEV_BLOCK
const CHARACTER: u16 = 2; // BPF_DEVCG_DEV_CHAR
const KINDS: [(char, u16); 3] = [('m', 1), ('r', 2), ('w', 4)]; // BPF_DEVCG_ACC_*

/// Bits of a major and a minor number: `MINORBITS`, linux/kdev_t.h.
const MAJOR_BITS: u32 = 12;
const MINOR_BITS: u32 = 20;

const UNKNOWN: [(&str, u32); 4] = [("kind", 16), ("access", 16), ("major", 32), ("minor", 32)];

/// An access that the program answers unlike the rules. Every type, every device number that the kernel has, and every
/// access but none is looked at.
pub(crate) fn differs(
    solver: &mut Solver,
    program: &[u64],
    rules: &[DeviceRule],
) -> Result<Option<DeviceAccess>, ProveError> {
    let mut script = Script::default();
    for (name, bits) in UNKNOWN {
        script.declare(name, bits);
    }
    script.assert("(not (= access #x0000))");
    script.assert(format!("(bvult major {})", word(1 << MAJOR_BITS)));
    script.assert(format!("(bvult minor {})", word(1 << MINOR_BITS)));
    let result = ebpf::define(program, &context, &mut script)?;
    let allowed = define(rules, &mut script);
    // Anything but 0 and 1 is no answer: the kernel's verifier.
    script.assert(format!("(not (= {result} (ite {allowed} {} {})))", word(1), word(0)));
    let terms: Vec<&str> = UNKNOWN.iter().map(|(name, _)| *name).chain([result.as_str()]).collect();
    let Some(values) = solver.values(&script, &terms)? else { return Ok(None) };
    match *values {
        [kind, access, major, minor, result] => Ok(Some(DeviceAccess {
            kind: kind as u16,
            access: access as u16,
            major: major as u32,
            minor: minor as u32,
            allowed: result != 0,
        })),
        _ => Err(SolverError::Unexpected(format!("{values:x?}")).into()),
    }
}

/// `struct bpf_cgroup_dev_ctx`, linux/bpf.h: the access in the upper half of the first word, the type in its lower one.
fn context(offset: i16) -> Option<String> {
    match offset {
        0 => Some("(concat access kind)".to_owned()),
        4 => Some("major".to_owned()),
        8 => Some("minor".to_owned()),
        _ => None,
    }
}

/// Defines whether the rules allow it, and names that. Each kind of access is answered by the last rule that names the
/// device and that access; what no rule names is denied: Documentation/admin-guide/cgroup-v1/devices.rst.
fn define(rules: &[DeviceRule], script: &mut Script) -> String {
    let known = KINDS.iter().fold(0, |bits, (_, bit)| bits | bit);
    let mut allowed = vec![format!("(= (bvand access #x{:04x}) #x0000)", !known)];
    for (letter, bit) in KINDS {
        let answer =
            rules.iter().filter(|rule| rule.access.contains(letter)).fold("false".to_owned(), |earlier, rule| {
                script.define(Sort::Bool, format!("(ite {} {} {earlier})", names(rule), rule.allow))
            });
        allowed.push(format!("(or (= (bvand access #x{bit:04x}) #x0000) {answer})"));
    }
    script.define(Sort::Bool, all(allowed))
}

/// Whether a rule is about the device. A negative number, as in OCI specs, is any.
fn names(rule: &DeviceRule) -> String {
    let kind = rule.block.map(|block| format!("(= kind #x{:04x})", if block { BLOCK } else { CHARACTER }));
    let number = |name: &str, wanted: Option<i64>| {
        wanted.filter(|wanted| *wanted >= 0).map(|wanted| match u32::try_from(wanted) {
            Ok(wanted) => format!("(= {name} {})", word(wanted)),
            Err(_) => "false".to_owned(),
        })
    };
    all([kind, number("major", rule.major), number("minor", rule.minor)].into_iter().flatten())
}
