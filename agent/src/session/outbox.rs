//! What the Connector has to be told: a queue of letters that survives the link.
//!
//! ```text
//!  letters  Accepted, Rejected, Finished   numbered in each session anew; kept until acknowledged
//!  progress the latest of the job          the newer takes the place of the older
//!  ack      the latest                     likewise
//! ```
//!
//! Pure: the caller sends what [`next`](Outbox::next) gives, as fast as the link takes it. Logs are
//! not in here; they are kept where they arise, and only sent when nothing else waits.

use std::collections::VecDeque;

use crate::job::machine::{Letter, RefusalReason};

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    letters: VecDeque<Letter>,
    /// How many letters at the front have been sent in this session.
    sent: usize,
    /// The number of the letter before the first one.
    acknowledged: u64,
    ack: Option<u64>,
    progress: bool,
    heartbeat: bool,
}

/// What is to be sent next.
#[derive(Debug, PartialEq)]
pub(crate) enum Outgoing<'o> {
    /// An acknowledgement of everything up to this number.
    Ack(u64),
    /// A sign of life.
    Heartbeat,
    /// A letter, with its number.
    Letter(u64, &'o Letter),
    /// How far the job is now.
    Progress,
}

/// An acknowledgement of what was never sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("number {sequence} was acknowledged, and {sent} is the last that was sent")]
pub(crate) struct NeverSent {
    sequence: u64,
    sent: u64,
}

impl Outbox {
    /// Adds a letter. One that is still unacknowledged is not added twice.
    pub(crate) fn post(&mut self, letter: Letter) {
        // Not of those already sent in this session: the Connector asked again after them.
        if self
            .letters
            .iter()
            .skip(self.sent)
            .any(|waiting| *waiting == letter)
        {
            return;
        }
        self.letters.push_back(letter);
        // Whoever floods us with jobs is told of the latest; the rest it will ask again.
        if self.letters.len() > MOST_LETTERS
            && let Some(dropped) = self.letters.iter().enumerate().position(|(index, letter)| {
                index >= self.sent && matches!(letter, Letter::Rejected { .. })
            })
        {
            self.letters.remove(dropped);
        }
    }

    /// Everything up to this number of the other side has been dealt with.
    pub(crate) fn acknowledge(&mut self, sequence: u64) {
        self.ack = Some(sequence);
    }

    /// There is progress to tell.
    pub(crate) fn note_progress(&mut self) {
        self.progress = true;
    }

    /// A sign of life is due.
    pub(crate) fn note_heartbeat(&mut self) {
        self.heartbeat = true;
    }

    /// A new session begins: every letter is sent again, counted from 1.
    pub(crate) fn begin_session(&mut self) {
        // Of the same letters sent twice in one session, once is enough in the next.
        let mut kept: VecDeque<Letter> = VecDeque::new();
        for letter in self.letters.drain(..) {
            if !kept.contains(&letter) && !is_passing(&letter) {
                kept.push_back(letter);
            }
        }
        *self = Self {
            letters: kept,
            ..Self::default()
        };
    }

    /// The next thing to send, which counts as sent.
    pub(crate) fn next(&mut self) -> Option<Outgoing<'_>> {
        if let Some(sequence) = self.ack.take() {
            return Some(Outgoing::Ack(sequence));
        }
        if self.sent < self.letters.len() {
            self.sent += 1;
            let number = self.acknowledged + self.sent as u64;
            let letter = self.letters.get(self.sent - 1)?;
            return Some(Outgoing::Letter(number, letter));
        }
        if std::mem::take(&mut self.heartbeat) {
            return Some(Outgoing::Heartbeat);
        }
        std::mem::take(&mut self.progress).then_some(Outgoing::Progress)
    }

    /// Whether something waits to be sent.
    pub(crate) fn has_waiting(&self) -> bool {
        self.ack.is_some() || self.sent < self.letters.len() || self.heartbeat || self.progress
    }

    /// Whether every letter is acknowledged.
    pub(crate) fn is_delivered(&self) -> bool {
        self.letters.is_empty()
    }

    /// The Connector has everything up to this number: the letters that are done with.
    ///
    /// # Errors
    ///
    /// The number was not sent in this session.
    pub(crate) fn delivered(&mut self, sequence: u64) -> Result<Vec<Letter>, NeverSent> {
        let sent = self.acknowledged + self.sent as u64;
        if sequence > sent {
            return Err(NeverSent { sequence, sent });
        }
        // An older number than the last is no news.
        let count = usize::try_from(sequence.saturating_sub(self.acknowledged)).unwrap_or(0);
        self.sent -= count;
        self.acknowledged += count as u64;
        Ok(self.letters.drain(..count).collect())
    }
}

/// Whether a letter is only of use in the session it was written in: a Connector that has not got
/// it gives the job out again in the next one, to whomever has time then.
fn is_passing(letter: &Letter) -> bool {
    matches!(
        letter,
        Letter::Rejected { refusal, .. }
            if matches!(refusal.reason, RefusalReason::Busy | RefusalReason::Draining)
    )
}

const MOST_LETTERS: usize = 512;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn finished(id: u8) -> Letter {
        Letter::Finished(format!("j{id}"))
    }

    #[test]
    fn letters_are_sent_again_in_a_new_session_under_new_numbers() {
        let mut outbox = Outbox::default();
        for id in 0..3 {
            outbox.post(finished(id));
        }
        assert_eq!(outbox.next(), Some(Outgoing::Letter(1, &finished(0))));
        assert_eq!(outbox.next(), Some(Outgoing::Letter(2, &finished(1))));
        assert_eq!(outbox.delivered(1), Ok(vec![finished(0)]));
        assert!(outbox.delivered(3).is_err());
        outbox.begin_session();
        assert_eq!(outbox.next(), Some(Outgoing::Letter(1, &finished(1))));
        assert_eq!(outbox.next(), Some(Outgoing::Letter(2, &finished(2))));
        assert_eq!(outbox.next(), None);
        assert_eq!(outbox.delivered(2).unwrap().len(), 2);
        assert!(outbox.is_delivered());
    }

    #[test]
    fn progress_and_heartbeats_are_never_queued_up() {
        let mut outbox = Outbox::default();
        for _ in 0..5 {
            outbox.note_progress();
            outbox.note_heartbeat();
            outbox.acknowledge(4);
        }
        assert_eq!(outbox.next(), Some(Outgoing::Ack(4)));
        assert_eq!(outbox.next(), Some(Outgoing::Heartbeat));
        assert_eq!(outbox.next(), Some(Outgoing::Progress));
        assert_eq!(outbox.next(), None);
    }

    proptest! {
        #[test]
        fn whatever_is_lost_every_letter_arrives(
            steps in prop::collection::vec((0..5u8, 0..8u8), 1..80),
        ) {
            let mut outbox = Outbox::default();
            let (mut posted, mut arrived) = (BTreeSet::new(), Vec::new());
            let (mut expected, mut received) = (1, Vec::new());
            for (step, id) in steps {
                match step {
                    0 => {
                        posted.insert(id);
                        outbox.post(finished(id));
                    }
                    1 | 2 => if let Some(Outgoing::Letter(number, letter)) = outbox.next() {
                        prop_assert_eq!(number, expected, "a gap");
                        expected += 1;
                        received.push(letter.clone());
                    },
                    3 => {
                        // The Connector acknowledges some of what it has.
                        let upto = expected.saturating_sub(u64::from(id % 3) + 1);
                        outbox.delivered(upto).unwrap();
                        arrived.extend(received.iter().take(upto as usize).cloned());
                    }
                    _ => {
                        outbox.begin_session();
                        (expected, received) = (1, Vec::new());
                    }
                }
            }
            outbox.begin_session();
            let mut last = 0;
            while let Some(Outgoing::Letter(number, letter)) = outbox.next() {
                last = number;
                arrived.push(letter.clone());
            }
            outbox.delivered(last).unwrap();
            prop_assert!(outbox.is_delivered());
            for id in posted {
                prop_assert!(arrived.contains(&finished(id)), "j{} is lost", id);
            }
        }
    }
}
