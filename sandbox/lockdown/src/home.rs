//! `HOME` from the image's `/etc/passwd`, read inside the sandbox as the container's user.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Bytes of the image's `/etc/passwd` that are read.
const MAX_PASSWD_BYTES: u64 = 1 << 20;

/// The home directory of a user, `/` where the image has none.
///
/// # Errors
/// The image's `/etc/passwd` is there, and cannot be read.
pub(crate) fn of(uid: u32) -> io::Result<String> {
    let passwd = match read(Path::new("/etc/passwd"), MAX_PASSWD_BYTES) {
        Err(error) if is_none(&error) => String::new(),
        passwd => passwd?,
    };
    Ok(find(&passwd, uid).unwrap_or_else(|| "/".to_owned()))
}

/// Whether there is no such file for this user, or something else than a file.
fn is_none(error: &io::Error) -> bool {
    let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
    [libc::ENOENT, libc::ENOTDIR, libc::ELOOP, libc::EACCES, libc::ENXIO, libc::ENODEV, libc::EINVAL].contains(&errno)
}

/// Whole lines of a file, as many as begin and end in the first `most` bytes. The image may have
/// anything there: a FIFO or a device is not waited for, and nothing is read from it.
fn read(path: &Path, most: u64) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(most + 1).read_to_end(&mut text)?;
    if text.len() as u64 > most {
        // What is cut off could be the better part of a path.
        text.truncate(text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn find(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let same = fields.next()?.parse() == Ok(uid);
        let home = fields.nth(2)?;
        (same && home.starts_with('/') && !home.contains('\0')).then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_the_sixth_field_of_the_first_entry_with_the_uid() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/srv:/bin/false\nweb2:x:33:33::/x:/\n";
        assert_eq!(find(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(find(passwd, 33).as_deref(), Some("/srv"));
        assert_eq!(find(passwd, 7), None);
        assert_eq!(find("a:x:1:1::relative:/", 1), None);
    }

    #[test]
    fn only_a_regular_file_is_read_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("passwd");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        for path in [&fifo, Path::new("/dev/zero"), dir.path(), Path::new("/no/such")] {
            assert!(read(path, 1000).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn a_line_that_is_cut_off_is_no_answer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "a:x:1:1::/first:/bin/sh\nb:x:2:2::/second/and/third:/bin/sh\n";
        std::fs::write(file.path(), text).unwrap();
        let whole = text.len() as u64;
        let home = |most| find(&read(file.path(), most).unwrap(), 2);
        assert_eq!(home(whole).as_deref(), Some("/second/and/third"));
        for most in 0..whole - 1 {
            assert_eq!(home(most), None, "{most}");
        }
    }
}
