//! Landlock: the container's ruleset, enforced on this process; an exec gets another one on top.

use std::os::fd::{AsFd, OwnedFd};

use hardened_sandbox::landlock_plan::{ExecRestriction, LandlockPlan};
use hardened_sandbox::{Mark, Ruleset};

use crate::failure::Mechanism;
use crate::{Failure, ruleset, sys};

/// First ABI that logs denials, and can be asked to do so after the first `execve`.
const LOGGING_ABI: u32 = 7;

/// `LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON`, include/uapi/linux/landlock.h: without it no denial after
/// the first `execve` is ever logged.
const LOG_NEW_EXEC_ON: u32 = 1 << 1;

/// `LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF`: what a domain of the container's own making denies is not logged. It would
/// be, whatever the policy says, and so fill the node's audit log, under any name that the container likes.
const LOG_SUBDOMAINS_OFF: u32 = 1 << 2;

/// A descriptor is enough: its rules are the files that were granted when the ruleset was made, whatever
/// the container calls them by now.
pub(crate) fn restrict(plan: &LandlockPlan, ruleset: OwnedFd, exec: Option<&ExecRestriction>) -> Result<(), Failure> {
    let narrower = exec.map(|exec| ruleset::build_for_exec(exec, plan.abi)).transpose()?;
    let mark = plan.log.as_ref().filter(|_| plan.abi >= LOGGING_ABI);
    let flags = if mark.is_some() { LOG_NEW_EXEC_ON } else { 0 };
    let last = if plan.abi >= LOGGING_ABI { flags | LOG_SUBDOMAINS_OFF } else { 0 };
    name(mark, Ruleset::Container)?;
    match narrower {
        Some(narrower) => {
            enforce(&ruleset, flags, "the container's ruleset")?;
            name(mark, Ruleset::Exec)?;
            enforce(&narrower, last, "the exec's ruleset")
        }
        None => enforce(&ruleset, last, "the container's ruleset"),
    }
}

/// The kernel keeps a domain's name for its audit records: that of the process which entered it. `execve` gives the
/// process another.
fn name(mark: Option<&Mark>, ruleset: Ruleset) -> Result<(), Failure> {
    let named = mark.map_or(Ok(()), |mark| sys::set_name(&mark.name(ruleset)));
    named.map_err(|e| Failure::new(Mechanism::Landlock, "name the domain", e))
}

/// There is no read-back, and no need for one: landlock_restrict_self(2) has no partial success. It
/// takes a ruleset as a whole, and whatever could not be a part of it has failed when it was made.
fn enforce(ruleset: &OwnedFd, flags: u32, what: &str) -> Result<(), Failure> {
    sys::landlock_restrict_self(ruleset.as_fd(), flags)
        .map_err(|e| Failure::new(Mechanism::Landlock, format!("enforce {what}"), e))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::beneath;

    /// One that grants all but writing below `usr`.
    fn plan(abi: u32) -> LandlockPlan {
        LandlockPlan {
            abi,
            log: None,
            no_write: vec!["/usr".into()],
            no_execute: Vec::new(),
            device_nodes: false,
            hidden: Vec::new(),
            ioctl: Vec::new(),
            bind_tcp: None,
            connect_tcp: None,
            abstract_sockets: false,
            exec_hidden: Vec::new(),
        }
    }

    fn newest() -> u32 {
        let newest = sys::landlock_abi();
        assert!(newest >= 1, "these tests need a kernel with Landlock");
        newest
    }

    /// Runs in a separate thread under rulesets: a Landlock domain belongs to a thread.
    fn confined<T: Send>(rulesets: &[&OwnedFd], work: impl FnOnce() -> T + Send) -> T {
        let run = || {
            sys::set_no_new_privs().unwrap();
            for ruleset in rulesets {
                enforce(ruleset, 0, "a ruleset").unwrap();
            }
            work()
        };
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    fn is_denied<T>(result: io::Result<T>) -> bool {
        match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => true,
            Err(error) => panic!("neither allowed nor denied: {error}"),
        }
    }

    /// A root file system with folders and files, and a handle on it.
    fn root(files: &[&str]) -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let handle = File::open(dir.path()).unwrap();
        (dir, handle)
    }

    /// Older kernels' rights on this one: what each ABI grants and denies is the same.
    #[test]
    fn a_ruleset_of_every_abi_is_enforced() {
        for abi in 1..=newest() {
            let (dir, handle) = root(&["usr/file", "etc/hidden", "tmp/file"]);
            let ports = (abi >= 4).then(Vec::new);
            let plan = LandlockPlan { hidden: vec!["/etc/hidden".into()], bind_tcp: ports, ..plan(abi) };
            let ruleset = ruleset::build(&plan, handle.as_fd()).unwrap();
            confined(&[&ruleset], || {
                let at = |name: &str| dir.path().join(name);
                fs::write(at("tmp/new"), "x").unwrap();
                fs::remove_file(at("tmp/new")).unwrap();
                assert_eq!(fs::read(at("usr/file")).unwrap(), b"x", "ABI {abi}");
                assert!(is_denied(fs::write(at("usr/new"), "x")), "ABI {abi}");
                assert!(is_denied(fs::write(at("new"), "x")), "ABI {abi}");
                assert!(is_denied(fs::read(at("etc/hidden"))), "ABI {abi}");
                let bound = std::net::TcpListener::bind("127.0.0.1:0");
                assert_eq!(is_denied(bound), abi >= 4, "ABI {abi}");
            });
        }
    }

    #[test]
    fn a_second_process_gets_the_same_rules_whatever_was_renamed() {
        let (dir, handle) = root(&["usr/file", "opt/file"]);
        let at = |name: &str| dir.path().join(name);
        let build = || ruleset::build(&plan(newest()), handle.as_fd()).unwrap();
        let container = build();
        let writes = |ruleset: &OwnedFd, name: &str| {
            confined(&[ruleset], || !is_denied(File::options().append(true).open(at(name))))
        };
        assert!(writes(&container, "opt/file") && !writes(&container, "usr/file"));
        fs::rename(at("opt"), at("was-opt")).unwrap();
        fs::rename(at("usr"), at("opt")).unwrap();
        // Another process gets the descriptor, not the memory.
        let received = container.try_clone().unwrap();
        assert!(writes(&received, "was-opt/file") && !writes(&received, "opt/file"));
        // Names would say something else by now.
        assert!(writes(&build(), "opt/file"));
    }

    #[test]
    fn message_queues_are_granted_no_more_than_their_folder() {
        let (dir, handle) = root(&["dev/mqueue/queue", "usr/file"]);
        let at = dir.path().join("dev/mqueue/queue");
        let may = |hidden: &[&str], no_write: &[&str]| {
            let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
            let plan = LandlockPlan { hidden: paths(hidden), no_write: paths(no_write), ..plan(newest()) };
            let ruleset = ruleset::build(&plan, handle.as_fd()).unwrap();
            confined(&[&ruleset], || (!is_denied(fs::read(&at)), !is_denied(File::options().append(true).open(&at))))
        };
        assert_eq!(may(&[], &[]), (true, true));
        for folder in ["/dev", "/dev/mqueue"] {
            assert_eq!(may(&[folder], &[]), (false, false), "{folder} hidden");
            assert_eq!(may(&[], &[folder]), (true, false), "{folder} not to be written to");
        }
    }

    #[test]
    fn an_exec_has_less_than_its_container_and_never_more() {
        let (dir, handle) = root(&["run/secrets/token", "run/file", "usr/file", "dev/file", "data/file"]);
        let at = |name: &str| dir.path().join(name);
        let container = ruleset::build(&plan(newest()), handle.as_fd()).unwrap();
        let exec = |read_only| {
            let plan = ExecRestriction { hidden: vec!["/run/secrets".into()], read_only };
            ruleset::narrow(&plan, ruleset::abi(newest()), handle.as_fd()).unwrap()
        };
        fs::write(at("run/later"), "x").unwrap();
        for read_only in [false, true] {
            confined(&[&container, &exec(read_only)], || {
                for (name, reads, writes) in [
                    ("run/secrets/token", false, false),
                    ("run/file", true, !read_only),
                    ("run/later", true, !read_only),
                    ("usr/file", true, false),
                    ("data/file", true, !read_only),
                    ("dev/file", true, true),
                ] {
                    assert_eq!(!is_denied(fs::read(at(name))), reads, "read {name}");
                    let opened = File::options().append(true).open(at(name));
                    assert_eq!(!is_denied(opened), writes, "write {name}");
                }
                assert!(is_denied(fs::rename(at("run/secrets"), at("run/shown"))));
            });
        }
    }

    #[test]
    fn what_is_hidden_from_execs_is_found_once_and_no_link_leads_it_elsewhere() {
        let (dir, handle) = root(&["run/secrets/token", "var/file"]);
        std::os::unix::fs::symlink("../run", dir.path().join("var/run")).unwrap();
        let hidden = [PathBuf::from("/var/run/secrets")].map(|p| beneath::real_path(handle.as_fd(), &p).unwrap());
        assert_eq!(hidden, [Path::new("/run/secrets")]);
        let narrow = |hidden: &[PathBuf]| {
            let plan = ExecRestriction { hidden: hidden.to_vec(), read_only: false };
            ruleset::narrow(&plan, ruleset::abi(newest()), handle.as_fd()).map(drop)
        };
        narrow(&hidden).unwrap();
        fs::rename(dir.path().join("run"), dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.path().join("run")).unwrap();
        let failure = narrow(&hidden).unwrap_err();
        assert!(failure.to_string().contains("/run/secrets, which is hidden from execs, has become"), "{failure}");
    }
}
