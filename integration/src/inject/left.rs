//! What is left of a container that is gone, and of an exec that is over.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use containerd_shim_protos::api::{PidsRequest, StateRequest, Status};

use super::driver::{Shim, ctx};
use crate::eventually;

impl Shim<'_> {
    /// Fails where something is left of a container that is gone, or of an exec in one that runs.
    pub(super) fn nothing_left(&self) -> Result<()> {
        let left = || if self.runs { self.left_of_exec() } else { self.left_of_container() };
        if eventually("nothing is left", || left().is_ok_and(|left| left.is_empty())).is_err() {
            bail!("left behind: {:?}", left()?);
        }
        let Some(before) = self.descriptors.map(|all| all[usize::from(self.runs)]) else { return Ok(()) };
        if eventually("no descriptor is left", || self.descriptors_now() == before).is_err() {
            bail!("the shim has {} descriptors instead of {before}", self.descriptors_now());
        }
        Ok(())
    }

    fn left_of_container(&self) -> Result<Vec<String>> {
        let mut left = self.containerd.files_of(self.direct.namespace(), &self.id())?;
        // It is a subreaper: whatever a launcher has made is its child in the end.
        left.extend(self.children()?.into_iter().map(|pid| format!("child {pid} of the shim")));
        let bundle = self.bundle_now()?;
        if bundle != self.bundle {
            left.push(format!("{bundle:?} in the bundle"));
        }
        Ok(left)
    }

    fn left_of_exec(&self) -> Result<Vec<String>> {
        let request = StateRequest { id: self.id(), ..StateRequest::default() };
        let state = self.client()?.state(ctx(), &request).context("State")?;
        let mut left = Vec::new();
        if state.status.enum_value() != Ok(Status::RUNNING) {
            left.push(format!("a container that is {:?}", state.status));
        }
        let pids = PidsRequest { id: self.id(), ..PidsRequest::default() };
        let pids = self.client()?.pids(ctx(), &pids).context("Pids")?.processes;
        let children = self.children()?;
        if pids.len() != 1 || children.len() != 1 {
            left.push(format!("processes {pids:?}, children {children:?}"));
        }
        let folder = Path::new("/run/hardened").join(self.direct.namespace()).join(self.id());
        for (at, marks) in
            [(folder.clone(), ["exec-", "console-"]), (folder.join("runtime").join(self.id()), ["tenant-"; 2])]
        {
            let found = names(&at)?.into_iter().filter(|name| marks.iter().any(|mark| name.starts_with(mark)));
            left.extend(found.map(|name| at.join(name).display().to_string()));
        }
        Ok(left)
    }

    fn children(&self) -> Result<Vec<i32>> {
        let children =
            fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).context("the shim is gone")?;
        children.split_whitespace().map(|pid| pid.parse().context("a pid")).collect()
    }

    pub(super) fn bundle_now(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in ["", "rootfs", "empty"] {
            for name in names(&self.direct.bundle().join(folder))? {
                found.push(Path::new(folder).join(name));
            }
        }
        Ok(found)
    }

    pub(super) fn descriptors_now(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).map(Iterator::count).unwrap_or(0)
    }
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut names: Vec<String> = entries.flatten().map(|entry| entry.file_name().display().to_string()).collect();
    names.sort();
    Ok(names)
}
