//! When containerd, a shim or a launcher goes away.

use anyhow::{Context, Result, ensure};
use hardened_integration::direct::Direct;
use hardened_integration::{Containerd, eventually, parent, processes};

crate::tests!(
    a_shim_that_is_killed_is_cleaned_up,
    a_parked_init_ends_with_its_shim,
    a_launcher_that_is_killed_leaves_nothing,
    containers_of_one_pod_share_a_shim,
    // Last: it restarts the daemon that the others use. libtest-mimic may run them beside each
    // other, so this one takes a daemon of its own.
    a_restarted_containerd_finds_its_containers,
);

fn kill(pid: i32) {
    // SAFETY: takes numbers only; the pid is of a process of this test's container.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

fn a_shim_that_is_killed_is_cleaned_up(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sh", "-c", "sleep 1000 & sleep 1000"])?;
    c.ctr(&["tasks", "exec", "-d", "--exec-id", "e", running.id(), "sleep", "1000"])?.ok()?;
    let init = running.pid()?;
    let address = std::fs::read_to_string(c.bundle(running.id()).join("address"))?;
    let socket = std::path::PathBuf::from(address.trim_start_matches("unix://"));
    ensure!(socket.exists(), "{}", socket.display());
    let shim = running.shim()?;
    kill(shim);
    eventually("init is gone", || processes().is_ok_and(|all| !all.contains_key(&init)))?;
    let id = running.id().to_owned();
    drop(running);
    c.nothing_left(&id)?;
    eventually("its socket is gone", || !socket.exists())
}

/// With containerd down nobody else would end it.
fn a_parked_init_ends_with_its_shim(c: &Containerd) -> Result<()> {
    let shim = Direct::start(c, "containerd-shim-hardened-v1", &c.spec(&["/bin/sleep", "1000"])?)?;
    let id = shim.id().to_owned();
    shim.create(None)?;
    let init = i32::try_from(shim.pid()?)?;
    ensure!(processes()?.get(&init).is_some_and(|line| line.contains(" launch ")), "{:?}", processes()?.get(&init));
    // The launcher ends when it has answered, and leaves init to the shim.
    let of_shim =
        || parent(init).filter(|pid| processes().is_ok_and(|all| all.get(pid).is_some_and(|l| l.contains(" serve"))));
    eventually("init is the shim's child", || of_shim().is_some())?;
    kill(of_shim().context("no shim")?);
    eventually("init has ended", || processes().is_ok_and(|all| !all.contains_key(&init)))?;
    shim.abandon()?;
    c.nothing_left(&id)
}

fn a_launcher_that_is_killed_leaves_nothing(c: &Containerd) -> Result<()> {
    let mut hit = 0;
    for delay in 0..12u64 {
        let id = c.id("cut");
        let mut run = c.command(&[
            "run",
            "--rm",
            "--runtime",
            hardened_integration::HARDENED,
            hardened_integration::IMAGE,
            &id,
            "true",
        ]);
        let mut run = run.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()?;
        // As soon as there is a launcher of ours, after a little more each time.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        'wait: while std::time::Instant::now() < end && run.try_wait()?.is_none() {
            let shims = c.shims()?;
            for (pid, line) in processes()? {
                let ours = parent(pid).is_some_and(|p| shims.get(&p).is_some_and(|l| l.contains(&id)));
                if ours && line.contains(" launch ") {
                    std::thread::sleep(std::time::Duration::from_micros(delay * 400));
                    kill(pid);
                    hit += 1;
                    break 'wait;
                }
            }
        }
        run.wait()?;
        c.ctr(&["tasks", "delete", "-f", &id])?;
        c.ctr(&["containers", "delete", &id])?;
        c.nothing_left(&id)?;
    }
    ensure!(hit > 0, "no launcher was caught");
    Ok(())
}

fn containers_of_one_pod_share_a_shim(c: &Containerd) -> Result<()> {
    let pod = c.id("pod");
    let annotation = format!("io.kubernetes.cri.sandbox-id={pod}");
    let options = ["--annotation", annotation.as_str()];
    let first = c.start_container(&options, &["sleep", "1000"])?;
    let shims = c.shims()?.len();
    let second = c.start_container(&options, &["sleep", "1000"])?;
    let theirs: Vec<i32> =
        [&first, &second].iter().map(|r| parent(r.pid()?).context("parent")).collect::<Result<_>>()?;
    ensure!(theirs[0] == theirs[1], "two shims, {theirs:?}, of {shims}");
    let id = first.id().to_owned();
    drop(first);
    eventually("the first is gone", || c.bundle(&id).exists().eq(&false))?;
    ensure!(second.status()? == "RUNNING");
    second.exec(&["true"])?.ok()?;
    second.remove()
}

fn a_restarted_containerd_finds_its_containers(c: &Containerd) -> Result<()> {
    let own = Containerd::start_beside(c)?;
    let running = own.start_container(&[], &["sh", "-c", "while :; do echo tick; sleep 0.1; done"])?;
    let init = running.pid()?;
    own.shut_down()?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    own.boot()?;
    ensure!(running.status()? == "RUNNING" && running.pid()? == init, "{}", running.status()?);
    ensure!(running.exec(&["echo", "still here"])?.ok()?.text() == "still here");
    own.shut_down()?;
    // Ends while nobody listens.
    kill(init);
    std::thread::sleep(std::time::Duration::from_millis(300));
    own.boot()?;
    // containerd takes a shim without processes for one that leaked, and deletes it.
    eventually("it is not running", || running.status().is_ok_and(|s| s == "STOPPED" || s == "GONE"))?;
    running.remove()
}
