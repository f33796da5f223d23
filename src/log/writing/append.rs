//! Writing to the log, in the writer's transaction.

use std::cell::{Cell, OnceCell};

use pushy_core::channel;
use pushy_core::log::written::{About, Written};

use super::current_part::{current_part, may_grow, note_size};
use super::role_share::charge;
use crate::errors::Result;
use crate::log::parts;
use crate::params;
use crate::pg::append_only::Neighbours;
use crate::pg::function::Answer;
use crate::pg::heap::Table;
use crate::pg::memory::Context;
use crate::pg::per_process::PerProcess;
use crate::pg::texts::{TextRef, Texts};
use crate::pg::{database, identity, transaction, Oid};
use crate::settings;
use crate::shared::{self, pending};

/// A notice on its way to the log.
pub struct LoggedNotice<'a> {
    /// The exact name of the channel, and the payload, in the database's encoding.
    pub channel: &'a [u8],
    pub topic: Option<&'a [u8]>,
    pub payload: &'a [u8],
    /// Emitted once if the same notice is in the same tick.
    pub merge: bool,
    /// The job that wrote it, and its depth.
    pub cause: Option<(i64, i32)>,
}

impl LoggedNotice<'_> {
    /// Of its texts.
    fn text_bytes(&self) -> usize {
        self.channel.len() + self.topic.map_or(0, <[u8]>::len) + self.payload.len()
    }
}

/// Rows that are built in memory at a time.
const MOST_AT_ONCE: usize = 1000;

/// Writes notices to the log: published if this transaction commits, in this order. Costs a row each, and no lock
/// but a spinlock for a moment.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn append(events: &[LoggedNotice<'_>]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    transaction::require_primary(c"pushy.notify()");
    let most = settings::log_max_size_per_role();
    let bounded = (most > 0).then(identity::current_user);
    identity::as_owner(|| write(events, bounded))
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn write(events: &[LoggedNotice<'_>], bounded: Option<Oid>) -> Result<()> {
    let shared = shared::get();
    let database_slot = shared.and_then(|shared| shared.ensure_database(database::current()));
    let part = current_part(database_slot)?;
    if let Some(role) = bounded {
        charge(role, part, events)?;
    }
    let table = parts::open_log(part)?;
    pending::logged();
    if !may_grow(database_slot, part, &table) {
        pending::unlogged();
        return Ok(());
    }
    let (xid, own_xid) = transaction::my_xids();
    let to_announce = shared.zip(database_slot);
    // A row that is changed after this commit gets a higher position, because each event adds one to the position and more
    // than a byte to the WAL.
    let mut position = next_position();
    let mut kept = Kept::take();
    for events in events.chunks(MOST_AT_ONCE) {
        kept.fill(events, xid, position);
        let mut last = 0;
        let mut rest = events;
        kept.append_to(&table, |run| {
            let (of_run, behind) = rest.split_at(run.count.into());
            rest = behind;
            if let Some((shared, database_slot)) = to_announce {
                let written = Written {
                    part: part as u8,
                    block: run.block,
                    first: run.first,
                    count: run.count,
                    xid,
                    own_xid,
                    position,
                    is_marker: false,
                    about: about(of_run),
                };
                if shared.announce_written(database_slot, &written) {
                    pending::awaited();
                }
            }
            position += i64::from(run.count);
            last = run.block;
        });
        if let Some(database_slot) = database_slot {
            note_size(database_slot, part, last);
        }
    }
    LAST.set(position);
    kept.give_back();
    Ok(())
}

/// Behind what this session has written last.
static LAST: PerProcess<Cell<i64>> = PerProcess::new(Cell::new(0));

/// Where the WAL is, or behind the last event of this session where that has left no WAL: with wal_level = minimal the
/// transaction that creates the extension writes none of its tables.
fn next_position() -> i64 {
    transaction::wal_position().max(LAST.get())
}

/// What the relay can do without reading the rows for.
fn about(run: &[LoggedNotice<'_>]) -> Option<About> {
    let first = run.first()?;
    let share_it = run.iter().all(|event| event.channel == first.channel);
    share_it.then(|| About {
        channel: channel::hash(first.channel),
        bytes: run.iter().map(|event| event.text_bytes() as u32).sum(),
    })
}

/// Memory for rows, kept from one commit to the next: most write one row, and would spend as much on memory for it
/// as on the row.
#[derive(Default)]
struct Kept {
    texts: Texts,
    /// Channel, payload and topic of each event.
    texts_of: Vec<(TextRef, TextRef, Option<TextRef>)>,
    rows: Vec<[Answer; parts::log::COLUMNS.len()]>,
}

static KEPT: PerProcess<Cell<Option<Kept>>> = PerProcess::new(Cell::new(None));
static PASSING: PerProcess<OnceCell<Context>> = PerProcess::new(OnceCell::new());

impl Kept {
    /// Rows, and bytes of texts, for which memory is kept.
    const MOST_ROWS: usize = 16;
    const MOST_BYTES: usize = 16 * 1024;

    fn take() -> Self {
        KEPT.take().unwrap_or_default()
    }

    fn give_back(mut self) {
        self.texts.clear(Self::MOST_BYTES);
        self.texts_of.clear();
        self.texts_of.shrink_to(Self::MOST_ROWS);
        self.rows.clear();
        self.rows.shrink_to(Self::MOST_ROWS);
        KEPT.set(Some(self));
    }

    /// Makes a row of each event; a channel is there once while it stays the same.
    fn fill(&mut self, events: &[LoggedNotice<'_>], xid: u64, position: i64) {
        self.texts.clear(usize::MAX);
        self.texts_of.clear();
        self.rows.clear();
        let payloads: usize = events.iter().map(|event| event.payload.len()).sum();
        let first_channel = events.first().map_or(0, |event| event.channel.len());
        self.texts
            .reserve(events.len() + 1, payloads + first_channel);
        let mut last: Option<(&[u8], TextRef)> = None;
        for event in events {
            let channel = match last {
                Some((channel, text)) if channel == event.channel => text,
                _ => self.texts.push(event.channel),
            };
            last = Some((event.channel, channel));
            let payload = self.texts.push(event.payload);
            let topic = event.topic.map(|topic| self.texts.push(topic));
            self.texts_of.push((channel, payload, topic));
        }
        // Only now: the texts have moved while they were added.
        for ((event, texts_of), position) in events.iter().zip(&self.texts_of).zip(position..) {
            let (caused_by, depth) = event.cause.unzip();
            self.rows.push(*params![
                xid as i64,
                position,
                caused_by,
                depth.map(|depth| depth as i16),
                event.merge,
                self.texts.datum(texts_of.0),
                self.texts.datum(texts_of.1),
                texts_of.2.map(|topic| self.texts.datum(topic)),
            ]);
        }
    }

    fn append_to(&self, table: &Table, placed: impl FnMut(Neighbours)) {
        match self.rows.len() {
            1 => table.append_placed(&self.rows, placed),
            _ => in_passing(|| table.append_placed(&self.rows, placed)),
        }
    }
}

/// Runs `work` with memory that is freed behind it: a transaction of a million events must not keep what the
/// server allocates for each. After an ERROR it is freed by the next.
fn in_passing(work: impl FnOnce()) {
    PASSING.with(|passing| {
        let context = passing.get_or_init(|| Context::new(c"pushy log rows"));
        context.reset();
        context.enter(work);
        context.reset();
    });
}
