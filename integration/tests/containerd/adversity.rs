//! When the machine is against it: a kernel that lacks calls, a full disk, files that change or
//! vanish meanwhile.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hardened_integration::direct::Direct;
use hardened_integration::{Containerd, Output, processes, repository};
use hardened_sandbox::seccomp::Arch;
use serde_json::{Value, json};

crate::tests!(
    a_mechanism_that_the_kernel_lacks_refuses_the_container,
    a_call_with_a_substitute_may_be_missing,
    a_full_disk_refuses_and_leaves_nothing,
    a_bundle_may_vanish_once_the_container_is_made,
    neither_the_shim_nor_a_launcher_has_a_second_thread,
    masks_hold_while_the_image_is_being_swapped,
    a_volume_is_the_one_that_was_judged,
    a_container_that_stops_its_execs_holds_nobody_up,
);

const SHIM: &str = "containerd-shim-hardened-v1";

fn config(c: &Containerd) -> Result<Value> {
    let mut config = c.spec(&["/bin/sleep", "1000"])?;
    config["root"]["readonly"] = json!(true);
    Ok(config)
}

/// A shim on a kernel without these calls.
fn without<'a>(c: &'a Containerd, calls: &[&str]) -> Result<Direct<'a>> {
    let arch = Arch::native().context("an architecture that we know")?;
    let numbers: Option<Vec<String>> = calls.iter().map(|c| arch.number(c).map(|n| n.to_string())).collect();
    let numbers = numbers.context("a call that we know")?.join(",");
    let probe = repository().join("target/integration/rootfs/bin/hardened-probe");
    Direct::start_under(c, SHIM, &config(c)?, &[&probe.display().to_string(), "without", &numbers])
}

fn a_mechanism_that_the_kernel_lacks_refuses_the_container(c: &Containerd) -> Result<()> {
    for (call, words) in [
        ("landlock_create_ruleset", "the kernel offers Landlock ABI 0; at least 2 is needed"),
        ("landlock_add_rule", "landlock: add a rule"),
        ("landlock_restrict_self", "landlock: enforce the container's ruleset"),
        ("seccomp", "seccomp: load the filter"),
        ("mount_setattr", "make a read-only mount of this program"),
        ("openat2", "make a read-only mount of this program"),
    ] {
        let error = match without(c, &[call]) {
            Err(error) => error,
            Ok(direct) => {
                let error = direct.create_and_start(None).err().with_context(|| format!("started without {call}"))?;
                let id = direct.id().to_owned();
                direct.give_up()?;
                c.nothing_left(&id)?;
                error
            }
        };
        ensure!(format!("{error:#}").contains(words), "{call}: {error:#}");
    }
    Ok(())
}

fn a_call_with_a_substitute_may_be_missing(c: &Containerd) -> Result<()> {
    for calls in [&["keyctl"][..], &["cachestat"], &["epoll_pwait2"]] {
        let direct = without(c, calls)?;
        let id = direct.id().to_owned();
        direct.create_and_start(None).with_context(|| format!("without {calls:?}"))?;
        direct.end()?;
        c.nothing_left(&id)?;
    }
    Ok(())
}

fn a_full_disk_refuses_and_leaves_nothing(c: &Containerd) -> Result<()> {
    let mut refused = 0;
    // From a size at which nothing fits to one at which everything does.
    for kilobytes in [4, 8, 12, 16, 20, 24, 28, 32, 40, 64, 128, 1024] {
        let small = format!(
            "mkdir -p /run/hardened && mount -t tmpfs -o size={kilobytes}k,mode=700 small /run/hardened && exec \"$0\" \"$@\""
        );
        let direct = Direct::start_under(c, SHIM, &config(c)?, &["unshare", "--mount", "sh", "-c", &small])?;
        let id = direct.id().to_owned();
        match direct.create_and_start(None) {
            Ok(_) => direct.end()?,
            Err(error) => {
                refused += 1;
                ensure!(format!("{error:#}").contains("No space left on device"), "{kilobytes} kB: {error:#}");
                direct.give_up()?;
            }
        }
        c.nothing_left(&id).with_context(|| format!("{kilobytes} kB"))?;
    }
    ensure!(refused > 0 && refused < 12, "{refused} of 12 refused");
    Ok(())
}

fn a_bundle_may_vanish_once_the_container_is_made(c: &Containerd) -> Result<()> {
    let direct = Direct::start(c, SHIM, &config(c)?)?;
    let id = direct.id().to_owned();
    fs::remove_file(direct.bundle().join("config.json"))?;
    let error = direct.create(None).err().context("made without a config.json")?;
    ensure!(format!("{error:#}").contains("config.json: No such file"), "{error:#}");
    direct.give_up()?;
    c.nothing_left(&id)?;

    let direct = Direct::start(c, SHIM, &config(c)?)?;
    let id = direct.id().to_owned();
    direct.create_and_start(None)?;
    fs::remove_dir_all(direct.bundle())?;
    direct.end()?;
    c.nothing_left(&id)
}

/// libcontainer's clone deadlocks in a process with threads.
fn neither_the_shim_nor_a_launcher_has_a_second_thread(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let done = AtomicBool::new(false);
    let (mut shims, mut launchers) = (0, 0);
    std::thread::scope(|scope| -> Result<()> {
        let execs = scope.spawn(|| {
            let results: Result<Vec<_>> = (0..10).map(|_| running.exec(&["true"])?.ok()).collect();
            done.store(true, Ordering::Relaxed);
            results
        });
        while !done.load(Ordering::Relaxed) {
            for (pid, line) in processes()? {
                let launcher = line.contains(&format!(" launch {}/{}/", c.namespace(), running.id()));
                let shim = line.contains(SHIM) && line.contains(&format!("-id {} ", running.id()));
                if !launcher && !shim {
                    continue;
                }
                // Gone already, or seen whole.
                let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let Some(threads) = status.lines().find_map(|l| l.strip_prefix("Threads:")) else { continue };
                match threads.trim() {
                    "1" => {}
                    // It ended between the two looks, and is about to be waited for.
                    "0" => continue,
                    more => bail!("{line} has {more} threads"),
                }
                *if launcher { &mut launchers } else { &mut shims } += 1;
            }
        }
        execs.join().ok().context("the execs panicked")??;
        Ok(())
    })?;
    ensure!(shims > 0 && launchers > 0, "{shims} looks at the shim, {launchers} at launchers");
    running.remove()
}

fn exchange(a: &Path, b: &Path) -> Result<()> {
    let (a, b) = (CString::new(a.as_os_str().as_bytes())?, CString::new(b.as_os_str().as_bytes())?);
    let here = libc::AT_FDCWD;
    // SAFETY: both are paths that end in NUL. (musl has no function for it.)
    let result =
        unsafe { libc::syscall(libc::SYS_renameat2, here, a.as_ptr(), here, b.as_ptr(), libc::RENAME_EXCHANGE) };
    ensure!(result == 0, "renameat2: {}", std::io::Error::last_os_error());
    Ok(())
}

/// CVE-2025-31133, CVE-2025-52565, CVE-2025-52881, CVE-2021-30465: somebody who shares the
/// container's files swaps a folder for a symbolic link while the runtime mounts and masks.
fn masks_hold_while_the_image_is_being_swapped(c: &Containerd) -> Result<()> {
    let host = || fs::read_to_string("/proc/sys/kernel/core_pattern");
    let before = host()?;
    let (mut started, mut swaps) = (0, 0);
    for (name, target) in [("dev", "/proc"), ("proc", "/tmp"), ("sys", "/proc/sys"), ("dev/shm", "/proc/sys/kernel")] {
        let root = crate::sandbox::small_image(c)?;
        fs::create_dir_all(root.join(name))?;
        let (real, link) = (root.join(name), root.join("swapped"));
        std::os::unix::fs::symlink(target, &link)?;
        let (ran, swapped) = while_swapped(&real, &link, || {
            let mut started = 0;
            for _ in 0..12 {
                let out = crate::refusals::spec(c, |s| {
                    s["root"] = json!({"path": root});
                    s["process"]["args"] = json!(["/bin/hardened-probe"]);
                })?
                .run()?;
                // Not to start is as good.
                if out.status == 0 {
                    started += 1;
                    // Names outside of /proc and /sys mean something else here from one moment to
                    // the next.
                    let mut wrong = crate::sandbox::allowed(&out.ok()?.text())?;
                    wrong.retain(|name, _| {
                        ["/proc", "/sys", "core_pattern", "modprobe", "memfd_noexec", "sysrq", "uevent"]
                            .iter()
                            .any(|n| name.contains(n))
                    });
                    ensure!(wrong.is_empty(), "/{name} <-> {target}: {wrong:?}");
                }
            }
            Ok(started)
        })?;
        (started, swaps) = (started + ran, swaps + swapped);
        fs::remove_dir_all(&root)?;
    }
    ensure!(started > 0 && swaps > 100, "{started} of 48 started, {swaps} swaps");
    ensure!(host()? == before, "the host's core_pattern changed");
    Ok(())
}

/// Does something while two names keep changing places, and counts how often they did.
fn while_swapped<T>(one: &Path, other: &Path, act: impl FnOnce() -> Result<T>) -> Result<(T, u32)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| -> Result<u32> {
            let mut swaps = 0;
            while !done.load(Ordering::Relaxed) {
                exchange(one, other)?;
                swaps += 1;
                std::thread::sleep(Duration::from_micros(300));
            }
            Ok(swaps)
        });
        let acted = act();
        done.store(true, Ordering::Relaxed);
        let swaps = swapper.join().ok().context("the swapper panicked")??;
        Ok((acted?, swaps))
    })
}

/// CVE-2021-25741, and the like: somebody who may write beside a volume swaps it for a link to the
/// node's files, after it was judged and before it is mounted.
fn a_volume_is_the_one_that_was_judged(c: &Containerd) -> Result<()> {
    let folder = c.volume()?;
    let (real, link) = (folder.join("data"), folder.join("link"));
    fs::create_dir(&real)?;
    fs::write(real.join("own"), "")?;
    std::os::unix::fs::symlink("/etc", &link)?;
    let mount = format!("type=bind,src={},dst=/v,options=rbind:ro", real.display());
    let ((started, refused), swaps) = while_swapped(&real, &link, || {
        let (mut started, mut refused) = (0, 0);
        // On a machine that is busy, most are swapped between two looks: one is to start, too.
        while started + refused < 30 || (started == 0 && refused < 300) {
            let out = c.run(&["--mount", &mount], &["sh", "-c", "ls /v"])?;
            ensure!(!out.text().contains("passwd"), "the host's /etc was mounted, after {started} and {refused}");
            if out.status == 0 { started += 1 } else { refused += 1 }
        }
        Ok((started, refused))
    })?;
    ensure!(started > 0 && refused > 0 && swaps > 100, "{started} started, {refused} refused, {swaps} swaps");
    Ok(())
}

/// Root of a container may stop what joins its pid namespace, at any moment: an exec that is stopped before it executes
/// fails, one that is stopped later can be killed, and the container goes with all of them.
fn a_container_that_stops_its_execs_holds_nobody_up(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sh", "-c", "while :; do kill -STOP -1; done 2>/dev/null"])?;
    let ids: Vec<String> = (0..4).map(|_| c.id("exec")).collect();
    let outs: Vec<Result<Output>> = std::thread::scope(|scope| {
        let exec = |id| c.ctr(&["tasks", "exec", "--exec-id", id, running.id(), "true"]);
        let execs: Vec<_> = ids.iter().map(|id| scope.spawn(move || exec(id))).collect();
        std::thread::sleep(Duration::from_secs(70));
        for id in &ids {
            // Gone already, where its start failed.
            drop(c.ctr(&["tasks", "kill", "--signal", "SIGKILL", "--exec-id", id, running.id()]));
        }
        execs.into_iter().map(|exec| exec.join().unwrap_or_else(|_| bail!("an exec panicked"))).collect()
    });
    let outs = outs.into_iter().collect::<Result<Vec<_>>>().context("an exec did not end")?;
    let late = |out: &&Output| out.stderr.contains("within 60 seconds");
    ensure!(outs.iter().any(|out| late(&out)), "none was stopped before it executed: {outs:?}");
    running.remove()
}
