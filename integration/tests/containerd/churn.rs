//! Many containers, one after the other: nothing is left, and the shim does not grow.

use std::fs;

use anyhow::{Context, Result, ensure};
use hardened_integration::{Containerd, eventually};

crate::tests!(two_hundred_cycles_leave_nothing, a_shim_does_not_grow_with_execs);

/// Mounts of one containerd; other tests make and remove theirs meanwhile.
fn mounts(c: &Containerd) -> Result<usize> {
    let home = c.home().display().to_string();
    Ok(fs::read_to_string("/proc/self/mounts")?
        .lines()
        .filter(|l| l.contains(&home) || l.contains("/run/hardened/"))
        .count())
}

fn two_hundred_cycles_leave_nothing(c: &Containerd) -> Result<()> {
    let own = Containerd::start_beside(c)?;
    let before = mounts(&own)?;
    for n in 0..200 {
        let running = own.start_container(&[], &["sleep", "1000"])?;
        if n % 4 == 0 {
            running.exec(&["true"])?.ok()?;
        }
        if n % 10 == 3 {
            // Killed at some point of an exec.
            let shim = own.shims()?.into_keys().next().context("no shim")?;
            let mut exec = own.command(&["tasks", "exec", "--exec-id", "x", running.id(), "sleep", "5"]).spawn()?;
            std::thread::sleep(std::time::Duration::from_millis(n % 30));
            // SAFETY: takes numbers only; the pid is of a shim of this test's own containerd.
            unsafe { libc::kill(shim, libc::SIGKILL) };
            exec.wait()?;
        }
        running.remove()?;
    }
    eventually("no shim is left", || own.shims().is_ok_and(|s| s.is_empty()))?;
    let run = std::path::Path::new("/run/hardened").join(own.namespace());
    ensure!(!run.exists(), "{} is left", run.display());
    eventually("no mount is left", || mounts(&own).is_ok_and(|now| now <= before))
}

fn a_shim_does_not_grow_with_execs(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let shim = running.shim()?;
    let measure = || -> Result<(u64, usize)> {
        let status = fs::read_to_string(format!("/proc/{shim}/status"))?;
        let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
        let rss = rss.split_whitespace().next().context("VmRSS")?.parse()?;
        Ok((rss, fs::read_dir(format!("/proc/{shim}/fd"))?.count()))
    };
    for _ in 0..20 {
        running.exec(&["true"])?.ok()?;
    }
    let (rss, descriptors) = measure()?;
    for _ in 0..80 {
        running.exec(&["true"])?.ok()?;
    }
    eventually("descriptors are closed", || measure().is_ok_and(|(_, d)| d <= descriptors))?;
    let (after, _) = measure()?;
    ensure!(after <= rss + 128, "{rss} kB grew to {after} kB");
    running.remove()
}
