//! Rules and edits of a policy at their edges.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::path::PathBuf;

use hardened_sandbox::policy::{Policy, Source};
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{Identity, Kind};

fn parse(text: &str) -> Result<Policy, String> {
    let file = Source::new(PathBuf::from("policy.toml"), text.to_owned());
    Policy::parse(&[file], &|_| Err("not read".to_owned()), Arch::X86_64).map_err(|errors| errors.to_string())
}

#[test]
fn values_at_the_edge_of_what_is_taken() {
    let edit = |keys: &str| parse(&format!("[profile.p]\n{keys}\n")).err().unwrap_or_default();
    for (good, wrong) in [
        ("user.uids = [[5, 5]]", "user.uids = [[6, 5]]"),
        ("files.masked = [\"/proc/x\", \"/sys/y\"]", "files.masked = [\"/procx\"]"),
        ("files.read-only = [\"/sys/y\"]", "files.read-only = [\"/etc\"]"),
        ("host.devices = [\"b 8:*\", \"c 1:2\"]", "host.devices = [\"d 8:1\"]"),
        ("seccomp.errno = 1", "seccomp.errno = 4096"),
        ("files.hidden = [\"/a\"]", "files.hidden = [\"/a/../b\"]"),
        (
            "seccomp.rule = [{ calls = [\"ioctl\"], argument = 5, equals = 1, answer = \"deny\" }]",
            "seccomp.rule = [{ calls = [\"ioctl\"], argument = 6, equals = 1, answer = \"deny\" }]",
        ),
    ] {
        assert_eq!(edit(good), "", "{good}");
        assert!(edit(wrong).contains("policy.toml:"), "{wrong}");
    }
    let told = |keys: &str| {
        let policy = parse(&format!("[profile.p]\n{keys}\n")).unwrap();
        policy.profile("p").unwrap().describe().into_iter().find(|(what, _)| what == "devices").unwrap().1
    };
    assert_eq!(told("host.devices = [\"b 8:*\", \"c 1:2\"]"), "c 1:2, b 8:*");
}

#[test]
fn a_rule_tells_what_it_selects_by() {
    let policy = parse(
        "[[rule]]\nnamespace = \"shop\"\nhandler = [\"a\", \"b*\"]\nkind = \"sandbox\"\nprofile = \"restricted\"\n\
         [[rule]]\npod = \"web\"\nprofile = \"restricted\"\n",
    )
    .unwrap();
    let told: Vec<String> = policy.rules().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["namespace shop, handler a, b*, sandbox only, profile restricted", "pod web, profile restricted"]
    );
    let handlers: Vec<bool> =
        policy.rules().iter().map(|rule| rule.handlers().is_some_and(|h| h.matches("bx"))).collect();
    assert_eq!(handlers, [true, false]);
}

#[test]
fn privileged_images_are_named_by_their_whole_digest() {
    let warned = |digest: &str, keys: &str| {
        let rule = format!("[[rule]]\nnamespace = \"storage\"\ndigest = {digest}\nprivileged = \"allow\"\n{keys}");
        !parse(&rule).unwrap().warnings().is_empty()
    };
    let whole = format!("sha256:{}", "0a".repeat(32));
    assert!(!warned(&format!("\"{whole}\""), ""));
    for wrong in [&whole[..70], &whole.replace('a', "g"), &whole.replace("sha256", "sha512"), &whole.replace("0a", "*")]
    {
        assert!(warned(&format!("\"{wrong}\""), ""), "{wrong}");
        assert!(warned(&format!("[\"{whole}\", \"{wrong}\"]"), ""), "{wrong}");
        assert!(!warned(&format!("\"{wrong}\""), "acknowledge-risk = true"), "{wrong}");
    }
    // What is privileged by no rule is warned of by none.
    assert!(parse("[[rule]]\nnamespace = \"a\"\nprofile = \"restricted\"").unwrap().warnings().is_empty());
}

#[test]
fn a_later_rule_for_a_namespace_counts_where_a_forged_one_comes_first() {
    let forged = |first: &str, later: &str| {
        parse(&format!("[[rule]]\n{first}\nprofile = \"baseline\"\n[[rule]]\n{later}\n")).is_err()
    };
    let narrow = "namespace = \"shop\"\nprofile = \"restricted\"";
    assert!(forged("pod = \"web\"", narrow));
    assert!(forged("container = \"web\"", narrow));
    // It decides for no container for which the first one does.
    assert!(!forged("kind = \"sandbox\"", "namespace = \"shop\"\ncontainer = \"web\"\nprofile = \"restricted\""));
    assert!(!forged("kind = \"sandbox\"", "namespace = \"shop\"\nkind = \"container\"\nprofile = \"restricted\""));
    assert!(forged("kind = \"sandbox\"", "namespace = \"shop\"\nkind = \"sandbox\"\nprofile = \"restricted\""));
    // One for privileged containers alone takes nothing away from others, nor one that can be forged too.
    assert!(!forged("pod = \"web\"", "namespace = \"shop\"\nprivileged = \"allow\"\nacknowledge-risk = true"));
    assert!(!forged("pod = \"web\"", "pod = \"w*\"\nprofile = \"restricted\""));
    assert!(!forged("pod = \"web\"\nacknowledge-risk = true", narrow));
    assert!(!forged("namespace = \"s*\"", narrow));
    assert!(forged("namespace = \"*\"", narrow));
}

#[test]
fn each_selector_must_match() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let selectors = [
        "namespace = \"shop\"",
        "pod = \"web-*\"",
        "container = \"web\"",
        "image = \"registry/*\"",
        &format!("digest = \"{digest}\""),
        "handler = \"strict\"",
        "kind = \"container\"",
    ];
    let policy = parse(&format!("[[rule]]\n{}\nprofile = \"restricted\"", selectors.join("\n"))).unwrap();
    let text = |text: &str| Some(text.to_owned());
    let all = Identity {
        namespace: text("shop"),
        pod: text("web-1"),
        container: text("web"),
        image: text(&format!("registry/web@{digest}")),
        handler: text("strict"),
        kind: Some(Kind::Container),
        ..Identity::default()
    };
    let chosen = |identity: &Identity| policy.choose(identity, false).profile.name().to_owned();
    assert_eq!(chosen(&all), "restricted");
    for other in [
        Identity { namespace: text("shop2"), ..all.clone() },
        Identity { pod: text("db-1"), ..all.clone() },
        Identity { container: None, ..all.clone() },
        Identity { image: text(&format!("other/web@{digest}")), ..all.clone() },
        Identity { image: text("registry/web:1"), ..all.clone() },
        Identity { handler: None, ..all.clone() },
        Identity { kind: Some(Kind::Sandbox), ..all.clone() },
        Identity { kind: None, ..all.clone() },
    ] {
        assert_eq!(chosen(&other), "baseline", "{other:?}");
    }
}
