//! The policy, from outside: files in, a profile for each container or errors out.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use hardened_sandbox::policy::{Policy, Source};
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{Admission, KernelSupport, Observations, Refusal, Sandbox, decide};
use oci_spec::runtime::Spec;
use proptest::prelude::*;
use serde_json::{Value, json};

const CONTAINERD: &str = include_str!("../fuzz/corpus/decide/containerd-default.json");

fn parse(files: &[&str]) -> Result<Policy, String> {
    let name = |at: usize| if at == 0 { "policy.toml".into() } else { format!("policy.d/{at}.toml").into() };
    let files = files.iter().enumerate().map(|(at, text)| Source::new(name(at), (*text).to_owned()));
    let files: Vec<Source> = files.collect();
    let not_read = |path: &std::path::Path| Err(format!("{}: not read", path.display()));
    Policy::parse(&files, &not_read, Arch::native().unwrap()).map_err(|errors| errors.to_string())
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
    decide(spec(change), &parse(&[policy]).unwrap(), &KernelSupport::assumed(), &Observations::default())
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
        ("privileged for any", "[[rule]]\nnamespace = \"*\"\ndigest = \"*\"\nprivileged = \"allow\"\n"),
        ("privileged unsaid", "[[rule]]\nnamespace = \"x\"\nprofile = \"privileged\"\n"),
        (
            "privileged said of a profile that is not",
            "[[rule]]\nnamespace = \"x\"\ndigest = \"sha256:ab\"\nprivileged = \"allow\"\nprofile = \"baseline\"\n",
        ),
        (
            "a wider profile for whoever takes the name",
            "[profile.net.capabilities]\nadd = [\"NET_RAW\"]\n[[rule]]\ncontainer = \"ping\"\nprofile = \"net\"\n",
        ),
        (
            "a wider profile for whoever names the handler",
            "[profile.net.capabilities]\nadd = [\"NET_RAW\"]\n[[rule]]\nhandler = \"net\"\nprofile = \"net\"\n",
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

/// `subPath`: the kubelet mounts a part of a volume anew, below the pod's own folder.
#[test]
fn a_part_of_a_volume_is_judged_by_where_the_volume_is() {
    let policy = parse(&["default = \"www\"\n[profile.www.host.paths]\n\"/srv/www\" = \"read-only\"\n"]).unwrap();
    let subpath = "/var/lib/kubelet/pods/0aa-1/volume-subpaths/v/web/0";
    let ask = |shown: &[&str], option: &str| {
        let mut paths: Vec<std::path::PathBuf> = shown.iter().map(Into::into).collect();
        // What is mounted there shows it too, and so do other containers' parts.
        paths.extend([subpath.into(), "/var/lib/kubelet/pods/0aa-1/volume-subpaths/v/other/0".into()]);
        let facts = Observations {
            sources: [(subpath.into(), subpath.into())].into(),
            shown_at: [(subpath.into(), paths)].into(),
            ..Observations::default()
        };
        let decided = decide(spec(|s| bind(s, subpath, &[option])), &policy, &KernelSupport::assumed(), &facts);
        decided.map(drop).map_err(|refusal| refusal.to_string())
    };
    let volume = "/var/lib/kubelet/pods/0aa-1/volumes/kubernetes.io~csi/v/mount/part";
    for own in [&[volume][..], &["/var/lib/kubelet/plugins/csi/globalmount/part", volume]] {
        assert_eq!(ask(own, "rw"), Ok(()));
    }
    for nobodys in [&["/data/a"][..], &["/sysroot/ostree/deploy/x/var/data/a", "/var/data/a"]] {
        assert_eq!(ask(nobodys, "rw"), Ok(()));
    }
    assert_eq!(ask(&["/srv/www/a"], "ro"), Ok(()));
    for (shown, option, words) in [
        (&["/etc/shadow"][..], "ro", "/etc/shadow of the host is mounted"),
        (&["/"], "ro", "/ of the host is mounted"),
        (&["/sysroot/etc", "/etc"], "ro", "/etc of the host is mounted"),
        (&["/sysroot/boot"], "ro", "/sysroot/boot of the host is mounted"),
        (&["/data/a", "/etc/a"], "ro", "/etc/a of the host is mounted"),
        (&["/srv/www/a"], "rw", "/srv/www/a of the host is mounted writable"),
        (&["/var/lib/kubelet/pods/0bb-2/volumes/x"], "ro", "/var/lib/kubelet/pods/0bb-2/volumes/x of the host"),
        (&[], "ro", "volume-subpaths/v/web/0 of the host is mounted"),
    ] {
        let refusal = ask(shown, option).unwrap_err();
        assert!(refusal.contains(words) && refusal.contains("volumeMounts[/data]"), "{shown:?}: {refusal}");
    }
    // Nor by its own path alone, as for an offline check of a config.json.
    assert!(
        decide(spec(|s| bind(s, subpath, &["ro"])), &policy, &KernelSupport::assumed(), &Observations::default())
            .is_err()
    );
}

/// Nodes have `/var/lib/containerd` on another disk, by a link or a bind mount.
#[test]
fn what_the_policy_names_is_known_by_its_other_paths_too() {
    let policy = parse(&["default = \"www\"\n[profile.www.host.paths]\n\"/srv/www\" = \"read-write\"\n\
                          \"/srv\" = \"deny\"\n"])
    .unwrap();
    assert!(policy.host_paths().contains(std::path::Path::new("/srv/www")));
    let facts = Observations {
        also_at: [
            ("/var/lib/containerd".into(), vec!["/disk/containerd".into()]),
            ("/srv".into(), vec!["/disk/srv".into(), "/exports".into()]),
            ("/boot".into(), vec![]),
        ]
        .into(),
        ..Observations::default()
    };
    let ask = |source: &str| {
        let decided = decide(spec(|s| bind(s, source, &["rw"])), &policy, &KernelSupport::assumed(), &facts);
        decided.map(drop).map_err(|refusal| refusal.to_string())
    };
    for allowed in ["/disk/other", "/diskette", "/data", "/exports/www/a", "/disk/srv/www", "/srv/www"] {
        assert_eq!(ask(allowed), Ok(()), "{allowed}");
    }
    for (source, words) in [
        ("/disk/containerd", "/disk/containerd (which shows /var/lib/containerd) of the host is mounted"),
        ("/disk/containerd/x", "/disk/containerd/x (which shows /var/lib/containerd/x) of the host is mounted"),
        ("/disk", "/disk (which shows /"),
        ("/exports/wwx", "/exports/wwx (which shows /srv/wwx) of the host is mounted"),
        ("/boot/x", ": /boot/x of the host is mounted"),
    ] {
        let refusal = ask(source).unwrap_err();
        assert!(refusal.contains(words), "{source}: {refusal}");
    }
}

#[test]
fn what_leads_out_of_a_pods_own_folder_is_not_the_pods() {
    let link = "/var/lib/kubelet/pods/0aa-1/volumes/link";
    let ask = |real: &str| {
        let facts = Observations { sources: [(link.into(), real.into())].into(), ..Observations::default() };
        let spec = spec(|s| bind(s, link, &["ro"]));
        let foreign = hardened_sandbox::foreign_sources(&spec, &facts).count() - foreign_of_containerd();
        (decide(spec.clone(), &parse(&[""]).unwrap(), &KernelSupport::assumed(), &facts).is_ok(), foreign)
    };
    assert_eq!(ask("/etc"), (false, 1));
    assert_eq!(ask("/var/lib/kubelet/pods/0bb-2/volumes/x"), (false, 1));
    assert_eq!(ask("/var/lib/kubelet/pods/0aa-1/volumes/x"), (true, 0));
}

/// Sources in the spec that all tests start from.
fn foreign_of_containerd() -> usize {
    hardened_sandbox::foreign_sources(&spec(|_| {}), &Observations::default()).count()
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
        let facts = Observations { handler: handler.map(str::to_owned), ..Observations::default() };
        let spec = spec(|s| s["annotations"]["io.kubernetes.cri.sandbox-namespace"] = json!(namespace));
        decide(spec, &policy, &KernelSupport::assumed(), &facts).unwrap().by().to_owned()
    };
    assert!(by(Some("strict-web"), "shop").contains("profile restricted"));
    assert!(by(Some("hardened"), "shop").contains("profile shared"));
    for (handler, namespace) in [(Some("hardened"), "bank"), (Some("strict"), "shop"), (None, "shop")] {
        assert_eq!(by(handler, namespace), "profile baseline (built in)", "{handler:?} {namespace}");
    }
    // The pause container holds what containers of the pod may be given, and no more.
    let pause = |handler: &str| {
        let facts = Observations { handler: Some(handler.to_owned()), ..Observations::default() };
        let own = ["mount", "network", "ipc", "uts"];
        let sandbox = spec(|s| {
            s["annotations"]["io.kubernetes.cri.container-type"] = json!("sandbox");
            s["linux"]["namespaces"] = own.map(|kind| json!({"type": kind})).into();
        });
        decide(sandbox, &policy, &KernelSupport::assumed(), &facts).is_ok()
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
    assert!(ask("/data", "rw") && !ask("/", "ro") && !ask("/var", "ro") && !ask("/var/lib", "ro"));
    // What the kubelet and containerd keep for this pod, and for another.
    assert!(ask("/var/lib/kubelet/pods/0aa-1/volumes/x", "rw") && !ask("/var/lib/kubelet/pods/0bb/volumes/x", "ro"));
    let sandbox = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes";
    assert!(ask(&format!("{sandbox}/5a5a/shm"), "rw") && !ask(&format!("{sandbox}/6b6b/shm"), "rw"));
    // A link that leads away.
    let facts = Observations { sources: [("/data/x".into(), "/etc".into())].into(), ..Observations::default() };
    let spec = spec(|s| bind(s, "/data/x", &["ro"]));
    let refusal = decide(spec, &parse(&[policy]).unwrap(), &KernelSupport::assumed(), &facts).unwrap_err().to_string();
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
    assert_eq!(admission.spec().process().as_ref().unwrap().no_new_privileges(), Some(true));
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
    assert!(admission.spec().linux().as_ref().unwrap().masked_paths().as_ref().unwrap().len() > 10);
    assert!(admission.decide_exec(spec(|_| {}).process().clone().unwrap()).is_err());
}

/// Profiles made of random edits.
fn profile() -> impl Strategy<Value = String> {
    let edit = prop_oneof![
        Just("extends = \"restricted\"".to_owned()),
        Just("capabilities.drop = [\"CHOWN\", \"KILL\"]".to_owned()),
        Just("capabilities.add = [\"NET_RAW\"]".to_owned()),
        Just("capabilities.add = [\"SYS_TIME\", \"NET_ADMIN\"]".to_owned()),
        Just("seccomp.deny = [\"mkdir\", \"mkdirat\"]".to_owned()),
        Just("seccomp.allow = [\"ptrace\", \"mount\"]".to_owned()),
        Just("seccomp.socket-families = [\"unix\", \"vsock\"]".to_owned()),
        Just("seccomp.rule = [{calls = [\"ioctl\"], argument = 1, equals = 3, answer = \"deny\"}]".to_owned()),
        Just("files.read-only-root = true".to_owned()),
        Just("files.hidden = [\"/srv\"]".to_owned()),
        Just("files.no-write = [\"/var\"]".to_owned()),
        Just("files.masked = [\"/proc/cpuinfo\"]".to_owned()),
        Just("files.execute-from-writable = false".to_owned()),
        Just("network.bind-tcp = [80, 443]".to_owned()),
        Just("network.bind-tcp = [443, 8080]".to_owned()),
        Just("network.connect-tcp = []".to_owned()),
        Just("network.abstract-sockets = true".to_owned()),
        Just("host.namespaces = [\"network\"]".to_owned()),
        Just("host.paths = {\"/srv\" = \"deny\", \"/etc/x\" = \"read-only\"}".to_owned()),
        Just("host.other-paths = \"read-only\"".to_owned()),
        Just("host.devices = [\"c 10:229\"]".to_owned()),
        Just("host.devices = [\"c 10:*\"]".to_owned()),
        Just("host.sysctls = [\"net.*\"]".to_owned()),
        Just("user.non-root = true".to_owned()),
        Just("user.own-namespace = true".to_owned()),
        Just("user.uids = [[0, 99]]".to_owned()),
        Just("limits.RLIMIT_NOFILE = 64".to_owned()),
        Just("exec.refuse = true".to_owned()),
        Just("exec.programs = [\"/bin/*\"]".to_owned()),
    ];
    prop::collection::btree_set(edit, 0..5).prop_map(|edits| {
        let mut keys = std::collections::BTreeSet::new();
        let once = |edit: &String| keys.insert(edit.split(" =").next().unwrap_or_default().to_owned());
        let edits: Vec<String> = edits.into_iter().filter(once).collect();
        edits.join("\n")
    })
}

fn three(a: &str, b: &str, c: &str) -> Policy {
    parse(&[&format!("default = \"a\"\n[profile.a]\n{a}\n[profile.b]\n{b}\n[profile.c]\n{c}\n")]).unwrap()
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
    fn meet_is_idempotent_commutative_and_associative(a in profile(), b in profile(), c in profile()) {
        let policy = three(&a, &b, &c);
        let [a, b, c] = ["a", "b", "c"].map(|name| policy.profile(name).unwrap().sandbox());
        let same = |left: &Sandbox, right: &Sandbox| {
            // Filters are compared by what they answer: their rules may be written otherwise.
            let calls = Arch::native().unwrap().calls().map(|(_, number)| number);
            let filters = calls.flat_map(|n| [0, 1, 3, 16, 40, u64::MAX].map(|x| {
                (left.filter().decide(n, &[x; 6]), right.filter().decide(n, &[x; 6]))
            })).all(|(l, r)| l == r);
            filters && format!("{:?}", left.without_filter()) == format!("{:?}", right.without_filter())
        };
        prop_assert!(same(&a.meet(a), a));
        prop_assert!(same(&a.meet(b), &b.meet(a)));
        prop_assert!(same(&a.meet(b).meet(c), &a.meet(&b.meet(c))));
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
            decide(spec, &policy, &KernelSupport::assumed(), &Observations::default())
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
            let linux = admission.spec().linux().clone().unwrap();
            linux.masked_paths().iter().flatten().chain(linux.readonly_paths().iter().flatten()).cloned().collect()
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
        let exec = |admission: &Admission| admission.decide_exec(spec(|_| {}).process().clone().unwrap()).is_ok();
        prop_assert!(!exec(&met) || exec(&alone));
    }
}

#[test]
fn best_effort_takes_an_old_landlock_and_says_what_is_lost() {
    const BEST_EFFORT: &str = "landlock = \"best-effort\"\n";
    let on = |landlock_abi, policy: &str| {
        let host = KernelSupport { landlock_abi, ..KernelSupport::assumed() };
        decide(spec(|_| {}), &parse(&[policy]).unwrap(), &host, &Observations::default())
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
    assert!(decide(sandbox, &parse(&[&restricted]).unwrap(), &host, &Observations::default()).is_ok());
    let twice = parse(&[BEST_EFFORT, BEST_EFFORT]).unwrap_err();
    assert!(twice.contains("policy.d/1.toml:1:12") && twice.contains("given at policy.toml:1 already"), "{twice}");
}
