//! `start`: finds the shim of the container's pod, or starts one, and tells containerd where.

use std::fs;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use containerd_shim::{Flags, StartOpts};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;

use crate::launcher::Program;
use crate::runtime_options;
use crate::sys::ignore;

/// Set by containerd's CRI alone, never taken from a pod: its own sandbox id.
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";

/// containerd's own bound on this input.
const MAX_INPUT_BYTES: u64 = 10 << 20;

/// Where the Task API was renamed without another change of its wire format.
const TASK_V3: i32 = 3;

/// How containerd asked, which decides how it wants to be answered.
#[derive(Debug, PartialEq, Eq)]
enum Dialect {
    /// 2.3 and newer: a protobuf on standard input.
    Bootstrap,
    /// 1.7 to 2.2: says in `MAX_SHIM_VERSION` which Task API it speaks at most.
    Json { version: i32 },
    /// 1.6: a bare address.
    Address,
}

/// Answers with the address of a serving shim.
pub(crate) fn run(flags: &Flags) -> Result<()> {
    let input = read_input()?;
    let params = bootstrap(&input, flags);
    let dialect = match &params {
        Some(_) => Dialect::Bootstrap,
        None => dialect(std::env::var("MAX_SHIM_VERSION").ok().as_deref()),
    };
    let options = options(flags, params, &input);
    let group = group(Path::new("config.json"))?.unwrap_or_else(|| flags.id.clone());
    let address = options.socket_address(&group);
    let cgroup = runtime_options::shim_cgroup(&options.extensions);
    // containerd 1.6 reads it after a restart; newer ones keep a file of their own. Before there is a shim that nobody
    // would know of, where it cannot be written.
    fs::write("address", &address).context("write the address file")?;
    let shim = ensure_serving(flags, &options, &address, cgroup.as_deref())?;
    answer(&dialect, &address).inspect_err(|_| shim.into_iter().for_each(end))
}

/// Ends a shim that nobody will know of.
fn end(mut shim: Child) {
    ignore(shim.kill().and_then(|()| shim.wait()), "it has ended, then");
}

fn read_input() -> Result<Vec<u8>> {
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(Vec::new());
    }
    let mut input = Vec::new();
    stdin.by_ref().take(MAX_INPUT_BYTES).read_to_end(&mut input).context("read standard input")?;
    Ok(input)
}

/// The bootstrap message, if the input is one: runtime options decode as one too, but then the
/// id is a type name.
fn bootstrap(input: &[u8], flags: &Flags) -> Option<BootstrapParams> {
    let params = BootstrapParams::parse_from_bytes(input).ok()?;
    (params.instance_id == flags.id && params.namespace == flags.namespace).then_some(params)
}

fn dialect(most: Option<&str>) -> Dialect {
    match most.map(str::parse::<i32>) {
        Some(Ok(most)) => Dialect::Json { version: most.min(TASK_V3) },
        Some(Err(_)) | None => Dialect::Address,
    }
}

fn options(flags: &Flags, params: Option<BootstrapParams>, input: &[u8]) -> StartOpts {
    params.map(StartOpts::from).unwrap_or_else(|| StartOpts {
        id: flags.id.clone(),
        publish_binary: flags.publish_binary.clone(),
        address: flags.address.clone(),
        ttrpc_address: std::env::var("TTRPC_ADDRESS").unwrap_or_else(|_| format!("{}.ttrpc", flags.address)),
        namespace: flags.namespace.clone(),
        debug: flags.debug,
        // Before 2.3 the runtime's options are the whole input.
        extensions: Any::parse_from_bytes(input).into_iter().collect(),
        ..StartOpts::default()
    })
}

/// The pod that a container belongs to.
fn group(config: &Path) -> Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Annotated {
        #[serde(default)]
        annotations: std::collections::HashMap<String, String>,
    }
    let show = config.display();
    let file = fs::File::open(config).with_context(|| format!("open {show} in the bundle"))?;
    let text =
        hardened_node::read_bounded(file, MAX_INPUT_BYTES).with_context(|| format!("read {show} in the bundle"))?;
    let mut spec: Annotated = serde_json::from_slice(&text).with_context(|| format!("{show} in the bundle"))?;
    let group = spec.annotations.remove(SANDBOX_ID);
    if let Some(group) = &group {
        crate::id::check(group).map_err(|e| anyhow::anyhow!("{show}: annotations[{SANDBOX_ID}]: {e}"))?;
    }
    Ok(group)
}

/// Starts a shim at the address, unless one answers there, in a cgroup that the node has for shims.
fn ensure_serving(flags: &Flags, options: &StartOpts, address: &str, cgroup: Option<&str>) -> Result<Option<Child>> {
    let path = Path::new(address.strip_prefix("unix://").unwrap_or(address));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let listener = match UnixListener::bind(path) {
        Ok(listener) => listener,
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Ok(None);
            }
            // Left by a shim that was killed.
            fs::remove_file(path).with_context(|| format!("remove the stale {}", path.display()))?;
            UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?
        }
        Err(error) => return Err(error).with_context(|| format!("listen at {}", path.display())),
    };
    // A shim without it could run no launcher: told here, where containerd shows what went wrong.
    drop(Program::open()?);
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command
        // The name tells the runtime handler, and is lost where it is a link's.
        .arg0(std::env::args_os().next().unwrap_or_default())
        .args(["-namespace", &flags.namespace, "-id", &flags.id, "-address", &options.address, "-socket", address])
        .args(options.debug.then_some("-debug"))
        .arg("serve")
        .env_clear()
        .env("TTRPC_ADDRESS", &options.ttrpc_address)
        // Already listening: containerd's first call waits in the backlog until the shim is up.
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let child = command.spawn().context("start the shim")?;
    match place(child.id(), cgroup) {
        Ok(()) => Ok(Some(child)),
        Err(error) => {
            end(child);
            Err(error)
        }
    }
}

/// Puts a shim where the node wants it.
fn place(shim: u32, cgroup: Option<&str>) -> Result<()> {
    // It must be a later victim of the OOM killer than what it serves.
    containerd_shim::cgroup::adjust_oom_score(shim).context("set the shim's OOM score")?;
    cgroup.map_or(Ok(()), |path| {
        crate::cgroup::add_to_existing(path, shim).with_context(|| format!("runtime options: ShimCgroup {path}"))
    })
}

fn answer(dialect: &Dialect, address: &str) -> Result<()> {
    let answer = match dialect {
        Dialect::Bootstrap => BootstrapResult {
            version: TASK_V3,
            address: address.to_owned(),
            protocol: "ttrpc".to_owned(),
            ..BootstrapResult::default()
        }
        .write_to_bytes()
        .context("encode the answer")?,
        Dialect::Json { version } => {
            serde_json::json!({"version": version, "address": address, "protocol": "ttrpc"}).to_string().into_bytes()
        }
        Dialect::Address => address.as_bytes().to_vec(),
    };
    let mut stdout = std::io::stdout();
    stdout.write_all(&answer).and_then(|()| stdout.flush()).context("answer containerd")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags { id: "web".into(), namespace: "default".into(), ..Flags::default() }
    }

    #[test]
    fn runtime_options_are_not_mistaken_for_bootstrap_parameters() {
        let options =
            Any { type_url: "runtimeoptions.v1.Options".into(), value: b"default".to_vec(), ..Any::default() };
        assert_eq!(bootstrap(&options.write_to_bytes().unwrap(), &flags()), None);
        assert_eq!(bootstrap(b"", &flags()), None);
        let params = BootstrapParams { instance_id: "web".into(), namespace: "default".into(), ..Default::default() };
        assert!(bootstrap(&params.write_to_bytes().unwrap(), &flags()).is_some());
    }

    #[test]
    fn each_generation_of_containerd_is_answered_in_its_dialect() {
        assert_eq!(dialect(None), Dialect::Address);
        assert_eq!(dialect(Some("2")), Dialect::Json { version: 2 });
        assert_eq!(dialect(Some("3")), Dialect::Json { version: 3 });
        assert_eq!(dialect(Some("9")), Dialect::Json { version: 3 });
        assert_eq!(dialect(Some("x")), Dialect::Address);
    }

    #[test]
    fn a_container_is_grouped_by_the_sandbox_that_the_cri_names() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        for (text, expected) in [
            (r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "pod1"}}"#, Some("pod1")),
            (r#"{"annotations": {"sandbox-id": "pod1"}}"#, None),
            (r#"{}"#, None),
        ] {
            fs::write(&config, text).unwrap();
            assert_eq!(group(&config).unwrap().as_deref(), expected);
        }
        fs::write(&config, r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "../x"}}"#).unwrap();
        assert!(group(&config).is_err());
        assert!(group(&dir.path().join("none")).is_err());
    }
}
