//! Files of records: bounded, and kept when their container is gone. The reason for a crash is looked for afterwards.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hardened_sandbox::record::{EVENTS, Record};

/// Most of one file, in bytes; there are two of a container.
const MAX_FILE_BYTES: u64 = 32 << 10;

/// Most of all files of the node, in bytes.
const MAX_NODE_BYTES: u64 = 8 << 20;

/// Where the records of one container go. A file has one writer.
#[derive(Debug)]
pub struct EventFile {
    folder: PathBuf,
    name: String,
}

/// Who writes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The shim of the container's pod.
    Shim,
    /// The agent of the node.
    Agent,
}

impl EventFile {
    /// The file of a container, by containerd's namespace and id of it, which are no paths: neither has a slash in it.
    #[must_use]
    pub fn new(namespace: &str, id: &str, writer: Writer) -> Self {
        Self::at(Path::new(EVENTS), namespace, id, writer)
    }

    /// The same in another folder.
    #[must_use]
    pub fn at(folder: &Path, namespace: &str, id: &str, writer: Writer) -> Self {
        // No name has that character in it: no container's file is called as that of another.
        let writer = match writer {
            Writer::Shim => "",
            Writer::Agent => "@agent",
        };
        Self { folder: folder.to_owned(), name: format!("{namespace}@{id}{writer}") }
    }

    /// Appends a record, whole. Nothing is made before the first.
    ///
    /// # Errors
    /// It is not written down, no part of it.
    pub fn append(&self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record).context("encode a record")?;
        line.push(b'\n');
        let path = self.folder.join(format!("{}.jsonl", self.name));
        let show = path.display();
        let length = fs::symlink_metadata(&path).map_or(0, |found| found.len());
        if length == 0 || length + line.len() as u64 > MAX_FILE_BYTES {
            make(&self.folder)?;
            if length > 0 {
                let old = self.folder.join(format!("{}@old.jsonl", self.name));
                fs::rename(&path, &old).with_context(|| format!("rename {show}"))?;
            }
            // A new file each time: however many containers write, all of theirs are bounded.
            make_room(&self.folder).with_context(|| format!("make room in {}", self.folder.display()))?;
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&path).with_context(|| format!("open {show}"))?;
        let start = file.metadata().with_context(|| format!("look at {show}"))?.len();
        let written = file.write_all(&line);
        if written.is_err() {
            // Half a line would spoil the next one.
            file.set_len(start).with_context(|| format!("cut {show}"))?;
        }
        written.with_context(|| format!("write to {show}"))
    }
}

/// Makes a folder of records, and that above it, for root alone, and opens it. Names of files are names of containers: a
/// folder that others can read, as the kubelet makes it for a volume, is closed to them.
///
/// # Errors
/// It cannot be made or opened, or others may write in it.
pub fn make(folder: &Path) -> Result<File> {
    let show = folder.display();
    for folder in folder.parent().into_iter().chain([folder]) {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            result => result.with_context(|| format!("make {}", folder.display()))?,
        }
    }
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(folder);
    let opened = opened.with_context(|| format!("open {show}"))?;
    let found = opened.metadata().with_context(|| format!("look at {show}"))?;
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if owner != rustix::process::geteuid().as_raw() || mode & 0o022 != 0 {
        bail!(
            "{show} has owner {owner} and mode {mode:04o}, so others may write in it; root and 0700 are expected: \
             remove it, and it will be made again"
        );
    }
    if mode & 0o077 != 0 {
        opened.set_permissions(Permissions::from_mode(0o700)).with_context(|| format!("close {show} to others"))?;
    }
    Ok(opened)
}

/// Removes the oldest files until there is room for one more.
fn make_room(folder: &Path) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        // Another shim may just have removed it; and a containerd namespace may be called as the folder is.
        let Ok(found) = entry.metadata() else { continue };
        if found.is_file() {
            // What it takes of the memory, page by page.
            files.push((found.modified()?, found.blocks() * 512, entry.path()));
        }
    }
    files.sort();
    let mut all: u64 = files.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in files {
        if all + MAX_FILE_BYTES <= MAX_NODE_BYTES {
            break;
        }
        match fs::remove_file(path) {
            // Another writer was faster.
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => all -= size,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, id: &str) -> EventFile {
        EventFile::at(&folder.join("events"), "ns", id, Writer::Shim)
    }

    #[test]
    fn a_file_is_bounded_and_has_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let events = file(folder.path(), "a");
        for count in 0..500 {
            events.append(&Record { count, message: "x\n\u{1b}[31m".repeat(20), ..Record::default() }).unwrap();
        }
        let mut counts = Vec::new();
        for name in ["ns@a@old.jsonl", "ns@a.jsonl"] {
            let text = fs::read_to_string(folder.path().join("events").join(name)).unwrap();
            assert!(text.len() as u64 <= MAX_FILE_BYTES && !text.contains('\u{1b}'), "{}", text.len());
            counts.extend(text.lines().map(|line| serde_json::from_str::<Record>(line).unwrap().count));
        }
        // The last ones, without a gap.
        assert!(counts.len() > 20 && counts.last() == Some(&499));
        assert!(counts.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }

    #[test]
    fn a_folder_of_records_is_root_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let events = folder.path().join("events");
        let mode = || fs::metadata(&events).unwrap().mode() & 0o777;
        make(&events).unwrap();
        assert_eq!(mode(), 0o700);
        // As the kubelet makes it.
        fs::set_permissions(&events, Permissions::from_mode(0o755)).unwrap();
        file(folder.path(), "a").append(&Record::default()).unwrap();
        assert_eq!(mode(), 0o700);
        for open in [0o720, 0o777, 0o1777] {
            fs::set_permissions(&events, Permissions::from_mode(open)).unwrap();
            let error = file(folder.path(), "b").append(&Record::default()).unwrap_err().to_string();
            assert!(error.contains(&format!("mode {open:04o}, so others may write in it")), "{error}");
        }
        std::os::unix::fs::symlink(&events, folder.path().join("link")).unwrap();
        assert!(make(&folder.path().join("link")).is_err());
    }

    #[test]
    fn the_oldest_files_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let events = folder.path().join("events");
        fs::create_dir(&events).unwrap();
        for number in 0..20u64 {
            let path = events.join(format!("ns@{number}.jsonl"));
            fs::write(&path, vec![b' '; 1 << 19]).unwrap();
            let when = std::time::UNIX_EPOCH + std::time::Duration::from_secs(number);
            fs::File::options().write(true).open(&path).unwrap().set_modified(when).unwrap();
        }
        file(folder.path(), "new").append(&Record::default()).unwrap();
        assert!(!events.join("ns@4.jsonl").exists() && events.join("ns@5.jsonl").exists());
        assert!(events.join("ns@19.jsonl").exists() && events.join("ns@new.jsonl").exists());
    }
}
