//! What several commands take, and how it is read.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hardened_node::policy_files;

/// Where the policy is.
#[derive(Debug, Args)]
pub(crate) struct PolicyPath {
    /// Policy folder (policy.toml and policy.d/*.toml), or one policy file.
    #[arg(long, short, value_name = "PATH", default_value = policy_files::FOLDER)]
    pub(crate) policy: PathBuf,
}

/// The runtime handler that every node has; its program is the binary itself.
pub(crate) const HANDLER: &str = "hardened";

/// Reads a name as Kubernetes has it for namespaces and runtime handlers: a DNS label (RFC 1123).
pub(crate) fn dns_label(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let whole = !text.is_empty() && text.len() <= 63 && !text.starts_with('-') && !text.ends_with('-');
    if plain && whole {
        return Ok(text.to_owned());
    }
    Err("expected 1 to 63 lower-case letters, digits and dashes, beginning and ending with a letter or digit"
        .to_owned())
}

/// Reads the path of a folder that is there.
pub(crate) fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() { Ok(path) } else { Err("no such folder".to_owned()) }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For code scanning: SARIF 2.1.0.
    Sarif,
}
