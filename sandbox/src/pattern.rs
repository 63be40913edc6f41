//! Patterns: `*` stands for any run of characters, `?` for one.

use wildmatch::WildMatch;

/// Some patterns, of which one must match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a string, or a list of strings")]
pub enum Patterns {
    /// One.
    One(String),
    /// Any of several.
    Any(Vec<String>),
}

impl Patterns {
    /// Each pattern.
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(pattern) => std::slice::from_ref(pattern),
            Self::Any(patterns) => patterns,
        }
    }

    /// Whether one matches the whole text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.all().iter().any(|pattern| matches(pattern, text))
    }

    /// Whether nothing matches that the others do not match, as far as single patterns tell.
    #[must_use]
    pub(crate) fn are_within(&self, other: &Self) -> bool {
        self.all().iter().all(|pattern| other.all().iter().any(|wider| is_within(pattern, wider)))
    }

    /// Whether one of them says nothing: `*`.
    pub(crate) fn match_anything(&self) -> bool {
        self.all().iter().any(|pattern| pattern.chars().all(|c| matches!(c, '*' | '?')))
    }
}

/// Whether a pattern matches the whole text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let fixed = pattern.find(['*', '?']).unwrap_or(pattern.len());
    let (fixed, rest) = pattern.split_at(fixed);
    // Most patterns of a policy differ in what they begin with, and are not worth being compiled for it.
    text.strip_prefix(fixed)
        .is_some_and(|text| if rest.is_empty() { text.is_empty() } else { WildMatch::new(rest).matches(text) })
}

/// Whether the wider pattern matches all that the other matches. Taken as a text, a pattern with `*`
/// or `?` in it is matched by a `*` only where that one stands for whatever those stand for; a `?`
/// would match the sign itself.
fn is_within(pattern: &str, wider: &str) -> bool {
    let tells = !pattern.contains(['*', '?']) || !wider.contains('?');
    pattern == wider || (tells && WildMatch::new(wider).matches(pattern))
}

impl std::fmt::Display for Patterns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.all().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_within_one_that_matches_more() {
        for (pattern, wider) in [("a", "a"), ("a", "*"), ("a.b", "a.*"), ("a.b.*", "a.*"), ("a?", "a*"), ("ab", "a?")] {
            assert!(is_within(pattern, wider), "{pattern} {wider}");
        }
        for (pattern, wider) in [("*", "a"), ("a*", "a?"), ("a.*", "a.b.*"), ("?", "a"), ("a*", "a")] {
            assert!(!is_within(pattern, wider), "{pattern} {wider}");
        }
    }
}
