//! The policy as it was compiled at an earlier create. Reading 500 rules as TOML takes ten times as long as all else of a
//! decision.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use hardened_sandbox::Identity;
use hardened_sandbox::policy::{Policy, PolicyErrors};
use hardened_sandbox::seccomp::Arch;

use super::{Reader, Trust, open};
use crate::read_bounded;

/// Largest compiled policy that is read, in bytes.
const MAX_COMPILED_BYTES: u64 = 64 << 20;

/// A policy is kept only if its last change is older than this, in seconds: a file that changes twice within one tick
/// of the kernel's clock has the same times after both changes (before Linux 6.13).
const SETTLED_SECONDS: i64 = 2;

/// A file as it was when it was opened. Whatever changes its content, owner or mode changes one of these: the times of
/// change are the kernel's, and nobody sets them (inode(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
    written: (i64, i64),
}

impl Stamp {
    pub(super) fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            changed: (found.ctime(), found.ctime_nsec()),
            written: (found.mtime(), found.mtime_nsec()),
        }
    }
}

/// A path that was opened, and what was there; nothing if there was no such file.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    pub(super) path: PathBuf,
    pub(super) stamp: Option<Stamp>,
}

/// What a compiled policy was made from: its first line.
#[derive(PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Origin {
    folder: PathBuf,
    arch: Arch,
    /// The program that wrote it: another one may have other profiles built in.
    program: Stamp,
    seen: Vec<Seen>,
}

/// The policy in a folder, as far as it concerns one pod: as [`super::load`] for [`Trust::Root`], but for rules and
/// profiles that cannot decide on the pod's containers. `asked_for` is the profile that the pod names, if any.
///
/// What is read is kept compiled in the folder `kept`, and used for as long as each file that was opened for it can
/// still be opened, passes the same checks, and has not changed.
///
/// # Errors
/// Everything that is wrong.
pub fn load_for_pod(
    folder: &Path,
    arch: Arch,
    kept: &Path,
    identity: &Identity,
    asked_for: Option<&str>,
) -> Result<Policy, PolicyErrors> {
    let place = kept.join(name_of(folder));
    // If it cannot be used, for whatever reason, the policy's files are read.
    if let Ok(policy) = read(&place, folder, arch, identity, asked_for) {
        return Ok(policy);
    }
    let reader = Reader::new(Trust::Root);
    let files = reader.read(folder).map_err(|error| PolicyErrors(vec![error]))?;
    let policy = Policy::parse(&files, &|path| reader.read_seccomp(path), arch)?;
    if !files.is_empty() {
        // If it cannot be kept, the next create reads the files again.
        drop(write(&place, folder, arch, reader.seen.into_inner(), &policy));
    }
    Ok(policy)
}

/// A file name for a path. If two paths have the same one, each replaces what was kept of the other.
fn name_of(folder: &Path) -> String {
    folder.to_string_lossy().trim_start_matches('/').replace('/', "-")
}

fn read(place: &Path, folder: &Path, arch: Arch, identity: &Identity, asked_for: Option<&str>) -> Result<Policy> {
    let (file, _) = open(place, Trust::Root, 0)?.context("there is none")?;
    let text = String::from_utf8(read_bounded(file, MAX_COMPILED_BYTES)?)?;
    let (origin, text) = text.split_once('\n').context("expected two lines or more")?;
    let origin: Origin = serde_json::from_str(origin)?;
    if origin.folder != folder || origin.arch != arch || origin.program != program()? {
        bail!("it was made from something else");
    }
    for seen in &origin.seen {
        if open(&seen.path, Trust::Root, 0)?.map(|(_, stamp)| stamp) != seen.stamp {
            bail!("{} has changed", seen.path.display());
        }
    }
    Ok(Policy::for_pod(text, identity, asked_for)?)
}

fn write(place: &Path, folder: &Path, arch: Arch, seen: Vec<Seen>, policy: &Policy) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let settled = i64::try_from(now)?.saturating_sub(SETTLED_SECONDS);
    if seen.iter().filter_map(|seen| seen.stamp).any(|stamp| stamp.changed.0.max(stamp.written.0) >= settled) {
        bail!("the policy has just changed");
    }
    let origin = Origin { folder: folder.to_owned(), arch, program: program()?, seen };
    let text = format!("{}\n{}", serde_json::to_string(&origin)?, policy.compiled()?);
    let parent = place.parent().context("expected a path with a folder")?;
    DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    // Nobody reads a part of it.
    let unfinished = parent.join(format!(".{}", std::process::id()));
    let written = (|| {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&unfinished, place)
    })();
    if written.is_err() {
        drop(fs::remove_file(&unfinished));
    }
    Ok(written?)
}

fn program() -> std::io::Result<Stamp> {
    Ok(Stamp::of(&fs::metadata("/proc/self/exe")?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::time::Duration;

    use super::*;

    /// The default profile after it, and the change.
    type Change = (&'static str, fn(&Node));

    /// A node's policy, which has not changed for long, and where it is kept compiled.
    struct Node(tempfile::TempDir);

    impl Node {
        fn new() -> Self {
            let node = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(node.policy().join("policy.d")).unwrap();
            node
        }

        fn policy(&self) -> PathBuf {
            self.0.path().join("policy")
        }

        fn put(&self, name: &str, text: &str) {
            fs::write(self.policy().join(name), text).unwrap();
        }

        /// Whether it comes from what was kept, and what it is.
        fn load(&self) -> (bool, Result<Policy, PolicyErrors>) {
            let (folder, arch, identity) = (self.policy(), Arch::X86_64, Identity::default());
            let place = self.0.path().join("kept").join(name_of(&folder));
            let kept = read(&place, &folder, arch, &identity, None).is_ok();
            (kept, load_for_pod(&folder, arch, &self.0.path().join("kept"), &identity, None))
        }

        fn default(&self) -> (bool, String) {
            let (kept, policy) = self.load();
            (kept, policy.unwrap().default_profile().to_owned())
        }

        /// Waits until what is read now would be kept, and has it kept.
        fn settle(&self) {
            std::thread::sleep(Duration::from_secs(u64::try_from(SETTLED_SECONDS).unwrap() + 1));
            assert!(!self.load().0, "was kept before");
            assert!(self.load().0, "is not kept");
        }
    }

    #[test]
    fn a_policy_is_kept_once_nothing_changes_any_more() {
        let node = Node::new();
        node.put("policy.toml", "default = \"restricted\"");
        assert_eq!(node.default(), (false, "restricted".to_owned()));
        assert_eq!(node.default(), (false, "restricted".to_owned()), "it has just changed");
        node.settle();
        assert_eq!(node.default(), (true, "restricted".to_owned()));
        let kept = node.0.path().join("kept").join(name_of(&node.policy()));
        assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o777, 0o600);
        // Another program has other profiles built in.
        let text = fs::read_to_string(&kept).unwrap();
        let ours = serde_json::to_string(&program().unwrap()).unwrap();
        let other = Stamp { inode: 1, ..program().unwrap() };
        assert!(text.contains(&ours));
        fs::write(&kept, text.replace(&ours, &serde_json::to_string(&other).unwrap())).unwrap();
        assert_eq!(node.default(), (false, "restricted".to_owned()));
        // That was put right at once.
        assert_eq!(node.default(), (true, "restricted".to_owned()));
        // What others may have written is not read.
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(!node.load().0);
    }

    #[test]
    fn every_change_is_noticed_at_once() {
        let changes: [Change; 5] = [
            ("baseline", |node| node.put("policy.toml", "default = \"baseline\" # two   ")),
            ("restricted", |node| node.put("policy.d/a.toml", "[profile.a]")),
            ("compatible", |node| {
                let (file, other) = (node.policy().join("policy.toml"), node.policy().join("other"));
                fs::write(&other, "default = \"compatible\"").unwrap();
                fs::remove_file(&file).unwrap();
                symlink(other, file).unwrap();
            }),
            ("baseline", |node| fs::remove_file(node.policy().join("policy.toml")).unwrap()),
            ("baseline", |node| {
                fs::rename(node.policy(), node.0.path().join("gone")).unwrap();
                fs::create_dir(node.policy()).unwrap();
            }),
        ];
        for (number, (default, change)) in changes.into_iter().enumerate() {
            let node = Node::new();
            node.put("policy.toml", "default = \"restricted\"");
            node.settle();
            change(&node);
            assert_eq!(node.default(), (false, default.to_owned()), "change {number}");
        }
    }

    #[test]
    fn owner_and_mode_are_checked_each_time() {
        let node = Node::new();
        node.put("policy.toml", "default = \"restricted\"");
        node.settle();
        let file = node.policy().join("policy.toml");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(node.load().1.unwrap_err().to_string().contains("others may write to it"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&file, Some(1000), None).unwrap();
        assert!(node.load().1.unwrap_err().to_string().contains("belongs to uid 1000"));
    }

    #[test]
    fn a_node_without_files_keeps_nothing() {
        let node = Node::new();
        fs::remove_dir(node.policy().join("policy.d")).unwrap();
        std::thread::sleep(Duration::from_secs(u64::try_from(SETTLED_SECONDS).unwrap() + 1));
        assert_eq!(node.default(), (false, "baseline".to_owned()));
        assert!(!node.0.path().join("kept").exists());
    }
}
