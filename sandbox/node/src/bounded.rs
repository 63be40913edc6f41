//! Files of others, which may be of any size.

use std::fs::File;
use std::io::Read;

/// Reads a file whole, with a bound in bytes.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn read_bounded(file: File, most: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(std::io::Error::other(format!("is larger than {most} bytes")));
    }
    Ok(content)
}
