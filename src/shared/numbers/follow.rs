//! How far a sequence is followed that is not as it was left.

use std::sync::atomic::Ordering;

use super::counted::{Numbers, FORGOTTEN, UNSEEN};
use super::draw::Numbered;
use super::sequences::FURTHEST;
use crate::errors::{Error, Result, SqlState};
use crate::pg::ereport;
use crate::pg::spi::{self, Plan};

impl Numbered {
    /// The sequence is not as it was left: nobody has looked at it since the server started, it is another, or somebody has set it.
    pub(super) fn find_out(&self, numbers: &Numbers, reserved: i64, stored: i64) -> Result<()> {
        // Asked before the tables, which have the numbers of one that commits meanwhile.
        let may_be_drawn = reserved == UNSEEN && is_any_prepared();
        if reserved == UNSEEN {
            // Afterwards memory knows, of what is loaded too.
            numbers.pass_over(self.highest_kept()?);
        }
        let known = numbers.highest();
        let followed = match (reserved, known) {
            (UNSEEN, 0) => self.sequence.followed.empty,
            (UNSEEN, _) => self.sequence.followed.first,
            _ => self.sequence.followed.running,
        };
        let is_followed = stored >= known && stored - known < followed && stored < FURTHEST;
        if is_followed {
            numbers.pass_over(stored);
        }
        if may_be_drawn || (reserved == UNSEEN && !is_followed) {
            numbers.pass_over(numbers.highest() + self.sequence.jump);
        }
        // Numbers went on in the sequence that was forgotten.
        if !is_followed && reserved != FORGOTTEN && !numbers.said_left.swap(true, Ordering::SeqCst)
        {
            say_left(
                self.sequence.name,
                stored,
                self.sequence.within(numbers.highest()),
            );
        }
        Ok(())
    }
}

static IS_ANY_PREPARED: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts x WHERE x.database OPERATOR(pg_catalog.=) pg_catalog.current_database())",
    &[],
);

/// What a transaction has written that is prepared, nobody sees.
pub(super) fn is_any_prepared() -> bool {
    spi::connect(|spi| spi.run(&IS_ANY_PREPARED, &[]).row(0).bool(1))
}

fn say_left(sequence: &str, stored: i64, highest: i64) {
    ereport::log(
        &Error::new(
            SqlState::WARNING,
            format!("sequence pushy_internal.{sequence} is at {stored}, where numbers do not go on: they do behind {highest}"),
        )
        .hint("A restore sets it, and numbers of queues, watches and subscriptions begin again after 2^31: then nothing need be done. Else it was a role with pg_write_all_data, which may set every sequence of the database: take it from whom you do not trust."),
    );
}
