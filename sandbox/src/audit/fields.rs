//! The fields of an audit record, as the kernel writes them: `key=value`, with what a process has chosen quoted, or as
//! hexadecimal digits where it has a quote, a space or a control character in it (`audit_log_n_untrustedstring`,
//! kernel/audit.c). So nothing that a process has chosen looks like a field.

/// Most fields that are looked at in a record: the kernel's longest has some thirty.
pub(super) const MAX_FIELDS: usize = 64;

/// Longest text of a process that is kept, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// The words of a record, in order: fields, and words without a value.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<(&'a str, Value<'a>)>);

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    None,
    Plain(&'a str),
    Quoted(&'a str),
}

impl<'a> Fields<'a> {
    pub(super) fn of(mut text: &'a str) -> Self {
        let mut fields = Vec::new();
        while fields.len() < MAX_FIELDS {
            text = text.trim_start_matches([' ', '\n', '\0', '\u{1d}']);
            if text.is_empty() {
                break;
            }
            let end = text.find([' ', '=', '\n', '\0']).unwrap_or(text.len());
            let (key, rest) = text.split_at(end);
            let Some(rest) = rest.strip_prefix('=') else {
                fields.push((key, Value::None));
                text = rest;
                continue;
            };
            let (value, rest) = match rest.strip_prefix('"') {
                Some(quoted) => {
                    let (value, rest) = quoted.split_once('"').unwrap_or((quoted, ""));
                    (Value::Quoted(value), rest)
                }
                None => {
                    let end = rest.find([' ', '\n', '\0']).unwrap_or(rest.len());
                    let (value, rest) = rest.split_at(end);
                    (Value::Plain(value), rest)
                }
            };
            fields.push((key, value));
            text = rest;
        }
        Self(fields)
    }

    /// The first of that name: the kernel writes its own fields before those that a process controls.
    fn value(&self, key: &str) -> Option<Value<'a>> {
        self.0.iter().find(|(of, _)| *of == key).map(|(_, value)| *value)
    }

    /// A word of the kernel's: no text that a process has chosen.
    pub(super) fn word(&self, key: &str) -> Option<&'a str> {
        match self.value(key)? {
            Value::Plain(word) | Value::Quoted(word) => Some(word),
            Value::None => None,
        }
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.word(key)?.parse().ok()
    }

    /// A text that a process may have chosen.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        let (text, hexadecimal) = match self.value(key)? {
            Value::Quoted(text) => (text, None),
            Value::Plain(text) => (text, from_hexadecimal(text)),
            Value::None => return None,
        };
        let bytes = hexadecimal.as_deref().unwrap_or(text.as_bytes());
        Some(String::from_utf8_lossy(bytes.get(..MAX_TEXT_BYTES).unwrap_or(bytes)).into_owned())
    }

    /// The words between braces, as SELinux has its permissions.
    pub(super) fn braced(&self) -> impl Iterator<Item = &'a str> {
        let words = self.0.iter().map(|(word, _)| *word);
        words.skip_while(|word| *word != "{").skip(1).take_while(|word| *word != "}")
    }

    /// Whether a word without a value is there.
    pub(super) fn has(&self, word: &str) -> bool {
        self.0.iter().any(|(of, value)| *of == word && *value == Value::None)
    }
}

fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect::<Option<Vec<u8>>>().filter(|bytes| !bytes.is_empty())
}
