//! Where a cursor stands as against the log: a crash, or a standby that was promoted before it had received all, takes ticks back
//! that somebody has read.

use super::cursor::Cursor;

/// What the log says of a cursor's tick.
#[derive(Clone, Copy, Debug)]
pub struct LogExtent {
    /// The newest life of a relay, and whether it began in this life of the server, on its timeline.
    pub epoch: i64,
    pub is_epoch_of_here: bool,
    /// The last event that was emptied.
    pub lost: Cursor,
    /// The server is a standby.
    pub is_in_recovery: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CursorStanding {
    /// Its tick is there, or was emptied.
    Known,
    /// Its tick may have been read and is gone for ever: its reader gets a resync.
    Gone,
    /// The standby has not received it.
    Ahead,
    /// No reader was ever given it.
    NeverGiven,
}

impl LogExtent {
    /// Whether the cursor is in no part that was emptied, so that its tick has to be looked for.
    pub fn should_have(&self, cursor: Cursor) -> bool {
        let is_between_epochs = cursor.tick == 0 && cursor.epoch <= self.epoch;
        (cursor.epoch, cursor.tick) > (self.lost.epoch, self.lost.tick) && !is_between_epochs
    }

    /// `last`: the last event of the cursor's tick, if that is there.
    pub fn standing(&self, cursor: Cursor, last: Option<Cursor>) -> CursorStanding {
        match last {
            _ if !self.should_have(cursor) => CursorStanding::Known,
            Some(last) if cursor <= last => CursorStanding::Known,
            Some(_) => CursorStanding::NeverGiven,
            // Each tick of a life comes before the next life begins, in the WAL too.
            None if cursor.epoch < self.epoch => CursorStanding::Gone,
            None if self.is_in_recovery => CursorStanding::Ahead,
            None if self.is_epoch_of_here => CursorStanding::NeverGiven,
            None => CursorStanding::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_without_its_tick_is_gone_ahead_or_was_never_given() {
        let log = LogExtent {
            epoch: 5,
            is_epoch_of_here: true,
            lost: Cursor::new(3, 2, 7),
            is_in_recovery: false,
        };
        let elsewhere = LogExtent {
            is_epoch_of_here: false,
            ..log
        };
        let standby = LogExtent {
            is_in_recovery: true,
            ..elsewhere
        };
        let cases = [
            // (cursor, last event of its tick, here, before a relay came, on a standby)
            ((3, 2, i32::MAX), None, [CursorStanding::Known; 3]),
            ((2, 9, 1), None, [CursorStanding::Known; 3]),
            ((4, 0, i32::MAX), None, [CursorStanding::Known; 3]),
            ((3, 3, 1), Some(1), [CursorStanding::Known; 3]),
            ((3, 3, 2), Some(1), [CursorStanding::NeverGiven; 3]),
            ((3, 3, 1), None, [CursorStanding::Gone; 3]),
            (
                (5, 1, 1),
                None,
                [
                    CursorStanding::NeverGiven,
                    CursorStanding::Gone,
                    CursorStanding::Ahead,
                ],
            ),
            (
                (6, 0, 0),
                None,
                [
                    CursorStanding::NeverGiven,
                    CursorStanding::Gone,
                    CursorStanding::Ahead,
                ],
            ),
        ];
        for ((epoch, tick, n), last, expected) in cases {
            let cursor = Cursor::new(epoch, tick, n);
            let last = last.map(|last| Cursor::new(epoch, tick, last));
            let found = [log, elsewhere, standby].map(|log| log.standing(cursor, last));
            assert_eq!(found, expected, "{cursor}");
        }
    }
}
