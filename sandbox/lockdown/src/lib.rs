//! The lock-down: what the container's process does to itself just before `execve`.
//!
//! A chain of types, each step consuming the one before:
//!
//! ```text
//! Unconfined → Placed → NoNewPrivs → CapabilitiesDropped → Labelled → Landlocked → Filtered → execve
//! ```
//!
//! The first link proves where the process is, before it counts on anything that it finds there.
//! Each step reads back what the kernel did, and only `Filtered` can execute. The label comes
//! before Landlock, which may deny the write to `/proc`; Landlock before seccomp, so that the
//! payload's filter need not allow `landlock_*`; seccomp last, so that it need allow nothing but
//! `execve`. Init and exec both come through here; nothing else starts a program.

#![deny(unsafe_code)]

mod beneath;
mod cgroups;
mod failure;
mod home;
mod landlock;
mod lsm_attr;
mod masks;
mod placement;
mod procfs;
mod program;
mod ruleset;
mod sys;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use caps::CapSet;

use hardened_sandbox::capability::CapabilitySet;
use hardened_sandbox::{LockdownPlan, Placement};

use procfs::ProcFs;

pub use failure::{Failure, Mechanism};
pub use placement::{namespaces_of, own_namespaces};
pub use program::Payload;
pub use ruleset::{build_ruleset, resolve_hidden};
pub use sys::{exit, landlock_abi};

/// Locks the calling process down and runs the payload in it. Comes back only with a failure.
///
/// `ruleset` is the container's, as [`build_ruleset`] made it; absent exactly where the plan has no
/// Landlock. `supervisor` is a socket, to which goes the listener of a filter whose denials are explained. The caller
/// must be single-threaded: capabilities, Landlock and seccomp are per thread.
#[must_use = "coming back is a failure"]
pub fn run(
    plan: &LockdownPlan,
    placement: &Placement,
    ruleset: Option<OwnedFd>,
    payload: Payload,
    supervisor: BorrowedFd<'_>,
) -> Failure {
    let filtered = Unconfined { plan }
        .verify_place(placement)
        .and_then(Placed::set_no_new_privs)
        .and_then(NoNewPrivs::drop_capabilities)
        .and_then(CapabilitiesDropped::label)
        .and_then(|labelled| labelled.restrict_files(ruleset))
        .and_then(|landlocked| landlocked.filter(payload, supervisor));
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
    fn verify_place(self, placement: &Placement) -> Result<Placed<'a>, Failure> {
        placement::verify(placement)?;
        let proc = ProcFs::open().map_err(|e| Failure::new(Mechanism::Namespaces, "open /proc", e))?;
        match (&placement.cgroups, &self.plan.masks) {
            (Some(cgroups), Some(masks)) => {
                cgroups::verify(cgroups, proc.as_ref())?;
                masks::verify(masks)?;
            }
            // An exec has init's mounts, where nothing can be unmounted.
            (None, None) => {}
            (None, Some(_)) | (Some(_), None) => {
                let problem = "init's cgroup mounts and its masks are planned together, or neither for an exec";
                return Err(Failure::unverified(Mechanism::Masks, problem));
            }
        }
        Ok(Placed { plan: self.plan, proc })
    }
}

/// The process is in the container's namespaces, and its mounts show what they should.
struct Placed<'a> {
    plan: &'a LockdownPlan,
    proc: Option<ProcFs>,
}

impl<'a> Placed<'a> {
    /// Also goes to the working directory, and leaves the launcher's session keyring: a container
    /// must not find the node's keys.
    fn set_no_new_privs(self) -> Result<NoNewPrivs<'a>, Failure> {
        let cwd = &self.plan.cwd;
        std::env::set_current_dir(cwd)
            .map_err(|e| Failure::new(Mechanism::Cwd, format!("chdir to {}", cwd.display()), e))?;
        // The kernel names a directory outside of the root "(unreachable)": a descriptor that
        // leaked from the runtime (CVE-2024-21626).
        if !std::env::current_dir().is_ok_and(|now| now.is_absolute()) {
            let problem = format!("{} is not inside of the container", cwd.display());
            return Err(Failure::unverified(Mechanism::Cwd, problem));
        }
        sys::join_new_session_keyring()
            .map_err(|e| Failure::new(Mechanism::Keyring, "join a new session keyring", e))?;
        sys::set_no_new_privs().map_err(|e| Failure::new(Mechanism::NoNewPrivs, "prctl(PR_SET_NO_NEW_PRIVS)", e))?;
        match sys::no_new_privs() {
            Ok(true) => Ok(NoNewPrivs { plan: self.plan, proc: self.proc }),
            Ok(false) => Err(Failure::unverified(Mechanism::NoNewPrivs, "the kernel does not report it as set")),
            Err(e) => Err(Failure::new(Mechanism::NoNewPrivs, "prctl(PR_GET_NO_NEW_PRIVS)", e)),
        }
    }
}

/// `execve` can no longer give privileges.
struct NoNewPrivs<'a> {
    plan: &'a LockdownPlan,
    proc: Option<ProcFs>,
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
                set_capabilities(set, found, wanted).map_err(|e| {
                    Failure::unverified(Mechanism::Capabilities, format!("set {set:?} to {wanted}: {e}"))
                })?;
            }
        }
        for (set, wanted) in sets {
            let found = read_capabilities(set)?;
            if found != wanted {
                return Err(Failure::unverified(
                    Mechanism::Capabilities,
                    format!("{set:?} is {found} instead of {wanted}"),
                ));
            }
        }
        Ok(CapabilitiesDropped { plan: self.plan, proc: self.proc })
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
    let found = caps::read(None, set)
        .map_err(|e| Failure::unverified(Mechanism::Capabilities, format!("read {set:?}: {e}")))?;
    Ok(CapabilitySet::from_bits(found.iter().fold(0, |bits, c| bits | 1u64 << c.index())))
}

/// All five capability sets are as planned.
struct CapabilitiesDropped<'a> {
    plan: &'a LockdownPlan,
    proc: Option<ProcFs>,
}

impl<'a> CapabilitiesDropped<'a> {
    fn label(self) -> Result<Labelled<'a>, Failure> {
        lsm_attr::apply(&self.plan.apparmor, self.plan.selinux.as_deref(), self.proc.as_ref())?;
        Ok(Labelled { plan: self.plan })
    }
}

/// The next `execve` enters the AppArmor profile or SELinux type.
struct Labelled<'a> {
    plan: &'a LockdownPlan,
}

impl<'a> Labelled<'a> {
    /// By rules that were made before anything of the container ran: no name is looked up now but
    /// those that an exec is denied beyond its container's rules.
    fn restrict_files(self, ruleset: Option<OwnedFd>) -> Result<Landlocked<'a>, Failure> {
        match (&self.plan.landlock, ruleset) {
            (Some(plan), Some(ruleset)) => landlock::restrict(plan, ruleset, self.plan.exec.as_ref())?,
            // Absent only where a rule of the node lets a privileged container through.
            (None, None) if self.plan.exec.is_none() => {}
            (Some(_), None) | (None, _) => {
                let problem = "the container's ruleset is missing, or there is one and none is planned";
                return Err(Failure::unverified(Mechanism::Landlock, problem));
            }
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
    fn filter(self, mut payload: Payload, supervisor: BorrowedFd<'_>) -> Result<Filtered, Failure> {
        if let Some(uid) = self.plan.home {
            let home = home::of(uid)
                .map_err(|e| Failure::new(Mechanism::Execve, "look up HOME in the image's /etc/passwd", e))?;
            payload.set_home(&home);
        }
        let payload = payload.resolve()?;
        sys::reset_signals().map_err(|e| Failure::new(Mechanism::Execve, "reset signals", e))?;
        let program = &self.plan.seccomp;
        // Without a listener, for example on an older kernel, the same calls are denied, and not reported.
        let listener = if program.explains() { sys::load_explained_filter(program).ok() } else { None };
        match listener {
            // From here on a call that is denied waits for the supervisor: the plan was made so that none of these is.
            Some(listener) => sys::send_descriptor(supervisor, listener.as_fd())
                .map_err(|e| Failure::new(Mechanism::Seccomp, "hand the filter's listener to the supervisor", e))?,
            None => sys::load_filter(&program.unexplained())
                .map_err(|e| Failure::new(Mechanism::Seccomp, "load the filter", e))?,
        }
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
