//! Resources that a shim, its launchers or a container have too few of: each limit at every small value.

use serde_json::{Value, json};

/// One resource.
pub struct Limit {
    /// Its name.
    pub name: &'static str,
    /// What is tried.
    pub values: Vec<u64>,
    /// The program that a shim runs under.
    pub wrapper: fn(u64) -> Vec<String>,
    /// What the container's spec says.
    pub spec: fn(&mut Value, u64),
}

impl std::fmt::Debug for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every resource, with its small values up to one that is enough.
#[must_use]
pub fn limits() -> Vec<Limit> {
    let of_shim = |name, values, wrapper| Limit { name, values, wrapper, spec: |_, _| {} };
    let of_spec = |name, values, spec| Limit { name, values, wrapper: |_| Vec::new(), spec };
    let steps = |step: usize, last: u64| (0..=last).step_by(step).collect::<Vec<_>>();
    vec![
        of_shim("RLIMIT_NOFILE of the shim", (14..48).collect(), |n| prlimit("nofile", n)),
        of_shim("RLIMIT_NPROC of the shim", steps(1, 8), |n| prlimit("nproc", n)),
        of_shim("RLIMIT_AS of the shim, kB", steps(1024, 40 << 10), |n| prlimit("as", n << 10)),
        of_shim("RLIMIT_DATA of the shim, kB", steps(128, 6 << 10), |n| prlimit("data", n << 10)),
        of_shim("RLIMIT_STACK of the shim, kB", steps(16, 256), |n| prlimit("stack", n << 10)),
        of_shim("RLIMIT_FSIZE of the shim, bytes", steps(1024, 40 << 10), |n| prlimit("fsize", n)),
        of_shim("RLIMIT_MEMLOCK of the shim", vec![0], |n| prlimit("memlock", n)),
        of_shim("RLIMIT_SIGPENDING of the shim", vec![0], |n| prlimit("sigpending", n)),
        of_shim("RLIMIT_MSGQUEUE of the shim", vec![0], |n| prlimit("msgqueue", n)),
        of_shim("size of /run/hardened, pages", steps(1, 24), |n| state_of(&format!("size={}k", 4 * n.max(1)))),
        of_shim("files in /run/hardened", (2..=40).collect(), |n| state_of(&format!("nr_inodes={n}"))),
        of_spec("pids limit of the container", (1..=16).collect(), |spec, n| {
            spec["linux"]["resources"]["pids"] = json!({ "limit": n });
        }),
        of_spec("memory limit of the container, kB", steps(128, 8 << 10), |spec, n| {
            spec["linux"]["resources"]["memory"] = json!({ "limit": n.max(4) << 10 });
        }),
        of_spec("RLIMIT_NOFILE of the container", steps(1, 24), |spec, n| rlimit(spec, "RLIMIT_NOFILE", n)),
        of_spec("RLIMIT_AS of the container, kB", steps(1024, 24 << 10), |spec, n| rlimit(spec, "RLIMIT_AS", n << 10)),
        of_spec("RLIMIT_FSIZE of the container", vec![0], |spec, n| rlimit(spec, "RLIMIT_FSIZE", n)),
        of_spec("RLIMIT_NPROC of the container", vec![0, 1], |spec, n| rlimit(spec, "RLIMIT_NPROC", n)),
        of_spec("RLIMIT_STACK of the container, kB", steps(16, 256), |spec, n| rlimit(spec, "RLIMIT_STACK", n << 10)),
    ]
}

fn prlimit(limit: &str, value: u64) -> Vec<String> {
    vec!["prlimit".to_owned(), format!("--{limit}={value}:{value}")]
}

/// A file system of its own for the state of containers, in mounts of the shim's own.
fn state_of(options: &str) -> Vec<String> {
    let script = format!(
        "mkdir -p /run/hardened && mount -t tmpfs -o {options},mode=700 small /run/hardened && exec \"$0\" \"$@\""
    );
    ["unshare", "--mount", "sh", "-c", &script].map(str::to_owned).to_vec()
}

fn rlimit(spec: &mut Value, limit: &str, value: u64) {
    let limit = json!({ "type": limit, "hard": value, "soft": value });
    match spec["process"]["rlimits"].as_array_mut() {
        Some(limits) => {
            limits.retain(|other| other["type"] != limit["type"]);
            limits.push(limit);
        }
        None => spec["process"]["rlimits"] = json!([limit]),
    }
}
