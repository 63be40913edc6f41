//! The tries. One line each; the helpers are below.

use std::ffi::CStr;
use std::sync::OnceLock;

use crate::{Outcome, Try, errno};

macro_rules! tries {
    ($($name:literal => $body:expr),* $(,)?) => {
        /// Every try.
        pub(crate) fn all() -> Vec<Try> {
            vec![$(Try { name: $name, run: || $body }),*]
        }
    };
}

tries! {
    "io_uring_setup" => Outcome::of(call(libc::SYS_io_uring_setup, [1, 0])),
    "io_uring_enter" => Outcome::of(call(libc::SYS_io_uring_enter, [-1, 0, 0, 0, 0, 0])),
    "io_uring_register" => Outcome::of(call(libc::SYS_io_uring_register, [-1, 0, 0, 0])),
    "ptrace attach to pid 1" => Outcome::of(call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as i64, 1, 0, 0])),
    "ptrace own child" => own_child(),
    "process_vm_readv" => Outcome::of(call(libc::SYS_process_vm_readv, [pid(), 0, 0, 0, 0, 0])),
    "process_vm_writev" => Outcome::of(call(libc::SYS_process_vm_writev, [pid(), 0, 0, 0, 0, 0])),
    "pidfd_getfd" => Outcome::of(call(libc::SYS_pidfd_getfd, [-1, 0, 0])),
    "kcmp" => Outcome::of(call(libc::SYS_kcmp, [pid(), pid(), 0, 0, 0])),
    "process_madvise" => Outcome::of(call(libc::SYS_process_madvise, [-1, 0, 0, 0, 0])),
    "userfaultfd" => Outcome::of(call(libc::SYS_userfaultfd, [1])),
    "add_key" => Outcome::of(call(libc::SYS_add_key, [0, 0, 0, 0, -3])),
    "request_key" => Outcome::of(call(libc::SYS_request_key, [0, 0, 0, 0])),
    "keyctl" => Outcome::of(call(libc::SYS_keyctl, [0, -3, 0])),
    "bpf" => Outcome::of(call(libc::SYS_bpf, [0, 0, 0])),
    "perf_event_open" => Outcome::of(call(libc::SYS_perf_event_open, [0, 0, -1, -1, 0])),
    "init_module" => Outcome::of(call(libc::SYS_init_module, [0, 0, 0])),
    "finit_module" => Outcome::of(call(libc::SYS_finit_module, [-1, 0, 0])),
    "delete_module" => Outcome::of(call(libc::SYS_delete_module, [0, 0])),
    "kexec_load" => Outcome::of(call(libc::SYS_kexec_load, [0, 0, 0, 0])),
    "kexec_file_load" => Outcome::of(call(KEXEC_FILE_LOAD, [-1, -1, 0, 0, 0])),
    "mount tmpfs" => Outcome::of(call(libc::SYS_mount, [s(c"tmpfs"), s(c"/tmp"), s(c"tmpfs"), 0, 0])),
    "remount / read-write" => Outcome::of(call(libc::SYS_mount, [s(c"none"), s(c"/"), 0, (libc::MS_REMOUNT | libc::MS_BIND) as i64, 0])),
    "bind mount over /proc" => Outcome::of(call(libc::SYS_mount, [s(c"/tmp"), s(c"/proc"), 0, libc::MS_BIND as i64, 0])),
    "unmount a mask" => Outcome::of(call(libc::SYS_umount2, [s(c"/proc/kcore"), libc::MNT_DETACH as i64])),
    "unmount /proc/sys" => Outcome::of(call(libc::SYS_umount2, [s(c"/proc/sys"), libc::MNT_DETACH as i64])),
    "pivot_root" => Outcome::of(call(libc::SYS_pivot_root, [s(c"/"), s(c"/tmp")])),
    "chroot" => Outcome::of(call(libc::SYS_chroot, [s(c"/tmp")])),
    "fsopen" => Outcome::of(call(libc::SYS_fsopen, [s(c"tmpfs"), 0])),
    "fsconfig" => Outcome::of(call(libc::SYS_fsconfig, [-1, 0, 0, 0, 0])),
    "fsmount" => Outcome::of(call(libc::SYS_fsmount, [-1, 0, 0])),
    "fspick" => Outcome::of(call(libc::SYS_fspick, [libc::AT_FDCWD as i64, s(c"/"), 0])),
    "move_mount" => Outcome::of(call(libc::SYS_move_mount, [-1, 0, -1, 0, 0])),
    "open_tree clone" => Outcome::of(call(libc::SYS_open_tree, [libc::AT_FDCWD as i64, s(c"/"), 1])),
    "mount_setattr" => Outcome::of(call(libc::SYS_mount_setattr, [libc::AT_FDCWD as i64, s(c"/"), 0, 0, 0])),
    "unshare CLONE_NEWUSER" => Outcome::of(call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWUSER)])),
    "clone CLONE_NEWUSER" => clone_with(i64::from(libc::CLONE_NEWUSER)),
    "unshare CLONE_NEWNS" => Outcome::of(call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWNS)])),
    "clone CLONE_NEWNS" => clone_with(i64::from(libc::CLONE_NEWNS)),
    "unshare CLONE_NEWNET" => Outcome::of(call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWNET)])),
    "clone CLONE_NEWNET" => clone_with(i64::from(libc::CLONE_NEWNET)),
    "unshare CLONE_NEWPID" => Outcome::of(call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWPID)])),
    "clone CLONE_NEWPID" => clone_with(i64::from(libc::CLONE_NEWPID)),
    "unshare CLONE_NEWIPC" => Outcome::of(call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWIPC)])),
    "clone CLONE_NEWIPC" => clone_with(i64::from(libc::CLONE_NEWIPC)),
    "unshare CLONE_NEWUTS" => Outcome::of(call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWUTS)])),
    "clone CLONE_NEWUTS" => clone_with(i64::from(libc::CLONE_NEWUTS)),
    "unshare CLONE_NEWCGROUP" => Outcome::of(call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWCGROUP)])),
    "clone CLONE_NEWCGROUP" => clone_with(i64::from(libc::CLONE_NEWCGROUP)),
    "unshare CLONE_NEWTIME" => Outcome::of(call(libc::SYS_unshare, [0x80])),
    "unshare NEWUSER with other flags" => Outcome::of(call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_FS)])),
    "clone3" => clone3(),
    "setns to pid 1's mount namespace" => setns_to(c"/proc/1/ns/mnt"),
    "setns to own user namespace" => setns_to(c"/proc/self/ns/user"),
    "open_by_handle_at" => Outcome::of(call(libc::SYS_open_by_handle_at, [libc::AT_FDCWD as i64, handle(), 0])),
    "reboot" => Outcome::of(call(libc::SYS_reboot, [0xfee1_dead, 672_274_793, 0, 0])),
    "swapon" => Outcome::of(call(libc::SYS_swapon, [s(c"/tmp"), 0])),
    "swapoff" => Outcome::of(call(libc::SYS_swapoff, [s(c"/tmp")])),
    "acct" => Outcome::of(call(libc::SYS_acct, [s(c"/tmp/acct")])),
    "settimeofday" => Outcome::of(call(libc::SYS_settimeofday, [0, 0])),
    "clock_settime" => Outcome::of(call(libc::SYS_clock_settime, [0, s(c"0000000000000000")])),
    "adjtimex" => Outcome::of(call(libc::SYS_adjtimex, [0])),
    "clock_adjtime" => Outcome::of(call(libc::SYS_clock_adjtime, [0, 0])),
    "sethostname" => Outcome::of(call(libc::SYS_sethostname, [s(c"x"), 1])),
    "setdomainname" => Outcome::of(call(libc::SYS_setdomainname, [s(c"x"), 1])),
    "syslog" => Outcome::of(call(libc::SYS_syslog, [3, 0, 0])),
    "quotactl" => Outcome::of(call(libc::SYS_quotactl, [0, 0, 0, 0])),
    "quotactl_fd" => Outcome::of(call(libc::SYS_quotactl_fd, [-1, 0, 0, 0])),
    "iopl" => legacy(172, [3]),
    "ioperm" => legacy(173, [0, 1, 1]),
    "modify_ldt" => legacy(154, [0, 0, 0]),
    "personality ADDR_NO_RANDOMIZE" => Outcome::of(call(libc::SYS_personality, [0x0004_0000])),
    "personality READ_IMPLIES_EXEC" => Outcome::of(call(libc::SYS_personality, [0x0040_0000])),
    "fanotify_init" => Outcome::of(call(libc::SYS_fanotify_init, [0, 0])),
    "fanotify_mark" => Outcome::of(call(libc::SYS_fanotify_mark, [-1, 1, 2, libc::AT_FDCWD as i64, s(c"/")])),
    "vhangup" => Outcome::of(call(libc::SYS_vhangup, [])),
    "lookup_dcookie" => Outcome::of(call(libc::SYS_lookup_dcookie, [0, 0, 0])),
    "migrate_pages" => Outcome::of(call(libc::SYS_migrate_pages, [pid(), 0, 0, 0])),
    "move_pages" => Outcome::of(call(libc::SYS_move_pages, [pid(), 0, 0, 0, 0, 0])),
    "mbind" => Outcome::of(call(libc::SYS_mbind, [0, 0, 0, 0, 0, 0])),
    "set_mempolicy" => Outcome::of(call(libc::SYS_set_mempolicy, [0, 0, 0])),
    "listmount" => Outcome::of(call(458, [0, 0, 0, 0])),
    "statmount" => Outcome::of(call(457, [0, 0, 0, 0])),
    "a call that does not exist yet" => Outcome::of(call(1000, [0])),
    "socket AF_ALG" => Outcome::of(call(libc::SYS_socket, [38, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_VSOCK" => Outcome::of(call(libc::SYS_socket, [40, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_PACKET" => Outcome::of(call(libc::SYS_socket, [17, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_KEY" => Outcome::of(call(libc::SYS_socket, [15, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_BLUETOOTH" => Outcome::of(call(libc::SYS_socket, [31, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_CAN" => Outcome::of(call(libc::SYS_socket, [29, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_TIPC" => Outcome::of(call(libc::SYS_socket, [30, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_RDS" => Outcome::of(call(libc::SYS_socket, [21, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_XDP" => Outcome::of(call(libc::SYS_socket, [44, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_NFC" => Outcome::of(call(libc::SYS_socket, [39, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_KCM" => Outcome::of(call(libc::SYS_socket, [41, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_QIPCRTR" => Outcome::of(call(libc::SYS_socket, [42, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_SMC" => Outcome::of(call(libc::SYS_socket, [43, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_APPLETALK" => Outcome::of(call(libc::SYS_socket, [5, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_X25" => Outcome::of(call(libc::SYS_socket, [9, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_AX25" => Outcome::of(call(libc::SYS_socket, [3, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_IPX" => Outcome::of(call(libc::SYS_socket, [4, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_IRDA" => Outcome::of(call(libc::SYS_socket, [23, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_PPPOX" => Outcome::of(call(libc::SYS_socket, [24, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_LLC" => Outcome::of(call(libc::SYS_socket, [26, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_IB" => Outcome::of(call(libc::SYS_socket, [27, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_PHONET" => Outcome::of(call(libc::SYS_socket, [35, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_IEEE802154" => Outcome::of(call(libc::SYS_socket, [36, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_CAIF" => Outcome::of(call(libc::SYS_socket, [37, i64::from(libc::SOCK_DGRAM), 0])),
    "socket AF_MCTP" => Outcome::of(call(libc::SYS_socket, [45, i64::from(libc::SOCK_DGRAM), 0])),
    "socketpair AF_PACKET" => socketpair(17, libc::SOCK_DGRAM),
    "socketpair AF_VSOCK" => socketpair(40, libc::SOCK_DGRAM),
    "socketpair AF_TIPC" => socketpair(30, libc::SOCK_DGRAM),
    "socketpair AF_ALG" => socketpair(38, libc::SOCK_SEQPACKET),
    "socketpair AF_KCM" => socketpair(41, libc::SOCK_DGRAM),
    "socket AF_ALG with a dirty upper half" => Outcome::of(call(libc::SYS_socket, [0x1_0000_0026, i64::from(libc::SOCK_SEQPACKET), 0])),
    "socket NETLINK_AUDIT" => Outcome::of(call(libc::SYS_socket, [16, i64::from(libc::SOCK_RAW), 9])),
    "socket NETLINK_NETFILTER" => Outcome::of(call(libc::SYS_socket, [16, i64::from(libc::SOCK_RAW), 12])),
    "socket NETLINK_KOBJECT_UEVENT" => Outcome::of(call(libc::SYS_socket, [16, i64::from(libc::SOCK_RAW), 15])),
    "socket NETLINK_XFRM" => Outcome::of(call(libc::SYS_socket, [16, i64::from(libc::SOCK_RAW), 6])),
    "socket NETLINK_GENERIC" => Outcome::of(call(libc::SYS_socket, [16, i64::from(libc::SOCK_RAW), 16])),
    "socket NETLINK_SOCK_DIAG" => Outcome::of(call(libc::SYS_socket, [16, i64::from(libc::SOCK_RAW), 4])),
    "socket NETLINK_CRYPTO" => Outcome::of(call(libc::SYS_socket, [16, i64::from(libc::SOCK_RAW), 21])),
    "socket NETLINK_SELINUX" => Outcome::of(call(libc::SYS_socket, [16, i64::from(libc::SOCK_RAW), 7])),
    "socket NETLINK_CONNECTOR" => Outcome::of(call(libc::SYS_socket, [16, i64::from(libc::SOCK_RAW), 11])),
    "socket INET SOCK_PACKET" => socket(2, 10, 0x300),
    "socket INET MPTCP" => socket(2, libc::SOCK_STREAM, 262),
    "socket INET6 MPTCP" => socket(10, libc::SOCK_STREAM, 262),
    "socket INET MPTCP with dirty upper halves" => Outcome::of_socket(call(libc::SYS_socket, [0x1_0000_0002, 0x1_0000_0001, 0x1_0000_0106])),
    "socket INET SCTP" => socket(2, libc::SOCK_STREAM, 132),
    "socket INET SCTP by its type" => socket(2, libc::SOCK_SEQPACKET, 0),
    "socket INET DCCP" => socket(2, 6, 33),
    "socket INET UDP-Lite" => socket(2, libc::SOCK_DGRAM, 136),
    "socket INET L2TP" => socket(2, libc::SOCK_DGRAM, 115),
    "socket INET SMC" => socket(2, libc::SOCK_STREAM, 256),
    "socketpair AF_INET" => socketpair(2, libc::SOCK_STREAM),
    "raw IP socket" => Outcome::of(call(libc::SYS_socket, [2, i64::from(libc::SOCK_RAW), 1])),
    "ioctl TIOCSTI" => Outcome::of(call(libc::SYS_ioctl, [0, 0x5412, s(c"x")])),
    "ioctl TIOCSTI with a dirty upper half" => Outcome::of(call(libc::SYS_ioctl, [0, 0x1_0000_5412, s(c"x")])),
    "ioctl TIOCLINUX" => Outcome::of(call(libc::SYS_ioctl, [0, 0x541C, s(c"x")])),
    "create a file in /usr" => create(c"/usr/.hardened-probe"),
    "create a file in /bin" => create(c"/bin/.hardened-probe"),
    "create a file in /lib" => create(c"/lib/.hardened-probe"),
    "create a file in /boot" => create(c"/boot/.hardened-probe"),
    "create a file in /sbin" => create(c"/sbin/.hardened-probe"),
    "create a file in /lib64" => create(c"/lib64/.hardened-probe"),
    "make a directory in /usr" => mkdir(c"/usr/.hardened-probe-dir"),
    "write to a program" => open_rw(c"/usr/bin/victim"),
    "truncate a program" => truncate(c"/usr/bin/victim"),
    "remove a program" => Outcome::of(call(libc::SYS_unlinkat, [libc::AT_FDCWD as i64, s(c"/usr/bin/victim"), 0])),
    "move a program away" => Outcome::of(call(libc::SYS_renameat2, [libc::AT_FDCWD as i64, s(c"/usr/bin/victim"), libc::AT_FDCWD as i64, s(c"/tmp/victim"), 0])),
    "link a program away" => Outcome::of(call(libc::SYS_linkat, [libc::AT_FDCWD as i64, s(c"/usr/bin/victim"), libc::AT_FDCWD as i64, s(c"/tmp/victim2"), 0])),
    "symlink into /usr/bin" => Outcome::of(call(libc::SYS_symlinkat, [s(c"/tmp/x"), libc::AT_FDCWD as i64, s(c"/usr/bin/.x")])),
    "write to /usr through the image's own symlink" => create(c"/evil/.hardened-probe"),
    "make the device node of the first disk" => Outcome::of(call(libc::SYS_mknodat, [libc::AT_FDCWD as i64, s(c"/tmp/disk"), i64::from(libc::S_IFBLK | 0o600), 254 << 8])),
    "make a device node of kernel memory" => Outcome::of(call(libc::SYS_mknodat, [libc::AT_FDCWD as i64, s(c"/tmp/mem"), i64::from(libc::S_IFCHR | 0o600), (1 << 8) | 1])),
    "make a device node in /dev" => Outcome::of(call(libc::SYS_mknodat, [libc::AT_FDCWD as i64, s(c"/dev/mem2"), i64::from(libc::S_IFCHR | 0o600), (1 << 8) | 1])),
    "write core_pattern" => open_w(c"/proc/sys/kernel/core_pattern"),
    "write modprobe path" => open_w(c"/proc/sys/kernel/modprobe"),
    "lower vm.memfd_noexec" => open_w(c"/proc/sys/vm/memfd_noexec"),
    "write sysrq-trigger" => open_w(c"/proc/sysrq-trigger"),
    "write uevent_helper" => open_w(c"/sys/kernel/uevent_helper"),
    "write to /sys" => open_w(c"/sys/kernel/mm/transparent_hugepage/enabled"),
    "make a cgroup" => mkdir(c"/sys/fs/cgroup/hardened-probe"),
    "write release_agent" => open_w(c"/sys/fs/cgroup/memory/release_agent"),
    "read /proc/kcore" => masked(c"/proc/kcore"),
    "read /proc/keys" => masked(c"/proc/keys"),
    "read /proc/timer_list" => masked(c"/proc/timer_list"),
    "read /proc/sched_debug" => masked(c"/proc/sched_debug"),
    "read /proc/interrupts" => masked(c"/proc/interrupts"),
    "read /proc/config.gz" => masked(c"/proc/config.gz"),
    "read /proc/latency_stats" => masked(c"/proc/latency_stats"),
    "read /proc/allocinfo" => masked(c"/proc/allocinfo"),
    "read /proc/buddyinfo" => masked(c"/proc/buddyinfo"),
    "read /proc/iomem" => masked(c"/proc/iomem"),
    "read /proc/ioports" => masked(c"/proc/ioports"),
    "read /proc/kallsyms" => masked(c"/proc/kallsyms"),
    "read /proc/key-users" => masked(c"/proc/key-users"),
    "read /proc/kpagecgroup" => masked(c"/proc/kpagecgroup"),
    "read /proc/kpagecount" => masked(c"/proc/kpagecount"),
    "read /proc/kpageflags" => masked(c"/proc/kpageflags"),
    "read /proc/modules" => masked(c"/proc/modules"),
    "read /proc/pagetypeinfo" => masked(c"/proc/pagetypeinfo"),
    "read /proc/slabinfo" => masked(c"/proc/slabinfo"),
    "read /proc/vmallocinfo" => masked(c"/proc/vmallocinfo"),
    "list /proc/dynamic_debug" => masked_dir(c"/proc/dynamic_debug"),
    "read /proc/dynamic_debug/control" => masked(c"/proc/dynamic_debug/control"),
    "write /proc/dynamic_debug/control" => open_w(c"/proc/dynamic_debug/control"),
    "list /sys/firmware" => masked_dir(c"/sys/firmware"),
    "list /sys/devices/virtual/powercap" => masked_dir(c"/sys/devices/virtual/powercap"),
    "list /sys/devices/virtual/thermal" => masked_dir(c"/sys/devices/virtual/thermal"),
    "list /sys/fs/selinux" => masked_dir(c"/sys/fs/selinux"),
    "list /sys/kernel/debug" => masked_dir(c"/sys/kernel/debug"),
    "list /sys/kernel/security" => masked_dir(c"/sys/kernel/security"),
    "list /proc/acpi" => masked_dir(c"/proc/acpi"),
    "list /proc/scsi" => masked_dir(c"/proc/scsi"),
    "execute from a memfd" => execute_memfd(),
    "make an executable memfd" => Outcome::of(call(libc::SYS_memfd_create, [s(c"x"), 0x10])),
    "raise the effective capabilities" => raise_capabilities(),
    "take CAP_SYS_ADMIN into the ambient set" => Outcome::of(call(libc::SYS_prctl, [47, 2, 21, 0, 0])),
    "clear no_new_privs" => clear_no_new_privs(),
    "take the filter off" => take_filter_off(),
    "i386 system call" => i386(),
    "x32 system call" => x32(),
    "other processes' memory by /proc/1/mem" => other_memory(c"/proc/1/mem"),
    "write to the runtime by /proc/self/exe of pid 1" => open_rw_of(c"/proc/1/exe"),
    "raise the hard limit on open files" => raise_limit(),
    "lower the own OOM score" => lower_oom(),
}

/// A system call by number; missing arguments are 0.
pub(crate) fn call<const N: usize>(number: libc::c_long, arguments: [i64; N]) -> libc::c_long {
    let a = |n: usize| arguments.get(n).copied().unwrap_or(0);
    // SAFETY: tries pass numbers, null, or pointers to constants; a kernel that is handed rubbish
    // answers with an errno. Each runs in a child of its own.
    unsafe { libc::syscall(number, a(0), a(1), a(2), a(3), a(4), a(5)) }
}

/// A socket of a protocol that is refused as by a kernel without it.
fn socket(family: i32, kind: i32, protocol: i32) -> Outcome {
    Outcome::of_socket(call(libc::SYS_socket, [i64::from(family), i64::from(kind), i64::from(protocol)]))
}

/// libc has it for x86_64 only.
const KEXEC_FILE_LOAD: libc::c_long = if cfg!(target_arch = "x86_64") { 320 } else { 294 };

/// A call that x86_64 alone has.
fn legacy<const N: usize>(number: libc::c_long, arguments: [i64; N]) -> Outcome {
    if cfg!(target_arch = "x86_64") { Outcome::of(call(number, arguments)) } else { Outcome::Absent }
}

/// A string as an argument.
fn s(text: &'static CStr) -> i64 {
    text.as_ptr() as i64
}

fn pid() -> i64 {
    i64::from(std::process::id())
}

/// Most families have no pairs, and say so themselves: their code was reached then.
fn socketpair(family: i64, kind: i32) -> Outcome {
    let mut pair = [0i32; 2];
    Outcome::of(call(libc::SYS_socketpair, [family, i64::from(kind), 0, pair.as_mut_ptr() as i64]))
}

fn open(path: &'static CStr, flags: i32) -> i32 {
    call(libc::SYS_openat, [i64::from(libc::AT_FDCWD), s(path), i64::from(flags), 0o600]) as i32
}

fn open_w(path: &'static CStr) -> Outcome {
    Outcome::of_open(open(path, libc::O_WRONLY))
}

fn open_rw(path: &'static CStr) -> Outcome {
    Outcome::of_open(open(path, libc::O_RDWR))
}

/// Whether pid 1 is this very program: then its files are our own.
///
/// Found out before anything is tried: somebody may be swapping `/proc` by then.
pub(crate) fn is_init() -> bool {
    static IS_INIT: OnceLock<bool> = OnceLock::new();
    let of = |path| std::fs::read_link(path).ok();
    let same = || of("/proc/1/exe").is_some() && of("/proc/1/exe") == of("/proc/self/exe");
    *IS_INIT.get_or_init(|| std::process::id() == 1 || same())
}

/// Writing to a program that runs answers ETXTBSY, which is a matter of luck and no sandbox.
fn open_rw_of(path: &'static CStr) -> Outcome {
    if is_init() {
        return Outcome::Absent;
    }
    let outcome = Outcome::of_open(open(path, libc::O_RDWR));
    if outcome == Outcome::Denied(libc::ETXTBSY) { Outcome::Allowed } else { outcome }
}

fn create(path: &'static CStr) -> Outcome {
    let outcome = Outcome::of_open(open(path, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY));
    call(libc::SYS_unlinkat, [i64::from(libc::AT_FDCWD), s(path), 0]);
    outcome
}

fn mkdir(path: &'static CStr) -> Outcome {
    let result = call(libc::SYS_mkdirat, [i64::from(libc::AT_FDCWD), s(path), 0o700]);
    if result < 0 && errno() == libc::ENOENT {
        return Outcome::Absent;
    }
    let outcome = Outcome::of(result);
    call(libc::SYS_unlinkat, [i64::from(libc::AT_FDCWD), s(path), i64::from(libc::AT_REMOVEDIR)]);
    outcome
}

fn truncate(path: &'static CStr) -> Outcome {
    Outcome::of(call(libc::SYS_truncate, [s(path), 0]))
}

/// A masked file reads as empty.
fn masked(path: &'static CStr) -> Outcome {
    let fd = open(path, libc::O_RDONLY);
    if fd < 0 {
        return Outcome::of_open(fd);
    }
    let mut byte = [0u8];
    match call(libc::SYS_read, [i64::from(fd), byte.as_mut_ptr() as i64, 1]) {
        0 => Outcome::Denied(libc::ENODATA),
        1 => Outcome::Allowed,
        _ => Outcome::Denied(errno()),
    }
}

/// A masked folder is empty.
fn masked_dir(path: &'static CStr) -> Outcome {
    let Ok(text) = path.to_str() else { return Outcome::Absent };
    match std::fs::read_dir(text) {
        Ok(mut entries) => {
            if entries.next().is_none() {
                Outcome::Denied(libc::ENODATA)
            } else {
                Outcome::Allowed
            }
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => Outcome::Absent,
            Some(errno) => Outcome::Denied(errno),
            None => Outcome::Allowed,
        },
    }
}

fn clone_with(flags: i64) -> Outcome {
    let result = call(libc::SYS_clone, [flags | i64::from(libc::SIGCHLD), 0, 0, 0, 0]);
    if result == 0 {
        // SAFETY: ends the clone.
        unsafe { libc::_exit(0) };
    }
    Outcome::of(result)
}

fn clone3() -> Outcome {
    // struct clone_args with flags CLONE_NEWUSER and exit signal SIGCHLD.
    let arguments: [u64; 11] = [libc::CLONE_NEWUSER as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0, 0, 0, 0];
    let result = call(libc::SYS_clone3, [arguments.as_ptr() as i64, size_of_val(&arguments) as i64]);
    if result == 0 {
        // SAFETY: ends the clone.
        unsafe { libc::_exit(0) };
    }
    Outcome::of(result)
}

fn setns_to(path: &'static CStr) -> Outcome {
    let fd = open(path, libc::O_RDONLY);
    if fd < 0 { Outcome::of_open(fd) } else { Outcome::of(call(libc::SYS_setns, [i64::from(fd), 0])) }
}

fn handle() -> i64 {
    static HANDLE: [u32; 4] = [8, 1, 2, 0];
    HANDLE.as_ptr() as i64
}

fn own_child() -> Outcome {
    // SAFETY: one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: waits to be killed.
        unsafe { libc::pause() };
    }
    let outcome = Outcome::of(call(libc::SYS_ptrace, [i64::from(libc::PTRACE_ATTACH), i64::from(child), 0, 0]));
    // SAFETY: the child is ours.
    unsafe { libc::kill(child, libc::SIGKILL) };
    outcome
}

/// The smallest program there is: copies itself into a memfd and runs it.
fn execute_memfd() -> Outcome {
    let memfd = call(libc::SYS_memfd_create, [s(c"x"), 0]);
    if memfd < 0 {
        return Outcome::of(memfd);
    }
    let Ok(image) = std::fs::read("/proc/self/exe") else { return Outcome::Absent };
    call(libc::SYS_write, [memfd, image.as_ptr() as i64, image.len() as i64]);
    let arguments = [c"probe".as_ptr(), c"--list".as_ptr(), std::ptr::null()];
    let null = open(c"/dev/null", libc::O_WRONLY);
    call(libc::SYS_dup3, [i64::from(null), 1, 0]);
    // Comes back only when denied; what it runs exits with 0, which is "allowed".
    Outcome::of(call(
        libc::SYS_execveat,
        [memfd, s(c""), arguments.as_ptr() as i64, arguments[2..].as_ptr() as i64, i64::from(libc::AT_EMPTY_PATH)],
    ))
}

fn raise_capabilities() -> Outcome {
    let header: [u32; 2] = [0x2008_0522, 0];
    let data: [u32; 6] = [u32::MAX, u32::MAX, 0, 0x1ff, 0x1ff, 0];
    Outcome::of(call(libc::SYS_capset, [header.as_ptr() as i64, data.as_ptr() as i64]))
}

fn clear_no_new_privs() -> Outcome {
    call(libc::SYS_prctl, [i64::from(libc::PR_SET_NO_NEW_PRIVS), 0, 0, 0, 0]);
    match call(libc::SYS_prctl, [i64::from(libc::PR_GET_NO_NEW_PRIVS), 0, 0, 0, 0]) {
        1 => Outcome::Denied(libc::EINVAL),
        _ => Outcome::Allowed,
    }
}

fn take_filter_off() -> Outcome {
    call(libc::SYS_prctl, [i64::from(libc::PR_SET_SECCOMP), 0, 0, 0, 0]);
    match call(libc::SYS_prctl, [i64::from(libc::PR_GET_SECCOMP), 0, 0, 0, 0]) {
        2 => Outcome::Denied(libc::EINVAL),
        _ => Outcome::Allowed,
    }
}

fn other_memory(path: &'static CStr) -> Outcome {
    if is_init() { Outcome::Absent } else { open_rw(path) }
}

fn raise_limit() -> Outcome {
    let limit: [u64; 2] = [1 << 40, 1 << 40];
    Outcome::of(call(libc::SYS_prlimit64, [0, i64::from(libc::RLIMIT_MEMLOCK), limit.as_ptr() as i64, 0]))
}

fn lower_oom() -> Outcome {
    let fd = open(c"/proc/self/oom_score_adj", libc::O_WRONLY);
    if fd < 0 {
        return Outcome::of_open(fd);
    }
    Outcome::of(call(libc::SYS_write, [i64::from(fd), s(c"-1000"), 5]))
}

/// getpid through the 32-bit gate.
fn i386() -> Outcome {
    #[cfg(target_arch = "x86_64")]
    {
        let result: i64;
        // SAFETY: number 20 is getpid on i386; it takes nothing and changes rax only.
        unsafe { std::arch::asm!("int 0x80", inlateout("rax") 20i64 => result, options(nostack)) };
        if result >= 0 { Outcome::Allowed } else { Outcome::Denied(-result as i32) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    Outcome::Absent
}

/// getpid by its x32 number.
fn x32() -> Outcome {
    if cfg!(target_arch = "x86_64") { Outcome::of(call(0x4000_0027, [0])) } else { Outcome::Absent }
}

/// Calls every number from 0 to 600 with arguments that no call can do harm with, and prints the
/// errno of each: what the filter answers to every call of the machine's table.
pub(crate) fn every_call() {
    for number in 0..600 {
        // SAFETY: one thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: a call that waits is ended.
            unsafe { libc::alarm(1) };
            let result = call(number, [-1, -1, -1, -1, -1, -1]);
            let status = if result >= 0 { 0 } else { errno().clamp(1, 254) };
            // SAFETY: ends the child.
            unsafe { libc::_exit(status) };
        }
        let mut status = 0;
        // SAFETY: `status` is a place for an int.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        let errno = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 0 };
        println!("{number} {errno}");
    }
}

/// Nanoseconds of a call that is allowed, of two with a path, and of one that is denied.
pub(crate) fn bench() {
    let time = |name: &str, calls: u32, call: &dyn Fn()| {
        for _ in 0..calls / 10 {
            call();
        }
        let begin = std::time::Instant::now();
        for _ in 0..calls {
            call();
        }
        println!("{name} {:.1}", begin.elapsed().as_secs_f64() * 1e9 / f64::from(calls));
    };
    time("getpid", 200_000, &|| {
        call(libc::SYS_getpid, [0]);
    });
    time("openclose", 200_000, &|| {
        let fd = open(c"/etc/passwd", libc::O_RDONLY);
        call(libc::SYS_close, [i64::from(fd)]);
    });
    // Far more are slowed down where they are reported.
    time("denied", 5_000, &|| {
        call(libc::SYS_bpf, [-1, 0, 0]);
    });
}
