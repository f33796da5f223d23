//! What an executor is at, as pg_stat_activity shows it.

use std::ffi::CStr;

use crate::pg::worker;

/// Queue and job as pg_stat_activity shows them; never arguments.
pub(in crate::worker) struct Activity {
    text: Vec<u8>,
    /// Bytes before the job's number.
    fixed: usize,
}

impl Activity {
    pub(in crate::worker) fn of(queue: &str) -> Self {
        let text = format!("pushy queue {queue}: job ").into_bytes();
        Self {
            fixed: text.len(),
            text,
        }
    }

    pub(in crate::worker) fn show(&mut self, job: i64) {
        self.text.truncate(self.fixed);
        let mut left = job.unsigned_abs();
        // Bounded: by the digits of the number.
        loop {
            self.text.push(b'0' + (left % 10) as u8);
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.text[self.fixed..].reverse();
        self.text.push(0);
        if let Ok(text) = CStr::from_bytes_with_nul(&self.text) {
            worker::show_activity(Some(text));
        }
    }
}
