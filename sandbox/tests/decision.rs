//! The decision, from outside: specs in, hardened specs or refusals out.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use hardened_sandbox::bundle::{self, FileId, MountFlag, NamespaceKind, Places};
use hardened_sandbox::policy::Policy;
use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{
    Admission, AppArmor, Joined, KernelSupport, LockdownPlan, Observations, ProcessRequest, Reason, Refusal,
};
use oci_spec::runtime::Spec;
use proptest::prelude::*;
use serde_json::{Value, json};

const CONTAINERD: &str = include_str!("../fuzz/corpus/decide/containerd-default.json");
const HOSTILE: &str = include_str!("../fuzz/corpus/decide/hostile.json");

fn host() -> KernelSupport {
    KernelSupport {
        apparmor: AppArmor::Off,
        selinux: false,
        may_raise_limits: false,
        oom_score_adj: 100,
        hard_limits: [("RLIMIT_NOFILE".to_owned(), 512)].into(),
        ..KernelSupport::assumed()
    }
}

/// A node without policy files.
fn decide(spec: Spec, host: &KernelSupport, facts: &Observations) -> Result<Admission, Refusal> {
    let container = if facts.container.is_empty() { "c".to_owned() } else { facts.container.clone() };
    let facts = Observations { container, namespace: "default".to_owned(), ..facts.clone() };
    hardened_sandbox::judge(&spec, &Policy::built_in(Arch::native().unwrap()), host, &facts)
}

/// Places as a launcher prepares them.
fn places(admission: &Admission) -> Places {
    let bundle = admission.bundle();
    Places {
        root: "/rootfs".into(),
        volumes: bundle.volumes().map(|(n, ..)| (n, format!("/mounts/{n}").into())).collect(),
        cgroups: vec![("/mounts/cgroup".into(), "".into())],
        namespaces: bundle
            .namespaces
            .iter()
            .filter(|n| n.joins.is_some())
            .map(|n| (n.kind, format!("/ns/{}", n.kind.file_name()).into()))
            .collect(),
    }
}

fn written(admission: &Admission) -> Spec {
    bundle::write(admission.bundle(), &places(admission)).unwrap()
}

fn process(text: Value) -> ProcessRequest {
    ProcessRequest::of_exec(text.to_string().as_bytes(), &Default::default()).unwrap()
}

fn spec(change: impl FnOnce(&mut Value)) -> Spec {
    let mut spec: Value = serde_json::from_str(CONTAINERD).unwrap();
    spec["process"]["args"] = json!(["/bin/true"]);
    change(&mut spec);
    serde_json::from_value(spec).unwrap()
}

fn refusal(spec: Spec, host: &KernelSupport, facts: &Observations) -> (Reason, String) {
    let refusal = decide(spec, host, facts).unwrap_err();
    (refusal.reason(), refusal.to_string())
}

/// JSON with its sets in order: capabilities come out of a hash set.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.into_iter().map(sorted).collect();
            if items.iter().all(|i| i.as_str().is_some_and(|s| s.starts_with("CAP_"))) {
                items.sort_by_key(ToString::to_string);
            }
            Value::Array(items)
        }
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(k, v)| (k, sorted(v))).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

#[test]
fn containerds_default_spec_is_hardened() {
    let admission = decide(spec(|_| {}), &host(), &Observations::default()).unwrap();
    insta::assert_json_snapshot!("hardened-spec", sorted(serde_json::to_value(written(&admission)).unwrap()));
    insta::assert_debug_snapshot!("hardened-notes", admission.notes());
    let mut plan = serde_json::to_value(admission.plan()).unwrap();
    plan["seccomp"] = json!("(compiled)");
    insta::assert_json_snapshot!("hardened-plan", plan);
}

#[test]
fn a_privileged_container_is_refused_with_every_violation() {
    let mut hostile: Value = serde_json::from_str(HOSTILE).unwrap();
    hostile["process"]["args"] = json!(["/bin/true"]);
    hostile["process"]["cwd"] = json!("/proc/self/fd/9");
    hostile["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid", "path": "/x"}]);
    let hosts = Joined { file: FileId { device: 4, inode: 1 }, is_hosts: true };
    let facts = Observations { namespaces: [(NamespaceKind::Pid, hosts)].into(), ..Observations::default() };
    let (reason, text) = refusal(serde_json::from_value(hostile).unwrap(), &host(), &facts);
    assert_eq!(reason, Reason::Policy);
    insta::assert_snapshot!("refusal", text);
}

/// What SYS_NICE is for, and a life that the OOM killer spares, by other fields.
#[test]
fn nobody_is_put_before_the_host() {
    let asked = spec(|s| {
        s["process"]["oomScoreAdj"] = json!(-1000);
        s["process"]["rlimits"] = json!([
            {"type": "RLIMIT_RTPRIO", "soft": 99, "hard": 99},
            {"type": "RLIMIT_NICE", "soft": 40, "hard": 40},
            {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20},
        ]);
    });
    let able = KernelSupport { may_raise_limits: true, ..host() };
    let written = written(&decide(asked, &able, &Observations::default()).unwrap());
    let process = serde_json::to_value(written.process()).unwrap();
    let hard = |name: &str| {
        let limits = process["rlimits"].as_array().unwrap();
        limits.iter().find(|limit| limit["type"] == name).map(|limit| limit["hard"].clone())
    };
    assert_eq!(["RLIMIT_RTPRIO", "RLIMIT_NICE", "RLIMIT_NOFILE"].map(hard), [0, 0, 20].map(|n| Some(json!(n))));
}

#[test]
fn a_sysctl_belongs_to_the_namespace_that_it_is_of() {
    let policy = "default = \"x\"\n[profile.x.host]\nnamespaces = [\"ipc\"]\nsysctls = [\"kernel.*\"]\n";
    let source = hardened_sandbox::policy::Source::new("policy.toml".into(), policy.to_owned());
    let policy = Policy::parse(&[source], &|_| Err(String::new()), Arch::native().unwrap()).unwrap();
    let hosts = Joined { file: FileId { device: 4, inode: 1 }, is_hosts: true };
    let observed = Observations { namespaces: [(NamespaceKind::Ipc, hosts)].into(), ..Observations::none(None) };
    let asked = spec(|s| {
        s["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "ipc");
        s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "ipc", "path": "/proc/1/ns/ipc"}));
        s["linux"]["sysctl"] = json!({"kernel.shm_rmid_forced": "1"});
    });
    let refusal = hardened_sandbox::judge(&asked, &policy, &host(), &observed).unwrap_err().to_string();
    assert!(refusal.contains("kernel.shm_rmid_forced]: would be set on the host"), "{refusal}");
}

#[test]
fn a_list_of_devices_that_takes_back_is_not_misread() {
    let asked = spec(|s| {
        let rule =
            |allow: bool, access: &str| json!({"allow": allow, "type": "c", "major": 1, "minor": 3, "access": access});
        s["linux"]["resources"]["devices"] =
            json!([{"allow": false, "access": "rwm"}, rule(true, "rwm"), rule(false, "w")]);
    });
    let (_, text) = refusal(asked, &host(), &Observations::default());
    assert!(text.contains("a rule denies what an earlier one allows"), "{text}");
}

#[test]
fn what_nobody_knows_of_an_execs_process_is_dropped_and_told() {
    let admission = decide(spec(|_| {}), &host(), &Observations::default()).unwrap();
    let asked = json!({"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0, "x": 1}, "noSuchField": true});
    let exec = admission.decide_exec(&process(asked)).unwrap();
    let told: Vec<String> = exec.notes().iter().map(ToString::to_string).collect();
    assert!(
        ["user.x: dropped", "noSuchField: dropped"].iter().all(|n| told.iter().any(|t| t.starts_with(n))),
        "{told:?}"
    );
    let twice = ProcessRequest::of_exec(
        br#"{"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}} {}"#,
        &Default::default(),
    );
    assert!(twice.unwrap_err().to_string().contains("is not an OCI process"));
}

#[test]
fn a_mechanism_that_is_mandatory_and_missing_refuses() {
    for change in [
        (|h: &mut KernelSupport| h.landlock_abi = 1) as fn(&mut KernelSupport),
        |h| h.landlock_abi = 0,
        |h| h.seccomp = false,
    ] {
        let mut host = host();
        change(&mut host);
        assert_eq!(refusal(spec(|_| {}), &host, &Observations::default()).0, Reason::Unsupported);
    }
    for field in ["apparmorProfile", "selinuxLabel"] {
        let asked = spec(|s| s["process"][field] = json!("a:b:c"));
        assert_eq!(refusal(asked.clone(), &host(), &Observations::default()).0, Reason::Unsupported);
    }
}

#[test]
fn every_process_has_the_nodes_apparmor_profile_whatever_it_asks_for() {
    let loaded = ["hardened", "hardened-raw", "web"].map(str::to_owned).into();
    let able = KernelSupport { apparmor: AppArmor::On(loaded), ..host() };
    let of = |profile: Value| {
        let asked = spec(|s| s["process"]["apparmorProfile"] = profile);
        decide(asked, &able, &Observations::default())
            .map(|a| a.plan().apparmor.iter().cloned().collect::<Vec<_>>().join("+"))
    };
    for name in [Value::Null, json!(""), json!("unconfined"), json!("cri-containerd.apparmor.d")] {
        assert_eq!(of(name).unwrap(), "hardened");
    }
    assert_eq!(of(json!("web")).unwrap(), "hardened+web");
    let (reason, text) = {
        let refusal = of(json!("shop")).unwrap_err();
        (refusal.reason(), refusal.to_string())
    };
    assert_eq!(reason, Reason::Unsupported);
    assert!(text.contains("shop is not loaded") && text.contains("apparmor_parser -r"), "{text}");
    let bare = KernelSupport { apparmor: AppArmor::On([].into()), ..host() };
    let (reason, text) = refusal(spec(|_| {}), &bare, &Observations::default());
    assert_eq!(reason, Reason::Unsupported);
    assert!(text.contains("profile hardened is not loaded"), "{text}");
}

#[test]
fn selinux_labels_are_the_pods_within_bounds_or_its_own() {
    let able = KernelSupport { selinux: true, ..host() };
    let of = |label: &str| {
        let asked = spec(|s| s["process"]["selinuxLabel"] = json!(label));
        let facts = Observations { container: "web".to_owned(), ..Observations::default() };
        decide(asked, &able, &facts)
            .map(|a| (a.plan().selinux.clone().unwrap(), a.bundle().files_label.clone().unwrap()))
    };
    let (process, files) = of("").unwrap();
    assert!(process.starts_with("system_u:system_r:container_t:s0:c"), "{process}");
    assert_eq!(files, process.replace("system_r:container_t", "object_r:container_file_t"));
    let asked = "system_u:system_r:container_init_t:s0:c1,c2";
    assert_eq!(of(asked).unwrap(), (asked.to_owned(), "system_u:object_r:container_file_t:s0:c1,c2".to_owned()));
    for beyond in [
        "system_u:system_r:spc_t:s0",
        "system_u:system_r:unconfined_t:s0",
        "unconfined_u:unconfined_r:container_t:s0",
        "container_t",
    ] {
        assert_eq!(of(beyond).unwrap_err().reason(), Reason::Policy, "{beyond}");
    }
    let unknown =
        Observations { unknown_labels: vec!["system_u:system_r:container_t:s9".to_owned()], ..Observations::default() };
    assert_eq!(refusal(spec(|_| {}), &able, &unknown).0, Reason::Invalid);
}

#[test]
fn nothing_that_a_pod_asks_for_widens_the_sandbox() {
    let asks: &[fn(&mut Value)] = &[
        |_| {},
        |s| s["annotations"] = json!({"io.containerd.hardened.v1/profile": "restricted"}),
        |s| s["annotations"] = json!({"io.containerd.hardened.v1/profile": "baseline"}),
        |s| s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"}),
        |s| {
            s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [{"names": ["read", "mount", "bpf", "unshare"], "action": "SCMP_ACT_ALLOW"}]})
        },
        |s| s["process"]["noNewPrivileges"] = json!(false),
        |s| s["process"]["capabilities"] = Value::Null,
        |s| s["process"]["capabilities"]["ambient"] = json!(["CAP_NET_RAW", "CAP_CHOWN"]),
    ];
    let arch = Arch::native().unwrap();
    let widest = BuiltIn::Baseline.sandbox(arch);
    for ask in asks {
        let admission = decide(spec(ask), &host(), &Observations::default()).unwrap();
        let sandbox = admission.sandbox();
        assert!(sandbox.capabilities().is_subset(widest.capabilities()));
        assert!(sandbox.filter().foreign() <= widest.filter().foreign());
        for (name, number) in arch.calls() {
            for argument in [0, 1, 0x1000_0000, 0x5412, u64::MAX] {
                let arguments = [argument; 6];
                assert!(
                    sandbox.filter().decide(number, &arguments) <= widest.filter().decide(number, &arguments),
                    "{name}({argument:#x})"
                );
            }
        }
        let c = admission.plan().capabilities;
        for set in [c.bounding, c.effective, c.permitted, c.inheritable, c.ambient] {
            assert!(set.is_subset(widest.capabilities()), "{set}");
        }
        assert_eq!(written(&admission).process().as_ref().unwrap().no_new_privileges(), Some(true));
    }
}

#[test]
fn an_exec_gets_no_more_than_its_container() {
    let restricted = spec(|s| s["annotations"] = json!({"io.containerd.hardened.v1/profile": "restricted"}));
    let admission = decide(restricted.clone(), &host(), &Observations::default()).unwrap();
    // containerd hands over its own stored process, as the pod wrote it.
    let stored = serde_json::to_value(restricted.process()).unwrap();
    let exec = admission.decide_exec(&process(stored.clone())).unwrap();
    assert_eq!(exec.plan(), &LockdownPlan { masks: None, ..admission.plan().clone() });
    assert_eq!(exec.process(), &admission.bundle().process);
    let mut beyond = stored;
    beyond["capabilities"]["effective"] = json!(["CAP_SYS_ADMIN"]);
    let refused = admission.decide_exec(&process(beyond)).unwrap_err();
    insta::assert_snapshot!(refused, @"hardened: refused by profile baseline (built in): process.capabilities: added: SYS_ADMIN, which the profile does not give -> take them out of securityContext.capabilities.add.");
}

#[test]
fn a_plan_is_decoded_only_as_it_was_encoded() {
    let admission = decide(spec(|_| {}), &host(), &Observations::default()).unwrap();
    let decode = |bytes: &[u8]| serde_json::from_slice::<LockdownPlan>(bytes);
    let bytes = serde_json::to_vec(admission.plan()).unwrap();
    assert_eq!(&decode(&bytes).unwrap(), admission.plan());
    let mut more: Value = serde_json::from_slice(&bytes).unwrap();
    more["extra"] = json!(1);
    assert!(decode(more.to_string().as_bytes()).is_err());
    for key in ["seccomp", "landlock", "exec", "capabilities"] {
        let mut less: Value = serde_json::from_slice(&bytes).unwrap();
        less.as_object_mut().unwrap().remove(key);
        assert!(decode(less.to_string().as_bytes()).is_err(), "without {key}");
    }
    for program in ["", "00", "zz00000000000000", &"0".repeat(16 * 4097)] {
        let mut bad: Value = serde_json::from_slice(&bytes).unwrap();
        bad["seccomp"] = json!(program);
        assert!(decode(bad.to_string().as_bytes()).is_err());
    }
}

/// A spec in a user namespace, as containerd makes it.
fn with_users(change: impl FnOnce(&mut Value)) -> Spec {
    spec(|s| {
        s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        for field in ["uidMappings", "gidMappings"] {
            s["linux"][field] = json!([{"containerID": 0, "hostID": 65536, "size": 65536}]);
        }
        change(s);
    })
}

#[test]
fn a_user_namespace_is_taken_and_told() {
    let raised = KernelSupport { may_raise_limits: true, ..host() };
    let admission = decide(with_users(|_| {}), &raised, &Observations::default()).unwrap();
    let namespace = admission.user_namespace().unwrap();
    assert_eq!((namespace.root(), namespace.host_user(1000, 5)), ((65536, 65536), (66536, 65541)));
    let told = admission.summary().sandbox;
    assert!(told.iter().any(|(key, value)| key == "user namespace" && value.contains("65536")), "{told:?}");
    let several = json!([
        {"containerID": 1000, "hostID": 70000, "size": 10},
        {"containerID": 0, "hostID": 90000, "size": 1},
    ]);
    let several = with_users(|s| s["linux"]["uidMappings"] = several);
    let namespace = decide(several, &raised, &Observations::default()).unwrap().user_namespace().unwrap().clone();
    assert_eq!(
        (namespace.root().0, namespace.host_user(1005, 0).0, namespace.host_user(7, 0).0),
        (90000, 70005, 90000)
    );
    // Its root may raise no limit, whatever the shim may.
    let limits = &admission.bundle().process.rlimits;
    assert!(!limits.is_empty() && limits.values().all(|(_, hard)| *hard <= 512), "{limits:?}");

    let of = |uid: u32| process(json!({"cwd": "/", "args": ["x"], "user": {"uid": uid, "gid": 0}}));
    assert!(admission.decide_exec(&of(65535)).is_ok());
    let error = admission.decide_exec(&of(65536)).unwrap_err().to_string();
    assert!(error.contains("65536 is not mapped"), "{error}");
}

#[test]
fn user_namespaces_that_are_none_are_refused() {
    fn one(container: u32, host: u32, size: u32) -> Value {
        json!([{"containerID": container, "hostID": host, "size": size}])
    }
    fn volume(s: &mut Value, mount: Value) {
        s["mounts"].as_array_mut().unwrap().push(mount);
    }
    type Change = fn(&mut Value);
    let cases: &[(&str, Change)] = &[
        ("linux.uidMappings: 0 ranges", |s| s["linux"]["uidMappings"] = json!([])),
        ("linux.gidMappings: 0 ranges", |s| s["linux"]["gidMappings"] = Value::Null),
        ("id 1 of the container would be root of the host", |s| {
            s["linux"]["uidMappings"] =
                json!([{"containerID": 0, "hostID": 9, "size": 1}, {"containerID": 1, "hostID": 0, "size": 1}]);
        }),
        ("root of the container would be root of the host", |s| s["linux"]["gidMappings"] = one(0, 0, 65536)),
        ("id 0 of the container is not mapped", |s| s["linux"]["uidMappings"] = one(1, 65536, 65536)),
        ("0 ids from 65536 on are no range", |s| s["linux"]["uidMappings"] = one(0, 65536, 0)),
        ("are no range", |s| s["linux"]["uidMappings"] = one(0, u32::MAX, 2)),
        ("process.user.gid: 70000 is not mapped", |s| {
            s["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [70000]})
        }),
        ("mounts[/v]: uidMappings and gidMappings belong together", |s| {
            volume(
                s,
                json!({"destination": "/v", "type": "bind", "source": "/srv/v", "uidMappings": one(0, 65536, 9)}),
            );
        }),
        ("mounts[/v]: only bind mounts", |s| {
            volume(s, json!({"destination": "/v", "type": "tmpfs", "source": "tmpfs", "options": ["idmap"]}));
        }),
        ("a user namespace cannot be combined with the host's namespaces", |s| {
            s["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "network");
        }),
    ];
    for (words, change) in cases {
        let (_, text) = refusal(with_users(change), &host(), &Observations::default());
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let facts = Observations {
        namespaces: [(NamespaceKind::User, Joined { file: FileId { device: 4, inode: 1 }, is_hosts: true })].into(),
        other_devices: vec!["/dev/fuse".into()],
        ..Observations::default()
    };
    let (_, text) = refusal(with_users(|_| {}), &host(), &facts);
    for words in ["the user namespace is the host's", "linux.devices[/dev/fuse]: is another device on the host"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let none = KernelSupport { user_namespaces: false, ..host() };
    let (reason, text) = refusal(with_users(|_| {}), &none, &Observations::default());
    assert!(reason == Reason::Unsupported && text.contains("user.max_user_namespaces"), "{text}");
    // Without one, owners can be mapped by the mount's own ranges alone.
    let (_, text) = refusal(
        spec(|s| volume(s, json!({"destination": "/v", "type": "bind", "source": "/srv/v", "options": ["idmap"]}))),
        &host(),
        &Observations::default(),
    );
    assert!(text.contains("mounts[/v]: ids are to be mapped, and no mapping is given"), "{text}");
}

/// Words that specs are made of, and that attackers put where they do not belong.
fn text() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "/",
        "/proc",
        "/proc/self",
        "/dev",
        "/dev/shm",
        "/sys",
        "/sys/fs/cgroup",
        "/etc",
        "/srv/v",
        "/../x",
        "//a/./b",
        "relative",
        "",
        "proc",
        "sysfs",
        "tmpfs",
        "devpts",
        "mqueue",
        "cgroup",
        "cgroup2",
        "bind",
        "overlay",
        "bpf",
        "ro",
        "rw",
        "rro",
        "rrw",
        "rbind",
        "rshared",
        "shared",
        "rslave",
        "suid",
        "rsuid",
        "dev",
        "exec",
        "nosuid",
        "remount",
        "size=1m",
        "mode=755",
        "lowerdir=/etc",
        "context=x",
        "newinstance",
        "gid=5",
        "idmap",
        "ridmap",
        "a\0b",
        "x\ny",
        "/var/lib/kubelet/pods/u/volumes/kubernetes.io~secret/s",
        "/proc/1/ns/net",
        "../../x",
        "memory.max",
        "c",
        "b",
        "rwm",
    ];
    prop_oneof![4 => proptest::sample::select(WORDS).prop_map(str::to_owned), 1 => "[ -~]{0,12}"]
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(text(), 0..5)
}

/// A change of a spec: where, and to what.
fn change() -> impl Strategy<Value = (String, Value)> {
    let mount = (text(), text(), text(), texts()).prop_map(|(destination, kind, source, options)| {
        json!({"destination": destination, "type": kind, "source": source, "options": options})
    });
    let device = (text(), text(), -2i64..20, -2i64..20)
        .prop_map(|(path, kind, major, minor)| json!({"path": path, "type": kind, "major": major, "minor": minor}));
    prop_oneof![
        6 => mount.prop_map(|mount| ("/mounts/-".to_owned(), mount)),
        1 => device.prop_map(|device| ("/linux/devices/-".to_owned(), device)),
        1 => (text(), text()).prop_map(|(kind, path)| ("/linux/namespaces/-".to_owned(), json!({"type": kind, "path": path}))),
        1 => text().prop_map(|path| ("/linux/cgroupsPath".to_owned(), json!(path))),
        1 => text().prop_map(|path| ("/root/path".to_owned(), json!(path))),
        1 => text().prop_map(|cwd| ("/process/cwd".to_owned(), json!(cwd))),
        1 => texts().prop_map(|paths| ("/linux/maskedPaths".to_owned(), json!(paths))),
        1 => (text(), text()).prop_map(|(key, value)| ("/linux/sysctl".to_owned(), json!({key: value}))),
        1 => (text(), text()).prop_map(|(key, value)| ("/linux/resources/unified".to_owned(), json!({key: value}))),
        1 => (text(), text()).prop_map(|(key, value)| ("/annotations".to_owned(), json!({key: value}))),
        1 => Just(("/process/scheduler".to_owned(), json!({"policy": "SCHED_DEADLINE"}))),
        1 => Just(("/linux/intelRdt".to_owned(), json!({"closID": "../x"}))),
        1 => Just(("/linux/rootfsPropagation".to_owned(), json!("shared"))),
    ]
}

fn apply(spec: &mut Value, (pointer, value): (String, Value)) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let mut at = spec;
    for name in parent.split('/').skip(1) {
        at = &mut at[name];
    }
    match key {
        "-" if at.is_null() => *at = json!([value]),
        "-" => at.as_array_mut().unwrap().push(value),
        key => at[key] = value,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever goes in: what libcontainer gets has known file systems, flags and fields, and no path that
    /// was not judged or prepared.
    #[test]
    fn the_spec_that_is_written_has_nothing_but_what_was_decided(changes in proptest::collection::vec(change(), 0..4)) {
        let mut asked: Value = serde_json::from_str(CONTAINERD).unwrap();
        asked["process"]["args"] = json!(["/bin/true"]);
        changes.into_iter().for_each(|change| apply(&mut asked, change));
        let Ok(spec) = serde_json::from_value(asked) else { return Ok(()) };
        let Ok(admission) = decide(spec, &host(), &Observations::default()) else { return Ok(()) };
        let written = serde_json::to_value(written(&admission)).unwrap();
        let keys: Vec<&str> = written.as_object().unwrap().keys().map(String::as_str).collect();
        prop_assert!(keys.iter().all(|key| ["ociVersion", "root", "mounts", "process", "hostname", "domainname", "linux"].contains(key)), "{keys:?}");
        let linux: Vec<&str> = written["linux"].as_object().unwrap().keys().map(String::as_str).collect();
        let known = ["namespaces", "devices", "sysctl", "maskedPaths", "readonlyPaths", "uidMappings", "gidMappings"];
        prop_assert!(linux.iter().all(|key| known.contains(key)), "{linux:?}");
        prop_assert_eq!(&written["root"]["path"], "/rootfs");
        prop_assert_eq!(&written["process"]["cwd"], "/");
        for mount in written["mounts"].as_array().unwrap() {
            let (at, kind) = (mount["destination"].as_str().unwrap(), mount["type"].as_str().unwrap());
            prop_assert!(at.starts_with('/') && at != "/" && !at.split('/').any(|part| part == ".."), "{mount}");
            let source = mount["source"].as_str().unwrap();
            match kind {
                "bind" => prop_assert!(source.starts_with("/mounts/") || source == "/mounts/cgroup", "{mount}"),
                "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue" => prop_assert_eq!(source, kind),
                _ => prop_assert!(false, "{}", mount),
            }
            prop_assert!(!at.starts_with("/proc/") && (at != "/proc" || kind == "proc") && (at != "/dev" || kind == "tmpfs"), "{mount}");
            for option in mount["options"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let widens = ["rw", "suid", "dev", "exec", "shared", "rshared", "rrw", "rsuid", "rdev", "rexec", "remount"];
                prop_assert!(!widens.contains(&option), "{mount}");
            }
        }
        let bundle = admission.bundle();
        for (_, mount, _) in bundle.volumes() {
            for flag in [MountFlag::NoSuid, MountFlag::NoDev] {
                prop_assert!(mount.flags.contains(flag) && mount.recursive_flags.contains(flag));
            }
            prop_assert_eq!(mount.flags.contains(MountFlag::ReadOnly), mount.recursive_flags.contains(MountFlag::ReadOnly));
        }
        prop_assert!(bundle.cgroup.to_string().len() > 1 && !bundle.cgroup.to_string().contains(".."));
        for node in &bundle.devices {
            prop_assert!(node.path.starts_with("/dev/"), "{node:?}");
        }
        let lists = [&bundle.masked_paths, &bundle.read_only_paths];
        prop_assert!(lists.iter().all(|paths| paths.iter().all(|path| path.starts_with('/') && !path.contains("/.."))));
        prop_assert!(["/proc/kcore", "/sys/firmware"].iter().all(|path| bundle.masked_paths.iter().any(|masked| masked == path)));
    }
}
