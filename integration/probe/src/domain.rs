//! A Landlock domain under any name: a reader of the kernel's audit records must not take it for another container's.

use std::ffi::CString;
use std::io;

/// `LANDLOCK_ACCESS_FS_MAKE_DIR`.
const MAKE_DIR: u64 = 1 << 7;

/// `domain NAME`: calls itself so, enters a domain in which no folder can be made, and tries to make one.
pub(crate) fn run(arguments: &[String]) {
    let name = arguments.first().cloned().unwrap_or_default();
    let made = enter(&name).map(|()| std::fs::create_dir("/tmp/of a domain"));
    match made {
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {}
        other => {
            eprintln!("no domain denied it: {other:?}");
            std::process::exit(1);
        }
    }
}

fn enter(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    let ok = |result: libc::c_long| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    // SAFETY: the name ends with NUL and outlives the call.
    ok(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }.into())?;
    // SAFETY: takes numbers only.
    ok(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    let handled = MAKE_DIR;
    // SAFETY: the attributes are those of the first version: one number, of that size.
    let ruleset = ok(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, 8, 0) })?;
    // SAFETY: takes numbers only.
    ok(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) }).map(drop)
}
