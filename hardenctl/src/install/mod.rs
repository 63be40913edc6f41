//! `hardenctl install`, `uninstall` and `status`: on a node and off it again.
//!
//! A change is prepared whole, checked by containerd itself, and taken back where containerd does
//! not take it. What a person has edited since is left alone.

mod containerd;
mod files;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use hardened_sandbox::handler_of;

use self::containerd::{Layout, on_node};
use self::files::{Applied, Record};
use crate::args::{HANDLER, directory, dns_label};
use crate::style::{BAD, DIM, GOOD, NOTE, PLAIN};

/// The policy that a node gets where it has none.
const POLICY: &str = include_str!("../../../configs/policy.toml");

/// AppArmor's profiles, for a node that runs it.
const APPARMOR: [(&str, &str); 2] = [
    ("/etc/apparmor.d/abstractions/hardened", include_str!("../../../configs/apparmor/abstractions/hardened")),
    ("/etc/apparmor.d/hardened", include_str!("../../../configs/apparmor/hardened")),
];

/// The agent's unit, and the content of it.
pub(crate) const AGENT_UNIT: &str = "hardened-agent.service";
const UNIT: &str = include_str!("../../../configs/hardened-agent.service");

/// Where systemd looks for units: ours, and a package's.
pub(crate) const UNIT_FOLDERS: [&str; 2] = ["/etc/systemd/system", "/usr/lib/systemd/system"];

/// Where programs are put.
const BIN: &str = "/usr/local/bin";

/// Where packages of distributions have their programs. What is there is the package's: used where it is, and neither
/// copied nor removed.
const PACKAGED: &str = "/usr/bin";

/// The program that containerd runs for a handler.
fn program(handler: &str) -> String {
    format!("containerd-shim-{handler}-v1")
}

/// What all three take.
#[derive(Debug, Args)]
pub(crate) struct Node {
    /// Where the node's root file system is mounted: / on the node itself, /host in the installer's pod.
    #[arg(long, value_name = "DIR", default_value = "/", value_parser = directory)]
    root: PathBuf,
    /// Folder of the binary; containerd must have it in its PATH. Default: /usr/local/bin; a package's
    /// binary stays in /usr/bin.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// containerd's configuration. Default: that of k3s, RKE2 or containerd, whichever exists.
    #[arg(long, value_name = "FILE")]
    containerd_config: Option<PathBuf>,
    /// containerd's program, which is run to check the configuration before and after.
    #[arg(long, value_name = "PROGRAM", default_value = "containerd")]
    containerd: PathBuf,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// How containerd is restarted.
#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// Restarts containerd, and undoes all changes if it does not come up.
    #[arg(long)]
    restart: bool,
    /// Command that restarts it. Default: systemctl restart of containerd, k3s or rke2.
    #[arg(long, value_name = "COMMAND", requires = "restart")]
    restart_command: Option<String>,
    /// containerd's socket: containerd is up once it accepts a connection there.
    #[arg(long, value_name = "SOCKET", default_value = "/run/containerd/containerd.sock")]
    address: PathBuf,
}

/// Installs hardened on this node: binaries, policy, containerd's configuration.
#[derive(Debug, Args)]
pub(crate) struct Install {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    restart: Restart,
    /// The binary to install. Default: the one beside this program. Where a package has put both,
    /// it is used where it is.
    #[arg(long, value_name = "FILE")]
    shim: Option<PathBuf>,
    /// A runtime handler in addition to `hardened`; policy rules match it by `handler`. May be
    /// repeated. Handlers of an earlier install stay.
    #[arg(long = "handler", value_name = "NAME", value_parser = dns_label)]
    handlers: Vec<String>,
    /// Also puts the unit of `hardenctl agent` on the node, and neither enables nor starts it. One of an earlier
    /// install stays.
    #[arg(long)]
    agent: bool,
}

/// Uninstalls hardened from this node, and stops its agent. Policy files that were edited stay.
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    node: Node,
    #[command(flatten)]
    restart: Restart,
}

/// Shows which of hardened's files are on this node. Exit code 0: all, as installed; 1: some are missing or changed.
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    node: Node,
}

/// The agent's unit, for a program in a folder of the node.
fn unit_of(bin: &Path) -> String {
    UNIT.replace(&format!("ExecStart={BIN}/"), &format!("ExecStart={}/", bin.display()))
}

/// Whether two paths lead to one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    identity(one).is_some() && identity(one) == identity(other)
}

/// A path of the node, from here.
fn on(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

impl Node {
    fn at(&self, path: &Path) -> PathBuf {
        on(&self.root, path)
    }

    /// The folder of binaries, as the node has it.
    fn own_bin(&self) -> PathBuf {
        on(Path::new("/"), self.bin_dir.as_deref().unwrap_or(Path::new(BIN)))
    }

    fn bin(&self) -> PathBuf {
        self.at(&self.own_bin())
    }

    fn program(&self, handler: &str) -> PathBuf {
        self.bin().join(program(handler))
    }

    /// This program, for people on the node.
    fn hardenctl(&self) -> PathBuf {
        self.bin().join("hardenctl")
    }

    /// A package's binary, as the node has it.
    fn packaged(&self) -> Option<PathBuf> {
        let path = Path::new(PACKAGED).join(program(HANDLER));
        (self.bin_dir.is_none() && self.at(&path).is_file()).then_some(path)
    }

    /// Our handlers that were installed, and the one that always is.
    fn handlers(&self, record: &Record) -> BTreeSet<String> {
        let bin = self.bin();
        let installed = record.of(&bin).filter_map(handler_of);
        installed.chain([HANDLER]).map(str::to_owned).collect()
    }

    fn policy(&self) -> PathBuf {
        self.at(Path::new("/etc/hardened/policy.toml"))
    }

    fn layout(&self) -> Layout {
        match &self.containerd_config {
            Some(path) => Layout::Plain { config: self.at(path), root: self.root.clone() },
            None => Layout::detect(&self.root),
        }
    }

    fn runs_apparmor(&self) -> bool {
        self.at(Path::new("/sys/kernel/security/apparmor/profiles")).exists()
    }

    /// Loads what was put in place; what runs in a profile of the same name is in the new one.
    fn load_apparmor(&self) -> Result<()> {
        let [.., (profiles, _)] = APPARMOR;
        let out = on_node(&self.root, Path::new("apparmor_parser")).args(["-r", profiles]).output();
        let out = out.context("run apparmor_parser: install the package apparmor")?;
        if !out.status.success() {
            bail!("apparmor_parser -r {profiles}: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(())
    }

    fn record(&self) -> PathBuf {
        self.at(Path::new("/var/lib/hardened/install.json"))
    }

    /// The agent's unit as an install puts it, and as a package does.
    fn units(&self) -> [PathBuf; 2] {
        UNIT_FOLDERS.map(|folder| self.at(&Path::new(folder).join(AGENT_UNIT)))
    }

    /// Stops the agent, and keeps it from being started at boot.
    fn stop_agent(&self) -> Result<()> {
        // As sd_booted(3) finds out whether systemd runs.
        if !self.at(Path::new("/run/systemd/system")).is_dir() {
            return Ok(());
        }
        let mut command = on_node(&self.root, Path::new("systemctl"));
        let out = command.args(["disable", "--now", AGENT_UNIT]).output();
        let out = out.with_context(|| format!("run {command:?}"))?;
        if !out.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(())
    }
}

impl Install {
    pub(crate) fn run(self) -> Result<ExitCode> {
        must_be_root(&self.node)?;
        let node = &self.node;
        let record = Record::read(&node.record())?;
        let [unit, packaged_unit] = node.units();
        let agent = self.agent || record.has(&unit);
        if agent && !cfg!(feature = "agent") {
            bail!(
                "{}: this hardenctl was built without the agent that it starts: install with that of a release{}",
                unit.display(),
                if self.agent { ", or leave out --agent" } else { "" }
            );
        }
        let beside = std::env::current_exe()?.with_file_name(program(HANDLER));
        let packaged = node.packaged().filter(|path| self.shim.is_none() && is_same(&node.at(path), &beside));
        let source = self.shim.unwrap_or(beside);
        let binary = std::fs::read(&source)
            .with_context(|| format!("read {}: name the binary with --shim", source.display()))?;
        let layout = node.layout();
        let checker = layout.checker(&node.containerd)?;
        let before = checker.as_ref().map(|c| c.dump()).transpose().context("containerd's configuration as it is")?;

        let mut handlers = node.handlers(&record);
        handlers.extend(self.handlers);
        let mut applied = Applied::new(record);
        let done = (|| -> Result<bool> {
            match &packaged {
                Some(path) => {
                    applied.give_way(&node.program(HANDLER), path)?;
                    applied.remove_unedited(&node.hardenctl())?;
                }
                None => {
                    applied.put(&node.program(HANDLER), &binary, 0o755)?;
                    applied.put(&node.hardenctl(), &std::fs::read(std::env::current_exe()?)?, 0o755)?;
                }
            }
            let target = packaged.clone().unwrap_or_else(|| program(HANDLER).into());
            for handler in handlers.iter().filter(|handler| *handler != HANDLER) {
                applied.link(&node.program(handler), &target)?;
            }
            match packaged {
                Some(_) => applied.leave_to_package(&node.policy(), POLICY.as_bytes(), 0o644)?,
                None => applied.put_if_absent(&node.policy(), POLICY.as_bytes(), 0o644)?,
            }
            for (path, text) in layout.changes(&handlers, checker.as_ref(), before.as_ref())? {
                applied.put(&path, text.as_bytes(), 0o644)?;
            }
            if node.runs_apparmor() {
                for (path, text) in APPARMOR {
                    let path = node.at(Path::new(path));
                    match packaged {
                        Some(_) => applied.leave_to_package(&path, text.as_bytes(), 0o644)?,
                        None => applied.put(&path, text.as_bytes(), 0o644)?,
                    }
                }
                node.load_apparmor()?;
            }
            if let (Some(checker), Some(before)) = (&checker, &before) {
                checker
                    .verify(&handlers, before, &checker.dump()?)
                    .context("containerd's configuration, as it would be")?;
            }
            let restart = applied.changed();
            if restart {
                self.restart.run(&layout, &node.root)?;
            }
            // containerd knows nothing of it.
            match packaged {
                Some(_) if agent => {
                    applied.remove_unedited(&unit)?;
                    applied.leave_to_package(&packaged_unit, unit_of(Path::new(PACKAGED)).as_bytes(), 0o644)?;
                }
                None if agent => applied.put_unless_edited(&unit, unit_of(&node.own_bin()).as_bytes(), 0o644)?,
                Some(_) | None => {}
            }
            applied.keep(&node.record())?;
            Ok(restart)
        })();
        let restart = done.or_else(|error| {
            let what = if applied.changed() { "all changes were undone" } else { "nothing was changed" };
            let changed = applied.changed();
            applied.take_back().context("putting everything back")?;
            let mut error = error.context(what);
            if changed && let Err(again) = self.restart.run(&layout, &node.root) {
                error = error
                    .context(format!("containerd does not start with the previous configuration either: {again:#}"));
            }
            Err(error)
        })?;
        report(node.json, &applied.told());
        if !node.json {
            if checker.is_none() {
                anstream::println!(
                    "{NOTE}not checked{PLAIN} {}: k3s and RKE2 write it again at each start",
                    layout.describe()
                );
            }
            next_steps(&layout, restart && !self.restart.restart, self.agent || (agent && applied.changed()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Uninstall {
    pub(crate) fn run(self) -> Result<ExitCode> {
        must_be_root(&self.node)?;
        let node = &self.node;
        let layout = node.layout();
        let record = Record::read(&node.record())?;
        let handlers = node.handlers(&record);
        let units: Vec<_> = node.units().into_iter().filter(|unit| record.has(unit) && unit.exists()).collect();
        let mut applied = Applied::new(record);
        let done = (|| -> Result<()> {
            for (path, text) in layout.removals(&handlers)? {
                applied.replace(&path, text)?;
            }
            applied.remove_unedited(&node.policy())?;
            if applied.changed() {
                self.restart.run(&layout, &node.root)?;
            }
            // The profiles stay loaded until the next boot: containers may still run in them.
            for (path, _) in APPARMOR {
                applied.remove_unedited(&node.at(Path::new(path)))?;
            }
            if !units.is_empty() {
                node.stop_agent()?;
            }
            for unit in &units {
                applied.remove_unedited(unit)?;
            }
            // Last: containers that still run need it until they are gone.
            for handler in &handlers {
                applied.remove(&node.program(handler))?;
            }
            applied.remove_unedited(&node.hardenctl())?;
            applied.forget(&node.record())
        })();
        if let Err(error) = done {
            applied.take_back().context("putting everything back")?;
            return Err(error.context("all changes were undone"));
        }
        report(node.json, &applied.told());
        Ok(ExitCode::SUCCESS)
    }
}

impl Status {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let node = &self.node;
        let layout = node.layout();
        let record = Record::read(&node.record())?;
        let handlers = node.handlers(&record);
        // What is not there by us is the package's, where the binary is.
        let packaged = node.packaged().filter(|_| record.state(&node.program(HANDLER)) == "missing");
        let file = |what, path: &Path| {
            let state = match record.state(path) {
                "edited" if packaged.is_some() && !record.has(path) => "packaged",
                state => state,
            };
            (what, path.display().to_string(), state)
        };
        let path_of = |handler: &String| match &packaged {
            Some(path) if handler == HANDLER => node.at(path),
            Some(_) | None => node.program(handler),
        };
        let mut rows: Vec<_> = handlers.iter().map(|handler| file("binary", &path_of(handler))).collect();
        let configured = if layout.has_runtimes(&handlers)? { "installed" } else { "missing" };
        rows.extend([file("policy", &node.policy()), ("containerd", layout.describe(), configured)]);
        if node.runs_apparmor() {
            let [.., (profiles, _)] = APPARMOR;
            rows.push(file("AppArmor", &node.at(Path::new(profiles))));
        }
        rows.extend(node.units().iter().filter(|unit| record.has(unit)).map(|unit| file("agent", unit)));
        let whole = rows.iter().all(|(.., state)| *state != "missing");
        if node.json {
            let rows: Vec<_> =
                rows.iter().map(|(w, p, s)| serde_json::json!({"what": w, "path": p, "state": s})).collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
        } else {
            for (what, path, state) in &rows {
                let colour = if *state == "missing" { BAD } else { GOOD };
                anstream::println!("{colour}{state:9}{PLAIN}  {what:10}  {DIM}{path}{PLAIN}");
            }
            if !whole {
                anstream::println!("run: hardenctl install");
            }
        }
        Ok(ExitCode::from(u8::from(!whole)))
    }
}

impl Restart {
    /// Restarts containerd where that is asked for, and waits until it is up.
    fn run(&self, layout: &Layout, root: &Path) -> Result<()> {
        if !self.restart {
            return Ok(());
        }
        let command = self.restart_command.clone().unwrap_or_else(|| format!("systemctl restart {}", layout.service()));
        let status = on_node(root, Path::new("sh")).args(["-c", &command]).status();
        let status = status.with_context(|| format!("run {command}"))?;
        if !status.success() {
            bail!("{command}: {status}");
        }
        for _ in 0..300 {
            if std::os::unix::net::UnixStream::connect(on(root, &self.address)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        bail!("containerd does not answer at {} within 30 s after: {command}", self.address.display())
    }
}

fn must_be_root(node: &Node) -> Result<()> {
    if !nix::unistd::geteuid().is_root() && node.root == Path::new("/") {
        bail!("this changes the node: run it as root");
    }
    Ok(())
}

fn report(json: bool, told: &[(String, PathBuf)]) {
    if json {
        let rows: Vec<_> = told.iter().map(|(what, path)| serde_json::json!({"what": what, "path": path})).collect();
        println!("{}", serde_json::Value::from(rows));
        return;
    }
    for (what, path) in told {
        anstream::println!("{GOOD}{what:10}{PLAIN}  {}", path.display());
    }
}

fn next_steps(layout: &Layout, restart: bool, agent: bool) {
    if restart {
        anstream::println!("next: systemctl restart {}    (running containers stay)", layout.service());
    }
    if agent {
        anstream::println!("next: systemctl enable {AGENT_UNIT} && systemctl restart {AGENT_UNIT}");
    }
    anstream::println!(
        "then: kubectl apply -f runtimeclass/runtimeclass.yaml, and runtimeClassName: hardened in a pod"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_the_program_where_it_is() {
        let starts = |bin: &str| {
            let unit = unit_of(Path::new(bin));
            unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap().to_owned()
        };
        assert_eq!(starts("/opt/hardened"), "ExecStart=/opt/hardened/hardenctl agent");
        assert_eq!(unit_of(Path::new(BIN)), UNIT);
    }
}
