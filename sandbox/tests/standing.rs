//! What is said of a container once it is decided on: questions, exposure, refusals and their records.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::path::Path;

use hardened_sandbox::bundle::FileId;
use hardened_sandbox::policy::{Policy, Source};
use hardened_sandbox::record::Record;
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{
    Admission, AppArmor, Joined, KernelSupport, Location, Mark, Observations, PROFILE_ANNOTATION, Refusal, Standing,
    VolumeSource, judge, score,
};
use serde_json::{Value, json};

const CONTAINERD: &str = include_str!("../fuzz/corpus/decide/containerd-default.json");

fn decide(policy: &str, observed: &Observations, change: impl FnOnce(&mut Value)) -> Result<Admission, Refusal> {
    let mut spec: Value = serde_json::from_str(CONTAINERD).unwrap();
    spec["process"]["args"] = json!(["/bin/true"]);
    change(&mut spec);
    let file = Source::new("policy.toml".into(), policy.to_owned());
    let policy = Policy::parse(&[file], &|_| Err("not read".to_owned()), Arch::X86_64).unwrap();
    judge(&serde_json::from_value(spec).unwrap(), &policy, &KernelSupport::assumed(), observed)
}

fn standing(policy: &str, change: impl FnOnce(&mut Value)) -> Standing {
    let observed = Observations { mark: Mark::from_random("0123456789ab"), ..Observations::none(None) };
    Standing::new(&decide(policy, &observed, change).unwrap())
}

fn mount(spec: &mut Value, at: &str, source: &str, options: &[&str]) {
    let options = [&["rbind"], options].concat();
    let mount = json!({"destination": at, "type": "bind", "source": source, "options": options});
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

/// Rules for files, programs and ports.
const NARROW: &str = r#"
default = "narrow"
log-landlock-denials = true
[profile.narrow]
extends = "restricted"
[profile.narrow.files]
no-write = ["/etc", "/opt/app/fixed"]
hidden = ["/run/secrets"]
[profile.narrow.network]
connect-tcp = [80, 443]
bind-tcp = []
[profile.narrow.host]
paths = { "/srv" = "read-write", "/data" = "read-only" }
"#;

/// The host's namespaces and paths, and the network's administration.
const SHARED: &str = r#"
default = "shared"
[profile.shared]
extends = "compatible"
[profile.shared.capabilities]
add = ["NET_ADMIN"]
"#;

/// Nothing that a node's policy can withhold.
const WIDE: &str = r#"
[[rule]]
kind = "container"
privileged = "allow"
acknowledge-risk = true
"#;

#[test]
fn what_adds_to_a_containers_exposure_is_listed_and_scored() {
    let told = |standing: &Standing| {
        let findings = standing.findings();
        let lines = findings.iter().map(|f| format!("{} {}/{}: {}", f.name, f.exposure, f.weight, f.found));
        format!("{}\n{}", lines.collect::<Vec<_>>().join("\n"), score(&findings))
    };
    let narrow = standing(NARROW, |spec| {
        spec["process"]["user"]["uid"] = json!(1000);
        spec["root"]["readonly"] = json!(true);
        mount(spec, "/read", "/data", &["ro"]);
        spec["annotations"] = json!({"io.kubernetes.cri.sandbox-uid": "u"});
        mount(spec, "/own", "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/d", &[]);
    });
    insta::assert_snapshot!("exposure-narrow", told(&narrow));
    insta::assert_snapshot!("exposure-baseline", told(&standing("", |_| {})));
    let shared = standing(SHARED, |spec| {
        let namespaces = json!([{"type": "mount"}, {"type": "uts"}, {"type": "cgroup"}]);
        spec["linux"]["namespaces"] = namespaces;
        spec["process"]["capabilities"]["bounding"] = json!(["CAP_NET_ADMIN", "CAP_CHOWN"]);
        mount(spec, "/srv", "/srv", &[]);
    });
    insta::assert_snapshot!("exposure-shared", told(&shared));
    let mapped: Value = serde_json::from_str(include_str!("../fuzz/corpus/decide/user-namespace.json")).unwrap();
    insta::assert_snapshot!("exposure-mapped", told(&standing(SHARED, |spec| *spec = mapped)));
}

#[test]
fn each_way_to_more_adds_to_the_exposure() {
    let exposure = |standing: &Standing, name: &str| {
        standing.findings().into_iter().find(|finding| finding.name == name).unwrap().exposure
    };
    let with = |keys: &str| standing(&format!("default = \"p\"\n[profile.p]\n{keys}\n"), |_| {});
    for call in ["unshare", "clone", "clone3"] {
        assert_eq!(exposure(&with(&format!("seccomp.allow = [{call:?}]")), "new namespaces"), 6, "{call}");
    }
    for (capabilities, expected) in [
        (&[][..], 0),
        (&["CAP_CHOWN"], 1),
        (&["CAP_CHOWN", "CAP_KILL"], 1),
        (&["CAP_CHOWN", "CAP_KILL", "CAP_FOWNER"], 2),
    ] {
        let some = standing("", |spec| {
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set] = json!(capabilities);
            }
        });
        assert_eq!(exposure(&some, "capabilities"), expected, "{capabilities:?}");
    }
    for (apparmor, selinux, expected) in [(true, true, 0), (true, false, 0), (false, true, 0), (false, false, 3)] {
        let apparmor = if apparmor { AppArmor::Assumed } else { AppArmor::Off };
        let kernel = KernelSupport { apparmor, selinux, ..KernelSupport::assumed() };
        let spec = serde_json::from_str(CONTAINERD).unwrap();
        let admission = judge(&spec, &Policy::built_in(Arch::X86_64), &kernel, &Observations::none(None));
        assert_eq!(exposure(&Standing::new(&admission.unwrap()), "AppArmor, SELinux"), expected, "{kernel:?}");
    }
}

#[test]
fn a_kernel_tells_what_it_lacks() {
    let lacks = |change: &dyn Fn(&mut KernelSupport)| {
        let mut kernel = KernelSupport::assumed();
        change(&mut kernel);
        kernel.missing().map(|feature| feature.name).collect::<Vec<_>>()
    };
    assert!(lacks(&|_| {}).is_empty());
    assert_eq!(lacks(&|kernel| kernel.seccomp = false), ["seccomp filters"]);
    assert_eq!(lacks(&|kernel| kernel.user_namespaces = false), ["user namespaces"]);
    assert_eq!(lacks(&|kernel| kernel.memfd_noexec = false), ["vm.memfd_noexec"]);
    assert_eq!(lacks(&|kernel| kernel.landlock_abi = 0), ["Landlock"]);
    assert_eq!(lacks(&|kernel| kernel.landlock_abi = 6), ["Landlock ABI 7 (audit)"]);
    assert_eq!(lacks(&|kernel| kernel.landlock_abi = 1).len(), 6);
    assert!(lacks(&|kernel| kernel.selinux = false).is_empty());
    assert!(lacks(&|kernel| kernel.apparmor = AppArmor::Off).is_empty());
    let neither = lacks(&|kernel| (kernel.selinux, kernel.apparmor) = (false, AppArmor::Off));
    assert_eq!(neither, ["AppArmor or SELinux"]);
}

#[test]
fn questions_get_the_answer_of_what_was_decided() {
    let narrow = standing(NARROW, |spec| {
        mount(spec, "/opt/app/data", "/srv", &[]);
        mount(spec, "/opt/app/data/read", "/data", &["ro"]);
        mount(spec, "/etc/volume", "/srv", &[]);
    });
    let mut told = Vec::new();
    let mut tell = |question: String, answer: hardened_sandbox::Answer| {
        let verdict = if answer.allowed { "yes" } else { "no" };
        told.push(format!("{question}: {verdict}: {} [{}]", answer.because, answer.setting.unwrap_or_default()));
    };
    let paths = [
        "/",
        "/etc/passwd",
        "/etc",
        "/opt/app/new",
        "/opt/app/fixed/x",
        "/opt/app/data/x",
        "/opt/app/data/read/x",
        "/etc/volume/x",
        "/run/x",
        "/run/secrets/token",
        "/usr/bin/ls",
        "/usr",
        "/usr/new",
        "/usr/share/doc",
        "/proc/sys/kernel/core_pattern",
        "/proc/kcore",
        "/sys/firmware/x",
        "/tmp/x",
        "/dev/shm/x",
        "/dev/mqueue/x",
    ];
    for path in paths {
        tell(format!("write {path}"), narrow.write(Path::new(path)));
        tell(format!("read {path}"), narrow.read(Path::new(path)));
        tell(format!("execute {path}"), narrow.execute(Path::new(path)));
        if let Some(answer) = narrow.kept_by_profile(Path::new(path)) {
            tell(format!("the profile keeps {path}"), answer);
        }
    }
    for port in [80, 8080] {
        tell(format!("connect {port}"), narrow.port(port, true));
        tell(format!("listen {port}"), narrow.port(port, false));
    }
    tell("any port".to_owned(), standing("", |_| {}).port(80, true));
    for call in ["read", "mount", "unshare", "clone3", "io_uring_setup"] {
        tell(format!("call {call}"), narrow.call(call).unwrap());
    }
    assert!(narrow.call("no_such_call").is_err());
    insta::assert_snapshot!("answers", told.join("\n"));
    assert_eq!(narrow.mark().map(ToString::to_string).as_deref(), Some("0123456789ab"));
    assert_eq!(standing("", |_| {}).mark(), None);
    assert_eq!(narrow.profiles(), ["narrow"]);
    // A read-only root file system is the pod's own wish: no profile keeps what is there.
    let read_only = standing("", |spec| spec["root"]["readonly"] = json!(true));
    assert_eq!(read_only.kept_by_profile(Path::new("/usr/bin/ls")), None);
    assert!(!read_only.write(Path::new("/usr/share/doc")).allowed);
    assert!(standing("", |_| {}).kept_by_profile(Path::new("/usr/bin/ls")).is_some());
    // Nor what the pod has mounted there.
    let mounted = standing(SHARED, |spec| mount(spec, "/usr/bin", "/srv", &[]));
    assert_eq!(mounted.kept_by_profile(Path::new("/usr/bin/ls")), None);
    let mounted = standing("", |spec| {
        let mount = json!({"destination": "/usr/bin", "type": "tmpfs", "source": "tmpfs"});
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    assert_eq!(mounted.kept_by_profile(Path::new("/usr/bin/ls")), None);
}

#[test]
fn a_refusal_names_the_field_in_the_words_of_whoever_asked() {
    let refused = |container: bool, kind: &str| {
        let unknown_labels = vec!["system_u:system_r:none_such_t:s0".to_owned()];
        decide("", &Observations { unknown_labels, ..Observations::none(None) }, |spec| {
            spec["annotations"] = json!({
                "io.kubernetes.cri.sandbox-namespace": "shop",
                "io.kubernetes.cri.sandbox-name": "web-1",
                "io.kubernetes.cri.sandbox-uid": "0aa-1",
                "io.kubernetes.cri.container-type": kind,
                "io.kubernetes.cri.image-name": "registry/web",
                PROFILE_ANNOTATION: "none-such",
            });
            if container {
                spec["annotations"]["io.kubernetes.cri.container-name"] = json!("web");
            }
            spec["linux"]["sysctl"] = json!({"kernel.panic": "1"});
            spec["process"]["selinuxLabel"] = json!("system_u:system_r:sshd_t:s0");
        })
        .unwrap_err()
    };
    let fields = |refusal: &Refusal| {
        let fields = refusal.violations().iter().map(|violation| refusal.field_of(violation));
        fields.collect::<Vec<_>>().join(" ")
    };
    let of_container = refused(true, "container");
    let [of_sandbox, of_nameless] = ["sandbox", "container"].map(|kind| refused(false, kind));
    let of_ctr = decide("", &Observations::none(None), |spec| {
        spec["annotations"] = json!({PROFILE_ANNOTATION: "none-such"});
        spec["linux"]["sysctl"] = json!({"kernel.panic": "1"});
        spec["process"]["selinuxLabel"] = json!("system_u:system_r:sshd_t:s0");
    });
    let of_no_pod = decide("", &Observations::none(None), |spec| {
        spec["annotations"] = json!({"io.kubernetes.cri.container-name": "web"});
        spec["process"]["selinuxLabel"] = json!("system_u:system_r:sshd_t:s0");
    });
    let all = [&of_container, &of_sandbox, &of_nameless, &of_ctr.unwrap_err(), &of_no_pod.unwrap_err()];
    insta::assert_snapshot!("refused-fields", all.map(fields).join("\n"));
    assert_eq!(of_container.identity().name().as_deref(), Some("shop/web-1 web"));
    assert_eq!(of_sandbox.identity().name().as_deref(), Some("shop/web-1"));
    assert_eq!(of_container.by(), "profile baseline (built in)");
    let about = Record::about("node-1", "c0ffee", of_container.identity());
    insta::assert_json_snapshot!("refusal-record", of_container.record(&about));
    let privileged = decide("", &Observations::none(None), |spec| {
        spec["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN", "CAP_SYS_MODULE"]);
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
    });
    let privileged = privileged.unwrap_err();
    assert_eq!((privileged.violations().len(), privileged.implied().len()), (1, 2), "{privileged}");
}

#[test]
fn a_profile_and_a_policy_say_what_they_are() {
    let file = Source::new("policy.toml".into(), NARROW.to_owned());
    assert_eq!(file.text(), NARROW);
    let policy = Policy::parse(&[file], &|_| Err("not read".to_owned()), Arch::X86_64).unwrap();
    assert_eq!((policy.default_profile(), policy.logs_landlock_denials()), ("narrow", true));
    assert!(!Policy::built_in(Arch::X86_64).logs_landlock_denials());
    let narrow = policy.profile("narrow").unwrap();
    let told = narrow.describe().into_iter().map(|(what, how)| format!("{what}: {how}"));
    insta::assert_snapshot!("profile-narrow", told.collect::<Vec<_>>().join("\n"));
    assert!(!narrow.sandbox().execute_from_writable());
    assert!(policy.profile("baseline").unwrap().sandbox().execute_from_writable());
}

#[test]
fn a_place_of_the_host_is_found_by_its_file_system() {
    let at = |path: &str| Location { file_system: "8:1".into(), path: path.into() };
    let source = VolumeSource {
        path: "/srv/x".into(),
        file: FileId { device: 1, inode: 2 },
        is_directory: true,
        location: Some(at("/srv/x")),
        known_as: None,
        below: vec![("/srv/x/other".into(), Location { file_system: "8:2".into(), path: "/".into() })],
    };
    let observed = |below: bool| {
        let source = VolumeSource { below: if below { source.below.clone() } else { Vec::new() }, ..source.clone() };
        Observations {
            sources: [("/srv/x".into(), source)].into(),
            places: [("/srv".into(), at("/srv"))].into(),
            namespaces: [(
                hardened_sandbox::bundle::NamespaceKind::Network,
                Joined { file: FileId { device: 4, inode: 5 }, is_hosts: false },
            )]
            .into(),
            ..Observations::none(None)
        }
    };
    let bind = |spec: &mut Value| mount(spec, "/x", "/srv/x", &[]);
    assert!(decide(NARROW, &observed(false), bind).is_ok());
    let refused = decide(NARROW, &observed(true), bind).unwrap_err().to_string();
    assert!(refused.contains("/srv/x/other"), "{refused}");
    // Alone, without those mounted below.
    assert!(
        decide(NARROW, &observed(true), |spec| {
            let mount = json!({"destination": "/x", "type": "bind", "source": "/srv/x", "options": ["bind"]});
            spec["mounts"].as_array_mut().unwrap().push(mount);
        })
        .is_ok()
    );
}

#[test]
fn a_rule_alone_admits_a_privileged_container() {
    let privileged = |spec: &mut Value| {
        spec["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
        spec["annotations"] = json!({"io.kubernetes.cri.container-type": "container"});
    };
    assert!(decide("", &Observations::none(None), privileged).is_err());
    let admitted = decide(WIDE, &Observations::none(None), privileged);
    assert!(admitted.is_ok_and(|admission| admission.is_privileged()));
}
