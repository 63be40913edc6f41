//! Files put in place at once, with what they were kept until all is well.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
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
        match (fs::read(path), self.files.get(path)) {
            (Err(_), _) => "missing",
            (Ok(now), Some(then)) if hash(&now) == *then => "installed",
            (Ok(_), _) => "edited",
        }
    }
}

/// FNV-1a, 64 bits: tells an edit from none, and guards against nobody.
fn hash(content: &[u8]) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    format!("{:016x}", content.iter().fold(0xCBF2_9CE4_8422_2325, step))
}

/// A file's content and mode.
type Content = (Vec<u8>, u32);

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
        if before.as_ref().is_some_and(|(now, now_mode)| now == content && now_mode & 0o7777 == mode) {
            self.tell("unchanged", path);
            return Ok(());
        }
        self.tell(if before.is_some() { "replaced" } else { "installed" }, path);
        self.before.push((path.to_owned(), before));
        write(path, content, mode)
    }

    /// Puts a file where there is none; a person's own stays.
    pub(super) fn put_if_absent(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        if look(path)?.is_some() {
            self.tell("kept", path);
            return Ok(());
        }
        self.put(path, content, mode)
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
            fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
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
                Some((content, mode)) => write(&path, &content, mode & 0o7777)?,
                None => fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?,
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
    match fs::read(path) {
        Ok(content) => {
            let mode = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?.permissions().mode();
            Ok(Some((content, mode)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
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
        assert!(!old.exists() && new.exists());
        applied.take_back().unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "before");
        assert_eq!(fs::metadata(&old).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!new.exists());
    }
}
