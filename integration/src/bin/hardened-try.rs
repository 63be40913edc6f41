//! Shows a person what the sandbox does, on a private containerd: `scripts/try` runs it.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};
use hardened_integration::cri::{Cri, container_config};
use hardened_integration::{Containerd, Generation, HARDENED, IMAGE, RUNC, repository};

/// Attacks that are shown side by side, and what denies them under hardened.
const ATTACKS: &[(&str, &str)] = &[
    ("unshare CLONE_NEWUSER", "seccomp"),
    ("clone3", "seccomp: ENOSYS, libc falls back"),
    ("io_uring_setup", "seccomp"),
    ("ptrace own child", "seccomp"),
    ("bpf", "seccomp"),
    ("keyctl", "seccomp"),
    ("mount tmpfs", "seccomp"),
    ("socket AF_PACKET", "seccomp: no such family"),
    ("raw IP socket", "capabilities"),
    ("ioctl TIOCSTI with a dirty upper half", "seccomp"),
    ("i386 system call", "seccomp: killed"),
    ("write to a program", "read-only mounts"),
    ("write to /usr through the image's own symlink", "Landlock"),
    ("make the device node of the first disk", "capabilities and Landlock"),
    ("execute from a memfd", "vm.memfd_noexec"),
    ("read /proc/interrupts", "mask"),
];

fn paint(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn title(text: &str) {
    println!("\n{}", paint("1;36", text));
}

fn command(text: &str) {
    println!("{}", paint("2", &format!("$ {text}")));
}

fn main() -> Result<()> {
    title("A private containerd, with a busybox image made from Debian's package");
    let c = Containerd::start(Generation::Two)?;
    println!("{}", c.ctr(&["version"])?.ok()?.text().lines().take(3).collect::<Vec<_>>().join("\n"));

    title("What a program finds when it looks at itself");
    let show = "grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; \
                touch /usr/bin/x 2>&1 || true; echo vm.memfd_noexec: $(cat /proc/sys/vm/memfd_noexec)";
    command(&format!("ctr run --rm --runtime {HARDENED} {IMAGE} demo sh -c '...'"));
    println!("{}", c.run(&[], &["sh", "-c", show])?.ok()?.text());

    title(
        "The same attacks, by root in the container, under runc (with its default seccomp profile) and under hardened",
    );
    let names: Vec<&str> = ATTACKS.iter().map(|(name, _)| *name).collect();
    let program = [&["hardened-probe"], names.as_slice()].concat();
    let runc = verdicts(&c.run_under(RUNC, &["--seccomp"], &program, b"")?.ok()?.text())?;
    let hardened = verdicts(&c.run(&[], &program)?.ok()?.text())?;
    println!("  {:46} {:10} {:10} denied by", "attack", "runc", "hardened");
    let cell = |verdict: Option<&String>| {
        let verdict = verdict.map_or("-", String::as_str);
        paint(if verdict == "allowed" { "1;31" } else { "32" }, &format!("{verdict:10}"))
    };
    for (name, by) in ATTACKS {
        println!("  {name:46} {} {} {}", cell(runc.get(*name)), cell(hardened.get(*name)), paint("2", by));
    }

    title("kubectl exec and probes come through the same door");
    let running = c.start_container(&[], &["sleep", "1000"])?;
    command("ctr tasks exec demo sh -c 'grep Seccomp: /proc/self/status; unshare -U true; cat /proc/1/environ'");
    let exec = running
        .exec(&["sh", "-c", "grep Seccomp: /proc/self/status; unshare -U true; cat /proc/1/environ; true"])?
        .ok()?;
    print!("{}\n{}", exec.text(), exec.stderr);
    running.remove()?;

    title("A privileged container is refused, with every reason at once");
    let id = c.id("privileged");
    command(&format!("ctr run --privileged --runtime {HARDENED} {IMAGE} demo true"));
    let refused = c.ctr(&["run", "--rm", "--privileged", "--runtime", HARDENED, IMAGE, &id, "true"])?;
    for line in violations(refused.stderr.trim_end()) {
        println!("{}", paint("33", &line));
    }

    pod()?;

    let shim = std::env::var("HARDENED_SHIM").context("HARDENED_SHIM")?;
    title("Gone again: containerd, its containers and its files. To use it on a node of yours:");
    println!("  install -m 755 {shim} /usr/local/bin/");
    println!("  ctr run --rm --runtime {HARDENED} IMAGE NAME");
    println!(
        "  whole table of verdicts: {}",
        repository().join("target/integration/verdicts-containerd-2.tsv").display()
    );
    println!("  (written by scripts/test)");
    std::io::stdout().flush()?;
    Ok(())
}

/// A pod through containerd's CRI, under a policy of the node.
fn pod() -> Result<()> {
    const POLICY: &str = "[profile.web]\nextends = \"restricted\"\n[profile.web.network]\nbind-tcp = [8080]\n\
                          [profile.web.exec]\nhidden = [\"/var/run/secrets\"]\n\n\
                          [[rule]]\nnamespace = \"shop\"\nprofile = \"web\"\n";
    title("A pod, as the kubelet makes it, under this policy of the node");
    print!("{}", paint("2", POLICY));
    let cri = Cri::start(Generation::Two)?;
    cri.set_policy(POLICY)?;
    let pod = cri.pod("web")?;
    let secrets = cri.containerd().home().join("kubelet/pods");
    let secrets = secrets
        .join(&pod.config().metadata.as_ref().context("metadata")?.uid)
        .join("volumes/kubernetes.io~projected/token");
    std::fs::create_dir_all(&secrets)?;
    std::fs::write(secrets.join("token"), "s3cr3t")?;
    let program = "echo the entrypoint reads $(cat /var/run/secrets/token); nc -l -p 9090 -w 1; nc -l -p 8080";
    let mut config = container_config("web", &["sh", "-c", program]);
    config.mounts.push(k8s_cri::v1::Mount {
        container_path: "/var/run/secrets".to_owned(),
        host_path: secrets.display().to_string(),
        readonly: true,
        ..Default::default()
    });
    let web = pod.run(config)?;
    hardened_integration::eventually("it has tried port 9090", || pod.log("web").is_ok_and(|l| l.contains("nc:")))?;
    println!("{}", pod.log("web")?);
    command("kubectl exec web -- cat /var/run/secrets/token");
    let out = pod.exec(&web, &["cat", "/var/run/secrets/token"])?;
    print!("{}", String::from_utf8_lossy(&out.stderr));

    title("A denial explains itself");
    command("kubectl exec web -- unshare -U true");
    let out = pod.exec(&web, &["unshare", "-U", "true"])?;
    print!("{}", String::from_utf8_lossy(&out.stderr));
    let name = &pod.config().metadata.as_ref().context("metadata")?.name;
    command(&format!("hardenctl why {name}"));
    println!("{}", hardened_integration::hardenctl(&["why", name])?.ok()?.text());
    command(&format!("hardenctl why {name} --write /usr/bin/x --listen 9090"));
    // It answers with 1 where something is denied.
    println!(
        "{}",
        hardened_integration::hardenctl(&["why", name, "--write", "/usr/bin/x", "--listen", "9090"])?.text()
    );
    pod.remove()?;

    title("A pod that asks for the host, in its own words");
    let mut config = cri.pod_config("greedy");
    let context = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    context.namespace_options.get_or_insert_default().network = k8s_cri::v1::NamespaceMode::Node.into();
    match cri.run_pod(config) {
        Ok(_) => anyhow::bail!("a pod on the host's network was started"),
        Err(error) => violations(&format!("{error:#}")).iter().for_each(|line| println!("{}", paint("33", line))),
    }
    Ok(())
}

/// A refusal, one violation a line.
fn violations(message: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in message.split(' ') {
        let number = word.strip_prefix('(').and_then(|w| w.strip_suffix(')')).is_some_and(|w| w.parse::<u32>().is_ok());
        if number {
            lines.push("  ".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(word);
            line.push(' ');
        }
    }
    lines
}

/// Verdicts by name.
fn verdicts(text: &str) -> Result<BTreeMap<String, String>> {
    text.lines()
        .map(|line| {
            let one: serde_json::Value = serde_json::from_str(line)?;
            let field = |name: &str| one[name].as_str().map(str::to_owned).context("field");
            Ok((field("try")?, field("verdict")?))
        })
        .collect()
}
