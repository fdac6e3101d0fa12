//! LZNT1, the compression of NTFS (MS-XCA 2.5).
//!
//! ```text
//!  unit:   chunk | chunk | ... | 00 00
//!  chunk:  header (2 bytes: size, signature 3, compressed?) | data of up to 4096 bytes when unpacked
//!  data:   flags (1 byte) | 8 items, each a literal (1 byte) or a back reference (2 bytes)
//! ```
//!
//! How many bits of a back reference are its distance depends on how far the chunk has grown.

/// Why bytes cannot be unpacked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Lznt1Error {
    /// A back reference reaches in front of its chunk.
    #[error("a reference at byte {at} reaches back {distance} bytes, but the chunk holds {held}")]
    Distance {
        /// Where it stands, in the packed bytes.
        at: usize,
        /// How far it reaches back.
        distance: usize,
        /// How much has been unpacked of the chunk.
        held: usize,
    },
    /// A chunk unpacks to more than 4096 bytes, or the whole to more than there is room for.
    #[error("the chunk at byte {at} unpacks to more than the {room} bytes that it may have")]
    Overrun {
        /// Where the chunk stands, in the packed bytes.
        at: usize,
        /// How much it may unpack to.
        room: usize,
    },
    /// The header of a chunk has not the signature 3.
    #[error(
        "the chunk header at byte {at} is {found:#06x}, expected the signature 3 in bits 12 to 14"
    )]
    Signature {
        /// Where it stands, in the packed bytes.
        at: usize,
        /// The header.
        found: u16,
    },
    /// A chunk or a back reference ends behind the packed bytes.
    #[error("the packed bytes end at byte {at} in the middle of a chunk")]
    Truncated {
        /// Where more was expected.
        at: usize,
    },
}

/// Unpacks `packed` into `unpacked`; what it does not fill becomes zero.
///
/// Every chunk but the last stands for 4096 bytes, whatever it unpacks to: what is missing is
/// zero, as NTFS has it. The time is linear in both lengths, and nothing is allocated.
///
/// # Errors
///
/// [`Lznt1Error`]; the content of `unpacked` is then unspecified.
pub fn decompress(packed: &[u8], unpacked: &mut [u8]) -> Result<(), Lznt1Error> {
    let mut at = 0;
    let mut room = unpacked;
    while let Some(header) = packed.get(at..at + 2) {
        let header = u16::from_le_bytes([header[0], header[1]]);
        if header == 0 {
            break;
        }
        if header >> 12 & 7 != 3 {
            return Err(Lznt1Error::Signature { at, found: header });
        }
        let end = at + usize::from(header & 0xFFF) + 3;
        let data = packed
            .get(at + 2..end)
            .ok_or(Lznt1Error::Truncated { at: packed.len() })?;
        if room.is_empty() {
            return Err(Lznt1Error::Overrun { at, room: 0 });
        }
        let (chunk, rest) = room.split_at_mut(room.len().min(CHUNK));
        let filled = if header & 0x8000 == 0 {
            let limit = chunk.len();
            let target = chunk.get_mut(..data.len());
            target
                .ok_or(Lznt1Error::Overrun { at, room: limit })?
                .copy_from_slice(data);
            data.len()
        } else {
            decompress_chunk(data, at + 2, chunk)?
        };
        chunk[filled..].fill(0);
        room = rest;
        at = end;
    }
    room.fill(0);
    Ok(())
}

/// Unpacks the data of one chunk, which stands at `start`, and returns how much it made.
fn decompress_chunk(data: &[u8], start: usize, chunk: &mut [u8]) -> Result<usize, Lznt1Error> {
    let overrun = Lznt1Error::Overrun {
        at: start - 2,
        room: chunk.len(),
    };
    let mut at = 0;
    let mut held = 0;
    while at < data.len() {
        let flags = data[at];
        at += 1;
        for bit in 0..8 {
            let Some(first) = data.get(at).copied() else {
                break;
            };
            if flags >> bit & 1 == 0 {
                *chunk.get_mut(held).ok_or(overrun)? = first;
                held += 1;
                at += 1;
                continue;
            }
            let second = *data.get(at + 1).ok_or(Lznt1Error::Truncated {
                at: start + data.len(),
            })?;
            let token = u16::from_le_bytes([first, second]);
            let length_bits = length_bits(held);
            let length = usize::from(token & ((1 << length_bits) - 1)) + 3;
            let distance = usize::from(token >> length_bits) + 1;
            if distance > held {
                return Err(Lznt1Error::Distance {
                    at: start + at,
                    distance,
                    held,
                });
            }
            if length > chunk.len() - held {
                return Err(overrun);
            }
            // Byte by byte: a reference may overlap what it makes.
            for target in held..held + length {
                chunk[target] = chunk[target - distance];
            }
            held += length;
            at += 2;
        }
    }
    Ok(held)
}

/// How many bits of a back reference are its length, when `held` bytes are unpacked of the chunk:
/// 12 at first, and one less each time when the distance needs one more.
fn length_bits(held: usize) -> u32 {
    let mut bits = 12;
    while bits > 4 && held > 1 << (16 - bits) {
        bits -= 1;
    }
    bits
}

/// What a chunk unpacks to at most.
const CHUNK: usize = 4096;

#[cfg(test)]
pub(in crate::volume) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A plain encoder: the longest match by trying all.
    pub fn compress(data: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        for chunk in data.chunks(CHUNK) {
            let body = compress_chunk(chunk);
            if body.len() < chunk.len() {
                packed.extend((0xB000 | (body.len() - 1) as u16).to_le_bytes());
                packed.extend(body);
            } else {
                packed.extend((0x3000 | (chunk.len() - 1) as u16).to_le_bytes());
                packed.extend(chunk);
            }
        }
        packed
    }

    fn compress_chunk(chunk: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        let mut at = 0;
        while at < chunk.len() {
            let flags_at = body.len();
            body.push(0);
            for bit in 0..8 {
                if at == chunk.len() {
                    break;
                }
                let bits = length_bits(at);
                let longest = (1 << bits) + 2;
                let match_length = |distance: usize| {
                    let pairs = chunk[at..].iter().zip(&chunk[at - distance..]);
                    pairs.take(longest).take_while(|(a, b)| a == b).count()
                };
                let reach = at.min(1 << (16 - bits)).min(256);
                let best = (1..=reach).max_by_key(|distance| match_length(*distance));
                match best.map(|distance| (distance, match_length(distance))) {
                    Some((distance, length)) if length >= 3 => {
                        body[flags_at] |= 1 << bit;
                        let token = ((distance - 1) << bits | (length - 3)) as u16;
                        body.extend(token.to_le_bytes());
                        at += length;
                    }
                    _ => {
                        body.push(chunk[at]);
                        at += 1;
                    }
                }
            }
        }
        body
    }

    fn unpack(packed: &[u8], length: usize) -> Result<Vec<u8>, Lznt1Error> {
        let mut unpacked = vec![0xEE; length];
        decompress(packed, &mut unpacked).map(|()| unpacked)
    }

    /// MS-XCA 3.3, "LZNT1 decompression example".
    #[test]
    fn the_example_of_the_specification_unpacks() {
        let packed = [
            0x38, 0xB0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xA2,
            0x47, 0x01, 0xA0, 0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xC0,
            0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xB4, 0x02, 0x4A, 0x44, 0xEF, 0x03, 0x58,
            0x02, 0x8C, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xBE, 0x00, 0x9E, 0x00, 0x04, 0x01,
            0x18, 0x90, 0x00,
        ];
        let expected = b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E \
                         E F# D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        assert_eq!(unpack(&packed, expected.len()).unwrap(), expected);
    }

    #[test]
    fn short_chunks_are_filled_up_with_zeros() {
        let packed = [0x00, 0x30, b'a', 0x01, 0x30, b'b', b'c', 0, 0, 0xFF];
        let unpacked = unpack(&packed, 3 * CHUNK).unwrap();
        assert_eq!(
            (unpacked[0], &unpacked[CHUNK..CHUNK + 2]),
            (b'a', &b"bc"[..])
        );
        assert_eq!(
            unpacked.iter().filter(|byte| **byte == 0).count(),
            3 * CHUNK - 3
        );
    }

    #[test]
    fn damage_is_named_with_its_place() {
        assert_eq!(
            unpack(&[0x05, 0x40, 1, 2], 10),
            Err(Lznt1Error::Signature {
                at: 0,
                found: 0x4005
            })
        );
        assert_eq!(
            unpack(&[0x05, 0x30, 1, 2], 10),
            Err(Lznt1Error::Truncated { at: 4 })
        );
        assert_eq!(
            unpack(&[0x02, 0xB0, 0x01, 0, 0], 10),
            Err(Lznt1Error::Distance {
                at: 3,
                distance: 1,
                held: 0
            })
        );
        assert_eq!(
            unpack(&[0x01, 0x30, 1, 2], 1),
            Err(Lznt1Error::Overrun { at: 0, room: 1 })
        );
    }

    proptest! {
        #[test]
        fn what_was_packed_unpacks_to_itself(
            words in prop::collection::vec(prop_oneof![Just(b"abc".to_vec()), Just(vec![0; 40]),
                prop::collection::vec(any::<u8>(), 1..9)], 0..400)
        ) {
            let data = words.concat();
            prop_assert_eq!(unpack(&compress(&data), data.len()), Ok(data));
        }

        #[test]
        fn no_input_is_too_hostile(packed in prop::collection::vec(any::<u8>(), 0..600), room in 0..9000_usize) {
            let _ = unpack(&packed, room);
            let mut likely = packed;
            if likely.len() > 2 {
                let length = (likely.len() - 3) as u16;
                likely[..2].copy_from_slice(&(0xB000 | length & 0xFFF).to_le_bytes());
            }
            let _ = unpack(&likely, room);
        }
    }
}
