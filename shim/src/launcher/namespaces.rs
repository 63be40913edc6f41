//! Namespaces: the launcher's own mounts, those that a container joins, and which ones a process is in.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hardened_sandbox::bundle::{Bundle, IdMapping, IdMappings, JoinedNamespace, NamespaceKind};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use super::stage::Stage;
use crate::judged;
use crate::sys;

/// Gives this process a new mount namespace: from here on nothing that it mounts is mounted on the host.
pub(super) fn leave_the_hosts_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")?;
    // Slave: volumes with HostToContainer propagation still see what the host mounts later.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .context("cut the launcher's mounts off from the host's")
}

/// Stages the namespaces that the container joins, and the user namespace that is made for it. Each is the one that
/// was judged; no path of the host leads there later.
pub(super) fn stage(stage: &Stage, bundle: &Bundle) -> Result<HashMap<NamespaceKind, PathBuf>> {
    let mut staged = HashMap::new();
    for namespace in &bundle.namespaces {
        let kind = namespace.kind.file_name();
        let file = match &namespace.joins {
            Some(joined) => open(joined).with_context(|| format!("{kind} namespace {}", joined.path.display()))?,
            // libcontainer would have it made by other programs, and refuse groups at an exec.
            None if namespace.kind == NamespaceKind::User => {
                let mappings = bundle.id_mappings.as_ref().context("a user namespace without mappings of ids")?;
                of_mappings(mappings)?
            }
            None => continue,
        };
        let copy = sys::clone_mount(&file, false).with_context(|| format!("copy the mount of the {kind} namespace"))?;
        staged.insert(namespace.kind, stage.attach(&copy, &format!("ns.{kind}"))?);
    }
    Ok(staged)
}

/// Joins the network, IPC and UTS namespaces that the container joins. Where it shares the processes of its pod, those
/// see a process of libcontainer's before it has joined anything else.
pub(super) fn join(bundle: &Bundle, staged: &HashMap<NamespaceKind, PathBuf>) -> Result<()> {
    // libcontainer takes a namespace that this process is in for the host's, whose sysctls it sets none of. A pod's
    // sandbox alone has sysctls, and nobody is there yet who could look.
    if bundle.makes(NamespaceKind::Pid) || bundle.has_user_namespace() || !bundle.sysctls.is_empty() {
        return Ok(());
    }
    for kind in [NamespaceKind::Network, NamespaceKind::Ipc, NamespaceKind::Uts] {
        let Some(path) = staged.get(&kind) else { continue };
        let show = path.display();
        let file = File::open(path).with_context(|| format!("open {show}"))?;
        setns(file, CloneFlags::empty()).with_context(|| format!("join {show}"))?;
    }
    Ok(())
}

/// A user namespace with mappings in lines of user_namespaces(7).
pub(super) fn user_namespace(uids: &str, gids: &str) -> Result<OwnedFd> {
    sys::user_namespace(uids, gids)
        .context("make a user namespace (user.max_user_namespaces says how many there may be)")
}

/// A user namespace with the mappings of a spec.
pub(super) fn of_mappings(mappings: &IdMappings) -> Result<OwnedFd> {
    user_namespace(&lines(&mappings.uids), &lines(&mappings.gids))
}

/// Mappings as the kernel reads them: user_namespaces(7).
fn lines(mappings: &[IdMapping]) -> String {
    mappings.iter().map(ToString::to_string).collect()
}

/// That the user namespace of a parked init maps the ids that were judged: one that is joined may be any.
pub(super) fn verify_mappings(init: i32, mappings: &IdMappings) -> Result<()> {
    for (file, wanted) in [("uid_map", &mappings.uids), ("gid_map", &mappings.gids)] {
        let path = format!("/proc/{init}/{file}");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        if extents(&text) != extents(&lines(wanted)) {
            bail!("the user namespace that is joined maps other ids than the spec says: {file} is {text:?}");
        }
    }
    Ok(())
}

/// The extents of a mapping. The kernel sorts them where there are more than five, which it keeps in another way.
fn extents(text: &str) -> BTreeSet<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

/// Opens the namespace that was judged. Its path is a magic link as a rule.
fn open(joined: &JoinedNamespace) -> Result<OwnedFd> {
    let file = sys::open_path(&joined.path).context("open it")?;
    if fstatfs(&file).context("look at its file system")?.filesystem_type() != NSFS_MAGIC {
        bail!("it is no namespace");
    }
    if judged::identity_of(&file)? != joined.file {
        bail!("it is another namespace than the one that was judged");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_known_in_whatever_order_the_kernel_tells_it() {
        for count in [1, 5, 6, 9] {
            let mapping = |n: u32| IdMapping { container: n, host: 100_000 + n, size: 1 };
            let uids: Vec<IdMapping> = (0..count).rev().map(mapping).collect();
            let mappings = IdMappings { uids: uids.clone(), gids: uids };
            let namespace = of_mappings(&mappings).unwrap();
            // A process that joins it, and waits.
            let handle = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&namespace));
            let mut child = std::process::Command::new("nsenter")
                .args([&format!("--user={handle}"), "--preserve-credentials", "sleep", "1000"])
                .spawn()
                .unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            let extents =
                || std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default().lines().count();
            let joined = (0..500).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                extents() == count as usize && verify_mappings(pid, &mappings).is_ok()
            });
            let other = IdMappings { uids: vec![mapping(77)], gids: vec![mapping(77)] };
            let is_other = verify_mappings(pid, &other).is_err();
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(joined && is_other, "{count} extents");
        }
    }

    #[test]
    fn a_namespace_is_told_from_another_and_from_a_file() {
        let own = hardened_lockdown::own_namespaces().unwrap();
        let joined = |path: &str, kind| JoinedNamespace { path: path.into(), file: own[&kind] };
        open(&joined("/proc/self/ns/net", NamespaceKind::Network)).unwrap();
        let other = open(&joined("/proc/self/ns/net", NamespaceKind::Uts)).unwrap_err();
        assert!(other.to_string().contains("another namespace"), "{other}");
        let file = open(&joined("/etc/passwd", NamespaceKind::Network)).unwrap_err();
        assert!(file.to_string().contains("no namespace"), "{file}");
    }
}
