//! Patterns of modules.alias: `*`, `?` and `[...]`, as fnmatch(3) without flags has them.

/// Whether `text` is what `pattern` says. Takes time at most in proportion to the product of both
/// lengths: after a mismatch only the last `*` is tried further on.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        let step = match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, seen));
                at += 1;
                continue;
            }
            Some(b'?') => Some(at + 1),
            Some(b'[') => class(&pattern[at + 1..], text[seen]).map_or_else(
                // A bracket that is never closed stands for itself.
                || (text[seen] == b'[').then_some(at + 1),
                |(length, is_in)| is_in.then_some(at + 1 + length),
            ),
            Some(byte) if *byte == text[seen] => Some(at + 1),
            _ => None,
        };
        match (step, &mut star) {
            (Some(next), _) => (at, seen) = (next, seen + 1),
            (None, Some((after, from))) => {
                *from += 1;
                (at, seen) = (*after, *from);
            }
            (None, None) => return false,
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// The length of a class up to its `]`, and whether `byte` is in it; `None` if it has no end.
fn class(body: &[u8], byte: u8) -> Option<(usize, bool)> {
    let is_negated = matches!(body.first(), Some(b'!' | b'^'));
    let first = usize::from(is_negated);
    // A `]` that comes first is one of the class.
    let end = first
        + 1
        + body
            .get(first + 1..)?
            .iter()
            .position(|byte| *byte == b']')?;
    let members = body.get(first..end)?;
    let mut is_in = false;
    let mut rest = members;
    loop {
        rest = match rest {
            [low, b'-', high, further @ ..] => {
                is_in |= (*low..=*high).contains(&byte);
                further
            }
            [single, further @ ..] => {
                is_in |= *single == byte;
                further
            }
            [] => return Some((end + 1, is_in != is_negated)),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_of_the_kernels_table_match_their_devices() {
        let device = "pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00";
        for (pattern, is_so) in [
            ("pci:v000015ADd000007C0sv*sd*bc*sc*i*", true),
            ("pci:v000015ADd000007B0sv*sd*bc*sc*i*", false),
            ("pci:v*d*sv*sd*bc01sc0[67]i*", true),
            ("pci:v*d*sv*sd*bc01sc0[0-6]i*", false),
            ("pci:v*d*sv*sd*bc01sc0[!0-6]i*", true),
            ("pci:*i0?", true),
            ("pci:*i0??", false),
            ("", false),
            ("*", true),
        ] {
            assert_eq!(matches(pattern, device), is_so, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_would_take_forever_does_not() {
        let pattern = "*a".repeat(500);
        let began = std::time::Instant::now();
        assert!(!matches(&pattern, &"a".repeat(499)));
        assert!(!matches(&pattern, &format!("{}b", "a".repeat(5000))));
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
    }

    /// The C library's own answer.
    #[expect(unsafe_code, reason = "the second opinion is a function of C")]
    fn fnmatch(pattern: &str, text: &str) -> bool {
        let pattern = CString::new(pattern).unwrap();
        let text = CString::new(text).unwrap();
        // SAFETY: both are strings that end with NUL and live through the call, which keeps neither.
        unsafe { libc::fnmatch(pattern.as_ptr(), text.as_ptr(), libc::FNM_NOESCAPE) == 0 }
    }

    proptest! {
        #[test]
        fn the_c_library_thinks_the_same(pattern in "[ab*?]{0,8}(\\[[!]?[abc-]{1,3}\\])?[ab*?]{0,6}", text in "[abc-]{0,12}") {
            // What a range with its ends in the wrong order means is nobody's business.
            prop_assume!(!pattern.contains("b-a") && !pattern.contains("c-a") && !pattern.contains("c-b"));
            prop_assume!(!pattern.contains("--"));
            prop_assert_eq!(matches(&pattern, &text), fnmatch(&pattern, &text));
        }

        #[test]
        fn nothing_makes_it_panic(pattern in "\\PC{0,40}", text in "\\PC{0,40}") {
            matches(&pattern, &text);
            prop_assert!(matches("*", &text));
        }
    }
}
