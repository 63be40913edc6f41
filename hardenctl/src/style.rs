//! Colours, which go away by themselves where nobody sees them.

/// What is wrong.
pub(crate) const BAD: &str = "\x1b[1;31m";
/// What deserves a look.
pub(crate) const NOTE: &str = "\x1b[33m";
/// What is well.
pub(crate) const GOOD: &str = "\x1b[32m";
/// Headings.
pub(crate) const BOLD: &str = "\x1b[1m";
/// What explains.
pub(crate) const DIM: &str = "\x1b[2m";
/// Back to normal.
pub(crate) const PLAIN: &str = "\x1b[0m";
