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
        self.all().iter().any(|pattern| WildMatch::new(pattern).matches(text))
    }

    /// Whether one of them says nothing: `*`.
    pub(super) fn match_anything(&self) -> bool {
        self.all().iter().any(|pattern| pattern.chars().all(|c| matches!(c, '*' | '?')))
    }
}

impl std::fmt::Display for Patterns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.all().join(", "))
    }
}
