//! Text in the language that solvers read: SMT-LIB 2.6, bit vectors without quantifiers (QF_BV).

use std::fmt::{self, Display};

/// What kind of value a term has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sort {
    Bool,
    /// Of so many bits.
    Bits(u32),
}

impl Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("Bool"),
            Self::Bits(bits) => write!(f, "(_ BitVec {bits})"),
        }
    }
}

/// Declarations, definitions and assertions, in order.
#[derive(Debug, Default)]
pub(crate) struct Script {
    text: String,
    definitions: usize,
}

impl Script {
    /// An input: the solver looks for its value.
    pub(crate) fn declare(&mut self, name: &str, bits: u32) {
        self.text += &format!("(declare-const {name} {})\n", Sort::Bits(bits));
    }

    /// Gives a term a name, by which it can be used any number of times.
    pub(crate) fn define(&mut self, sort: Sort, term: impl Display) -> String {
        let name = format!("t{}", self.definitions);
        self.definitions += 1;
        // Not `define-fun`: Debian 12's z3 writes those out wherever they are used.
        self.text += &format!("(declare-const {name} {sort})\n(assert (= {name} {term}))\n");
        name
    }

    /// What must hold of the values.
    pub(crate) fn assert(&mut self, condition: impl Display) {
        self.text += &format!("(assert {condition})\n");
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// A constant of 32 bits.
pub(crate) fn word(value: u32) -> String {
    format!("#x{value:08x}")
}

/// A constant of 64 bits.
pub(crate) fn long(value: u64) -> String {
    format!("#x{value:016x}")
}

/// All of the conditions.
pub(crate) fn all(conditions: impl IntoIterator<Item = String>) -> String {
    join("and", "true", conditions)
}

/// Any of the conditions.
pub(crate) fn any(conditions: impl IntoIterator<Item = String>) -> String {
    join("or", "false", conditions)
}

fn join(operation: &str, none: &str, conditions: impl IntoIterator<Item = String>) -> String {
    let conditions: Vec<String> = conditions.into_iter().collect();
    match conditions.as_slice() {
        [] => none.to_owned(),
        [one] => one.clone(),
        _ => format!("({operation} {})", conditions.join(" ")),
    }
}
