//! cgroup statistics as containerd's own protobufs.

use std::collections::HashMap;
use std::path::Path;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use libcgroups::stats::{BlkioDeviceStat, MemoryData, Stats};

use anyhow::{Context, Result};

use crate::cgroup::Cgroup;

/// Statistics of one cgroup, packed for `StatsResponse`.
pub(crate) fn of(cgroup: &Cgroup) -> Result<Any> {
    let (name, value) = if Cgroup::is_unified() {
        let folder = cgroup.folder("")?;
        ("io.containerd.cgroups.v2.Metrics", unified_metrics(&Files(&folder)).write_to_bytes())
    } else {
        ("io.containerd.cgroups.v1.Metrics", legacy_metrics(&cgroup.stats()?).write_to_bytes())
    };
    Ok(Any { type_url: name.to_owned(), value: value.context("encode metrics")?, ..Any::default() })
}

fn legacy_metrics(stats: &Stats) -> v1::Metrics {
    let cpu = v1::CPUStat {
        usage: MessageField::some(v1::CPUUsage {
            total: stats.cpu.usage.usage_total,
            kernel: stats.cpu.usage.usage_kernel,
            user: stats.cpu.usage.usage_user,
            per_cpu: stats.cpu.usage.per_core_usage_total.clone(),
            ..Default::default()
        }),
        throttling: MessageField::some(v1::Throttle {
            periods: stats.cpu.throttling.periods,
            throttled_periods: stats.cpu.throttling.throttled_periods,
            throttled_time: stats.cpu.throttling.throttled_time,
            ..Default::default()
        }),
        ..Default::default()
    };
    let of = |key: &str| stats.memory.stats.get(key).copied().unwrap_or_default();
    let memory = v1::MemoryStat {
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
        usage: MessageField::some(entry(&stats.memory.memory)),
        swap: MessageField::some(entry(&stats.memory.memswap)),
        kernel: MessageField::some(entry(&stats.memory.kernel)),
        kernel_tcp: MessageField::some(entry(&stats.memory.kernel_tcp)),
        ..Default::default()
    };
    let blkio = v1::BlkIOStat {
        io_service_bytes_recursive: stats.blkio.service_bytes.iter().map(device).collect(),
        io_serviced_recursive: stats.blkio.serviced.iter().map(device).collect(),
        io_queued_recursive: stats.blkio.queued.iter().map(device).collect(),
        io_service_time_recursive: stats.blkio.service_time.iter().map(device).collect(),
        io_wait_time_recursive: stats.blkio.wait_time.iter().map(device).collect(),
        io_merged_recursive: stats.blkio.merged.iter().map(device).collect(),
        io_time_recursive: stats.blkio.time.iter().map(device).collect(),
        sectors_recursive: stats.blkio.sectors.iter().map(device).collect(),
        ..Default::default()
    };
    v1::Metrics {
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, h)| v1::HugetlbStat {
                usage: h.usage,
                max: h.max_usage,
                failcnt: h.fail_count,
                pagesize: size.clone(),
                ..Default::default()
            })
            .collect(),
        pids: MessageField::some(v1::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit,
            ..Default::default()
        }),
        cpu: MessageField::some(cpu),
        memory: MessageField::some(memory),
        blkio: MessageField::some(blkio),
        ..Default::default()
    }
}

fn entry(data: &MemoryData) -> v1::MemoryEntry {
    v1::MemoryEntry {
        limit: data.limit,
        usage: data.usage,
        max: data.max_usage,
        failcnt: data.fail_count,
        ..Default::default()
    }
}

fn device(stat: &BlkioDeviceStat) -> v1::BlkIOEntry {
    v1::BlkIOEntry {
        op: stat.op_type.clone().unwrap_or_default(),
        major: stat.major,
        minor: stat.minor,
        value: stat.value,
        ..Default::default()
    }
}

/// The files of a v2 cgroup, read as they are: libcgroups fails where a controller is not on, as
/// hugetlb never is under systemd.
struct Files<'a>(&'a Path);

impl Files<'_> {
    fn read(&self, name: &str) -> String {
        // A controller that is off has no files.
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
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
    let pids = files.number("pids.max");
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: files.number("pids.current"),
            // Without a limit it is 0, as runc's shim has it.
            limit: if pids == u64::MAX { 0 } else { pids },
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
        let metrics = unified_metrics(&Files(dir.path()));
        assert_eq!((metrics.cpu.usage_usec, metrics.cpu.system_usec), (7, 2));
        assert_eq!((metrics.memory.usage, metrics.memory.usage_limit), (4096, u64::MAX));
        assert_eq!((metrics.memory.anon, metrics.pids.limit), (1024, 0));
        assert_eq!((metrics.io.usage.len(), metrics.io.usage[0].wios), (2, 4));
    }
}
