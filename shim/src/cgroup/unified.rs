//! cgroup v2: limits as its files take them (Documentation/admin-guide/cgroup-v2.rst), and device rules as
//! a program that the kernel asks.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use hardened_sandbox::DeviceFilter;
use hardened_sandbox::bundle::DeviceRule;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::legacy::rdma_settings;
use super::settings::{Setting, read, write};
use crate::sys;

/// Controllers that a cgroup's parents are asked to pass on.
const CONTROLLERS: [&str; 7] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma"];

/// Has a folder pass its controllers on to those below.
///
/// If a controller cannot be enabled (the parent has processes, for example), a limit that needs it fails and says so.
pub(super) fn pass_controllers_on(folder: &Path) -> Result<()> {
    let list = |file: &str| read(&folder.join(file));
    let (available, passed_on) = (list("cgroup.controllers")?, list("cgroup.subtree_control")?);
    let names = |list: &str, wanted: &str| list.split_whitespace().any(|name| name == wanted);
    for controller in CONTROLLERS {
        if names(&available, controller)
            && !names(&passed_on, controller)
            && let Err(error) = write(&folder.join("cgroup.subtree_control"), &format!("+{controller}"))
        {
            log::debug!("{} does not pass {controller} on: {error}", folder.display());
        }
    }
    Ok(())
}

/// Limits as files and values; `cpu_max` is what the file of that name has now. The OCI spec has v1's
/// limits, which are converted as runc does. What is 0 is not set.
pub(super) fn settings(resources: &LinuxResources, cpu_max: &str) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    if let Some(memory) = resources.memory() {
        all.extend(memory_settings(memory)?);
    }
    if let Some(cpu) = resources.cpu() {
        all.extend(cpu_settings(cpu, cpu_max)?);
    }
    if let Some(pids) = resources.pids() {
        let limit = match pids.limit() {
            // systemd, and so runc, has no limit of 0.
            0 => "1".to_owned(),
            limit if limit > 0 => limit.to_string(),
            _ => "max".to_owned(),
        };
        all.push(Setting::new("pids", "pids.max", limit));
    }
    if let Some(block_io) = resources.block_io() {
        all.extend(block_io_settings(block_io)?);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let file = |kind: &str| format!("hugetlb.{}.{kind}max", limit.page_size());
        all.push(Setting::new("hugetlb", file(""), limit.limit()));
        all.push(Setting::new("hugetlb", file("rsvd."), limit.limit()).optional());
    }
    all.extend(rdma_settings(resources));
    // Last, since they are said to win. In order of their names, so that the same happens each time.
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    all.extend(unified.into_iter().map(|(file, value)| Setting::of_file(file, value)));
    Ok(all)
}

fn or_max(value: i64) -> String {
    if value == -1 { "max".to_owned() } else { value.to_string() }
}

fn memory_settings(memory: &LinuxMemory) -> Result<Vec<Setting>> {
    let of = |field: &str, value: Option<i64>| match value.filter(|v| *v != 0) {
        Some(value) if value < -1 => bail!("memory.{field} {value}: expected a number of bytes, or -1 for no limit"),
        value => Ok(value),
    };
    let (limit, swap) = (of("limit", memory.limit())?, of("swap", memory.swap())?);
    let reservation = of("reservation", memory.reservation())?;
    // In the spec swap is memory and swap together; here it is swap alone.
    let swap = match (limit, swap) {
        (Some(-1), None) | (_, Some(-1)) => Some(-1),
        (Some(-1), Some(swap)) => Some(swap),
        (None, Some(swap)) => bail!("memory.swap {swap} needs memory.limit: it is the limit of both together"),
        (Some(limit), Some(swap)) if swap < limit => {
            bail!("memory.swap {swap} is less than memory.limit {limit}: it is the limit of both together")
        }
        (Some(limit), Some(swap)) => Some(swap - limit),
        (_, None) => None,
    };
    let mut all = Vec::new();
    all.extend(swap.map(|swap| {
        let setting = Setting::new("memory", "memory.swap.max", or_max(swap));
        // A kernel without swap has no such file, and no swap.
        if swap <= 0 { setting.optional() } else { setting }
    }));
    all.extend(limit.map(|limit| Setting::new("memory", "memory.max", or_max(limit))));
    all.extend(reservation.map(|low| Setting::new("memory", "memory.low", or_max(low))));
    Ok(all)
}

fn cpu_settings(cpu: &LinuxCpu, cpu_max: &str) -> Result<Vec<Setting>> {
    if cpu.realtime_runtime().is_some_and(|r| r > 0) || cpu.realtime_period().is_some_and(|p| p > 0) {
        bail!("cpu.realtimeRuntime and cpu.realtimePeriod: cgroup v2 has no limits of realtime processes");
    }
    let mut all = Vec::new();
    all.extend(cpu.shares().and_then(weight_of_shares).map(|weight| Setting::new("cpu", "cpu.weight", weight)));
    let (quota, period) = (cpu.quota().filter(|q| *q != 0), cpu.period().filter(|p| *p != 0));
    if quota.is_some() || period.is_some() {
        let quota = match quota {
            Some(quota) if quota > 0 => quota.to_string(),
            Some(_) => "max".to_owned(),
            None => cpu_max.split_whitespace().next().unwrap_or("max").to_owned(),
        };
        // Without a period, the kernel keeps its own.
        let value = period.map_or_else(|| quota.clone(), |period| format!("{quota} {period}"));
        all.push(Setting::new("cpu", "cpu.max", value));
    }
    all.extend(cpu.burst().map(|burst| Setting::new("cpu", "cpu.max.burst", burst)));
    all.extend(cpu.idle().map(|idle| Setting::new("cpu", "cpu.idle", idle)));
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        all.extend(list.as_ref().filter(|list| !list.is_empty()).map(|list| Setting::new("cpuset", file, list)));
    }
    Ok(all)
}

/// v1's CPU shares (2 to 262144, by default 1024) as v2's weight (1 to 10000, by default 100): a curve through
/// both ends and the defaults, as runc has it since 1.3.2 (opencontainers/cgroups, `ConvertCPUSharesToCgroupV2Value`).
fn weight_of_shares(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1 | 2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            Some((10f64.powf(exponent).ceil() as u64).clamp(1, 10_000))
        }
    }
}

fn block_io_settings(block_io: &LinuxBlockIo) -> Result<Vec<Setting>> {
    if block_io.leaf_weight().is_some_and(|weight| weight > 0) {
        bail!("blockIO.leafWeight: cgroup v2 has no such weight");
    }
    let mut all = Vec::new();
    if let Some(weight) = block_io.weight().filter(|weight| *weight != 0) {
        // BFQ's weight is the spec's; without BFQ 10 to 1000 become 1 to 10000.
        let converted = 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990;
        all.push(Setting::new("io", "io.bfq.weight", weight).optional());
        all.push(Setting::new("io", "io.weight", converted).optional());
    }
    for device in block_io.weight_device().iter().flatten() {
        let value = |weight| format!("{}:{} {weight}", device.major(), device.minor());
        all.extend(device.weight().map(|weight| Setting::new("io", "io.bfq.weight", value(weight))));
    }
    let throttles: [(&str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("rbps", block_io.throttle_read_bps_device()),
        ("wbps", block_io.throttle_write_bps_device()),
        ("riops", block_io.throttle_read_iops_device()),
        ("wiops", block_io.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for device in devices.iter().flatten() {
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            all.push(Setting::new("io", "io.max", value));
        }
    }
    Ok(all)
}

/// A program for device rules, and the cgroup that it is for: both held open, to be put together where the
/// cgroup is out of reach.
#[derive(Debug)]
pub(crate) struct DeviceProgram {
    folder: File,
    program: OwnedFd,
}

impl DeviceProgram {
    pub(super) fn load(folder: &Path, rules: &[DeviceRule]) -> Result<Self> {
        let folder = File::open(folder).with_context(|| format!("open {}", folder.display()))?;
        let program = sys::load_device_program(DeviceFilter::compile(rules).instructions())
            .context("load the device program (a kernel with CONFIG_CGROUP_BPF takes it)")?;
        Ok(Self { folder, program })
    }

    /// Has the kernel ask it from now on.
    pub(crate) fn attach(self) -> Result<()> {
        sys::attach_device_program(&self.folder, &self.program).context("attach the device program to the cgroup")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn try_lines(resources: serde_json::Value, cpu_max: &str) -> Result<Vec<String>> {
        let all = settings(&serde_json::from_value(resources).unwrap(), cpu_max)?;
        Ok(all.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect())
    }

    fn lines(resources: serde_json::Value) -> Vec<String> {
        try_lines(resources, "max 100000\n").unwrap()
    }

    #[test]
    fn limits_are_converted_to_those_of_v2() {
        let all = lines(json!({
            "memory": {"limit": 100, "swap": 250, "reservation": 50, "swappiness": 60},
            "cpu": {"shares": 1024, "quota": 5000, "period": 10000, "burst": 1, "cpus": "0-1", "mems": "0"},
            "pids": {"limit": 7},
            "blockIO": {"weight": 1000, "weightDevice": [{"major": 8, "minor": 0, "weight": 20}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 0}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
            "unified": {"memory.high": "90", "cpu.weight": "7"},
        }));
        assert_eq!(
            all,
            [
                "memory.swap.max=150",
                "memory.max=100",
                "memory.low=50",
                "cpu.weight=100",
                "cpu.max=5000 10000",
                "cpu.max.burst=1",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "pids.max=7",
                "io.bfq.weight=1000",
                "io.weight=10000",
                "io.bfq.weight=8:0 20",
                "io.max=8:0 rbps=1",
                "io.max=8:1 wiops=max",
                "hugetlb.2MB.max=4",
                "hugetlb.2MB.rsvd.max=4",
                "cpu.weight=7",
                "memory.high=90",
            ]
        );
    }

    #[test]
    fn swap_is_what_the_limit_of_both_leaves() {
        let memory = |value: serde_json::Value| try_lines(json!({"memory": value}), "");
        assert_eq!(memory(json!({"limit": 100, "swap": 100})).unwrap(), ["memory.swap.max=0", "memory.max=100"]);
        assert_eq!(memory(json!({"limit": -1})).unwrap(), ["memory.swap.max=max", "memory.max=max"]);
        assert_eq!(memory(json!({"limit": 100, "swap": -1})).unwrap(), ["memory.swap.max=max", "memory.max=100"]);
        assert_eq!(memory(json!({"limit": 100, "swap": 0})).unwrap(), ["memory.max=100"]);
        assert_eq!(memory(json!({"swap": -1})).unwrap(), ["memory.swap.max=max"]);
        for bad in [json!({"swap": 100}), json!({"limit": 100, "swap": 99}), json!({"limit": -2}), json!({"swap": -2})]
        {
            assert!(memory(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_period_alone_keeps_the_quota() {
        let cpu = |value: serde_json::Value, now: &str| try_lines(json!({"cpu": value}), now).unwrap();
        assert_eq!(cpu(json!({"period": 50000}), "20000 100000\n"), ["cpu.max=20000 50000"]);
        assert_eq!(cpu(json!({"period": 50000}), ""), ["cpu.max=max 50000"]);
        assert_eq!(cpu(json!({"quota": -1}), "20000 100000\n"), ["cpu.max=max"]);
        assert_eq!(cpu(json!({"quota": 0, "period": 0, "shares": 0}), ""), Vec::<String>::new());
        assert!(try_lines(json!({"cpu": {"realtimeRuntime": 5}}), "").is_err());
    }

    #[test]
    fn shares_become_the_weights_that_runc_gives() {
        // The table of runc's own test, TestConvertCPUSharesToCgroupV2Value.
        for (shares, weight) in
            [(0, None), (2, Some(1)), (262_144, Some(10_000)), (1024, Some(100)), (22_000, Some(1204))]
        {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        assert_eq!(weight_of_shares(u64::MAX), Some(10_000));
    }
}
