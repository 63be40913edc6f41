//! A kernel without Landlock, or with too old a one: `scripts/guest -a lsm=capability` boots one
//! that has none.

use anyhow::{Context, Result, ensure};
use hardened_integration::{Containerd, eventually, hardenctl};

use crate::policy::policy;

crate::tests!(
    containers_are_refused,
    best_effort_starts_them_and_says_what_they_lack,
    best_effort_keeps_what_the_policy_promises,
);

fn containers_are_refused(c: &Containerd) -> Result<()> {
    let out = c.run(&[], &["true"])?;
    ensure!(
        out.status != 0 && out.stderr.contains("the kernel offers Landlock ABI 0; at least 2 is needed"),
        "{out:?}"
    );
    let out = hardenctl(&["doctor"])?;
    ensure!(out.status == 1 && out.text().contains("missing  Landlock"), "{out:?}");
    Ok(())
}

fn best_effort_starts_them_and_says_what_they_lack(c: &Containerd) -> Result<()> {
    let folder = policy(c, "landlock = \"best-effort\"\n")?;
    let events = crate::task::Events::follow(c)?;
    let running = folder.start(&[], &["sleep", "1000"])?;
    // The other layers are there.
    let out = running.exec(&["sh", "-c", "grep -E '^(Seccomp:|NoNewPrivs:)' /proc/self/status; ! unshare -U true"])?;
    ensure!(out.status == 0 && out.text().contains("Seccomp:\t2") && out.text().contains("NoNewPrivs:\t1"), "{out:?}");
    ensure!(running.exec(&["touch", "/usr/bin/x"])?.status != 0, "a system folder was changed");
    let lost = "device ioctls are not restricted";
    let id = format!("\"id\":\"{}\"", running.id());
    eventually("the event is sent", || {
        events.text().lines().any(|l| l.contains("/hardened/landlock-reduced") && l.contains(&id) && l.contains(lost))
    })?;
    let told = hardenctl(&["explain", "--container", running.id()])?.ok()?.text();
    // Lines are as long as a page is wide.
    ensure!(told.split_whitespace().collect::<Vec<_>>().join(" ").contains(lost), "{told}");
    running.remove()?;
    let path = folder.path().to_str().context("a path")?;
    let out = hardenctl(&["doctor", "--policy", path])?;
    ensure!(out.text().contains("reduced  Landlock") && out.text().contains(lost), "{out:?}");
    Ok(())
}

fn best_effort_keeps_what_the_policy_promises(c: &Containerd) -> Result<()> {
    let folder = policy(c, "landlock = \"best-effort\"\ndefault = \"x\"\n[profile.x]\nexec.hidden = [\"/etc\"]\n")?;
    let out = folder.run(&[], &["true"])?;
    ensure!(out.status != 0 && out.stderr.contains("no Landlock, which alone can enforce exec.hidden"), "{out:?}");
    Ok(())
}
