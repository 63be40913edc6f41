//! What is written to a cgroup's files.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow};

/// A value for a file of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: Cow<'static, str>,
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
    /// The file that has the setting on kernels without the first.
    other: Option<&'static str>,
    /// Whether it is as well where there is no such file.
    optional: bool,
}

impl Setting {
    pub(super) fn new(
        controller: &'static str,
        file: impl Into<Cow<'static, str>>,
        value: impl std::fmt::Display,
    ) -> Self {
        Self {
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            other: None,
            optional: false,
        }
    }

    /// A setting whose file's name begins with that of its controller.
    pub(super) fn of_file(file: &str, value: &str) -> Self {
        let controller = file.split('.').next().unwrap_or(file).to_owned();
        Self { controller: controller.into(), ..Self::new("", file.to_owned(), value) }
    }

    pub(super) fn or(self, other: &'static str) -> Self {
        Self { other: Some(other), ..self }
    }

    pub(super) fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    fn write(&self, folder: &Path) -> io::Result<()> {
        let written = write(&folder.join(&*self.file), &self.value);
        let missing = |result: &io::Result<()>| result.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound);
        let written = match self.other {
            Some(other) if missing(&written) => write(&folder.join(other), &self.value),
            Some(_) | None => written,
        };
        if self.optional && missing(&written) { Ok(()) } else { written }
    }
}

/// Writes to a file that exists.
pub(super) fn write(file: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(file)?.write_all(value.as_bytes())
}

/// Writes all settings, each to the folder with the files of its controller.
///
/// What the kernel refuses is written once more after the others: a memory limit may not exceed
/// that of memory and swap, and a CPU quota may not be too long for its period, so the order depends on
/// what is set already.
pub(super) fn write_all<'a>(settings: &[Setting], folder_of: impl Fn(&str) -> Option<&'a Path>) -> Result<()> {
    let write = |setting: &Setting| match folder_of(&setting.controller) {
        Some(folder) => setting.write(folder),
        None if setting.optional => Ok(()),
        None => Err(io::Error::from(ErrorKind::NotFound)),
    };
    let mut again = Vec::new();
    for setting in settings {
        match write(setting) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => again.push(setting),
            result => result.map_err(|error| failed(setting, error))?,
        }
    }
    again.into_iter().try_for_each(|setting| write(setting).map_err(|error| failed(setting, error)))
}

fn failed(setting: &Setting, error: io::Error) -> anyhow::Error {
    let Setting { controller, file, value, .. } = setting;
    let why = if error.kind() == ErrorKind::NotFound {
        format!("the limit {file} needs the cgroup controller {controller}, which this node lacks")
    } else if error.kind() == ErrorKind::ResourceBusy {
        format!("cannot set {file} to {value}: more than that is in use")
    } else {
        format!("cannot set {file} to {:?}", value.trim())
    };
    anyhow!(error).context(why)
}

/// Reads a file of a cgroup.
pub(super) fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_a_kernel_lacks_is_replaced_passed_over_or_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("blkio.bfq.weight"), "").unwrap();
        let write = |setting: Setting| write_all(&[setting], |_| Some(dir.path()));
        write(Setting::new("blkio", "blkio.weight", 7).or("blkio.bfq.weight")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("blkio.bfq.weight")).unwrap(), "7");
        write(Setting::new("memory", "memory.swap.max", "0").optional()).unwrap();
        let error = write(Setting::new("memory", "memory.max", "1")).unwrap_err();
        assert!(error.to_string().contains("controller memory"), "{error}");
        assert!(!dir.path().join("memory.max").exists());
    }

    #[test]
    fn a_controller_that_is_not_mounted_is_named() {
        let error = write_all(&[Setting::of_file("misc.max", "1")], |_| None).unwrap_err();
        assert!(error.to_string().contains("misc.max needs the cgroup controller misc"), "{error}");
    }
}
