//! MSI packages: tables of a database in a compound file (MS-CFB), read as far as they are text.
//!
//! ```text
//!  _StringPool, _StringData --> texts, by number
//!  _Columns ------------------> names and widths of the columns of each table
//!  a table --------------------> column after column: numbers of texts
//! ```
//!
//! The format of the tables is not published; it is as Wine, libmsi and the `msi` crate have found it.
//! Numbers of a package are somebody else's: tables are bounded before any is read, and what one
//! refers to and is not there is no text.

use std::collections::HashMap;
use std::io::{self, Read, Seek};
use std::rc::Rc;

use cfb::{CompoundFile, Stream};
use encoding_rs::WINDOWS_1252;

/// Why a package is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallerError {
    /// The compound file cannot be read, or is damaged.
    #[error("reading the compound file")]
    Container(#[from] io::Error),
    /// A table that there has to be.
    #[error("there is no table {table}")]
    NoTable {
        /// Its name.
        table: String,
    },
    /// A column that there has to be.
    #[error("the table {table} has no column {column} of text")]
    NoColumn {
        /// The table.
        table: String,
        /// The column's name.
        column: String,
    },
    /// A table is not as the format wants it.
    #[error("the table {table}: expected {expected}, found {found}")]
    Unsound {
        /// The table.
        table: String,
        /// What the format has there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// More than packages have.
    #[error("the package has more than {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much is taken.
        limit: u64,
    },
}

/// An open package.
#[derive(Debug)]
pub struct InstallerPackage<F> {
    container: CompoundFile<F>,
    texts: Texts,
    columns: HashMap<Rc<str>, Vec<Column>>,
}

/// The texts of all tables; the first one has the number 1.
#[derive(Debug)]
struct Texts {
    texts: Vec<Rc<str>>,
    /// Of a number in a table: two, or three bytes.
    width: usize,
}

impl Texts {
    /// The text that a table's field of two or three bytes names.
    fn of(&self, field: &[u8]) -> Option<Rc<str>> {
        let number = field
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | usize::from(*byte));
        self.texts.get(number.checked_sub(1)?).cloned()
    }
}

/// A column of a table.
#[derive(Clone, Debug)]
struct Column {
    name: Rc<str>,
    number: u16,
    kind: u16,
}

impl Column {
    /// How many bytes a field of it has.
    fn width(&self, text_width: usize) -> usize {
        if self.kind & !NULLABLE == BINARY {
            2
        } else if self.kind & TEXT != 0 {
            text_width
        } else if self.kind & SIZE <= 2 {
            2
        } else {
            4
        }
    }
}

impl<F: Read + Seek> InstallerPackage<F> {
    /// Reads which tables there are.
    ///
    /// # Errors
    ///
    /// [`InstallerError`]
    pub fn open(source: F) -> Result<Self, InstallerError> {
        let mut container = CompoundFile::open(source)?;
        let tables = container
            .read_root_storage()
            .filter(|entry| entry.name().starts_with(TABLE_MARK));
        let size = tables.fold(0_u64, |sum, entry| sum.saturating_add(entry.len()));
        if size > MOST_TABLE_BYTES {
            return Err(InstallerError::TooMuch {
                what: "bytes of tables",
                limit: MOST_TABLE_BYTES,
            });
        }
        let texts = texts(
            &table(&mut container, "_StringPool")?,
            &table(&mut container, "_StringData")?,
        )?;
        let columns = columns(&table(&mut container, "_Columns")?, &texts)?;
        Ok(Self {
            container,
            texts,
            columns,
        })
    }

    /// These columns of all rows of a table, which have to be text.
    ///
    /// # Errors
    ///
    /// There is no such table or column; the table is damaged.
    pub fn rows<const N: usize>(
        &mut self,
        name: &str,
        wanted: [&str; N],
    ) -> Result<Vec<[Option<Rc<str>>; N]>, InstallerError> {
        let Some(columns) = self.columns.get(name) else {
            let table = name.to_owned();
            return Err(InstallerError::NoTable { table });
        };
        let width = self.texts.width;
        let mut places = [0; N];
        for (place, wanted) in places.iter_mut().zip(wanted) {
            let of_text = |column: &Column| column.kind & TEXT != 0 && &*column.name == wanted;
            let Some(index) = columns.iter().position(of_text) else {
                return Err(InstallerError::NoColumn {
                    table: name.to_owned(),
                    column: wanted.to_owned(),
                });
            };
            let before = columns.iter().take(index);
            *place = before.map(|column| column.width(width)).sum();
        }
        let row = columns.iter().map(|column| column.width(width)).sum();
        let bytes = table(&mut self.container, name)?;
        let count = whole_rows(name, bytes.len(), row)?;
        // A column of all rows, then the next column.
        let field = |place: usize, row: usize| {
            let start = place * count + row * width;
            self.texts.of(bytes.get(start..start + width)?)
        };
        let rows = (0..count).map(|row| places.map(|place| field(place, row)));
        Ok(rows.collect())
    }

    /// A stream that is no table, such as a cabinet.
    ///
    /// # Errors
    ///
    /// There is none of this name, or it cannot be read.
    pub fn stream(&mut self, name: &str) -> Result<Stream<F>, InstallerError> {
        Ok(self.container.open_stream(stream_name(name, false))?)
    }
}

/// The bytes of a table; none if it has no rows.
fn table<F: Read + Seek>(
    container: &mut CompoundFile<F>,
    name: &str,
) -> Result<Vec<u8>, InstallerError> {
    let stream = stream_name(name, true);
    let mut bytes = Vec::new();
    if container.is_stream(&stream) {
        let stream = container.open_stream(&stream)?;
        stream.take(MOST_TABLE_BYTES).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// How many rows of so many bytes there are.
fn whole_rows(table: &str, length: usize, row: usize) -> Result<usize, InstallerError> {
    match row != 0 && length.is_multiple_of(row) {
        true => Ok(length / row),
        false => Err(InstallerError::Unsound {
            table: table.to_owned(),
            expected: "whole rows",
            found: format!("{length} bytes for rows of {row}"),
        }),
    }
}

/// The pool has two words for each text, its length and how often it is used; the data has the texts,
/// one after the other. The first two words are the code page and whether numbers have three bytes.
fn texts(pool: &[u8], data: &[u8]) -> Result<Texts, InstallerError> {
    let mut words = pool
        .as_chunks::<2>()
        .0
        .iter()
        .map(|word| usize::from(u16::from_le_bytes(*word)));
    let head = words.next().zip(words.next());
    let Some((_, high)) = head else {
        let table = "_StringPool".to_owned();
        return Err(InstallerError::NoTable { table });
    };
    let mut found = Texts {
        texts: Vec::new(),
        width: if high & 0x8000 == 0 { 2 } else { 3 },
    };
    let mut rest = data;
    while let Some((mut length, uses)) = words.next().zip(words.next()) {
        if length == 0 && uses > 0 {
            // A text of 64 KiB or more: its length follows.
            let Some((low, high)) = words.next().zip(words.next()) else {
                break;
            };
            length = high << 16 | low;
        }
        let Some((text, others)) = rest.split_at_checked(length) else {
            return Err(InstallerError::Unsound {
                table: "_StringData".to_owned(),
                expected: "the texts of the pool",
                found: format!("{} bytes for one of {length}", rest.len()),
            });
        };
        rest = others;
        // Other code pages than this one are seen where names are not English.
        let text = match std::str::from_utf8(text) {
            Ok(text) => Rc::from(text),
            Err(_) => WINDOWS_1252.decode_without_bom_handling(text).0.into(),
        };
        found.texts.push(text);
    }
    Ok(found)
}

/// The columns of all tables, in their order. `_Columns` itself: table, number, name, kind.
fn columns(bytes: &[u8], texts: &Texts) -> Result<HashMap<Rc<str>, Vec<Column>>, InstallerError> {
    let width = texts.width;
    let count = whole_rows("_Columns", bytes.len(), 2 * width + 4)?;
    let text = |place: usize, row: usize| {
        let start = place * count + row * width;
        texts.of(bytes.get(start..start + width)?)
    };
    // Numbers have their highest bit turned over, so that none is zero, which is no number.
    let number = |place: usize, row: usize| {
        let field = bytes.get(place * count + row * 2..)?.first_chunk()?;
        Some(u16::from_le_bytes(*field) ^ 0x8000)
    };
    let mut found: HashMap<Rc<str>, Vec<Column>> = HashMap::new();
    for row in 0..count {
        let name = text(0, row).zip(text(width + 2, row));
        let numbers = number(width, row).zip(number(2 * width + 2, row));
        if let Some(((table, name), (number, kind))) = name.zip(numbers) {
            let column = Column { name, number, kind };
            found.entry(table).or_default().push(column);
        }
    }
    for columns in found.values_mut() {
        columns.sort_by_key(|column| column.number);
    }
    Ok(found)
}

/// The name of a stream of the compound file: two characters of a name are one of its, from U+3800 on,
/// and one that is left over is one from U+4800 on.
fn stream_name(name: &str, is_table: bool) -> String {
    let digit = |character: char| {
        DIGITS
            .find(character)
            .and_then(|digit| u32::try_from(digit).ok())
    };
    let mut encoded = String::new();
    encoded.extend(is_table.then_some(TABLE_MARK));
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        let Some(first) = digit(character) else {
            encoded.push(character);
            continue;
        };
        let second = characters.peek().copied().and_then(digit);
        let code = match second {
            Some(second) => {
                characters.next();
                0x3800 + (second << 6) + first
            }
            None => 0x4800 + first,
        };
        encoded.extend(char::from_u32(code));
    }
    encoded
}

const DIGITS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._";

/// What the name of a table's stream begins with.
const TABLE_MARK: char = '\u{4840}';

// Bits of a column's kind.
const SIZE: u16 = 0xFF;
const TEXT: u16 = 0x800;
const NULLABLE: u16 = 0x1000;
/// The field says whether there is a stream.
const BINARY: u16 = 0x900;

/// Packages with 10,000 files have some 2 MiB. Read, they take up several times that.
const MOST_TABLE_BYTES: u64 = 16 << 20;
