//! Each field of a spec, parsed: what is taken of it, and what is refused.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::path::Path;

use hardened_sandbox::bundle::{CgroupPath, MountFlag, MountFlags, NamespaceKind, Resources};
use hardened_sandbox::policy::Policy;
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{
    Admission, Joined, KernelSupport, Observations, ProcessRequest, Refusal, Request, decide, folder_of_volumes,
};
use serde_json::{Value, json};

const CONTAINERD: &str = include_str!("../fuzz/corpus/decide/containerd-default.json");

fn spec(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut spec: Value = serde_json::from_str(CONTAINERD).unwrap();
    spec["process"]["args"] = json!(["/bin/true"]);
    change(&mut spec);
    spec.to_string().into_bytes()
}

fn parse(change: impl FnOnce(&mut Value)) -> Result<Request, Refusal> {
    Request::from_json(&spec(change))
}

fn admit_on(kernel: &KernelSupport, change: impl FnOnce(&mut Value)) -> Result<Admission, Refusal> {
    decide(&parse(change)?, &Policy::built_in(Arch::X86_64), kernel, &Observations::none(None))
}

fn admit(change: impl FnOnce(&mut Value)) -> Result<Admission, Refusal> {
    admit_on(&KernelSupport::assumed(), change)
}

/// The fields of all violations.
fn fields<T>(result: Result<T, Refusal>) -> Vec<String> {
    let refusal = result.err().map(|refusal| refusal.violations().iter().map(|v| refusal.field_of(v)).collect());
    refusal.unwrap_or_default()
}

#[test]
fn a_cgroup_is_a_path_below_the_root_or_a_scope_of_systemds() {
    let unit = CgroupPath::parse("kubepods-pod1.slice:cri-containerd:c0ffee").unwrap();
    assert!(matches!(&unit, CgroupPath::Unit { slice, prefix, name }
        if (slice.as_str(), prefix.as_str(), name.as_str()) == ("kubepods-pod1.slice", "cri-containerd", "c0ffee")));
    assert_eq!(unit.literal(), CgroupPath::Path("/kubepods-pod1.slice:cri-containerd:c0ffee".into()));
    let path = CgroupPath::parse("/pods/a:b:c").unwrap();
    assert_eq!((&path, path.literal()), (&CgroupPath::Path("/pods/a:b:c".into()), path.clone()));
    for wrong in [
        "",
        "/",
        "pods/a",
        "/pods/..",
        "/a\0",
        "a.slice:b",
        "a.slice:b:c:d",
        "a.scope:b:c",
        "a.slice::c",
        "a.slice:b:",
        "a/b.slice:p:n",
        "a.slice:p/q:n",
        "a.slice:p:n/m",
        "..slice:p:n",
        "a.slice:.p:n",
        "a.slice:p:..",
        "a.slice:p:\0",
    ] {
        assert!(CgroupPath::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn limits_are_those_that_are_known() {
    let parse = |resources: Value| Resources::parse(&serde_json::from_value(resources).unwrap());
    let errors = |resources: Value| -> Vec<String> {
        parse(resources).err().unwrap_or_default().into_iter().map(|(field, _)| field).collect()
    };
    for good in ["memory.max", "hugetlb.2MB.max", "hugetlb.1GB.rsvd.max", "hugetlb.64KB.max"] {
        assert_eq!(errors(json!({"unified": {good: "max"}})), Vec::<String>::new(), "{good}");
    }
    for bad in [
        "cgroup.procs",
        "memory.max/x",
        "hugetlb.max",
        "hugetlb.MB.max",
        "hugetlb.2TB.max",
        "hugetlb.2.max",
        "hugetlb.../.max",
        "hugetlb.x2MB.max",
        "hugetlb.2MB.current",
    ] {
        assert_eq!(errors(json!({"unified": {bad: "1"}})), [format!("unified[{bad}]")]);
    }
    let long = |length: usize| errors(json!({"unified": {"io.max": "1".repeat(length)}})).len();
    assert_eq!((long(4096), long(4097)), (0, 1));
    assert_eq!(errors(json!({"unified": {"io.max": "a\u{0}"}})), ["unified[io.max]"]);
    let pages = |size: &str| errors(json!({"hugepageLimits": [{"pageSize": size, "limit": 1}]}));
    assert_eq!((pages("2MB"), pages("../2MB").as_slice()), (vec![], &["hugepageLimits".to_owned()][..]));
    let rdma = |name: &str| errors(json!({"rdma": {name: {"hcaHandles": 1}}})).len();
    assert_eq!((rdma("mlx5_0"), rdma(""), rdma("a b"), rdma("a/b"), rdma("a\u{1}")), (0, 1, 1, 1, 1));
    let cpus = |list: &str| errors(json!({"cpu": {"cpus": list, "mems": list}})).len();
    assert_eq!((cpus("0-3,7 \n"), cpus("0;1")), (0, 2));
    // All of them are kept, and no rule about devices.
    let all = json!({
        "memory": {"limit": 1}, "cpu": {"shares": 2}, "pids": {"limit": 3}, "blockIO": {"weight": 10},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4}], "network": {"classID": 5},
        "rdma": {"mlx5_0": {"hcaHandles": 6}}, "unified": {"memory.max": "7"},
    });
    let mut asked = all.clone();
    asked["devices"] = json!([{"allow": true, "access": "rwm"}]);
    let kept = serde_json::to_value(parse(asked).unwrap().to_oci()).unwrap();
    assert_eq!(kept, serde_json::to_value(parse(all).unwrap().to_oci()).unwrap());
    for key in ["memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma", "unified"] {
        assert!(kept.get(key).is_some_and(|kept| !kept.is_null()), "{key} of {kept}");
    }
    assert!(kept.get("devices").is_none_or(Value::is_null), "{kept}");
}

#[test]
fn each_word_of_mount_8_is_a_flag_or_takes_one_back() {
    let flags = |options: &[&str]| {
        let admission = admit(|spec| {
            let mount = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": options});
            spec["mounts"].as_array_mut().unwrap().push(mount);
        });
        let mounts = admission.unwrap().bundle().mounts.clone();
        mounts.into_iter().find(|mount| mount.destination == Path::new("/x")).unwrap().flags
    };
    for (set, take_back, flag) in [
        ("ro", "rw", MountFlag::ReadOnly),
        ("nosymfollow", "symfollow", MountFlag::NoSymFollow),
        ("noatime", "atime", MountFlag::NoAtime),
        ("nodiratime", "diratime", MountFlag::NoDirAtime),
        ("relatime", "norelatime", MountFlag::RelAtime),
        ("strictatime", "nostrictatime", MountFlag::StrictAtime),
        ("noexec", "exec", MountFlag::NoExec),
    ] {
        assert!(!flags(&["defaults"]).contains(flag), "{set}");
        assert!(flags(&["defaults", set]).contains(flag), "{set}");
        assert!(!flags(&[set, take_back]).contains(flag), "{take_back}");
    }
    assert!(flags(&["noatime", "ro"]).contains(MountFlag::NoAtime));
    assert!(flags(&["strictatime", "norelatime"]).contains(MountFlag::StrictAtime));
    let replaced = flags(&["noatime", "relatime"]);
    assert!(!replaced.contains(MountFlag::NoAtime) && replaced.contains(MountFlag::RelAtime));
    assert!(!replaced.is_empty() && MountFlags::default().is_empty());
}

#[test]
fn names_are_of_64_bytes_without_control_characters() {
    let named = |name: &str| fields(parse(|spec| spec["hostname"] = json!(name)));
    assert_eq!(named(&"a".repeat(64)), Vec::<String>::new());
    for wrong in ["a".repeat(65), "a\nb".to_owned(), "\u{0}".to_owned()] {
        assert_eq!(named(&wrong), ["hostname"], "{wrong:?}");
    }
    let name = |name: &str| admit(|spec| spec["hostname"] = json!(name)).unwrap().bundle().hostname.clone();
    assert_eq!((name("web").as_deref(), name("")), (Some("web"), None));
}

#[test]
fn ids_are_mapped_with_both_lists_or_none() {
    let range = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    let bind = |options: &[&str], uids: Option<&Value>, gids: Option<&Value>, in_namespace: (bool, bool)| {
        fields(admit(|spec| {
            let mut mount = json!({"destination": "/x", "type": "bind", "options": options,
                "source": "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/d"});
            for (key, ranges) in [("uidMappings", uids), ("gidMappings", gids)] {
                if let Some(ranges) = ranges {
                    mount[key] = ranges.clone();
                }
            }
            spec["annotations"] = json!({"io.kubernetes.cri.sandbox-uid": "u"});
            spec["mounts"].as_array_mut().unwrap().push(mount);
            for (key, has) in [("uidMappings", in_namespace.0), ("gidMappings", in_namespace.1)] {
                if has {
                    spec["linux"][key] = range.clone();
                }
            }
        }))
    };
    let none = (false, false);
    assert_eq!(bind(&["bind"], None, None, none), Vec::<String>::new());
    assert_eq!(bind(&["bind"], Some(&range), Some(&range), none), Vec::<String>::new());
    assert_eq!(bind(&["bind", "idmap"], Some(&range), None, none), ["mounts[/x]"]);
    assert_eq!(bind(&["bind", "idmap"], None, Some(&range), none), ["mounts[/x]"]);
    assert_eq!(bind(&["bind", "idmap"], None, None, none), ["mounts[/x]"]);
    assert_eq!(bind(&["bind", "idmap"], None, None, (true, true)), Vec::<String>::new());
    assert_eq!(bind(&["bind", "idmap"], None, None, (true, false)), ["mounts[/x]"]);
    assert_eq!(bind(&["bind", "ridmap"], None, None, (false, true)), ["mounts[/x]"]);
    let empty = json!([{"containerID": 0, "hostID": 1, "size": 0}]);
    assert_eq!(bind(&["bind"], Some(&empty), Some(&range), none), ["mounts[/x].uidMappings"]);
    let beyond = json!([{"containerID": 0, "hostID": u32::MAX, "size": 1}]);
    assert_eq!(bind(&["bind"], Some(&range), Some(&beyond), none), ["mounts[/x].gidMappings"]);
}

#[test]
fn devices_are_made_below_dev_with_the_modes_of_files() {
    let devices = |change: &dyn Fn(&mut Value)| {
        parse(|spec| {
            let mut device = json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o4666});
            change(&mut device);
            spec["linux"]["devices"] = json!([device]);
        })
    };
    let node = devices(&|_| {}).unwrap().devices().to_vec();
    assert_eq!((node.len(), node[0].mode, node[0].path.as_path()), (1, Some(0o666), Path::new("/dev/null")));
    for path in ["/dev", "/etc/x", "dev/null", "/dev/../x"] {
        assert_eq!(fields(devices(&|device| device["path"] = json!(path))), [format!("linux.devices[{path}]")]);
    }
    for (key, number) in [("major", -1), ("minor", -1), ("major", 1_i64 << 32), ("minor", 1 << 32)] {
        assert_eq!(fields(devices(&|device| device[key] = json!(number))), ["linux.devices[/dev/null]"]);
    }
    let written = admit(|spec| {
        spec["linux"]["devices"] =
            json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 7, "gid": 8}]);
    });
    let node = written.unwrap().bundle().devices.clone();
    assert_eq!((node[0].uid, node[0].gid), (Some(7), Some(8)));
}

#[test]
fn a_process_keeps_its_umask_and_its_score_within_bounds() {
    let exec = |change: &dyn Fn(&mut Value)| {
        let mut process = json!({"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0, "umask": 0o7022}});
        change(&mut process);
        ProcessRequest::of_exec(process.to_string().as_bytes(), &Default::default())
    };
    let admission = admit(|_| {}).unwrap();
    let process = exec(&|_| {}).unwrap();
    let decided = admission.decide_exec(&process).unwrap();
    assert_eq!(decided.process().user.umask, Some(0o022));
    assert_eq!((decided.oom_score_adj(), decided.process().terminal), (None, false));
    let decided = admission.decide_exec(&process.with_terminal(true)).unwrap();
    assert!(decided.process().terminal && !decided.process().args.is_empty());
    for (score, expected) in [(-1000, Some(-997)), (-997, Some(-997)), (0, Some(0)), (1000, Some(1000))] {
        let process = exec(&|process| process["oomScoreAdj"] = json!(score)).unwrap();
        let given = admission.decide_exec(&process).unwrap().oom_score_adj();
        assert_eq!(given.is_some(), expected.is_some(), "{score}");
        assert!(given.is_some_and(|given| given >= score && given >= -999), "{score}: {given:?}");
    }
    assert_eq!(fields(exec(&|process| process["oomScoreAdj"] = json!(1001))), ["process.oomScoreAdj"]);
    // What the shim may not set is not asked of the kernel.
    let poor = KernelSupport { may_raise_limits: false, oom_score_adj: 100, ..KernelSupport::assumed() };
    for (score, expected) in [(99, 100), (100, 100), (101, 101)] {
        let admission = admit_on(&poor, |spec| spec["process"]["oomScoreAdj"] = json!(score)).unwrap();
        assert_eq!(admission.bundle().oom_score_adj, Some(expected), "{score}");
    }
}

#[test]
fn path_and_home_are_set_once_and_kept_where_they_are() {
    let environment = |env: &[&str]| {
        let admission = admit(|spec| spec["process"]["env"] = json!(env)).unwrap();
        let process = &admission.bundle().process;
        let all = |key: &str| process.env.iter().filter(|e| e.starts_with(key)).cloned().collect::<Vec<_>>().join(" ");
        (all("PATH="), all("HOME="), admission.plan().home)
    };
    let (path, home, looked_up) = environment(&["PATH=/x", "HOME=/h"]);
    assert_eq!((path.as_str(), home.as_str(), looked_up), ("PATH=/x", "HOME=/h", None));
    for env in [&["A=b"][..], &["PATH=", "HOME="]] {
        let (path, home, looked_up) = environment(env);
        assert!(path.starts_with("PATH=/usr/local/sbin:") && !path.contains(' '), "{path}");
        assert_eq!((home.as_str(), looked_up), ("HOME=/", Some(0)));
    }
}

#[test]
fn a_container_makes_its_namespaces_or_joins_them() {
    let request = parse(|spec| {
        spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network", "path": "/ns/net"}]);
    });
    let request = request.unwrap();
    assert_eq!(request.joined().collect::<Vec<_>>(), [(NamespaceKind::Network, Path::new("/ns/net"))]);
    let joined = Joined { file: hardened_sandbox::bundle::FileId { device: 4, inode: 9 }, is_hosts: false };
    let observed = Observations { namespaces: [(NamespaceKind::Network, joined)].into(), ..Observations::none(None) };
    let admission = decide(&request, &Policy::built_in(Arch::X86_64), &KernelSupport::assumed(), &observed).unwrap();
    let bundle = admission.bundle();
    let made: Vec<_> = NamespaceKind::ALL.into_iter().filter(|kind| bundle.makes(*kind)).collect();
    assert_eq!(made, [NamespaceKind::Mount, NamespaceKind::Pid, NamespaceKind::Ipc, NamespaceKind::Uts]);
    assert!(!bundle.has_user_namespace());
    let files = NamespaceKind::ALL.map(NamespaceKind::file_name);
    assert_eq!(files, ["mnt", "pid", "ipc", "net", "uts", "user", "cgroup"]);
}

#[test]
fn the_folder_of_a_pods_volumes_is_found_from_a_part_of_one() {
    let request = parse(|spec| spec["annotations"] = json!({"io.kubernetes.cri.sandbox-uid": "u"})).unwrap();
    let folder = |part: &str| folder_of_volumes(&request, Path::new(part));
    assert_eq!(folder("/k/pods/u/volume-subpaths/v/web/0"), Some("/k/pods/u/volumes".into()));
    for other in ["/k/pods/other/volume-subpaths/v/web/0", "/k/pods/u/volumes/v/web/0", "/0", "/a/b/c"] {
        assert_eq!(folder(other), None, "{other}");
    }
}

#[test]
fn a_pods_annotations_take_ports_away() {
    let key = |name: &str| format!("{}{name}", hardened_sandbox::PROFILE_ANNOTATION.trim_end_matches("profile"));
    let ports = |name: &str, list: &str| {
        let annotations = json!({key(name): list});
        admit(|spec| spec["annotations"] = annotations)
            .map(|admission| admission.plan().landlock.clone().unwrap())
            .map(|plan| (plan.bind_tcp, plan.connect_tcp))
    };
    assert_eq!(ports("bind-tcp", "80, 443").unwrap(), (Some([80, 443].into()), None));
    assert_eq!(ports("connect-tcp", "none").unwrap(), (None, Some([].into())));
    for name in ["bind-tcp", "connect-tcp"] {
        assert_eq!(fields(ports(name, "80,x")).len(), 1, "{name}");
    }
}

#[test]
fn labels_and_names_are_of_letters_and_within_bounds() {
    let label = |text: &str| fields(parse(|spec| spec["process"]["selinuxLabel"] = json!(text)));
    let of = |length: usize| format!("u:r:t:{}", "a".repeat(length - 6));
    assert_eq!((label(&of(255)), label("a_b.c:d-e,f9")), (vec![], vec![]));
    for wrong in [of(256), "u:r:t s".to_owned(), "u:r:\"t".to_owned(), "u:r:t\n".to_owned()] {
        assert_eq!(label(&wrong), ["process.selinuxLabel"], "{wrong}");
        let files = parse(|spec| spec["linux"]["mountLabel"] = json!(wrong));
        assert_eq!(fields(files), ["linux.mountLabel"], "{wrong}");
    }
    let sysctl = |name: &str, value: &str| fields(parse(|spec| spec["linux"]["sysctl"] = json!({name: value}))).len();
    assert_eq!((sysctl("net.ipv4.conf.eth-0.a_b", "1 2"), sysctl("net", "")), (0, 0));
    for (name, value) in
        [("", "1"), ("net..x", "1"), ("net/x", "1"), ("net.x ", "1"), ("net.x", "1\n2"), ("net.x", "\u{0}")]
    {
        assert_eq!(sysctl(name, value), 1, "{name:?} {value:?}");
    }
}

#[test]
fn paths_are_absolute_and_without_dots() {
    let root = |path: &str| parse(|spec| spec["root"]["path"] = json!(path));
    let rooted = |path: &str| {
        let admission = admit(|spec| spec["root"]["path"] = json!(path)).unwrap();
        admission.bundle().root.to_str().unwrap().to_owned()
    };
    assert_eq!([rooted("rootfs"), rooted("a//b/"), rooted("/x/./y/")], ["rootfs", "a/b", "/x/y"]);
    for wrong in ["", "../x", "/x/../y", "x\u{0}"] {
        assert_eq!(fields(root(wrong)), ["root.path"], "{wrong:?}");
    }
    for (key, field) in [("maskedPaths", "linux.maskedPaths"), ("readonlyPaths", "linux.readonlyPaths")] {
        for wrong in ["/", "proc/x", "/proc/../x", ""] {
            assert_eq!(fields(parse(|spec| spec["linux"][key] = json!([wrong]))), [field], "{wrong:?}");
        }
    }
    let masked = admit(|spec| spec["linux"]["maskedPaths"] = json!(["/proc/x", "/proc//x/", "/proc/y"])).unwrap();
    let masked = &masked.bundle().masked_paths;
    let count = |path: &str| masked.iter().filter(|masked| *masked == path).count();
    assert_eq!((count("/proc/x"), count("/proc/y"), masked[0].as_str()), (1, 1, "/proc/x"));
    let cgroup = |path: Option<&str>| {
        let admission = admit(|spec| match path {
            Some(path) => spec["linux"]["cgroupsPath"] = json!(path),
            None => drop(spec["linux"].as_object_mut().unwrap().remove("cgroupsPath")),
        });
        admission.unwrap().bundle().cgroup.to_string()
    };
    let own = "/offline/offline";
    assert_eq!([cgroup(Some("/a/b")), cgroup(Some("")), cgroup(None)], ["/a/b", own, own]);
    assert_eq!(fields(parse(|spec| spec["linux"]["cgroupsPath"] = json!("a"))), ["linux.cgroupsPath"]);
    let hook = |path: &str| fields(parse(|spec| spec["hooks"]["prestart"] = json!([{"path": path}])));
    assert_eq!((hook("/usr/bin/x"), hook("x")), (vec![], vec!["hooks.prestart".to_owned()]));
    let cwd = |path: &str| fields(parse(|spec| spec["process"]["cwd"] = json!(path)));
    assert_eq!(cwd("/a/../b"), Vec::<String>::new());
    for wrong in ["a", "/a\u{0}", "/proc/self", "/x/../proc/1", "/proc/../x"] {
        assert_eq!(cwd(wrong), ["process.cwd"], "{wrong:?}");
    }
}

#[test]
fn limits_and_maps_of_a_spec_are_handed_on() {
    let admission = admit(|spec| spec["linux"]["resources"] = json!({"memory": {"limit": 7}})).unwrap();
    assert_eq!(admission.bundle().resources.to_oci().memory().unwrap().limit(), Some(7));
    let refused = parse(|spec| spec["linux"]["resources"] = json!({"unified": {"cgroup.procs": "1"}}));
    assert_eq!(fields(refused), ["linux.resources.unified[cgroup.procs]"]);
    let range = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    let mapped = |keys: &[&str]| {
        let admission = admit(|spec| keys.iter().for_each(|key| spec["linux"][key] = range.clone()));
        admission.unwrap().bundle().id_mappings.is_some()
    };
    assert_eq!([mapped(&[]), mapped(&["uidMappings"]), mapped(&["gidMappings"])], [false, true, true]);
    let bare = admit(|spec| spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"})));
    assert_eq!(fields(bare), ["linux.uidMappings", "linux.gidMappings"]);
    let wrong = |key: &str| {
        let empty = json!([{"containerID": 0, "hostID": 1, "size": 0}]);
        fields(parse(|spec| spec["linux"][key] = empty))
    };
    assert_eq!([wrong("uidMappings"), wrong("gidMappings")], [["linux.uidMappings"], ["linux.gidMappings"]]);
}

#[test]
fn options_of_a_file_system_are_its_own() {
    let mount = |kind: &str, options: &[&str]| {
        fields(parse(|spec| {
            let source = if kind == "bind" { "/srv" } else { kind };
            let mount = json!({"destination": "/x", "type": kind, "source": source, "options": options});
            spec["mounts"].as_array_mut().unwrap().push(mount);
        }))
        .len()
    };
    for (kind, options, refused) in [
        ("tmpfs", &["size=65536k", "mode=1777", "nr_inodes=5", "size=50%"][..], 0),
        ("tmpfs", &["huge=always"], 1),
        ("tmpfs", &["size=1;x"], 1),
        ("tmpfs", &["size=/x"], 1),
        ("devpts", &["newinstance", "ptmxmode=0666", "gid=5"], 0),
        ("devpts", &["newinstances"], 1),
        ("proc", &["hidepid=2", "subset=pid"], 0),
        ("proc", &["size=1"], 1),
        ("cgroup", &["nsdelegate"], 0),
        ("cgroup2", &["memory_recursiveprot"], 0),
        ("cgroup", &["name=x"], 1),
        ("sysfs", &["size=1"], 1),
        ("bind", &["rbind"], 0),
        ("bind", &["rbind", "nosuid", "suid", "nodev", "dev", "exec", "rdev"], 0),
        ("bind", &["rbind", "size=1"], 1),
        // What is bound has no options of a file system, whatever its type says.
        ("tmpfs", &["rbind", "size=1"], 1),
        ("ext4", &[], 1),
        ("tmpfs", &["idmap"], 1),
        ("tmpfs", &[""], 1),
    ] {
        assert_eq!(mount(kind, options), refused, "{kind} {options:?}");
    }
    let typed = |options: &[&str]| {
        fields(parse(|spec| {
            let mount = json!({"destination": "/x", "type": "tmpfs", "source": "/srv", "options": options});
            spec["mounts"].as_array_mut().unwrap().push(mount);
        }))
        .len()
    };
    assert_eq!([typed(&["rbind"]), typed(&["rbind", "size=1"])], [0, 1]);
    let range = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    for (key, value) in [("uidMappings", &range), ("gidMappings", &range), ("options", &json!(["ridmap"]))] {
        let mapped = parse(|spec| {
            let mut mount = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs"});
            mount[key] = value.clone();
            spec["mounts"].as_array_mut().unwrap().push(mount);
        });
        assert_eq!(fields(mapped), ["mounts[/x]"], "{key}");
    }
    let at = |destination: &str| {
        fields(parse(|spec| {
            let mount = json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"});
            spec["mounts"].as_array_mut().unwrap().push(mount);
        }))
        .len()
    };
    assert_eq!([at("/a"), at("a"), at("/"), at("/a/../b"), at("")], [0, 0, 1, 1, 1]);
    let bound = |source: &str| {
        fields(parse(|spec| {
            let mount = json!({"destination": "/x", "source": source, "options": ["bind"]});
            spec["mounts"].as_array_mut().unwrap().push(mount);
        }))
        .len()
    };
    assert_eq!([bound("/srv"), bound("srv"), bound("/srv/..")], [0, 1, 1]);
}

#[test]
fn a_process_has_a_program_and_bounded_words() {
    let with = |key: &str, value: Value| fields(parse(|spec| spec["process"][key] = value));
    let ok: [String; 0] = [];
    assert_eq!(with("args", json!([])), ["process.args"]);
    assert_eq!(with("args", json!([""])), ["process.args"]);
    assert_eq!(with("args", json!(["x", "a\u{0}"])), ["process.args[1]"]);
    assert_eq!(with("env", json!(["A=b", "C=\u{0}"])), ["process.env[1]"]);
    let long = |bytes: usize| {
        fields(parse(|spec| {
            spec["process"]["args"] = json!(["x"]);
            spec["process"]["env"] = json!(["y".repeat(bytes - 1)]);
        }))
    };
    assert_eq!((long(2 << 20).len(), long((2 << 20) + 1)), (0, vec!["process.args and process.env".to_owned()]));
    let groups = |count: u32| fields(parse(|spec| spec["process"]["user"]["additionalGids"] = (0..count).collect()));
    assert_eq!((groups(65_536), groups(65_537)), (ok.to_vec(), vec!["process.user.additionalGids".to_owned()]));
    let limit = |soft: u64, hard: u64| json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard});
    assert_eq!(with("rlimits", json!([limit(5, 5)])), ok);
    assert_eq!(with("rlimits", json!([limit(6, 5)])), ["process.rlimits[RLIMIT_NOFILE]"]);
    assert_eq!(with("rlimits", json!([limit(5, 5), limit(5, 5)])), ["process.rlimits[RLIMIT_NOFILE]"]);
    let request = parse(|spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["consoleSize"] = json!({"height": 24, "width": 70_000});
    });
    let decided = admit(|_| {}).unwrap().decide_exec(request.unwrap().process()).unwrap();
    let process = decided.process();
    assert_eq!((process.args.as_slice(), process.terminal), (&["/bin/true".to_owned()][..], true));
    assert_eq!(process.console_size, Some((24, 65_535)));
    let exec = json!({"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "scheduler": {"policy": "SCHED_OTHER"}});
    let exec = ProcessRequest::of_exec(exec.to_string().as_bytes(), &Default::default());
    assert_eq!(fields(exec), ["process.scheduler"]);
    assert_eq!(fields(ProcessRequest::of_exec(b"{}", &Default::default())), ["process"]);
}
