//! What was denied, in a record's words; and why, with what would allow it.

use std::path::Path;

use super::fields::Fields;
use crate::mark::Ruleset;
use crate::record::{Enforcer, Record, printable};
use crate::standing::{Answer, Standing};

/// NIST SP 800-190 ("App vulnerabilities": unexpected file and network access), CIS Kubernetes Benchmark ("Apply
/// security context to your pods and containers").
const TAGS: &str = "CIS-Kubernetes-5.7.3,NIST-SP-800-190-4.4.4";

/// Most rights that are kept of a denial.
const MAX_RIGHTS: usize = 8;

/// Something that was denied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Denial {
    /// Who denied it.
    pub enforcer: Enforcer,
    /// What it is, as [`Record::operation`] has it.
    kind: &'static str,
    /// The rights that were missing, in the enforcer's words: the kernel's own, none of them chosen by a process.
    rights: Vec<String>,
    /// The path, address, or what else it was about.
    object: String,
    /// AppArmor's profile, or the label of the process.
    policy: String,
    /// The label of the object, and its class.
    target: String,
}

pub(super) fn of_landlock(fields: &Fields<'_>) -> Option<Denial> {
    let rights = rights(fields.word("blockers")?.split(','))?;
    let first = rights.first()?;
    let (kind, object) = match first.split_once('.').unwrap_or((first, "")) {
        ("net", _) => {
            let port = fields.word("src").or_else(|| fields.word("dest"));
            ("Network", port.unwrap_or_default().to_owned())
        }
        ("scope", "abstract_unix_socket") => ("Network", fields.text("path").unwrap_or_default()),
        ("ptrace" | "scope", _) => ("Process", fields.text("ocomm").unwrap_or_default()),
        _ => ("File", fields.text("path").unwrap_or_default()),
    };
    let (policy, target) = (String::new(), String::new());
    Some(Denial { enforcer: Enforcer::Landlock, kind, rights, object, policy, target })
}

pub(super) fn of_apparmor(fields: &Fields<'_>) -> Option<Denial> {
    let operation = fields.word("operation")?;
    let object = ["name", "capname", "family", "peer", "target"].into_iter().find_map(|key| fields.text(key));
    let kind = match operation {
        "capable" => "Capabilities",
        "signal" | "ptrace" => "Process",
        _ if fields.word("family").is_some() => "Network",
        _ => "File",
    };
    Some(Denial {
        enforcer: Enforcer::AppArmor,
        kind,
        rights: rights([operation].into_iter().chain(fields.word("denied_mask").or(fields.word("denied"))))?,
        object: object.unwrap_or_default(),
        policy: fields.text("profile")?,
        target: String::new(),
    })
}

pub(super) fn of_selinux(fields: &Fields<'_>) -> Option<Denial> {
    let class = fields.word("tclass")?;
    let kind = match class {
        "process" => "Process",
        "capability" | "capability2" | "cap_userns" | "cap2_userns" => "Capabilities",
        _ if class.ends_with("socket") => "Network",
        _ => "File",
    };
    // Numbers are the kernel's: as digits of a text they would be read as hexadecimal.
    let number = || ["dest", "capability"].into_iter().find_map(|key| fields.word(key).map(str::to_owned));
    let object = ["path", "name"].into_iter().find_map(|key| fields.text(key)).or_else(number);
    Some(Denial {
        enforcer: Enforcer::SELinux,
        kind,
        rights: rights(fields.braced())?,
        object: object.unwrap_or_default(),
        policy: fields.text("scontext")?,
        target: format!("{}:{class}", fields.text("tcontext")?),
    })
}

/// The words of a list of rights, all of them plain.
fn rights<'a>(words: impl Iterator<Item = &'a str>) -> Option<Vec<String>> {
    let plain = |word: &str| {
        let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        !word.is_empty() && word.len() <= 40 && word.bytes().all(letters)
    };
    let rights: Vec<String> = words.take(MAX_RIGHTS).filter(|word| plain(word)).map(str::to_owned).collect();
    Some(rights).filter(|rights| !rights.is_empty())
}

impl Denial {
    /// Whether they are the same but for what they are about.
    #[must_use]
    pub fn differs_by_object(&self, other: &Self) -> bool {
        (self.enforcer, self.kind, &self.rights) == (other.enforcer, other.kind, &other.rights)
            && self.policy == other.policy
    }

    /// The same, about nothing that is named: the kind of all that are not told apart.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        Self { object: String::new(), target: String::new(), ..self.clone() }
    }

    /// The record of it: of a container, given what all of its records have, and what was decided of it.
    #[must_use]
    pub fn record(&self, about: &Record, standing: &Standing, ruleset: Ruleset) -> Record {
        let (rights, policy) = (self.rights.join(","), printable(&self.policy));
        let (policy_name, data, (because, setting)) = match self.enforcer {
            Enforcer::AppArmor => {
                (format!("AppArmor profile {policy}"), format!("operation={rights}"), self.of_profile())
            }
            Enforcer::SELinux => {
                let data = format!("permissions={rights} target={}", printable(&self.target));
                (format!("SELinux label {policy}"), data, self.of_label())
            }
            Enforcer::Landlock | Enforcer::Seccomp | Enforcer::Policy => {
                let Answer { because, setting, .. } = self.of_rules(standing, ruleset);
                let profiles = standing.profiles().join(" and ");
                (format!("profile {profiles}"), format!("blockers={rights}"), (because, setting))
            }
        };
        Record {
            kind: "MatchedPolicy".to_owned(),
            enforcer: self.enforcer,
            operation: self.kind.to_owned(),
            resource: printable(&self.object),
            data,
            args: self.rights.clone(),
            result: self.errno().to_owned(),
            policy_name,
            message: printable(&because),
            setting: setting.map(|setting| printable(&setting)),
            tags: TAGS.to_owned(),
            ..about.clone()
        }
    }

    /// What the program got: Landlock's scopes and missing capabilities are `EPERM`, all else `EACCES`.
    fn errno(&self) -> &'static str {
        let scope = |right: &String| right == "ptrace" || right.starts_with("scope.");
        let of_scope = self.enforcer == Enforcer::Landlock && self.rights.first().is_some_and(scope);
        if self.kind == "Capabilities" || of_scope { "EPERM" } else { "EACCES" }
    }

    fn of_profile(&self) -> (String, Option<String>) {
        if matches!(self.policy.as_str(), "hardened" | "hardened-raw") {
            let setting = "a rule in /etc/apparmor.d/local/hardened, unless a `deny` rule of the profile overrides it";
            return ("the runtime's own AppArmor profile has no rule for it".to_owned(), Some(setting.to_owned()));
        }
        let because = "the AppArmor profile that the pod asks for has no rule for it";
        (because.to_owned(), Some(format!("a rule in the AppArmor profile {}", self.policy)))
    }

    fn of_label(&self) -> (String, Option<String>) {
        let kind = |context: &str| context.split(':').nth(2).unwrap_or_default().to_owned();
        let class = self.target.rsplit(':').next().unwrap_or_default();
        let rights = self.rights.join(" ");
        let (from, to) = (kind(&self.policy), kind(&self.target));
        let setting = format!("a module of SELinux' policy: allow {from} {to}:{class} {{ {rights} }};");
        ("the node's SELinux policy has no rule for it, or the pod has other categories".to_owned(), Some(setting))
    }

    /// Asks what was decided of the container; the last word is the kernel's.
    fn of_rules(&self, standing: &Standing, ruleset: Ruleset) -> Answer {
        let no =
            |because: &str, setting: Option<String>| Answer { allowed: false, because: because.to_owned(), setting };
        if ruleset == Ruleset::Exec {
            let setting = standing.line("exec.hidden and exec.read-only, without that path");
            return no("the profile's rules for execs deny it", Some(setting));
        }
        let path = Path::new(&self.object);
        let right = self.rights.first().map_or("", String::as_str);
        let port = self.object.parse().unwrap_or_default();
        let answer = match right {
            "fs.execute" => standing.execute(path),
            "fs.read_file" | "fs.read_dir" => standing.read(path),
            "fs.write_file" | "fs.truncate" => standing.write(path),
            "fs.ioctl_dev" => {
                no("device ioctls are allowed on the container's own devices only", Some(standing.line("host.devices")))
            }
            "fs.change_topology" => no("no process in a Landlock sandbox can mount", None),
            // The path is that of the folder, and the name in it is not told.
            _ if right.starts_with("fs.") => standing.write(&path.join("*")),
            "net.bind_tcp" => standing.port(port, false),
            "net.connect_tcp" => standing.port(port, true),
            "scope.abstract_unix_socket" => no(
                "abstract sockets outside the sandbox cannot be connected to",
                Some(standing.line("network.abstract-sockets = true")),
            ),
            "scope.signal" => no("a process can signal only processes in its own sandbox or in one nested in it", None),
            "ptrace" => no("a process can trace only processes in its own sandbox or in one nested in it", None),
            _ => no("a right that is newer than this version of hardened", None),
        };
        if answer.allowed {
            // A link or a mount of the container's own leads there by another name.
            let setting = standing.line("files or network without a rule for it");
            return no("the container's Landlock rules do not grant it", Some(setting));
        }
        answer
    }
}
