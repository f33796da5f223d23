//! How far the log reaches: one row of pushy_internal.log_state, and one of pushy_internal.log_part for each part in use.

use pushy_core::log::cursor::Cursor;
use pushy_core::log::seen::Seen;

use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::spi::{self, Plan, Spi};
use crate::pg::transaction;

pub struct State {
    /// Into which writers append.
    pub part: u32,
    pub epoch: i64,
    /// Which log this is.
    pub born: i64,
    /// The server's when readers were last told what a change of it has cost them.
    pub timeline: i32,
    /// The last event that was emptied.
    pub lost: Cursor,
    pub emitted: (i64, i64),
    /// The last tick when this was written, and what was over then.
    pub last: Cursor,
    pub seen: Option<Seen>,
    /// Each end of a transaction with a number below is followed by a resync; 0: none is.
    pub lost_until: u64,
    /// Parts that are not empty, in the order of their ticks.
    pub parts: Vec<Part>,
}

impl State {
    /// Pages that the part of writers had when it was opened.
    pub fn blocks(&self) -> u32 {
        let current = self.parts.iter().find(|part| part.part == self.part);
        current.map_or(0, |part| part.blocks)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub part: u32,
    /// No tick in it is before this one.
    pub first: (i64, i64),
    pub opened_at: i64,
    pub closed_at: Option<i64>,
    /// Bytes in it, about, once it is closed.
    pub used: Option<i64>,
    /// Pages that it had when it was opened, with room to be used again.
    pub blocks: u32,
}

/// A part that is not in use.
pub struct Free {
    pub part: u32,
    /// Pages with room to be used again; None: it was emptied, and is still to be cleaned.
    pub blocks: Option<u32>,
}

// One row is said to be one: taken for a thousand, the join was worth a JIT compilation of 13 ms each time.
static READ: Plan = Plan::new(
    "SELECT s.part, s.epoch, s.lost_epoch, s.lost_tick, s.lost_n, s.emitted_epoch, s.emitted_tick, \
            s.last_epoch, s.last_tick, s.last_n, s.seen, p.part, p.first_epoch, p.first_tick, p.opened_at, p.closed_at, p.bytes, COALESCE(p.blocks, 0), s.born, s.lost_until, s.timeline \
       FROM (SELECT l.* FROM pushy_internal.log_state l LIMIT 1) s CROSS JOIN pushy_internal.log_part p WHERE p.opened_at IS NOT NULL \
      ORDER BY p.first_epoch, p.first_tick, p.opened_at",
    &[],
);

/// The state as of now, whatever the transaction's snapshot; as the extension's owner. For ticks, too: `LogSnapshot`.
pub fn read() -> Result<State> {
    transaction::with_latest_snapshot(read_in_active_snapshot)
}

pub(super) fn read_in_active_snapshot() -> Result<State> {
    spi::connect(|spi| {
        let table = spi.run_in_active_snapshot(&READ, params![]);
        let Some(row) = table.first() else {
            return Err(no_row(spi));
        };
        Ok(State {
            part: row.i32(1) as u32,
            epoch: row.i64(2),
            born: row.i64(19),
            timeline: row.i32(21),
            lost: Cursor::new(row.i64(3), row.i64(4), row.i32(5)),
            emitted: (row.i64(6), row.i64(7)),
            last: Cursor::new(row.i64(8), row.i64(9), row.i32(10)),
            seen: row.opt_bytes(11).and_then(|bytes| Seen::decode(&bytes)),
            lost_until: row.i64(20) as u64,
            parts: table
                .rows()
                .map(|row| Part {
                    part: row.i32(12) as u32,
                    first: (row.i64(13), row.i64(14)),
                    opened_at: row.i64(15),
                    closed_at: row.opt_i64(16),
                    used: row.opt_i64(17),
                    blocks: row.i32(18) as u32,
                })
                .collect(),
        })
    })
}

static IS_THERE: Plan = Plan::new("SELECT EXISTS (SELECT FROM pushy_internal.log_state)", &[]);

/// Why a snapshot sees no state: the table is younger than it, whose lock is held by now, or it is damaged.
#[cold]
fn no_row(spi: &Spi) -> Error {
    let is_there = transaction::with_latest_snapshot(|| {
        spi.run_in_active_snapshot(&IS_THERE, params![])
            .row(0)
            .bool(1)
    });
    if is_there {
        return Error::new(
            SqlState::SERIALIZATION_FAILURE,
            "extension \"pushy\" was created again after this transaction took its snapshot",
        )
        .hint("Run the transaction again.");
    }
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "pushy_internal.log_state has lost its row",
    )
    .hint("Drop the extension and create it again.")
}

static TIMELINE: Plan = Plan::new(
    // The first eight digits of a WAL file's name.
    "SELECT ('x'::pg_catalog.text OPERATOR(pg_catalog.||) pg_catalog.substr(pg_catalog.pg_walfile_name( \
              pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::pg_catalog.bit(32)::pg_catalog.int4",
    &[],
);

/// The server's timeline; not on a standby.
pub fn timeline() -> i32 {
    spi::connect(|spi| spi.run(&TIMELINE, params![]).row(0).i32(1))
}

static FREE: Plan = Plan::new(
    "SELECT p.part, p.blocks FROM pushy_internal.log_part p WHERE p.opened_at IS NULL ORDER BY p.part",
    &[],
);

/// Parts that are not in use; as the extension's owner.
pub fn free() -> Result<Vec<Free>> {
    spi::connect(|spi| {
        let table = spi.run(&FREE, params![]);
        let read = |row: spi::Row<'_>| Free {
            part: row.i32(1) as u32,
            blocks: row.opt_i32(2).map(|blocks| blocks as u32),
        };
        Ok(table.rows().map(read).collect())
    })
}
