//! A walk over leases that may be over, by turns of the queues' owners.

use std::collections::HashMap;

use pushy_core::turns::{Bounds, Turns, WaitingCursor};

use crate::errors::Result;
use crate::job::live;
use crate::job::tables::lease as table;
use crate::pg::heap::{self, Key};
use crate::pg::spi::Row;
use crate::queue::definition::{self, QueueDefinition};

/// A transaction ends few, because each that ends writes several rows.
const BOUNDS: Bounds = Bounds {
    rows: 250,
    passed: 10_000,
    share: 250,
};

/// Turns at what ends at this time (µs) or later, or with this session or a later one.
pub fn turns_from(from: i64) -> Turns {
    Turns::from(from, BOUNDS)
}

/// A transaction's walk in the order of an index.
pub(super) struct Walk<'a> {
    queues: &'a [QueueDefinition],
    turns: &'a mut Turns,
    /// Of each queue that was met; None: what it has leased is not to be ended here.
    owners: HashMap<i32, Option<u32>>,
    found: Vec<WaitingCursor>,
    is_enough: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(queues: &'a [QueueDefinition], turns: &'a mut Turns) -> Self {
        Self {
            queues,
            turns,
            owners: HashMap::new(),
            found: Vec::new(),
            is_enough: false,
        }
    }

    /// Over leases of these keys. `place`: where one is in the order of the index, and whether it may be over.
    pub(super) fn go_on(
        &mut self,
        index: &str,
        keys: &[Key],
        place: impl Fn(&Row<'_>) -> (i64, bool),
    ) -> Result<()> {
        if self.is_enough {
            return Ok(());
        }
        let shape = (table::COLUMNS, &table::CHECKED);
        heap::read_now("lease", shape, index, keys, |row| {
            if self.turns.has_walked_enough() {
                self.is_enough = true;
                return Ok(false);
            }
            let (run_at, may_be_over) = place(&row);
            let cursor = WaitingCursor {
                run_at,
                id: row.i64(table::JOB_ID),
            };
            let queue_id = row.i32(table::QUEUE_ID);
            let owner = if may_be_over {
                self.owner_of(queue_id)?
            } else {
                None
            };
            match owner {
                None => self.turns.pass(cursor),
                Some(owner) => {
                    if self.turns.wants(cursor, queue_id, |_| owner) {
                        self.found.push(cursor);
                    }
                }
            }
            Ok(true)
        })
    }

    /// None of a queue that is gone: the sweep of orphans ends its leases, or who has loaded them; and of one that is not at home
    /// here yet: then all are looked at.
    fn owner_of(&mut self, queue_id: i32) -> Result<Option<u32>> {
        if let Some(owner) = self.owners.get(&queue_id) {
            return Ok(*owner);
        }
        let owner_if_home = |queue: &QueueDefinition| queue.is_home().then(|| queue.owner.to_u32());
        let read = self.queues.iter().find(|queue| queue.queue_id == queue_id);
        let owner = match read {
            Some(queue) => owner_if_home(queue),
            // It may have been registered since the others were read.
            None => definition::find_by_id(queue_id)?.and_then(|queue| owner_if_home(&queue)),
        };
        self.owners.insert(queue_id, owner);
        Ok(owner)
    }

    pub(super) fn end(self) -> Vec<WaitingCursor> {
        self.turns.end(self.is_enough);
        self.found
    }
}

/// Of a job that could not be locked: it is not there, or somebody holds it.
pub(super) fn is_gone(id: i64) -> Result<bool> {
    Ok(live::get(id)?.is_none())
}
