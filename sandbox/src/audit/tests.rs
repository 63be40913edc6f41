use proptest::prelude::*;

use super::*;
use crate::record::Record;
use crate::{KernelSupport, Observations, Ruleset, Standing, judge};

/// As Linux 6.18 multicasts them.
const RECORDED: &[(u16, &str)] = &[
    (
        1423,
        r#"audit(1795721494.584:1055): domain=1b535e152 blockers=fs.write_file path="/etc/hostname" dev="vda" ino=611"#,
    ),
    (
        1424,
        r#"audit(1795721494.584:1055): domain=1b535e152 status=allocated mode=enforcing pid=15210 uid=0 exe="/root/.pyenv/versions/3.11.7/bin/python3.11" comm="h:0b7c1e529d3a""#,
    ),
    (1423, r#"audit(1795721494.584:1056): domain=1b535e152 blockers=fs.make_dir path="/etc" dev="vda" ino=19"#),
    (
        1423,
        r#"audit(1795721494.584:1058): domain=1b535e152 blockers=fs.remove_file,fs.refer path="/tmp" dev="vda" ino=10117130"#,
    ),
    (1423, r#"audit(1795721494.584:1059): domain=1b535e152 blockers=net.bind_tcp saddr=127.0.0.1 src=4711"#),
    (1423, r#"audit(1795721494.584:1060): domain=1b535e152 blockers=net.connect_tcp daddr=127.0.0.1 dest=80"#),
    (
        1423,
        r#"audit(1795721494.584:1061): domain=1b535e152 blockers=fs.execute path=2F746D702F780A22 dev="vda" ino=10117132"#,
    ),
    (1423, r#"audit(1795721494.584:1062): domain=1b535e152 blockers=scope.signal opid=15167 ocomm="python3""#),
    (1423, r#"audit(1795721494.584:1063): domain=1b535e152 blockers=ptrace opid=15167 ocomm="python3""#),
    (
        1423,
        r#"audit(1795721494.588:1064): domain=1b535e152 blockers=scope.abstract_unix_socket path=00686F7374696C650A"#,
    ),
    (1424, r#"audit(1795721495.012:1065): domain=1b535e152 status=deallocated denials=11"#),
    (
        1400,
        r#"audit(1795721495.100:12): apparmor="DENIED" operation="open" class="file" profile="hardened-test-web" name="/etc/passwd" pid=715 comm="cat" requested_mask="r" denied_mask="r" fsuid=0 ouid=0"#,
    ),
    (
        1400,
        r#"audit(1795721495.100:13): apparmor="DENIED" operation="capable" class="cap" profile="hardened" pid=716 comm="ip" capability=12  capname="net_admin""#,
    ),
    (
        1400,
        r#"audit(1795721495.100:14): apparmor="ALLOWED" operation="open" class="file" profile="complain" name="/x" pid=717 comm="cat" requested_mask="r" denied_mask="r" fsuid=0 ouid=0"#,
    ),
    (
        1400,
        r#"audit(1795721495.100:15): avc:  denied  { read open } for  pid=718 comm="cat" name=73680A646F77 dev="vda" ino=123 scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:object_r:shadow_t:s0 tclass=file permissive=0"#,
    ),
    (
        1400,
        r#"audit(1795721495.100:16): avc:  denied  { read } for  pid=718 comm="cat" name="x" scontext=a:b:c:s0 tcontext=a:b:d:s0 tclass=file permissive=1"#,
    ),
    (
        1400,
        r#"audit(1795721495.100:18): avc:  denied  { name_connect } for  pid=718 comm="nc" dest=80 scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:object_r:http_port_t:s0 tclass=tcp_socket permissive=0"#,
    ),
    (
        1400,
        r#"audit(1795721495.100:19): avc:  denied  { net_admin } for  pid=718 comm="ip" capability=12  scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:system_r:container_t:s0:c1,c2 tclass=capability permissive=0"#,
    ),
    (1300, r#"audit(1795721495.100:17): arch=c000003e syscall=257"#),
];

fn standing() -> Standing {
    let spec = serde_json::from_value(serde_json::json!({
        "ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"cwd": "/", "args": ["/bin/true"], "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}]}
    }));
    let policy = crate::policy::Policy::built_in(crate::seccomp::Arch::X86_64);
    let admission = judge(&spec.unwrap(), &policy, &KernelSupport::assumed(), &Observations::none(None));
    Standing::new(&admission.unwrap())
}

#[test]
fn recorded_lines_become_records() {
    let standing = standing();
    let records: Vec<_> = RECORDED
        .iter()
        .map(|(kind, text)| match parse(*kind, text.as_bytes()) {
            Ok(Some(Message { event: Event::Landlock { denial, .. } | Event::Labelled { denial, .. }, .. })) => {
                let Record { enforcer, operation, resource, data, policy_name, message, setting, .. } =
                    denial.record(&Record::default(), &standing, Ruleset::Container);
                format!("{enforcer:?} {operation} {resource:?} {data}\n  {policy_name}: {message}\n  {setting:?}")
            }
            other => format!("{other:?}"),
        })
        .collect();
    insta::assert_snapshot!(records.join("\n"));
}

#[test]
fn each_right_and_each_class_has_its_kind_and_its_answer() {
    let standing = standing();
    let denial = |kind: u16, fields: &str| match parse(kind, format!("audit(1.2:3): {fields}").as_bytes()) {
        Ok(Some(Message { event: Event::Landlock { denial, .. } | Event::Labelled { denial, .. }, .. })) => denial,
        other => panic!("{fields}: {other:?}"),
    };
    let of_path =
        |right: &str, path: &str| denial(LANDLOCK_ACCESS, &format!("domain=1 blockers={right} path=\"{path}\""));
    let landlock = |right: &str| of_path(right, "/dev/x");
    let apparmor = |fields: &str| denial(AVC, &format!("apparmor=\"DENIED\" profile=\"p\" pid=1 {fields}"));
    let selinux = |class: &str| {
        let labels = "scontext=a:b:c:s0 tcontext=a:b:d:s0 permissive=0";
        denial(AVC, &format!("avc:  denied  {{ read }} for  pid=1 tclass={class} {labels}"))
    };
    let told = [
        landlock("fs.read_file"),
        landlock("fs.read_dir"),
        landlock("fs.ioctl_dev"),
        landlock("fs.change_topology"),
        landlock("fs.truncate"),
        landlock("fs.make_dir"),
        landlock("fs.new_in_a_later_kernel"),
        landlock("new.in_a_later_kernel"),
        landlock("ptrace"),
        landlock("scope.signal"),
        of_path("fs.execute", "/usr"),
        of_path("fs.read_file", "/proc/sys/x"),
        of_path("fs.write_file", "/usr/x"),
        of_path("fs.truncate", "/usr/x"),
        of_path("fs.make_reg", "/usr/x"),
        apparmor("operation=\"signal\" peer=\"q\" requested_mask=\"send\" denied_mask=\"send\""),
        apparmor("operation=\"ptrace\" peer=\"q\" denied=\"read\""),
        apparmor("operation=\"create\" family=\"inet\""),
        apparmor("operation=\"mknod\" name=\"/x\""),
        selinux("process"),
        selinux("capability2"),
        selinux("unix_stream_socket"),
        selinux("file"),
    ];
    let told = told.map(|denial| {
        let record = denial.record(&Record::default(), &standing, Ruleset::Container);
        assert_eq!((record.kind.as_str(), record.tags.contains("NIST")), ("MatchedPolicy", true));
        format!("{} {:?} {} {}: {}", record.operation, record.args, record.result, record.resource, record.message)
    });
    insta::assert_snapshot!("kinds", told.join("\n"));
    // Denials are one to a person where they differ by what they are about.
    let (one, other) = (landlock("fs.read_file"), landlock("fs.read_file,fs.execute"));
    let elsewhere = denial(LANDLOCK_ACCESS, "domain=1 blockers=fs.read_file path=\"/y\"");
    assert!(one.differs_by_object(&elsewhere) && one != elsewhere && !one.differs_by_object(&other));
    assert_eq!(one.elsewhere(), elsewhere.elsewhere());
    let of = |profile: &str, operation: &str| {
        denial(AVC, &format!("apparmor=\"DENIED\" operation=\"{operation}\" profile=\"{profile}\" pid=1 name=\"/x\""))
    };
    assert!(!of("p", "open").differs_by_object(&of("q", "open")));
    assert!(!of("p", "open").differs_by_object(&of("p", "mknod")));
    assert_eq!(
        selinux("file").elsewhere(),
        denial(
            AVC,
            "avc:  denied  { read } for  pid=1 tclass=file name=\"n\" \
        scontext=a:b:c:s0 tcontext=a:b:e:s0 permissive=0"
        )
        .elsewhere()
    );
}

#[test]
fn what_tells_of_no_denial_is_no_denial() {
    let rest = "{ read } for  pid=1 tclass=file scontext=a:b:c:s0 tcontext=a:b:d:s0 permissive=0";
    let avc = |words: &str| parse(AVC, format!("audit(1.2:3): {words} {rest}").as_bytes()).map(|found| found.is_some());
    assert_eq!(avc("avc:  denied "), Ok(true));
    for other in ["avc:  granted ", "denied ", "avc:  denied=1 ", "avc:=1 denied ", ""] {
        assert_eq!(avc(other), Ok(false), "{other}");
    }
    // Fields beyond those that are kept are not looked at.
    let domain = |before: usize| {
        let words = "x ".repeat(before);
        parse(LANDLOCK_ACCESS, format!("audit(1.2:3): {words}domain=1 blockers=fs.execute").as_bytes()).is_ok()
    };
    let most = (0..200).take_while(|before| domain(*before)).count();
    assert_eq!(most, fields::MAX_FIELDS - 1);
}

#[test]
fn what_is_no_record_is_an_error() {
    for text in ["", "audit(", "audit(1.2:3): domain=xyz blockers=a", "audit(1.2:3): domain=1 blockers=", "audit(x)"] {
        for kind in [LANDLOCK_ACCESS, LANDLOCK_DOMAIN] {
            assert_eq!(parse(kind, text.as_bytes()), Err(Malformed(kind)), "{text}");
        }
    }
}

#[test]
fn a_process_forges_no_field() {
    // A path with a quote in it comes as digits; one that looks like fields stays between its quotes.
    let text = r#"audit(1.000:1): domain=1 blockers=fs.execute path="/x domain=2 blockers=ptrace" dev="a""#;
    let Ok(Some(Message { event: Event::Landlock { domain, denial }, .. })) = parse(LANDLOCK_ACCESS, text.as_bytes())
    else {
        panic!("no denial");
    };
    let record = denial.record(&Record::default(), &standing(), Ruleset::Container);
    assert_eq!((domain, record.args), (1, vec!["fs.execute".to_owned()]));
    assert_eq!(record.resource, "/x domain=2 blockers=ptrace");
    // Nor does its name reach a terminal raw.
    let text = "audit(1.000:1): domain=1 blockers=fs.execute path=\"/\u{202e}\u{9b}31m\"";
    let Ok(Some(Message { event: Event::Landlock { denial, .. }, .. })) = parse(LANDLOCK_ACCESS, text.as_bytes())
    else {
        panic!("no denial");
    };
    let record = denial.record(&Record::default(), &standing(), Ruleset::Container);
    assert_eq!(record.resource, r"/\u{202e}\u{9b}31m");
}

proptest! {
    #[test]
    fn no_text_is_too_much(kind in prop_oneof![Just(AVC), Just(LANDLOCK_ACCESS), Just(LANDLOCK_DOMAIN), any::<u16>()],
                           text in prop::collection::vec(any::<u8>(), 0..600)) {
        drop(parse(kind, &text));
    }

    /// Near to what is understood, where the mistakes are.
    #[test]
    fn no_change_of_a_recorded_line_is_too_much(at in 0..RECORDED.len().max(1), from in 0..200usize, length in 0..40usize,
                                                with in "[ -~\\x00\\n]{0,20}") {
        let Some((kind, text)) = RECORDED.get(at) else { return Ok(()) };
        let mut bytes = text.as_bytes().to_vec();
        let start = from.min(bytes.len());
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, with.bytes());
        if let Ok(Some(Message { event: Event::Landlock { denial, .. } | Event::Labelled { denial, .. }, .. })) = parse(*kind, &bytes) {
            drop(denial.record(&Record::default(), &standing(), Ruleset::Exec));
        }
    }
}
