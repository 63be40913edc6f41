//! A mount table, in which containers and users choose paths, is read as the kernel writes it.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hardened_node::mountinfo::MountTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Of any bytes: each mount is shown where it is.
    let table = MountTable::parse(data);
    for (point, location) in table.below(Path::new("/")).take(50) {
        assert!(table.shown_at(&location).any(|shown| shown == point), "{} is not at {location:?}", point.display());
    }
    // Any path comes back as it went into a table: no byte of it is another field, or another line.
    if data.is_empty() || data.contains(&0) {
        return;
    }
    let path = [b"/mnt/", data].concat();
    let written = escaped(&path);
    let line = [b"7 1 8:1 ", written.as_slice(), b" ", &written, b" rw shared:5 - ext4 /dev/sda1 rw\n"].concat();
    let table = MountTable::parse(&line);
    let path = Path::new(OsStr::from_bytes(&path));
    let mut below = table.below(Path::new("/"));
    let (point, location) = below.next().expect("the mount is in the table");
    assert_eq!((point.as_os_str(), location.path.as_os_str()), (path.as_os_str(), path.as_os_str()));
    assert!(below.next().is_none());
});

/// As fs/proc_namespace.c (`show_mountinfo`) writes a path: `mangle` and `seq_path` escape " \t\n\\" and "#".
fn escaped(path: &[u8]) -> Vec<u8> {
    let each = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
        byte => vec![*byte],
    };
    path.iter().flat_map(each).collect()
}
