//! A line of a file of records is read back as it was written, or refused; and no text reaches a terminal raw.
#![no_main]

use hardened_sandbox::record::{Record, printable};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(record) = serde_json::from_slice::<Record>(data) {
        let line = serde_json::to_vec(&record).expect("a record that was read can be written");
        assert!(!line.contains(&b'\n'));
        assert_eq!(serde_json::from_slice::<Record>(&line).expect("and read again"), record);
    }
    let text = String::from_utf8_lossy(data);
    let shown = printable(&text);
    assert!(!shown.chars().any(|c| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')));
    assert_eq!(printable(&shown), shown);
    // The longest escape of a character is `\u{10ffff}`.
    assert!(shown.chars().count() <= text.chars().count() * 10);
});
