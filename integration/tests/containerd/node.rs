//! `hardenctl`, against the real thing: what it says of pods, and what it does to a node.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hardened_integration::cri::Cri;
use hardened_integration::{Generation, Output, RUNC, hardenctl_path, kubelet, repository, run};
use serde_json::Value;

crate::pod_tests!(
    hardenctl_and_the_node_agree_on_every_manifest,
    the_runtime_is_installed_and_taken_off_again,
    another_handler_is_installed_and_taken_off_again,
    the_agents_unit_is_installed_and_taken_off_again,
    an_install_that_containerd_does_not_survive_is_taken_back,
    what_a_person_has_edited_stays,
    a_configuration_that_is_broken_is_not_touched,
    the_installers_image_installs,
);

fn manifests(name: &str) -> PathBuf {
    repository().join("integration/manifests").join(name)
}

/// Offline and online, container by container: the same verdict, for the same fields.
fn hardenctl_and_the_node_agree_on_every_manifest(c: &Cri) -> Result<()> {
    let mut judged = 0;
    for file in ["good.yaml", "tightened.yaml", "hostile.yaml"] {
        let path = manifests(file);
        let mut check = Command::new(hardenctl_path()?);
        let out = run(
            check.args(["check", "--json", "--policy"]).args([&repository().join("configs/policy.toml"), &path]),
            b"",
            Duration::from_secs(30),
        )?;
        let reports: Vec<Value> = serde_json::from_slice(&out.stdout).with_context(|| format!("{out:?}"))?;
        let text = std::fs::read_to_string(&path)?;
        let pods = text.split("---\n").skip(1).map(serde_yaml_ng::from_str::<Value>);
        for (pod, report) in pods.zip(&reports) {
            let pod = pod?;
            let name = pod["metadata"]["name"].as_str().context("a name")?.to_owned();
            judged += agree(c, &pod, report).with_context(|| format!("{file}: {name}"))?;
        }
    }
    ensure!(judged > 100, "{judged} containers");
    Ok(())
}

fn agree(c: &Cri, pod: &Value, report: &Value) -> Result<usize> {
    let offline = report["containers"].as_array().context("containers")?;
    let (sandbox, containers, _subpaths) = kubelet::configurations(c, pod)?;
    let made = c.run_pod(sandbox);
    compare(&offline[0], made.as_ref().err())?;
    let Ok(made) = made else { return Ok(1) };
    for (config, offline) in containers.into_iter().zip(&offline[1..]) {
        // Some of it containerd refuses itself, before the shim is asked.
        let started = made.create(config).and_then(|id| made.start(&id));
        compare(offline, started.err().as_ref())?;
    }
    made.remove()?;
    Ok(offline.len())
}

fn compare(offline: &Value, online: Option<&anyhow::Error>) -> Result<()> {
    let name = offline["name"].as_str().unwrap_or_default();
    match (offline["admitted"].as_bool(), online) {
        (Some(true), None) => Ok(()),
        // Offline, a current kernel is assumed.
        (Some(true), Some(error)) if format!("{error:#}").contains("the kernel offers Landlock ABI") => Ok(()),
        (Some(true), Some(error)) => Err(anyhow::anyhow!("{name}: admitted offline, and online: {error:#}")),
        (_, None) => Err(anyhow::anyhow!("{name}: started, and refused offline: {offline}")),
        (_, Some(error)) => {
            let error = format!("{error:#}");
            // containerd answers that itself.
            if ["is not a shared mount", "cannot be mapped to a host ID"].iter().any(|known| error.contains(known)) {
                return Ok(());
            }
            for violation in offline["violations"].as_array().context("violations")? {
                let field = violation["field"].as_str().unwrap_or_default();
                // The node does not see in which list a container stands.
                let field = field.replace("spec.initContainers[", "spec.containers[");
                ensure!(error.contains(&field), "{name}: {field} is not in: {error}");
            }
            Ok(())
        }
    }
}

/// Runs a script on this machine with private copies of `/etc`, `/usr` and `/var`. In it: `$H` is
/// hardenctl, `$SHIM` the binary, `$C` containerd, `$REPOSITORY` this one.
fn on_a_node(c: &Cri, script: &str) -> Result<Output> {
    let layers = c.containerd().home().join(c.containerd().id("layers"));
    std::fs::create_dir_all(&layers)?;
    let setup = "set -e; mount -t tmpfs t $LAYERS; for d in etc usr var; do mkdir -p $LAYERS/$d/u $LAYERS/$d/w; \
                 mount -t overlay -o lowerdir=/$d,upperdir=$LAYERS/$d/u,workdir=$LAYERS/$d/w o /$d; done; \
                 rm -rf /etc/containerd /etc/hardened /var/lib/hardened; ";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "bash", "-c", &format!("{setup}{script}")])
        .env("LAYERS", &layers)
        .env("H", hardenctl_path()?)
        .env("REPOSITORY", repository())
        .env("SHIM", std::env::var_os("HARDENED_SHIM").unwrap_or_default())
        .env("C", c.containerd().home().join("bin/containerd"));
    run(&mut command, b"", Duration::from_secs(60))
}

fn the_runtime_is_installed_and_taken_off_again(c: &Cri) -> Result<()> {
    let script = "! $H status; $H install --shim $SHIM --containerd $C; $H status; \
                  $C -c /etc/containerd/config.toml config dump | grep -c 'runtime_type.*hardened'; \
                  cmp $SHIM /usr/local/bin/containerd-shim-hardened-v1; containerd-shim-hardened-v1 -v; \
                  cmp $H /usr/local/bin/hardenctl; $H install --shim $SHIM --containerd $C --json | grep -c unchanged; \
                  PATH=$(dirname $C):$PATH $H doctor; \
                  $H uninstall --containerd $C; ! $H status; ! ls /usr/local/bin/containerd-shim-hardened-v1; \
                  ! ls /usr/local/bin/hardenctl; ! grep -r hardened /etc/containerd; echo done";
    let out = on_a_node(c, script)?.ok()?;
    let text = out.text();
    ensure!(text.ends_with("done") && text.contains("Containers can start on this node."), "{text}");
    Ok(())
}

fn another_handler_is_installed_and_taken_off_again(c: &Cri) -> Result<()> {
    let script = "$H install --shim $SHIM --containerd $C --handler strict; $H status; \
                  readlink /usr/local/bin/containerd-shim-strict-v1; \
                  $C -c /etc/containerd/config.toml config dump | grep -o 'io.containerd.[a-z]*.v1.$'; \
                  printf '[[rule]]\nhandler = [\"strict\", \"lost\"]\nprofile = \"restricted\"\n' >> /etc/hardened/policy.toml; \
                  PATH=$(dirname $C):$PATH $H doctor | grep -c 'never matches' || true; \
                  $H policy explain --handler strict; \
                  if $H install --shim $SHIM --containerd $C --handler runc; then exit 9; fi; \
                  touch /usr/local/bin/containerd-shim-mine-v1; \
                  if $H install --shim $SHIM --containerd $C --handler mine; then exit 9; fi; \
                  rm /usr/local/bin/containerd-shim-strict-v1; ! $H status; \
                  PATH=$(dirname $C):$PATH $H doctor | grep 'never matches'; \
                  $H install --shim $SHIM --containerd $C --json; $H status; \
                  $H uninstall --containerd $C; ! grep -rE 'hardened|strict' /etc/containerd; ls /usr/local/bin";
    let out = on_a_node(c, script)?.ok()?;
    let text = out.text();
    for words in [
        "/usr/local/bin/containerd-shim-strict-v1\n",
        "io.containerd.strict.v1",
        "profile restricted",
        "it never matches: no shim for that handler",
    ] {
        ensure!(text.contains(words), "{words} is not in {text}");
    }
    ensure!(out.stderr.contains("containerd would lose or change"), "{out:?}");
    ensure!(out.stderr.contains("containerd-shim-mine-v1 exists already and was not installed by hardened"), "{out:?}");
    ensure!(!text.ends_with("strict-v1") && !text.contains("containerd-shim-runc-v1"), "{text}");
    Ok(())
}

/// Whether this machine runs systemd or not, its own is not asked: what would be is noted down.
fn the_agents_unit_is_installed_and_taken_off_again(c: &Cri) -> Result<()> {
    let script = "rm -f /usr/bin/systemctl; printf '#!/bin/sh\\necho \"$@\" >> /etc/asked\\n' > /usr/bin/systemctl; \
                  chmod 755 /usr/bin/systemctl; \
                  U=/etc/systemd/system/hardened-agent.service; I=\"$H install --shim $SHIM --containerd $C\"; \
                  $I; if ls $U || $H status | grep agent; then exit 9; fi; \
                  $I --agent; cmp $U $REPOSITORY/configs/hardened-agent.service; $H status | grep agent; \
                  test \"$($I | grep -c restart)\" = 0; \
                  $I --bin-dir /usr/local/lib; grep ExecStart $U; $I; \
                  echo '# mine' >> $U; $I | grep kept; sed -i '$d' $U; rm $U; if $H status; then exit 9; fi; $I; \
                  if ls /etc/asked; then exit 9; fi; \
                  $H uninstall --containerd $C; if ls $U; then exit 9; fi; echo done";
    let out = on_a_node(c, script)?.ok()?;
    let text = out.text();
    for words in [
        "installed   /etc/systemd/system/hardened-agent.service\n",
        "next: systemctl enable hardened-agent.service && systemctl restart hardened-agent.service\n",
        "installed  agent       /etc/systemd/system/hardened-agent.service",
        "ExecStart=/usr/local/lib/hardenctl agent\n",
        "kept        /etc/systemd/system/hardened-agent.service",
        "removed     /etc/systemd/system/hardened-agent.service",
    ] {
        ensure!(text.contains(words), "{words} is not in {text}");
    }
    ensure!(text.ends_with("done"), "{text}");
    Ok(())
}

fn an_install_that_containerd_does_not_survive_is_taken_back(c: &Cri) -> Result<()> {
    // It comes up only as it was before.
    let script = "mkdir /etc/containerd; echo 'version = 2' > /etc/containerd/config.toml; \
                  if $H install --shim $SHIM --containerd $C --restart --address $(dirname $C)/../c.sock \
                  --restart-command '! grep -rq hardened /etc/containerd'; then exit 9; fi; \
                  cat /etc/containerd/config.toml; ls /etc/hardened /var/lib/hardened /usr/local/bin/containerd-shim-hardened-v1 || true";
    let out = on_a_node(c, script)?.ok()?;
    ensure!(out.stderr.contains("all changes were undone"), "{out:?}");
    ensure!(out.text().starts_with("version = 2") && !out.text().contains("policy.toml"), "{out:?}");
    ensure!(out.stderr.contains("cannot access '/usr/local/bin/containerd-shim-hardened-v1'"), "{out:?}");
    // And it is kept where containerd comes up.
    let script = "$H install --shim $SHIM --containerd $C --restart --restart-command true --address $(dirname $C)/../c.sock && $H status";
    on_a_node(c, script)?.ok()?;
    Ok(())
}

fn what_a_person_has_edited_stays(c: &Cri) -> Result<()> {
    let plugin = match c.containerd().generation() {
        Generation::Two => "version = 3\\n[plugins.'io.containerd.cri.v1.runtime'.containerd]",
        Generation::One => "version = 2\\n[plugins.'io.containerd.grpc.v1.cri'.containerd]",
    };
    let script = format!(
        "mkdir -p /etc/containerd /etc/hardened; echo '# my policy' > /etc/hardened/policy.toml; \
         printf \"# mine\\n{plugin}\\ndefault_runtime_name = 'kata' # my choice\\n{}.runtimes.kata]\\nruntime_type = 'io.containerd.kata.v2'\\n\" > /etc/containerd/config.toml; \
         cp /etc/containerd/config.toml $LAYERS/before; \
         $H install --shim $SHIM --containerd $C; \
         $C -c /etc/containerd/config.toml config dump | grep -E 'kata|hardened.v1'; \
         grep -c 'my choice' /etc/containerd/config.toml; cat /etc/hardened/policy.toml; \
         $H uninstall --containerd $C; cmp $LAYERS/before /etc/containerd/config.toml; cat /etc/hardened/policy.toml",
        plugin.split("\\n").nth(1).unwrap_or_default().trim_end_matches(']'),
    );
    let out = on_a_node(c, &script)?.ok()?;
    ensure!(out.text().contains("io.containerd.kata.v2") && out.text().matches("# my policy").count() == 2, "{out:?}");
    Ok(())
}

fn a_configuration_that_is_broken_is_not_touched(c: &Cri) -> Result<()> {
    for (text, words) in [
        ("version = [", "containerd's configuration as it is"),
        ("version = 1\n", "expected 2 or 3"),
        ("version = 2\nplugins = 7\n", ""),
    ] {
        let script = format!(
            "mkdir -p /etc/containerd; printf '{text}' > /etc/containerd/config.toml; \
             if $H install --shim $SHIM --containerd $C; then exit 9; fi; cat /etc/containerd/config.toml; \
             ls /etc/hardened/policy.toml /usr/local/bin/containerd-shim-hardened-v1 2>/dev/null || echo nothing"
        );
        let out = on_a_node(c, &script)?.ok()?;
        ensure!(out.text().ends_with("nothing") && out.stderr.contains(words), "{text}: {out:?}");
    }
    Ok(())
}

/// The DaemonSet's own command in its own image, on a node that is a Debian in a folder. What
/// restarts containerd there is noted down; containerd's socket is the test's.
fn the_installers_image_installs(c: &Cri) -> Result<()> {
    let c = c.containerd();
    let node = c.root().join(c.id("node"));
    let at = |path: &str| node.join(path);
    run(
        Command::new("cp").arg("-a").arg(repository().join(".cache/releases/trixie")).arg(&node),
        b"",
        Duration::from_secs(60),
    )?
    .ok()?;
    std::fs::copy(std::fs::canonicalize(c.home().join("bin/containerd"))?, at("usr/bin/containerd"))?;
    std::fs::write(at("usr/bin/systemctl"), "#!/bin/sh\necho \"$@\" >> /asked\n")?;
    std::fs::set_permissions(at("usr/bin/systemctl"), std::fs::Permissions::from_mode(0o755))?;
    c.load(&repository().join("target/integration/installer.tar"))?;
    let daemon_set = std::fs::read_to_string(repository().join("runtimeclass/installer/daemonset.yaml"))?;
    let daemon_set: Value = serde_yaml_ng::from_str(daemon_set.split("---\n").nth(1).context("a DaemonSet")?)?;
    let install = &daemon_set["spec"]["template"]["spec"]["initContainers"][0];
    let command: Vec<&str> = install["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let socket = c.home().join("c.sock");
    let host = format!("type=bind,src={},dst=/host,options=rbind:rw", node.display());
    std::fs::create_dir_all(at("run/containerd"))?;
    std::fs::write(at("run/containerd/containerd.sock"), "")?;
    let socket = format!("type=bind,src={},dst=/host/run/containerd/containerd.sock,options=bind:rw", socket.display());
    let image = format!("docker.io/{}", install["image"].as_str().context("an image")?);
    let in_image = |command: &[&str]| -> Result<Output> {
        let options = ["run", "--rm", "--privileged", "--runtime", RUNC, "--mount", &host, "--mount", &socket, &image];
        c.ctr(&[&options[..], &[&c.id("installer")], command].concat())
    };
    in_image(&command)?.ok()?;
    let built = std::env::var_os("HARDENED_SHIM").context("HARDENED_SHIM: run scripts/test, which sets it")?;
    ensure!(std::fs::read(built)? == std::fs::read(at("usr/local/bin/containerd-shim-hardened-v1"))?);
    ensure!(std::fs::read_to_string(at("asked"))? == "restart containerd\n");
    in_image(&["hardenctl", "status", "--root", "/host"])?.ok()?;
    // A second one changes nothing, and restarts nothing.
    in_image(&command)?.ok()?;
    ensure!(std::fs::read_to_string(at("asked"))? == "restart containerd\n");
    // Nor does the agent's unit; its service is stopped when the unit goes.
    in_image(&[&command[..], &["--agent"]].concat())?.ok()?;
    let unit = at("etc/systemd/system/hardened-agent.service");
    ensure!(std::fs::read(&unit)? == std::fs::read(repository().join("configs/hardened-agent.service"))?);
    ensure!(std::fs::read_to_string(at("asked"))? == "restart containerd\n");
    std::fs::create_dir_all(at("run/systemd/system"))?;
    in_image(&["hardenctl", "uninstall", "--root", "/host"])?.ok()?;
    ensure!(std::fs::read_to_string(at("asked"))? == "restart containerd\ndisable --now hardened-agent.service\n");
    ensure!(!unit.exists());
    Ok(())
}
