//! The main loop of a worker goes round without work: it sleeps, and says so, because that is a fault of Pushy's own.

use std::time::Duration;

use pushy_core::pace;

use crate::errors::{Error, SqlState};
use crate::pg::{ereport, latch};

#[derive(Default)]
pub struct IdleRounds(pace::IdleRounds);

impl IdleRounds {
    /// How long to sleep after a round that wants to sleep so long.
    pub fn sleep(&mut self, who: &str, wanted_us: i64, has_worked: bool) -> Duration {
        let sleep_us = self.0.sleep_us(wanted_us, has_worked);
        if self.0.are_news() {
            say(who);
        }
        Duration::from_micros(sleep_us as u64)
    }

    /// After a round that wants no sleep.
    #[inline]
    pub fn note(&mut self, who: &str, has_worked: bool) {
        let sleep = self.sleep(who, 0, has_worked);
        if !sleep.is_zero() {
            latch::wait(Some(sleep));
        }
    }
}

#[cold]
fn say(who: &str) {
    ereport::log(
        &Error::new(
            SqlState::INTERNAL_ERROR,
            format!("{who} goes round and finds nothing to do: it rests for a second each time"),
        )
        .hint("This is a fault of Pushy's: report it, with the rows of pushy.workers and pushy.queues."),
    );
}
