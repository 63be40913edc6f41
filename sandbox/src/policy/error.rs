//! What is wrong with a policy: file, line, column, and what was expected.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Source;

/// Where something stands in a policy file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Place {
    pub(super) fn of(source: &Source, span: Range<usize>) -> Self {
        let line = source.lines.partition_point(|begin| *begin <= span.start);
        let begin = source.lines.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let before = source.text.get(begin..span.start).unwrap_or_default();
        Self { file: source.path.clone(), line, column: before.chars().count() + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// Where; absent where a whole file cannot be read.
    pub place: Option<Place>,
    /// What, and what was expected.
    pub problem: String,
}

impl PolicyError {
    pub(super) fn at(place: &Place, problem: impl Into<String>) -> Self {
        Self { place: Some(place.clone()), problem: problem.into() }
    }

    /// A file or folder that cannot be used at all.
    /// About a file as a whole.
    #[must_use]
    pub fn file(path: &Path, problem: impl fmt::Display) -> Self {
        Self { place: None, problem: format!("{}: {problem}", path.display()) }
    }

    pub(super) fn toml(source: &Source, error: &toml::de::Error) -> Self {
        let mut problem = error.message().trim_end().replace('\n', " ");
        if let Some(name) = suggestion(&problem) {
            problem = format!("{problem}; did you mean `{name}`?");
        }
        Self { place: error.span().map(|span| Place::of(source, span)), problem }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}:{}: {}", place.column, self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for PolicyError {}

/// Everything that is wrong with a policy. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyErrors(pub Vec<PolicyError>);

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyErrors {}

/// serde names the unknown word and all that it knows, each in backquotes.
fn suggestion(message: &str) -> Option<String> {
    let mut words = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown ").then(|| words.next())??;
    nearest(unknown, words).map(str::to_owned)
}

/// The known word that somebody most likely meant.
pub(crate) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|word| (strsim::jaro_winkler(unknown, word), word))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}
