//! What is written for libcontainer, and what no spec may say.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::path::Path;

use hardened_sandbox::bundle::{self, FileId, IdMapping, NamespaceKind, Places};
use hardened_sandbox::policy::{Policy, Source};
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{
    Admission, Joined, KernelSupport, Namespaces, Observations, Placement, Refusal, Request, decide,
};
use serde_json::{Value, json};

const CONTAINERD: &str = include_str!("../fuzz/corpus/decide/containerd-default.json");

fn request(change: impl FnOnce(&mut Value)) -> Result<Request, Refusal> {
    let mut spec: Value = serde_json::from_str(CONTAINERD).unwrap();
    change(&mut spec);
    Request::from_json(spec.to_string().as_bytes())
}

/// Admitted with hooks and whatever else the host has.
fn admit(change: impl FnOnce(&mut Value)) -> Admission {
    let policy =
        "default = \"p\"\n[profile.p]\nextends = \"compatible\"\nhost.hooks = [\"/usr/bin/*\", \"/usr/bin/hook\"]";
    let file = Source::new("policy.toml".into(), policy.to_owned());
    let policy = Policy::parse(&[file], &|_| Err("not read".to_owned()), Arch::X86_64).unwrap();
    let joined = Joined { file: FileId { device: 4, inode: 9 }, is_hosts: false };
    let observed = Observations { namespaces: [(NamespaceKind::Network, joined)].into(), ..Observations::none(None) };
    decide(&request(change).unwrap(), &policy, &KernelSupport::assumed(), &observed).unwrap()
}

fn places(admission: &Admission) -> Places {
    let bundle = admission.bundle();
    let joined = bundle.namespaces.iter().filter(|namespace| namespace.joins.is_some());
    Places {
        root: "/rootfs".into(),
        volumes: bundle.volumes().map(|(number, ..)| (number, format!("/volumes/{number}").into())).collect(),
        cgroups: vec![("/cgroup".into(), "".into())],
        namespaces: joined.map(|namespace| (namespace.kind, "/ns/net".into())).collect(),
    }
}

fn written(admission: &Admission) -> Value {
    serde_json::to_value(bundle::write(admission.bundle(), &places(admission)).unwrap()).unwrap()
}

#[test]
fn hooks_devices_and_maps_are_written_as_they_were_asked_for() {
    let hook = json!({"path": "/usr/bin/hook", "args": ["hook", "x"], "env": ["A=b"], "timeout": 5});
    let range = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let device = json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 7, "gid": 8});
    let admission = admit(|spec| {
        spec["hooks"] = json!({"prestart": [hook], "createRuntime": [hook], "createContainer": [hook]});
        spec["linux"]["devices"] = json!([device]);
        spec["linux"]["uidMappings"] = range.clone();
        spec["linux"]["gidMappings"] = range.clone();
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        spec["process"]["user"]["umask"] = json!(18);
    });
    assert!(admission.bundle().has_user_namespace());
    let spec = written(&admission);
    for kind in ["prestart", "createRuntime", "createContainer"] {
        assert_eq!(spec["hooks"][kind], json!([hook]), "{kind}");
    }
    assert_eq!(spec["linux"]["devices"], json!([device]));
    assert_eq!((&spec["linux"]["uidMappings"], &spec["linux"]["gidMappings"]), (&range, &range));
    assert_eq!((&spec["process"]["user"]["umask"], &spec["process"]["cwd"]), (&json!(18), &json!("/")));
    assert_eq!(IdMapping { container: 0, host: 5, size: 7 }.to_string(), "0 5 7\n");
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let spec = written(&admit(|spec| spec["hooks"] = json!({kind: [hook]})));
        assert_eq!(spec["hooks"][kind], json!([hook]), "{kind} alone");
    }
    let plain = written(&admit(|_| {}));
    assert!(plain["hooks"].is_null() && plain["linux"]["uidMappings"].is_null());
}

#[test]
fn what_is_joined_or_mounted_and_has_no_place_is_not_written() {
    let admission = admit(|spec| {
        spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network", "path": "/n"}]);
        let mount = json!({"destination": "/srv", "type": "bind", "source": "/srv", "options": ["rbind"]});
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    let spec = written(&admission);
    let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network");
    assert_eq!(network, Some(&json!({"type": "network", "path": "/ns/net"})));
    for without in [|places: &mut Places| places.namespaces.clear(), |places: &mut Places| places.volumes.clear()] {
        let mut places = places(&admission);
        without(&mut places);
        assert!(bundle::write(admission.bundle(), &places).is_err());
    }
}

#[test]
fn cgroups_are_written_as_binds_of_the_containers_own() {
    let admission = admit(|spec| {
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]});
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    let spec = written(&admission);
    let cgroups: Vec<&Value> =
        spec["mounts"].as_array().unwrap().iter().filter(|mount| mount["source"] == "/cgroup").collect();
    let options = json!(["bind", "rprivate", "ro", "nosuid", "nodev", "noexec"]);
    let expected = json!({"destination": "/sys/fs/cgroup", "type": "bind", "source": "/cgroup", "options": options});
    assert_eq!(cgroups, [&expected]);
}

#[test]
fn a_process_must_be_where_the_launcher_put_it() {
    let launcher: Namespaces =
        NamespaceKind::ALL.into_iter().zip((1..).map(|inode| FileId { device: 4, inode })).collect();
    let placement = |own_cgroups: bool| {
        let admission = admit(|spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            if own_cgroups {
                namespaces.push(json!({"type": "cgroup"}));
            }
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.push(
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}),
            );
            mounts.push(json!({"destination": "/srv", "type": "bind", "source": "/srv", "options": ["rbind"]}));
        });
        Placement::of_init(admission.bundle(), &launcher, Path::new("/pod/c"))
    };
    for own in [true, false] {
        let cgroups = placement(own).cgroups.unwrap();
        assert_eq!(cgroups.path.as_deref(), (!own).then_some(Path::new("/pod/c")));
        assert_eq!((cgroups.at, cgroups.volumes), (vec!["/sys/fs/cgroup".into()], vec!["/srv".into()]));
    }
    let exec = Placement::of_exec(launcher.clone());
    assert_eq!((exec.namespaces, exec.foreign.len(), exec.cgroups), (launcher, 0, None));
}

#[test]
fn fields_that_nobody_gets_are_refused_by_their_names() {
    let refused = |change: &dyn Fn(&mut Value)| -> Vec<String> {
        let refusal = request(|spec| change(spec)).err();
        refusal.map(|refusal| refusal.violations().iter().map(|v| v.field.clone()).collect()).unwrap_or_default()
    };
    let none: [String; 0] = [];
    let hook = json!([{"path": "/usr/bin/x"}]);
    let range = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    for (field, value) in [
        ("gidMappings", range.clone()),
        ("uidMappings", range),
        ("hooks.startContainer", hook.clone()),
        ("hooks.poststart", hook.clone()),
        ("hooks.poststop", hook),
        ("linux.intelRdt", json!({"closID": "x"})),
        ("linux.personality", json!({"domain": "LINUX32"})),
        ("linux.timeOffsets", json!({"boottime": {"secs": 1, "nanosecs": 0}})),
        ("linux.netDevices", json!({"eth0": {"name": "eth1"}})),
        ("process.commandLine", json!("x")),
        ("process.scheduler", json!({"policy": "SCHED_OTHER"})),
    ] {
        let set = |spec: &mut Value| match field.split_once('.') {
            Some((object, key)) => spec[object][key] = value.clone(),
            None => spec[field] = value.clone(),
        };
        let found = refused(&set);
        assert!(found.iter().any(|found| found == field), "{field}: {found:?}");
    }
    for (object, key, empty) in [
        ("linux", "netDevices", json!({})),
        ("linux", "timeOffsets", json!({})),
        ("hooks", "poststop", json!([])),
        ("hooks", "startContainer", json!([])),
    ] {
        assert_eq!(refused(&|spec| spec[object][key] = empty.clone()), none, "{object}.{key}");
    }
    let dropped = |name: Option<&str>| {
        let request = request(|spec| {
            if let Some(name) = name {
                spec["process"]["user"]["username"] = json!(name);
            }
        });
        let admission = decide(
            &request.unwrap(),
            &Policy::built_in(Arch::X86_64),
            &KernelSupport::assumed(),
            &Observations::none(None),
        );
        admission.unwrap().notes().iter().filter(|note| note.field == "process.user.username").count()
    };
    assert_eq!((dropped(Some("x")), dropped(None)), (1, 0));
}

#[test]
fn a_request_tells_what_the_node_is_to_look_at() {
    let request = request(|spec| {
        spec["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0");
        spec["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
        spec["annotations"] = json!({"io.kubernetes.cri.container-name": "web"});
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/a", "type": "bind", "source": "/srv/a", "options": ["rbind"]}));
        mounts.push(json!({"destination": "/b", "type": "bind", "source": "/srv/b", "options": ["bind"]}));
    });
    let request = request.unwrap();
    assert_eq!(request.sources().collect::<Vec<_>>(), [(Path::new("/srv/a"), true), (Path::new("/srv/b"), false)]);
    let labels: Vec<&str> = request.selinux_labels().collect();
    assert_eq!(labels, ["system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"]);
    assert_eq!(request.identity().container.as_deref(), Some("web"));
}
