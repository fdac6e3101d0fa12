//! XPRESS with Huffman codes, the compression of CompactOS (MS-XCA 2.2).
//!
//! ```text
//!  chunk:  256 bytes: the code lengths of 512 symbols, 4 bits each
//!          then 16-bit words of codes, most significant bit first; lengths above 17 stand as
//!          whole bytes between the words, where the reader of words has got to
//! ```
//!
//! A file of CompactOS is cut into chunks of at most 16 KiB, below the 64 KiB after which the
//! format would start a new table, so that one call unpacks one table's worth.

/// Why bytes cannot be unpacked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum XpressError {
    /// The code lengths describe no complete prefix code.
    #[error("the code lengths are those of no complete prefix code")]
    Codes,
    /// A match reaches in front of the chunk.
    #[error("a match at byte {held} of the chunk reaches back {distance} bytes")]
    Distance {
        /// How far it reaches back.
        distance: usize,
        /// How much has been unpacked.
        held: usize,
    },
    /// A match is longer than what is left of the chunk, or its length is badly written.
    #[error("a match at byte {held} of the chunk is {length} bytes long, but {room} are left")]
    Length {
        /// The length.
        length: usize,
        /// How much has been unpacked.
        held: usize,
        /// How much is left.
        room: usize,
    },
    /// The chunk is asked to unpack to more than one table covers.
    #[error("a chunk of {length} bytes, expected at most 65536")]
    TooLong {
        /// The length asked for.
        length: usize,
    },
    /// The packed bytes end too early.
    #[error("the packed bytes end at byte {at}, before the chunk is whole")]
    Truncated {
        /// Their length.
        at: usize,
    },
}

/// Unpacks `packed` until `unpacked` is full.
///
/// Time and memory are bounded by the lengths and the table of codes (64 KiB).
///
/// # Errors
///
/// [`XpressError`]; the content of `unpacked` is then unspecified.
pub fn decompress(packed: &[u8], unpacked: &mut [u8]) -> Result<(), XpressError> {
    if unpacked.len() > MAX_CHUNK {
        return Err(XpressError::TooLong {
            length: unpacked.len(),
        });
    }
    let (lengths, words) = packed
        .split_at_checked(TABLE)
        .ok_or(XpressError::Truncated { at: packed.len() })?;
    let codes = Codes::new(lengths)?;
    let mut bits = Bits::new(words);
    let mut held = 0;
    while held < unpacked.len() {
        let symbol = codes.next(&mut bits)?;
        let Ok(literal) = u8::try_from(symbol) else {
            held += copy_match(symbol - 256, &mut bits, unpacked, held)?;
            continue;
        };
        unpacked[held] = literal;
        held += 1;
    }
    Ok(())
}

/// Makes what the match `symbol` (0 to 255) stands for and returns its length.
fn copy_match(
    symbol: u16,
    bits: &mut Bits<'_>,
    unpacked: &mut [u8],
    held: usize,
) -> Result<usize, XpressError> {
    let room = unpacked.len() - held;
    let mut length = usize::from(symbol & 15);
    if length == 15 {
        length = usize::from(bits.byte()?);
        if length == 255 {
            length = usize::from(bits.u16()?);
            if length == 0 {
                length = usize::try_from(bits.u32()?).unwrap_or(usize::MAX);
            }
            length = length
                .checked_sub(15)
                .ok_or(XpressError::Length { length, held, room })?;
        }
        length = length.saturating_add(15);
    }
    length = length.saturating_add(3);
    let distance_bits = u32::from(symbol >> 4);
    let distance = (1 << distance_bits) + bits.take(distance_bits)? as usize;
    if distance > held {
        return Err(XpressError::Distance { distance, held });
    }
    if length > room {
        return Err(XpressError::Length { length, held, room });
    }
    for target in held..held + length {
        unpacked[target] = unpacked[target - distance];
    }
    Ok(length)
}

/// The symbol and length of the code that any 15 bits begin with.
struct Codes {
    table: Vec<(u16, u8)>,
}

impl Codes {
    fn new(lengths: &[u8]) -> Result<Self, XpressError> {
        let nibbles = lengths.iter().flat_map(|pair| [pair & 15, pair >> 4]);
        let lengths: Vec<u8> = nibbles.collect();
        let mut table = Vec::with_capacity(1 << LONGEST_CODE);
        for length in 1..=15_u8 {
            let of_length = (0_u16..)
                .zip(&lengths)
                .filter(|(_, found)| **found == length);
            for (symbol, _) in of_length {
                let covered = 1 << (LONGEST_CODE - usize::from(length));
                if table.len() + covered > 1 << LONGEST_CODE {
                    return Err(XpressError::Codes);
                }
                table.extend(std::iter::repeat_n((symbol, length), covered));
            }
        }
        // Half a code is what encoders write for a single symbol; nothing decodes to the rest.
        if table.is_empty() {
            return Err(XpressError::Codes);
        }
        Ok(Self { table })
    }

    fn next(&self, bits: &mut Bits<'_>) -> Result<u16, XpressError> {
        let (symbol, length) = self.table.get(bits.peek()).ok_or(XpressError::Codes)?;
        bits.take(u32::from(*length))?;
        Ok(*symbol)
    }
}

/// Bits of 16-bit words, with bytes between the words.
struct Bits<'a> {
    bytes: &'a [u8],
    /// What follows the words taken in so far.
    at: usize,
    /// The bits taken in and not used, from the highest on.
    window: u32,
    /// How many of the bits in the window are beyond the 16 that must be there.
    spare: i32,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut bits = Self {
            bytes,
            at: 0,
            window: 0,
            spare: 16,
        };
        bits.window = u32::from(bits.word()) << 16 | u32::from(bits.word());
        bits
    }

    /// The next word. Behind the end there are zeros: encoders leave out what is only looked at.
    fn word(&mut self) -> u16 {
        let word = self.bytes.get(self.at..self.at + 2);
        self.at += 2;
        word.map_or(0, |word| u16::from_le_bytes([word[0], word[1]]))
    }

    fn peek(&self) -> usize {
        (self.window >> (32 - LONGEST_CODE)) as usize
    }

    /// Uses up to 16 bits.
    fn take(&mut self, count: u32) -> Result<u32, XpressError> {
        let taken = (u64::from(self.window) << count >> 32) as u32;
        self.window = (u64::from(self.window) << count) as u32;
        self.spare -= count as i32;
        if self.spare < 0 {
            // Two words may be looked at behind the end, but no third: those bits were used.
            if self.at > self.bytes.len() + 4 {
                return Err(XpressError::Truncated {
                    at: TABLE + self.bytes.len(),
                });
            }
            self.window |= u32::from(self.word()) << -self.spare;
            self.spare += 16;
        }
        Ok(taken)
    }

    fn raw<const N: usize>(&mut self) -> Result<[u8; N], XpressError> {
        let raw = self
            .bytes
            .get(self.at..self.at + N)
            .and_then(|raw| raw.try_into().ok());
        self.at += N;
        raw.ok_or(XpressError::Truncated {
            at: TABLE + self.bytes.len(),
        })
    }

    fn byte(&mut self) -> Result<u8, XpressError> {
        self.raw().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, XpressError> {
        self.raw().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, XpressError> {
        self.raw().map(u32::from_le_bytes)
    }
}

/// The bytes of code lengths in front of a chunk.
const TABLE: usize = 256;

/// The bits of the longest code.
const LONGEST_CODE: usize = 15;

/// What one table of codes covers.
const MAX_CHUNK: usize = 64 << 10;

#[cfg(test)]
pub(in crate::volume) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes what [`Bits`] reads: a word's place is kept free from when its first bit could be
    /// looked at.
    struct Writer {
        bytes: Vec<u8>,
        places: [usize; 2],
        word: u32,
        free: u32,
    }

    impl Writer {
        fn new() -> Self {
            Self {
                bytes: vec![0; 4],
                places: [0, 2],
                word: 0,
                free: 16,
            }
        }

        fn put(&mut self, value: u32, count: u32) {
            if count <= self.free {
                self.free -= count;
                self.word = self.word << count | value;
                return;
            }
            let high = self.free;
            self.word = self.word << high | value >> (count - high);
            self.flush_word();
            self.free = 16 - (count - high);
            self.word = value & ((1 << (count - high)) - 1);
        }

        fn flush_word(&mut self) {
            let place = self.places[0];
            self.bytes[place..place + 2].copy_from_slice(&(self.word as u16).to_le_bytes());
            self.places = [self.places[1], self.bytes.len()];
            self.bytes.extend([0, 0]);
        }

        fn finish(mut self) -> Vec<u8> {
            self.word <<= self.free;
            self.flush_word();
            self.bytes
        }
    }

    /// A plain encoder with codes of 9 bits for all 512 symbols.
    pub fn compress(data: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new();
        let mut at = 0;
        while at < data.len() {
            let match_length = |distance: usize| {
                let pairs = data[at..].iter().zip(&data[at - distance..]);
                pairs.take_while(|(a, b)| a == b).count()
            };
            let best = (1..=at.min(300)).max_by_key(|distance| match_length(*distance));
            let best = best.map(|distance| (distance, match_length(distance)));
            let Some((distance, length)) = best.filter(|(_, length)| *length >= 3) else {
                writer.put(u32::from(data[at]), 9);
                at += 1;
                continue;
            };
            let log = distance.ilog2();
            let short = (length - 3).min(15);
            writer.put(256 + (log << 4) + short as u32, 9);
            if short == 15 {
                let rest = length - 18;
                if rest < 255 {
                    writer.bytes.push(rest as u8);
                } else {
                    writer.bytes.push(255);
                    writer.bytes.extend(((length - 3) as u16).to_le_bytes());
                }
            }
            writer.put((distance - (1 << log)) as u32, log);
            at += length;
        }
        [vec![0x99; TABLE], writer.finish()].concat()
    }

    fn unpack(packed: &[u8], length: usize) -> Result<Vec<u8>, XpressError> {
        let mut unpacked = vec![0xEE; length];
        decompress(packed, &mut unpacked).map(|()| unpacked)
    }

    /// MS-XCA 3.2, the first example: the alphabet, all literals.
    #[test]
    fn the_alphabet_of_the_specification_unpacks() {
        let mut packed = vec![0; TABLE];
        packed[0x30..0x3E].copy_from_slice(&[
            0x50, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x45, 0x44, 0x04,
        ]);
        packed[0x80] = 0x04;
        packed.extend([
            0xD8, 0x52, 0x3E, 0xD7, 0x94, 0x11, 0x5B, 0xE9, 0x19, 0x5F, 0xF9, 0xD6, 0x7C, 0xDF,
            0x8D, 0x04, 0x00, 0x00, 0x00, 0x00,
        ]);
        assert_eq!(unpack(&packed, 26).unwrap(), b"abcdefghijklmnopqrstuvwxyz");
    }

    /// MS-XCA 3.2, the second example: "abc" a hundred times, one match with a long length.
    #[test]
    fn the_long_match_of_the_specification_unpacks() {
        let mut packed = vec![0; TABLE];
        packed[0x30..0x32].copy_from_slice(&[0x30, 0x23]);
        packed[0x80] = 0x02;
        packed[0x8F] = 0x20;
        packed.extend([0xA8, 0xDC, 0x00, 0x00, 0xFF, 0x26, 0x01]);
        assert_eq!(unpack(&packed, 300).unwrap(), b"abc".repeat(100));
    }

    #[test]
    fn damage_is_named() {
        assert_eq!(
            unpack(&[1; 100], 10),
            Err(XpressError::Truncated { at: 100 })
        );
        assert_eq!(unpack(&[0; 300], 10), Err(XpressError::Codes));
        assert_eq!(unpack(&[0x11; 300], 10), Err(XpressError::Codes));
        assert_eq!(
            unpack(&[0; 300], MAX_CHUNK + 1),
            Err(XpressError::TooLong {
                length: MAX_CHUNK + 1
            })
        );
        let packed = compress(&[7; 100]);
        assert!(matches!(
            unpack(&packed, 50),
            Err(XpressError::Length { .. })
        ));
        assert!(matches!(
            unpack(&packed[..TABLE], 50),
            Ok(_) | Err(XpressError::Truncated { .. })
        ));
    }

    proptest! {
        #[test]
        fn what_was_packed_unpacks_to_itself(
            words in prop::collection::vec(prop_oneof![Just(b"abc".to_vec()), Just(vec![0; 400]),
                prop::collection::vec(any::<u8>(), 1..9)], 0..100)
        ) {
            let data = words.concat();
            prop_assert_eq!(unpack(&compress(&data), data.len()), Ok(data));
        }

        #[test]
        fn no_input_is_too_hostile(packed in prop::collection::vec(any::<u8>(), 0..900), room in 0..20_000_usize) {
            let _ = unpack(&packed, room);
            let mut likely = packed;
            let table = likely.len().min(TABLE);
            likely[..table].fill(0x99);
            let _ = unpack(&likely, room);
        }
    }
}
