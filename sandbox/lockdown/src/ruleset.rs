//! Landlock rulesets: from a plan to a descriptor that any process can enforce on itself.
//!
//! Rules only ever grant, to a file or to all below a folder, and nothing below a granted folder can
//! be taken back. So what must stay denied is never inside a grant: `/` as a whole may be read, and its
//! entries are granted one by one.
//!
//! A rule is about the file itself, and names are looked up once: for the container's ruleset when its
//! mounts are made, before anything of it runs. No symbolic link is followed, so neither an image nor
//! who shares a volume can steer a rule with one.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};
use rustix::fs::{Dir, FileType, OFlags};
use rustix::io::Errno;

use hardened_sandbox::landlock_plan::{ExecRestriction, LandlockPlan};

use crate::Failure;
use crate::beneath::{self, HANDLE};
use crate::failure::Mechanism;

/// Newest ABI whose every right this code has a rule for.
const NEWEST_ABI: u32 = 7;

/// Where message queues are mounted: mq_overview(7).
const QUEUES: &str = "/dev/mqueue";

/// Entries of one folder that are looked at. An image with more in `/` is not one.
const MAX_ENTRIES: usize = 4096;

/// Makes the container's ruleset, which init and every exec get. To be called with the container's root
/// as root, when its mounts are made and before anything of it runs.
///
/// # Errors
/// The kernel takes no such ruleset, or a file cannot be looked at.
pub fn build_ruleset(plan: &LandlockPlan) -> Result<OwnedFd, Failure> {
    build(plan, container_root()?.as_fd())
}

/// Where the trees really lie that are hidden from execs, for [`ExecRestriction::hidden`]. To be called
/// as [`build_ruleset`] is.
///
/// # Errors
/// A file on the way cannot be looked at.
pub fn resolve_hidden(plan: &LandlockPlan) -> Result<Vec<PathBuf>, Failure> {
    real_paths(container_root()?.as_fd(), &plan.exec_hidden)
}

/// Makes the ruleset that an exec has on top of its container's. It only takes away: what is not
/// hidden is granted as a whole. Folders are listed now, so that an exec sees what was made meanwhile.
pub(crate) fn build_for_exec(plan: &ExecRestriction, abi: u32) -> Result<OwnedFd, Failure> {
    narrow(plan, self::abi(abi), container_root()?.as_fd())
}

fn container_root() -> Result<OwnedFd, Failure> {
    beneath::root().map_err(|e| Failure::new(Mechanism::Landlock, "open /", e))
}

fn real_paths(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    paths.iter().map(|path| beneath::real_path(root, path)).collect()
}

pub(crate) fn build(plan: &LandlockPlan, root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let abi = abi(plan.abi);
    let rights = Rights::of(abi);
    let mut rules = Rules { root, ruleset: create(plan, abi)? };
    let hidden = real_paths(root, &plan.hidden)?;
    let no_write = [&hidden[..], &real_paths(root, &plan.no_write)?].concat();
    let no_execute = [&hidden[..], &real_paths(root, &plan.no_execute)?].concat();

    rules.grant_except(Path::new("/"), rights.read, &hidden)?;
    rules.grant_except(Path::new("/"), rights.execute, &no_execute)?;
    // System folders are read-only by mounts: the launcher's.
    let nodes = if plan.device_nodes { rights.nodes } else { BitFlags::EMPTY };
    rules.grant_except(Path::new("/"), rights.write | nodes, &no_write)?;
    // Queues are files of the IPC namespace's own mount, of which this is the root: nothing leads up from there.
    rules.grant_except(Path::new(QUEUES), rights.read, &hidden)?;
    rules.grant_except(Path::new(QUEUES), rights.write, &no_write)?;
    for device in &plan.ioctl {
        rules.grant(device, rights.ioctl)?;
    }
    rules.grant_ports(&plan.bind_tcp, AccessNet::BindTcp)?;
    rules.grant_ports(&plan.connect_tcp, AccessNet::ConnectTcp)?;
    rules.into_descriptor()
}

pub(crate) fn narrow(plan: &ExecRestriction, abi: ABI, root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    for path in &plan.hidden {
        // They were without links when the container's mounts were made. Led elsewhere by one, a name
        // says no longer what it is that was to be hidden.
        if beneath::open(root, path, HANDLE).err() == Some(Errno::LOOP) {
            let problem = format!("{}, which is hidden from execs, has become a symbolic link", path.display());
            return Err(Failure::unverified(Mechanism::Landlock, problem));
        }
    }
    let rights = Rights::of(abi);
    let all = AccessFs::from_all(abi);
    let build = || files(abi)?.create();
    let mut rules = Rules { root, ruleset: build().map_err(|e| fail("create a ruleset", &e))? };
    if plan.read_only {
        rules.grant_except(Path::new("/"), all & !rights.write, &plan.hidden)?;
        rules.grant_except(Path::new("/dev"), rights.write, &plan.hidden)?;
    } else {
        rules.grant_except(Path::new("/"), all, &plan.hidden)?;
    }
    rules.into_descriptor()
}

fn fail(step: impl Into<String>, error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut step = step.into();
    let mut cause = Some(error);
    let mut errno = 0;
    while let Some(error) = cause {
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            Some(found) => errno = found,
            None => step = format!("{step}: {error}"),
        }
        cause = error.source();
    }
    Failure { mechanism: Mechanism::Landlock, step, errno }
}

/// The crate's ABIs are no numbers, and converting a number is for tests only.
pub(crate) fn abi(kernel: u32) -> ABI {
    match kernel.min(NEWEST_ABI) {
        0 => ABI::Unsupported,
        1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        6 => ABI::V6,
        _ => ABI::V7,
    }
}

/// A ruleset that is about every right to files. What the kernel does not know is an error: a ruleset
/// that can be made is the whole of it.
fn files(abi: ABI) -> Result<Ruleset, landlock::RulesetError> {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::from_all(abi))
}

fn create(plan: &LandlockPlan, abi: ABI) -> Result<RulesetCreated, Failure> {
    let build = || {
        let mut ruleset = files(abi)?;
        // The decision has seen to it that the kernel can (ABI 4).
        for (ports, access) in [(&plan.bind_tcp, AccessNet::BindTcp), (&plan.connect_tcp, AccessNet::ConnectTcp)] {
            if ports.is_some() {
                ruleset = ruleset.handle_access(access)?;
            }
        }
        if abi >= ABI::V6 && !plan.abstract_sockets {
            // Signals are not scoped: init and exec are sibling domains, and a reload or preStop
            // hook that signals init would fail.
            ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
        }
        ruleset.create()
    };
    build().map_err(|e| fail("create a ruleset", &e))
}

/// What is granted where.
#[derive(Clone, Copy)]
struct Rights {
    read: BitFlags<AccessFs>,
    execute: BitFlags<AccessFs>,
    write: BitFlags<AccessFs>,
    /// Making device nodes.
    nodes: BitFlags<AccessFs>,
    ioctl: BitFlags<AccessFs>,
}

impl Rights {
    fn of(abi: ABI) -> Self {
        let all = AccessFs::from_all(abi);
        let nodes = AccessFs::MakeChar | AccessFs::MakeBlock;
        Self {
            read: AccessFs::ReadFile | AccessFs::ReadDir,
            execute: AccessFs::Execute.into(),
            write: AccessFs::from_write(abi) & !nodes & !BitFlags::from(AccessFs::IoctlDev),
            nodes: nodes & all,
            ioctl: BitFlags::from(AccessFs::IoctlDev) & all,
        }
    }
}

struct Rules<'a> {
    root: BorrowedFd<'a>,
    ruleset: RulesetCreated,
}

impl Rules<'_> {
    /// Grants rights to a file, or to a folder and all below it.
    fn grant(&mut self, path: &Path, rights: BitFlags<AccessFs>) -> Result<(), Failure> {
        match self.open(path, HANDLE)? {
            Some(file) => self.add(path, file, rights),
            None => Ok(()),
        }
    }

    /// Grants rights to all below a path but below `except`. A folder on the way there gets none
    /// itself, since what is granted to it is granted to all below: nothing can be made in it.
    fn grant_except(&mut self, path: &Path, rights: BitFlags<AccessFs>, except: &[PathBuf]) -> Result<(), Failure> {
        if except.iter().any(|e| path.starts_with(e)) {
            return Ok(());
        }
        if !except.iter().any(|e| e.starts_with(path)) {
            return self.grant(path, rights);
        }
        for name in self.entries(path)? {
            self.grant_except(&path.join(name), rights, except)?;
        }
        Ok(())
    }

    fn grant_ports(&mut self, ports: &Option<Vec<u16>>, access: AccessNet) -> Result<(), Failure> {
        for port in ports.iter().flatten() {
            let step = || format!("add a rule for TCP port {port}");
            (&mut self.ruleset).add_rule(NetPort::new(*port, access)).map(drop).map_err(|e| fail(step(), &e))?;
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, file: OwnedFd, rights: BitFlags<AccessFs>) -> Result<(), Failure> {
        let step = || format!("add a rule for {}", path.display());
        let found = rustix::fs::fstat(&file).map_err(|e| fail_errno(step(), e))?;
        let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        // Those of the newest ABI are enough: the others are not among the rights.
        let rights = if is_folder { rights } else { rights & AccessFs::from_file(self::abi(NEWEST_ABI)) };
        if rights.is_empty() {
            return Ok(());
        }
        let rule = PathBeneath::new(file, rights);
        (&mut self.ruleset).add_rule(rule).map(drop).map_err(|e| fail(step(), &e))
    }

    /// `None` where there is nothing to grant rights to: nothing at all, or a symbolic link, or what
    /// this process's user cannot reach.
    fn open(&self, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>, Failure> {
        match beneath::open(self.root, path, flags) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(None),
            Err(error) => Err(fail_errno(format!("open {}", path.display()), error)),
        }
    }

    /// Names in a folder.
    fn entries(&self, folder: &Path) -> Result<Vec<OsString>, Failure> {
        let step = || format!("list {}", folder.display());
        let Some(listing) = self.open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK)? else {
            // Without its entries nothing at all would be granted, and nobody could tell why.
            let is_root = folder == Path::new("/");
            return if is_root { Err(fail_errno(step(), Errno::ACCESS)) } else { Ok(Vec::new()) };
        };
        let mut names = Vec::new();
        for entry in Dir::new(listing).map_err(|e| fail_errno(step(), e))? {
            let entry = entry.map_err(|e| fail_errno(step(), e))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if names.len() == MAX_ENTRIES {
                let problem = format!("{} has more than {MAX_ENTRIES} entries", folder.display());
                return Err(Failure::unverified(Mechanism::Landlock, problem));
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }

    fn into_descriptor(self) -> Result<OwnedFd, Failure> {
        Option::from(self.ruleset)
            .ok_or_else(|| Failure::unverified(Mechanism::Landlock, "the kernel has made no ruleset"))
    }
}

fn fail_errno(step: String, error: Errno) -> Failure {
    Failure::new(Mechanism::Landlock, step, error)
}
