//! Writing to the log, in the writer's transaction.

use std::cell::OnceCell;
use std::sync::atomic::Ordering;

use super::parts::{self, log_table};
use super::state;
use crate::errors::Result;
use crate::params;
use crate::pg::append_only::Neighbours;
use crate::pg::function::Answer;
use crate::pg::heap::{self, Table};
use crate::pg::memory::Context;
use crate::pg::texts::{Place, Texts};
use crate::pg::{database, identity, transaction};
use crate::settings;
use crate::shared::database::Database;
use crate::shared::log::Written;
use crate::shared::{self, pending};

/// A notice on its way to the log.
pub struct Event<'a> {
    /// The exact name of the channel, and the payload, in the database's encoding.
    pub channel: &'a [u8],
    pub payload: &'a [u8],
    /// Told once if the same notice is in the same tick.
    pub merge: bool,
    /// The job that wrote it, and its depth.
    pub cause: Option<(i64, i32)>,
}

/// Rows that are built in memory at a time.
const MOST_AT_ONCE: usize = 1000;

/// Bytes of a page.
pub const BLOCK: i64 = 8192;

/// Writes notices to the log: told if this transaction commits, in this order. Costs a row each, and no lock
/// but a spinlock for a moment.
pub fn append(events: &[Event<'_>]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    transaction::require_primary(c"pushy.notify()");
    identity::as_owner(|| write(events))
}

fn write(events: &[Event<'_>]) -> Result<()> {
    let shared = shared::get();
    let place = shared.and_then(|shared| shared.ensure_database(database::current()));
    let part = current_part(place)?;
    let table = heap::open(log_table(part))?;
    heap::check_columns(
        &table,
        parts::log::COLUMNS,
        &parts::LOG_CHECKED[part as usize],
    )?;
    pending::logged();
    if !has_room(place, part, &table) {
        if let Some(place) = place {
            let lost = &place.log.lost;
            lost.fetch_add(events.len() as u64, Ordering::SeqCst);
        }
        return Ok(());
    }
    let (xid, own_xid) = transaction::my_xids();
    // Whoever changes a row after our commit finds the WAL further on than by one byte for each of ours.
    let mut position = transaction::wal_position();
    for events in events.chunks(MOST_AT_ONCE) {
        let texts = Told::of(events);
        let placed = in_passing(|| {
            let rows: Vec<[Answer; parts::log::COLUMNS.len()]> = events
                .iter()
                .zip(&texts.places)
                .zip(position..)
                .map(|((event, places), position)| {
                    let (caused_by, depth) = event.cause.unzip();
                    *params![
                        xid as i64,
                        position,
                        caused_by,
                        depth.map(|depth| depth as i16),
                        event.merge,
                        texts.all.datum(places.0),
                        texts.all.datum(places.1),
                    ]
                })
                .collect();
            table.append_placed(&rows)
        });
        if let (Some(shared), Some(place)) = (shared, place) {
            note_size(place, part, placed.last());
            let mut first = position;
            let written: Vec<Written> = placed
                .iter()
                .map(|run| {
                    let written = Written {
                        part: part as u8,
                        block: run.block,
                        first: run.first,
                        count: run.count,
                        xid,
                        own_xid,
                        position: first,
                    };
                    first += i64::from(run.count);
                    written
                })
                .collect();
            shared.tell_written(place, &written);
        }
        position += events.len() as i64;
    }
    Ok(())
}

/// Channels and payloads as values; a channel once while it stays the same.
struct Told {
    all: Texts,
    places: Vec<(Place, Place)>,
}

impl Told {
    fn of(events: &[Event<'_>]) -> Self {
        let payloads: usize = events.iter().map(|event| event.payload.len()).sum();
        let first_channel = events.first().map_or(0, |event| event.channel.len());
        let mut all = Texts::with_capacity(events.len() + 1, payloads + first_channel);
        let mut last: Option<(&[u8], Place)> = None;
        let places = events
            .iter()
            .map(|event| {
                let channel = match last {
                    Some((channel, place)) if channel == event.channel => place,
                    _ => all.push(event.channel),
                };
                last = Some((event.channel, channel));
                (channel, all.push(event.payload))
            })
            .collect();
        Self { all, places }
    }
}

thread_local! {
    static ROWS: OnceCell<Context> = const { OnceCell::new() };
}

/// Runs `work` with memory that is freed behind it: a transaction of a million events must not keep them all.
fn in_passing<T>(work: impl FnOnce() -> T) -> T {
    ROWS.with(|rows| {
        let context = rows.get_or_init(|| Context::new(c"pushy log rows"));
        context.reset();
        let answer = context.enter(work);
        context.reset();
        answer
    })
}

/// The part that writers append to: from shared memory, or from the table when nobody has looked yet.
fn current_part(place: Option<&Database>) -> Result<u32> {
    if let Some(part) = place.and_then(|place| place.log.part()) {
        return Ok(part);
    }
    let part = state::read()?.part;
    if let Some(place) = place {
        place.log.learn_part(part);
    }
    Ok(part)
}

/// Whether the part may grow. Who wrote there last has noted whether it is full: the file's size, which takes a
/// system call, is asked only then, for the limit may be another by now.
fn has_room(place: Option<&Database>, part: u32, table: &Table) -> bool {
    let Some(place) = place else {
        return !is_full(table.blocks());
    };
    if place.log.is_full(part) && !is_full(table.blocks()) {
        place.log.set_room();
    }
    !place.log.is_full(part)
}

/// Tells the relay, and other writers, how far the part has come.
fn note_size(place: &Database, part: u32, last: Option<&Neighbours>) {
    let blocks = last.map_or(0, |run| run.block + 1);
    if is_big(blocks) {
        place.log.is_crowded.store(true, Ordering::SeqCst);
    }
    if is_full(blocks) {
        place.log.set_full(part);
    }
}

/// A part that holds its share of what the log may: another should take over.
fn is_big(blocks: u32) -> bool {
    i64::from(blocks) * BLOCK >= settings::log_max_size() / parts::SHARE
}

/// A part as big as the whole log may be: the relay could not turn to another one. Writers are never blocked;
/// events that find no room are counted, and all readers are told to resync.
pub fn is_full(blocks: u32) -> bool {
    i64::from(blocks) * BLOCK >= settings::log_max_size()
}
