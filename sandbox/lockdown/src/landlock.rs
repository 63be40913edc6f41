//! Landlock: from the plan to a ruleset that the kernel enforces on this process.
//!
//! Rules only ever grant, to a file or to all below a folder, and nothing below a granted folder
//! can be taken back. So what must stay denied is never inside a grant: `/` as a whole may be
//! read, and its entries are granted one by one. Entries that are symbolic links are passed over:
//! an image cannot steer a rule with one.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use hardened_sandbox::landlock_plan::LandlockPlan;

use crate::{Failure, sys};

/// Newest ABI whose every right this code has a rule for.
const NEWEST_ABI: u32 = 7;

/// Entries of one folder that are looked at. An image with more in `/` is not one.
const MAX_ENTRIES: usize = 4096;

/// Symbolic links on one path, as many as the kernel follows: path_resolution(7).
const MAX_LINKS: u32 = 40;

/// Entries of `/` that are tried where the container's user may not list it: the Filesystem
/// Hierarchy Standard's, less the system folders.
const USUAL: &[&str] =
    &["data", "dev", "etc", "home", "media", "mnt", "opt", "proc", "root", "run", "srv", "tmp", "var"];

pub(crate) fn restrict(plan: &LandlockPlan) -> Result<(), Failure> {
    let abi = abi(plan.abi);
    let rights = Rights::of(abi);
    let mut rules = Rules { ruleset: create(plan, abi)?, rights };
    let mut links = Vec::new();
    let hidden = resolved(&plan.hidden, &mut links);
    let no_write = resolved(&plan.no_write, &mut links);
    let no_execute = resolved(&plan.no_execute, &mut Vec::new());

    rules.grant_except(Path::new("/"), rights.read, &hidden)?;
    rules.grant_except(Path::new("/"), rights.execute, &[&hidden[..], &no_execute].concat())?;
    // A link on the way stays as it is: changed, it would lead the rules of the next exec elsewhere.
    let no_write = [hidden, no_write, links].concat();
    for name in entries(Path::new("/"))? {
        if !plan.system.contains(&name) && (!plan.read_only || name == "dev") {
            rules.grant_except(&Path::new("/").join(name), rights.write, &no_write)?;
        }
    }
    for volume in plan.writable.iter().filter(|_| !plan.read_only) {
        rules.grant_mount(volume, rights.write, &no_write)?;
    }
    for device in &plan.ioctl {
        rules.grant(device, rights.ioctl)?;
    }
    rules.grant_ports(&plan.bind_tcp, AccessNet::BindTcp)?;
    rules.grant_ports(&plan.connect_tcp, AccessNet::ConnectTcp)?;
    let status = rules.ruleset.restrict_self().map_err(|e| fail("enforce the ruleset", &e))?;
    // restrict_self also succeeds where nothing was enforced.
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => {
            Err(Failure::unverified("landlock", format!("the kernel enforces the ruleset {:?}", status.ruleset)))
        }
    }
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
    Failure { mechanism: "landlock".to_owned(), step, errno }
}

/// The crate's ABIs are no numbers, and converting a number is for tests only.
fn abi(kernel: u32) -> ABI {
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

fn create(plan: &LandlockPlan, abi: ABI) -> Result<RulesetCreated, Failure> {
    let build = || {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(abi))?;
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
        let mut created = ruleset.create()?;
        if abi >= ABI::V7 {
            // Without it no denial after the first execve is ever logged.
            created = created.log_new_exec(true)?;
        }
        Ok::<_, landlock::RulesetError>(created)
    };
    build().map_err(|e| fail("create a ruleset", &e))
}

/// What is granted where. Making device nodes is granted nowhere.
#[derive(Clone, Copy)]
struct Rights {
    read: BitFlags<AccessFs>,
    execute: BitFlags<AccessFs>,
    write: BitFlags<AccessFs>,
    ioctl: BitFlags<AccessFs>,
    /// Those that a file, as against a folder, can have.
    file: BitFlags<AccessFs>,
}

impl Rights {
    fn of(abi: ABI) -> Self {
        let all = AccessFs::from_all(abi);
        let nodes = AccessFs::MakeChar | AccessFs::MakeBlock;
        Self {
            read: AccessFs::ReadFile | AccessFs::ReadDir,
            execute: AccessFs::Execute.into(),
            write: AccessFs::from_write(abi) & !nodes & !BitFlags::from(AccessFs::IoctlDev),
            ioctl: BitFlags::from(AccessFs::IoctlDev) & all,
            file: AccessFs::from_file(abi),
        }
    }
}

struct Rules {
    ruleset: RulesetCreated,
    rights: Rights,
}

impl Rules {
    /// Grants rights to a file, or to a folder and all below it. What does not exist, or is a
    /// symbolic link, or cannot be reached by the container's user, gets nothing.
    fn grant(&mut self, path: &Path, rights: BitFlags<AccessFs>) -> Result<(), Failure> {
        match open(path, libc::O_NOFOLLOW) {
            Some(file) => self.add(path, file, rights),
            None => Ok(()),
        }
    }

    /// Grants rights to a mount. The image may have led the mount elsewhere by a symbolic link,
    /// and may lead this rule there too: as long as it ends at a mount, it is one of the spec's.
    fn grant_mount(&mut self, path: &Path, rights: BitFlags<AccessFs>, except: &[PathBuf]) -> Result<(), Failure> {
        let Some(file) = open(path, 0) else { return Ok(()) };
        let mount = sys::is_mount_root(file.as_fd()).map_err(|e| fail(format!("statx {}", path.display()), &e))?;
        let real = follow(path, &mut Vec::new());
        match () {
            () if !mount => Ok(()),
            () if except.iter().any(|e| real.starts_with(e)) => Ok(()),
            () if except.iter().any(|e| e.starts_with(&real)) => self.grant_except(&real, rights, except),
            () => self.add(path, file, rights),
        }
    }

    /// Grants rights to all below a path but below `except`. A folder on the way there gets none
    /// itself, since what is granted to it is granted to all below: nothing can be made in it.
    fn grant_except(&mut self, path: &Path, rights: BitFlags<AccessFs>, except: &[PathBuf]) -> Result<(), Failure> {
        if except.iter().any(|e| e == path) {
            return Ok(());
        }
        if !except.iter().any(|e| e.starts_with(path)) {
            return self.grant(path, rights);
        }
        for name in entries(path)? {
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

    fn add(&mut self, path: &Path, file: File, rights: BitFlags<AccessFs>) -> Result<(), Failure> {
        let step = || format!("add a rule for {}", path.display());
        let kind = file.metadata().map_err(|e| fail(step(), &e))?.file_type();
        let rights = match () {
            () if kind.is_symlink() => return Ok(()),
            () if kind.is_dir() => rights,
            () => rights & self.rights.file,
        };
        if rights.is_empty() {
            return Ok(());
        }
        let rule = PathBeneath::new(file, rights);
        (&mut self.ruleset).add_rule(rule).map(drop).map_err(|e| fail(step(), &e))
    }
}

/// A handle on a path; `None` where there is nothing to grant rights to.
fn open(path: &Path, flags: i32) -> Option<File> {
    std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC | flags).open(path).ok()
}

/// Names in a folder; a short list of usual ones where it may not be listed.
fn entries(folder: &Path) -> Result<Vec<String>, Failure> {
    let step = || format!("list {}", folder.display());
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(_) if folder == Path::new("/") => return Ok(USUAL.iter().map(|name| (*name).to_owned()).collect()),
        // Not there, no folder, or not for this user: nothing to grant.
        Err(_) => return Ok(Vec::new()),
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|e| fail(step(), &e))?;
        if names.len() == MAX_ENTRIES {
            return Err(Failure::unverified("landlock", format!("{} has more than {MAX_ENTRIES} entries", step())));
        }
        // A name that is no UTF-8 gets no rights.
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

fn resolved(paths: &[PathBuf], links: &mut Vec<PathBuf>) -> Vec<PathBuf> {
    paths.iter().map(|path| follow(path, links)).collect()
}

/// Where a path of the plan lies in this image, also where its last parts do not exist yet; and which
/// symbolic links lead there.
fn follow(path: &Path, links: &mut Vec<PathBuf>) -> PathBuf {
    let mut real = PathBuf::from("/");
    let mut followed = 0;
    let mut rest: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = rest.pop() {
        let mut parts = path.components();
        let Some(part) = parts.next() else { continue };
        rest.push(parts.as_path().to_owned());
        match part {
            Component::RootDir => real = PathBuf::from("/"),
            Component::ParentDir => drop(real.pop()),
            Component::CurDir | Component::Prefix(_) => {}
            Component::Normal(name) => {
                let next = real.join(name);
                match std::fs::read_link(&next) {
                    Ok(target) if followed < MAX_LINKS => {
                        followed += 1;
                        rest.push(target);
                        links.push(next);
                    }
                    Ok(_) | Err(_) => real = next,
                }
            }
        }
    }
    real
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_as_the_kernel_does() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        let at = |name: &str| root.join(name);
        std::fs::create_dir_all(at("real/deep")).unwrap();
        for (target, link) in [
            (root.join("real").as_path(), "absolute"),
            (Path::new("../absolute/deep"), "real/up"),
            (Path::new("loop"), "loop"),
            (Path::new("nowhere/x"), "broken"),
        ] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        for (path, real, ways) in [
            ("real/deep", "real/deep", &[][..]),
            ("absolute/up/x/../y/./z", "real/deep/y/z", &["absolute", "real/up", "absolute"]),
            ("broken/y", "nowhere/x/y", &["broken"]),
            ("real/none/../deep", "real/deep", &[]),
        ] {
            let mut links = Vec::new();
            assert_eq!(follow(&at(path), &mut links), at(real), "{path}");
            assert_eq!(links, ways.iter().map(|way| at(way)).collect::<Vec<_>>(), "{path}");
            if let Ok(kernels) = std::fs::canonicalize(at(path)) {
                assert_eq!(kernels, at(real), "{path}");
            }
        }
        assert_eq!(follow(&at("loop"), &mut Vec::new()), at("loop"));
    }

    /// Older kernels' rights on this one: what each ABI grants and denies is the same.
    #[test]
    fn a_ruleset_of_every_abi_is_enforced() {
        let newest = sys::landlock_abi();
        assert!(newest >= 1, "this test needs a kernel with Landlock");
        for abi in 1..=newest {
            let plan = LandlockPlan {
                abi,
                system: vec!["usr".to_owned()],
                writable: Vec::new(),
                read_only: false,
                no_write: Vec::new(),
                no_execute: vec!["/tmp".into()],
                hidden: vec!["/etc/hostname".into()],
                ioctl: vec!["/dev/null".into()],
                bind_tcp: (abi >= 4).then(Vec::new),
                connect_tcp: None,
                abstract_sockets: false,
            };
            // Landlock is of a thread.
            let confined = std::thread::spawn(move || {
                sys::set_no_new_privs().unwrap();
                restrict(&plan).unwrap();
                let denied =
                    |result: std::io::Result<()>| result.is_err_and(|e| e.raw_os_error() == Some(libc::EACCES));
                let scratch = std::env::temp_dir().join(format!("hardened-abi-{abi}-{}", std::process::id()));
                std::fs::write(&scratch, "x").unwrap();
                std::fs::remove_file(&scratch).unwrap();
                assert!(denied(std::fs::write("/usr/hardened-test", "x")), "ABI {abi}");
                assert!(denied(File::open("/etc/hostname").map(drop)), "ABI {abi}");
                let bound = std::net::TcpListener::bind("127.0.0.1:0").map(drop);
                assert_eq!(denied(bound), abi >= 4, "ABI {abi}");
            });
            confined.join().unwrap();
        }
    }
}
