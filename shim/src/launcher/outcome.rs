//! What a create and an exec come to: a process, or an error in words.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use hardened_sandbox::Namespaces;

/// A process of the container, as the shim gets to know it.
#[derive(Debug)]
pub(super) struct Made {
    /// In the shim's pid namespace.
    pub(super) pid: i32,
    pub(super) process: OwnedFd,
    pub(super) namespaces: Namespaces,
    /// The container's Landlock ruleset, where this made it.
    pub(super) ruleset: Option<OwnedFd>,
    /// What is hidden from execs, with the image's links followed.
    pub(super) hidden: Vec<PathBuf>,
}

/// An error and its causes, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
