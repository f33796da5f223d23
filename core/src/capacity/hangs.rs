//! Databases whose starts hang, and when the next one is tried.

use std::collections::HashMap;

use super::{Doing, ExecutorView};
use crate::backoff;

/// Databases of which a start was ended because it hung.
#[derive(Default)]
pub struct Hangs(HashMap<u32, Hang>);

struct Hang {
    times: u32,
    ended_at: i64,
    retry_at: i64,
}

impl Hangs {
    /// A start was ended; answers how many were since one of the database has come up.
    pub fn ended(&mut self, database: u32, now: i64) -> u32 {
        let hang = self.0.entry(database).or_insert(Hang {
            times: 0,
            ended_at: now,
            retry_at: now,
        });
        hang.retry_at = now + backoff::START.delay_us(hang.times);
        hang.times += 1;
        hang.ended_at = now;
        hang.times
    }

    /// An executor that was started at this time is up: what the database hung on is gone, if it came afterwards.
    pub fn came_up(&mut self, database: u32, started_at: i64) {
        if self
            .0
            .get(&database)
            .is_some_and(|hang| started_at >= hang.ended_at)
        {
            self.0.remove(&database);
        }
    }

    /// What databases hung on may be gone: they are tried again at once, one start at a time as before.
    pub fn retry_now(&mut self) {
        for hang in self.0.values_mut() {
            hang.retry_at = 0;
        }
    }

    /// The clock was set back to `now`.
    pub fn set_back(&mut self, now: i64) {
        for hang in self.0.values_mut() {
            hang.ended_at = hang.ended_at.min(now);
            hang.retry_at = hang.retry_at.min(now);
        }
    }

    pub fn retain(&mut self, mut is_there: impl FnMut(u32) -> bool) {
        self.0.retain(|database, _| is_there(*database));
    }

    /// Whether the database may have another start now; if not, when to look again, None: when an executor comes or leaves.
    pub fn may_start(
        &self,
        database: u32,
        executors: &[ExecutorView],
        now: i64,
    ) -> Result<(), Option<i64>> {
        let Some(hang) = self.0.get(&database) else {
            return Ok(());
        };
        if hang.retry_at > now {
            return Err(Some(hang.retry_at));
        }
        let is_coming = |e: &ExecutorView| e.pair.database == database && e.doing == Doing::Coming;
        if executors.iter().any(is_coming) {
            return Err(None);
        }
        Ok(())
    }
}
