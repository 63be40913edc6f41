//! The policy, from outside: files in, a profile for each container or errors out.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::path::Path;

use hardened_sandbox::bundle::{FileId, MountFlag};
use hardened_sandbox::policy::{Policy, Source};
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{
    Admission, Identity, KernelSupport, Location, Observations, Refusal, Request, Sandbox, VolumeSource,
    judge as judge_spec, profile_asked_for,
};
use oci_spec::runtime::Spec;
use proptest::prelude::*;
use serde_json::{Value, json};

const CONTAINERD: &str = include_str!("../fuzz/corpus/decide/containerd-default.json");

/// A seccomp profile of the node that denies two calls.
const OCI: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO"}]}"#;

fn parse(files: &[&str]) -> Result<Policy, String> {
    let name = |at: usize| if at == 0 { "policy.toml".into() } else { format!("policy.d/{at}.toml").into() };
    let files = files.iter().enumerate().map(|(at, text)| Source::new(name(at), (*text).to_owned()));
    let files: Vec<Source> = files.collect();
    let read = |path: &std::path::Path| match path.to_str() {
        Some("/oci.json") => Ok(OCI.to_owned()),
        _ => Err(format!("{}: not read", path.display())),
    };
    Policy::parse(&files, &read, Arch::native().unwrap()).map_err(|errors| errors.to_string())
}

/// A pod's container, as containerd's CRI writes it.
fn spec(change: impl FnOnce(&mut Value)) -> Spec {
    let mut spec: Value = serde_json::from_str(CONTAINERD).unwrap();
    spec["process"]["args"] = json!(["/bin/true"]);
    spec["annotations"] = json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-name": "web-1",
        "io.kubernetes.cri.sandbox-uid": "0aa-1",
        "io.kubernetes.cri.sandbox-id": "5a5a",
        "io.kubernetes.cri.container-name": "web",
        "io.kubernetes.cri.image-name": format!("registry/web@sha256:{}", "ab".repeat(32)),
    });
    change(&mut spec);
    serde_json::from_value(spec).unwrap()
}

fn judge(policy: &str, change: impl FnOnce(&mut Value)) -> Result<Admission, Refusal> {
    let (spec, policy) = (spec(change), parse(&[policy]).unwrap());
    let judge = |policy: &Policy| judge_spec(&spec, policy, &KernelSupport::assumed(), &Observations::none(None));
    let result = judge(&policy);
    if let Ok(request) = Request::parse(&spec) {
        let compiled = compiled_for(&policy, &request, None);
        assert_eq!(format!("{:?}", judge(&compiled)), format!("{result:?}"), "the compiled policy decides otherwise");
    }
    result
}

/// The policy as a later create of this pod reads it.
fn compiled_for(policy: &Policy, request: &Request, handler: Option<&str>) -> Policy {
    let identity = Identity { handler: handler.map(str::to_owned), ..request.identity().clone() };
    Policy::for_pod(&policy.compiled().unwrap(), &identity, profile_asked_for(request)).unwrap()
}

#[test]
fn a_compiled_policy_has_what_concerns_the_pod() {
    let policy = parse(&[r#"
        default = "narrow"
        [profile.narrow]
        extends = "restricted"
        [profile."of \"others\"\n{}"]
        [profile.asked]
        [profile.last]
        [[rule]]
        namespace = ["other", "other-*"]
        profile = "of \"others\"\n{}"
        [[rule]]
        namespace = "sh?p"
        pod = ["web-*", "db-*"]
        image = "registry/web*"
        profile = "last"
    "#])
    .unwrap();
    let own = |policy: &Policy| {
        let own = policy.profiles().filter(|profile| profile.origin().to_string() != "built in");
        own.map(|profile| profile.name().to_owned()).collect::<Vec<_>>()
    };
    let request = |profile: Option<&str>| {
        let change = |spec: &mut Value| {
            if let Some(profile) = profile {
                spec["annotations"]["io.containerd.hardened.v1/profile"] = profile.into();
            }
        };
        Request::parse(&spec(change)).unwrap()
    };
    let compiled = compiled_for(&policy, &request(None), None);
    assert_eq!(own(&compiled), ["last", "narrow"]);
    assert_eq!(compiled.rules().iter().map(ToString::to_string).collect::<Vec<_>>(), [policy.rules()[1].to_string()]);
    assert_eq!(compiled.profile("last"), policy.profile("last"));
    assert_eq!(own(&compiled_for(&policy, &request(Some("asked")), None)), ["asked", "last", "narrow"]);
    // A message names all that there are.
    assert_eq!(own(&compiled_for(&policy, &request(Some("misspelt")), None)), own(&policy));
    // A part of it is none.
    let text = policy.compiled().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * 4 + 2 * 2);
    for kept in 0..lines.len() {
        let part = lines.get(..kept).unwrap().join("\n");
        assert!(Policy::for_pod(&part, request(None).identity(), None).is_err(), "{kept} lines are enough");
    }
}

fn bind(spec: &mut Value, source: &str, options: &[&str]) {
    let options = [&["rbind"], options].concat();
    let mount = json!({"destination": "/data", "type": "bind", "source": source, "options": options});
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn what_is_wrong_with_a_policy_is_told_with_its_place() {
    let table = [
        ("an unknown key", "[profile.web]\nfile = {}\n"),
        ("a misspelt key", "[profile.web.capabilites]\nadd = []\n"),
        ("a key of a rule", "[[rule]]\nnamspace = \"x\"\nprofile = \"restricted\"\n"),
        ("no TOML", "[profile.web\n"),
        ("a wrong type", "[profile.web.files]\nread-only-root = \"yes\"\n"),
        ("an unknown base", "[profile.web]\nextends = \"baselin\"\n"),
        ("a circle", "[profile.a]\nextends = \"b\"\n[profile.b]\nextends = \"a\"\n"),
        ("a built-in name", "[profile.baseline]\n"),
        ("an unknown capability", "[profile.web.capabilities]\nadd = [\"NET_RAW\", \"FLY\"]\n"),
        ("an unknown call", "[profile.web.seccomp]\nallow = [\"moutn\"]\n"),
        ("an unknown family", "[profile.web.seccomp]\nsocket-families = [\"inet\", \"ipx\"]\n"),
        (
            "an argument",
            "[[profile.web.seccomp.rule]]\ncalls = [\"ioctl\"]\nargument = 9\nequals = 1\nanswer = \"deny\"\n",
        ),
        ("an errno", "[profile.web.seccomp]\nerrno = 5000\n"),
        ("a missing OCI profile", "[profile.web.seccomp]\noci = \"/none.json\"\n"),
        ("a relative path", "[profile.web.exec]\nhidden = [\"run/secrets\"]\n"),
        ("a device", "[profile.web.host]\ndevices = [\"/dev/fuse\"]\n"),
        ("a limit", "[profile.web.limits]\nRLIMIT_FLY = 1\n"),
        ("a range", "[profile.web.user]\nuids = [[9, 1]]\n"),
        ("an unknown default", "default = \"restrictd\"\n"),
        ("everything privileged", "default = \"privileged\"\n"),
        ("a rule without a profile", "[[rule]]\nnamespace = \"x\"\n"),
        ("a rule without a selector", "[[rule]]\nprofile = \"restricted\"\n"),
        ("an empty selector", "[[rule]]\nnamespace = []\nprofile = \"restricted\"\n"),
        ("privileged by namespace alone", "[[rule]]\nnamespace = \"x\"\nprivileged = \"allow\"\n"),
        ("a mask that an image could lead elsewhere", "[profile.web.files]\nmasked = [\"/var/run/secrets\"]\n"),
        ("privileged for any", "[[rule]]\nnamespace = \"*\"\ndigest = \"*\"\nprivileged = \"allow\"\n"),
        ("privileged unsaid", "[[rule]]\nnamespace = \"x\"\nprofile = \"privileged\"\n"),
        (
            "privileged said of a profile that is not",
            "[[rule]]\nnamespace = \"x\"\nacknowledge-risk = true\nprivileged = \"allow\"\nprofile = \"baseline\"\n",
        ),
        (
            "a wider profile for whoever takes the name",
            "[profile.net.capabilities]\nadd = [\"NET_RAW\"]\n[[rule]]\ncontainer = \"ping\"\nprofile = \"net\"\n",
        ),
        (
            "a wider profile for whoever names the handler",
            "[profile.net.capabilities]\nadd = [\"NET_RAW\"]\n[[rule]]\nhandler = \"net\"\nprofile = \"net\"\n",
        ),
        (
            "a label for whoever takes the name",
            "[profile.spc.labels]\nselinux = \"system_u:system_r:spc_t:s0\"\n[[rule]]\ncontainer = \"agent\"\nprofile = \"spc\"\n",
        ),
        (
            "a path of the host for whoever takes the name",
            "[profile.logs.host.paths]\n\"/srv/logs\" = \"read-only\"\n[[rule]]\npod = \"logs-*\"\nprofile = \"logs\"\n",
        ),
        ("all of it", "default = \"x\"\n[[rule]]\nprofile = \"y\"\n[profile.z]\nextends = \"w\"\n"),
    ];
    let text: Vec<String> =
        table.iter().map(|(what, policy)| format!("{what}\n  {}", parse(&[policy]).unwrap_err())).collect();
    insta::assert_snapshot!("policy-errors", text.join("\n"));
    insta::assert_snapshot!(parse(&["[profile.a]\ndefault=1", "default = \"a\"\n[profile.a]\n"]).unwrap_err());
    insta::assert_snapshot!(parse(&["default = \"a\"\n[profile.a]\n", "default = \"a\"\n[profile.a]\n"]).unwrap_err());
}

#[test]
fn the_first_rule_that_matches_gives_the_profile() {
    let policy = r#"
        default = "tight"
        [profile.tight]
        extends = "restricted"
        [profile.shop]
        [[rule]]
        namespace = ["bank", "shop-*"]
        profile = "restricted"
        [[rule]]
        namespace = "sh?p"
        image = "registry/*"
        kind = "container"
        profile = "shop"
        [[rule]]
        namespace = "shop"
        profile = "restricted"
    "#;
    let by = |change: fn(&mut Value)| judge(policy, change).unwrap().by().to_owned();
    assert_eq!(by(|_| {}), "rule 2 (policy.toml:9), profile shop (policy.toml:5)");
    let other = |s: &mut Value| s["annotations"]["io.kubernetes.cri.image-name"] = json!("elsewhere/web");
    assert_eq!(by(other), "rule 3 (policy.toml:14), profile restricted (built in)");
    let nobody = |s: &mut Value| s["annotations"] = json!({});
    assert_eq!(by(nobody), "profile tight (policy.toml:3)");
}

fn at(file_system: &str, path: &str) -> Location {
    Location { file_system: file_system.into(), path: path.into() }
}

/// A source of a bind mount that lies somewhere else than its path says.
fn source(path: &str, location: Location, below: Vec<(std::path::PathBuf, Location)>) -> VolumeSource {
    let file = FileId { device: 1, inode: 1 };
    VolumeSource { path: path.into(), file, is_directory: true, location: Some(location), known_as: None, below }
}

/// `subPath`: the kubelet mounts a part of a volume anew, below the pod's own folder.
#[test]
fn a_part_of_a_volume_is_judged_by_where_the_volume_is() {
    let policy = parse(&["default = \"www\"\n[profile.www.host.paths]\n\"/srv/www\" = \"read-only\"\n"]).unwrap();
    let subpath = "/var/lib/kubelet/pods/0aa-1/volume-subpaths/v/web/0";
    let volumes = "/var/lib/kubelet/pods/0aa-1/volumes";
    let ask = |location: Location, option: &str| {
        let facts = Observations {
            sources: [(subpath.into(), source(subpath, location, Vec::new()))].into(),
            volumes: vec![(format!("{volumes}/kubernetes.io~csi/v/mount").into(), at("8:17", "/v"))],
            places: [("/srv/www".into(), at("8:1", "/srv/www"))].into(),
            ..Observations::none(None)
        };
        let spec = spec(|s| {
            s["annotations"]["io.kubernetes.cri.container-name"] = json!("web");
            bind(s, subpath, &[option]);
        });
        judge_spec(&spec, &policy, &KernelSupport::assumed(), &facts).map(drop).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(ask(at("8:17", "/v/part"), "rw"), Ok(()));
    assert_eq!(ask(at("8:1", "/srv/www/a"), "ro"), Ok(()));
    for (location, option, words) in [
        (at("8:1", "/etc/shadow"), "ro", "of the host is mounted"),
        (at("8:1", "/"), "ro", "of the host is mounted"),
        (at("8:17", "/other"), "ro", "of the host is mounted"),
        (at("8:2", "/v/part"), "ro", "of the host is mounted"),
        (at("8:1", "/srv/www/a"), "rw", "of the host is mounted writable"),
    ] {
        let refusal = ask(location.clone(), option).unwrap_err();
        assert!(refusal.contains(words) && refusal.contains("volumeMounts[/data]"), "{location:?}: {refusal}");
    }
    // Nor by its own path alone, as for an offline check of a config.json.
    let alone = spec(|s| bind(s, subpath, &["ro"]));
    assert!(judge_spec(&alone, &policy, &KernelSupport::assumed(), &Observations::none(None)).is_err());
}

/// By whatever path the host shows a file: a link, a bind mount, another disk.
#[test]
fn a_path_of_the_host_is_granted_by_where_it_lies() {
    let policy = parse(&["default = \"www\"\n[profile.www.host.paths]\n\"/srv/www\" = \"read-write\"\n\
                          \"/srv\" = \"deny\"\n"])
    .unwrap();
    assert!(policy.host_paths().contains(std::path::Path::new("/srv/www")));
    let ask = |location: Location, below: &[(&str, Location)]| {
        let below = below.iter().map(|(path, location)| (path.into(), location.clone())).collect();
        let facts = Observations {
            sources: [("/mnt/x".into(), source("/mnt/x", location, below))].into(),
            places: [("/srv".into(), at("8:1", "/srv")), ("/srv/www".into(), at("8:17", "/"))].into(),
            ..Observations::none(None)
        };
        let spec = spec(|s| bind(s, "/mnt/x", &["rbind", "rw"]));
        judge_spec(&spec, &policy, &KernelSupport::assumed(), &facts).map(drop).map_err(|refusal| refusal.to_string())
    };
    for granted in [at("8:17", "/"), at("8:17", "/a")] {
        assert_eq!(ask(granted, &[]), Ok(()));
    }
    for (location, below) in [
        (at("8:1", "/srv/x"), &[][..]),
        (at("8:1", "/"), &[]),
        (at("8:1", "/etc"), &[]),
        (at("8:2", "/a"), &[]),
        (at("8:17", "/a"), &[("/mnt/x/below", at("8:1", "/etc/ssh"))]),
    ] {
        let refusal = ask(location.clone(), below).unwrap_err();
        assert!(refusal.contains("/mnt/x") && refusal.contains("host.paths"), "{location:?}: {refusal}");
    }
}

#[test]
fn what_leads_out_of_a_pods_own_folder_is_not_the_pods() {
    let volume = |pod: &str, name: &str| format!("/var/lib/kubelet/pods/{pod}/volumes/kubernetes.io~empty-dir/{name}");
    let spelled = volume("0aa-1", "data");
    let ask = |real: &str| {
        let file = FileId { device: 1, inode: 1 };
        let found = VolumeSource {
            path: real.into(),
            file,
            is_directory: true,
            location: None,
            known_as: None,
            below: Vec::new(),
        };
        let facts = Observations { sources: [(spelled.clone().into(), found)].into(), ..Observations::none(None) };
        let spec = spec(|s| bind(s, &spelled, &["ro"]));
        let request = Request::parse(&spec).unwrap();
        let foreign = hardened_sandbox::sources_to_locate(&request, &facts).any(|(path, _)| path.ends_with("data"));
        (judge_spec(&spec, &parse(&[""]).unwrap(), &KernelSupport::assumed(), &facts).is_ok(), foreign)
    };
    assert_eq!(ask("/etc"), (false, true));
    assert_eq!(ask(&volume("0bb-2", "data")), (false, true));
    assert_eq!(ask(&volume("0aa-1", "other")), (false, true));
    assert_eq!(ask(&spelled), (true, false));
    assert_eq!(ask(&spelled.replace("/var/lib", "/mnt/disk")), (true, false), "the kubelet's folder may be a link");
}

#[test]
fn a_source_must_be_a_plain_path() {
    for source in ["etc", "/data/../etc", "../etc"] {
        let refusal = judge("", |s| bind(s, source, &["ro"])).unwrap_err().to_string();
        assert!(refusal.contains("give an absolute path without .."), "{refusal}");
    }
}

#[test]
fn a_rule_tells_runtime_handlers_apart() {
    let policy = parse(&[r#"
        [profile.shared.host]
        namespaces = ["pid"]
        [[rule]]
        handler = "strict-*"
        profile = "restricted"
        [[rule]]
        handler = "hardened"
        namespace = "shop"
        profile = "shared"
    "#])
    .unwrap();
    let by = |handler: Option<&str>, namespace: &str| {
        let facts = Observations::none(handler);
        let spec = spec(|s| s["annotations"]["io.kubernetes.cri.sandbox-namespace"] = json!(namespace));
        judge_spec(&spec, &policy, &KernelSupport::assumed(), &facts).unwrap().by().to_owned()
    };
    assert!(by(Some("strict-web"), "shop").contains("profile restricted"));
    assert!(by(Some("hardened"), "shop").contains("profile shared"));
    for (handler, namespace) in [(Some("hardened"), "bank"), (Some("strict"), "shop"), (None, "shop")] {
        assert_eq!(by(handler, namespace), "profile baseline (built in)", "{handler:?} {namespace}");
    }
    // The pause container holds what containers of the pod may be given, and no more.
    let pause = |handler: &str| {
        let facts = Observations::none(Some(handler));
        let own = ["mount", "network", "ipc", "uts"];
        let sandbox = spec(|s| {
            s["annotations"]["io.kubernetes.cri.container-type"] = json!("sandbox");
            s["linux"]["namespaces"] = own.map(|kind| json!({"type": kind})).into();
        });
        judge_spec(&sandbox, &policy, &KernelSupport::assumed(), &facts).is_ok()
    };
    assert!(pause("hardened") && !pause("strict-web"));
}

#[test]
fn a_pod_is_refused_in_its_own_words() {
    let refusal =
        judge("[profile.user.user]\nnon-root = true\n[[rule]]\nnamespace = \"shop\"\nprofile = \"user\"", |s| {
            s["annotations"]["io.containerd.hardened.v1/porfile"] = json!("x");
            s["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
            s["linux"]["maskedPaths"] = json!([]);
            s["linux"]["sysctl"] = json!({"kernel.msgmax": "1"});
            s["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}, {"type": "uts"}]);
            bind(s, "/etc/shadow", &["ro"]);
        });
    insta::assert_snapshot!(refusal.unwrap_err());
}

#[test]
fn paths_of_the_host_are_judged_by_the_longest_rule_and_by_where_they_really_are() {
    let policy = "default = \"logs\"\n[profile.logs.host.paths]\n\"/etc/localtime\" = \"read-only\"\n\"/srv\" = \"deny\"\n\
                  \"/srv/www\" = \"read-write\"\n";
    let ask = |source: &str, option: &str| judge(policy, |s| bind(s, source, &[option])).is_ok();
    assert!(ask("/etc/localtime", "ro") && !ask("/etc/localtime", "rw") && !ask("/etc", "ro"));
    assert!(ask("/srv/www", "rw") && ask("/srv/www/a", "rw") && !ask("/srv/wwwx", "ro") && !ask("/srv", "ro"));
    assert!(!ask("/data", "ro") && !ask("/", "ro") && !ask("/var", "ro") && !ask("/var/lib", "ro"));
    // What the kubelet and containerd keep for this pod, and for another.
    let volume = |pod: &str| format!("/var/lib/kubelet/pods/{pod}/volumes/kubernetes.io~empty-dir/x");
    assert!(ask(&volume("0aa-1"), "rw") && !ask(&volume("0bb"), "ro"));
    assert!(!ask("/var/lib/kubelet/pods/0aa-1", "ro") && !ask("/var/lib/kubelet/pods/0aa-1/volumes", "ro"));
    let sandbox = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes";
    assert!(ask(&format!("{sandbox}/5a5a/shm"), "rw") && !ask(&format!("{sandbox}/6b6b/shm"), "rw"));
    // A link that leads away.
    let file = FileId { device: 1, inode: 1 };
    let etc = VolumeSource {
        path: "/etc".into(),
        file,
        is_directory: true,
        location: None,
        known_as: None,
        below: Vec::new(),
    };
    let facts = Observations { sources: [("/data/x".into(), etc)].into(), ..Observations::none(None) };
    let spec = spec(|s| bind(s, "/data/x", &["ro"]));
    let refusal =
        judge_spec(&spec, &parse(&[policy]).unwrap(), &KernelSupport::assumed(), &facts).unwrap_err().to_string();
    assert!(refusal.contains("/data/x (which is /etc) of the host is mounted"), "{refusal}");
}

fn privileged(spec: &mut Value) {
    spec["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    spec["linux"]["maskedPaths"] = json!([]);
    spec["linux"]["readonlyPaths"] = json!([]);
    spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
}

#[test]
fn privileged_is_let_through_by_namespace_and_digest_alone() {
    let policy =
        format!("[[rule]]\nnamespace = \"shop\"\ndigest = \"sha256:{}\"\nprivileged = \"allow\"\n", "ab".repeat(32));
    let admission = judge(&policy, privileged).unwrap();
    assert!(admission.is_privileged() && admission.plan().landlock.is_none());
    // The rule is not for the same image without the wish.
    let plain = judge(&policy, |_| {}).unwrap();
    assert!(!plain.is_privileged() && plain.by().contains("baseline"));
    for other in ["registry/web:1", "registry/web@sha256:00"] {
        let refusal = judge(&policy, |s| {
            privileged(s);
            s["annotations"]["io.kubernetes.cri.image-name"] = json!(other);
        });
        let text = refusal.unwrap_err().to_string();
        assert!(text.contains("spec.containers[web].securityContext.privileged"), "{text}");
    }
    // A pod that asks for a profile gives up what it was let through for.
    let asked = judge(&policy, |s| {
        privileged(s);
        s["annotations"]["io.containerd.hardened.v1/profile"] = json!("restricted");
    });
    assert!(asked.is_err());
}

#[test]
fn the_sandbox_of_a_privileged_pod_is_tightened_and_not_refused() {
    let admission = judge("", |s| {
        privileged(s);
        s["annotations"]["io.kubernetes.cri.container-type"] = json!("sandbox");
    });
    let admission = admission.unwrap();
    let plan = admission.plan();
    assert!(plan.landlock.is_some() && plan.capabilities.bounding.is_empty());
    assert!(admission.bundle().masked_paths.len() > 10);
    assert!(admission.decide_exec(Request::parse(&spec(|_| {})).unwrap().process()).is_err());
}

/// No pod may name a path of the host but what a provisioner made for it.
#[test]
fn baseline_gives_the_volumes_of_local_provisioners_and_no_other_path() {
    let ask = |source: &str| judge("", |s| bind(s, source, &["rw"])).is_ok();
    for folder in ["/opt/local-path-provisioner", "/tmp/hostpath-provisioner", "/var/lib/rancher/k3s/storage"] {
        assert!(ask(&format!("{folder}/pvc-1")) && ask(&format!("{folder}/pvc-1/data")), "{folder}");
        assert!(!ask(folder) && !ask(&format!("{folder}x/pvc-1")), "{folder}");
    }
    for path in ["/", "/opt", "/data", "/mnt", "/srv/www", "/var/log", "/swap.img", "/.snapshots", "/var/cache"] {
        assert!(!ask(path), "{path}");
    }
    let refusal = judge("", |s| bind(s, "/srv/www", &["ro"])).unwrap_err().to_string();
    let advice = "[profile.NAME] host.paths = { \"/srv/www\" = \"read-only\" }, and a rule that gives NAME to the \
                  namespace";
    assert!(refusal.contains(advice), "{refusal}");
}

/// What a rule gives that any pod's author can make match.
#[test]
fn a_rule_that_can_be_forged_gives_no_more_than_baseline() {
    let lint = |profile: &str| {
        parse(&[&format!("[profile.x]\n{profile}\n[[rule]]\ncontainer = \"x\"\nprofile = \"x\"\n")]).map(drop)
    };
    for narrower in [
        "",
        "extends = \"restricted\"",
        "capabilities.drop = [\"ALL\"]",
        "seccomp.deny = [\"mkdir\"]\nseccomp.errno = 38",
        "seccomp.allow = [\"mkdir\"]",
        "seccomp.socket-families = [\"unix\", \"inet\"]",
        "seccomp.rule = [{calls = [\"ioctl\", \"clone\"], argument = 1, mask = 12, equals = 4, answer = \"deny\"}]",
        "seccomp.oci = \"/oci.json\"",
        "host.paths = {\"/opt/local-path-provisioner\" = \"deny\"}",
        "host.sysctls = [\"net.ipv4.tcp_rmem\"]",
        "network.bind-tcp = [80]",
        "labels.selinux = \"system_u:system_r:container_init_t:s0\"",
        "labels.selinux-types = [\"container_kvm_t\"]",
        "labels.apparmor = \"web\"",
        "exec.refuse = true",
    ] {
        assert_eq!(lint(narrower), Ok(()), "{narrower}");
    }
    for wider in [
        "capabilities.add = [\"NET_RAW\"]",
        "seccomp.allow = [\"ptrace\"]",
        "seccomp.rule = [{calls = [\"socket\"], argument = 2, equals = 262, answer = \"allow\"}]",
        "seccomp.socket-families = [\"unix\", \"packet\"]",
        "network.abstract-sockets = true",
        "host.namespaces = [\"pid\"]",
        "host.paths = {\"/srv\" = \"read-only\"}",
        "host.paths = {\"/opt/local-path-provisioner\" = \"read-write\"}",
        "host.other-paths = \"read-only\"",
        "files.system = \"writable\"",
        "host.later-mounts = true",
        "host.hooks = [\"/usr/bin/nvidia-ctk\"]",
        "host.devices = [\"c 10:229\"]",
        "host.sysctls = [\"net.*\"]",
        "labels.selinux = \"system_u:system_r:spc_t:s0\"",
        "labels.selinux = \"unconfined_u:unconfined_r:container_t:s0\"",
        "labels.selinux-types = [\"spc_t\"]",
    ] {
        let error = lint(wider).unwrap_err();
        assert!(error.contains("profile x allows more than baseline"), "{wider}: {error}");
    }
    // A digest does not say what is run of the image.
    let whole = format!("digest = \"sha256:{}\"", "ab".repeat(32));
    for selector in [&whole, "handler = \"x\"", "image = \"x\"", "pod = \"x\""] {
        let rule = format!("[profile.x]\ncapabilities.add = [\"NET_RAW\"]\n[[rule]]\n{selector}\nprofile = \"x\"\n");
        parse(&[&rule]).unwrap_err();
        parse(&[&rule.replace("[[rule]]", "[[rule]]\nnamespace = \"x\"")]).unwrap();
    }
    // What the container would have without the rule is what it is compared with.
    const STRICT: &str = "[[rule]]\nnamespace = \"vault\"\nprofile = \"restricted\"\n";
    const LEGACY: &str = "[[rule]]\ncontainer = \"legacy\"\nprofile = \"baseline\"\n";
    parse(&[&format!("{STRICT}{LEGACY}")]).unwrap();
    let later = parse(&[&format!("{LEGACY}{STRICT}")]).unwrap_err();
    assert!(later.contains("more than restricted, which the container would have by rule 2"), "{later}");
    let default = parse(&[&format!("default = \"restricted\"\n{LEGACY}")]).unwrap_err();
    assert!(default.contains("more than restricted, which the container would have by default"), "{default}");
    parse(&[&format!("{LEGACY}acknowledge-risk = true\n{STRICT}")]).unwrap();
    parse(&[&format!("{LEGACY}{STRICT}kind = \"sandbox\"\n")]).unwrap();
    let policy = parse(&[""]).unwrap();
    let baseline = policy.profile("baseline").unwrap();
    assert!(policy.profile("restricted").unwrap().is_within(baseline));
    assert!(!policy.profile("privileged").unwrap().is_within(baseline));
}

#[test]
fn a_digest_with_a_wildcard_is_warned_of() {
    let warnings = |digest: &str| {
        let rule = format!("[[rule]]\nnamespace = \"x\"\ndigest = \"{digest}\"\nprivileged = \"allow\"\n");
        parse(&[&rule]).unwrap().warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(warnings(&format!("sha256:{}", "ab".repeat(32))), Vec::<String>::new());
    assert!(warnings("sha256:*").iter().any(|w| w.contains("it may match several images")));
}

#[test]
fn a_hook_is_one_that_the_profile_names() {
    const POLICY: &str = "default = \"gpu\"\n[profile.gpu.host]\nhooks = [\"/usr/bin/nvidia-ctk\"]\n";
    let hooks = |program: &'static str| {
        move |s: &mut Value| {
            s["hooks"] = json!({"createContainer": [{"path": program, "args": ["nvidia-ctk", "hook", "chmod"]}]});
        }
    };
    let refusal = judge("", hooks("/usr/bin/nvidia-ctk")).unwrap_err().to_string();
    insta::assert_snapshot!(refusal);
    judge(POLICY, hooks("/usr/bin/nvidia-ctk")).unwrap();
    for other in ["/usr/bin/nvidia-ctk/x", "/usr/bin", "/usr/bin/touch"] {
        judge(POLICY, hooks(other)).unwrap_err();
    }
    // The sandbox container too has what the node's base spec brings.
    judge(POLICY, |s| {
        hooks("/usr/bin/nvidia-ctk")(s);
        s["annotations"]["io.kubernetes.cri.container-type"] = json!("sandbox");
    })
    .unwrap();
}

#[test]
fn a_path_that_is_granted_read_only_shows_nothing_that_is_mounted_later() {
    const POLICY: &str =
        "default = \"logs\"\n[profile.logs.host]\npaths = {\"/srv\" = \"read-only\", \"/data\" = \"read-write\"}\n";
    let ask = |policy: &str, source: &str, option: &str| judge(policy, |s| bind(s, source, &["ro", option])).map(drop);
    let refusal = ask(POLICY, "/srv/x", "rslave").unwrap_err().to_string();
    insta::assert_snapshot!(refusal);
    ask(POLICY, "/srv/x", "rprivate").unwrap();
    ask(POLICY, "/data/x", "rslave").unwrap();
    ask(&format!("{POLICY}later-mounts = true\n"), "/srv/x", "rslave").unwrap();
}

/// A default is the node's to give.
/// But where a profile grants all of the host: there it is as with runc.
#[test]
fn read_only_reaches_below_where_the_policy_has_it_so() {
    for (granted, options, below) in [
        ("paths = {\"/srv\" = \"read-only\"}", &["rbind", "ro"][..], true),
        ("paths = {\"/srv\" = \"read-write\"}", &["rbind", "ro"], true),
        ("other-paths = \"read-write\"\npaths = {\"/srv\" = \"read-only\"}", &["rbind", "ro"], true),
        ("other-paths = \"read-write\"", &["rbind", "ro"], false),
        ("other-paths = \"read-write\"", &["rbind", "ro", "rro"], true),
    ] {
        let policy = format!("default = \"x\"\n[profile.x.host]\n{granted}\n");
        let admission = judge(&policy, |s| bind(s, "/srv/data", options)).unwrap();
        let mount = admission.bundle().mounts.iter().find(|mount| mount.destination == Path::new("/data")).unwrap();
        assert!(mount.flags.contains(MountFlag::ReadOnly));
        assert_eq!(mount.recursive_flags.contains(MountFlag::ReadOnly), below, "{granted} {options:?}");
        assert!(mount.recursive_flags.contains(MountFlag::NoDev) && mount.recursive_flags.contains(MountFlag::NoSuid));
    }
}

#[test]
fn a_pod_gets_no_label_by_asking_for_a_profile() {
    const POLICY: &str = "[profile.agent.labels]\nselinux = \"system_u:system_r:spc_t:s0\"\n\
                          [[rule]]\nnamespace = \"kube-system\"\nprofile = \"agent\"\n";
    let label = |namespace: &str, wish: Option<&str>, change: fn(&mut Value)| {
        let admission = judge(POLICY, |s| {
            s["annotations"]["io.kubernetes.cri.sandbox-namespace"] = json!(namespace);
            if let Some(name) = wish {
                s["annotations"]["io.containerd.hardened.v1/profile"] = json!(name);
            }
            change(s);
        });
        admission.unwrap().plan().selinux.clone().unwrap()
    };
    let kind = |label: String| label.split(':').nth(2).unwrap().to_owned();
    assert_eq!(kind(label("kube-system", None, |_| {})), "spc_t");
    assert_eq!(kind(label("kube-system", Some("baseline"), |_| {})), "spc_t");
    assert_eq!(kind(label("shop", Some("agent"), |_| {})), "container_t");
    let own = |s: &mut Value| s["process"]["selinuxLabel"] = json!("system_u:system_r:container_init_t:s0:c1,c2");
    assert_eq!(label("kube-system", None, own), "system_u:system_r:container_init_t:s0:c1,c2");
    // A node that cannot give it refuses the containers that would get it, and no others.
    let host = KernelSupport { selinux: false, ..KernelSupport::assumed() };
    let on = |namespace: &str| {
        let spec = spec(|s| {
            s["annotations"]["io.kubernetes.cri.sandbox-namespace"] = json!(namespace);
            s["annotations"]["io.containerd.hardened.v1/profile"] = json!("agent");
        });
        judge_spec(&spec, &parse(&[POLICY]).unwrap(), &host, &Observations::none(None)).map(drop)
    };
    assert!(on("shop").is_ok());
    assert!(on("kube-system").unwrap_err().to_string().contains("demands system_u:system_r:spc_t:s0"));
}

#[test]
fn what_gives_away_more_than_it_seems_to_is_warned_of() {
    let warnings = |profile: &str| -> Vec<String> {
        let policy = parse(&[&format!("[profile.x.host]\n{profile}\n")]).unwrap();
        policy.warnings().iter().map(ToString::to_string).collect()
    };
    for quiet in ["", "paths = {\"/srv/www\" = \"read-write\", \"/etc\" = \"read-only\"}", "other-paths = \"deny\""] {
        assert!(warnings(quiet).is_empty(), "{quiet}: {:?}", warnings(quiet));
    }
    for owns in ["/", "/etc", "/etc/x", "/var", "/run/containerd", "/opt", "/var/lib/kubelet"] {
        let found = warnings(&format!("paths = {{{owns:?} = \"read-write\"}}"));
        assert_eq!(
            found,
            [format!(
                "policy.toml:1:10: profile x: host.paths grants {owns} read-write: anyone who can write there is root on the node"
            )]
        );
    }
    assert!(warnings("other-paths = \"read-only\"")[0].contains("protects nothing"));
}

/// Edits of which profiles are made. One of them at least changes each field of a sandbox.
const EDITS: &[&str] = &[
    "extends = \"restricted\"",
    "capabilities.drop = [\"CHOWN\", \"KILL\"]",
    "capabilities.add = [\"NET_RAW\"]",
    "capabilities.add = [\"SYS_TIME\", \"NET_ADMIN\"]",
    "seccomp.deny = [\"mkdir\", \"mkdirat\"]",
    "seccomp.allow = [\"ptrace\", \"mount\"]",
    "seccomp.allow = [\"socket\"]",
    "seccomp.socket-families = [\"unix\", \"vsock\"]",
    "seccomp.foreign = \"enosys\"",
    "seccomp.quiet = [\"mkdir\", \"unshare\"]",
    "seccomp.quiet = [\"unshare\"]",
    "explain = \"off\"",
    "seccomp.oci = \"/oci.json\"",
    "seccomp.rule = [{calls = [\"ioctl\"], argument = 1, equals = 3, answer = \"deny\"}]",
    "seccomp.rule = [{calls = [\"ioctl\"], argument = 1, mask = 1, equals = 0, answer = \"allow\"}]",
    "files.read-only-root = true",
    "files.system = \"writable\"",
    "files.hidden = [\"/srv\"]",
    "files.no-write = [\"/var\"]",
    "files.no-execute = [\"/var/lib\"]",
    "files.masked = [\"/proc/cpuinfo\"]",
    "files.read-only = [\"/proc/tty\"]",
    "files.execute-from-writable = false",
    "network.bind-tcp = [80, 443]",
    "network.bind-tcp = [443, 8080]",
    "network.bind-tcp = []",
    "network.connect-tcp = []",
    "network.connect-tcp = [443]",
    "network.abstract-sockets = true",
    "host.namespaces = [\"network\"]",
    "host.paths = {\"/srv\" = \"deny\", \"/etc/x\" = \"read-only\"}",
    "host.paths = {\"/srv\" = \"read-write\", \"/srv/x/y\" = \"deny\", \"/srv/z\" = \"read-only\"}",
    "host.other-paths = \"read-only\"",
    "host.later-mounts = true",
    "host.hooks = [\"/usr/bin/nvidia-ctk\"]",
    "host.hooks = [\"/usr/bin/nvidia-ctk\", \"/usr/bin/x\"]",
    "host.devices = [\"c 10:229\"]",
    "host.devices = [\"c 10:*\", \"c 10:229\"]",
    "host.sysctls = [\"net.*\"]",
    "host.sysctls = [\"net.core.*\"]",
    "user.non-root = true",
    "user.own-namespace = true",
    "user.uids = [[0, 99]]",
    "user.uids = [[1, 9]]",
    "user.gids = [[0, 99]]",
    "limits.RLIMIT_NOFILE = 64",
    "limits.RLIMIT_NOFILE = 128",
    "labels.apparmor = \"web\"",
    "labels.selinux = \"system_u:system_r:spc_t:s0\"",
    "labels.selinux = \"system_u:system_r:container_init_t:s0\"",
    "labels.selinux-types = [\"spc_t\"]",
    "labels.selinux-types = [\"spc_t\", \"svirt_t\"]",
    "exec.refuse = true",
    "exec.programs = [\"/bin/*\"]",
    "exec.programs = [\"/bin/sh\"]",
    "exec.hidden = [\"/run\"]",
    "exec.read-only = true",
    "exec.no-network = true",
];

/// Built-in profiles that no container has as its default.
const ELEVATED: &[&str] = &["extends = \"privileged\"", "extends = \"pause\""];

/// Profiles made of random edits.
fn profile_of(edits: Vec<&'static str>) -> impl Strategy<Value = String> {
    prop::collection::btree_set(prop::sample::select(edits), 0..6).prop_map(|edits| {
        let mut keys = std::collections::BTreeSet::new();
        let once = |edit: &&str| keys.insert(edit.split(" =").next().unwrap_or_default().to_owned());
        edits.into_iter().filter(once).collect::<Vec<&str>>().join("\n")
    })
}

fn profile() -> impl Strategy<Value = String> {
    profile_of(EDITS.to_vec())
}

fn any_profile() -> impl Strategy<Value = String> {
    profile_of([EDITS, ELEVATED].concat())
}

/// A field that no test draws could be forgotten by the meet.
#[test]
fn every_field_of_a_sandbox_takes_part() {
    let fields = |edit: &str| -> std::collections::BTreeMap<String, String> {
        let policy = parse(&[&format!("[profile.x]\n{edit}\n")]).unwrap();
        let text = format!("{:#?}", policy.profile("x").unwrap().sandbox());
        let mut all = std::collections::BTreeMap::new();
        let mut last = String::new();
        for line in text.lines() {
            // The fields of the sandbox itself stand four spaces in.
            if let Some(rest) = line.strip_prefix("    ").filter(|rest| !rest.starts_with([' ', '}', ']', ')']))
                && let Some((name, value)) = rest.split_once(':')
            {
                last = name.to_owned();
                all.insert(last.clone(), value.to_owned());
            } else if let Some(value) = all.get_mut(&last) {
                value.push_str(line);
            }
        }
        all
    };
    let plain = fields("");
    assert!(plain.len() > 20, "{plain:?}");
    for name in plain.keys().filter(|name| *name != "names") {
        let drawn = EDITS.iter().chain(ELEVATED).any(|edit| fields(edit).get(name) != plain.get(name));
        assert!(drawn, "no edit changes {name}");
    }
}

/// Filters are compared by what they answer: their rules may be written otherwise.
fn same_answers(left: &Sandbox, right: &Sandbox) -> bool {
    let calls = Arch::native().unwrap().calls().map(|(_, number)| number);
    let answers = |sandbox: &Sandbox, n, x| sandbox.filter().decide(n, &[x; 6]);
    calls
        .flat_map(|n| [0, 1, 3, 16, 40, u64::MAX].map(|x| (answers(left, n, x), answers(right, n, x))))
        .all(|(left, right)| left == right)
}

fn same(left: &Sandbox, right: &Sandbox) -> bool {
    same_answers(left, right) && format!("{:?}", left.without_filter()) == format!("{:?}", right.without_filter())
}

/// Three profiles, the first of them every container's.
fn three(a: &str, b: &str, c: &str) -> Policy {
    parse(&[&format!("default = \"a\"\n[profile.a]\n{a}\n[profile.b]\n{b}\n[profile.c]\n{c}\n")]).unwrap()
}

/// Their sandboxes alone, of any profiles.
fn sandboxes(a: &str, b: &str, c: &str) -> [Sandbox; 3] {
    let policy = parse(&[&format!("[profile.a]\n{a}\n[profile.b]\n{b}\n[profile.c]\n{c}\n")]).unwrap();
    ["a", "b", "c"].map(|name| policy.profile(name).unwrap().sandbox().clone())
}

/// Two sandboxes that are within each other: the same, but for demands that say it in other words.
fn allows_the_same(left: &Sandbox, right: &Sandbox) -> bool {
    let in_words = |sandbox: &Sandbox| -> Vec<(String, String)> {
        let other_words = ["host paths", "sysctls", "users", "exec programs", "calls of other ABIs"];
        sandbox.describe().into_iter().filter(|(key, _)| !other_words.contains(&key.as_str())).collect()
    };
    let paths = ["/", "/srv", "/srv/x", "/srv/x/y", "/srv/z", "/etc/x", "/opt/local-path-provisioner/x", "/other"];
    let allowed = |sandbox: &Sandbox, n| sandbox.filter().decide(n, &[1; 6]).allows();
    in_words(left) == in_words(right)
        && paths.iter().all(|path| left.access(path.as_ref()) == right.access(path.as_ref()))
        && Arch::native().unwrap().calls().all(|(_, n)| allowed(left, n) == allowed(right, n))
}

/// Asks for something now and then.
fn wish() -> impl Strategy<Value = fn(&mut Value)> {
    prop_oneof![
        Just((|_| {}) as fn(&mut Value)),
        Just((|s| bind(s, "/srv/x", &["rw"])) as fn(&mut Value)),
        Just(
            (|s| {
                s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
                s["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 65536, "size": 65536}]);
                s["linux"]["gidMappings"] = s["linux"]["uidMappings"].clone();
            }) as fn(&mut Value)
        ),
        Just((|s| bind(s, "/etc/x", &["ro"])) as fn(&mut Value)),
        Just((|s| s["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_TIME"])) as fn(&mut Value)),
        Just((|s| s["linux"]["sysctl"] = json!({"net.core.somaxconn": "1"})) as fn(&mut Value)),
        Just((|s| s["process"]["user"]["uid"] = json!(1000)) as fn(&mut Value)),
        Just(
            (|s| s["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]))
                as fn(&mut Value)
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn meet_is_idempotent_commutative_and_associative(a in any_profile(), b in any_profile(), c in any_profile()) {
        let [a, b, c] = sandboxes(&a, &b, &c);
        prop_assert!(same(&a.meet(&a), &a));
        prop_assert!(same(&a.meet(&b), &b.meet(&a)));
        prop_assert!(same(&a.meet(&b).meet(&c), &a.meet(&b.meet(&c))));
    }

    #[test]
    fn the_meet_is_within_both_and_monotone(a in any_profile(), b in any_profile(), c in any_profile()) {
        let [a, b, c] = sandboxes(&a, &b, &c);
        let met = a.meet(&b);
        prop_assert!(met.is_within(&a) && met.is_within(&b));
        // A stricter operand never yields more.
        prop_assert!(met.meet(&c).is_within(&a.meet(&c)));
    }

    #[test]
    fn within_is_an_order(a in any_profile(), b in any_profile(), c in any_profile()) {
        let [a, b, c] = sandboxes(&a, &b, &c);
        for x in [&a, &b, &c] {
            prop_assert!(x.is_within(x));
        }
        // Some that are comparable, beside those that are drawn.
        let (two, three) = (a.meet(&b), a.meet(&b).meet(&c));
        let all = [&a, &b, &c, &two, &three];
        let within = all.map(|x| all.map(|y| x.is_within(y)));
        for x in 0..all.len() {
            for y in 0..all.len() {
                for z in 0..all.len() {
                    prop_assert!(!within[x][y] || !within[y][z] || within[x][z]);
                }
                if within[x][y] && within[y][x] {
                    let [x, y] = [all[x], all[y]];
                    prop_assert!(allows_the_same(x, y), "{:?}\n{:?}", x.without_filter(), y.without_filter());
                }
            }
        }
    }

    /// What a pod asks for by annotation, whatever the profile is that it names.
    #[test]
    fn a_wish_never_leads_out_of_the_nodes_profile(
        a in profile(), b in any_profile(), wish in wish(), ports in prop::option::of("(none|80|443,8080)")
    ) {
        let policy = three(&a, &b, "");
        let node = policy.profile("a").unwrap();
        let judge = |wanted: bool| {
            let spec = spec(|s| {
                wish(s);
                if wanted {
                    s["annotations"]["io.containerd.hardened.v1/profile"] = json!("b");
                    if let Some(ports) = &ports {
                        s["annotations"]["io.containerd.hardened.v1/bind-tcp"] = json!(ports);
                    }
                }
            });
            judge_spec(&spec, &policy, &KernelSupport::assumed(), &Observations::none(None))
        };
        let Ok(admission) = judge(true) else { return Ok(()) };
        prop_assert!(admission.sandbox().is_within(node.sandbox()));
        prop_assert!(admission.sandbox().effective_filter().is_within(&node.sandbox().effective_filter()));
        let alone = judge(false).map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
        prop_assert_eq!(&admission.plan().selinux, &alone.plan().selinux);
        prop_assert_eq!(&admission.bundle().files_label, &alone.bundle().files_label);
        // The product's own profile is stricter without raw sockets.
        let demanded = |admission: &Admission| -> std::collections::BTreeSet<String> {
            admission.plan().apparmor.iter().filter(|name| !name.starts_with("hardened")).cloned().collect()
        };
        prop_assert!(demanded(&admission).is_superset(&demanded(&alone)));
    }

    /// Measured on what comes out: the verdict, the spec, the plan and the filter.
    #[test]
    fn a_stricter_profile_never_yields_a_wider_container(a in profile(), b in profile(), wish in wish()) {
        let policy = three(&a, &b, "");
        let judge = |annotation: Option<&str>| {
            let spec = spec(|s| {
                wish(s);
                if let Some(name) = annotation {
                    s["annotations"]["io.containerd.hardened.v1/profile"] = json!(name);
                }
            });
            judge_spec(&spec, &policy, &KernelSupport::assumed(), &Observations::none(None))
        };
        let (alone, met) = (judge(None), judge(Some("b")));
        let Ok(met) = met else { return Ok(()) };
        // Whatever is let through with both is let through with one.
        let alone = alone.map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
        let sets = |admission: &Admission| {
            let c = admission.plan().capabilities;
            [c.bounding, c.effective, c.permitted, c.inheritable, c.ambient]
        };
        for (narrow, wide) in sets(&met).into_iter().zip(sets(&alone)) {
            prop_assert!(narrow.is_subset(wide));
        }
        for (name, number) in Arch::native().unwrap().calls() {
            for x in [0, 1, 3, 16, 40, u64::MAX] {
                let allows = |admission: &Admission| admission.sandbox().filter().decide(number, &[x; 6]).allows();
                prop_assert!(!allows(&met) || allows(&alone), "{}({})", name, x);
            }
        }
        let masks = |admission: &Admission| -> std::collections::BTreeSet<String> {
            let bundle = admission.bundle();
            bundle.masked_paths.iter().chain(&bundle.read_only_paths).cloned().collect()
        };
        prop_assert!(masks(&met).is_superset(&masks(&alone)));
        let (narrow, wide) = (met.plan().landlock.clone().unwrap(), alone.plan().landlock.clone().unwrap());
        let within = |narrow: &[std::path::PathBuf], wide: &[std::path::PathBuf]| wide.iter().all(|p| narrow.contains(p));
        prop_assert!(within(&narrow.hidden, &wide.hidden) && within(&narrow.no_write, &wide.no_write));
        prop_assert!(within(&narrow.no_execute, &wide.no_execute));
        prop_assert!(!narrow.abstract_sockets || wide.abstract_sockets);
        for (narrow, wide) in [(&narrow.bind_tcp, &wide.bind_tcp), (&narrow.connect_tcp, &wide.connect_tcp)] {
            if let Some(wide) = wide {
                prop_assert!(narrow.as_ref().is_some_and(|n| n.iter().all(|port| wide.contains(port))));
            }
        }
        let exec = |admission: &Admission| admission.decide_exec(Request::parse(&spec(|_| {})).unwrap().process()).is_ok();
        prop_assert!(!exec(&met) || exec(&alone));
    }
}

#[test]
fn best_effort_takes_an_old_landlock_and_says_what_is_lost() {
    const BEST_EFFORT: &str = "landlock = \"best-effort\"\n";
    let on = |landlock_abi, policy: &str| {
        let host = KernelSupport { landlock_abi, ..KernelSupport::assumed() };
        judge_spec(&spec(|_| {}), &parse(&[policy]).unwrap(), &host, &Observations::none(None))
    };
    for abi in 0..=7 {
        let admission = on(abi, BEST_EFFORT).unwrap();
        assert_eq!(admission.is_best_effort(), abi < 2);
        assert_eq!(admission.plan().landlock.is_some(), abi > 0);
        assert_eq!(on(abi, "landlock = \"required\"\n").is_ok(), abi >= 2, "required is the default");
    }
    let lost = |abi| on(abi, BEST_EFFORT).unwrap().summary().lost.join("\n");
    insta::assert_snapshot!("lost-without-landlock", lost(0));
    insta::assert_snapshot!("lost-with-landlock-1", lost(1));
    assert_eq!(lost(7), "");
    // What the node's admin was told that it keeps is kept, or nothing starts.
    let restricted = format!("{BEST_EFFORT}default = \"restricted\"\n");
    insta::assert_snapshot!("demands-without-landlock", on(0, &restricted).unwrap_err().to_string());
    let hidden = format!("{BEST_EFFORT}default = \"web\"\n[profile.web]\nexec.hidden = [\"/var/run/secrets\"]\n");
    assert!(on(0, &hidden).unwrap_err().to_string().contains("exec.hidden"));
    assert!(on(1, &hidden).is_ok());
    // Nothing of the workload runs in a pod's sandbox.
    let sandbox = spec(|s| s["annotations"]["io.kubernetes.cri.container-type"] = json!("sandbox"));
    let host = KernelSupport { landlock_abi: 0, ..KernelSupport::assumed() };
    assert!(judge_spec(&sandbox, &parse(&[&restricted]).unwrap(), &host, &Observations::none(None)).is_ok());
    let twice = parse(&[BEST_EFFORT, BEST_EFFORT]).unwrap_err();
    assert!(twice.contains("policy.d/1.toml:1:12") && twice.contains("given at policy.toml:1 already"), "{twice}");
}
