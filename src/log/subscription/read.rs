//! subscription_read.

use pushy_core::log::cursor::Cursor;

use super::arguments;
use super::table::{self, Subscription};
use crate::errors::{Error, Result};
use crate::log::read::{self, LogItem, Stretch};
use crate::log::state;
use crate::pg::function::{Answer, Call};
use crate::pg::object_lock::Number;
use crate::pg::{identity, object_lock, prepared_wait, transaction};
use crate::{row, sql_function};

sql_function!(pushy_subscription_read_v2, |call| subscription_read(call));

/// Rows that one call answers at most, and bytes about.
pub const MOST: i32 = 100_000;
pub const MOST_BYTES: usize = 64 << 20;

/// By a number of which readers of one subscription take turns.
const LOCKED: &str = "subscription";

/// A transaction that has read keeps others from the subscription until it ends: a prepared one maybe for ever, and no process
/// shows it.
#[cold]
fn say_who_reads(name: &str, number: u32) -> Result<()> {
    let holder = identity::as_owner(|| object_lock::prepared_holder(LOCKED, Number(number, 0)))?;
    if let Some(gid) = holder {
        prepared_wait::say(&format!("subscription \"{name}\""), "has read it", &gid);
    }
    Ok(())
}

fn subscription_read(call: Call) -> Result<Answer> {
    let name = call.text("name", 0)?;
    let most = call.opt_i32(1).unwrap_or(100);
    if !(0..=MOST).contains(&most) {
        return Err(Error::out_of_range("max_notices", most, "0 to 100000"));
    }
    let after = call
        .opt_text(2)?
        .map(|text| arguments::cursor("after", &text))
        .transpose()?;
    let caller = identity::current_user();
    let mut subscription = table::owned(&name, caller)?;
    // Two readers of one subscription take turns: what one acknowledges the other never gets. Its number may be another
    // meanwhile: somebody dropped the one that was met first.
    let mut turn_of = None;
    while after.is_none() && turn_of != Some(subscription.number) {
        let number = subscription.number as u32;
        object_lock::take(LOCKED, number, || say_who_reads(&name, number))?;
        turn_of = Some(subscription.number);
        subscription = table::owned(&name, caller)?;
    }
    let filter = subscription.filter()?;
    if most == 0 {
        return call.answer_rows(|_| Ok(()));
    }
    call.answer_rows(|rows| {
        let mut left = most;
        let mut bytes = 0;
        let mut put = |cursor: Cursor, columns: &[Answer]| {
            rows.put(&[row![cursor.to_string()], columns].concat());
            left -= 1;
            left > 0
        };
        identity::as_owner(|| {
            let from = match after {
                Some(after) => arguments::start_after(after)?,
                None => match start(&subscription)? {
                    Start::At(cursor) => cursor,
                    Start::Elsewhere(cursor) => {
                        let nothing = Answer::Null;
                        if !put(cursor, row![nothing, nothing, nothing, true, nothing]) {
                            return Ok(());
                        }
                        cursor
                    }
                },
            };
            let mut answered = false;
            let reached = read::after(from, &filter, Stretch::WHOLE, |found| {
                answered = true;
                let nothing = Answer::Null;
                Ok(match found {
                    LogItem::Resync(at) => put(at, row![nothing, nothing, nothing, true, nothing]),
                    LogItem::Notice(notice) => {
                        bytes += notice.payload.len();
                        let (channel, payload) = (notice.channel, notice.payload);
                        let columns = row![channel, payload, notice.at, false, notice.topic];
                        put(notice.cursor, columns) && bytes < MOST_BYTES
                    }
                })
            })?;
            // Only events of other channels: the log may be emptied of them without a word.
            let passed_over = !answered && after.is_none() && subscription.is_home;
            if passed_over && reached.passed > subscription.cursor && !transaction::is_read_only() {
                table::move_to(&subscription, reached.passed, None);
            }
            Ok(())
        })?;
        if left < most {
            // What is answered, and its cursors, stay true after a crash: the reader may apply it elsewhere.
            transaction::flush_commits();
        }
        Ok(())
    })
}

/// Where a reader goes on.
pub enum Start {
    At(Cursor),
    /// Its cursor is of another database: the reader gets a resync, and begins here.
    Elsewhere(Cursor),
}

pub fn start(subscription: &Subscription) -> Result<Start> {
    if subscription.is_home {
        return Ok(Start::At(subscription.cursor));
    }
    Ok(Start::Elsewhere(state::read()?.lost))
}
