//! `HOME` from the image's `/etc/passwd`, read inside the sandbox as the container's user.

use std::io::Read;

/// Bytes of the image's `/etc/passwd` that are read.
const MAX_PASSWD_BYTES: u64 = 1 << 20;

/// The home directory of a user, `/` where the image has none.
pub(crate) fn of(uid: u32) -> String {
    let mut passwd = Vec::new();
    let read = std::fs::File::open("/etc/passwd").and_then(|f| f.take(MAX_PASSWD_BYTES).read_to_end(&mut passwd));
    let found = read.ok().and_then(|_| find(&String::from_utf8_lossy(&passwd), uid));
    found.unwrap_or_else(|| "/".to_owned())
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
    use super::find;

    #[test]
    fn home_is_the_sixth_field_of_the_first_entry_with_the_uid() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/srv:/bin/false\nweb2:x:33:33::/x:/\n";
        assert_eq!(find(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(find(passwd, 33).as_deref(), Some("/srv"));
        assert_eq!(find(passwd, 7), None);
        assert_eq!(find("a:x:1:1::relative:/", 1), None);
    }
}
