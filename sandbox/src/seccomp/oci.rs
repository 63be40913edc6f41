//! Reads the `linux.seccomp` of an OCI spec: RuntimeDefault, or a Localhost profile of the node.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

use super::{Action, Arch, Condition, Filter, Rule, Test, shared};

/// What makes a seccomp profile of a spec unusable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OciSeccompError {
    /// An action that this product does not offer.
    #[error(
        "{field}: SCMP_ACT_NOTIFY hands system calls to a listener outside the sandbox and is not \
         supported; use SCMP_ACT_ERRNO"
    )]
    Notify {
        /// JSON path of the action.
        field: String,
    },
    /// An argument index that no system call has.
    #[error("{field}: argument index {index}; expected 0 to 5")]
    Argument {
        /// JSON path of the argument.
        field: String,
        /// The index found.
        index: usize,
    },
    /// An errno outside of what a filter can return.
    #[error("{field}: errno {errno}; expected 0 to 4095")]
    Errno {
        /// JSON path of the errno.
        field: String,
        /// The value found.
        errno: u32,
    },
}

impl Filter {
    /// The filter that a spec's profile describes, as runc would load it.
    ///
    /// Names that the architecture lacks are passed over, as runc does; they stay denied. Where
    /// several rules hold for one call, the strictest answers. The profile's architecture list
    /// is not looked at: other ABIs are the node profile's to allow, and it never does.
    ///
    /// # Errors
    /// An action, errno or argument index that cannot be honoured.
    pub fn from_oci(profile: &LinuxSeccomp, arch: Arch) -> Result<Self, OciSeccompError> {
        let default =
            action(profile.default_action(), profile.default_errno_ret(), || "linux.seccomp.defaultAction".into())?;
        let mut filter = Self::new(arch, default, Action::Allow);
        let mut calls: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
        for (position, entry) in profile.syscalls().iter().flatten().enumerate() {
            let field = |name: &str| format!("linux.seccomp.syscalls[{position}].{name}");
            let action = action(entry.action(), entry.errno_ret(), || field("action"))?;
            let conditions = entry
                .args()
                .iter()
                .flatten()
                .map(|argument| condition(argument, || field("args")))
                .collect::<Result<Vec<_>, _>>()?;
            for number in entry.names().iter().filter_map(|name| arch.number(name)) {
                for conditions in alternatives(&conditions) {
                    calls.entry(number).or_default().push(Rule { conditions, action });
                }
            }
        }
        for rules in calls.values_mut() {
            // Stable: rules of one action keep their order.
            rules.sort_by_key(|rule| rule.action);
            rules.dedup();
        }
        filter.calls = shared(calls);
        Ok(filter)
    }
}

/// libseccomp cannot test one argument twice in a rule, so runc makes each test of such a list a
/// rule of its own (libcontainer/seccomp, `matchCall`). Profiles are written for that.
fn alternatives(conditions: &[Condition]) -> Vec<Vec<Condition>> {
    let repeats = (0..6).any(|n| conditions.iter().filter(|c| c.argument == n).count() > 1);
    if repeats { conditions.iter().map(|c| vec![*c]).collect() } else { vec![conditions.to_vec()] }
}

fn action(
    action: LinuxSeccompAction,
    errno: Option<u32>,
    field: impl Fn() -> String,
) -> Result<Action, OciSeccompError> {
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Action::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => Action::KillProcess,
        LinuxSeccompAction::ScmpActTrap => Action::Trap,
        LinuxSeccompAction::ScmpActErrno => {
            let errno = errno.unwrap_or(libc::EPERM as u32);
            match u16::try_from(errno) {
                Ok(value) if value <= 4095 => Action::Errno(value),
                _ => return Err(OciSeccompError::Errno { field: field(), errno }),
            }
        }
        LinuxSeccompAction::ScmpActNotify => return Err(OciSeccompError::Notify { field: field() }),
        // Without a tracer the kernel fails such a call with ENOSYS: seccomp(2).
        LinuxSeccompAction::ScmpActTrace => Action::ENOSYS,
        LinuxSeccompAction::ScmpActLog => Action::Log,
        LinuxSeccompAction::ScmpActAllow => Action::Allow,
    })
}

fn condition(argument: &LinuxSeccompArg, field: impl Fn() -> String) -> Result<Condition, OciSeccompError> {
    let index = argument.index();
    let Ok(number @ 0..=5) = u8::try_from(index) else {
        return Err(OciSeccompError::Argument { field: field(), index });
    };
    let value = argument.value();
    let test = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Test::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Test::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpEq => Test::Equal { mask: u64::MAX, value },
        LinuxSeccompOperator::ScmpCmpGe => Test::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Test::Greater(value),
        // OCI: `value` is the mask and `valueTwo` what the masked argument must equal.
        // libcontainer 0.7.0 hands them to libseccomp the other way round, which lets
        // clone(CLONE_NEWUSER) through containerd's default profile.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Test::Equal { mask: value, value: argument.value_two().unwrap_or_default() }
        }
    };
    Ok(Condition { argument: number, test })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(json: serde_json::Value) -> Result<Filter, OciSeccompError> {
        Filter::from_oci(&serde_json::from_value(json).expect("valid OCI JSON"), Arch::X86_64)
    }

    /// The hole of libcontainer 0.7.0: with the operands swapped this rule allows CLONE_NEWUSER.
    #[test]
    fn masked_equality_takes_the_mask_first() {
        let containerd = filter(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 0x7E02_0000u32, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]
        }))
        .unwrap();
        let clone = Arch::X86_64.number("clone").unwrap();
        let decide = |flags: u64| containerd.decide(clone, &[flags, 0, 0, 0, 0, 0]);
        assert_eq!(decide(libc::CLONE_NEWUSER as u64), Action::EPERM);
        assert_eq!(decide(libc::SIGCHLD as u64), Action::Allow);
    }

    #[test]
    fn the_strictest_rule_of_a_call_answers() {
        let both = filter(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "syscalls": [{"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                         {"names": ["read"], "action": "SCMP_ACT_ERRNO",
                          "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]}]
        }))
        .unwrap();
        assert_eq!(both.decide(0, &[7, 0, 0, 0, 0, 0]), Action::EPERM);
        assert_eq!(both.decide(0, &[8, 0, 0, 0, 0, 0]), Action::Allow);
        assert_eq!(both.decide(1, &[0; 6]), Action::ENOSYS);
    }

    #[test]
    fn what_cannot_be_honoured_is_an_error_that_names_the_field() {
        let error = |json| filter(json).unwrap_err().to_string();
        insta::assert_snapshot!(error(serde_json::json!({"defaultAction": "SCMP_ACT_NOTIFY"})), @"linux.seccomp.defaultAction: SCMP_ACT_NOTIFY hands system calls to a listener outside the sandbox and is not supported; use SCMP_ACT_ERRNO");
        insta::assert_snapshot!(error(serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 7, "op": "SCMP_CMP_EQ"}]}]})), @"linux.seccomp.syscalls[0].args: argument index 6; expected 0 to 5");
        insta::assert_snapshot!(error(serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000})), @"linux.seccomp.defaultAction: errno 5000; expected 0 to 4095");
    }
}
