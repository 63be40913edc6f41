//! A container on a Debian of `scripts/setup`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use hardened_integration::{Containerd, HARDENED, Output, SHARED, has_selinux, repository, run};

/// A root file system whose lower layer is shared, and the container that runs on it.
pub(super) struct Debian<'a> {
    c: &'a Containerd,
    id: String,
    layer: PathBuf,
}

impl<'a> Debian<'a> {
    /// Mounts a folder of `.cache/` under an upper layer of its own.
    pub(super) fn mount(c: &'a Containerd, lower: &str) -> Result<Self> {
        let id = c.id("debian");
        let layer = c.root().join(&id);
        // Dropped, and so removed, also where the mount fails.
        let debian = Self { c, id, layer };
        for folder in ["upper", "work", "root"] {
            std::fs::create_dir_all(debian.layer.join(folder))?;
        }
        let lower = repository().join(".cache").join(lower);
        let at = |folder: &str| debian.layer.join(folder).display().to_string();
        let mut data = format!("lowerdir={},upperdir={},workdir={}", lower.display(), at("upper"), at("work"));
        if has_selinux() {
            data += ",context=";
            data += SHARED;
        }
        hardened_integration::mount(&["-t", "overlay", "overlay", "-o", &data, &at("root")])?;
        Ok(debian)
    }

    fn root(&self) -> PathBuf {
        self.layer.join("root")
    }

    /// Runs a shell script in the root file system, outside of any container: a Dockerfile's RUN.
    pub(super) fn build(&self, script: &str) -> Result<()> {
        let mut chroot = Command::new("chroot");
        chroot.arg(self.root()).args(["sh", "-ec", script]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        run(&mut chroot, b"", Duration::from_secs(60))?.ok().context("build the image")?;
        Ok(())
    }

    /// Starts the container.
    pub(super) fn start(&self, options: &[String], program: &[&str]) -> Result<()> {
        let (root, log) = (self.root().display().to_string(), format!("file://{}", self.log_file().display()));
        let mut arguments = vec!["run", "-d", "--runtime", HARDENED, "--log-uri", &log];
        arguments.extend(options.iter().map(String::as_str));
        arguments.extend(["--rootfs", &root, &self.id]);
        arguments.extend(program);
        self.c.ctr(&arguments)?.ok()?;
        Ok(())
    }

    /// Runs a program in the container.
    pub(super) fn exec(&self, program: &[&str]) -> Result<Output> {
        let exec_id = self.c.id("ask");
        self.c.ctr(&[&["tasks", "exec", "--exec-id", &exec_id, &self.id], program].concat())
    }

    /// What the container printed.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.layer.join("log")
    }
}

impl Drop for Debian<'_> {
    fn drop(&mut self) {
        for arguments in [&["tasks", "delete", "-f", &self.id][..], &["containers", "delete", &self.id]] {
            // There is none where it was not started.
            drop(self.c.ctr(arguments));
        }
        drop(Command::new("umount").args(["-l"]).arg(self.root()).status());
        drop(std::fs::remove_dir_all(&self.layer));
    }
}
