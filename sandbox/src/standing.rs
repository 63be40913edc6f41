//! What a container may do, asked when it runs: answered from what was decided, without any record of a denial.

use std::path::{Path, PathBuf};

use crate::bundle::{MountFlag, MountKind, NamespaceKind, SystemFolders};
use crate::decide::Admission;
use crate::denial::{Filters, allows};
use crate::identity::Identity;
use crate::mark::Mark;
use crate::plan::LockdownPlan;
use crate::seccomp::Call;

/// What was decided of a container, kept for questions.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Who it is.
    pub identity: Identity,
    pub(crate) plan: LockdownPlan,
    pub(crate) filters: Filters,
    pub(crate) uid: u32,
    pub(crate) user_namespace: bool,
    pub(crate) host_namespaces: Vec<NamespaceKind>,
    pub(crate) root_read_only: bool,
    pub(crate) system: SystemFolders,
    pub(crate) mounts: Vec<Mounted>,
}

/// A mount, as far as it decides what may be done in it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mounted {
    at: PathBuf,
    /// Where a volume is on the node.
    pub(crate) source: Option<PathBuf>,
    pub(crate) read_only: bool,
    no_execute: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Answer {
    /// Whether the sandbox lets it through. Modes of files and the program's user decide besides.
    pub allowed: bool,
    /// Why, or why not.
    pub because: String,
    /// What would allow it. None where nothing does, or where it is allowed.
    pub setting: Option<String>,
}

impl Answer {
    fn yes(because: &str) -> Self {
        Self { allowed: true, because: because.to_owned(), setting: None }
    }

    fn no(because: impl Into<String>, setting: impl Into<Option<String>>) -> Self {
        Self { allowed: false, because: because.into(), setting: setting.into() }
    }
}

impl Standing {
    /// Of a container that is about to start.
    #[must_use]
    pub fn new(admission: &Admission) -> Self {
        let bundle = admission.bundle();
        let mounts = bundle.mounts.iter().map(|mount| Mounted {
            at: mount.destination.clone(),
            source: match &mount.kind {
                MountKind::Bind(volume) => Some(volume.source.clone()),
                MountKind::Proc { .. }
                | MountKind::Sysfs
                | MountKind::Tmpfs(_)
                | MountKind::Devpts(_)
                | MountKind::Mqueue
                | MountKind::Cgroup => None,
            },
            read_only: mount.flags.contains(MountFlag::ReadOnly),
            no_execute: mount.flags.contains(MountFlag::NoExec),
        });
        Self {
            identity: admission.identity().clone(),
            plan: admission.plan().clone(),
            filters: admission.filters().clone(),
            uid: bundle.process.user.uid,
            user_namespace: admission.user_namespace().is_some(),
            host_namespaces: NamespaceKind::ALL
                .into_iter()
                .filter(|kind| bundle.namespaces.iter().all(|namespace| namespace.kind != *kind))
                .collect(),
            root_read_only: bundle.root_read_only,
            system: bundle.system.clone(),
            mounts: mounts.collect(),
        }
    }

    /// Whether a file may be written to, made or removed. The path is the container's, without symbolic links.
    #[must_use]
    pub fn write(&self, path: &Path) -> Answer {
        if let Some(no) = self.kept_by_landlock(path) {
            return no;
        }
        let masks = self.plan.masks.iter().flat_map(|masks| masks.masked.iter().chain(&masks.read_only));
        if let Some(mask) = masks.rev().find(|mask| path.starts_with(mask)) {
            let because =
                format!("{} shows the host's kernel, and is masked or read-only in every container", mask.display());
            return Answer::no(because, None);
        }
        if let Some(mount) = self.mount_of(path) {
            let at = mount.at.display();
            return if mount.read_only {
                let setting = "remove readOnly from the volume mount; the profile must grant it read-write".to_owned();
                Answer::no(format!("what is mounted at {at} is read-only"), setting)
            } else {
                Answer::yes(&format!("what is mounted at {at} is writable"))
            };
        }
        if self.root_read_only {
            let setting = "remove readOnlyRootFilesystem from the pod and files.read-only-root from the profile, or mount a volume there";
            return Answer::no("the root file system is read-only", setting.to_owned());
        }
        self.kept_as_system(path).unwrap_or_else(|| Answer::yes("the container may change the image's files"))
    }

    /// Why the profile denies writing, making or removing a file that would be writable under runc. `None` if it is
    /// allowed, or if the pod's own fields or any runtime deny it as well.
    #[must_use]
    pub fn kept_by_profile(&self, path: &Path) -> Option<Answer> {
        let of_image = self.mount_of(path).is_none() && !self.root_read_only;
        self.kept_by_landlock(path).or_else(|| self.kept_as_system(path).filter(|_| of_image))
    }

    fn kept_by_landlock(&self, path: &Path) -> Option<Answer> {
        if let Some(no) = self.hidden(path) {
            return Some(no);
        }
        let plan = self.plan.landlock.as_ref()?;
        if let Some(tree) = within(path, &plan.no_write) {
            let because = format!("nothing below {} can be written", tree.display());
            return Some(Answer::no(because, self.line("files.no-write")));
        }
        // Landlock grants trees, and so all that is beside them one by one.
        let mut kept = plan.no_write.iter().chain(&plan.hidden);
        let parent = path.parent().unwrap_or(path);
        let tree = kept.find(|tree| *tree != parent && tree.starts_with(parent))?;
        let because = format!(
            "files cannot be created or removed directly in {}, because {} is protected; files that existed at start can be \
             written to",
            parent.display(),
            tree.display()
        );
        Some(Answer::no(because, self.line("files.no-write and files.hidden, without that path")))
    }

    fn kept_as_system(&self, path: &Path) -> Option<Answer> {
        let alone = self.system.alone.iter().any(|folder| path == folder || path.parent() == Some(folder));
        (alone || within(path, &self.system.whole).is_some()).then(|| {
            let because = "programs and libraries of the image are read-only";
            Answer::no(because, self.line("files.system = \"writable\""))
        })
    }

    /// Whether a file may be read.
    #[must_use]
    pub fn read(&self, path: &Path) -> Answer {
        self.hidden(path).unwrap_or_else(|| Answer::yes("nothing restricts reading there"))
    }

    /// Whether a program may be executed.
    #[must_use]
    pub fn execute(&self, path: &Path) -> Answer {
        if let Some(no) = self.hidden(path) {
            return no;
        }
        let landlock = self.plan.landlock.as_ref();
        let denied =
            landlock.and_then(|plan| within(path, &plan.no_execute)).or_else(|| within(path, &self.system.no_execute));
        if let Some(tree) = denied {
            let because = format!("nothing below {} can be executed: it can be written to", tree.display());
            return Answer::no(because, self.line("files.execute-from-writable = true"));
        }
        match self.mount_of(path).filter(|mount| mount.no_execute) {
            Some(mount) => Answer::no(format!("what is mounted at {} is noexec", mount.at.display()), None),
            None => Answer::yes("nothing restricts executing programs there"),
        }
    }

    /// Whether a TCP port may be connected to, or listened at.
    #[must_use]
    pub fn port(&self, port: u16, connect: bool) -> Answer {
        let landlock = self.plan.landlock.as_ref();
        let (ports, key) = if connect {
            (landlock.and_then(|plan| plan.connect_tcp.as_ref()), "network.connect-tcp")
        } else {
            (landlock.and_then(|plan| plan.bind_tcp.as_ref()), "network.bind-tcp")
        };
        match ports {
            None => Answer::yes("the profile has no rules for TCP ports; a NetworkPolicy may"),
            Some(ports) if ports.contains(&port) => Answer::yes("the port is in the profile's list"),
            Some(ports) => {
                let all: Vec<String> = ports.iter().map(ToString::to_string).collect();
                let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
                Answer::no(format!("{key} allows: {all}"), self.line(key))
            }
        }
    }

    /// Whether a system call runs, by its name; with arguments of zero where they decide.
    ///
    /// # Errors
    /// There is no such call.
    pub fn call(&self, name: &str) -> Result<Answer, String> {
        let arch = self.filters.arch;
        let number = arch.number(name).ok_or_else(|| format!("{name} is no system call of this node"))?;
        let call = Call { number, arch: arch.audit(), arguments: [0; 6] };
        if self.plan.seccomp.answer(&call).is_some_and(allows) {
            return Ok(Answer::yes("the filter allows it; arguments may matter too"));
        }
        let explained = self.filters.explain(&call);
        Ok(Answer::no(format!("{}: {}", explained.denied_by.join("; "), explained.reason), explained.setting))
    }

    /// Profiles that the sandbox is the meet of.
    #[must_use]
    pub fn profiles(&self) -> &[String] {
        &self.filters.profiles
    }

    /// By which audit records know the container; none where they do not.
    #[must_use]
    pub fn mark(&self) -> Option<&Mark> {
        self.plan.landlock.as_ref()?.log.as_ref()
    }

    fn hidden(&self, path: &Path) -> Option<Answer> {
        let tree = within(path, &self.plan.landlock.as_ref()?.hidden)?;
        Some(Answer::no(format!("{} is hidden", tree.display()), self.line("files.hidden")))
    }

    /// The mount that a path is in: the last of the innermost. None for the root file system.
    fn mount_of(&self, path: &Path) -> Option<&Mounted> {
        let inside = self.mounts.iter().filter(|mount| path.starts_with(&mount.at));
        inside.max_by_key(|mount| mount.at.components().count())
    }

    /// A key of the profile to change.
    pub(crate) fn line(&self, key: &str) -> String {
        let profile = self.filters.profiles.iter().find(|name| !crate::profile::is_built_in(name));
        format!("profile.{}.{key}", profile.map_or("NAME", String::as_str))
    }
}

/// The tree that a path is in.
fn within<'a>(path: &Path, trees: &'a [PathBuf]) -> Option<&'a PathBuf> {
    trees.iter().find(|tree| path.starts_with(tree))
}
