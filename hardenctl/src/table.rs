//! Text for people: rows with aligned columns, as wide as the terminal, and lists in short.

use textwrap::core::display_width;
use textwrap::{Options, WordSplitter};

use crate::style::{BOLD, PLAIN};

/// Columns of output that is no terminal.
const PAGE: usize = 100;

/// Narrower terminals get lines of this width.
const LEAST: usize = 40;

/// Lists of more items are folded.
const LONG: usize = 10;

/// Items that a folded list shows.
const SHOWN: usize = 6;

/// How wide the output is.
pub(crate) fn width() -> usize {
    let terminal = terminal_size::terminal_size_of(std::io::stdout());
    terminal.map_or(PAGE, |(width, _)| usize::from(width.0)).max(LEAST)
}

/// A paragraph beside what comes first.
pub(crate) fn beside(first: &str, text: &str, width: usize) -> String {
    hanging(first, text, display_width(first), width)
}

/// A paragraph with other lines further in than the first, or less. Words stay whole: paths and settings are there to be
/// copied.
pub(crate) fn hanging(first: &str, text: &str, indent: usize, width: usize) -> String {
    let indent = " ".repeat(indent);
    let options = Options::new(width)
        .initial_indent(first)
        .subsequent_indent(&indent)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation);
    let mut text = textwrap::fill(text, options);
    text.push('\n');
    text
}

/// Rows, the second column below itself.
pub(crate) fn rows(rows: &[(String, String)], width: usize) -> String {
    let widest = rows.iter().map(|(key, _)| display_width(key)).max().unwrap_or(0);
    let row = |(key, value): &(String, String)| {
        let space = " ".repeat(widest - display_width(key) + 2);
        beside(&format!("  {BOLD}{key}{PLAIN}{space}"), value, width)
    };
    rows.iter().map(row).collect()
}

/// A list with commas, folded where it is long and not all of it is asked for.
pub(crate) fn folded(list: &str, all: bool) -> String {
    let items: Vec<&str> = list.split(", ").collect();
    if all || items.len() <= LONG {
        return list.to_owned();
    }
    let shown: Vec<&str> = items.iter().take(SHOWN).copied().collect();
    format!("{}, … ({}; all with --all)", shown.join(", "), items.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::{BAD, DIM};

    #[test]
    fn a_paragraph_is_as_wide_as_the_terminal_and_colours_take_no_room() {
        let text = format!("{BAD}one{PLAIN} two {DIM}three{PLAIN} four read-only profile.NAME.capabilities.add");
        let wrapped = beside(&format!("  {BOLD}key{PLAIN}  "), &text, 20);
        let plain = anstream::adapter::strip_str(&wrapped).to_string();
        let lines =
            ["  key  one two three", "       four", "       read-only", "       profile.NAME.capabilities.add", ""];
        assert_eq!(plain.split('\n').collect::<Vec<_>>(), lines);
        assert!(wrapped.contains(BAD) && wrapped.contains(BOLD));
    }

    #[test]
    fn columns_are_aligned() {
        let row = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let table = rows(&[row("a", "1"), row("entrée", "2 2 2"), row("", "3")], 13);
        assert_eq!(
            anstream::adapter::strip_str(&table).to_string(),
            "  a       1\n  entrée  2 2\n          2\n          3\n"
        );
        assert_eq!(rows(&[], 80), "");
    }

    #[test]
    fn long_lists_are_folded_and_short_ones_are_not() {
        let list = |items: usize| (1..=items).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        assert_eq!(folded(&list(11), false), "1, 2, 3, 4, 5, 6, … (11; all with --all)");
        for (items, all) in [(0, false), (1, false), (10, false), (11, true)] {
            assert_eq!(folded(&list(items), all), list(items));
        }
    }
}
