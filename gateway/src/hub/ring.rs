//! The last notices, for who comes back soon, or is slow for a moment: a buffer that all share.

use std::collections::VecDeque;
use std::sync::Arc;

use pushy_core::log::cursor::Cursor;

use crate::notice::Notice;

/// Holds all notices behind `from`, up to `to`.
pub struct Ring {
    notices: VecDeque<Arc<Notice>>,
    bytes: usize,
    from: Cursor,
    to: Cursor,
    max_notices: usize,
    max_bytes: usize,
}

impl Ring {
    pub fn new(at: Cursor, max_notices: usize, max_bytes: usize) -> Self {
        Self {
            notices: VecDeque::new(),
            bytes: 0,
            from: at,
            to: at,
            max_notices,
            max_bytes,
        }
    }

    pub fn from(&self) -> Cursor {
        self.from
    }

    pub fn to(&self) -> Cursor {
        self.to
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all that comes after this cursor is here.
    pub fn reaches(&self, after: Cursor) -> bool {
        self.from <= after && after <= self.to
    }

    pub fn append(&mut self, notice: Arc<Notice>) {
        self.to = notice.cursor;
        self.bytes += notice.size();
        self.notices.push_back(notice);
        while self.notices.len() > self.max_notices || self.bytes > self.max_bytes {
            let Some(gone) = self.notices.pop_front() else {
                break;
            };
            self.bytes -= gone.size();
            self.from = gone.cursor;
        }
    }

    /// Nothing more is to come up to there.
    pub fn advance(&mut self, to: Cursor) {
        self.to = self.to.max(to);
    }

    /// What was before is not what comes next.
    pub fn reset(&mut self, at: Cursor) {
        self.notices.clear();
        self.bytes = 0;
        (self.from, self.to) = (at, at);
    }

    pub fn after(&self, cursor: Cursor) -> impl Iterator<Item = &Arc<Notice>> {
        let first = self
            .notices
            .partition_point(|notice| notice.cursor <= cursor);
        self.notices.range(first..)
    }
}
