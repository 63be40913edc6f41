//! The policy that a command is asked about: a folder or file of anybody's.

use std::path::Path;

use anyhow::{Result, bail};
use hardened_node::policy_files;
use hardened_sandbox::policy::{Policy, PolicyErrors};
use hardened_sandbox::seccomp::Arch;

/// The architecture that policies are read for; any, where this machine is one without filters.
pub(crate) fn arch() -> Arch {
    Arch::native().unwrap_or(Arch::X86_64)
}

/// Reads a policy from a folder or file of anybody's.
pub(crate) fn read(path: &Path) -> Result<Policy> {
    read_for(path, arch())
}

/// The same, for nodes of an architecture.
pub(crate) fn read_for(path: &Path, arch: Arch) -> Result<Policy> {
    check_path(path)?;
    Ok(parse_for(path, arch)?)
}

/// A node may be without its policy folder. One that a person names is meant to be there.
pub(crate) fn check_path(path: &Path) -> Result<()> {
    if !path.exists() && path != Path::new(policy_files::FOLDER) {
        bail!("{}: no such policy file or folder", path.display());
    }
    Ok(())
}

pub(crate) fn parse(path: &Path) -> Result<Policy, PolicyErrors> {
    parse_for(path, arch())
}

fn parse_for(path: &Path, arch: Arch) -> Result<Policy, PolicyErrors> {
    if path.is_file() {
        return policy_files::load_file(path, arch);
    }
    policy_files::load(path, policy_files::Trust::Anyone, arch)
}
