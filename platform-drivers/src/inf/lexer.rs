//! Bytes to sections of lines of fields.
//!
//! ```text
//!  bytes --decode--> text --characters--> [section]
//!                                         key = field, field   ; comment
//!                                         field, "quoted ""field""", \
//!                                             the same line goes on
//! ```
//!
//! Nothing is substituted here: `%name%` stays until a field is read, for a string may hold commas
//! and quotes. The rules are those of SetupAPI ("General Syntax Rules for INF Files"), with what it
//! lets pass: a quote that is not closed ends with its line, a backslash inside quotes is one.

use encoding_rs::{UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::error::{InfError, InfErrorKind, LineNumber};
use super::section::{Line, Section, Sections};

/// How the text of an INF is encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TextEncoding {
    /// UTF-16, with or without a byte order mark. What Windows itself uses.
    Utf16,
    /// UTF-8, with or without a byte order mark.
    Utf8,
    /// Neither: taken for the code page 1252. Windows takes its own, which nobody can see offline.
    Ansi,
}

/// The text of an INF file.
///
/// Without a byte order mark, text that is valid UTF-8 is taken for UTF-8: this differs from what
/// Windows does in the descriptions people read, never in a name or path.
pub(super) fn decode(bytes: &[u8]) -> Result<(String, TextEncoding), InfError> {
    if bytes.len() > LARGEST_INF {
        return Err(InfErrorKind::TooLarge {
            found: bytes.len(),
            limit: LARGEST_INF,
        }
        .of_file());
    }
    let (encoding, kind) = match bytes {
        [0xFF, 0xFE, ..] | [1..=0xFF, 0, ..] => (UTF_16LE, TextEncoding::Utf16),
        [0xFE, 0xFF, ..] => (UTF_16BE, TextEncoding::Utf16),
        [0xEF, 0xBB, 0xBF, ..] => (UTF_8, TextEncoding::Utf8),
        _ if std::str::from_utf8(bytes).is_ok() => (UTF_8, TextEncoding::Utf8),
        _ => (WINDOWS_1252, TextEncoding::Ansi),
    };
    let (text, _) = encoding.decode_with_bom_removal(bytes);
    Ok((text.into_owned(), kind))
}

/// The sections of an INF text. Sections of one name are one section, as for Windows.
pub(super) fn sections(text: &str) -> Result<Sections, InfError> {
    let mut lexer = Lexer {
        rest: text,
        number: 1,
    };
    let mut sections = Sections::default();
    let mut current: Option<usize> = None;
    while let Some(start) = lexer.next_item() {
        let number = LineNumber(lexer.number);
        if start == '[' {
            let name = lexer.section_name(number)?;
            current = Some(sections.open(Section::new(&name, number)));
            continue;
        }
        let Some(section) = current else {
            let found = lexer.rest.lines().next().unwrap_or_default();
            let found = found.trim_end().chars().take(SHOWN).collect();
            return Err(InfErrorKind::ExpectedSection { found }.at(number));
        };
        let line = lexer.line(number)?;
        sections.push(section, line);
    }
    Ok(sections)
}

struct Lexer<'t> {
    rest: &'t str,
    number: u32,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        // Control-Z ends a text file as it did under DOS; SetupAPI still honours it.
        self.rest.chars().next().filter(|&found| found != '\u{1A}')
    }

    fn advance(&mut self) -> Option<char> {
        let found = self.peek()?;
        self.rest = self.rest.get(found.len_utf8()..).unwrap_or_default();
        if found == '\n' {
            self.number = self.number.saturating_add(1);
        }
        Some(found)
    }

    /// The first character of the next section or line, which is not consumed.
    fn next_item(&mut self) -> Option<char> {
        loop {
            match self.peek()? {
                ';' => self.skip_comment(),
                found if found.is_whitespace() => {
                    self.advance();
                }
                found => return Some(found),
            }
        }
    }

    /// Up to the end of the line, which is not consumed.
    fn skip_comment(&mut self) {
        while self.peek().is_some_and(|found| found != '\n') {
            self.advance();
        }
    }

    fn section_name(&mut self, number: LineNumber) -> Result<String, InfError> {
        self.advance();
        let mut name = String::new();
        loop {
            match self.peek() {
                None | Some('\n' | '\r' | '\0') => {
                    let found = name.chars().take(SHOWN).collect();
                    return Err(InfErrorKind::UnclosedSectionName { found }.at(number));
                }
                Some(']') => {
                    self.advance();
                    break;
                }
                Some(found) => {
                    name.push(found);
                    self.advance();
                }
            }
        }
        let name = name.trim();
        let length = name.chars().count();
        if length > LONGEST_SECTION_NAME {
            return Err(InfErrorKind::SectionNameTooLong { found: length }.at(number));
        }
        Ok(name.to_owned())
    }

    /// A line and its continuations, with the line feed behind it.
    fn line(&mut self, number: LineNumber) -> Result<Line, InfError> {
        let mut key = None;
        let mut values = Vec::new();
        let mut field = Field::default();
        loop {
            match self.peek() {
                None => break,
                Some('\n') => {
                    self.advance();
                    break;
                }
                Some('\0') => return Err(InfErrorKind::NotText.at(LineNumber(self.number))),
                Some(';') => self.skip_comment(),
                Some('"') => self.quoted(&mut field)?,
                Some('\\') if self.skip_continuation() => {}
                // Only the first `=` behind the first field makes that a key.
                Some('=') if key.is_none() && values.is_empty() => {
                    self.advance();
                    key = Some(field.take());
                }
                Some(',') => {
                    self.advance();
                    values.push(field.take());
                }
                Some(found) => {
                    self.advance();
                    field.push_plain(found);
                }
            }
        }
        values.push(field.take());
        Ok(Line {
            number,
            key,
            values,
        })
    }

    /// What stands in quotes, with them. Two quotes are one of the text.
    fn quoted(&mut self, field: &mut Field) -> Result<(), InfError> {
        self.advance();
        loop {
            match self.peek() {
                None | Some('\n') => return Ok(()),
                Some('\r') if self.rest.starts_with("\r\n") => return Ok(()),
                Some('\0') => return Err(InfErrorKind::NotText.at(LineNumber(self.number))),
                Some('"') => {
                    self.advance();
                    if self.peek() != Some('"') {
                        return Ok(());
                    }
                    self.advance();
                    field.push_quoted('"');
                }
                Some(found) => {
                    self.advance();
                    field.push_quoted(found);
                }
            }
        }
    }

    /// Whether a backslash is the last of its line but for spaces and a comment; then all of that is
    /// consumed, with the line feed and the spaces that begin the next line.
    fn skip_continuation(&mut self) -> bool {
        let behind = self.rest.get(1..).unwrap_or_default();
        let behind =
            behind.trim_start_matches(|found: char| found != '\n' && found.is_whitespace());
        let end = match behind.chars().next() {
            Some('\n') => behind,
            Some(';') => match behind.find('\n') {
                Some(at) => behind.get(at..).unwrap_or_default(),
                None => return false,
            },
            _ => return false,
        };
        self.rest = end;
        self.advance();
        while self
            .peek()
            .is_some_and(|found| found != '\n' && found.is_whitespace())
        {
            self.advance();
        }
        true
    }
}

/// A field as it grows: spaces around what is not quoted do not belong to it.
#[derive(Default)]
struct Field {
    text: String,
    /// Up to where the text stays, whatever follows.
    kept: usize,
}

impl Field {
    fn push_plain(&mut self, found: char) {
        if found.is_whitespace() {
            if self.kept > 0 {
                self.text.push(found);
            }
        } else {
            self.push_quoted(found);
        }
    }

    fn push_quoted(&mut self, found: char) {
        self.text.push(found);
        self.kept = self.text.len();
    }

    fn take(&mut self) -> String {
        self.text.truncate(self.kept);
        self.kept = 0;
        std::mem::take(&mut self.text)
    }
}

/// Ten times the largest that vendors ship.
const LARGEST_INF: usize = 32 << 20;

/// Longer names Windows refuses (`ERROR_SECTION_NAME_TOO_LONG`).
const LONGEST_SECTION_NAME: usize = 255;

/// Characters of a wrong line that a message shows.
const SHOWN: usize = 60;
