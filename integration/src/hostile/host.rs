//! What of the host must be as it was.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::node::node;
use crate::{Containerd, parent, processes};

/// Folders of the host whose every name and time is watched.
#[derive(Debug, Clone)]
pub struct Sentinels([(&'static str, PathBuf); 3]);

impl Sentinels {
    /// Makes them.
    ///
    /// # Errors
    /// A file cannot be made.
    pub fn make(c: &Containerd) -> Result<Self> {
        let folder = c.volume()?;
        let made = Self(["empty", "some", "full"].map(|name| (name, folder.join(name))));
        made.fill()?;
        Ok(made)
    }

    /// Makes them again, as they were at first.
    fn fill(&self) -> Result<()> {
        for (name, folder) in &self.0 {
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
            fs::create_dir_all(folder)?;
            if *name == "empty" {
                continue;
            }
            fs::create_dir(folder.join("folder"))?;
            for file in ["ptmx", "null", "passwd"] {
                fs::write(folder.join(file), format!("the host's {file}\n"))?;
            }
            if *name == "some" {
                continue;
            }
            // What a runtime removes, makes or mounts on in a folder that it takes for /dev or /etc.
            fs::remove_file(folder.join("ptmx"))?;
            node(&folder.join("ptmx"), libc::S_IFCHR, libc::makedev(5, 2))?;
            node(&folder.join("console"), libc::S_IFIFO, 0)?;
            for name in ["pts", "shm", "mqueue", "sub"] {
                fs::create_dir(folder.join(name))?;
                fs::write(folder.join(name).join("own"), "")?;
            }
            for file in ["hosts", "group", "zero", "secret"] {
                fs::write(folder.join(file), "the host's\n")?;
                fs::set_permissions(folder.join(file), fs::Permissions::from_mode(0o600))?;
            }
            symlink("secret", folder.join("stdin"))?;
            chown(folder.join("secret"), Some(7), Some(7))?;
        }
        Ok(())
    }

    /// The folders.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(_, folder)| folder.as_path())
    }

    /// The one without anything in it.
    #[must_use]
    pub fn empty(&self) -> &Path {
        &self.0[0].1
    }

    /// The one with all that a runtime could touch in it.
    #[must_use]
    pub fn full(&self) -> &Path {
        &self.0[2].1
    }

    /// A link's target, with the folders in place of their names.
    pub(super) fn name_in(&self, target: &str) -> String {
        self.0.iter().fold(target.to_owned(), |target, (name, folder)| {
            target.replace(&format!("{{{name}}}"), folder.display().to_string().trim_start_matches('/'))
        })
    }

    /// Every file in them, with its times: nobody has any business there.
    #[must_use]
    pub fn digest(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for folder in self.all() {
            describe(folder, true, &mut lines);
        }
        lines
    }
}

/// A line for a file, and for all below a folder.
fn describe(path: &Path, whole: bool, lines: &mut Vec<String>) {
    let show = path.display();
    let Ok(found) = fs::symlink_metadata(path) else {
        lines.push(format!("{show} cannot be looked at"));
        return;
    };
    let (mode, uid, gid, device) = (found.mode(), found.uid(), found.gid(), found.rdev());
    let target = fs::read_link(path).map(|target| format!(" -> {}", target.display())).unwrap_or_default();
    if !whole {
        lines.push(format!("{show}{target} {mode:o} {uid}:{gid} {device}"));
        return;
    }
    let text = if found.is_file() { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    let changed = (found.ctime(), found.ctime_nsec());
    lines.push(format!("{show}{target} {mode:o} {uid}:{gid} {device} {} {changed:?} {text:?}", found.nlink()));
    if found.is_dir() {
        let mut entries: Vec<PathBuf> = fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| describe(entry, true, lines));
    }
}

/// The host at one moment.
#[derive(Debug, Clone)]
struct Picture {
    files: BTreeSet<String>,
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    state: BTreeSet<String>,
}

/// The host, as it is to stay.
#[derive(Debug)]
pub struct Host {
    sentinels: Sentinels,
    namespace: String,
    before: Picture,
}

impl Host {
    /// Looks at it. Nobody else may use this containerd.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn watch(c: &Containerd) -> Result<Self> {
        let sentinels = Sentinels::make(c)?;
        let namespace = c.namespace().to_owned();
        let before = picture(&sentinels, &namespace)?;
        Ok(Self { sentinels, namespace, before })
    }

    /// The folders that are watched most.
    #[must_use]
    pub const fn sentinels(&self) -> &Sentinels {
        &self.sentinels
    }

    /// Looks at it again, as it is to stay from now on.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn look(&mut self) -> Result<()> {
        self.before = picture(&self.sentinels, &self.namespace)?;
        Ok(())
    }

    /// Puts the folders back as they were, and looks at it again.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn restore(&mut self) -> Result<()> {
        self.sentinels.fill()?;
        self.look()
    }

    /// What has changed. Processes, mounts and cgroups may take a moment to go.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn changes(&self, shim: i32) -> Result<Vec<String>> {
        let mut changes = Vec::new();
        for _ in 0..150 {
            let now = picture(&self.sentinels, &self.namespace)?;
            changes = [
                difference("file", &self.before.files, &now.files),
                difference("mount", &self.before.mounts, &now.mounts),
                difference("cgroup", &self.before.cgroups, &now.cgroups),
                difference("state of the runtime", &self.before.state, &now.state),
                left(shim, &self.namespace)?,
            ]
            .concat();
            if changes.is_empty() || self.before.files != now.files {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(changes)
    }
}

fn difference(what: &str, before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let lost = before.difference(now).map(|line| format!("{what} was: {line}"));
    let came = now.difference(before).map(|line| format!("{what} is: {line}"));
    lost.chain(came).collect()
}

fn picture(sentinels: &Sentinels, namespace: &str) -> Result<Picture> {
    let mut files = sentinels.digest();
    // What stands at the places that a path without its first part leads to.
    for folder in ["/", "/etc", "/dev", "/root"] {
        for entry in fs::read_dir(folder)? {
            describe(&entry?.path(), false, &mut files);
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?.lines().map(str::to_owned).collect();
    let other = |line: &String| is_of_another(line, namespace);
    let mut cgroups = BTreeSet::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path()) {
        // Groups of other programs come and go below their own.
        let own = hierarchy.join(namespace);
        cgroups.extend(folders(&hierarchy, 1).into_iter().filter(|group| Path::new(group) != own));
        cgroups.extend(folders(&own, 8));
    }
    let state = folders(&Path::new("/run/hardened").join(namespace), 2).into_iter().collect();
    let mut picture = Picture { files: files.into_iter().collect(), mounts, cgroups, state };
    for lines in [&mut picture.files, &mut picture.mounts, &mut picture.cgroups] {
        lines.retain(|line| !other(line));
    }
    Ok(picture)
}

/// Whether a line tells of another containerd that this test program runs beside.
fn is_of_another(line: &str, namespace: &str) -> bool {
    let name = namespace.trim_start_matches("test");
    let program = std::process::id();
    let of_a_test = ["test", "test-", "root-"].iter().any(|word| line.contains(&format!("{word}{program}-")));
    of_a_test && !line.contains(name)
}

fn folders(root: &Path, depth: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path().display().to_string());
            if depth > 1 {
                found.extend(folders(&entry.path(), depth - 1));
            }
        }
    }
    found
}

/// Launchers, and processes of containers.
fn left(shim: i32, namespace: &str) -> Result<Vec<String>> {
    let (launch, mark) = (format!(" launch {namespace}/"), mark(namespace));
    let all = processes()?.into_iter();
    let ours = all.filter(|(pid, line)| line.contains(&launch) || line.contains(&mark) || parent(*pid) == Some(shim));
    Ok(ours.map(|(pid, line)| format!("process {pid} is left: {line}")).collect())
}

/// The last word of every payload's command line.
pub(super) fn mark(namespace: &str) -> String {
    format!("payload-of-{namespace}")
}
