//! The lock-down: what the container's process does to itself just before `execve`.
//!
//! A chain of types, each step consuming the one before:
//!
//! ```text
//! Unconfined → NoNewPrivs → CapabilitiesDropped → Labelled → Landlocked → Filtered → execve
//! ```
//!
//! Each step reads back what the kernel did, and only `Filtered` can execute. The label comes
//! before Landlock, which may deny the write to `/proc`; Landlock before seccomp, so that the
//! payload's filter need not allow `landlock_*`; seccomp last, so that it need allow nothing but
//! `execve`. Init and exec both come through here; nothing else starts a program.

#![deny(unsafe_code)]

mod home;
mod landlock;
mod lsm_attr;
mod masks;
mod program;
mod sys;

use std::fmt;

use caps::CapSet;

use hardened_sandbox::LockdownPlan;
use hardened_sandbox::capability::CapabilitySet;

pub use program::Payload;
pub use sys::{exit, landlock_abi};

/// What failed, for the message of `Start`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Mechanism: `cwd`, `keyring`, `no_new_privs`, `capabilities`, `label`, `landlock`, `seccomp` or `execve`.
    pub mechanism: String,
    /// Operation and object.
    pub step: String,
    /// The kernel's answer; 0 where the kernel answered well and the read-back differs.
    pub errno: i32,
}

impl Failure {
    fn new(mechanism: &str, step: impl Into<String>, error: &std::io::Error) -> Self {
        Self { mechanism: mechanism.to_owned(), step: step.into(), errno: error.raw_os_error().unwrap_or(0) }
    }

    /// The kernel said yes, and the read-back says no.
    fn unverified(mechanism: &str, step: impl Into<String>) -> Self {
        Self { mechanism: mechanism.to_owned(), step: step.into(), errno: 0 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.mechanism, self.step)?;
        if self.errno != 0 {
            write!(f, ": {}", std::io::Error::from_raw_os_error(self.errno))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Locks the calling process down and runs the payload in it. Comes back only with a failure.
///
/// The caller must be single-threaded: capabilities, Landlock and seccomp are per thread.
#[must_use = "coming back is a failure"]
pub fn run(plan: &LockdownPlan, payload: Payload) -> Failure {
    let filtered = Unconfined { plan }
        .verify_masks()
        .and_then(Masked::set_no_new_privs)
        .and_then(NoNewPrivs::drop_capabilities)
        .and_then(CapabilitiesDropped::label)
        .and_then(Labelled::restrict_files)
        .and_then(|landlocked| landlocked.filter(payload));
    match filtered {
        Ok(filtered) => filtered.execute(),
        Err(failure) => failure,
    }
}

/// Nothing applied yet.
struct Unconfined<'a> {
    plan: &'a LockdownPlan,
}

impl<'a> Unconfined<'a> {
    fn verify_masks(self) -> Result<Masked<'a>, Failure> {
        if let Some(plan) = &self.plan.masks {
            masks::verify(plan)?;
        }
        Ok(Masked { plan: self.plan })
    }
}

/// procfs and sysfs show what they should.
struct Masked<'a> {
    plan: &'a LockdownPlan,
}

impl<'a> Masked<'a> {
    /// Also goes to the working directory, and leaves the launcher's session keyring: a container
    /// must not find the node's keys.
    fn set_no_new_privs(self) -> Result<NoNewPrivs<'a>, Failure> {
        let cwd = &self.plan.cwd;
        std::env::set_current_dir(cwd).map_err(|e| Failure::new("cwd", format!("chdir to {}", cwd.display()), &e))?;
        // The kernel names a directory outside of the root "(unreachable)": a descriptor that
        // leaked from the runtime (CVE-2024-21626).
        if !std::env::current_dir().is_ok_and(|now| now.is_absolute()) {
            return Err(Failure::unverified("cwd", format!("{} is not inside of the container", cwd.display())));
        }
        sys::join_new_session_keyring().map_err(|e| Failure::new("keyring", "join a new session keyring", &e))?;
        sys::set_no_new_privs().map_err(|e| Failure::new("no_new_privs", "prctl(PR_SET_NO_NEW_PRIVS)", &e))?;
        match sys::no_new_privs() {
            Ok(true) => Ok(NoNewPrivs { plan: self.plan }),
            Ok(false) => Err(Failure::unverified("no_new_privs", "the kernel does not report it as set")),
            Err(e) => Err(Failure::new("no_new_privs", "prctl(PR_GET_NO_NEW_PRIVS)", &e)),
        }
    }
}

/// `execve` can no longer give privileges.
struct NoNewPrivs<'a> {
    plan: &'a LockdownPlan,
}

impl<'a> NoNewPrivs<'a> {
    fn drop_capabilities(self) -> Result<CapabilitiesDropped<'a>, Failure> {
        let wanted = &self.plan.capabilities;
        // Bounding first: it takes CAP_SETPCAP, which the others may take away.
        let sets = [
            (CapSet::Bounding, wanted.bounding),
            (CapSet::Effective, wanted.effective),
            (CapSet::Permitted, wanted.permitted),
            (CapSet::Inheritable, wanted.inheritable),
            (CapSet::Ambient, wanted.ambient),
        ];
        for (set, wanted) in sets {
            let found = read_capabilities(set)?;
            if found != wanted {
                set_capabilities(set, found, wanted)
                    .map_err(|e| Failure::unverified("capabilities", format!("set {set:?} to {wanted}: {e}")))?;
            }
        }
        for (set, wanted) in sets {
            let found = read_capabilities(set)?;
            if found != wanted {
                return Err(Failure::unverified("capabilities", format!("{set:?} is {found} instead of {wanted}")));
            }
        }
        Ok(CapabilitiesDropped { plan: self.plan })
    }
}

/// The bounding set can only be dropped from, one by one; the others are set as a whole.
fn set_capabilities(set: CapSet, found: CapabilitySet, wanted: CapabilitySet) -> Result<(), caps::errors::CapsError> {
    if !matches!(set, CapSet::Bounding) {
        return caps::set(None, set, &to_caps(wanted));
    }
    to_caps(found.without(wanted)).into_iter().try_for_each(|capability| caps::drop(None, set, capability))
}

fn to_caps(set: CapabilitySet) -> caps::CapsHashSet {
    set.names().filter_map(|name| format!("CAP_{name}").parse().ok()).collect()
}

fn read_capabilities(set: CapSet) -> Result<CapabilitySet, Failure> {
    let found = caps::read(None, set).map_err(|e| Failure::unverified("capabilities", format!("read {set:?}: {e}")))?;
    Ok(CapabilitySet::from_bits(found.iter().fold(0, |bits, c| bits | 1u64 << c.index())))
}

/// All five capability sets are as planned.
struct CapabilitiesDropped<'a> {
    plan: &'a LockdownPlan,
}

impl<'a> CapabilitiesDropped<'a> {
    fn label(self) -> Result<Labelled<'a>, Failure> {
        lsm_attr::apply(&self.plan.apparmor, self.plan.selinux.as_deref())?;
        Ok(Labelled { plan: self.plan })
    }
}

/// The next `execve` enters the AppArmor profile or SELinux type.
struct Labelled<'a> {
    plan: &'a LockdownPlan,
}

impl<'a> Labelled<'a> {
    fn restrict_files(self) -> Result<Landlocked<'a>, Failure> {
        // Absent only where a rule of the node lets a privileged container through.
        if let Some(plan) = &self.plan.landlock {
            landlock::restrict(plan)?;
        }
        Ok(Landlocked { plan: self.plan })
    }
}

/// Files are restricted.
struct Landlocked<'a> {
    plan: &'a LockdownPlan,
}

impl Landlocked<'_> {
    /// Everything about the payload that needs system calls is done before the filter is on:
    /// looking up `HOME` and finding the program.
    fn filter(self, mut payload: Payload) -> Result<Filtered, Failure> {
        if let Some(uid) = self.plan.home {
            payload.set_home(&home::of(uid));
        }
        let payload = payload.resolve()?;
        sys::reset_signals().map_err(|e| Failure::new("execve", "reset signals", &e))?;
        sys::load_filter(&self.plan.seccomp).map_err(|e| Failure::new("seccomp", "load the filter", &e))?;
        Ok(Filtered { payload })
    }
}

/// The complete sandbox. The filter's presence needs no read-back: `seccomp(2)` has no partial
/// success for a single thread, and a filter cannot be taken off again.
struct Filtered {
    payload: program::Resolved,
}

impl Filtered {
    fn execute(self) -> Failure {
        self.payload.execute()
    }
}
