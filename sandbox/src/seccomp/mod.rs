//! seccomp filters as values: which call, with which arguments, gets which answer.
//!
//! A [`Filter`] is what a profile or an OCI `linux.seccomp` says, for one architecture. Filters
//! have a meet ([`Filter::meet`]) and compile to one BPF program ([`Filter::compile`]).

mod answer;
mod compile;
#[cfg(test)]
pub(crate) mod interpret;
mod meet;
mod oci;
pub(crate) mod socket;
mod table;
mod within;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use answer::Call;
pub use compile::{CompileError, Instruction, Program};
pub use oci::OciSeccompError;
pub use socket::SocketFamily;

/// An architecture that filters are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 64-bit x86. The i386 and x32 calls of the same kernel are *foreign* ([`Filter::foreign`]).
    X86_64,
    /// 64-bit Arm. Its 32-bit calls are foreign.
    Aarch64,
}

impl Arch {
    /// The architecture this program was built for; `None` where no filter can be made.
    #[must_use]
    pub fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_*` of linux/audit.h: what the kernel puts into `seccomp_data.arch`.
    #[must_use]
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
            Self::Aarch64 => 0xC000_00B7,
        }
    }

    /// The number of a call by its kernel name; `None` where the architecture lacks it.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        let found = table::CALLS.binary_search_by_key(&name, |entry| entry.0).ok()?;
        self.pick(table::CALLS[found])
    }

    /// The kernel's name of a call number.
    #[must_use]
    pub fn name(self, number: u32) -> Option<&'static str> {
        table::CALLS.iter().find(|entry| self.pick(**entry) == Some(number)).map(|entry| entry.0)
    }

    /// Every call that the architecture has, by name and number.
    pub fn calls(self) -> impl Iterator<Item = (&'static str, u32)> {
        table::CALLS.iter().filter_map(move |entry| Some((entry.0, self.pick(*entry)?)))
    }

    fn pick(self, (_, x86_64, aarch64): (&str, i16, i16)) -> Option<u32> {
        let number = match self {
            Self::X86_64 => x86_64,
            Self::Aarch64 => aarch64,
        };
        u32::try_from(number).ok()
    }
}

/// Whether a name is a system call on any architecture that this product knows.
#[must_use]
pub fn is_call(name: &str) -> bool {
    table::CALLS.binary_search_by_key(&name, |entry| entry.0).is_ok()
}

/// What the kernel answers to a call, strictest first: seccomp(2), "return values".
///
/// The order is the kernel's own precedence, so the meet of two actions is their minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Ends the whole process with SIGSYS.
    KillProcess,
    /// Ends the calling thread with SIGSYS.
    KillThread,
    /// Sends a SIGSYS that the program may catch.
    Trap,
    /// Fails the call with this errno (1 to 4095).
    Errno(u16),
    /// Allows the call and logs it.
    Log,
    /// Allows the call.
    Allow,
}

impl Action {
    /// `EPERM`: for calls that are refused because they are dangerous.
    pub const EPERM: Self = Self::Errno(libc::EPERM as u16);
    /// `ENOSYS`: for calls that are unknown, so that libc falls back to an older one.
    pub const ENOSYS: Self = Self::Errno(libc::ENOSYS as u16);

    /// The word that a BPF program returns for this action (linux/seccomp.h).
    #[must_use]
    pub const fn word(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0x0000_0000,
            Self::Trap => 0x0003_0000,
            Self::Errno(errno) => 0x0005_0000 | errno as u32,
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }

    /// Whether the call runs.
    #[must_use]
    pub const fn allows(self) -> bool {
        matches!(self, Self::Log | Self::Allow)
    }
}

/// How an argument is compared; all comparisons are of unsigned 64-bit values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Test {
    /// `argument & mask == value`.
    Equal {
        /// Bits that count. Narrow it to `u32::MAX` for an `int`: the kernel ignores what a
        /// caller left in the upper half, and a filter that looks at it can be walked around
        /// (CVE-2019-10063).
        mask: u64,
        /// Value of those bits.
        value: u64,
    },
    /// `argument != value`.
    NotEqual(u64),
    /// `argument < value`.
    Less(u64),
    /// `argument <= value`.
    LessOrEqual(u64),
    /// `argument > value`.
    Greater(u64),
    /// `argument >= value`.
    GreaterOrEqual(u64),
}

/// A test of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// The comparison.
    pub test: Test,
}

impl Condition {
    /// Tests the low 32 bits of an argument, as the kernel does for `int`.
    #[must_use]
    pub const fn int(argument: u8, value: u32) -> Self {
        Self::bits(argument, u32::MAX, value)
    }

    /// Tests some of the low 32 bits of an argument.
    #[must_use]
    pub const fn bits(argument: u8, mask: u32, value: u32) -> Self {
        Self { argument, test: Test::Equal { mask: mask as u64, value: value as u64 } }
    }

    /// Whether both conditions can never hold together, as far as equalities show it.
    fn excludes(&self, other: &Self) -> bool {
        match (self.test, other.test) {
            (Test::Equal { mask: a, value: x }, Test::Equal { mask: b, value: y }) => {
                self.argument == other.argument && (x ^ y) & a & b != 0
            }
            _ => false,
        }
    }
}

/// One answer to a call, given when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// All must hold; none means always.
    pub conditions: Vec<Condition>,
    /// The answer.
    pub action: Action,
}

impl Rule {
    /// A rule without conditions.
    #[must_use]
    pub const fn always(action: Action) -> Self {
        Self { conditions: Vec::new(), action }
    }
}

/// The rules of a call, shared by all calls that have the same.
pub(crate) type Rules = Arc<[Rule]>;

fn shared(calls: BTreeMap<u32, Vec<Rule>>) -> Arc<BTreeMap<u32, Rules>> {
    Arc::new(calls.into_iter().map(|(number, rules)| (number, rules.into())).collect())
}

/// A default-deny decision over all system calls of one architecture.
///
/// A call gets the action of its first rule whose conditions hold, and else [`Filter::default`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    arch: Arch,
    foreign: Action,
    default: Action,
    /// Shared with copies: a decision makes several of a filter that has hundreds of calls.
    #[serde(with = "grouped")]
    calls: Arc<BTreeMap<u32, Rules>>,
}

/// Rules as they are written: most calls have the same as many others.
mod grouped {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Rule, Rules};

    pub(super) fn serialize<S: Serializer>(calls: &BTreeMap<u32, Rules>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut groups: Vec<(&[Rule], Vec<u32>)> = Vec::new();
        for (number, rules) in calls {
            match groups.iter_mut().find(|(shared, _)| *shared == rules.as_ref()) {
                Some((_, numbers)) => numbers.push(*number),
                None => groups.push((rules, vec![*number])),
            }
        }
        groups.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<BTreeMap<u32, Rules>>, D::Error> {
        let groups: Vec<(Vec<Rule>, Vec<u32>)> = Deserialize::deserialize(deserializer)?;
        let groups = groups.into_iter().map(|(rules, numbers)| (Rules::from(rules), numbers));
        let calls = groups.flat_map(|(rules, numbers)| numbers.into_iter().map(move |n| (n, Arc::clone(&rules))));
        Ok(Arc::new(calls.collect()))
    }
}

impl Filter {
    /// A filter that answers `default` to every call of `arch`, and `foreign` to every other ABI.
    #[must_use]
    pub fn new(arch: Arch, default: Action, foreign: Action) -> Self {
        Self { arch, foreign, default, calls: Arc::default() }
    }

    /// The architecture whose calls are decided one by one.
    #[must_use]
    pub const fn arch(&self) -> Arch {
        self.arch
    }

    /// The answer to calls through another ABI of the same kernel: i386 and x32 on x86_64.
    #[must_use]
    pub const fn foreign(&self) -> Action {
        self.foreign
    }

    /// The answer to calls that have no rule.
    #[must_use]
    pub const fn default(&self) -> Action {
        self.default
    }

    /// Calls with rules of their own, by number.
    pub fn rules(&self) -> impl Iterator<Item = (u32, &[Rule])> {
        self.calls.iter().map(|(number, rules)| (*number, rules.as_ref()))
    }

    /// Adds a rule behind those that the call has.
    pub fn push(&mut self, number: u32, rule: Rule) {
        let rules = self.of(number).iter().cloned().chain([rule]).collect();
        self.set(number, rules);
    }

    /// The rules of a call.
    #[must_use]
    pub fn of(&self, number: u32) -> &[Rule] {
        self.calls.get(&number).map(AsRef::as_ref).unwrap_or_default()
    }

    /// Gives a call these rules instead of those that it has.
    pub fn set(&mut self, number: u32, rules: Vec<Rule>) {
        self.share(number, rules.into());
    }

    /// The same, with rules that other calls have too.
    pub(crate) fn share(&mut self, number: u32, rules: Rules) {
        Arc::make_mut(&mut self.calls).insert(number, rules);
    }

    /// Answers `action` to calls through another ABI.
    pub const fn set_foreign(&mut self, action: Action) {
        self.foreign = action;
    }

    /// What the filter answers to a call: the meaning that [`Filter::compile`] must keep.
    #[must_use]
    pub fn decide(&self, number: u32, arguments: &[u64; 6]) -> Action {
        let rules = self.of(number);
        let holds = |condition: &Condition| {
            let argument = arguments.get(usize::from(condition.argument)).copied().unwrap_or_default();
            match condition.test {
                Test::Equal { mask, value } => argument & mask == value,
                Test::NotEqual(value) => argument != value,
                Test::Less(value) => argument < value,
                Test::LessOrEqual(value) => argument <= value,
                Test::Greater(value) => argument > value,
                Test::GreaterOrEqual(value) => argument >= value,
            }
        };
        rules.iter().find(|rule| rule.conditions.iter().all(holds)).map_or(self.default, |rule| rule.action)
    }
}
