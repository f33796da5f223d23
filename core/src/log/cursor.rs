//! Where a reader stands: an event's place in the order of all, written `epoch-tick-n`, with zeros before each number, so that the
//! texts sort as the places do, in every collation: max(cursor) is the last one.

use std::fmt;
use std::str::FromStr;

/// The place of one event. An epoch is one life of the relay, so a place is never given out twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    pub epoch: i64,
    pub tick: i64,
    /// From 1 within its tick; 0 is before all of it.
    pub n: i32,
}

/// Numbers of epochs on one timeline of the server: a promoted standby starts above all of its former
/// primary, whatever it had heard of them.
const PER_TIMELINE: i64 = 1_000_000_000;

impl Cursor {
    pub const START: Self = Self {
        epoch: 0,
        tick: 0,
        n: 0,
    };

    /// Before everything, also where nothing was emptied yet: whoever reads on from here gets a resync.
    pub const NOWHERE: Self = Self {
        epoch: -1,
        tick: 0,
        n: 0,
    };

    /// As people see it: [`Self::NOWHERE`] is no place that they could pass.
    pub fn shown(self) -> String {
        self.max(Self::START).to_string()
    }

    /// Whether a log of this number can have given the cursor out; [`Self::START`] is of each.
    pub fn is_of_log(self, born: i64) -> bool {
        self == Self::START || self.epoch % PER_TIMELINE > born
    }

    pub const fn new(epoch: i64, tick: i64, n: i32) -> Self {
        Self { epoch, tick, n }
    }
}

/// The epoch of a relay that starts after `last` on a timeline. `born` is a number of the log's own, later than those of the
/// logs before it in this database: its epochs are none of theirs.
pub fn next_epoch(last: i64, timeline: u32, born: i64) -> i64 {
    last.max(i64::from(timeline) * PER_TIMELINE + born) + 1
}

impl fmt::Display for Cursor {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An epoch has 13 digits up to the 9,999th timeline; a tick of every millisecond needs thirty years for 12.
        write!(to, "{:013}-{:012}-{:06}", self.epoch, self.tick, self.n)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        fn number<T: FromStr>(text: &str) -> Result<T, NotACursor> {
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(NotACursor);
            }
            text.parse().map_err(|_| NotACursor)
        }
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(NotACursor);
        let cursor = Self::new(number(part()?)?, number(part()?)?, number(part()?)?);
        match parts.next() {
            None => Ok(cursor),
            Some(_) => Err(NotACursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_written_and_ordered() {
        let cursor = Cursor::new(1_000_000_001, 12, 3);
        assert_eq!(cursor.to_string(), "0001000000001-000000000012-000003");
        for written in [cursor.to_string().as_str(), "1000000001-12-3"] {
            assert_eq!(written.parse(), Ok(cursor), "as 0.1.0 wrote it, too");
        }
        assert!(Cursor::new(1, 9, 9) < Cursor::new(2, 1, 1));
        assert!(Cursor::new(1, 1, 9) < Cursor::new(1, 2, 0));
        assert!(Cursor::NOWHERE < Cursor::START);
        assert_eq!(Cursor::NOWHERE.shown(), Cursor::START.to_string());
        assert_eq!(cursor.shown(), cursor.to_string());
    }

    #[test]
    fn texts_sort_as_places_do() {
        let numbers = [0, 1, 9, 10, 11, 99, 100];
        let epochs = [
            0,
            1_000_000_001,
            9_000_000_009,
            10_000_000_001,
            9_999_000_000_000,
        ];
        let mut all = Vec::new();
        for epoch in epochs {
            for tick in numbers {
                all.extend(numbers.map(|n| Cursor::new(epoch, tick, n as i32)));
            }
        }
        all.sort();
        assert!(all
            .windows(2)
            .all(|two| two[0].to_string() < two[1].to_string()));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in [
            "",
            "1",
            "1-2",
            "1-2-3-4",
            "a-b-c",
            "-1-2-3",
            "1-2-3 ",
            "1--3",
            "+1-2-3",
            "1-2-99999999999",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text}");
        }
    }

    #[test]
    fn an_epoch_is_above_all_of_its_timeline_and_of_those_before() {
        assert_eq!(next_epoch(0, 1, 0), 1_000_000_001);
        assert_eq!(next_epoch(0, 1, 77), 1_000_000_078);
        assert_eq!(next_epoch(1_000_000_001, 1, 0), 1_000_000_002);
        assert_eq!(next_epoch(1_000_000_007, 2, 0), 2_000_000_001);
        assert_eq!(next_epoch(3_000_000_000, 1, 0), 3_000_000_001);
    }

    #[test]
    fn a_cursor_of_the_log_before_is_not_taken_for_one_of_this() {
        let (before, now) = (1000, 1060);
        let old = Cursor::new(next_epoch(0, 1, before), 1, 1);
        assert!(old.is_of_log(before) && !old.is_of_log(now));
        for timeline in 1..4 {
            assert!(Cursor::new(next_epoch(0, timeline, now), 1, 1).is_of_log(now));
        }
        assert!(Cursor::START.is_of_log(now));
        assert!(!Cursor::NOWHERE.is_of_log(now));
    }
}
