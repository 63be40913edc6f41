//! The decision, area by area: what each refuses, and what it hands on.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::collections::BTreeSet;
use std::path::Path;

use hardened_sandbox::bundle::{DeviceRule, FileId, Mount, MountFlag, MountKind, NamespaceKind};
use hardened_sandbox::policy::{Policy, Source};
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{
    Admission, AppArmor, Joined, KernelSupport, Location, Observations, ProcessRequest, Refusal, VolumeSource, judge,
};
use serde_json::{Value, json};

const CONTAINERD: &str = include_str!("../fuzz/corpus/decide/containerd-default.json");

fn on(
    kernel: &KernelSupport,
    observed: &Observations,
    policy: &str,
    change: impl FnOnce(&mut Value),
) -> Result<Admission, Refusal> {
    let mut spec: Value = serde_json::from_str(CONTAINERD).unwrap();
    change(&mut spec);
    let file = Source::new("policy.toml".into(), policy.to_owned());
    let policy = Policy::parse(&[file], &|_| Err("not read".to_owned()), Arch::X86_64).unwrap();
    judge(&serde_json::from_value(spec).unwrap(), &policy, kernel, observed)
}

fn by(policy: &str, change: impl FnOnce(&mut Value)) -> Result<Admission, Refusal> {
    on(&KernelSupport::assumed(), &Observations::none(None), policy, change)
}

/// A policy whose one profile extends another one.
fn profile(base: &str, keys: &str) -> String {
    format!("default = \"p\"\n[profile.p]\nextends = \"{base}\"\n{keys}\n")
}

/// The fields that are refused, as the spec has them.
fn fields<T>(result: Result<T, Refusal>) -> Vec<String> {
    let refusal = result.err().map(|refusal| refusal.violations().iter().map(|v| v.field.clone()).collect());
    refusal.unwrap_or_default()
}

/// All that is refused, in words.
fn words<T>(result: Result<T, Refusal>) -> String {
    result.err().map(|refusal| refusal.to_string()).unwrap_or_default()
}

fn push(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

fn bind(at: &str, source: &str, options: &[&str]) -> Value {
    let options = [&["rbind"], options].concat();
    json!({"destination": at, "type": "bind", "source": source, "options": options})
}

fn mount_at<'a>(admission: &'a Admission, at: &str) -> &'a Mount {
    admission.bundle().mounts.iter().find(|mount| mount.destination == Path::new(at)).unwrap()
}

/// A folder, as it was found on the node.
fn found(path: &str, location: Option<Location>) -> VolumeSource {
    let file = FileId { device: 1, inode: 2 };
    VolumeSource { path: path.into(), file, is_directory: true, location, known_as: None, below: Vec::new() }
}

const NONE: [String; 0] = [];

/// A pod's container: its volumes are known by the pod's uid.
fn of_pod(spec: &mut Value) {
    spec["annotations"] = json!({
        "io.kubernetes.cri.sandbox-uid": "u", "io.kubernetes.cri.sandbox-id": "box",
        "io.kubernetes.cri.container-name": "web", "io.kubernetes.cri.sandbox-name": "web-1",
    });
}

#[test]
fn devices_are_the_standard_ones_and_the_profiles() {
    let fuse = json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229});
    let disk = json!({"path": "/dev/sda", "type": "b", "major": 8, "minor": 0});
    let ask = |policy: &str, devices: &[&Value], rules: Value| {
        by(policy, |spec| {
            spec["linux"]["devices"] = json!(devices);
            spec["linux"]["resources"]["devices"] = rules;
        })
    };
    let with_fuse = profile("baseline", "host.devices = [\"c 10:229\"]");
    let no_rules = || json!([]);
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, 4)] {
        let node = json!({"path": "/dev/x", "type": "c", "major": major, "minor": minor});
        assert_eq!(fields(ask("", &[&node], no_rules())), NONE, "{major}:{minor}");
        let block = json!({"path": "/dev/x", "type": "b", "major": major, "minor": minor});
        assert_eq!(fields(ask("", &[&block], no_rules())), ["linux.devices"], "{major}:{minor}");
    }
    for (major, minor) in [(1, 1), (1, 4), (5, 1), (3, 3), (137, 4)] {
        let node = json!({"path": "/dev/x", "type": "c", "major": major, "minor": minor});
        assert_eq!(fields(ask("", &[&node], no_rules())), ["linux.devices"], "{major}:{minor}");
    }
    assert_eq!(fields(ask(&with_fuse, &[&fuse], no_rules())), NONE);
    assert_eq!(fields(ask(&with_fuse, &[&fuse, &disk], no_rules())), ["linux.devices"]);
    // What is admitted is made; the cgroup's rules deny all but that.
    let fuse_rule = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"});
    let making = json!({"allow": true, "access": "m"});
    let admission = ask(&with_fuse, &[&fuse], json!([{"allow": false, "access": "rwm"}, making, fuse_rule]));
    let admission = admission.unwrap();
    assert_eq!(admission.bundle().devices.len(), 1);
    let rules = &admission.bundle().device_rules;
    let all = |allow| DeviceRule { allow, block: None, major: None, minor: None, access: "rwm".to_owned() };
    assert_eq!(rules.first(), Some(&all(false)));
    assert!(rules.iter().skip(1).all(|rule| rule.allow && rule.block == Some(false)), "{rules:?}");
    let granted: Vec<_> = rules.iter().filter_map(|rule| Some((rule.major?, rule.minor))).collect();
    let standard = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)].map(|(major, minor)| (major, Some(minor)));
    assert_eq!(granted, [&standard[..], &[(136, None), (10, Some(229))]].concat());
    // A rule that the profile does not give, and those that everybody's spec has.
    let rule = |rule: Value| ask("", &[], json!([{"allow": false, "access": "rwm"}, rule]));
    for (wanted, refused) in [
        (json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}), false),
        (json!({"allow": true, "type": "c", "major": 5, "minor": 1, "access": "rw"}), false),
        (json!({"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"}), false),
        (json!({"allow": true, "access": "m"}), false),
        (json!({"allow": true, "type": "b", "major": 5, "minor": 1, "access": "rw"}), true),
        (json!({"allow": true, "type": "c", "major": 5, "minor": 3, "access": "rw"}), true),
        (json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}), true),
        (json!({"allow": true, "type": "c", "access": "rw"}), true),
        (json!({"allow": true, "type": "c", "major": 1, "access": "rw"}), true),
        (json!({"allow": true, "major": 1, "minor": 3, "access": "rw"}), true),
    ] {
        assert_eq!(!fields(rule(wanted.clone())).is_empty(), refused, "{wanted}");
    }
    let kept = rule(json!({"allow": true, "type": "c", "major": 5, "minor": 1, "access": "rw"})).unwrap();
    assert!(!kept.bundle().device_rules.iter().any(|rule| (rule.major, rule.minor) == (Some(5), Some(1))));
    // Nodes are made in /dev itself, and not in what is mounted below.
    let in_volume = |at: &str| {
        fields(by("", |spec| {
            spec["linux"]["devices"] = json!([{"path": "/dev/x/null", "type": "c", "major": 1, "minor": 3}]);
            push(spec, json!({"destination": at, "type": "tmpfs", "source": "tmpfs"}));
        }))
    };
    assert_eq!((in_volume("/dev/x"), in_volume("/dev/y").len()), (vec!["linux.devices[/dev/x/null]".to_owned()], 0));
    // Four are named.
    let many: Vec<Value> =
        (0..6).map(|n| json!({"path": format!("/dev/d{n}"), "type": "c", "major": 9, "minor": n})).collect();
    let told = words(ask("", &many.iter().collect::<Vec<_>>(), no_rules()));
    assert!(told.contains("/dev/d3 (9:3) and 2 more") && !told.contains("d4"), "{told}");
    assert!(!words(ask("", &many.iter().take(4).collect::<Vec<_>>(), no_rules())).contains("more"));
}

#[test]
fn what_the_runtime_sets_up_itself_is_mounted_once_and_in_its_place() {
    let refused = |mount: Value| !fields(by("", |spec| push(spec, mount))).is_empty();
    let of = |kind: &str, at: &str| json!({"destination": at, "type": kind, "source": kind, "options": ["ro"]});
    for (kind, at, is_refused) in [
        ("tmpfs", "/proc", true),
        ("tmpfs", "/sys", true),
        ("proc", "/dev", true),
        ("proc", "/p", true),
        ("sysfs", "/s", true),
        ("tmpfs", "/proc/x", true),
        ("tmpfs", "/procx", false),
        ("tmpfs", "/t", false),
        ("cgroup", "/sys/fs/cgroup", false),
        ("mqueue", "/q", false),
    ] {
        assert_eq!(refused(of(kind, at)), is_refused, "{kind} at {at}");
    }
    for kind in ["sysfs", "cgroup"] {
        let at = if kind == "sysfs" { "/sys" } else { "/sys/fs/cgroup" };
        let writable = |policy: &str| {
            by(policy, |spec| {
                spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != at);
                push(spec, json!({"destination": at, "type": kind, "source": kind, "options": ["rw"]}));
            })
        };
        assert_eq!(fields(writable("")), [format!("mounts[{at}]")], "{kind}");
    }
    assert_eq!(
        fields(by("", |spec| spec["linux"]["rootfsPropagation"] = json!("shared"))),
        ["linux.rootfsPropagation"]
    );
    let shared = by(&profile("compatible", ""), |spec| push(spec, bind("/s", "/srv", &["rshared"])));
    assert_eq!(fields(shared), ["mounts[/s]"]);
    // Without a /dev of its own a container gets one, and only one.
    let devs = |admission: Admission| {
        let devs = admission.bundle().mounts.iter().filter(|mount| mount.destination == Path::new("/dev"));
        devs.map(|mount| mount.flags.clone()).collect::<Vec<_>>()
    };
    assert_eq!(devs(by("", |_| {}).unwrap()).len(), 1);
    let others =
        |spec: &mut Value| spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] == "/proc");
    assert_eq!(devs(by("", others).unwrap()).len(), 1);
    let added = devs(by("", |spec| spec["mounts"] = json!([])).unwrap());
    assert!(added.len() == 1 && added[0].contains(MountFlag::NoSuid) && added[0].contains(MountFlag::NoExec));
}

#[test]
fn mounts_lose_the_flags_that_give_rights() {
    let admission = |policy: &str| {
        by(policy, |spec| {
            of_pod(spec);
            let bare = |kind: &str, at: &str| json!({"destination": at, "type": kind, "source": kind});
            for mount in
                [bare("tmpfs", "/t"), bare("mqueue", "/q"), bare("devpts", "/pts"), bare("tmpfs", "/dev/shm/x")]
            {
                push(spec, mount);
            }
            let volumes = "/var/lib/kubelet/pods/u/volumes";
            push(spec, bind("/data", &format!("{volumes}/kubernetes.io~empty-dir/d"), &[]));
            push(spec, bind("/secret", &format!("{volumes}/kubernetes.io~secret/s"), &[]));
            push(spec, bind("/read", &format!("{volumes}/kubernetes.io~empty-dir/d"), &["ro"]));
        })
        .unwrap()
    };
    use MountFlag::{NoDev, NoExec, NoSuid, ReadOnly};
    let told = |admission: &Admission, at: &str| {
        let mount = mount_at(admission, at);
        let of = |flags: &hardened_sandbox::bundle::MountFlags| {
            [ReadOnly, NoSuid, NoDev, NoExec].map(|flag| flags.contains(flag))
        };
        (of(&mount.flags), of(&mount.recursive_flags))
    };
    let (baseline, restricted) = (admission(""), admission(&profile("restricted", "")));
    let (no, none) = (false, [false; 4]);
    assert_eq!(told(&baseline, "/t"), ([no, true, true, no], none));
    assert_eq!(told(&restricted, "/t"), ([no, true, true, true], none));
    assert_eq!(told(&baseline, "/dev/shm/x"), ([no, true, true, no], none));
    assert_eq!(told(&baseline, "/dev"), ([no, true, no, no], none));
    assert_eq!(told(&baseline, "/q"), ([no, true, true, true], none));
    assert_eq!(told(&baseline, "/pts"), ([no, true, no, true], none));
    assert_eq!(told(&baseline, "/sys"), ([true; 4], none));
    assert_eq!(told(&baseline, "/proc"), ([no, true, true, true], none));
    assert_eq!(told(&baseline, "/data"), ([no, true, true, no], [no, true, true, no]));
    assert_eq!(told(&baseline, "/secret"), ([true, true, true, no], [true, true, true, no]));
    assert_eq!(told(&baseline, "/read"), ([true, true, true, no], [true, true, true, no]));
    assert_eq!(told(&restricted, "/data"), ([no, true, true, true], [no, true, true, true]));
    assert_eq!(told(&restricted, "/secret"), ([true, true, true, no], [true, true, true, no]));
    let notes =
        |admission: &Admission, field: &str| admission.notes().iter().filter(|note| note.field == field).count();
    assert_eq!((notes(&baseline, "mounts[/secret]"), notes(&baseline, "mounts[/read]")), (1, 0));
}

#[test]
fn read_only_reaches_below_unless_the_whole_host_is_granted() {
    let below = |paths: &str| {
        let policy = profile("baseline", paths);
        let admission = by(&policy, |spec| push(spec, bind("/s", "/srv", &["ro"]))).unwrap();
        mount_at(&admission, "/s").recursive_flags.contains(MountFlag::ReadOnly)
    };
    assert!(below("host.paths = { \"/srv\" = \"read-only\" }"));
    assert!(below("host.paths = { \"/srv\" = \"read-write\" }"));
    assert!(!below("host.other-paths = \"read-write\""));
    assert!(below("host.other-paths = \"read-write\"\nhost.paths = { \"/srv\" = \"read-only\" }"));
}

#[test]
fn the_hosts_shared_memory_comes_with_its_ipc_namespace() {
    let ask = |policy: &str, at: &str, source: &str| {
        by(policy, |spec| {
            spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/shm");
            spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "ipc");
            push(spec, bind(at, source, &[]));
        })
    };
    let shared = profile("baseline", "host.namespaces = [\"ipc\"]");
    assert_eq!(fields(ask(&shared, "/dev/shm", "/dev/shm")), NONE);
    for (at, source) in [("/dev/shm", "/srv"), ("/shm", "/dev/shm"), ("/shm", "/srv")] {
        assert_eq!(fields(ask(&shared, at, source)), [format!("mounts[{at}]")], "{at} {source}");
    }
    // Where the namespace is refused, that follows.
    let refused = ask("", "/dev/shm", "/dev/shm").unwrap_err();
    let told =
        |violations: &[hardened_sandbox::Violation]| violations.iter().map(|v| v.field.clone()).collect::<Vec<_>>();
    assert_eq!(told(refused.violations()), ["linux.namespaces"]);
    assert_eq!(told(refused.implied()), ["mounts[/dev/shm]"]);
    // Of a container with an IPC namespace, it is the host's memory.
    let own = by(&shared, |spec| {
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/shm");
        push(spec, bind("/dev/shm", "/srv", &[]));
    });
    assert_eq!(fields(own), ["mounts[/dev/shm]"]);
}

#[test]
fn a_name_and_a_sysctl_are_the_containers_own_namespaces() {
    let shares = |policy: &str, kinds: &[&str], change: &dyn Fn(&mut Value)| {
        fields(by(policy, |spec| {
            let all = ["mount", "pid", "ipc", "uts", "network"];
            let own = all.into_iter().filter(|kind| !kinds.contains(kind)).map(|kind| json!({"type": kind}));
            spec["linux"]["namespaces"] = own.collect();
            change(spec);
        }))
    };
    let host = profile("baseline", "host.namespaces = [\"network\", \"ipc\", \"pid\"]\nhost.sysctls = [\"*\"]");
    for key in ["hostname", "domainname"] {
        assert_eq!(shares(&host, &["uts"], &|spec| spec[key] = json!("x")), ["hostname"], "{key}");
        assert_eq!(shares(&host, &[], &|spec| spec[key] = json!("x")), NONE, "{key}");
    }
    assert_eq!(shares(&host, &["uts"], &|_| {}), NONE);
    for (sysctl, kind) in [
        ("net.ipv4.ip_forward", "network"),
        ("kernel.shmmax", "ipc"),
        ("kernel.msgmax", "ipc"),
        ("kernel.sem", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("kernel.hostname", "uts"),
        ("kernel.domainname", "uts"),
    ] {
        let set = |kinds: &[&str]| shares(&host, kinds, &|spec| spec["linux"]["sysctl"] = json!({sysctl: "1"}));
        assert_eq!(set(&[]), NONE, "{sysctl}");
        assert_eq!(set(&[kind]), [format!("linux.sysctl[{sysctl}]")]);
        let others = ["network", "ipc", "uts"].into_iter().filter(|other| *other != kind).collect::<Vec<_>>();
        assert_eq!(set(&others), NONE, "{sysctl} with {others:?}");
    }
    assert_eq!(shares(&host, &[], &|spec| spec["linux"]["sysctl"] = json!({"vm.swappiness": "1"})).len(), 1);
    assert_eq!(shares("", &[], &|spec| spec["linux"]["sysctl"] = json!({"net.core.somaxconn": "1"})).len(), 1);
    // Of each namespace that is the host's the pod's field is named, once.
    let told = words(by("", |spec| spec["linux"]["namespaces"] = json!([{"type": "mount"}])));
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        assert_eq!(told.matches(&format!("set {field}: false")).count(), 1, "{told}");
    }
    // A namespace that a path leads to is the host's where it was found so.
    let joins = |is_hosts: bool| {
        let joined = Joined { file: FileId { device: 4, inode: 7 }, is_hosts };
        let observed =
            Observations { namespaces: [(NamespaceKind::Network, joined)].into(), ..Observations::none(None) };
        on(&KernelSupport::assumed(), &observed, "", |spec| {
            spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "network", "path": "/proc/1/ns/net"}]);
        })
    };
    assert_eq!((fields(joins(true)), fields(joins(false)).len()), (vec!["linux.namespaces".to_owned()], 0));
}

#[test]
fn users_are_those_that_every_profile_takes() {
    let ask = |keys: &str, uid: u32, gid: u32, more: &[u32]| {
        by(&profile("baseline", keys), |spec| {
            spec["process"]["user"] = json!({"uid": uid, "gid": gid, "additionalGids": more});
        })
    };
    let ranges = "[profile.p.user]\nnon-root = true\nuids = [[5, 9], [20, 20]]\ngids = [[5, 9]]";
    for (uid, gid, more, refused) in [
        (5, 5, &[9][..], &[][..]),
        (9, 9, &[], &[]),
        (20, 5, &[], &[]),
        (0, 5, &[], &["process.user.uid", "process.user.uid"]),
        (4, 5, &[], &["process.user.uid"]),
        (10, 5, &[], &["process.user.uid"]),
        (5, 10, &[], &["process.user.gid"]),
        (5, 5, &[4], &["process.user.gid"]),
    ] {
        assert_eq!(fields(ask(ranges, uid, gid, more)), refused, "{uid} {gid} {more:?}");
    }
    let told = words(ask(ranges, 4, 4, &[]));
    assert!(told.contains("4; the profile allows 5 to 9, 20 to 20") && told.contains("4; the profile allows 5 to 9"));
    assert_eq!(fields(ask("[profile.p.user]\nnon-root = true", 7, 0, &[])), NONE);
    assert_eq!(fields(ask("", 0, 0, &[])), NONE);
    assert_eq!(fields(ask("[profile.p.user]\nown-namespace = true", 0, 0, &[])), ["linux.namespaces"]); // In a user namespace, those that are mapped: at most as many ranges as the kernel takes.
    let mapped = |ranges: u32, uid: u32| {
        by("", |spec| {
            let range = |n: u32| json!({"containerID": n * 10, "hostID": 100_000 + n * 10, "size": 10});
            let ranges: Vec<Value> = (0..ranges).map(range).collect();
            spec["linux"]["uidMappings"] = json!(ranges);
            spec["linux"]["gidMappings"] = json!([range(0)]);
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            spec["process"]["user"]["uid"] = json!(uid);
        })
    };
    assert_eq!(
        (fields(mapped(340, 3_399)), fields(mapped(341, 0))),
        (NONE.to_vec(), vec!["linux.uidMappings".to_owned()])
    );
    let told = words(mapped(2, 20));
    assert!(told.contains("20 is not mapped; the user namespace has the ids 0 to 9, 10 to 19"), "{told}");
    let namespace = mapped(2, 0).unwrap();
    let namespace = namespace.user_namespace().unwrap();
    assert_eq!((namespace.root(), namespace.host_user(15, 5)), ((100_000, 100_000), (100_015, 100_005)));
    assert_eq!(namespace.host_user(99, 99), namespace.root(), "who is nobody there is its root");
}

#[test]
fn limits_are_bounded_by_the_profile_and_by_what_the_shim_may_set() {
    let limits = |kernel: &KernelSupport, keys: &str, mapped: bool, asked: &[(&str, u64, u64)]| {
        let admission = on(kernel, &Observations::none(None), &profile("baseline", keys), |spec| {
            let asked = asked.iter().map(|(name, soft, hard)| json!({"type": name, "soft": soft, "hard": hard}));
            spec["process"]["rlimits"] = asked.collect();
            if mapped {
                let ranges = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
                spec["linux"]["uidMappings"] = ranges.clone();
                spec["linux"]["gidMappings"] = ranges;
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            }
        });
        let admission = admission.unwrap();
        let notes = admission.notes().iter().filter(|note| note.field.starts_with("process.rlimits")).count();
        (admission.bundle().process.rlimits.clone().into_iter().collect::<Vec<_>>(), notes)
    };
    let rich = KernelSupport { hard_limits: [("RLIMIT_NOFILE".to_owned(), 512)].into(), ..KernelSupport::assumed() };
    let poor = KernelSupport { may_raise_limits: false, ..rich.clone() };
    let files = |soft: u64, hard: u64| vec![("RLIMIT_NOFILE".to_owned(), (soft, hard))];
    let bounded = "limits = { RLIMIT_NOFILE = 100 }";
    for (asked, expected, notes) in [
        (&[("RLIMIT_NOFILE", 50, 99)][..], files(50, 99), 0),
        (&[("RLIMIT_NOFILE", 50, 100)], files(50, 100), 0),
        (&[("RLIMIT_NOFILE", 50, 101)], files(50, 100), 1),
        (&[("RLIMIT_NOFILE", 101, 101)], files(100, 100), 1),
        (&[], files(100, 100), 1),
    ] {
        assert_eq!(limits(&rich, bounded, false, asked), (expected, notes), "{asked:?}");
    }
    for (kernel, mapped, hard, expected, notes) in [
        (&rich, false, 513, 513, 0),
        (&poor, false, 512, 512, 0),
        (&poor, false, 513, 512, 1),
        (&rich, true, 513, 512, 1),
    ] {
        let given = limits(kernel, "", mapped, &[("RLIMIT_NOFILE", hard, hard)]);
        assert_eq!(given, (files(expected, expected), notes), "{hard} {mapped}");
    }
    let nice = |keys: &str, hard: u64| limits(&rich, keys, false, &[("RLIMIT_NICE", 0, hard)]);
    let priority = |hard: u64| vec![("RLIMIT_NICE".to_owned(), (0, hard))];
    assert_eq!(nice("", 5), (priority(0), 1));
    assert_eq!(nice("", 0), (priority(0), 0));
    assert_eq!(nice("capabilities.add = [\"SYS_NICE\"]", 5), (priority(5), 0));
    let score = |score: i32| {
        let admission = by("", |spec| spec["process"]["oomScoreAdj"] = json!(score)).unwrap();
        let notes = admission.notes().iter().filter(|note| note.field == "process.oomScoreAdj").count();
        (admission.bundle().oom_score_adj, notes)
    };
    assert_eq!([score(-999), score(-998), score(-997)], [(Some(-998), 1), (Some(-998), 0), (Some(-997), 0)]);
}

#[test]
fn labels_are_the_nodes_with_those_that_the_pod_may_have() {
    let loaded = |names: &[&str]| KernelSupport {
        apparmor: AppArmor::On(names.iter().map(|name| (*name).to_owned()).collect()),
        selinux: false,
        ..KernelSupport::assumed()
    };
    let ask = |kernel: &KernelSupport, keys: &str, name: &str| {
        let base = if keys == "raw" { profile("compatible", "") } else { profile("baseline", keys) };
        on(kernel, &Observations::none(None), &base, |spec| spec["process"]["apparmorProfile"] = json!(name))
    };
    let labels = |admission: Result<Admission, Refusal>| admission.unwrap().plan().apparmor.clone();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let node = loaded(&["hardened", "hardened-raw", "mine", "extra"]);
    assert_eq!(labels(ask(&node, "", "mine")), set(&["hardened", "mine"]));
    assert_eq!(labels(ask(&node, "", "unconfined")), set(&["hardened"]));
    assert_eq!(labels(ask(&node, "raw", "runtime/default")), set(&["hardened-raw"]));
    assert_eq!(labels(ask(&node, "labels.apparmor = \"extra\"", "mine")), set(&["hardened", "mine", "extra"]));
    let few = loaded(&["hardened"]);
    assert_eq!(fields(ask(&few, "", "mine")), ["process.apparmorProfile"]);
    assert_eq!(fields(ask(&few, "raw", "")), ["node"]);
    assert_eq!(fields(ask(&few, "labels.apparmor = \"extra\"", "")), ["node"]);
    assert_eq!(fields(ask(&few, "", "hardened")), NONE);
    let off = KernelSupport { apparmor: AppArmor::Off, ..few.clone() };
    assert_eq!(fields(ask(&off, "", "")), NONE);
    assert_eq!(fields(ask(&off, "", "mine")), ["process.apparmorProfile"]);
    assert_eq!(fields(ask(&off, "labels.apparmor = \"extra\"", "")), ["node"]);
    // Files of a container are labelled where the kernel runs SELinux.
    let files = |kernel: &KernelSupport| {
        on(kernel, &Observations::none(None), "", |spec| {
            spec["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0:c1,c2");
        })
    };
    assert_eq!(fields(files(&node)), ["linux.mountLabel"]);
    let files = files(&KernelSupport::assumed()).unwrap();
    assert_eq!(files.bundle().files_label.as_deref(), Some("system_u:object_r:container_file_t:s0:c1,c2"));
    assert_eq!(files.plan().selinux.as_deref(), Some("system_u:system_r:container_t:s0:c1,c2"));
    let noted = |kernel: &KernelSupport, name: &str| {
        let admission = ask(kernel, "", name).unwrap();
        admission.notes().iter().any(|note| note.field == "process.apparmorProfile")
    };
    assert_eq!((noted(&node, "unconfined"), noted(&off, "unconfined"), noted(&node, "")), (true, false, false));
    // A privileged pod's sandbox gets no label that it may not have; each container's is refused.
    let pause = |label: &str| {
        let admission = by("", |spec| {
            spec["annotations"] =
                json!({"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": "box"});
            spec["process"]["selinuxLabel"] = json!(label);
        });
        admission.unwrap().plan().selinux.clone().unwrap()
    };
    let own = "system_u:system_r:container_t:s0:c1,c2";
    assert_eq!(pause(own), own);
    for foreign in ["system_u:system_r:spc_t:s0", "user_u:user_r:container_t:s0"] {
        assert!(pause(foreign).starts_with("system_u:system_r:container_t:s0:c"), "{foreign}");
    }
}

#[test]
fn an_exec_has_its_own_process_and_its_containers_sandbox() {
    let keys = "[profile.p.exec]\nhidden = [\"/run/secrets\"]\nno-network = true\nprograms = [\"/bin/*\"]";
    let admission = by(&profile("baseline", keys), |spec| {
        spec["process"]["apparmorProfile"] = json!("mine");
        spec["process"]["env"] = json!(["HOME=/h"]);
    });
    let admission = admission.unwrap();
    let exec = |process: Value| {
        ProcessRequest::of_exec(process.to_string().as_bytes(), admission.identity())
            .and_then(|p| admission.decide_exec(&p))
    };
    let decided = exec(json!({
        "args": ["/bin/sh"], "cwd": "/tmp", "user": {"uid": 7, "gid": 0}, "apparmorProfile": "other",
        "selinuxLabel": "system_u:system_r:container_init_t:s0:c3,c4",
        "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]},
    }));
    let decided = decided.unwrap();
    let (own, exec_plan) = (admission.plan(), decided.plan());
    assert_eq!(exec_plan.capabilities.bounding.names().collect::<Vec<_>>(), ["CHOWN"]);
    assert_eq!(exec_plan.capabilities, decided.process().capabilities);
    let names: Vec<&str> = exec_plan.apparmor.iter().map(String::as_str).collect();
    assert_eq!(names, ["hardened", "mine", "other"]);
    assert_eq!(exec_plan.selinux.as_deref(), Some("system_u:system_r:container_init_t:s0:c3,c4"));
    assert!(
        exec_plan.exec.as_ref().is_some_and(|rules| rules.hidden == [Path::new("/run/secrets")]) && own.exec.is_none()
    );
    assert_ne!(exec_plan.seccomp, own.seccomp);
    assert_eq!((exec_plan.cwd.as_path(), exec_plan.home, own.home), (Path::new("/tmp"), Some(7), None));
    assert_eq!((exec_plan.masks.is_none(), &exec_plan.landlock), (true, &own.landlock));
    let plain = exec(json!({"args": ["/bin/sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}})).unwrap();
    assert_eq!(plain.plan().selinux, own.selinux);
    assert_eq!(fields(exec(json!({"args": ["/sbin/x"], "cwd": "/", "user": {"uid": 0, "gid": 0}}))), ["exec.args[0]"]);
    let refusing = by(&profile("baseline", "exec.refuse = true"), |_| {}).unwrap();
    let process = json!({"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let process = ProcessRequest::of_exec(process.to_string().as_bytes(), refusing.identity()).unwrap();
    let refused = refusing.decide_exec(&process).unwrap_err();
    assert!(refused.identity() == refusing.identity() && refused.by() == refusing.by());
    assert_eq!(fields::<()>(Err(refused)), ["exec"]);
}

#[test]
fn privileged_is_what_kubernetes_calls_so() {
    let ask = |capability: bool, masks: bool, sysfs: bool, devices: Value| {
        let refused = by("", |spec| {
            if capability {
                spec["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
            }
            if !masks {
                spec["linux"]["maskedPaths"] = json!([]);
            }
            if sysfs {
                spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys");
                push(spec, json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["rw"]}));
            }
            spec["linux"]["resources"]["devices"] = devices;
        });
        words(refused).contains("privileged: true is refused")
    };
    let (all, none) = (json!([{"allow": true, "access": "rwm"}]), json!([]));
    assert!(ask(true, false, true, none.clone()) && ask(true, false, false, all.clone()));
    assert!(!ask(true, false, false, none.clone()) && !ask(false, false, true, all.clone()));
    assert!(!ask(true, true, true, all) && !ask(false, true, false, none));
    for some in
        [json!([{"allow": true, "access": "r"}]), json!([{"allow": true, "type": "c", "major": 9, "access": "rwm"}])]
    {
        assert!(!ask(true, false, false, some));
    }
}

#[test]
fn rules_for_ports_need_the_landlock_that_has_them() {
    let ask = |abi: u32, keys: &str| {
        let kernel = KernelSupport { landlock_abi: abi, ..KernelSupport::assumed() };
        on(&kernel, &Observations::none(None), &profile("baseline", keys), |_| {})
    };
    for keys in ["network.bind-tcp = [80]", "network.connect-tcp = [80]"] {
        assert_eq!([fields(ask(3, keys)), fields(ask(2, keys))], [["node"], ["node"]], "{keys}");
        assert_eq!(fields(ask(4, keys)), NONE, "{keys}");
    }
    assert_eq!((fields(ask(3, "")), fields(ask(2, ""))), (NONE.to_vec(), NONE.to_vec()));
    assert_eq!(fields(ask(1, "")), ["node"]);
    let noted = |keys: &str| ask(7, keys).unwrap().notes().iter().any(|note| note.field == "linux.seccomp");
    assert!(noted("seccomp.deny = [\"sendmsg\"]") && !noted(""));
    assert!(!noted("seccomp.deny = [\"sendmsg\"]\nexplain = \"off\""));
}

#[test]
fn a_container_is_told_of_what_the_profile_adds() {
    let noted = |keys: &str, readonly: bool| {
        let admission = by(&profile("baseline", keys), |spec| spec["root"]["readonly"] = json!(readonly)).unwrap();
        (admission.bundle().root_read_only, admission.notes().iter().any(|note| note.field == "root.readonly"))
    };
    let demanded = "files.read-only-root = true";
    assert_eq!([noted("", false), noted("", true)], [(false, false), (true, false)]);
    assert_eq!([noted(demanded, false), noted(demanded, true)], [(true, true), (true, false)]);
    let memfd = |has: bool| {
        let kernel = KernelSupport { memfd_noexec: has, ..KernelSupport::assumed() };
        on(&kernel, &Observations::none(None), "", |_| {}).unwrap().bundle().memfd_noexec
    };
    assert!(memfd(true) && !memfd(false));
    let admission = on(&KernelSupport::assumed(), &Observations::none(None), "", of_pod).unwrap();
    assert_eq!(admission.identity().container.as_deref(), Some("web"));
}

#[test]
fn what_the_spec_leaves_out_is_kept_all_the_same() {
    let bare = by("", |spec| spec["linux"]["readonlyPaths"] = json!([])).unwrap();
    for path in ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"] {
        assert!(bare.bundle().read_only_paths.iter().any(|kept| kept == path), "{path}");
    }
    // What the host mounts later in a volume that is read-only has the host's flags: Landlock keeps it.
    let keys = "host.paths = { \"/srv\" = \"read-only\" }\nhost.later-mounts = true";
    let kept = |options: &[&str]| {
        let admission = by(&profile("baseline", keys), |spec| push(spec, bind("/s", "/srv", options)));
        admission.unwrap().plan().landlock.clone().unwrap().no_write
    };
    assert_eq!(kept(&["ro", "rslave"]), [Path::new("/s")]);
    assert!(kept(&["ro"]).is_empty());
    // A pod's sandbox has the host's namespaces that a container of the pod may have.
    let pause = |keys: &str| {
        by(&profile("baseline", keys), |spec| {
            spec["annotations"] = json!({"io.kubernetes.cri.container-type": "sandbox"});
            spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "network");
        })
    };
    assert!(pause("host.namespaces = [\"network\"]").is_ok());
    assert_eq!(fields(pause("")), ["linux.namespaces"]);
    let of_rule = |namespace: &str| {
        let rule = "[[rule]]\nnamespace = \"shop\"\nkind = \"container\"\nprofile = \"hosts\"\n";
        let policy = format!("[profile.hosts]\nhost.namespaces = [\"network\"]\n{rule}");
        by(&policy, |spec| {
            spec["annotations"] = json!({
                "io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-namespace": namespace,
            });
            spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "network");
        })
    };
    assert_eq!((fields(of_rule("shop")), fields(of_rule("other")).len()), (NONE.to_vec(), 1));
}

#[test]
fn a_place_is_granted_by_the_innermost_rule_around_it() {
    let at = |path: &str| Location { file_system: "8:1".into(), path: path.into() };
    let policy = profile(
        "baseline",
        "host.paths = { \"/srv\" = \"read-write\", \"/srv/ro\" = \"read-only\", \"/srv/no\" = \"deny\", \"/twin\" = \"deny\" }",
    );
    let ask = |source: &str, lies: &str, options: &[&str], untrusted: &[&str]| {
        let found = found(source, Some(at(lies)));
        let observed = Observations {
            sources: [(source.into(), found)].into(),
            places: [("/srv", "/srv"), ("/srv/ro", "/srv/ro"), ("/srv/no", "/srv/no"), ("/twin", "/srv/twin")]
                .map(|(path, place)| (path.into(), at(place)))
                .into(),
            untrusted: untrusted.iter().map(Into::into).collect(),
            ..Observations::none(None)
        };
        !fields(on(&KernelSupport::assumed(), &observed, &policy, |spec| push(spec, bind("/m", source, options))))
            .is_empty()
    };
    assert!(!ask("/srv/x", "/srv/x", &[], &[]));
    assert!(!ask("/other/name", "/srv/x", &[], &[]), "the place decides, and not the name");
    assert!(ask("/srv/x", "/elsewhere/x", &[], &[]));
    assert!(ask("/srv/ro/x", "/srv/ro/x", &[], &[]) && !ask("/srv/ro/x", "/srv/ro/x", &["ro"], &[]));
    assert!(ask("/srv/no/x", "/srv/no/x", &["ro"], &[]));
    assert!(ask("/srv", "/srv", &["ro"], &[]), "what is denied below would come along");
    assert!(ask("/srv/twin", "/srv/twin", &["ro"], &[]), "of two rules at one place the stricter");
    assert!(ask("/srv/x", "/srv/x", &[], &["/srv"]));
    // A rule with another name, whose place lies below.
    let observed = Observations {
        sources: [("/srv".into(), found("/srv", Some(at("/srv"))))].into(),
        places: [("/srv", "/srv"), ("/twin", "/srv/twin")].map(|(path, place)| (path.into(), at(place))).into(),
        ..Observations::none(None)
    };
    let policy = profile("baseline", "host.paths = { \"/srv\" = \"read-write\", \"/twin\" = \"deny\" }");
    let told = words(on(&KernelSupport::assumed(), &observed, &policy, |spec| push(spec, bind("/m", "/srv", &["ro"]))));
    assert!(told.contains("/srv of the host is mounted, which the profile does not grant"), "{told}");
}

#[test]
fn what_is_kept_for_another_pod_or_container_is_the_hosts() {
    let ask = |source: &str| {
        fields(by("", |spec| {
            of_pod(spec);
            push(spec, bind("/m", source, &["ro"]));
        }))
    };
    let cri = "/run/containerd/io.containerd.grpc.v1.cri";
    for (source, own) in [
        ("/var/lib/kubelet/pods/u/etc-hosts".to_owned(), true),
        ("/var/lib/kubelet/pods/v/etc-hosts".to_owned(), false),
        ("/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pv/mount".to_owned(), true),
        ("/var/lib/kubelet/pods/v/volumes/kubernetes.io~csi/pv/mount".to_owned(), false),
        ("/var/lib/kubelet/pods/v/volumes/kubernetes.io~empty-dir/d".to_owned(), false),
        ("/var/lib/kubelet/pods/u/containers/web/0".to_owned(), true),
        ("/var/lib/kubelet/pods/v/containers/web/0".to_owned(), false),
        (format!("{cri}/sandboxes/box/hosts"), true),
        (format!("{cri}/sandboxes/other/hosts"), false),
        (format!("{cri}/containers/offline/volumes/0"), true),
        (format!("{cri}/containers/other/volumes/0"), false),
        (format!("{cri}/image-volumes/box/0"), true),
        (format!("{cri}/image-volumes/other/0"), false),
        (format!("{cri}/image-volumes/box/0/1"), true),
        (format!("{cri}/image-volumes/other/0/1"), false),
        ("pods/u/etc-hosts".to_owned(), false),
    ] {
        assert_eq!(ask(&source).is_empty(), own, "{source}");
    }
    // Parts of volumes are known by where they lie, and only this container's.
    let part = |source: &str, container_volume: bool| {
        let lies = Location { file_system: "8:1".into(), path: "/k/d/s".into() };
        let found = found(source, Some(lies));
        let volume = Location { file_system: "8:1".into(), path: "/k/d".into() };
        let observed = Observations {
            sources: [(source.into(), found)].into(),
            volumes: if container_volume { vec![("/v".into(), volume)] } else { Vec::new() },
            ..Observations::none(None)
        };
        let admission = on(&KernelSupport::assumed(), &observed, "", |spec| {
            of_pod(spec);
            push(spec, bind("/m", source, &[]));
        });
        admission.is_ok()
    };
    let parts = "/var/lib/kubelet/pods/u/volume-subpaths";
    assert!(part(&format!("{parts}/v/web/0"), true) && !part(&format!("{parts}/v/web/0"), false));
    for other in [format!("{parts}/v/db/0"), format!("{parts}/v/web/x"), parts.replace("/u/", "/w/") + "/v/web/0"] {
        assert!(!part(&other, true), "{other}");
    }
    // Another path that people know it by is told.
    let link = found("/real", None);
    let told = |source: VolumeSource| {
        let observed = Observations { sources: [("/link".into(), source)].into(), ..Observations::none(None) };
        words(on(&KernelSupport::assumed(), &observed, "", |spec| push(spec, bind("/m", "/link", &[]))))
    };
    assert!(told(link.clone()).contains("/link (which is /real) of the host"));
    assert!(told(VolumeSource { path: "/link".into(), ..link.clone() }).contains(" /link of the host"));
    assert!(told(VolumeSource { known_as: Some("/known".into()), ..link }).contains(" /known of the host"));
}

#[test]
fn a_volume_that_is_mounted_has_the_identity_that_was_found() {
    let found = found("/real", None);
    let observed = Observations { sources: [("/srv".into(), found)].into(), ..Observations::none(None) };
    let policy = profile("baseline", "host.paths = { \"/srv\" = \"read-write\", \"/real\" = \"read-write\" }");
    let admission = on(&KernelSupport::assumed(), &observed, &policy, |spec| push(spec, bind("/m", "/srv", &[])));
    let admission = admission.unwrap();
    let MountKind::Bind(volume) = &mount_at(&admission, "/m").kind else { unreachable!("a bind mount") };
    assert_eq!((volume.source.as_path(), volume.file.inode, volume.recursive), (Path::new("/real"), 2, true));
    let volumes: Vec<_> = admission.bundle().volumes().collect();
    assert_eq!((volumes.len(), volumes[0].0), (1, admission.bundle().mounts.len() - 1));
}
