//! Files that are neither files nor folders.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(super) fn node(path: &Path, kind: libc::mode_t, device: libc::dev_t) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends in NUL.
    if unsafe { libc::mknod(path.as_ptr(), kind | 0o666, device) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
