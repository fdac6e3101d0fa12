//! `.reg` text as edits.

use super::{HEADER, HEADER_4, RegEdit, RegScript, TextError};
use crate::name::{KeyPath, Name, SEPARATOR, lossy_text, units_of};
use crate::value::{RegValue, ValueType};

pub(super) fn parse(text: &[u8], prefix: &KeyPath) -> Result<RegScript, TextError> {
    let units = decode(text)?;
    let mut reader = Reader {
        rest: &units,
        line: 1,
    };
    let header = reader.line_text();
    let ansi = match lossy(header).trim() {
        HEADER => false,
        HEADER_4 => true,
        _ => return Err(error(1, EXPECTED_HEADER, shown(header))),
    };
    if ansi && let Some(&beyond) = units.iter().find(|&&unit| unit > 0x7F) {
        let found = format!("character {beyond:#06x}, which depends on a code page");
        return Err(TextError {
            line: 1,
            expected: "only ASCII in REGEDIT4 text",
            found,
        });
    }
    let mut parser = Parser {
        reader,
        prefix,
        ansi,
        edits: Vec::new(),
    };
    parser.edits()?;
    Ok(RegScript {
        edits: parser.edits,
    })
}

/// The text as UTF-16, whichever of the encodings it has.
fn decode(text: &[u8]) -> Result<Vec<u16>, TextError> {
    if let Some(utf16) = text.strip_prefix(&[0xFF, 0xFE]) {
        if !utf16.len().is_multiple_of(2) {
            let found = format!("{} bytes behind the byte order mark", utf16.len());
            return Err(TextError {
                line: 1,
                expected: "pairs of bytes (UTF-16)",
                found,
            });
        }
        return Ok(units_of(utf16).collect());
    }
    let utf8 = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    match std::str::from_utf8(utf8) {
        Ok(text) => Ok(text.encode_utf16().collect()),
        Err(invalid) => {
            let before = utf8.get(..invalid.valid_up_to()).unwrap_or_default();
            let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
            let found = "bytes that are neither".into();
            Err(TextError {
                line,
                expected: "UTF-8, or UTF-16 with a byte order mark",
                found,
            })
        }
    }
}

struct Parser<'t> {
    reader: Reader<'t>,
    prefix: &'t KeyPath,
    /// REGEDIT4: strings in bytes are one byte a character.
    ansi: bool,
    edits: Vec<(usize, RegEdit)>,
}

impl Parser<'_> {
    fn edits(&mut self) -> Result<(), TextError> {
        let mut key: Option<KeyPath> = None;
        loop {
            self.reader.skip_blank();
            let line = self.reader.line;
            let Some(first) = self.reader.peek() else {
                return Ok(());
            };
            match char::from_u32(u32::from(first)) {
                Some(';') => {
                    self.reader.line_text();
                }
                Some('[') => {
                    let (path, deleted) = self.key_line()?;
                    let edit = if deleted {
                        key = None;
                        RegEdit::DeleteKey(path)
                    } else {
                        key = Some(path.clone());
                        RegEdit::CreateKey(path)
                    };
                    self.edits.push((line, edit));
                }
                Some('@' | '"') => {
                    let Some(key) = &key else {
                        return Err(self
                            .reader
                            .unexpected("a key before the first value of one"));
                    };
                    let key = key.clone();
                    let edit = self.value_line(key)?;
                    self.edits.push((line, edit));
                }
                _ => return Err(self.reader.unexpected("a key, a value or a comment")),
            }
        }
    }

    fn key_line(&mut self) -> Result<(KeyPath, bool), TextError> {
        let line = self.reader.line;
        let text = trim(self.reader.line_text());
        let inside = match text {
            [OPEN, inside @ .., CLOSE] => inside,
            _ => return Err(error(line, "a key in brackets", shown(text))),
        };
        let (inside, deleted) = match inside {
            [MINUS, rest @ ..] => (rest, true),
            _ => (inside, false),
        };
        let path = KeyPath::from_units(inside);
        let Some(path) = strip_prefix(&path, self.prefix) else {
            let expected = "a key below the prefix that was given";
            return Err(error(line, expected, shown(inside)));
        };
        // A separator in front says that the root is meant.
        let foreign = inside.first() != Some(&SEPARATOR)
            && path
                .names()
                .first()
                .is_some_and(|name| name.to_string().starts_with("HKEY_"));
        if foreign && self.prefix.names().is_empty() {
            let expected = "a key named from the hive's root, or a prefix to take off";
            return Err(error(line, expected, shown(inside)));
        }
        Ok((path, deleted))
    }

    fn value_line(&mut self, key: KeyPath) -> Result<RegEdit, TextError> {
        let name = if self.reader.take('@') {
            Name::default()
        } else {
            Name::from_units(self.reader.quoted()?)
        };
        self.reader.skip_spaces();
        if !self.reader.take('=') {
            return Err(self.reader.unexpected("\"=\" after a value's name"));
        }
        self.reader.skip_spaces();
        let edit = if self.reader.take('-') {
            RegEdit::DeleteValue { key, name }
        } else {
            let value = self.data()?;
            RegEdit::SetValue { key, name, value }
        };
        self.reader.skip_spaces();
        match self.reader.peek() {
            None | Some(CARRIAGE_RETURN | LINE_FEED) => Ok(edit),
            Some(COMMENT) => {
                self.reader.line_text();
                Ok(edit)
            }
            Some(_) => Err(self.reader.unexpected("the end of the line")),
        }
    }

    fn data(&mut self) -> Result<RegValue, TextError> {
        if self.reader.peek() == Some(QUOTE) {
            return Ok(RegValue::new(
                ValueType::SZ,
                with_zero(&self.reader.quoted()?),
            ));
        }
        let line = self.reader.line;
        let word = self.reader.word();
        let unknown = || {
            let expected = "text in quotes, \"dword:\", \"hex:\", \"hex(n):\" or \"-\"";
            Err(error(line, expected, shown(word)))
        };
        let word = String::from_utf16_lossy(word).to_ascii_lowercase();
        if !self.reader.take(':') {
            return unknown();
        }
        let (kind, value_type) = match word.split_once('(') {
            None => (word.as_str(), None),
            Some((kind, number)) => {
                let number = number
                    .strip_suffix(')')
                    .map(|number| u32::from_str_radix(number, 16));
                match number {
                    Some(Ok(number)) => (kind, Some(ValueType::from_raw(number))),
                    _ => return unknown(),
                }
            }
        };
        match (kind, value_type) {
            ("dword", None) => self.dword(),
            ("hex", value_type) => self.hex(value_type.unwrap_or(ValueType::BINARY)),
            // The form of libguestfs' tools.
            ("str", value_type) => {
                let text = self.reader.quoted()?;
                Ok(RegValue::new(
                    value_type.unwrap_or(ValueType::SZ),
                    with_zero(&text),
                ))
            }
            _ => unknown(),
        }
    }

    fn dword(&mut self) -> Result<RegValue, TextError> {
        self.reader.skip_spaces();
        let line = self.reader.line;
        let digits = self.reader.word();
        match u32::from_str_radix(&lossy(digits), 16) {
            Ok(number) => Ok(RegValue::dword(number)),
            Err(_) => Err(error(
                line,
                "one to eight hexadecimal digits",
                shown(digits),
            )),
        }
    }

    fn hex(&mut self, value_type: ValueType) -> Result<RegValue, TextError> {
        let mut data = Vec::new();
        loop {
            self.reader.skip_continuation()?;
            if self.reader.at_line_end() {
                break;
            }
            let line = self.reader.line;
            let digits = self.reader.word();
            match u8::from_str_radix(&lossy(digits), 16) {
                Ok(byte) => data.push(byte),
                Err(_) => {
                    let expected = "a byte of one or two hexadecimal digits";
                    return Err(error(line, expected, shown(digits)));
                }
            }
            self.reader.skip_continuation()?;
            if !self.reader.take(',') {
                break;
            }
        }
        let is_text = matches!(
            value_type,
            ValueType::SZ | ValueType::EXPAND_SZ | ValueType::MULTI_SZ
        );
        if self.ansi && is_text {
            if data.iter().any(|byte| !byte.is_ascii()) {
                let expected = "only ASCII in the bytes of REGEDIT4 strings";
                return Err(error(
                    self.reader.line,
                    expected,
                    "bytes that depend on a code page",
                ));
            }
            data = data.into_iter().flat_map(|byte| [byte, 0]).collect();
        }
        Ok(RegValue::new(value_type, data))
    }
}

/// What is left of the text.
struct Reader<'t> {
    rest: &'t [u16],
    line: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u16> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u16> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.line += usize::from(first == LINE_FEED);
        Some(first)
    }

    fn take(&mut self, wanted: char) -> bool {
        let is_next = self.peek().map(u32::from) == Some(u32::from(wanted));
        if is_next {
            self.next();
        }
        is_next
    }

    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(SPACE | TAB)) {
            self.next();
        }
    }

    fn skip_blank(&mut self) {
        while matches!(self.peek(), Some(SPACE | TAB | CARRIAGE_RETURN | LINE_FEED)) {
            self.next();
        }
    }

    /// Passes spaces and, after a backslash, the end of a line.
    fn skip_continuation(&mut self) -> Result<(), TextError> {
        self.skip_spaces();
        while self.take('\\') {
            self.skip_spaces();
            self.take('\r');
            if !self.take('\n') {
                return Err(self.unexpected("the end of the line after a backslash"));
            }
            self.skip_spaces();
        }
        Ok(())
    }

    fn at_line_end(&self) -> bool {
        matches!(self.peek(), None | Some(CARRIAGE_RETURN | LINE_FEED))
    }

    /// The rest of the line, and past its end.
    fn line_text(&mut self) -> &'t [u16] {
        let len = self.rest.iter().position(|&unit| unit == LINE_FEED);
        let (text, _) = self.rest.split_at(len.unwrap_or(self.rest.len()));
        while self.next().is_some_and(|unit| unit != LINE_FEED) {}
        text.strip_suffix(&[CARRIAGE_RETURN]).unwrap_or(text)
    }

    /// Letters, digits and parentheses.
    fn word(&mut self) -> &'t [u16] {
        let is_word = |unit: u16| {
            u8::try_from(unit).is_ok_and(|b| b.is_ascii_alphanumeric() || b == b'(' || b == b')')
        };
        let len = self
            .rest
            .iter()
            .position(|&unit| !is_word(unit))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(len);
        self.rest = rest;
        word
    }

    /// Text in quotes; a backslash stands before a quote and before itself.
    fn quoted(&mut self) -> Result<Vec<u16>, TextError> {
        let line = self.line;
        if !self.take('"') {
            return Err(self.unexpected("text in quotes"));
        }
        let mut text = Vec::new();
        loop {
            match self.next() {
                Some(QUOTE) => return Ok(text),
                Some(SEPARATOR) => match self.next() {
                    Some(escaped @ (QUOTE | SEPARATOR)) => text.push(escaped),
                    Some(other) => {
                        let found = format!("a backslash and {}", shown(&[other]));
                        let expected = "a backslash or a quote after a backslash";
                        return Err(TextError {
                            line: self.line,
                            expected,
                            found,
                        });
                    }
                    None => break,
                },
                Some(unit) => text.push(unit),
                None => break,
            }
        }
        Err(error(line, "a closing quote", "the end of the text"))
    }

    fn unexpected(&self, expected: &'static str) -> TextError {
        let line_end = self.rest.iter().position(|&unit| unit == LINE_FEED);
        let text = self
            .rest
            .get(..line_end.unwrap_or(self.rest.len()))
            .unwrap_or_default();
        match trim(text) {
            [] if self.rest.is_empty() => error(self.line, expected, "the end of the text"),
            [] => error(self.line, expected, "the end of the line"),
            text => error(self.line, expected, shown(text)),
        }
    }
}

fn strip_prefix(path: &KeyPath, prefix: &KeyPath) -> Option<KeyPath> {
    let (above, below) = path.names().split_at_checked(prefix.names().len())?;
    let matches = above
        .iter()
        .zip(prefix.names())
        .all(|(name, wanted)| name.matches(wanted));
    matches.then(|| KeyPath::from_names(below.iter().cloned()))
}

fn with_zero(text: &[u16]) -> Vec<u8> {
    text.iter()
        .copied()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect()
}

fn trim(mut text: &[u16]) -> &[u16] {
    while let [SPACE | TAB | CARRIAGE_RETURN, rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., SPACE | TAB | CARRIAGE_RETURN] = text {
        text = rest;
    }
    text
}

fn lossy(units: &[u16]) -> String {
    lossy_text(units.iter().copied())
}

fn error(line: usize, expected: &'static str, found: impl Into<String>) -> TextError {
    TextError {
        line,
        expected,
        found: found.into(),
    }
}

/// Text as it is shown in an error: not all of a long line.
fn shown(units: &[u16]) -> String {
    let text: String = lossy(units).chars().take(LONGEST_SHOWN).collect();
    let more = if units.len() > LONGEST_SHOWN {
        "..."
    } else {
        ""
    };
    format!("\"{text}{more}\"")
}

const EXPECTED_HEADER: &str = "\"Windows Registry Editor Version 5.00\" or \"REGEDIT4\"";
const LONGEST_SHOWN: usize = 60;
const TAB: u16 = 0x09;
const LINE_FEED: u16 = 0x0A;
const CARRIAGE_RETURN: u16 = 0x0D;
const SPACE: u16 = 0x20;
const QUOTE: u16 = 0x22;
const MINUS: u16 = 0x2D;
const COMMENT: u16 = 0x3B;
const OPEN: u16 = 0x5B;
const CLOSE: u16 = 0x5D;
