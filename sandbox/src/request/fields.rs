//! How each field of the OCI runtime spec (1.2, 1.3) is handled.

use oci_spec::runtime::{Hook, Hooks, Linux, Process, Spec};

use crate::refusal::{Note, Violation};

/// Whether a spec gives a field.
type IsGiven = fn(&Spec) -> bool;

/// Fields whose being there refuses the container, and what to do instead.
const REFUSED: &[(&str, IsGiven, &str)] = &[
    ("gidMappings", |s| s.gid_mappings().is_some(), "use linux.gidMappings"),
    ("hooks.startContainer", |s| has_hooks(s, |h| h.start_container()), HOOKS),
    ("hooks.poststart", |s| has_hooks(s, |h| h.poststart()), HOOKS),
    ("hooks.poststop", |s| has_hooks(s, |h| h.poststop()), HOOKS),
    ("linux.intelRdt", |s| linux(s, |l| l.intel_rdt().is_some()), "take the RDT class out of the pod's annotations"),
    ("linux.memoryPolicy", |s| linux(s, |l| l.memory_policy().is_some()), "leave it out"),
    ("linux.netDevices", |s| linux(s, |l| l.net_devices().as_ref().is_some_and(|d| !d.is_empty())), "leave it out"),
    ("linux.personality", |s| linux(s, |l| l.personality().is_some()), "leave it out"),
    ("linux.timeOffsets", |s| linux(s, |l| l.time_offsets().as_ref().is_some_and(|t| !t.is_empty())), "leave it out"),
    ("process.commandLine", |s| process(s, |p| p.command_line().is_some()), "use process.args"),
    ("process.execCPUAffinity", |s| process(s, |p| p.exec_cpu_affinity().is_some()), "use a cpuset"),
    ("process.ioPriority", |s| process(s, |p| p.io_priority().is_some()), "use limits of block I/O"),
    ("process.scheduler", |s| process(s, |p| p.scheduler().is_some()), "use CPU requests and limits"),
    ("solaris", |s| s.solaris().is_some(), OTHER_SYSTEMS),
    ("uidMappings", |s| s.uid_mappings().is_some(), "use linux.uidMappings"),
    ("vm", |s| s.vm().is_some(), OTHER_SYSTEMS),
    ("windows", |s| s.windows().is_some(), OTHER_SYSTEMS),
    ("zos", |s| s.zos().is_some(), OTHER_SYSTEMS),
];

/// Fields that mean nothing here, and are left out with a note.
const DROPPED: &[(&str, IsGiven, &str)] =
    &[("process.user.username", |s| process(s, |p| p.user().username().is_some()), "dropped: it is for Windows")];

const HOOKS: &str = "use prestart, createRuntime or createContainer, which only the node can set";
const OTHER_SYSTEMS: &str = "give a spec for Linux";

fn linux(spec: &Spec, is_given: fn(&Linux) -> bool) -> bool {
    spec.linux().as_ref().is_some_and(is_given)
}

fn process(spec: &Spec, is_given: fn(&Process) -> bool) -> bool {
    spec.process().as_ref().is_some_and(is_given)
}

fn has_hooks(spec: &Spec, of: fn(&Hooks) -> &Option<Vec<Hook>>) -> bool {
    spec.hooks().as_ref().and_then(|hooks| of(hooks).as_ref()).is_some_and(|hooks| !hooks.is_empty())
}

/// Refuses the fields that nobody gets.
pub(super) fn refuse(spec: &Spec, errors: &mut Vec<Violation>) {
    for (field, _, advice) in REFUSED.iter().filter(|(_, is_given, _)| is_given(spec)) {
        let problem = if field.starts_with("hooks") { "would run outside of the sandbox" } else { "is not supported" };
        errors.push(Violation::policy(*field, problem, *advice));
    }
}

/// Refuses what a process of an exec must not bring.
pub(super) fn refuse_of_exec(process: &Process, errors: &mut Vec<Violation>) {
    let mut spec = Spec::default();
    spec.set_process(Some(process.clone())).set_linux(None).set_hooks(None);
    refuse(&spec, errors);
}

/// Notes on what is left out.
pub(super) fn dropped(spec: &Spec) -> Vec<Note> {
    DROPPED.iter().filter(|(_, is_given, _)| is_given(spec)).map(|(field, _, why)| Note::new(*field, *why)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use oci_spec::runtime::*;
    use serde_aux::serde_introspection::serde_introspect;

    use super::*;

    /// Fields that are parsed into types, by the object that has them.
    const UNDERSTOOD: &[(&str, &[&str])] = &[
        ("", &["ociVersion", "root", "mounts", "process", "hostname", "domainname", "hooks", "annotations", "linux"]),
        ("root", &["path", "readonly"]),
        ("mounts", &["destination", "type", "source", "options", "uidMappings", "gidMappings"]),
        (
            "process",
            &[
                "terminal",
                "consoleSize",
                "user",
                "args",
                "env",
                "cwd",
                "capabilities",
                "rlimits",
                "noNewPrivileges",
                "apparmorProfile",
                "oomScoreAdj",
                "selinuxLabel",
            ],
        ),
        ("process.user", &["uid", "gid", "umask", "additionalGids"]),
        ("process.capabilities", &["bounding", "effective", "inheritable", "permitted", "ambient"]),
        ("hooks", &["prestart", "createRuntime", "createContainer"]),
        (
            "linux",
            &[
                "uidMappings",
                "gidMappings",
                "sysctl",
                "resources",
                "cgroupsPath",
                "namespaces",
                "devices",
                "seccomp",
                "rootfsPropagation",
                "maskedPaths",
                "readonlyPaths",
                "mountLabel",
            ],
        ),
        (
            "linux.resources",
            &["devices", "memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma", "unified"],
        ),
        ("linux.devices", &["path", "type", "major", "minor", "fileMode", "uid", "gid"]),
        ("linux.resources.devices", &["allow", "type", "major", "minor", "access"]),
        ("linux.namespaces", &["type", "path"]),
    ];

    #[test]
    fn every_field_of_the_runtime_spec_is_understood_refused_or_dropped() {
        let objects: &[(&str, &[&str])] = &[
            ("", serde_introspect::<Spec>()),
            ("root", serde_introspect::<Root>()),
            ("mounts", serde_introspect::<Mount>()),
            ("process", serde_introspect::<Process>()),
            ("process.user", serde_introspect::<User>()),
            ("process.capabilities", serde_introspect::<LinuxCapabilities>()),
            ("hooks", serde_introspect::<Hooks>()),
            ("linux", serde_introspect::<Linux>()),
            ("linux.resources", serde_introspect::<LinuxResources>()),
            ("linux.devices", serde_introspect::<LinuxDevice>()),
            ("linux.resources.devices", serde_introspect::<LinuxDeviceCgroup>()),
            ("linux.namespaces", serde_introspect::<LinuxNamespace>()),
        ];
        let mut table: BTreeSet<String> =
            REFUSED.iter().chain(DROPPED).map(|(field, ..)| (*field).to_owned()).collect();
        let join = |object: &str, field: &str| {
            if object.is_empty() { field.to_owned() } else { format!("{object}.{field}") }
        };
        for (object, fields) in UNDERSTOOD {
            for field in *fields {
                assert!(table.insert(join(object, field)), "{object}.{field} is there twice");
            }
        }
        let known: BTreeSet<String> =
            objects.iter().flat_map(|(object, fields)| fields.iter().map(|field| join(object, field))).collect();
        assert_eq!(table, known);
    }
}
