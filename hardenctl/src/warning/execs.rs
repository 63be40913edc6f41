//! Hooks and probes that run a program: execs, which have less than their container, and are kept apart from it.

use hardened_sandbox::ProcessRequest;
use k8s_openapi::api::core::v1::{Container, ExecAction, LifecycleHandler, Probe};

use super::command::{name_of, simple, written};
use super::{Subject, Warning, command_line};

/// Files of `/proc/1` that only a process that can trace the entrypoint may open: proc(5), PTRACE_MODE_READ_FSCREDS.
const OF_THE_ENTRYPOINT: &[&str] = &["cwd", "environ", "exe", "fd", "io", "map_files", "maps", "mem", "ns", "root"];

/// Programs that read those.
const THAT_LOOK: &[&str] = &["lsof", "pmap", "start-stop-daemon"];

/// Programs that make connections, as probes do.
const THAT_CONNECT: &[&str] = &["curl", "grpc_health_probe", "nc", "ncat", "redis-cli", "telnet", "wget"];

pub(super) fn check(
    container: &Container,
    subject: &Subject<'_>,
    field: &dyn Fn(&str) -> String,
    all: &mut Vec<Warning>,
) {
    for (name, action) in execs(container) {
        if let Some(command) = &action.command {
            check_exec(&field(&format!("{name}.exec.command")), command, subject, all);
        }
    }
}

fn execs(container: &Container) -> impl Iterator<Item = (&'static str, &ExecAction)> {
    fn of_hook(hook: Option<&LifecycleHandler>) -> Option<&ExecAction> {
        hook?.exec.as_ref()
    }
    fn of_probe(probe: Option<&Probe>) -> Option<&ExecAction> {
        probe?.exec.as_ref()
    }
    let lifecycle = container.lifecycle.as_ref();
    [
        ("lifecycle.postStart", of_hook(lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()))),
        ("lifecycle.preStop", of_hook(lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()))),
        ("livenessProbe", of_probe(container.liveness_probe.as_ref())),
        ("readinessProbe", of_probe(container.readiness_probe.as_ref())),
        ("startupProbe", of_probe(container.startup_probe.as_ref())),
    ]
    .into_iter()
    .filter_map(|(name, action)| Some((name, action?)))
}

fn check_exec(field: &str, arguments: &[String], subject: &Subject<'_>, all: &mut Vec<Warning>) {
    let admission = subject.admission;
    let user = &admission.bundle().process.user;
    let process =
        serde_json::json!({"cwd": "/", "args": arguments, "user": {"uid": user.uid, "gid": user.gid}}).to_string();
    let decided = ProcessRequest::of_exec(process.as_bytes(), admission.identity())
        .and_then(|process| admission.decide_exec(&process));
    let exec = match decided {
        Ok(exec) => exec,
        Err(refusal) => {
            let refused = |v: &hardened_sandbox::Violation| {
                Warning::new(field, format!("refused when it runs: {}: {}", v.field, v.problem), v.advice.clone())
            };
            return all.extend(refusal.violations().iter().map(refused));
        }
    };
    command_line(field, arguments, subject, all);
    if admission.plan().landlock.is_some() {
        all.extend(looks_at_the_entrypoint(field, arguments));
    }
    // An exec's filter differs from its container's only if the profile takes sockets away from execs.
    let without_network = exec.plan().seccomp != admission.plan().seccomp;
    let read_only = exec.plan().exec.as_ref().is_some_and(|rules| rules.read_only);
    for words in simple(arguments) {
        let program = words.first().map_or("", |word| name_of(word));
        if without_network && THAT_CONNECT.contains(&program) {
            let problem = format!("runs {program}: an exec of this profile has no network");
            all.push(Warning::new(field, problem, "use httpGet, tcpSocket or grpc; the kubelet makes that connection"));
        }
        for path in written(&words).into_iter().filter(|path| read_only && !path.starts_with("/dev/")) {
            let problem =
                format!("runs {program}, which cannot write to {path}: an exec of this profile writes nothing");
            all.push(Warning::new(
                field,
                problem,
                "have the entrypoint write it, or the profile without exec.read-only",
            ));
        }
    }
}

/// Files of the entrypoint's process, which Landlock keeps from an exec: neither is within the other's sandbox.
fn looks_at_the_entrypoint(field: &str, arguments: &[String]) -> Vec<Warning> {
    const ADVICE: &str = "no setting gives it; use a file or a socket that the entrypoint opens as well";
    let mut all = Vec::new();
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-');
    for path in arguments.iter().flat_map(|text| text.split(|c| !is_of_path(c))) {
        let file = path.strip_prefix("/proc/1/").and_then(|rest| rest.split('/').next());
        if file.is_some_and(|file| OF_THE_ENTRYPOINT.contains(&file)) {
            let problem = format!("{path} cannot be opened (EACCES): an exec and the entrypoint are kept apart");
            all.push(Warning::new(field, problem, ADVICE));
        }
    }
    let programs = simple(arguments).into_iter().filter_map(|words| words.first().map(|word| name_of(word)));
    for program in programs.filter(|program| THAT_LOOK.contains(program)) {
        let problem = format!("runs {program}, which sees nothing of the entrypoint: the two are kept apart");
        all.push(Warning::new(field, problem, ADVICE));
    }
    all
}
