//! What a payload's sandbox looks like from outside, before its first instruction.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Of proc_pid_status(5): what a sandbox consists of, and what a program inherits.
const STATUS: [&str; 20] = [
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "Threads",
    "SigQ",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Cpus_allowed_list",
    "Mems_allowed_list",
    "Speculation_Store_Bypass",
];

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// Limits of a cgroup, on v1 and v2.
const LIMITS: [&str; 9] = [
    "devices.list",
    "memory.limit_in_bytes",
    "memory.max",
    "pids.max",
    "cpu.shares",
    "cpu.weight",
    "cpu.cfs_quota_us",
    "cpu.max",
    "cpuset.cpus",
];

/// Everything about a process that its sandbox consists of, in lines that are the same each time.
pub(super) fn look(pid: i32) -> Vec<String> {
    let proc = Path::new("/proc").join(pid.to_string());
    let read = |name: &str| {
        let bytes = fs::read(proc.join(name)).unwrap_or_else(|error| format!("<{error}>").into_bytes());
        String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
    };
    let mut lines = Vec::new();
    let status = read("status");
    lines.extend(status.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        // How many signals wait, of how many; not of whom else.
        let value = if name == "SigQ" { value.rsplit('/').next()? } else { value };
        STATUS.contains(&name).then(|| format!("{name}: {}", value.trim()))
    }));
    for kind in NAMESPACES {
        let of = |process: &Path| fs::metadata(process.join("ns").join(kind)).map(|found| found.ino()).ok();
        let is_own = of(&proc) != of(Path::new("/proc/self"));
        lines.push(format!("namespace {kind}: {}", if is_own { "its own" } else { "the host's" }));
    }
    lines.extend(read("mountinfo").lines().map(|line| format!("mount {}", mount(line))));
    for (what, file) in [
        ("limit", "limits"),
        ("cgroup", "cgroup"),
        ("OOM score", "oom_score_adj"),
        ("timer slack", "timerslack_ns"),
        ("environment", "environ"),
        ("arguments", "cmdline"),
        ("label", "attr/current"),
        ("user ids", "uid_map"),
        ("group ids", "gid_map"),
    ] {
        lines.extend(read(file).lines().map(|line| format!("{what} {line}")));
    }
    for (what, link) in [("root", "root"), ("working directory", "cwd"), ("program", "exe")] {
        let target = fs::read_link(proc.join(link)).map_or_else(|e| e.to_string(), |to| to.display().to_string());
        lines.push(format!("{what} {target}"));
    }
    lines.extend(descriptors(&proc));
    lines.extend(devices(&proc.join("root/dev")));
    let up = read("net/fib_trie").contains("127.0.0.1");
    lines.push(format!("loopback is {}", if up { "up" } else { "down" }));
    lines.extend(limits(&read("cgroup")));
    lines
}

/// A line of mountinfo without what the kernel numbers anew each time.
fn mount(line: &str) -> String {
    let mut fields: Vec<&str> = line.split(' ').collect();
    // Its id, its parent's, and the device: proc_pid_mountinfo(5).
    fields.drain(..fields.len().min(3));
    fields.retain(|field| !["shared:", "master:", "propagate_from:"].iter().any(|tag| field.starts_with(tag)));
    fields.join(" ")
}

fn descriptors(proc: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(proc.join("fd"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let target = fs::read_link(entry.path()).unwrap_or_default().display().to_string();
            // pipe:[12345]
            let kind = target.split(":[").next().unwrap_or_default();
            format!("descriptor {} {kind}", entry.file_name().display())
        })
        .collect();
    found.sort();
    found
}

fn devices(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let name = entry.file_name().display().to_string();
            let to = fs::read_link(entry.path()).map(|to| format!(" -> {}", to.display())).unwrap_or_default();
            fs::symlink_metadata(entry.path()).map_or_else(
                |error| format!("device {name} <{error}>"),
                |file| {
                    let (mode, uid, gid, device) = (file.mode(), file.uid(), file.gid(), file.rdev());
                    format!("device {name}{to} {mode:o} {uid}:{gid} {device:#x}")
                },
            )
        })
        .collect();
    found.sort();
    found
}

/// The limits of the cgroups that proc_pid_cgroup(5) names.
fn limits(cgroups: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(names), Some(path)) = (fields.next(), fields.next()) else { continue };
        let folder = Path::new("/sys/fs/cgroup").join(names).join(path.trim_start_matches('/'));
        for limit in LIMITS {
            if let Ok(text) = fs::read_to_string(folder.join(limit)) {
                found.extend(text.lines().map(|line| format!("{limit} {line}")));
            }
        }
    }
    found
}
