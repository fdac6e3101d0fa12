//! A disc image with UDF, Joliet and Rock Ridge, made by genisoimage of `a.inf` and `folder/b.sys`,
//! and what holds for every image that is read.

use std::io::{Cursor, Read};
use std::ops::Range;

use ce_platform::bundle::disc::{DiscError, DiscFile, files};

/// The image, and the stretches of it that are not zeros.
pub fn image() -> (Vec<u8>, Vec<Range<usize>>) {
    let template = include_bytes!("disc_template.bin");
    let (length, mut rest) = template.split_first_chunk::<4>().expect("a length");
    let mut image = vec![0; u32::from_le_bytes(*length) as usize];
    let mut stretches = Vec::new();
    while let Some((head, others)) = rest.split_first_chunk::<4>() {
        let number = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
        let (start, length) = (number(0) * 2048, number(2));
        image[start..start + length].copy_from_slice(&others[..length]);
        stretches.push(start..start + length);
        rest = &others[length..];
    }
    (image, stretches)
}

/// Where the descriptors of UDF begin.
pub fn descriptors(image: &[u8]) -> Vec<usize> {
    let places = (0..image.len() - 16).step_by(4);
    let sound = places.filter(|at| {
        let mut sealed = image.to_vec_of(*at);
        seal(&mut sealed, 0);
        image[*at..*at + 16] != [0; 16] && sealed[..16] == image[*at..*at + 16]
    });
    sound.collect()
}

trait Stretch {
    fn to_vec_of(&self, at: usize) -> Vec<u8>;
}

impl Stretch for [u8] {
    /// Up to a sector from `at` on.
    fn to_vec_of(&self, at: usize) -> Vec<u8> {
        self[at..self.len().min(at + 2048)].to_vec()
    }
}

/// Gives a descriptor the checksums that its bytes want.
pub fn seal(image: &mut [u8], at: usize) {
    let length = usize::from(u16::from_le_bytes([image[at + 10], image[at + 11]]));
    if let Some(body) = image.get(at + 16..at + 16 + length) {
        let crc = body.iter().fold(0_u16, |crc, byte| {
            (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
                0 => crc << 1,
                _ => (crc << 1) ^ 0x1021,
            })
        });
        image[at + 8..at + 10].copy_from_slice(&crc.to_le_bytes());
    }
    image[at + 4] = 0;
    let sum = image[at..at + 16]
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    image[at + 4] = sum;
}

/// Reads all files. Whatever the image: there are no more than were asked for, their paths lead
/// nowhere else, and each has as many bytes as it says.
pub fn check(image: &[u8]) -> Result<Vec<(DiscFile, Vec<u8>)>, DiscError> {
    let mut source = Cursor::new(image);
    let found = files(&mut source, MOST_ENTRIES)?;
    assert!(found.len() as u64 <= MOST_ENTRIES);
    let read = found.into_iter().map(|file| {
        let names = file.path.split('/');
        assert!(names.clone().count() <= 33, "{}", file.path);
        for name in names {
            assert!(!matches!(name, "" | "." | ".."), "{}", file.path);
            assert!(!name.contains(['\\', '\0']), "{}", file.path);
        }
        let mut content = Vec::new();
        let limit = file.length.min(1 << 20);
        let mut reader = file.content(&mut source).take(limit);
        reader
            .read_to_end(&mut content)
            .expect("content within the image");
        assert_eq!(content.len() as u64, limit);
        (file, content)
    });
    Ok(read.collect())
}

const MOST_ENTRIES: u64 = 100;
