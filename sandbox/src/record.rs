//! The record of a denial: one JSON object a line, in the field names of KubeArmor's alerts, for which dashboards and
//! collectors exist, and some of our own.

use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// Where records are: `NAMESPACE@ID.jsonl`, and `NAMESPACE@ID@old.jsonl` before it, which a container's shim writes;
/// `NAMESPACE@ID@agent.jsonl` is the node's agent's. Neither name has that character.
pub const EVENTS: &str = "/run/hardened/events";

/// Version of the records that this program writes.
pub const VERSION: u32 = 1;

/// Something that a container was denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Record {
    /// Version of the record's form.
    pub version: u32,
    /// When it was last denied, in seconds since 1970.
    pub timestamp: i64,
    /// The same, RFC 3339 with microseconds.
    pub updated_time: String,
    /// When it was first denied.
    pub first_seen: String,
    /// How often until now.
    pub count: u64,
    /// The node.
    pub host_name: String,
    /// Kubernetes namespace; empty for a container that `ctr` started.
    pub namespace_name: String,
    /// Pod.
    pub pod_name: String,
    /// Pod, by the API server's id of it; absent for a container that `ctr` started.
    #[serde(rename = "PodUID", default, skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    /// Container, by the pod's name for it.
    pub container_name: String,
    /// Container, by containerd's id.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// Image reference.
    pub container_image: String,
    /// The exec whose process it was; absent for the entrypoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_event: Option<ExecEvent>,
    /// The process that was denied it first, by its number on the node; of what Landlock denies, the entrypoint or exec
    /// that it descends from; 0 for a refused container.
    #[serde(rename = "HostPID")]
    pub host_pid: u32,
    /// The same, by its number in the container; 0 where that is not known.
    #[serde(rename = "PID")]
    pub pid: u32,
    /// Its user, on the node.
    #[serde(rename = "UID")]
    pub uid: u32,
    /// Its program. The container's own word, as every path and name in a record is.
    pub process_name: String,
    /// The name that it gives itself.
    pub comm: String,
    /// Always `MatchedPolicy`; `SystemEvent` where [`operation`](Self::operation) is `AlertThreshold`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Which mechanism denied it.
    pub enforcer: Enforcer,
    /// What it is: `Syscall`, `File`, `Network`, `Process`, `Capabilities`; `Create` of a container; `AlertThreshold` where
    /// there were so many kinds of denials that others are not listed.
    pub operation: String,
    /// The system call, path or address.
    pub resource: String,
    /// In KubeArmor's words: `syscall=SYS_UNSHARE flags=CLONE_NEWUSER`.
    pub data: String,
    /// What tells the use of the call: `flags=CLONE_NEWUSER`; the rights that Landlock, AppArmor or SELinux want:
    /// `fs.write_file`.
    pub args: Vec<String>,
    /// Always `Block`.
    pub action: String,
    /// What the program got: `EPERM`.
    pub result: String,
    /// Profiles, or the pod's own filter, that deny it.
    pub policy_name: String,
    /// Why.
    pub message: String,
    /// What would allow it: lines of a policy. Null where no setting does.
    pub setting: Option<String>,
    /// What compliance frameworks call it, with commas between.
    pub tags: String,
}

impl Record {
    /// What every record of a container has.
    #[must_use]
    pub fn about(host: &str, id: &str, identity: &Identity) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self {
            version: VERSION,
            host_name: host.to_owned(),
            namespace_name: text(&identity.namespace),
            pod_name: text(&identity.pod),
            pod_uid: text(&identity.pod_uid),
            container_name: text(&identity.container),
            container_id: id.to_owned(),
            container_image: text(&identity.image),
            action: "Block".to_owned(),
            ..Self::default()
        }
    }
}

/// The exec that a process belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ExecEvent {
    /// containerd's id of it.
    #[serde(rename = "ExecID")]
    pub exec_id: String,
    /// What was asked to be run.
    pub executable_name: String,
}

/// A mechanism that denies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Enforcer {
    /// The filter of system calls.
    #[default]
    Seccomp,
    /// The node's policy: a container was refused.
    Policy,
    /// Rules for files, ports and sockets.
    Landlock,
    /// AppArmor.
    AppArmor,
    /// SELinux.
    SELinux,
}

/// A text of a container, in which nothing reaches the terminal but letters that it shows: no escape sequences, no
/// changes of the writing's direction, no new lines.
#[must_use]
pub fn printable(text: &str) -> String {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut all, c| {
        if hides(c) {
            all.extend(c.escape_default());
        } else {
            all.push(c);
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_container_reaches_a_terminal_raw() {
        let hostile = "x\n\u{1b}[31m\u{7f}\u{9b}2J\u{202e}gpj.exe\r\u{200b}é日";
        let shown = printable(hostile);
        assert_eq!(shown, r"x\n\u{1b}[31m\u{7f}\u{9b}2J\u{202e}gpj.exe\r\u{200b}é日");
    }
}
