use digest::Digest;
use proptest::prelude::*;

use super::*;

/// RFC 1321, appendix A.5.
const RFC_1321_SUITE: [(&str, &str); 7] = [
    ("", "d41d8cd98f00b204e9800998ecf8427e"),
    ("a", "0cc175b9c0f1b6a831c399e269772661"),
    ("abc", "900150983cd24fb0d6963f7d28e17f72"),
    ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
    (
        "abcdefghijklmnopqrstuvwxyz",
        "c3fcd3d76192e4007dfb496cca67e13b",
    ),
    (
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        "d174ab98d277d9f5a5611c2c9f419d9f",
    ),
    (
        "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
        "57edf4a22be3c955ac49da2e2107b67a",
    ),
];

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Runs `check` with a fresh digest for every compression function the processor has.
fn for_each_compression(mut check: impl FnMut(Md5)) {
    for compression in Compression::available() {
        check(Md5::with_compression(compression));
    }
}

#[test]
fn the_test_suite_of_rfc_1321_comes_out() {
    for (message, expected) in RFC_1321_SUITE {
        assert_eq!(hex(Md5::digest(message)), expected, "{message:?}");
        for_each_compression(|md5| {
            assert_eq!(
                hex(md5.clone().chain_update(message).finalize()),
                expected,
                "{md5:?}"
            );
        });
    }
}

#[test]
fn a_run_of_zeros_has_the_digest_that_the_md5_crate_gives_it() {
    let zeros = vec![0; 1 << 20];
    for length in [1, 55, 56, 63, 64, 65, 512, 4096, zeros.len()] {
        let run = &zeros[..length];
        for_each_compression(|md5| {
            let name = format!("{length} zeros, {md5:?}");
            assert_eq!(
                md5.chain_update(run).finalize(),
                ::md5::Md5::digest(run),
                "{name}"
            );
        });
    }
}

#[test]
fn every_function_this_processor_should_have_is_offered_and_the_fastest_is_one_of_them() {
    let names: Vec<_> = Compression::available()
        .map(|function| function.to_string())
        .collect();
    #[cfg(target_arch = "x86_64")]
    let expected = match is_x86_feature_detected!("avx512vl") {
        true => vec!["avx512vl", "gpr", "md-5"],
        false => vec!["gpr", "md-5"],
    };
    #[cfg(not(target_arch = "x86_64"))]
    let expected = ["md-5"];
    assert_eq!(names, expected);
    assert!(Compression::available().any(|function| function == Compression::fastest()));
}

#[test]
fn a_digest_that_was_reset_starts_over_with_the_same_function() {
    for_each_compression(|mut md5| {
        let compression = md5.core.compression;
        Digest::update(&mut md5, b"what came before");
        let before = md5.finalize_reset();
        assert_eq!(md5.core.compression, compression);
        assert_eq!(hex(before), hex(::md5::Md5::digest(b"what came before")));
        assert_eq!(hex(md5.finalize()), RFC_1321_SUITE[0].1);
    });
}

#[test]
fn the_length_in_the_padding_wraps_at_2_to_the_64_bits_as_the_rfc_has_it() {
    // No one can digest 2^61 bytes, but a saved state can claim that someone did.
    let mut saved = ::md5::Md5::default().serialize();
    saved[16..24].copy_from_slice(&((1u64 << 55) - 1).to_le_bytes());
    let theirs = ::md5::Md5::deserialize(&saved).expect("a block count is never refused");
    let ours = Md5::deserialize(&saved).expect("a block count is never refused");
    let message = [7; 200];
    assert_eq!(
        ours.chain_update(message).finalize(),
        theirs.chain_update(message).finalize()
    );
}

#[test]
fn a_saved_state_whose_buffer_is_said_to_be_over_full_is_refused() {
    let mut saved = Md5::default().chain_update(b"begun").serialize();
    let position = 24;
    assert_eq!(
        saved[position], 5,
        "the fill of the buffer is the byte after the state"
    );
    saved[position] = 64;
    assert!(Md5::deserialize(&saved).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_message_in_any_pieces_has_the_digest_that_the_md5_crate_gives_it(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12)
    ) {
        let expected = ::md5::Md5::digest(pieces.concat());
        for compression in Compression::available() {
            let mut md5 = Md5::with_compression(compression);
            for piece in &pieces {
                Digest::update(&mut md5, piece);
            }
            prop_assert_eq!(md5.finalize(), expected, "{:?}", compression);
        }
    }

    #[test]
    fn a_compression_function_agrees_from_any_state_on_any_blocks(
        state: [u32; 4],
        blocks in prop::collection::vec(prop::array::uniform::<_, 64>(any::<u8>()), 0..8),
    ) {
        let mut expected = state;
        ::md5::block_api::compress(&mut expected, &blocks);
        for compression in Compression::available() {
            let mut ours = state;
            compression.compress(&mut ours, &blocks);
            prop_assert_eq!(ours, expected, "{:?}", compression);
        }
    }

    #[test]
    fn a_digest_saved_at_any_byte_goes_on_as_if_it_had_not_been(
        (message, cut) in prop::collection::vec(any::<u8>(), 0..2000)
            .prop_flat_map(|message| {
                let end = message.len();
                (Just(message), 0..=end)
            })
    ) {
        let (before, after) = message.split_at(cut);
        let theirs = ::md5::Md5::new_with_prefix(before);
        for compression in Compression::available() {
            let ours = Md5::with_compression(compression).chain_update(before);
            let saved = ours.serialize();
            prop_assert_eq!(saved, theirs.serialize(), "the md-5 crate saves the same bytes");
            let resumed = Md5::deserialize(&saved).expect("a state just saved is sound");
            prop_assert_eq!(resumed.chain_update(after).finalize(), ::md5::Md5::digest(&message));
        }
    }

    #[test]
    fn a_damaged_saved_state_is_refused_or_goes_on_as_in_the_md5_crate(
        saved in prop::collection::vec(any::<u8>(), 88),
        fill in 0..=80u8,
    ) {
        let mut bytes = SerializedState::<Md5>::default();
        bytes.copy_from_slice(&saved);
        // Most bytes are no fill of a 64-byte buffer; give the others a fair share.
        bytes[24] = fill;
        let ours = Md5::deserialize(&bytes).ok();
        let theirs = ::md5::Md5::deserialize(&bytes).ok();
        prop_assert_eq!(
            ours.map(|md5| md5.chain_update(b"more").finalize()),
            theirs.map(|md5| md5.chain_update(b"more").finalize()),
        );
    }
}
