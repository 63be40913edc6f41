//! cgroup statistics as containerd's own protobufs.

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use libcgroups::stats::{BlkioDeviceStat, MemoryData, Stats};

use anyhow::{Context, Result};

/// Statistics of one cgroup, packed for `StatsResponse`.
pub(crate) fn pack(stats: &Stats, unified: bool) -> Result<Any> {
    let (name, value) = if unified {
        ("io.containerd.cgroups.v2.Metrics", unified_metrics(stats).write_to_bytes())
    } else {
        ("io.containerd.cgroups.v1.Metrics", legacy_metrics(stats).write_to_bytes())
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

fn unified_metrics(stats: &Stats) -> v2::Metrics {
    let of = |key: &str| stats.memory.stats.get(key).copied().unwrap_or_default();
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
        usage: stats.memory.memory.usage,
        usage_limit: stats.memory.memory.limit,
        swap_usage: stats.memory.memswap.usage.saturating_sub(stats.memory.memory.usage),
        swap_limit: stats.memory.memswap.limit,
        ..Default::default()
    };
    // libcgroups turns v2's microseconds into nanoseconds; v2's protobuf counts microseconds.
    let microseconds = |nanoseconds: u64| nanoseconds / 1000;
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit,
            ..Default::default()
        }),
        cpu: MessageField::some(v2::CPUStat {
            usage_usec: microseconds(stats.cpu.usage.usage_total),
            user_usec: microseconds(stats.cpu.usage.usage_user),
            system_usec: microseconds(stats.cpu.usage.usage_kernel),
            nr_periods: stats.cpu.throttling.periods,
            nr_throttled: stats.cpu.throttling.throttled_periods,
            throttled_usec: stats.cpu.throttling.throttled_time,
            ..Default::default()
        }),
        memory: MessageField::some(memory),
        io: MessageField::some(v2::IOStat { usage: io(stats), ..Default::default() }),
        ..Default::default()
    }
}

/// v2 has one entry a device.
fn io(stats: &Stats) -> Vec<v2::IOEntry> {
    let mut entries: Vec<v2::IOEntry> = Vec::new();
    let both =
        stats.blkio.service_bytes.iter().map(|s| (s, true)).chain(stats.blkio.serviced.iter().map(|s| (s, false)));
    for (stat, bytes) in both {
        let at = entries.iter().position(|e| (e.major, e.minor) == (stat.major, stat.minor)).unwrap_or_else(|| {
            entries.push(v2::IOEntry { major: stat.major, minor: stat.minor, ..Default::default() });
            entries.len() - 1
        });
        let Some(entry) = entries.get_mut(at) else { continue };
        match (bytes, stat.op_type.as_deref().unwrap_or_default().to_ascii_lowercase().as_str()) {
            (true, "read") => entry.rbytes = stat.value,
            (true, "write") => entry.wbytes = stat.value,
            (false, "read") => entry.rios = stat.value,
            (false, "write") => entry.wios = stat.value,
            _ => {}
        }
    }
    entries
}
