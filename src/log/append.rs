//! Writing to the log, in the writer's transaction.

use std::cell::{Cell, OnceCell};
use std::sync::atomic::Ordering;

use pushy_core::channel;
use pushy_core::log::written::{About, Written};

use super::parts;
use super::state;
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::append_only::{self, Neighbours};
use crate::pg::function::Answer;
use crate::pg::heap::Table;
use crate::pg::memory::Context;
use crate::pg::per_process::PerProcess;
use crate::pg::texts::{TextRef, Texts};
use crate::pg::{database, identifier, identity, transaction, Oid};
use crate::settings;
use crate::shared::database::DatabaseSlot;
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

/// What a row takes beside channel and payload.
const ROW_BYTES: usize = 64;

/// What a notice counts of its role's share of the log. What Pushy itself says is not counted.
pub fn counted_bytes(channel: &[u8], topic: Option<&[u8]>, payload: &[u8]) -> usize {
    if channel::is_ours(channel) {
        0
    } else {
        channel.len() + topic.map_or(0, <[u8]>::len) + payload.len() + ROW_BYTES
    }
}

/// Refuses what would give the role more of the log than its share.
#[cold]
fn charge(role: Oid, part: u32, events: &[LoggedNotice<'_>]) -> Result<()> {
    let counted = events
        .iter()
        .map(|event| counted_bytes(event.channel, event.topic, event.payload));
    let bytes = counted.sum::<usize>() as i64;
    let most = settings::log_max_size_per_role();
    let Some(shared) = shared::get().filter(|_| bytes > 0 && !identity::is_superuser(role)) else {
        return Ok(());
    };
    let here = database::current();
    let charged = shared.charge_log(here, role.to_u32(), part, bytes, most);
    charged.map_err(|has| above_share(role, has, bytes))
}

/// Refuses, ahead of the write, notices of the current role that its share of the log has no room for: where they were
/// caused, because at the commit the error would be nobody's. They may take up to `at_most` bytes; what exactly, `exact`
/// finds out if that is too much.
#[cold]
pub fn expect_share(at_most: usize, exact: impl FnOnce() -> usize) -> Result<()> {
    let most = settings::log_max_size_per_role();
    let role = identity::current_user();
    let has = shared::get()
        .filter(|_| most > 0 && !identity::is_superuser(role))
        .and_then(|shared| shared.log_charged(database::current(), role.to_u32()));
    let Some(has) = has.filter(|has| has + at_most as i64 > most) else {
        return Ok(());
    };
    match exact() as i64 {
        bytes if bytes > 0 && has + bytes > most => Err(above_share(role, has, bytes)),
        _ => Ok(()),
    }
}

fn above_share(role: Oid, has: i64, bytes: i64) -> Error {
    Error::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        format!(
            "notices of role {} fill {} kB of the event log, and {} kB more would be above pushy.log_max_size_per_role",
            identifier::quoted(&identity::role_name(role)),
            has >> 10,
            (bytes >> 10) + 1
        ),
    )
    .detail("Else they would push out those of others, which nobody could read again.")
    .hint("Try again when the log's oldest part is emptied (pushy.log_keep), or ask a superuser to raise pushy.log_max_size_per_role. Notices with delivery => 'notify' take no room there: whoever calls pushy.notify may say so, and for a watch, who declared it.")
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

/// The part that writers append to: from shared memory, or from the table when nobody has looked yet.
pub(super) fn current_part(database_slot: Option<&DatabaseSlot>) -> Result<u32> {
    if let Some(part) = database_slot.and_then(|database_slot| database_slot.log.part()) {
        return Ok(part);
    }
    let state = state::read()?;
    if let Some(database_slot) = database_slot {
        database_slot.log.learn_part(state.part, state.blocks());
    }
    Ok(state.part)
}

/// Whether the part may grow. The last writer has noted whether it is full. Only then the file's size is asked, which takes
/// a system call, because the limit may have changed.
fn may_grow(database_slot: Option<&DatabaseSlot>, part: u32, table: &Table) -> bool {
    let Some(database_slot) = database_slot else {
        return !is_full(table.blocks(), 0);
    };
    if database_slot.log.is_full(part) && !is_full(table.blocks(), database_slot.log.blocks()) {
        database_slot.log.clear_full();
    }
    !database_slot.log.is_full(part)
}

/// Notes for the relay, and for other writers, how far the part has come.
pub(super) fn note_size(database_slot: &DatabaseSlot, part: u32, last: u32) {
    let blocks = last + 1;
    let before = database_slot.log.blocks();
    if is_big(blocks, before) {
        database_slot.log.is_crowded.store(true, Ordering::SeqCst);
    }
    if is_full(blocks, before) {
        database_slot.log.set_full(part);
    }
}

/// A part that holds its share of what the log may: another should take over. `before`: the pages that it had when it was
/// opened; while it is no bigger there is room between its rows.
pub fn is_big(blocks: u32, before: u32) -> bool {
    blocks > before
        && i64::from(blocks) * append_only::PAGE >= settings::log_max_size() / parts::SHARE
}

/// A part as big as the whole log may be: the relay could not turn to another one. Writers are never blocked; whose events
/// find no room leaves a marker (`gap`), and all readers get a resync.
pub fn is_full(blocks: u32, before: u32) -> bool {
    blocks > before && i64::from(blocks) * append_only::PAGE >= settings::log_max_size()
}
