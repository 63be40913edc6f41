//! Paths as the spec and the policy write them.

use std::path::{Component, Path, PathBuf};

/// The longest path that the kernel takes, in bytes, with its end: `PATH_MAX`, linux/limits.h.
const PATH_MAX: usize = 4096;

/// An absolute path without `..`, NUL bytes and needless parts; `None` where it is none.
pub(crate) fn absolute(path: &Path) -> Option<PathBuf> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let plain = path.is_absolute() && !bytes.contains(&0) && bytes.len() < PATH_MAX;
    (plain && !path.components().any(|part| part == Component::ParentDir)).then(|| path.components().collect())
}

/// A path with its `..` taken by name, as if there were no symbolic link in it.
pub(crate) fn without_dots(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut clean, part| {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) | Component::Normal(_) => clean.push(part),
        }
        clean
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_without_dots_are_taken() {
        for (path, expected) in [("/", "/"), ("/a//b/./c/", "/a/b/c"), ("/..a", "/..a")] {
            assert_eq!(absolute(Path::new(path)), Some(expected.into()), "{path}");
        }
        // With the end that the kernel counts, the longest has 4095 bytes.
        let [longest, longer] = [4094, 4095].map(|length| format!("/{}", "a".repeat(length)));
        assert_eq!(absolute(Path::new(&longest)), Some(longest.into()));
        for path in ["", "a", "./a", "/a/../b", "/..", "/a\0", &longer] {
            assert_eq!(absolute(Path::new(path)), None, "{path}");
        }
    }
}
