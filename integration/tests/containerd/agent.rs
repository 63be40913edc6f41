//! The node's agent: a real Prometheus reads its metrics, the kernel tells it what Landlock denies, and an API server in a
//! few lines takes its Events.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hardened_integration::audit::Audit;
use hardened_integration::cri::Cri;
use hardened_integration::{Containerd, eventually, hardenctl, hardenctl_path, repository, run};
use serde_json::Value;

use crate::pods::{run_in, shell};
use crate::policy::policy;

crate::tests!(prometheus_reads_what_was_denied_and_the_dashboard_asks_for_it, what_an_agent_cannot_do_is_an_error,);

/// Where the kernel tells what Landlock denies.
pub(crate) const AUDIT_TESTS: &[crate::Test] = &[(
    "what_landlock_denies_is_told_of_and_a_container_forges_none_of_it",
    what_landlock_denies_is_told_of_and_a_container_forges_none_of_it,
)];

pub(crate) const POD_TESTS: &[crate::PodTest] = &[("a_denial_is_an_event_on_its_pod", a_denial_is_an_event_on_its_pod)];

/// A program that is ended with the test.
pub(crate) struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("{error:#}");
        }
    }
}

/// An agent, with a folder of records.
pub(crate) struct Agent {
    process: Started,
    /// Where its metrics are.
    address: String,
}

impl Agent {
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(hardenctl_path()?);
        command.args(["agent", "--listen", "127.0.0.1:0"]).args(arguments).envs(environment.iter().copied());
        let mut process = command.stderr(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(process.stderr.take().context("stderr")?);
        let process = Started(process);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let address = line.trim().split_once("http://").and_then(|(_, rest)| rest.strip_suffix("/metrics"));
        let address = address.with_context(|| line.clone())?.to_owned();
        // What it says later is the test's to show.
        std::thread::spawn(move || said.lines().map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Ok(Self { process, address })
    }

    /// What it answers, or an error.
    fn metrics(&self) -> Result<String> {
        let mut stream = std::net::TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let answer = std::io::read_to_string(stream)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.contains(" 200 OK"), "{head}");
        Ok(body.to_owned())
    }

    /// What it could not tell.
    pub(crate) fn lost(&self) -> String {
        let metrics = self.metrics().unwrap_or_else(|e| format!("{e:#}"));
        metrics.lines().filter(|line| line.contains("lost_records")).collect::<Vec<_>>().join("; ")
    }

    /// Waits until it has counted something, and gives the line.
    fn counted(&self, parts: &[&str]) -> Result<String> {
        let find = || self.metrics().ok()?.lines().find(|l| parts.iter().all(|p| l.contains(p))).map(str::to_owned);
        let found = eventually(&format!("{parts:?} is counted"), || find().is_some());
        found.with_context(|| self.metrics().unwrap_or_default())?;
        find().context("it is gone again")
    }
}

/// A program of Debian's Prometheus.
fn prometheus(name: &str) -> Command {
    Command::new(repository().join(".cache/debian/usr/bin").join(name))
}

/// The records that an agent has written about a container.
pub(crate) fn told(folder: &Path, c: &Containerd, id: &str) -> Vec<Value> {
    let path = folder.join(format!("{}@{id}@agent.jsonl", c.namespace()));
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A folder of the test's own.
pub(crate) fn folder(c: &Containerd) -> Result<PathBuf> {
    let path = c.home().join(c.id("records"));
    fs::create_dir_all(&path)?;
    Ok(path)
}

fn prometheus_reads_what_was_denied_and_the_dashboard_asks_for_it(c: &Containerd) -> Result<()> {
    let agent = Agent::start(&["--no-audit"], &[])?;
    let home = folder(c)?;
    let config = home.join("prometheus.yml");
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 500ms}}\n\
             scrape_configs: [{{job_name: hardened, static_configs: [{{targets: ['{}']}}]}}]\n",
            agent.address
        ),
    )?;
    // Bound and released: nothing else here listens on it.
    let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let log = fs::File::create(home.join("prometheus.log"))?;
    let server = prometheus("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", home.join("data").display()))
        .arg(format!("--web.listen-address={listen}"))
        .stderr(log)
        .stdout(Stdio::null())
        .spawn()?;
    let _server = Started(server);
    let running = c.start_container(&[], &["sh", "-c", "for i in 1 2 3; do unshare -U true; done; exec sleep 1000"])?;
    agent.counted(&["hardened_denials_total{", "resource=\"unshare\"", running.id()])?;
    ensure!(c.run(&["--privileged"], &["true"])?.status != 0, "a privileged container was started");
    agent.counted(&["hardened_refusals_total{"])?;
    agent.counted(&["hardened_containers{profile=\"baseline\"}"])?;
    agent.counted(&["hardened_shims_memory_bytes{kind=\"anonymous\"}"])?;

    let ask = |query: &str| {
        let url = format!("http://{listen}");
        run(prometheus("promtool").args(["query", "instant", &url, query]), b"", Duration::from_secs(20))
    };
    let query = format!(
        "hardened_denials_total{{container=\"{}\", resource=\"unshare\", enforcer=\"seccomp\"}} >= 1",
        running.id()
    );
    eventually("Prometheus has it", || ask(&query).is_ok_and(|out| out.status == 0 && out.text().contains("unshare")))?;
    // The count at the container's end.
    let id = running.id().to_owned();
    running.remove()?;
    let query = format!("hardened_denials_total{{container=\"{id}\", resource=\"unshare\"}} == 3");
    eventually("Prometheus has all", || ask(&query).is_ok_and(|out| out.text().contains("unshare")))?;

    let dashboard = fs::read_to_string(repository().join("runtimeclass/agent/dashboard.json"))?;
    let dashboard: Value = serde_json::from_str(&dashboard)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    ensure!(panels.len() >= 6);
    for panel in panels {
        let query = panel["targets"][0]["expr"].as_str().context("no query")?.replace("$namespace", ".*");
        let out = ask(&query)?;
        ensure!(out.status == 0, "{query}: {out:?}");
        // What nobody has lost is not there.
        let may_be_empty = query.contains("lost");
        ensure!(may_be_empty || !out.text().is_empty(), "{query} finds nothing");
    }
    Ok(())
}

/// The container makes Landlock domains under the name that identifies another container's.
fn what_landlock_denies_is_told_of_and_a_container_forges_none_of_it(c: &Containerd) -> Result<()> {
    let _audit = Audit::enable()?;
    let events = folder(c)?;
    let agent = Agent::start(&["--events", events.to_str().context("a path")?], &[])?;
    let text = "log-landlock-denials = true\ndefault = \"x\"\n[profile.x.network]\nconnect-tcp = [443]\n[profile.x.exec]\nhidden = [\"/srv\"]\n";
    let folder = policy(c, text)?;
    let program = "mkdir -p /srv; echo x > /srv/x; nc -w 1 127.0.0.1 4711; exec sleep 1000";
    let running = folder.start(&[], &["sh", "-c", program])?;
    let record_of = |arg: &str| {
        let find = || told(&events, c, running.id()).into_iter().find(|record| record["Args"][0] == arg);
        eventually(&format!("{arg} is reported"), || find().is_some())
            .with_context(|| format!("{:?} {}", told(&events, c, running.id()), agent.metrics().unwrap_or_default()))?;
        find().context("it is gone again")
    };
    let record = record_of("net.connect_tcp")?;
    for (field, value) in [
        ("Enforcer", "landlock"),
        ("Operation", "Network"),
        ("Resource", "4711"),
        ("ContainerID", running.id()),
        ("Setting", "profile.x.network.connect-tcp"),
    ] {
        ensure!(record[field] == value, "{field}: {record}");
    }
    ensure!(record["HostPID"] == running.pid()?, "{record}");
    // What an exec has less than its container; and no number of other denials hides it.
    running.exec(&["sh", "-c", "for port in $(seq 5000 5099); do nc -w 1 127.0.0.1 $port; done; true"])?.ok()?;
    ensure!(running.exec(&["cat", "/srv/x"])?.status != 0);
    let record = record_of("fs.read_file")?;
    ensure!(
        record["Resource"] == "/srv/x" && record["Setting"].as_str().is_some_and(|s| s.contains("exec.hidden")),
        "{record}"
    );
    agent.counted(&[
        "hardened_denials_total{",
        "enforcer=\"landlock\"",
        "resource=\"net.connect_tcp\"",
        running.id(),
    ])?;
    let out = hardenctl(&["why", running.id(), "--connect", "4711"])?;
    ensure!(out.status == 1, "{out:?}");

    // Another container, which makes more domains and gives itself the name of the first one's, or an unused one: what
    // these deny is not logged by the kernel. A denial of the container's own domain comes after them, and is reported.
    let mark = mark_of(c, running.id())?;
    let other = folder.start(&[], &["sleep", "1000"])?;
    let before = told(&events, c, running.id()).len();
    for name in [format!("h:{mark}"), "h:000000000000".to_owned(), "x".to_owned()] {
        other.exec(&["hardened-probe", "domain", &name])?.ok()?;
    }
    ensure!(other.exec(&["nc", "-w", "1", "127.0.0.1", "4712"])?.status != 0);
    eventually("the other's is reported", || !told(&events, c, other.id()).is_empty())?;
    let (first, second) = (told(&events, c, running.id()), told(&events, c, other.id()));
    ensure!(first.len() == before && second.len() == 1 && second[0]["Resource"] == "4712", "{first:?} {second:?}");
    ensure!(!agent.metrics()?.contains("reason=\"Unattributed\""), "{}", agent.metrics()?);
    other.remove()?;
    running.remove()
}

/// What its shim has noted.
fn mark_of(c: &Containerd, id: &str) -> Result<String> {
    let text = fs::read_to_string(Path::new("/run/hardened").join(c.namespace()).join(id).join("standing.json"))?;
    let standing: Value = serde_json::from_str(&text)?;
    Ok(standing["plan"]["landlock"]["log"].as_str().context("no mark")?.to_owned())
}

fn what_an_agent_cannot_do_is_an_error(_: &Containerd) -> Result<()> {
    for (arguments, environment, words) in [
        (&["--listen", "127.0.0.1:1", "--listen"][..], &[][..], "a value is required"),
        (&["--listen", "here"], &[], "invalid socket address"),
        (&["--events", "/proc/self/comm"], &[], "open /proc/self/comm: Not a directory"),
        (
            &["--kubernetes", "--no-audit"],
            &[("KUBECONFIG", "/nowhere")],
            "find the cluster, by KUBECONFIG or as a pod of it",
        ),
    ] {
        let mut command = Command::new(hardenctl_path()?);
        command.arg("agent").args(arguments).envs(environment.iter().copied());
        let out = run(&mut command, b"", Duration::from_secs(10))?;
        ensure!(out.status != 0 && out.stderr.contains(words), "{arguments:?}: {out:?}");
    }
    // Without the right to read audit records.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-audit_read", "--inh-caps", "-audit_read"]).arg(hardenctl_path()?);
    let out = run(command.args(["agent", "--listen", "127.0.0.1:0"]), b"", Duration::from_secs(10))?;
    ensure!(out.status != 0 && out.stderr.contains("this takes CAP_AUDIT_READ; --no-audit serves without"), "{out:?}");
    Ok(())
}

/// An API server that accepts Events over TLS with its token, and refuses those of one namespace.
const API_SERVER: &str = r#"
import http.server, json, ssl, sys
class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        allowed = self.headers["authorization"] == "Bearer the-token" and "forbidden" not in event["involvedObject"]["name"]
        with open(sys.argv[2], "a") as log: print(json.dumps({"path": self.path, "allowed": allowed, "event": event}), file=log)
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
                  "message": "events is forbidden"}
        body = json.dumps(event if allowed else status).encode()
        self.send_response(201 if allowed else 403)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Api)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + "/server.pem", sys.argv[1] + "/server-key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"#;

fn a_denial_is_an_event_on_its_pod(cri: &Cri) -> Result<()> {
    let home = folder(cri.containerd())?;
    let at = |name: &str| home.join(name).display().to_string();
    let certify = |name: &str, more: &[&str]| {
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let (key, certificate) = (at(&format!("{name}-key.pem")), at(&format!("{name}.pem")));
        let names = ["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &certificate];
        run(Command::new("openssl").args(new).args(names).args(more), b"", Duration::from_secs(30))?.ok()
    };
    certify("ca", &[])?;
    let of_ca = ["-CA", &at("ca.pem"), "-CAkey", &at("ca-key.pem")];
    let of_server = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1"];
    certify("server", &[of_ca, of_server].concat())?;
    let mut api = Command::new("python3");
    api.args(["-c", API_SERVER, &home.display().to_string(), &at("events.log")]).stdout(Stdio::piped());
    let mut api = api.spawn()?;
    let mut port = String::new();
    BufReader::new(api.stdout.take().context("stdout")?).read_line(&mut port)?;
    let _api = Started(api);
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("https://127.0.0.1:{}", port.trim()), "certificate-authority": at("ca.pem")}}],
        "users": [{"name": "u", "user": {"token": "the-token"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    fs::write(at("kubeconfig"), kubeconfig.to_string())?;
    let mut agent = Agent::start(&["--no-audit", "--kubernetes"], &[("KUBECONFIG", &at("kubeconfig"))])?;

    let mut pods = Vec::new();
    for name in ["told", "forbidden"] {
        let config = cri.pod_config(name);
        let metadata = config.metadata.clone().context("no metadata")?;
        let pod = cri.run_pod(config)?;
        run_in(&pod, shell("server", "unshare -U true; unshare -U true; hardened-probe pivot_root; true"))?;
        pods.push((metadata, pod));
    }
    let log = || -> Vec<Value> {
        let text = fs::read_to_string(at("events.log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let of = |name: &str| -> Vec<Value> {
        log().into_iter().filter(|line| line["event"]["involvedObject"]["name"] == name).collect()
    };
    for (metadata, _) in &pods {
        // Two calls, of which one twice.
        eventually("the API server has Events", || of(&metadata.name).len() >= 2)
            .with_context(|| format!("{:?}", log()))?;
    }
    let [(told, _), (forbidden, _)] = pods.as_slice() else { bail!("two pods") };
    ensure!(of(&told.name).len() == 2, "{:?}", log());
    let made = &of(&told.name)[0];
    let event = &made["event"];
    ensure!(
        made["allowed"] == true
            && made["path"].as_str().is_some_and(|p| p.trim_end_matches('?') == "/api/v1/namespaces/shop/events"),
        "{made}"
    );
    for (field, value) in [
        ("/involvedObject/kind", "Pod"),
        ("/involvedObject/uid", told.uid.as_str()),
        ("/involvedObject/fieldPath", "spec.containers{server}"),
        ("/type", "Warning"),
        ("/reason", "SandboxDenied"),
        ("/metadata/namespace", "shop"),
    ] {
        ensure!(event.pointer(field).is_some_and(|found| found == value), "{field}: {event}");
    }
    let message = event["message"].as_str().unwrap_or_default();
    ensure!(
        message.starts_with("server was denied unshare(flags=CLONE_NEWUSER) (EPERM) by profile baseline"),
        "{message}"
    );
    // That the other could not be made is counted, and holds nothing up.
    ensure!(of(&forbidden.name).iter().all(|line| line["allowed"] == false), "{:?}", log());
    agent.counted(&["hardened_agent_lost_records_total{reason=\"EventNotMade\"} 2"])?;
    ensure!(agent.process.0.try_wait()?.is_none(), "the agent has ended");
    for (_, pod) in pods {
        pod.remove()?;
    }
    Ok(())
}
