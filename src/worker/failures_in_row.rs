//! What a worker does when the server lacks something: it says so once, and tries again, later after each failure in a row.

use std::time::Duration;

use pushy_core::backoff::ServerBackoff;

use crate::errors::{Error, SqlState};
use crate::pg::ereport;

/// How the log says that something waits.
pub struct Waits {
    pub what: &'static str,
    pub detail: Option<&'static str>,
    /// With the times after which it tries again in place of `{after}`.
    pub hint: &'static str,
    pub backoff: ServerBackoff,
}

impl Waits {
    #[cold]
    pub fn log(&self, failure: &Error) {
        let message = format!(
            "{}: {} (SQLSTATE {})",
            self.what,
            failure.message,
            failure.sqlstate.as_str()
        );
        ereport::log(&Error {
            detail: self.detail.map(str::to_owned),
            ..Error::new(SqlState::INTERNAL_ERROR, message)
                .hint(self.hint.replace("{after}", &self.backoff.to_string()))
        });
    }
}

/// Failures since something last succeeded.
pub struct FailuresInRow {
    count: u32,
    /// So long (µs) it waits while somebody holds a lock, however often that has been so; None: as for any failure.
    busy_us: Option<i64>,
    waits: &'static Waits,
}

impl FailuresInRow {
    pub fn none(busy_us: Option<i64>, waits: &'static Waits) -> Self {
        Self {
            count: 0,
            busy_us,
            waits,
        }
    }

    pub fn are_none(&self) -> bool {
        self.count == 0
    }

    pub fn end(&mut self) {
        self.count = 0;
    }

    /// Counts a failure, and logs the first; answers how long to wait.
    #[cold]
    pub fn count(&mut self, failure: &Error) -> Duration {
        if self.count == 0 {
            self.waits.log(failure);
        }
        let wait_us = self
            .busy_us
            .filter(|_| failure.is_busy())
            .unwrap_or_else(|| self.waits.backoff.delay_us(self.count));
        self.count = self.count.saturating_add(1);
        Duration::from_micros(wait_us as u64)
    }
}
