//! cgroup v1: limits and device rules as the files of its controllers take them
//! (Documentation/admin-guide/cgroup-v1).

use std::path::Path;

use anyhow::{Context, Result, bail};
use hardened_sandbox::bundle::DeviceRule;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::settings::{Setting, read, write};

/// Limits as files and values. What is 0 is not set, as runc has it.
pub(super) fn settings(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    if let Some(memory) = resources.memory() {
        all.extend(memory_settings(memory)?);
    }
    if let Some(cpu) = resources.cpu() {
        all.extend(cpu_settings(cpu));
    }
    if let Some(pids) = resources.pids() {
        let limit = if pids.limit() > 0 { pids.limit().to_string() } else { "max".to_owned() };
        all.push(Setting::new("pids", "pids.max", limit));
    }
    if let Some(block_io) = resources.block_io() {
        all.extend(block_io_settings(block_io));
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let file = |kind: &str| format!("hugetlb.{}.{kind}limit_in_bytes", limit.page_size());
        all.push(Setting::new("hugetlb", file(""), limit.limit()));
        // Linux 5.7.
        all.push(Setting::new("hugetlb", file("rsvd."), limit.limit()).optional());
    }
    if let Some(network) = resources.network() {
        all.extend(network.class_id().map(|class| Setting::new("net_cls", "net_cls.classid", class)));
        let priorities = network.priorities().iter().flatten();
        // The file takes one interface at a time.
        all.extend(priorities.map(|p| Setting::new("net_prio", "net_prio.ifpriomap", p.to_string().trim())));
    }
    all.extend(rdma_settings(resources));
    Ok(all)
}

fn memory_settings(memory: &LinuxMemory) -> Result<Vec<Setting>> {
    let set = |file, value: Option<i64>| value.filter(|v| *v != 0).map(|v| Setting::new("memory", file, v));
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    let mut all = Vec::new();
    all.extend(set("memory.limit_in_bytes", limit));
    all.extend(match (limit, swap) {
        // Without a limit of memory there is none of memory and swap, where swap is counted at all.
        (Some(-1), None) => set("memory.memsw.limit_in_bytes", Some(-1)).map(Setting::optional),
        (_, swap) => set("memory.memsw.limit_in_bytes", swap),
    });
    all.extend(set("memory.soft_limit_in_bytes", memory.reservation()));
    // A new cgroup takes it over from its parent.
    all.push(Setting::new("memory", "memory.oom_control", 0));
    match memory.swappiness() {
        Some(swappiness) if swappiness > 100 => bail!("memory.swappiness {swappiness}: expected 0 to 100"),
        swappiness => all.extend(swappiness.map(|s| Setting::new("memory", "memory.swappiness", s))),
    }
    all.extend(memory.kernel().map(|k| Setting::new("memory", "memory.kmem.limit_in_bytes", k)));
    all.extend(memory.kernel_tcp().map(|k| Setting::new("memory", "memory.kmem.tcp.limit_in_bytes", k)));
    Ok(all)
}

fn cpu_settings(cpu: &LinuxCpu) -> Vec<Setting> {
    let unsigned = |file, value: Option<u64>| value.filter(|v| *v != 0).map(|v| Setting::new("cpu", file, v));
    let signed = |file, value: Option<i64>| value.filter(|v| *v != 0).map(|v| Setting::new("cpu", file, v));
    let list = |file, value: &Option<String>| {
        value.as_ref().filter(|list| !list.is_empty()).map(|list| Setting::new("cpuset", file, list))
    };
    [
        unsigned("cpu.shares", cpu.shares()),
        unsigned("cpu.cfs_period_us", cpu.period()),
        signed("cpu.cfs_quota_us", cpu.quota()),
        cpu.burst().map(|burst| Setting::new("cpu", "cpu.cfs_burst_us", burst)),
        unsigned("cpu.rt_period_us", cpu.realtime_period()),
        signed("cpu.rt_runtime_us", cpu.realtime_runtime()),
        cpu.idle().map(|idle| Setting::new("cpu", "cpu.idle", idle)),
        list("cpuset.cpus", cpu.cpus()),
        list("cpuset.mems", cpu.mems()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn block_io_settings(block_io: &LinuxBlockIo) -> Vec<Setting> {
    // The weights of CFQ, or since Linux 5.0 of BFQ.
    let weight = block_io.weight().filter(|weight| *weight != 0);
    let mut all: Vec<_> =
        weight.map(|w| Setting::new("blkio", "blkio.weight", w).or("blkio.bfq.weight")).into_iter().collect();
    for device in block_io.weight_device().iter().flatten() {
        all.extend(device.weight().map(|weight| {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            Setting::new("blkio", "blkio.weight_device", value).or("blkio.bfq.weight_device")
        }));
    }
    let throttles: [(&'static str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("blkio.throttle.read_bps_device", block_io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", block_io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", block_io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", block_io.throttle_write_iops_device()),
    ];
    for (file, devices) in throttles {
        let value = |d: &LinuxThrottleDevice| format!("{}:{} {}", d.major(), d.minor(), d.rate());
        all.extend(devices.iter().flatten().map(|d| Setting::new("blkio", file, value(d))));
    }
    all
}

/// The same file on v1 and v2: Documentation/admin-guide/cgroup-v2.rst, "RDMA Interface Files".
pub(super) fn rdma_settings(resources: &LinuxResources) -> Vec<Setting> {
    let mut all = Vec::new();
    for (device, limits) in resources.rdma().iter().flatten() {
        let mut value = device.clone();
        for (key, limit) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())] {
            if let Some(limit) = limit {
                value.push_str(&format!(" {key}={limit}"));
            }
        }
        all.push(Setting::new("rdma", "rdma.max", value));
    }
    all
}

/// Sets device rules, in order.
pub(super) fn set_devices(folder: &Path, rules: &[DeviceRule]) -> Result<()> {
    for rule in rules {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        for line in device_lines(rule) {
            write(&folder.join(file), &line).with_context(|| format!("write {line:?} to {file}"))?;
        }
    }
    Ok(())
}

/// A rule in lines of `devices.allow`. A line for `a`, which stands for all devices, is for every access
/// to every one of them whatever else it says (security/device_cgroup.c): a narrower rule takes a line for
/// block devices and one for character devices.
fn device_lines(rule: &DeviceRule) -> Vec<String> {
    let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or_else(|| "*".to_owned(), |n| n.to_string());
    let (major, minor, access) = (number(rule.major), number(rule.minor), &rule.access);
    let whole = major == "*" && minor == "*" && "rwm".chars().all(|letter| access.contains(letter));
    let kinds: &[char] = match rule.block {
        None if whole => &['a'],
        None => &['b', 'c'],
        Some(true) => &['b'],
        Some(false) => &['c'],
    };
    kinds.iter().map(|kind| format!("{kind} {major}:{minor} {access}")).collect()
}

/// Gives a new cpuset the CPUs and the memory of its parent: it is empty, and takes no process before it
/// has some (Documentation/admin-guide/cgroup-v1/cpusets.rst). So may its parents be.
pub(super) fn inherit_cpuset(mount: &Path, folder: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        inherit(mount, folder, file)?;
    }
    Ok(())
}

fn inherit(mount: &Path, folder: &Path, file: &str) -> Result<String> {
    let own = folder.join(file);
    let value = read(&own)?.trim().to_owned();
    let Some(parent) = folder.parent().filter(|_| value.is_empty() && folder != mount) else { return Ok(value) };
    let value = inherit(mount, parent, file)?;
    write(&own, &value).with_context(|| format!("write {value:?} to {}", own.display()))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(resources: serde_json::Value) -> Vec<String> {
        let all = settings(&serde_json::from_value(resources).unwrap()).unwrap();
        all.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    #[test]
    fn limits_are_files_of_the_controllers() {
        let all = lines(json!({
            "memory": {"limit": 100, "swap": 200, "reservation": 50, "swappiness": 60, "kernelTCP": 9},
            "cpu": {"shares": 512, "quota": 5000, "period": 10000, "burst": 1, "idle": 1, "cpus": "0-1", "mems": "0"},
            "pids": {"limit": 7},
            "blockIO": {"weight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 20}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 2}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
            "network": {"classID": 3, "priorities": [{"name": "a", "priority": 1}, {"name": "b", "priority": 2}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}},
        }));
        assert_eq!(
            all,
            [
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=200",
                "memory.soft_limit_in_bytes=50",
                "memory.oom_control=0",
                "memory.swappiness=60",
                "memory.kmem.tcp.limit_in_bytes=9",
                "cpu.shares=512",
                "cpu.cfs_period_us=10000",
                "cpu.cfs_quota_us=5000",
                "cpu.cfs_burst_us=1",
                "cpu.idle=1",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "pids.max=7",
                "blkio.weight=10",
                "blkio.weight_device=8:0 20",
                "blkio.throttle.read_bps_device=8:0 1",
                "blkio.throttle.write_iops_device=8:1 2",
                "hugetlb.2MB.limit_in_bytes=4",
                "hugetlb.2MB.rsvd.limit_in_bytes=4",
                "net_cls.classid=3",
                "net_prio.ifpriomap=a 1",
                "net_prio.ifpriomap=b 2",
                "rdma.max=mlx5_1 hca_handle=3 hca_object=4",
            ]
        );
    }

    #[test]
    fn what_is_zero_is_not_set_and_what_is_negative_is_no_limit() {
        let all = lines(json!({
            "memory": {"limit": 0, "swap": 0, "reservation": 0},
            "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": ""},
            "pids": {"limit": 0},
        }));
        assert_eq!(all, ["memory.oom_control=0", "pids.max=max"]);
        let all = lines(json!({"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}));
        assert_eq!(
            all,
            [
                "memory.limit_in_bytes=-1",
                "memory.memsw.limit_in_bytes=-1",
                "memory.oom_control=0",
                "cpu.cfs_quota_us=-1",
                "pids.max=max"
            ]
        );
        assert!(settings(&serde_json::from_value(json!({"memory": {"swappiness": 101}})).unwrap()).is_err());
    }

    #[test]
    fn a_device_rule_never_gives_more_than_it_says() {
        let rule =
            |block, major, access: &str| DeviceRule { allow: true, block, major, minor: None, access: access.into() };
        assert_eq!(device_lines(&rule(None, None, "rwm")), ["a *:* rwm"]);
        assert_eq!(device_lines(&rule(None, None, "m")), ["b *:* m", "c *:* m"]);
        assert_eq!(device_lines(&rule(None, Some(1), "rwm")), ["b 1:* rwm", "c 1:* rwm"]);
        assert_eq!(device_lines(&rule(Some(false), Some(1), "r")), ["c 1:* r"]);
        assert_eq!(device_lines(&rule(Some(true), Some(-1), "rw")), ["b *:* rw"]);
    }

    #[test]
    fn an_empty_cpuset_gets_what_the_nearest_parent_has() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("a/b");
        std::fs::create_dir_all(&own).unwrap();
        for (folder, value) in [(dir.path(), "0-3\n"), (&dir.path().join("a"), "\n"), (&own, "\n")] {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                std::fs::write(folder.join(file), value).unwrap();
            }
        }
        inherit_cpuset(dir.path(), &own).unwrap();
        assert!(std::fs::read_to_string(own.join("cpuset.mems")).unwrap().starts_with("0-3"));
        assert!(std::fs::read_to_string(dir.path().join("a/cpuset.cpus")).unwrap().starts_with("0-3"));
    }
}
