//! Each kind of warning, and a manifest without any.

use hardened_sandbox::policy::Policy;
use hardened_sandbox::{KernelSupport, Observations, judge};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{of_decided, of_spec};
use crate::{pod, policy_source};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/policy-example.toml");

fn policy(profile: &str) -> Policy {
    policy_source::read(EXAMPLE.as_ref()).unwrap().with_profile_for_all(profile).unwrap()
}

/// What is warned of under a profile, in a pod whose fields beside its one container are `rest`.
fn warnings_of(profile: &str, container: &str, rest: &str) -> Vec<String> {
    let spec = format!("{{containers: [{{name: web, image: x, {container}}}], {rest}}}");
    let spec: PodSpec = serde_yaml_ng::from_str(&spec).unwrap();
    let all = pod::containers("shop", "pod", &ObjectMeta::default(), &spec).unwrap();
    assert!(all[0].is_sandbox() && all[0].container.is_none());
    let decided = judge(&all[1].spec, &policy(profile), &KernelSupport::assumed(), &Observations::none(Some("x")));
    assert!(decided.is_ok(), "{profile}: {container}: {decided:?}");
    of_decided(&all[1], &decided).iter().map(ToString::to_string).collect()
}

fn warnings(profile: &str, container: &str) -> Vec<String> {
    warnings_of(profile, container, "")
}

#[test]
fn each_kind_of_warning() {
    let mut table = String::new();
    for (profile, container) in [
        ("baseline", "workingDir: /usr/lib/app"),
        ("baseline", "workingDir: /sys/fs"),
        ("restricted", "volumeMounts: [{name: v, mountPath: /usr/local/bin}]"),
        ("restricted", "command: [/tmp/tool]"),
        ("baseline", "command: [strace, ls]"),
        ("baseline", "command: [perf, top]"),
        ("baseline", "command: [bpftrace]"),
        ("baseline", "command: [sh, -c, 'mount -t tmpfs x /x']"),
        ("baseline", "command: [unshare, -r, sh]"),
        ("baseline", "command: [nsenter, -t, '1', sh]"),
        ("baseline", "command: [/usr/sbin/sshd, -D]"),
        ("baseline", "args: [tcpdump, -i, eth0]"),
        ("baseline", "command: [sh, -c, 'until ping -c1 db; do sleep 1; done']"),
        ("baseline", "command: [bash, -ec, 'iptables -L && exec server']"),
        ("baseline", "command: [sudo, id]"),
        ("baseline", "command: [sh, -c, 'apt-get update && apt-get install -y curl']"),
        ("baseline", "command: [sh, -c, 'apk add curl; yum install curl; dpkg -i x.deb; npm install -g x']"),
        ("baseline", "command: [sh, -c, 'pip install x; locale-gen']"),
        ("baseline", "command: [sh, -c, 'curl -Lo /usr/local/bin/x https://example.org; chmod +x /usr/local/bin/x']"),
        ("baseline", "image: docker.io/i386/debian:13"),
        ("baseline", "securityContext: {capabilities: {add: [NET_RAW, CAP_MKNOD]}}"),
        ("baseline", "securityContext: {allowPrivilegeEscalation: true, seccompProfile: {type: Unconfined}}"),
        ("baseline", "ports: [{containerPort: 80}], securityContext: {runAsUser: 1000}"),
        ("web", "ports: [{containerPort: 8080}, {containerPort: 9090}, {containerPort: 9090, protocol: UDP}]"),
        ("baseline", "lifecycle: {preStop: {exec: {command: [sh, -c, 'echo bye > /proc/1/fd/1']}}}"),
        ("baseline", "lifecycle: {postStart: {exec: {command: [start-stop-daemon, --status, --exec, /bin/x]}}}"),
        ("baseline", "livenessProbe: {exec: {command: [cat, /proc/1/environ]}}"),
        ("baseline", "startupProbe: {exec: {command: [gdb, -p, '1']}}"),
        ("web", "readinessProbe: {exec: {command: [curl, -f, 'http://localhost:8080']}}"),
        ("web", "readinessProbe: {exec: {command: [sh, -c, 'touch /data/alive']}}"),
        ("strict", "securityContext: {runAsUser: 1000}, livenessProbe: {exec: {command: ['true']}}"),
    ] {
        let found = warnings(profile, container);
        assert!(!found.is_empty(), "{profile}: {container}");
        table.push_str(&format!("{profile}: {container}\n  {}\n", found.join("\n  ")));
    }
    insta::assert_snapshot!("warnings", table);
}

#[test]
fn what_works_is_not_warned_of() {
    for (profile, container) in [
        // Below system folders, and theirs to write.
        ("baseline", "workingDir: /usr/src/app, command: [node, server.js]"),
        ("baseline", "workingDir: /usr/local/apache2, command: [httpd, -DFOREGROUND]"),
        ("baseline", "volumeMounts: [{name: v, mountPath: /usr/local/bin}], workingDir: /usr/local/bin"),
        ("baseline", "command: [sh, -c, 'cp /usr/bin/x /data/x; touch /x; mkdir -p /usr/local/bin']"),
        // The pod's own doing, and runc's.
        ("baseline", "workingDir: /usr/lib/app, securityContext: {readOnlyRootFilesystem: true}"),
        ("baseline", "command: [sh, -c, 'apk add x'], securityContext: {readOnlyRootFilesystem: true}"),
        ("baseline", "command: [ping, x], securityContext: {capabilities: {drop: [ALL]}}"),
        // Given by the profile.
        ("build", "command: [apt-get, install, x], workingDir: /usr/lib/app"),
        ("compatible", "command: [sh, -c, 'chroot /x; strace x; tcpdump; ping x']"),
        // Words that are no programs, and programs that install elsewhere.
        ("baseline", "command: [sh, -c, 'echo mount su | grep strace'], args: [sudo]"),
        ("baseline", "command: [sh, -c, 'apt-get update; pip install --user x; /venv/bin/pip install x; npm install']"),
        ("baseline", "command: [su, www-data, -c, x], securityContext: {runAsUser: 0}"),
        // The entrypoint's own.
        ("baseline", "command: [sh, -c, 'exec server > /proc/1/fd/1']"),
        ("baseline", "lifecycle: {preStop: {exec: {command: [sh, -c, 'cat /proc/1/status; kill -TERM 1']}}}"),
        ("baseline", "livenessProbe: {exec: {command: [curl, -f, 'http://localhost']}}"),
        ("web", "livenessProbe: {exec: {command: [sh, -c, 'pgrep x > /dev/null']}}, ports: [{containerPort: 8443}]"),
        ("baseline", "ports: [{containerPort: 80}], lifecycle: {preStop: {sleep: {seconds: 5}}}"),
    ] {
        assert_eq!(warnings(profile, container), [""; 0], "{profile}: {container}");
    }
    let sysctls = "securityContext: {sysctls: [{name: net.ipv4.ping_group_range, value: '0 1'}, {name: \
                   net.ipv4.ip_unprivileged_port_start, value: '0'}], runAsUser: 1000}";
    assert_eq!(warnings_of("baseline", "command: [ping, x], ports: [{containerPort: 80}]", sysctls), [""; 0]);
}

#[test]
fn a_spec_is_looked_at_as_a_pod_is() {
    let spec = |cwd: &str, args: &[&str]| {
        let namespaces = ["mount", "pid", "ipc", "network", "uts"].map(|kind| serde_json::json!({"type": kind}));
        let spec = serde_json::json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"cwd": cwd, "args": args, "user": {"uid": 0, "gid": 0}},
            "linux": {"namespaces": namespaces},
        });
        let spec = serde_json::from_value(spec).unwrap();
        let observed =
            Observations { container: "c".to_owned(), namespace: "n".to_owned(), ..Observations::none(None) };
        let admission = judge(&spec, &policy("baseline"), &KernelSupport::assumed(), &observed).unwrap();
        of_spec(&spec, &admission).iter().map(|warning| warning.field.clone()).collect::<Vec<_>>()
    };
    assert_eq!(spec("/usr/bin", &["sh", "-c", "strace x; strace y"]), ["process.cwd", "process.args"]);
    assert_eq!(spec("/", &["server"]), [""; 0]);
}
