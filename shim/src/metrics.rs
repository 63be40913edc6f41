//! cgroup statistics as containerd's own protobufs.

use std::collections::HashMap;
use std::path::Path;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};

use anyhow::{Context, Result};

use crate::cgroup::Cgroup;

/// Statistics of one cgroup, packed for `StatsResponse`.
pub(crate) fn of(cgroup: &Cgroup) -> Result<Any> {
    let (name, value) = if Cgroup::is_unified()? {
        let folder = cgroup.folder("")?;
        ("io.containerd.cgroups.v2.Metrics", unified_metrics(&Files(Some(&folder))).write_to_bytes())
    } else {
        let folders = CONTROLLERS.map(|controller| (controller, cgroup.folder(controller).ok()));
        let folder = |wanted: &str| folders.iter().find(|(name, _)| *name == wanted)?.1.as_deref();
        ("io.containerd.cgroups.v1.Metrics", legacy_metrics(folder).write_to_bytes())
    };
    Ok(Any { type_url: name.to_owned(), value: value.context("encode metrics")?, ..Any::default() })
}

/// The controllers of v1 that count.
const CONTROLLERS: [&str; 6] = ["blkio", "cpu", "cpuacct", "hugetlb", "memory", "pids"];

/// Statistics of cgroup v1, from the folder of each controller (Documentation/admin-guide/cgroup-v1).
fn legacy_metrics<'a>(folder: impl Fn(&str) -> Option<&'a Path>) -> v1::Metrics {
    let files = |controller| Files(folder(controller));
    let (cpu, usage, memory, pids) = (files("cpu"), files("cpuacct"), files("memory"), files("pids"));
    let throttling = cpu.table("cpu.stat");
    let get = |table: &HashMap<String, u64>, key: &str| table.get(key).copied().unwrap_or_default();
    let cpu = v1::CPUStat {
        usage: MessageField::some(v1::CPUUsage {
            total: usage.number("cpuacct.usage"),
            kernel: usage.number("cpuacct.usage_sys"),
            user: usage.number("cpuacct.usage_user"),
            per_cpu: usage.read("cpuacct.usage_percpu").split_whitespace().flat_map(str::parse).collect(),
            ..Default::default()
        }),
        throttling: MessageField::some(v1::Throttle {
            periods: get(&throttling, "nr_periods"),
            throttled_periods: get(&throttling, "nr_throttled"),
            throttled_time: get(&throttling, "throttled_time"),
            ..Default::default()
        }),
        ..Default::default()
    };
    v1::Metrics {
        hugetlb: hugetlb(&files("hugetlb")),
        pids: MessageField::some(v1::PidsStat {
            current: pids.number("pids.current"),
            limit: no_limit_is_zero(pids.number("pids.max")),
            ..Default::default()
        }),
        cpu: MessageField::some(cpu),
        memory: MessageField::some(legacy_memory(&memory)),
        blkio: MessageField::some(block_io(&files("blkio"))),
        memory_oom_control: MessageField::some(oom_control(&memory)),
        ..Default::default()
    }
}

fn legacy_memory(files: &Files<'_>) -> v1::MemoryStat {
    let stat = files.table("memory.stat");
    let of = |key: &str| stat.get(key).copied().unwrap_or_default();
    let entry = |prefix: &str| {
        let number = |name: &str| files.number(&format!("{prefix}.{name}"));
        MessageField::some(v1::MemoryEntry {
            limit: number("limit_in_bytes"),
            usage: number("usage_in_bytes"),
            max: number("max_usage_in_bytes"),
            failcnt: number("failcnt"),
            ..Default::default()
        })
    };
    v1::MemoryStat {
        cache: of("cache"),
        rss: of("rss"),
        rss_huge: of("rss_huge"),
        mapped_file: of("mapped_file"),
        dirty: of("dirty"),
        writeback: of("writeback"),
        pg_pg_in: of("pgpgin"),
        pg_pg_out: of("pgpgout"),
        pg_fault: of("pgfault"),
        pg_maj_fault: of("pgmajfault"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        hierarchical_memory_limit: of("hierarchical_memory_limit"),
        hierarchical_swap_limit: of("hierarchical_memsw_limit"),
        total_cache: of("total_cache"),
        total_rss: of("total_rss"),
        total_rss_huge: of("total_rss_huge"),
        total_mapped_file: of("total_mapped_file"),
        total_dirty: of("total_dirty"),
        total_writeback: of("total_writeback"),
        total_pg_pg_in: of("total_pgpgin"),
        total_pg_pg_out: of("total_pgpgout"),
        total_pg_fault: of("total_pgfault"),
        total_pg_maj_fault: of("total_pgmajfault"),
        total_inactive_anon: of("total_inactive_anon"),
        total_active_anon: of("total_active_anon"),
        total_inactive_file: of("total_inactive_file"),
        total_active_file: of("total_active_file"),
        total_unevictable: of("total_unevictable"),
        usage: entry("memory"),
        swap: entry("memory.memsw"),
        kernel: entry("memory.kmem"),
        kernel_tcp: entry("memory.kmem.tcp"),
        ..Default::default()
    }
}

/// `container_oom_events_total` of containerd 2.3.
fn oom_control(files: &Files<'_>) -> v1::MemoryOomControl {
    let table = files.table("memory.oom_control");
    let get = |key: &str| table.get(key).copied().unwrap_or_default();
    v1::MemoryOomControl {
        oom_kill_disable: get("oom_kill_disable"),
        under_oom: get("under_oom"),
        oom_kill: get("oom_kill"),
        ..Default::default()
    }
}

fn hugetlb(files: &Files<'_>) -> Vec<v1::HugetlbStat> {
    let entries = files.0.and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let size = |name: &str| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(".usage_in_bytes")?;
        // `2MB.rsvd` is what is reserved.
        (!size.contains('.')).then(|| size.to_owned())
    };
    let sizes = entries.filter_map(|entry| size(entry.file_name().to_str()?));
    sizes
        .map(|size| {
            let number = |name: &str| files.number(&format!("hugetlb.{size}.{name}"));
            v1::HugetlbStat {
                usage: number("usage_in_bytes"),
                max: number("max_usage_in_bytes"),
                failcnt: number("failcnt"),
                pagesize: size.clone(),
                ..Default::default()
            }
        })
        .collect()
}

/// CFQ counted more than the throttling that every kernel has.
fn block_io(files: &Files<'_>) -> v1::BlkIOStat {
    let table = |name: &str| files.read(name).lines().filter_map(device).collect::<Vec<_>>();
    let or = |name: &str, other: &str| {
        let found = table(name);
        if found.is_empty() { table(other) } else { found }
    };
    v1::BlkIOStat {
        io_service_bytes_recursive: or("blkio.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"),
        io_serviced_recursive: or("blkio.io_serviced_recursive", "blkio.throttle.io_serviced"),
        io_queued_recursive: table("blkio.io_queued_recursive"),
        io_service_time_recursive: table("blkio.io_service_time_recursive"),
        io_wait_time_recursive: table("blkio.io_wait_time_recursive"),
        io_merged_recursive: table("blkio.io_merged_recursive"),
        io_time_recursive: table("blkio.time_recursive"),
        sectors_recursive: table("blkio.sectors_recursive"),
        ..Default::default()
    }
}

/// `8:0 Read 42`, or `8:0 42`; not the line of the total.
fn device(line: &str) -> Option<v1::BlkIOEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let (first, second) = (words.next()?, words.next());
    let (op, value) = second.map_or(("", first), |value| (first, value));
    Some(v1::BlkIOEntry {
        op: op.to_owned(),
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        value: value.parse().ok()?,
        ..Default::default()
    })
}

/// As runc's shim has it.
fn no_limit_is_zero(limit: u64) -> u64 {
    if limit == u64::MAX { 0 } else { limit }
}

/// The files of a cgroup's folder. A controller that is off, or not mounted, has none: what it would
/// count is 0.
struct Files<'a>(Option<&'a Path>);

impl Files<'_> {
    fn read(&self, name: &str) -> String {
        self.0.and_then(|folder| std::fs::read_to_string(folder.join(name)).ok()).unwrap_or_default()
    }

    /// A file with one number; `max` is the largest.
    fn number(&self, name: &str) -> u64 {
        let text = self.read(name);
        if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or_default() }
    }

    /// A file with a key and a number on each line.
    fn table(&self, name: &str) -> HashMap<String, u64> {
        let pair = |line: &str| line.split_once(' ').and_then(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)));
        self.read(name).lines().filter_map(pair).collect()
    }
}

/// Documentation/admin-guide/cgroup-v2.rst, "Controllers".
fn unified_metrics(files: &Files<'_>) -> v2::Metrics {
    let (memory, cpu, events) = (files.table("memory.stat"), files.table("cpu.stat"), files.table("memory.events"));
    let get = |table: &HashMap<String, u64>, key: &str| table.get(key).copied().unwrap_or_default();
    let of = |key: &str| get(&memory, key);
    let memory = v2::MemoryStat {
        anon: of("anon"),
        file: of("file"),
        kernel_stack: of("kernel_stack"),
        slab: of("slab"),
        sock: of("sock"),
        shmem: of("shmem"),
        file_mapped: of("file_mapped"),
        file_dirty: of("file_dirty"),
        file_writeback: of("file_writeback"),
        anon_thp: of("anon_thp"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        slab_reclaimable: of("slab_reclaimable"),
        slab_unreclaimable: of("slab_unreclaimable"),
        pgfault: of("pgfault"),
        pgmajfault: of("pgmajfault"),
        workingset_refault: of("workingset_refault_anon") + of("workingset_refault_file"),
        workingset_activate: of("workingset_activate_anon") + of("workingset_activate_file"),
        workingset_nodereclaim: of("workingset_nodereclaim"),
        pgrefill: of("pgrefill"),
        pgscan: of("pgscan"),
        pgsteal: of("pgsteal"),
        pgactivate: of("pgactivate"),
        pgdeactivate: of("pgdeactivate"),
        pglazyfree: of("pglazyfree"),
        pglazyfreed: of("pglazyfreed"),
        thp_fault_alloc: of("thp_fault_alloc"),
        thp_collapse_alloc: of("thp_collapse_alloc"),
        usage: files.number("memory.current"),
        usage_limit: files.number("memory.max"),
        swap_usage: files.number("memory.swap.current"),
        swap_limit: files.number("memory.swap.max"),
        ..Default::default()
    };
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: files.number("pids.current"),
            limit: no_limit_is_zero(files.number("pids.max")),
            ..Default::default()
        }),
        cpu: MessageField::some(v2::CPUStat {
            usage_usec: get(&cpu, "usage_usec"),
            user_usec: get(&cpu, "user_usec"),
            system_usec: get(&cpu, "system_usec"),
            nr_periods: get(&cpu, "nr_periods"),
            nr_throttled: get(&cpu, "nr_throttled"),
            throttled_usec: get(&cpu, "throttled_usec"),
            ..Default::default()
        }),
        memory: MessageField::some(memory),
        memory_events: MessageField::some(v2::MemoryEvents {
            low: get(&events, "low"),
            high: get(&events, "high"),
            max: get(&events, "max"),
            oom: get(&events, "oom"),
            oom_kill: get(&events, "oom_kill"),
            ..Default::default()
        }),
        io: MessageField::some(v2::IOStat {
            usage: files.read("io.stat").lines().filter_map(io).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn io(line: &str) -> Option<v2::IOEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let mut entry = v2::IOEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, ..Default::default() };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let value = value.parse().unwrap_or_default();
        match key {
            "rbytes" => entry.rbytes = value,
            "wbytes" => entry.wbytes = value,
            "rios" => entry.rios = value,
            "wios" => entry.wios = value,
            _ => {}
        }
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v2_cgroup_is_read_also_where_controllers_are_off() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cpu.stat", "usage_usec 7\nuser_usec 5\nsystem_usec 2\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1024\nfile 2048\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:1 \n"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let metrics = unified_metrics(&Files(Some(dir.path())));
        assert_eq!((metrics.cpu.usage_usec, metrics.cpu.system_usec), (7, 2));
        assert_eq!((metrics.memory.usage, metrics.memory.usage_limit), (4096, u64::MAX));
        assert_eq!((metrics.memory.anon, metrics.pids.limit), (1024, 0));
        assert_eq!((metrics.io.usage.len(), metrics.io.usage[0].wios), (2, 4));
    }

    #[test]
    fn a_v1_cgroup_is_read_also_where_controllers_are_missing() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cpuacct.usage", "7\n"),
            ("cpuacct.usage_user", "5\n"),
            ("cpuacct.usage_percpu", "3 4 \n"),
            ("cpu.stat", "nr_periods 1\nnr_throttled 2\nthrottled_time 3\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.stat", "cache 12\nrss 1024\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("pids.max", "max\n"),
            ("hugetlb.2MB.usage_in_bytes", "4\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "5\n"),
            ("blkio.throttle.io_serviced", "8:0 Read 6\n8:0 Total 6\nTotal 6\n"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let metrics = legacy_metrics(|controller| (controller != "blkio").then_some(dir.path()));
        assert_eq!(
            (metrics.cpu.usage.total, metrics.cpu.usage.user, &metrics.cpu.usage.per_cpu[..]),
            (7, 5, &[3, 4][..])
        );
        assert_eq!((metrics.cpu.throttling.throttled_time, metrics.memory.rss, metrics.pids.limit), (3, 1024, 0));
        assert_eq!(metrics.memory_oom_control.oom_kill, 2);
        assert_eq!((metrics.hugetlb.len(), metrics.hugetlb[0].usage), (1, 4));
        assert!(metrics.blkio.io_serviced_recursive.is_empty());
        let metrics = legacy_metrics(|_| Some(dir.path()));
        assert_eq!((metrics.blkio.io_serviced_recursive.len(), metrics.blkio.io_serviced_recursive[0].value), (2, 6));
    }
}
