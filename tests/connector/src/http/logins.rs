//! Who has shown the token to the page: a random word in a cookie, for eight hours.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};

use crate::authority::{AuthorityError, digest, random_secret};

/// The words that were given, by their digests.
#[derive(Debug, Default)]
pub struct Logins(Mutex<HashMap<String, Instant>>);

impl Logins {
    /// A new word, as the value of a `Set-Cookie`. The oldest goes if there are too many.
    pub fn cookie(&self) -> Result<String, AuthorityError> {
        let word = random_secret()?;
        let now = Instant::now();
        let mut logins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logins.retain(|_, until| *until > now);
        if logins.len() >= MOST {
            let oldest = logins.iter().min_by_key(|(_, until)| **until);
            if let Some(oldest) = oldest.map(|(digest, _)| digest.clone()) {
                logins.remove(&oldest);
            }
        }
        logins.insert(digest(word.as_bytes()), now + LIFE);
        let seconds = LIFE.as_secs();
        Ok(format!(
            "{COOKIE}={}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}",
            *word
        ))
    }

    /// Whether a request has a word that was given and is still good.
    pub fn is_known(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE).into_iter();
        let mut words = cookies
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
        let logins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        words.any(|word| {
            let until = logins.get(&digest(word.as_bytes()));
            until.is_some_and(|until| *until > Instant::now())
        })
    }
}

const COOKIE: &str = "ce_login";
const LIFE: Duration = Duration::from_secs(8 * 60 * 60);
const MOST: usize = 64;
