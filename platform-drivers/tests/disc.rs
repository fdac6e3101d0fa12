//! Disc images that genisoimage made, whole and with every byte wrong.

#[path = "../../tests/fuzz/src/disc_template.rs"]
mod disc_template;

use ce_platform::bundle::disc::DiscError;
use disc_template::{check, descriptors, image, seal};

/// The sector of Joliet's volume descriptor.
const JOLIET: usize = 17 * 2048;
/// Those that say that there is UDF.
const UDF: std::ops::Range<usize> = 19 * 2048..22 * 2048;

/// The image for each of the three ways in which it is read.
fn images() -> [(&'static str, Vec<u8>); 3] {
    let (udf, _) = image();
    let mut joliet = udf.clone();
    joliet[UDF].fill(0);
    let mut rock_ridge = joliet.clone();
    // A partition descriptor, which nobody needs.
    rock_ridge[JOLIET] = 3;
    [("UDF", udf), ("Joliet", joliet), ("Rock Ridge", rock_ridge)]
}

#[test]
fn all_three_descriptions_of_a_disc_say_the_same() {
    for (kind, image) in images() {
        let found = check(&image).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let mut found: Vec<(String, Vec<u8>)> = found
            .into_iter()
            .map(|(file, content)| (file.path, content))
            .collect();
        found.sort();
        let expected = [("a.inf", b"inf\n"), ("folder/b.sys", b"sys\n")];
        let expected = expected.map(|(path, content)| (path.to_owned(), content.to_vec()));
        assert_eq!(found, expected, "{kind}");
    }
}

#[test]
fn whichever_byte_is_wrong_a_disc_is_read_or_refused() {
    let sealed = descriptors(&image().0);
    assert!(sealed.len() > 20, "{} descriptors", sealed.len());
    let (_, stretches) = image();
    for (kind, whole) in images() {
        let mut refused = 0;
        let mut image = whole.clone();
        for at in stretches.iter().cloned().flatten() {
            // Checksums that are right let the byte be looked at.
            let descriptor = sealed.iter().rev().find(|start| **start <= at);
            let descriptor = descriptor.filter(|start| at < **start + 2048);
            for wrong in [0, 0xFF, whole[at] ^ 1, whole[at].wrapping_add(0x40)] {
                image[at] = wrong;
                if let Some(start) = descriptor {
                    seal(&mut image, *start);
                }
                refused += u32::from(check(&image).is_err());
                let start = descriptor.map_or(at, |start| at.min(*start));
                image[start..=at].copy_from_slice(&whole[start..=at]);
                if let Some(start) = descriptor {
                    image[*start..start + 16].copy_from_slice(&whole[*start..start + 16]);
                }
            }
        }
        assert!(refused > 100, "{kind}: {refused} refused");
    }
}

#[test]
fn a_disc_that_ends_early_is_read_or_refused() {
    for (kind, whole) in images() {
        for length in (0..whole.len()).step_by(1024) {
            match check(&whole[..length]) {
                Ok(found) => assert_eq!(found.len(), 2, "{kind}, {length} bytes"),
                Err(DiscError::Unsound { .. } | DiscError::Read(_)) => {}
                Err(error) => panic!("{kind}, {length} bytes: {error}"),
            }
        }
    }
}

/// Where in the template `bytes` stand, the `nth` time.
fn find(image: &[u8], bytes: &[u8], nth: usize) -> usize {
    let places = image.windows(bytes.len()).enumerate();
    let mut places = places.filter(|(_, found)| *found == bytes);
    places.nth(nth).map(|(at, _)| at).expect("the bytes")
}

fn refusal(image: &[u8]) -> String {
    check(image).expect_err("a refusal").to_string()
}

#[test]
fn hostile_discs_are_refused_by_what_is_wrong_with_them() {
    let [(_, udf), (_, joliet), (_, rock_ridge)] = images();
    let name = |text: &str| {
        text.encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect::<Vec<_>>()
    };

    // A record begins 33 bytes before its name, which both path tables have before it.
    let folder = find(&joliet, &name("folder"), 2) - 33;
    let mut image = joliet.clone();
    let itself: [u8; 4] = image[156 + JOLIET + 2..][..4].try_into().unwrap();
    image[folder + 2..][..4].copy_from_slice(&itself);
    let length: [u8; 4] = image[156 + JOLIET + 10..][..4].try_into().unwrap();
    image[folder + 10..][..4].copy_from_slice(&length);
    assert_eq!(
        refusal(&image),
        "the entry \"folder\": the folder is in itself, or in two folders"
    );

    let mut image = joliet.clone();
    image[folder + 33..][..12].copy_from_slice(&name("../evi"));
    assert_eq!(refusal(&image), "the entry \"/../evi\": it is no name");

    let mut image = joliet.clone();
    image[folder + 2..][..4].copy_from_slice(&[0xFF; 4]);
    assert!(
        refusal(&image).contains("bytes that leave the image"),
        "{}",
        refusal(&image)
    );

    let mut image = joliet.clone();
    image[JOLIET + 128..][..2].copy_from_slice(&512_u16.to_le_bytes());
    assert!(refusal(&image).ends_with("expected blocks of 2048 bytes, found 512"));

    // The attributes of `a.inf` become the target of a link.
    let mut image = rock_ridge.clone();
    let attributes = find(&image, b"PX", 2);
    image[attributes..][..2].copy_from_slice(b"SL");
    assert!(
        refusal(&image).ends_with("links are not taken"),
        "{}",
        refusal(&image)
    );

    // A folder of UDF that is the root: the address stands 20 bytes into its identifier.
    let mut image = udf.clone();
    let folder = find(&image, b"\x08folder", 0) - 38;
    let root = image[257 * 2048 + 404..][..6].to_vec();
    image[folder + 24..][..6].copy_from_slice(&root);
    seal(&mut image, folder);
    assert!(refusal(&image).contains("in itself"), "{}", refusal(&image));

    // Its entry says that it is a link.
    let mut image = udf;
    let entry = 263 * 2048;
    image[entry + 27] = 12;
    seal(&mut image, entry);
    assert!(
        refusal(&image).ends_with("links are not taken"),
        "{}",
        refusal(&image)
    );
}
