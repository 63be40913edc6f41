//! The kernel's audit records, as far as they tell what Landlock, AppArmor and SELinux deny.
//!
//! Parsed once and bounded: paths and names in them are chosen by containers.

mod explain;
mod fields;

use fields::Fields;

pub use explain::Denial;

/// `AUDIT_AVC`, include/uapi/linux/audit.h: AppArmor's records, and SELinux'.
pub const AVC: u16 = 1400;

/// `AUDIT_LANDLOCK_ACCESS`: a denial (Linux 6.15).
pub const LANDLOCK_ACCESS: u16 = 1423;

/// `AUDIT_LANDLOCK_DOMAIN`: the first denial of a domain, and its end.
pub const LANDLOCK_DOMAIN: u16 = 1424;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// When, in milliseconds since 1970.
    pub time: u64,
    /// What.
    pub event: Event,
}

/// What a record tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A Landlock domain has its first denial.
    Begun {
        /// The domain.
        domain: u64,
        /// The process that entered it, when it did; it may be gone since.
        pid: u32,
        /// Its user, then.
        uid: u32,
        /// Its name, then.
        comm: String,
    },
    /// A Landlock domain with denials is gone.
    Ended {
        /// The domain.
        domain: u64,
        /// How many there were: also those whose records were lost.
        denials: u64,
    },
    /// Landlock denied something.
    Landlock {
        /// By the rules of this domain.
        domain: u64,
        /// What.
        denial: Denial,
    },
    /// AppArmor or SELinux denied something to a process.
    Labelled {
        /// The process.
        pid: u32,
        /// What.
        denial: Denial,
    },
}

/// A record of a type that is known, whose text is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an audit record of type {0} has a form that this version does not know")]
pub struct Malformed(pub u16);

/// Reads a record, as the kernel multicasts it. None where it tells of nothing that was denied.
///
/// # Errors
/// [`Malformed`].
pub fn parse(kind: u16, text: &[u8]) -> Result<Option<Message>, Malformed> {
    // What is no UTF-8 is hexadecimal digits.
    let text = std::str::from_utf8(text).map_err(|_| Malformed(kind))?;
    let message = || {
        let (stamp, rest) = text.strip_prefix("audit(")?.split_once("):")?;
        let (seconds, milliseconds) = stamp.split_once(':')?.0.split_once('.')?;
        let time =
            seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(milliseconds.parse::<u16>().ok()?.into())?;
        let fields = Fields::of(rest);
        let event = match kind {
            LANDLOCK_ACCESS => {
                Some(Event::Landlock { domain: domain(&fields)?, denial: explain::of_landlock(&fields)? })
            }
            LANDLOCK_DOMAIN => Some(domain_event(&fields)?),
            AVC => labelled(&fields)?,
            _ => None,
        };
        Some(event.map(|event| Message { time, event }))
    };
    message().ok_or(Malformed(kind))
}

fn domain(fields: &Fields<'_>) -> Option<u64> {
    u64::from_str_radix(fields.word("domain")?, 16).ok()
}

fn domain_event(fields: &Fields<'_>) -> Option<Event> {
    let domain = domain(fields)?;
    match fields.word("status")? {
        "allocated" => Some(Event::Begun {
            domain,
            pid: u32::try_from(fields.number("pid")?).ok()?,
            uid: u32::try_from(fields.number("uid")?).ok()?,
            comm: fields.text("comm")?,
        }),
        "deallocated" => Some(Event::Ended { domain, denials: fields.number("denials")? }),
        _ => None,
    }
}

/// The outer option is whether the record is understood, the inner one whether it tells of a denial.
#[expect(clippy::option_option, reason = "the two are different questions")]
fn labelled(fields: &Fields<'_>) -> Option<Option<Event>> {
    let denial = match fields.word("apparmor") {
        Some("DENIED") => explain::of_apparmor(fields)?,
        // Allowed, status, or what a profile in complain mode would deny.
        Some(_) => return Some(None),
        None if !fields.has("avc:") || !fields.has("denied") || fields.number("permissive") == Some(1) => {
            return Some(None);
        }
        None => explain::of_selinux(fields)?,
    };
    Some(Some(Event::Labelled { pid: u32::try_from(fields.number("pid")?).ok()?, denial }))
}

#[cfg(test)]
mod tests;
