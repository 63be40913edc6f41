//! containerd's configuration: where it is, what is added, and whether containerd takes it.
//!
//! containerd 2 merges a file in `conf.d` deeply into the main one. containerd 1.7 replaces whole
//! sections by it, and would lose the other runtimes: there, our section goes into the main file,
//! and everything else of that file stays as a person wrote it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use toml_edit::{Array, DocumentMut, Item, Table, value};

/// Plugin that has the runtimes, by the version of the configuration.
const V3: &str = "io.containerd.cri.v1.runtime";
const V2: &str = "io.containerd.grpc.v1.cri";

/// The runtime type of a handler, by which containerd finds its program.
fn runtime_type(handler: &str) -> String {
    format!("io.containerd.{handler}.v1")
}

/// Which distribution's containerd it is.
#[derive(Debug)]
pub(super) enum Layout {
    /// containerd's own file; kind has it too. `root` is where the node's file system is.
    Plain { config: PathBuf, root: PathBuf },
    /// k3s or RKE2, which make their configuration at each start from a template in this folder.
    Rancher { name: &'static str, folder: PathBuf },
}

impl Layout {
    pub(super) fn detect(root: &Path) -> Self {
        for name in ["k3s", "rke2"] {
            let folder = root.join("var/lib/rancher").join(name).join("agent/etc/containerd");
            if folder.is_dir() {
                return Self::Rancher { name, folder };
            }
        }
        Self::Plain { config: root.join("etc/containerd/config.toml"), root: root.to_owned() }
    }

    /// The service to restart.
    pub(super) const fn service(&self) -> &'static str {
        match self {
            Self::Plain { .. } => "containerd",
            Self::Rancher { name, .. } => name,
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Plain { config, .. } => config.display().to_string(),
            Self::Rancher { .. } => self.template().display().to_string(),
        }
    }

    /// k3s and RKE2 take `config-v3.toml.tmpl` for containerd 2, `config.toml.tmpl` for 1.7.
    fn template(&self) -> PathBuf {
        match self {
            Self::Plain { config, .. } => config.clone(),
            Self::Rancher { folder, .. } => {
                let modern = folder.join("config-v3.toml.tmpl");
                let old = folder.join("config.toml.tmpl");
                let generated = std::fs::read_to_string(folder.join("config.toml")).unwrap_or_default();
                if modern.exists() || (!old.exists() && generated.contains("version = 3")) { modern } else { old }
            }
        }
    }

    /// What checks a configuration, where it can be checked before a restart.
    pub(super) fn checker(&self, containerd: &Path) -> Result<Option<Checker>> {
        match self {
            Self::Rancher { .. } => Ok(None),
            Self::Plain { config, root } => {
                let mut command = on_node(root, containerd);
                let out = command.arg("--version").output();
                let out = out.with_context(|| format!("run {command:?}: name containerd with --containerd"))?;
                if !out.status.success() {
                    let why = String::from_utf8_lossy(&out.stderr);
                    bail!("{command:?}: {}: name containerd with --containerd", why.trim());
                }
                let text = String::from_utf8_lossy(&out.stdout).into_owned();
                // containerd github.com/containerd/containerd v1.7.24~ds1 1.7.24~ds1-6
                let version = text.split_whitespace().nth(2).unwrap_or_default().trim_start_matches('v');
                let major = version.split('.').next().and_then(|n| n.parse().ok());
                let major = major.with_context(|| {
                    let said = text.lines().next().unwrap_or_default();
                    format!("{}: no version in {said:?}: name containerd with --containerd", containerd.display())
                })?;
                Ok(Some(Checker {
                    containerd: containerd.to_owned(),
                    config: config.clone(),
                    root: root.clone(),
                    major,
                }))
            }
        }
    }

    fn drop_in(config: &Path) -> PathBuf {
        config.with_file_name("conf.d").join("hardened.toml")
    }

    /// Files and their new contents. `now` is the configuration as containerd understands it.
    pub(super) fn changes(
        &self,
        handlers: &BTreeSet<String>,
        checker: Option<&Checker>,
        now: Option<&DocumentMut>,
    ) -> Result<Vec<(PathBuf, String)>> {
        match self {
            Self::Rancher { .. } => {
                let path = self.template();
                let modern = path.ends_with("config-v3.toml.tmpl");
                let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "{{ template \"base\" . }}\n".to_owned());
                let section = section(if modern { 3 } else { 2 }, handlers)?;
                Ok(vec![(path, format!("{}\n{MARK_BEGIN}\n{section}{MARK_END}\n", without_mark(&text).trim_end()))])
            }
            Self::Plain { config, root } => {
                let newest = if checker.is_some_and(|c| c.major >= 2) { 3 } else { 2 };
                let text = read(config)?.unwrap_or_else(|| format!("version = {newest}\n"));
                let mut document = parse(config, &text)?;
                let version = document.get("version").and_then(Item::as_integer).unwrap_or(1);
                match version {
                    3 => {
                        let drop_in = Self::drop_in(config);
                        import(&mut document, &node_path(root, &drop_in));
                        let section = format!("version = 3\n{}", section(3, handlers)?);
                        Ok(vec![(config.clone(), document.to_string()), (drop_in, section)])
                    }
                    2 => {
                        // With a runtimes section of the file's own, 1.7 forgets its built-in one.
                        if runtimes(&mut document, V2).is_none() {
                            let built_in = now.and_then(|now| runtimes(&mut now.clone(), V2).cloned());
                            insert(&mut document, V2, handlers)?;
                            if let (Some(own), Some(built_in)) = (runtimes(&mut document, V2), built_in) {
                                built_in.iter().filter(|(name, _)| !handlers.contains(*name)).for_each(
                                    |(name, runtime)| {
                                        own.insert(name, runtime.clone());
                                    },
                                );
                            }
                        }
                        insert(&mut document, V2, handlers)?;
                        Ok(vec![(config.clone(), document.to_string())])
                    }
                    other => bail!(
                        "{}: version {other}; expected 2 or 3: run `containerd config migrate` and look at it first",
                        config.display()
                    ),
                }
            }
        }
    }

    /// Files and what they are without us; `None` for files that go.
    pub(super) fn removals(&self, handlers: &BTreeSet<String>) -> Result<Vec<(PathBuf, Option<String>)>> {
        let path = self.template();
        let Some(text) = read(&path)? else { return Ok(Vec::new()) };
        let Self::Plain { config, root } = self else {
            let rest = without_mark(&text);
            let ours_alone = rest.trim() == "{{ template \"base\" . }}";
            return Ok(vec![(path, (!ours_alone).then_some(rest))]);
        };
        let mut document = parse(config, &text)?;
        let drop_in = Self::drop_in(config);
        if let Some(imports) = document.get_mut("imports").and_then(Item::as_array_mut) {
            let ours = node_path(root, &drop_in).display().to_string();
            imports.retain(|path| path.as_str() != Some(&ours));
            if imports.is_empty() {
                document.remove("imports");
            }
        }
        if let Some(runtimes) = runtimes(&mut document, V2) {
            handlers.iter().for_each(|handler| drop(runtimes.remove(handler)));
        }
        let mut removals = vec![(config.clone(), Some(document.to_string()))];
        if drop_in.exists() {
            removals.push((drop_in, None));
        }
        Ok(removals)
    }

    /// Whether each handler is configured.
    pub(super) fn has_runtimes(&self, handlers: &BTreeSet<String>) -> Result<bool> {
        let path = self.template();
        let texts = [read(&path)?, read(&Self::drop_in(&path))?].map(Option::unwrap_or_default);
        let words: BTreeSet<&str> = texts.iter().flat_map(|text| text.split(['"', '\''])).collect();
        Ok(handlers.iter().all(|handler| words.contains(runtime_type(handler).as_str())))
    }
}

/// A path as the node itself has it.
fn node_path(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).map_or_else(|_| path.to_owned(), |rest| Path::new("/").join(rest))
}

/// A program of the node, in the node's own file system.
pub(super) fn on_node(root: &Path, program: &Path) -> Command {
    if root == Path::new("/") {
        return Command::new(program);
    }
    let mut command = Command::new("chroot");
    command.arg(root).arg(program);
    command
}

const MARK_BEGIN: &str = "# hardened: begin (hardenctl uninstall takes it out again)";
const MARK_END: &str = "# hardened: end";

fn without_mark(text: &str) -> String {
    match (text.find(MARK_BEGIN), text.find(MARK_END)) {
        (Some(begin), Some(end)) if begin < end => {
            let before = text.get(..begin).unwrap_or_default().trim_end();
            let after = text.get(end + MARK_END.len()..).unwrap_or_default();
            format!("{before}{after}")
        }
        _ => text.to_owned(),
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn parse(path: &Path, text: &str) -> Result<DocumentMut> {
    text.parse().with_context(|| format!("{}: no TOML", path.display()))
}

/// Our sections by themselves.
fn section(version: i64, handlers: &BTreeSet<String>) -> Result<String> {
    let mut document = DocumentMut::new();
    insert(&mut document, if version == 3 { V3 } else { V2 }, handlers)?;
    Ok(document.to_string())
}

/// Adds the handlers to a document, whatever else is in it.
fn insert(document: &mut DocumentMut, plugin: &str, handlers: &BTreeSet<String>) -> Result<()> {
    let mut at = document.as_table_mut();
    for key in ["plugins", plugin, "containerd", "runtimes"] {
        let entry = at.entry(key).or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        at = entry.as_table_mut().with_context(|| format!("{key} is no table"))?;
    }
    for handler in handlers {
        let mut annotations = Array::new();
        annotations.push("io.containerd.hardened.v1/*");
        let mut runtime = Table::new();
        runtime.insert("runtime_type", value(runtime_type(handler)));
        runtime.insert("pod_annotations", value(annotations));
        runtime.insert("privileged_without_host_devices", value(false));
        at.insert(handler, Item::Table(runtime));
    }
    Ok(())
}

fn runtimes<'a>(document: &'a mut DocumentMut, plugin: &str) -> Option<&'a mut Table> {
    let mut at = document.as_table_mut();
    for key in ["plugins", plugin, "containerd", "runtimes"] {
        at = at.get_mut(key)?.as_table_mut()?;
    }
    Some(at)
}

/// Makes the main file read the drop-in, unless a pattern does already.
fn import(document: &mut DocumentMut, drop_in: &Path) {
    let folder = drop_in.parent().map(|p| p.join("*.toml").display().to_string()).unwrap_or_default();
    let path = drop_in.display().to_string();
    if !document.contains_key("imports") {
        document.insert("imports", value(Array::new()));
    }
    if let Some(imports) = document.get_mut("imports").and_then(Item::as_array_mut)
        && !imports.iter().any(|i| i.as_str() == Some(&path) || i.as_str() == Some(&folder))
    {
        imports.push(path);
    }
}

/// containerd itself, which reads its configuration and says what it understood.
#[derive(Debug)]
pub(super) struct Checker {
    containerd: PathBuf,
    config: PathBuf,
    root: PathBuf,
    major: u32,
}

impl Checker {
    /// `containerd config dump`, or its defaults where there is no file.
    pub(super) fn dump(&self) -> Result<DocumentMut> {
        let mut command = on_node(&self.root, &self.containerd);
        if self.config.exists() {
            command.arg("-c").arg(node_path(&self.root, &self.config)).args(["config", "dump"]);
        } else {
            command.args(["config", "default"]);
        }
        let out = command.output().with_context(|| format!("run {command:?}"))?;
        if !out.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.parse().context("containerd printed no TOML")
    }

    /// Checks that the handlers are there, and that nothing else changed.
    pub(super) fn verify(&self, handlers: &BTreeSet<String>, before: &DocumentMut, after: &DocumentMut) -> Result<()> {
        let mut lost = Vec::new();
        compare(before.as_item(), after.as_item(), "", &mut lost);
        if !lost.is_empty() {
            bail!("containerd would lose or change: {}", lost.join(", "));
        }
        let mut after = after.clone();
        let runtimes = [V3, V2].iter().find_map(|plugin| runtimes(&mut after, plugin).cloned()).unwrap_or_default();
        for handler in handlers {
            if !runtimes.get(handler).is_some_and(|runtime| is_ours(handler, runtime)) {
                bail!("containerd does not see the runtime {handler}");
            }
        }
        Ok(())
    }
}

/// Whether a handler's section is one of ours, from this time or an earlier one.
fn is_ours(handler: &str, section: &Item) -> bool {
    section.get("runtime_type").and_then(Item::as_str) == Some(runtime_type(handler).as_str())
}

/// Everything of `before` must be in `after`; what we add may be there besides.
fn compare(before: &Item, after: &Item, path: &str, lost: &mut Vec<String>) {
    match (before.as_table_like(), after.as_table_like()) {
        (Some(before), Some(after)) => {
            for (key, item) in before.iter() {
                let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                match after.get(key) {
                    // What is read besides, and our own sections.
                    Some(after) if path == "imports" || (is_ours(key, item) && is_ours(key, after)) => {}
                    Some(other) => compare(item, other, &path, lost),
                    None => lost.push(path),
                }
            }
        }
        _ if before.to_string().trim() == after.to_string().trim() => {}
        _ => lost.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handlers() -> BTreeSet<String> {
        ["hardened", "strict"].map(str::to_owned).into()
    }

    #[test]
    fn a_persons_file_keeps_all_but_our_section() {
        let text = "# mine\nversion = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  default_runtime_name = \"kata\" # keep\n";
        let mut document: DocumentMut = text.parse().unwrap();
        insert(&mut document, V2, &handlers()).unwrap();
        let with = document.to_string();
        assert!(with.contains("# mine") && with.contains("# keep"));
        for handler in handlers() {
            assert!(with.contains(&runtime_type(&handler)), "{with}");
            runtimes(&mut document, V2).unwrap().remove(&handler);
        }
        assert_eq!(document.to_string(), text);
    }

    #[test]
    fn a_template_of_k3s_is_extended_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("var/lib/rancher/k3s/agent/etc/containerd");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.toml"), "version = 3\n").unwrap();
        let layout = Layout::detect(dir.path());
        let changes = layout.changes(&handlers(), None, None).unwrap();
        assert_eq!(changes.len(), 1);
        assert!(changes[0].0.ends_with("config-v3.toml.tmpl"));
        assert!(changes[0].1.starts_with("{{ template \"base\" . }}\n# hardened: begin"), "{}", changes[0].1);
        std::fs::write(&changes[0].0, &changes[0].1).unwrap();
        // Again: the same.
        assert_eq!(layout.changes(&handlers(), None, None).unwrap(), changes);
        assert!(layout.has_runtimes(&handlers()).unwrap());
        assert_eq!(layout.removals(&handlers()).unwrap(), [(changes[0].0.clone(), None)]);
    }
}
