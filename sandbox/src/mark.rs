//! By which the kernel's audit records know a container.

use std::fmt;

/// Letters of a mark: 48 bits.
const LENGTH: usize = 12;

/// A random name of a container, which its processes have when they enter their Landlock domain.
///
/// The kernel keeps a domain's name from then on and tells it with the first denial, when the process may be gone and its pid
/// another's. A container that shares its pod's processes can see the name while another starts; but what domains of a
/// container's own deny is not logged, and so it cannot use it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Mark(String);

/// Whose rules a domain has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ruleset {
    /// The container's: all of its processes are under them.
    Container,
    /// What an exec has less than its container.
    Exec,
}

impl Mark {
    /// Of the first digits of a random UUID; none where it has too few.
    #[must_use]
    pub fn from_random(uuid: &str) -> Option<Self> {
        let digits: String = uuid.chars().filter(|c| *c != '-').take(LENGTH).collect();
        Self::try_from(digits).ok()
    }

    /// What a process calls itself when it enters a domain: at most 15 bytes, prctl(2).
    #[must_use]
    pub fn name(&self, ruleset: Ruleset) -> String {
        match ruleset {
            Ruleset::Container => format!("h:{self}"),
            Ruleset::Exec => format!("x:{self}"),
        }
    }

    /// Reads a name; none where it is not of this form.
    #[must_use]
    pub fn of_name(name: &str) -> Option<(Self, Ruleset)> {
        let (kind, digits) = name.split_once(':')?;
        let ruleset = match kind {
            "h" => Ruleset::Container,
            "x" => Ruleset::Exec,
            _ => return None,
        };
        Some((Self::try_from(digits.to_owned()).ok()?, ruleset))
    }
}

impl TryFrom<String> for Mark {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
        if digits && text.len() == LENGTH { Ok(Self(text)) } else { Err("a mark has twelve digits, 0 to f") }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_and_is_read_again() {
        let mark = Mark::from_random("0b7c1e52-9d3a-4c1f-8e21-000000000000\n").unwrap();
        for ruleset in [Ruleset::Container, Ruleset::Exec] {
            let name = mark.name(ruleset);
            assert!(name.len() <= 15, "{name}");
            assert_eq!(Mark::of_name(&name), Some((mark.clone(), ruleset)));
        }
        for other in ["", "h:", "h:0b7c1e529d3", "y:0b7c1e529d3a", "h:0b7c1e529d3A", "0b7c1e529d3a", "h:0b7c1e529d3a0"]
        {
            assert_eq!(Mark::of_name(other), None, "{other}");
        }
        assert_eq!(Mark::from_random("0b7c"), None);
    }
}
