//! Files put in place at once, with what they were kept until all is well.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// What was installed, to know later what a person has edited.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Content's hash by path.
    files: BTreeMap<PathBuf, String>,
}

impl Record {
    pub(super) fn read(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{}: not our record", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// `installed`, `edited` or `missing`.
    pub(super) fn state(&self, path: &Path) -> &'static str {
        match (look(path), self.files.get(path)) {
            (Ok(None) | Err(_), _) => "missing",
            (Ok(Some(now)), Some(then)) if now.hash() == *then => "installed",
            (Ok(Some(_)), _) => "edited",
        }
    }

    /// Whether we put it there.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// What was put into a folder.
    pub(super) fn of(&self, folder: &Path) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path).filter(move |path| path.parent() == Some(folder))
    }
}

/// FNV-1a, 64 bits: tells an edit from none, and guards against nobody.
fn hash(content: &[u8]) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    format!("{:016x}", content.iter().fold(0xCBF2_9CE4_8422_2325, step))
}

/// What is at a path.
#[derive(Debug)]
enum Content {
    /// A file, and its mode.
    File(Vec<u8>, u32),
    /// A symbolic link, and what it leads to.
    Link(PathBuf),
}

impl Content {
    fn hash(&self) -> String {
        match self {
            Self::File(content, _) => hash(content),
            Self::Link(target) => hash(target.as_os_str().as_encoded_bytes()),
        }
    }
}

/// Changes that can be taken back.
#[derive(Debug)]
pub(super) struct Applied {
    record: Record,
    /// What was there before; `None` where there was no file.
    before: Vec<(PathBuf, Option<Content>)>,
    told: Vec<(String, PathBuf)>,
}

impl Applied {
    pub(super) const fn new(record: Record) -> Self {
        Self { record, before: Vec::new(), told: Vec::new() }
    }

    /// Whether any file is other than before.
    pub(super) const fn changed(&self) -> bool {
        !self.before.is_empty()
    }

    /// What was done, for a person.
    pub(super) fn told(&self) -> Vec<(String, PathBuf)> {
        self.told.clone()
    }

    fn tell(&mut self, what: &str, path: &Path) {
        self.told.push((what.to_owned(), path.to_owned()));
    }

    /// Puts a file in place; one that is the same already is left.
    pub(super) fn put(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        self.record.files.insert(path.to_owned(), hash(content));
        let before = look(path)?;
        if matches!(&before, Some(Content::File(now, now_mode)) if now == content && now_mode & 0o7777 == mode) {
            self.tell("unchanged", path);
            return Ok(());
        }
        self.tell(if before.is_some() { "replaced" } else { "installed" }, path);
        self.before.push((path.to_owned(), before));
        write(path, content, mode)
    }

    /// Puts a link in place. What is there and is no link of ours is somebody else's.
    pub(super) fn link(&mut self, path: &Path, target: &Path) -> Result<()> {
        let link = Content::Link(target.into());
        match look(path)? {
            None => {
                self.tell("installed", path);
                self.before.push((path.to_owned(), None));
                symlink(path, target)?;
            }
            Some(Content::Link(now)) if now == target => self.tell("unchanged", path),
            Some(Content::Link(now)) if self.record.state(path) == "installed" => {
                self.tell("replaced", path);
                self.before.push((path.to_owned(), Some(Content::Link(now))));
                remove(path)?;
                symlink(path, target)?;
            }
            Some(_) => {
                bail!("{} exists already and was not installed by hardened; choose another name", path.display())
            }
        }
        self.record.files.insert(path.to_owned(), link.hash());
        Ok(())
    }

    /// Puts a file where there is none; a person's own stays.
    pub(super) fn put_if_absent(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        if look(path)?.is_some() {
            self.tell("kept", path);
            return Ok(());
        }
        self.put(path, content, mode)
    }

    /// Puts a file where there is none, or one that we put there; a person's own, or one that was edited, stays.
    pub(super) fn put_unless_edited(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        let same = matches!(look(path)?, Some(Content::File(now, _)) if now == content);
        if self.record.state(path) == "edited" && !same {
            self.tell("kept", path);
            return Ok(());
        }
        self.put(path, content, mode)
    }

    /// Leaves a file to the package that has put it there, whatever was noted of an earlier install.
    pub(super) fn leave_to_package(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        if look(path)?.is_none() {
            return self.put(path, content, mode);
        }
        self.record.files.remove(path);
        self.tell("packaged", path);
        Ok(())
    }

    /// Takes away what an earlier install put there, and would be used before the package's own.
    pub(super) fn give_way(&mut self, path: &Path, packaged: &Path) -> Result<()> {
        if look(path)?.is_some() && !self.record.has(path) {
            bail!(
                "{}: containerd would start it rather than the package's {}: remove it, or name it with --shim",
                path.display(),
                packaged.display()
            );
        }
        self.remove(path)?;
        self.tell("packaged", packaged);
        Ok(())
    }

    /// Gives a file another content, or none.
    pub(super) fn replace(&mut self, path: &Path, content: Option<String>) -> Result<()> {
        match content {
            Some(text) => {
                self.put(path, text.as_bytes(), 0o644)?;
                self.record.files.remove(path);
                Ok(())
            }
            None => self.remove(path),
        }
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&mut self, path: &Path) -> Result<()> {
        self.record.files.remove(path);
        let before = look(path)?;
        if before.is_some() {
            self.tell("removed", path);
            self.before.push((path.to_owned(), before));
            remove(path)?;
        }
        Ok(())
    }

    /// Removes a file that is as it was installed.
    pub(super) fn remove_unedited(&mut self, path: &Path) -> Result<()> {
        match self.record.state(path) {
            "installed" => self.remove(path),
            "edited" => {
                self.tell("kept", path);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Puts everything back as it was, the last first.
    pub(super) fn take_back(&mut self) -> Result<()> {
        while let Some((path, before)) = self.before.pop() {
            match before {
                Some(Content::File(content, mode)) => write(&path, &content, mode & 0o7777)?,
                Some(Content::Link(target)) => {
                    if look(&path)?.is_some() {
                        remove(&path)?;
                    }
                    symlink(&path, &target)?;
                }
                None => remove(&path)?,
            }
        }
        Ok(())
    }

    /// Notes what was installed.
    pub(super) fn keep(&self, record: &Path) -> Result<()> {
        write(record, &serde_json::to_vec_pretty(&self.record)?, 0o644)
    }

    /// Removes the note of what was installed.
    pub(super) fn forget(&self, record: &Path) -> Result<()> {
        match fs::remove_file(record) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", record.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn look(path: &Path) -> Result<Option<Content>> {
    let found = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => fs::read_link(path).map(Content::Link),
        Ok(metadata) => fs::read(path).map(|content| Content::File(content, metadata.permissions().mode())),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    };
    found.map(Some).with_context(|| format!("read {}", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
}

fn symlink(path: &Path, target: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, path).with_context(|| format!("make the link {}", path.display()))
}

/// Writes a file beside its place, and renames it there: nobody ever sees a part of it, and a
/// binary that runs is not written to.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let show = path.display();
    let folder = path.parent().context("a file in no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let name = path.file_name().and_then(|n| n.to_str()).with_context(|| format!("{show}: no file name"))?;
    let beside = folder.join(format!(".{name}.hardenctl"));
    let written = (|| {
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        drop(fs::remove_file(&beside));
    }
    written.with_context(|| format!("write {show}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_applied_can_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("a/new"));
        fs::write(&old, "before").unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o600)).unwrap();
        let mut applied = Applied::new(Record::default());
        applied.put(&old, b"after", 0o644).unwrap();
        applied.put(&new, b"x", 0o755).unwrap();
        applied.remove(&old).unwrap();
        let link = dir.path().join("a/link");
        applied.link(&link, Path::new("new")).unwrap();
        assert!(!old.exists() && new.exists() && fs::read(&link).unwrap() == b"x");
        assert_eq!(applied.record.state(&link), "installed");
        let error = applied.link(&new, Path::new("link")).unwrap_err().to_string();
        assert!(error.contains("not installed by hardened"), "{error}");
        applied.take_back().unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "before");
        assert_eq!(fs::metadata(&old).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!new.exists() && fs::symlink_metadata(&link).is_err());
    }

    #[test]
    fn what_a_package_brings_is_no_longer_ours() {
        let dir = tempfile::tempdir().unwrap();
        let [ours, foreign, file, link, packaged] =
            ["ours", "foreign", "file", "link", "bin"].map(|n| dir.path().join(n));
        let mut earlier = Applied::new(Record::default());
        earlier.put(&ours, b"x", 0o755).unwrap();
        earlier.put(&file, b"x", 0o644).unwrap();
        earlier.link(&link, Path::new("ours")).unwrap();
        fs::write(&foreign, "x").unwrap();
        let mut applied = Applied::new(earlier.record);
        let error = applied.give_way(&foreign, &packaged).unwrap_err().to_string();
        assert!(error.contains("rather than the package's") && foreign.exists(), "{error}");
        applied.give_way(&ours, &packaged).unwrap();
        applied.leave_to_package(&file, b"y", 0o644).unwrap();
        applied.link(&link, &packaged).unwrap();
        assert!(!ours.exists() && fs::read(&file).unwrap() == b"x");
        assert_eq!(fs::read_link(&link).unwrap(), packaged);
        applied.remove_unedited(&file).unwrap();
        assert!(file.exists() && !applied.record.has(&file));
        applied.take_back().unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("ours"));
        assert!(ours.exists());
    }

    #[test]
    fn a_file_that_was_edited_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unit");
        let mut applied = Applied::new(Record::default());
        for content in ["first", "second"] {
            applied.put_unless_edited(&path, content.as_bytes(), 0o644).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        fs::write(&path, "a person's").unwrap();
        applied.put_unless_edited(&path, b"third", 0o644).unwrap();
        applied.remove_unedited(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a person's");
        applied.put_unless_edited(&path, b"a person's", 0o644).unwrap();
        applied.remove_unedited(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_link_that_was_removed_or_replaced_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (removed, replaced) = (dir.path().join("removed"), dir.path().join("replaced"));
        for link in [&removed, &replaced] {
            symlink(link, Path::new("elsewhere")).unwrap();
        }
        let mut applied = Applied::new(Record::default());
        applied.remove(&removed).unwrap();
        applied.put(&replaced, b"x", 0o644).unwrap();
        applied.take_back().unwrap();
        for link in [removed, replaced] {
            assert_eq!(fs::read_link(link).unwrap(), Path::new("elsewhere"));
        }
    }
}
