//! Takes the one-time token out of the channel that it came by, once it was used.

use std::fmt;

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::BootstrapError;

/// A channel that the machine can write to.
pub(super) trait Writable: fmt::Debug + Send + Sync {
    /// Puts `text` in the place of the configuration. It is no longer than that was.
    ///
    /// # Errors
    ///
    /// The channel does not take it.
    fn replace(&self, text: &str) -> Result<(), BootstrapError>;
}

/// A token that lies in a channel which can be written.
#[derive(Debug)]
pub(crate) struct UsedToken {
    channel: Box<dyn Writable>,
    without: Zeroizing<String>,
}

impl UsedToken {
    /// What to do once the token of the configuration `text`, which lies in `channel`, was used;
    /// `None` if there is none in it.
    pub(super) fn of(text: &str, channel: impl Writable + 'static) -> Option<Self> {
        Some(Self {
            channel: Box::new(channel),
            without: without_token(text)?,
        })
    }

    /// Takes it out. May block for some seconds.
    ///
    /// # Errors
    ///
    /// The channel does not take what is left.
    pub(crate) fn wipe(&self) -> Result<(), BootstrapError> {
        self.channel.replace(&self.without)
    }
}

/// The configuration without `token`; a comment behind it stays. `None` if there is none in it, or if
/// this is no TOML, which others tell.
fn without_token(text: &str) -> Option<Zeroizing<String>> {
    let document = DeTable::parse(text).ok()?;
    let (key, value) = document.get_ref().get_key_value("token")?;
    let before = text.get(..key.span().start)?;
    let after = text.get(value.span().end..)?;
    Some(Zeroizing::new(format!("{before}{after}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_token_is_taken_out() {
        for (text, rest) in [
            (
                "log = 'info'\ntoken = 's3cret' # once\n[jobs]\n",
                "log = 'info'\n # once\n[jobs]\n",
            ),
            ("\"token\" = \"\"\"\na\nb\"\"\"\nlog = 'x'", "\nlog = 'x'"),
            ("token=\"s3cret\"", ""),
        ] {
            assert_eq!(*without_token(text).unwrap(), rest);
        }
        for text in [
            "log = 'token'",
            "token_file = '/t'",
            "# token = 'x'",
            "token = ",
        ] {
            assert_eq!(without_token(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_same_configuration_without_a_token(
            token in "[ -~]{0,40}",
            around in proptest::array::uniform2("([a-s]{1,8} = (1|'x'|\"y\") *(#.{0,9})?\n){0,1}"),
        ) {
            let [before, after] = around;
            let quoted = toml::Value::String(token);
            let text = format!("{before}token = {quoted} # c\n{after}");
            let Ok(mut whole) = text.parse::<toml::Table>() else {
                // The same key twice.
                return Ok(());
            };
            whole.remove("token");
            let left = without_token(&text).unwrap();
            prop_assert!(left.len() < text.len());
            prop_assert_eq!(left.parse::<toml::Table>().unwrap(), whole);
        }
    }
}
