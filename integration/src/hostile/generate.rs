//! From a seed to a hostile container.

use super::case::{Case, Entry, Kind, Swap, Volume};
use super::random::Random;

/// Names that a runtime looks up, makes or mounts on below an image's root.
const PLACES: &[&str] = &[
    "/dev",
    "/dev",
    "/dev",
    "/dev/pts",
    "/dev/shm",
    "/dev/mqueue",
    "/dev/null",
    "/dev/ptmx",
    "/dev/console",
    "/dev/fd",
    "/dev/stdin",
    "/dev/core",
    "/proc",
    "/sys",
    "/sys/fs",
    "/sys/fs/cgroup",
    "/etc",
    "/etc/passwd",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/run",
    "/var",
    "/var/run",
    "/srv",
    "/tmp",
    "/root",
    "/home",
    "/usr",
    "/lib",
    "/opt",
    "/work",
    "/data",
    "/data/deep",
    "/data/sub",
];

/// Where a pod's author mounts volumes.
const DESTINATIONS: &[&str] = &[
    "/data",
    "/data",
    "/data/deep",
    "/data/deep/er",
    "/data/sub/x",
    "/dev",
    "/dev/x",
    "/dev/pts",
    "/dev/shm",
    "/dev/null",
    "/proc/..",
    "/proc/x",
    "/proc/../data",
    "/sys/..",
    "/sys/x",
    "/sys/fs/cgroup",
    "/etc",
    "/etc/hosts",
    "/run",
    "/var/run",
    "/tmp",
    "/srv",
    "/usr",
    "/bin/x",
    "/",
    "//dev",
    "/./dev",
    "/data/../dev",
    "/data/\n",
    "data",
    "",
];

/// What containerd mounts by default.
const DEFAULT_MOUNTS: &[&str] = &["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/run"];

const WORKING_DIRECTORIES: &[&str] = &[
    "/",
    "/",
    "/",
    "/work",
    "/work/new",
    "/data",
    "/data/sub",
    "/data/sub/new",
    "/dev",
    "/dev/pts",
    "/tmp",
    "/tmp/../root",
    "/run/new/er",
    "/etc/passwd",
    "/proc/self/fd/7",
    "/proc/1/cwd",
    "/sys",
    "/nowhere",
    "work",
    "",
];

/// Links that stay in the image, or lead nowhere.
const HARMLESS: &[&str] = &["proc", "tmp", "run", "bin", ".", "..", "dev", "nowhere", "/nowhere/at/all", "data"];

/// Each seed's container.
#[must_use]
pub fn generate(seed: u64) -> Case {
    let mut r = Random::new(seed);
    let r = &mut r;
    let mut case = Case {
        seed,
        image: (0..r.below(5).saturating_sub(1)).map(|_| entry(r)).collect(),
        mirrored: r.chance(60),
        mounted: r.chance(50),
        volumes: Vec::new(),
        without: Vec::new(),
        devices: Vec::new(),
        masked: Vec::new(),
        cgroups: r.chance(15),
        restricted: r.chance(15),
        terminal: r.chance(20),
        read_only: r.chance(30),
        home: r.chance(50),
        uid: if r.chance(30) { 1000 } else { 0 },
        cwd: r.pick(WORKING_DIRECTORIES).to_owned(),
        exec: None,
    };
    if r.chance(40) {
        case.cwd = "/".to_owned();
    }
    if r.chance(30) {
        case.without = DEFAULT_MOUNTS.iter().filter(|_| r.chance(25)).map(|at| (*at).to_owned()).collect();
    }
    match r.below(20) {
        0..=2 => raced_dev(r, &mut case),
        3 | 4 => raced_volume(r, &mut case),
        5..=9 => case.volumes = (0..=r.below(2)).map(|_| volume(r)).collect(),
        _ => {}
    }
    if r.chance(10) {
        case.devices.push(place(r));
    }
    if r.chance(15) {
        case.masked = (0..3).map(|_| place(r)).collect();
    }
    if r.chance(35) {
        case.exec = Some(r.pick(WORKING_DIRECTORIES).to_owned());
    }
    case
}

/// A volume at `/dev` whose folder is a link every other moment. What the runtime makes in `/dev`
/// by its path is then made where the link leads.
fn raced_dev(r: &mut Random, case: &mut Case) {
    let folder = r.pick(&["sub", "pts", "shm", "net"]).to_owned();
    let mut entries = vec![Entry { path: format!("/{folder}"), kind: Kind::Folder }];
    if r.chance(50) {
        let name = r.pick(&["null", "zero", "full", "tty", "random", "console", "ptmx", "fd"]);
        entries.push(Entry { path: format!("/{name}"), kind: Kind::Link(format!("{folder}/made")) });
    }
    case.image.retain(|entry| !entry.path.starts_with("/dev"));
    case.devices = (0..r.below(9)).map(|n| format!("/dev/{folder}/d{n}")).collect();
    if !case.without.iter().any(|at| at == "/dev") {
        case.without.push("/dev".to_owned());
    }
    let swaps = vec![Swap { name: folder, target: escape(r, false) }];
    case.volumes.push(Volume { at: "/dev".to_owned(), read_only: false, entries, swaps });
}

/// A volume elsewhere, and another mount below a part of it that keeps changing.
fn raced_volume(r: &mut Random, case: &mut Case) {
    let entries = vec![Entry { path: "/sub".to_owned(), kind: Kind::Folder }];
    let swaps = vec![Swap { name: "sub".to_owned(), target: escape(r, false) }];
    case.volumes.push(Volume { at: "/data".to_owned(), read_only: r.chance(20), entries, swaps });
    let at = r.pick(&["/data/sub", "/data/sub/x", "/data/sub/x/y"]).to_owned();
    case.volumes.push(Volume { at, read_only: r.chance(20), entries: Vec::new(), swaps: Vec::new() });
    case.cwd = r.pick(&["/", "/data/sub", "/data/sub/new"]).to_owned();
    case.masked = (0..r.below(3)).map(|n| format!("/data/sub/{n}")).collect();
}

fn volume(r: &mut Random) -> Volume {
    let at = if r.chance(5) { format!("/data/{}", long(r)) } else { r.pick(DESTINATIONS).to_owned() };
    let entries = (0..r.below(3)).map(|_| entry_in_volume(r)).collect();
    let swaps =
        if r.chance(15) { vec![Swap { name: "deep".to_owned(), target: escape(r, false) }] } else { Vec::new() };
    Volume { at, read_only: r.chance(25), entries, swaps }
}

fn entry(r: &mut Random) -> Entry {
    let path = place(r);
    let kind = kind(r, &path);
    Entry { path, kind }
}

/// Half a volume's names are those that `/dev` and `/etc` have.
fn entry_in_volume(r: &mut Random) -> Entry {
    let names = &["/null", "/ptmx", "/pts", "/shm", "/fd", "/passwd", "/deep", "/sub", "/x", "/%ff", "/run", "/hosts"];
    let path = r.pick(names).to_owned();
    let kind = kind(r, &path);
    Entry { path, kind }
}

fn place(r: &mut Random) -> String {
    match r.below(20) {
        0 => format!("{}/{}", r.pick(PLACES), r.pick(&["%ff%fe", "%0a", "a b", "..%00", "'\"\\", "%e2%80%ae", "-rf"])),
        1 => format!("{}/{}", r.pick(PLACES), long(r)),
        _ => r.pick(PLACES).to_owned(),
    }
}

/// A name as long as names are, or a path nearly as long as paths are.
fn long(r: &mut Random) -> String {
    if r.chance(50) { "n".repeat(255) } else { vec!["deep"; 700].join("/") }
}

fn kind(r: &mut Random, path: &str) -> Kind {
    let is_file = matches!(path.rsplit('/').next(), Some("passwd" | "group" | "hosts" | "null" | "ptmx" | "console"));
    match r.below(20) {
        0..=9 => Kind::Link(escape(r, is_file)),
        10..=12 => Kind::Link(r.pick(HARMLESS).to_owned()),
        13 | 14 => Kind::Fifo,
        15 => Kind::Socket,
        16 => Kind::Character(1, u32::try_from(r.below(12)).unwrap_or(3)),
        17 => Kind::Block(254, 0),
        18 => Kind::File,
        _ => Kind::Folder,
    }
}

/// A link to a folder of the host's, or to a file in one, by each way that leads out of a folder.
fn escape(r: &mut Random, to_file: bool) -> String {
    let mut target = r.pick(&["{empty}", "{some}", "{full}"]).to_owned();
    if to_file {
        target = format!("{target}/{}", r.pick(&["passwd", "ptmx", "null", "new"]));
    } else if r.chance(15) {
        target.push_str("/folder");
    }
    let up = "../".repeat(14);
    let descriptor = 3 + r.below(22);
    let slash = r.pick(&["/", "/", ""]);
    match r.below(16) {
        0..=3 => format!("/{target}"),
        4..=6 => format!("{up}{target}"),
        7 => format!("{slash}proc/self/root/{target}"),
        8 => format!("{slash}proc/self/cwd/{up}{target}"),
        9 => format!("{slash}proc/1/root/{target}"),
        10 => format!("{slash}proc/thread-self/root/{target}"),
        11 => format!("{slash}proc/self/fd/{descriptor}/{up}{target}"),
        12 => format!("/../{up}./{target}/"),
        // A procfs that was inherited by number: what the launcher's libraries keep open.
        _ => format!("{slash}proc/self/fd/{descriptor}/1/root/{target}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_case_and_a_case_one_line() {
        for seed in 0..2000 {
            let case = generate(seed);
            assert_eq!(case, generate(seed));
            let line = case.to_string();
            assert!(!line.contains('\n'));
            assert_eq!(line.parse::<Case>().unwrap(), case);
        }
    }

    #[test]
    fn a_thousand_cases_have_all_that_matters() {
        let cases: Vec<Case> = (0..1000).map(generate).collect();
        let count = |is: fn(&Case) -> bool| cases.iter().filter(|case| is(case)).count();
        assert!(count(Case::is_raced) > 100);
        assert!(count(|case| case.image.is_empty() && case.volumes.is_empty()) > 50);
        let has = |path: &str, is: fn(&Kind) -> bool| {
            cases.iter().flat_map(|case| &case.image).any(|entry| entry.path == path && is(&entry.kind))
        };
        assert!(has("/dev", |kind| matches!(kind, Kind::Link(target) if target.contains("fd/"))));
        assert!(has("/etc/passwd", |kind| *kind == Kind::Fifo));
        assert!(has("/sys/fs/cgroup", |kind| matches!(kind, Kind::Link(_))));
        assert!(cases.iter().flat_map(|case| &case.volumes).any(|volume| volume.at == "/proc/.."));
    }
}
