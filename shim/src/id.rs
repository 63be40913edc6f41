//! Identifiers that become file names: namespaces, containers, execs.

/// containerd's own limit: pkg/identifiers.
const MAX_LENGTH: usize = 76;

/// Whether a name is one that containerd would give: letters, digits, and `-`, `_`, `.` inside.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(name: &str) -> Result<(), String> {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    if name.len() > MAX_LENGTH {
        return Err(format!(
            "{:?}... is {} bytes long; at most {MAX_LENGTH} are taken",
            name.chars().take(20).collect::<String>(),
            name.len()
        ));
    }
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !name.chars().all(inside) || !ends(name.chars().next()) || !ends(name.chars().next_back()) {
        return Err(format!("{name:?}: expected letters and digits, with - _ . only inside"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn names_that_could_leave_a_folder_are_refused() {
        for good in ["a", "k8s.io", "web-1_x", &"a".repeat(76)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "-a", "a\0b", "ä", &"a".repeat(77)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
