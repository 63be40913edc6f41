//! A hostile container as a value, printed as one line of JSON.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What somebody who writes image and pod, and shares volumes with other containers, hands to the
/// runtime.
///
/// In names, `%XX` stands for a byte; in targets of links, `{empty}`, `{some}` and `{full}` stand for
/// folders of the host, without their leading slash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// The seed that it follows from, by today's generator.
    pub seed: u64,
    /// What is unusual in the image, in the order in which it is made.
    pub image: Vec<Entry>,
    /// Whether the image has folders where the host's are.
    pub mirrored: bool,
    /// Whether containerd mounts the image, or the bundle has it.
    pub mounted: bool,
    /// The pod's volumes.
    pub volumes: Vec<Volume>,
    /// Destinations of containerd's default mounts that the spec lacks.
    pub without: Vec<String>,
    /// Paths of `linux.devices`; each is `/dev/null` or `/dev/zero`.
    pub devices: Vec<String>,
    /// Further masked paths.
    pub masked: Vec<String>,
    /// Whether cgroups are mounted, as the CRI does.
    pub cgroups: bool,
    /// Whether it asks for profile `restricted`.
    pub restricted: bool,
    /// `process.terminal`.
    pub terminal: bool,
    /// `root.readonly`.
    pub read_only: bool,
    /// Whether the environment says where home is.
    pub home: bool,
    /// `process.user.uid`, and gid.
    pub uid: u32,
    /// `process.cwd`.
    pub cwd: String,
    /// The working directory of an exec, where there is one.
    pub exec: Option<String>,
}

/// Something in an image or a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where.
    pub path: String,
    /// What.
    pub kind: Kind,
}

/// What a name can stand for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A symbolic link.
    Link(String),
    /// A FIFO that nobody writes to.
    Fifo,
    /// A socket that nobody listens on.
    Socket,
    /// A character device.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A file.
    File,
    /// A folder.
    Folder,
}

/// A volume of the pod's, as the kubelet makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Where in the container.
    pub at: String,
    /// Whether it is mounted read-only.
    pub read_only: bool,
    /// What is in it.
    pub entries: Vec<Entry>,
    /// What another container that shares it does to it, all the time.
    pub swaps: Vec<Swap>,
}

/// A folder that keeps changing places with a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// The folder's name in the volume.
    pub name: String,
    /// Where the link leads.
    pub target: String,
}

impl Case {
    /// Whether somebody changes files while the container is made.
    #[must_use]
    pub fn is_raced(&self) -> bool {
        self.volumes.iter().any(|volume| !volume.swaps.is_empty())
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Case {
    type Err = serde_json::Error;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(line)
    }
}

/// The bytes of a name: `%XX` is one.
pub(crate) fn bytes(name: &str) -> OsString {
    let mut rest = name.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn names_hold_any_byte() {
        assert_eq!(bytes("a%ff%0ab").as_bytes(), b"a\xff\nb");
        assert_eq!(bytes("100%").as_bytes(), b"100%");
        assert_eq!(bytes("%zz").as_bytes(), b"%zz");
    }
}
