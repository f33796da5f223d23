//! Reading the log without a subscription: by a cursor that the reader keeps, with the rights of the caller. Who reads a page of
//! tables and its stream takes the cursor first (`log_position`); a gateway reads all, and waits, for its sockets.

use std::time::{Duration, Instant};

use super::filter::{Chosen, Filter};
use super::log_snapshot::LogSnapshot;
use super::read::{self, LogItem, Stretch};
use super::standing;
use super::subscription::arguments;
use super::subscription::read::MOST;
use super::subscription::wait;
use crate::channel::{heard_outside, topic};
use crate::errors::{Error, Result};
use crate::pg::function::{Answer, Call};
use crate::pg::{identity, transaction};
use crate::{row, sql_function};

// A tick that a snapshot sees had committed before that was taken, and the relay knew which transactions were over before
// that: those of the ticks that it sees were over too, and what the snapshot does not see is in later ones. The model is
// core/tests/position_model.
sql_function!(pushy_log_position_v1, |_call| position());
sql_function!(pushy_gateway_position_v1, |_call| position());

fn position() -> Result<String> {
    let position = identity::as_owner(|| standing::newest(&LogSnapshot::of_statement()?))?;
    Ok(position.shown())
}

/// What a reader names: it may read each of the channels.
struct Wanted {
    channels: Option<Vec<Vec<u8>>>,
    topics: Option<Vec<Vec<u8>>>,
}

impl Wanted {
    fn of(call: Call) -> Result<Self> {
        Ok(Self {
            channels: arguments::channels(call, 1)?,
            topics: topic::patterns_argument(call, 2)?,
        })
    }

    fn filter(&self) -> Result<Filter> {
        let chosen = Chosen {
            channels: self.channels.as_deref(),
            topics: self.topics.as_deref(),
        };
        let reader = identity::current_user();
        if heard_outside::is_gateway(reader)? {
            return Ok(Filter::of_gateway(chosen));
        }
        Filter::of(chosen, reader)
    }
}

sql_function!(pushy_log_read_v1, |call| log_read(call));

/// Bytes of one payload that a gateway reads: of a longer one it has NULL, and whoever wants it is told to look at the tables.
const LONGEST_PAYLOAD: usize = 1 << 20;
/// Bytes of all that one call answers, about: escaped as JSON they are six times as many at most, which a frame of the gateway has room for.
const MOST_BYTES: usize = 4 << 20;

fn log_read(call: Call) -> Result<Answer> {
    let after = arguments::cursor("after", &call.text("after", 0)?)?;
    let filter = Wanted::of(call)?.filter()?;
    let most = call.opt_i32(3).unwrap_or(1_000);
    if !(1..=MOST).contains(&most) {
        return Err(Error::out_of_range("max_notices", most, "1 to 100000"));
    }
    call.answer_rows(|rows| {
        let (mut left, mut bytes) = (most, 0);
        let nothing = Answer::Null;
        let reached = identity::as_owner(|| {
            let from = arguments::start_after(after)?;
            read::after(from, &filter, Stretch::TURN, |found| {
                match found {
                    LogItem::Resync(at) => rows.put(row![
                        at.to_string(),
                        nothing,
                        nothing,
                        nothing,
                        nothing,
                        nothing,
                        true,
                        nothing
                    ]),
                    LogItem::Notice(notice) => {
                        let payload = Some(notice.payload);
                        let payload = payload.filter(|payload| payload.len() <= LONGEST_PAYLOAD);
                        bytes += payload.as_ref().map_or(0, Vec::len) + notice.channel.len();
                        bytes += notice.topic.as_ref().map_or(0, Vec::len);
                        rows.put(row![
                            notice.cursor.to_string(),
                            notice.channel,
                            notice.topic,
                            payload,
                            notice.at,
                            notice.merge,
                            false,
                            nothing,
                        ]);
                    }
                }
                left -= 1;
                Ok(left > 0 && bytes < MOST_BYTES)
            })
        })?;
        // Where the next call goes on, past what was not for this reader.
        let more = reached.is_cut || left == 0 || bytes >= MOST_BYTES;
        rows.put(row![
            reached.passed.shown(),
            nothing,
            nothing,
            nothing,
            nothing,
            nothing,
            false,
            more
        ]);
        // What is answered, and its cursors, stay true after a crash.
        transaction::flush_commits();
        Ok(())
    })
}

/// As sql/log.sql has it.
const USUAL: Duration = Duration::from_secs(3_600);

sql_function!(pushy_log_wait_v1, |call| log_wait(call));

fn log_wait(call: Call) -> Result<Answer> {
    let after = arguments::cursor("after", &call.text("after", 0)?)?;
    let wanted = Wanted::of(call)?;
    let timeout = call.timeout("timeout", 3, USUAL)?;
    transaction::require_nonatomic(call.is_nonatomic_call(), "pushy_internal.log_wait")?;
    let database_slot = wait::slot_of_database()?;
    let deadline = Instant::now() + timeout;
    let mut passed = identity::as_owner(|| arguments::start_after(after))?;
    let is_ready = wait::until_something(database_slot, &mut passed, deadline, || wanted.filter())?;
    Ok(call.answer_row(row![passed.shown(), is_ready]))
}
