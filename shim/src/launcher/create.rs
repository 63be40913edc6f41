//! A create: from an admitted bundle to a parked init, in order. What holds after each step is said at it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use hardened_lockdown::{self as lockdown, Payload};
use hardened_sandbox::bundle::{Bundle, Mount, NamespaceKind, Places, write};
use hardened_sandbox::landlock_plan::LandlockPlan;
use hardened_sandbox::{Namespaces, Placement};
use libcontainer::container::builder::ContainerBuilder;

use super::outcome::{Made, chain};
use super::stage::{FOLLOW_NO_LINKS, Stage};
use super::system::Cover;
use super::volumes::Staged;
use super::wire::{self, Create, Request};
use super::{cgroup, destinations, jail, namespaces, rootfs, system, volumes};
use crate::cgroup::{Cgroup, DeviceProgram};
use crate::judged;
use crate::state::{self, StateDir};
use crate::sys::{self, MountChange, ignore};

/// Makes the container. `executor` is a socket whose other end init has.
pub(super) fn create(
    request: &Request,
    task: &Create,
    executor: &UnixStream,
    builder: impl FnOnce(Placement) -> Result<ContainerBuilder>,
) -> Result<Made> {
    let state = StateDir::open(&request.state)?;
    let mut bundle = task.bundle.clone();
    // What is needed of the host later is open, and nothing is mounted on the host from here on.
    let sysctl = task.bundle.memfd_noexec.then(open_memfd_sysctl).transpose()?;
    namespaces::leave_the_hosts_mounts()?;
    let stage = Stage::make(&request.state)?;
    // The root file system is mounted. It is not the host's.
    let root = rootfs::mount(&stage, task)?;
    rootfs::make_directory(&root, &request.plan.cwd, task.root)?;
    // What was judged is what is mounted, with its final flags.
    let volumes = volumes::mount(&stage, &bundle)?;
    // This process is in the cgroup, whose limits hold.
    let cgroup = Cgroup::new(&request.cgroup, &request.namespace, &request.id)?;
    let devices = cgroup::make(&cgroup, &bundle)?;
    // What the container sees of cgroups is its own, and read-only.
    let cgroups = cgroup::mount(&stage, &cgroup, &bundle)?;
    // No destination has a link on the way.
    let asked: Vec<PathBuf> = bundle.mounts.iter().map(|mount| mount.destination.clone()).collect();
    destinations::resolve(&root, &volumes, &mut bundle.mounts)?;
    for masks in [&mut bundle.masked_paths, &mut bundle.read_only_paths] {
        destinations::resolve_masks(&root, &volumes, &bundle.mounts, masks)?;
    }
    let covers = system::find(&root, &bundle.system)?;
    // No namespace is joined by a path of the host.
    let namespaces = namespaces::stage(&stage, &bundle)?;
    // No link in what the image or another container controls is followed, by whatever code.
    rootfs::follow_no_links(&root)?;
    let places = Places {
        root: stage.rootfs(),
        volumes: volumes.iter().map(|volume| (volume.number, volume.place.clone())).collect(),
        cgroups,
        namespaces,
    };
    let spec = write(&bundle, &places).map_err(|e| anyhow!(chain(&e))).context("write the container's spec")?;
    state.write("config.json", &spec)?;
    stage.close()?;
    // A path leads to nothing of the host.
    if bundle.hooks.is_empty() {
        let devices = jail::Devices { own: &bundle.devices, label: bundle.files_label.as_deref() };
        let inside = bundle.has_user_namespace().then_some(&devices);
        jail::enter(stage.state(), &state::runtime_root(&request.state), inside)?;
    } else {
        // Hooks are the node's own programs, and run outside of the container: they need the node's files.
        cgroup::hide()?;
    }
    let own = lockdown::own_namespaces().context("look at the launcher's namespaces")?;
    let placement = Placement::of_init(&bundle, &own, &Path::new("/").join(cgroup.location()));
    // Processes of a pod that shares its pids see the next ones: what they find there is the pod's own.
    namespaces::join(&bundle, &places.namespaces)?;
    let landlock = request.plan.landlock.as_ref().map(|plan| found_volumes(plan, &asked, &bundle.mounts));
    // Init exists, and is parked.
    let init = build(builder(placement)?, &request.state)?;
    let directory = &request.plan.cwd;
    let parts = Parts {
        bundle: &bundle,
        directory,
        covers: &covers,
        volumes: &volumes,
        landlock: landlock.as_ref(),
        devices,
        sysctl,
    };
    match finish(&init, parts, executor) {
        Ok(Finished { namespaces, ruleset, hidden }) => {
            Ok(Made { pid: init.pid, process: init.process, namespaces, ruleset, hidden })
        }
        Err(error) => {
            ignore(sys::pidfd_signal(&init.process, libc::SIGKILL), "it has ended, then");
            Err(error)
        }
    }
}

fn open_memfd_sysctl() -> Result<File> {
    const SYSCTL: &str = "/proc/sys/vm/memfd_noexec";
    File::options().write(true).open(SYSCTL).with_context(|| format!("open {SYSCTL}"))
}

/// A parked init: a child that nobody has waited for, so that its pid is nobody else's.
struct Init {
    pid: i32,
    process: OwnedFd,
}

fn build(builder: ContainerBuilder, bundle: &Path) -> Result<Init> {
    let container = builder
        .validate_id()
        .context("container id")?
        .as_init(bundle)
        .with_systemd(false)
        .build()
        .map_err(|e| anyhow!(chain(&e)).context("build the container"))?;
    let pid = container.pid().context("libcontainer reports no pid")?.as_raw();
    Ok(Init { pid, process: sys::pidfd(pid).context("open init's pidfd")? })
}

/// What was prepared for a parked init.
struct Parts<'a> {
    bundle: &'a Bundle,
    /// The working directory.
    directory: &'a Path,
    covers: &'a [Cover],
    volumes: &'a [Staged],
    landlock: Option<&'a LandlockPlan>,
    devices: Option<DeviceProgram>,
    sysctl: Option<File>,
}

/// What the shim keeps for the execs.
struct Finished {
    namespaces: Namespaces,
    ruleset: Option<OwnedFd>,
    hidden: Vec<PathBuf>,
}

/// What is done to a parked init from outside. Nothing of the image has run.
fn finish(init: &Init, parts: Parts<'_>, executor: &UnixStream) -> Result<Finished> {
    let namespaces = lockdown::namespaces_of(init.pid).context("look at init's namespaces")?;
    if let Some(mappings) = parts.bundle.id_mappings.as_ref().filter(|_| parts.bundle.has_user_namespace()) {
        namespaces::verify_mappings(init.pid, mappings)?;
    }
    // This process is in the container's root, in which no link is followed.
    sys::join_namespace(&init.process, libc::CLONE_NEWNS).context("join the container's mounts")?;
    let root = sys::open_path(Path::new("/")).context("open the container's root")?;
    // The image's programs stay as they are.
    system::cover(&root, parts.covers, &parts.bundle.mounts)?;
    let ruleset = parts.landlock.map(lockdown::build_ruleset).transpose().context("make the ruleset")?;
    let hidden = parts.landlock.map(lockdown::resolve_hidden).transpose()?.unwrap_or_default();
    wire::hand_over(executor, ruleset.as_ref()).context("hand the ruleset to init")?;
    // The payload follows links as usual.
    follow_links_again(&root, parts.bundle, parts.volumes)?;
    // runc tells of it at the create too. What it looks at is the container's, whose links lead nowhere else.
    let process = &parts.bundle.process;
    Payload::new(process.args.clone(), process.env.clone()).look_for(parts.directory)?;
    parts.devices.map_or(Ok(()), DeviceProgram::attach)?;
    if parts.bundle.makes(NamespaceKind::Network) {
        sys::bring_loopback_up(&init.process).context("switch on the loopback interface")?;
    }
    if let Some(sysctl) = &parts.sysctl {
        sys::refuse_executable_memfds(sysctl, &init.process)
            .context("set vm.memfd_noexec in the container's pid namespace")?;
    }
    Ok(Finished { namespaces, ruleset, hidden })
}

/// From within the container's mounts. Volumes in which the host follows no links keep that.
fn follow_links_again(root: &OwnedFd, bundle: &Bundle, volumes: &[Staged]) -> Result<()> {
    let follow = MountChange { clear: libc::MOUNT_ATTR_NOSYMFOLLOW, ..MountChange::default() };
    sys::change_mount(root, follow, true).context("follow links again")?;
    for volume in volumes.iter().filter(|volume| volume.follows_no_links) {
        let mount = bundle.mounts.get(volume.number).context("a volume without a mount")?;
        let show = mount.destination.display();
        let found = sys::open_path_in_root(root, &mount.destination).with_context(|| format!("open {show}"))?;
        // Another container that shares a volume may move folders in it.
        if judged::identity_of(&found)? != volume.file {
            bail!("{show} is not the volume that was mounted there");
        }
        sys::change_mount(&found, FOLLOW_NO_LINKS, true).with_context(|| format!("follow no links in {show}"))?;
    }
    Ok(())
}

/// The plan with its volumes by the names that they have now: a rule follows no link, and what was mounted later does
/// not change where an earlier mount is.
fn found_volumes(plan: &LandlockPlan, asked: &[PathBuf], mounts: &[Mount]) -> LandlockPlan {
    let found = |path: &PathBuf| {
        let number = asked.iter().rposition(|asked| asked == path);
        number.and_then(|number| mounts.get(number)).map_or_else(|| path.clone(), |mount| mount.destination.clone())
    };
    let all = |paths: &[PathBuf]| paths.iter().map(found).collect();
    LandlockPlan { no_write: all(&plan.no_write), no_execute: all(&plan.no_execute), ..plan.clone() }
}
