//! A word on a call's arguments, for whoever reads what it was.

use super::ptrace::text;

/// Which arguments of a call are paths, and which numbers tell what it does.
enum Shape {
    Paths(&'static [usize]),
    Numbers(&'static [usize]),
}

fn shape(name: &str) -> Shape {
    match name {
        "open" | "stat" | "lstat" | "access" | "mkdir" | "rmdir" | "unlink" | "chdir" | "umount2" | "readlink"
        | "execve" | "statfs" | "chmod" | "mknod" | "pivot_root" | "getxattr" | "setxattr" | "chroot" | "chown"
        | "sethostname" => Shape::Paths(&[0]),
        "mount" => Shape::Paths(&[1, 2]),
        "symlink" | "rename" | "link" => Shape::Paths(&[0, 1]),
        "openat" | "openat2" | "newfstatat" | "statx" | "mkdirat" | "unlinkat" | "mknodat" | "readlinkat"
        | "faccessat" | "faccessat2" | "name_to_handle_at" | "open_tree" | "mount_setattr" | "fchmodat"
        | "fchownat" | "inotify_add_watch" => Shape::Paths(&[1]),
        "renameat" | "renameat2" | "linkat" | "move_mount" => Shape::Paths(&[1, 3]),
        "symlinkat" => Shape::Paths(&[0, 2]),
        "fcntl" | "ioctl" | "setns" => Shape::Numbers(&[1]),
        "prctl" => Shape::Numbers(&[0, 1]),
        "unshare" | "clone" | "rt_sigaction" | "seccomp" | "keyctl" | "umask" | "setfsuid" | "setfsgid"
        | "prlimit64" | "setgroups" | "arch_prctl" => Shape::Numbers(&[0]),
        "socket" | "socketpair" => Shape::Numbers(&[0, 1]),
        "close" | "dup2" | "dup3" | "close_range" => Shape::Numbers(&[0, 1]),
        _ => Shape::Numbers(&[]),
    }
}

/// The paths of a call, or numbers.
pub(super) fn about(pid: i32, name: &str, arguments: &[u64; 6]) -> String {
    let at = |index: &usize| arguments.get(*index).copied().unwrap_or_default();
    let words: Vec<String> = match shape(name) {
        Shape::Paths(indices) => indices.iter().map(|index| text(pid, at(index))).collect(),
        Shape::Numbers(indices) => indices.iter().map(|index| format!("{:#x}", at(index))).collect(),
    };
    words.join(" ")
}
