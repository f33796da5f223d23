//! Events of the log by their addresses.

use pushy_core::log::runs::Run;

use super::log_snapshot::LogSnapshot;
use super::parts::{self, PARTS};
use super::state;
use crate::errors::Result;
use crate::pg::by_address::Reader;
use crate::pg::heap::ForReading;
use crate::pg::interrupts;
use crate::pg::spi::Row;

pub type Tables = [Option<ForReading>; PARTS as usize];

/// The log as of now, and the parts in use then, locked against being truncated.
pub(super) fn open() -> Result<(LogSnapshot, Tables)> {
    loop {
        let before = state::read()?.parts;
        let mut tables: Tables = Default::default();
        for part in &before {
            let table = parts::read_log(part.part)?;
            tables[part.part as usize] = Some(table);
        }
        // It knows of parts that were emptied before the locks; none is truncated from here on.
        let snapshot = LogSnapshot::take()?;
        if snapshot.parts == before {
            return Ok((snapshot, tables));
        }
    }
}

/// Fetches events by their addresses.
pub struct EventFetcher<'tables> {
    readers: Vec<Option<Reader<'tables>>>,
}

impl<'tables> EventFetcher<'tables> {
    pub fn new(tables: &'tables Tables) -> Self {
        let readers = tables
            .iter()
            .map(|table| table.as_ref().map(|table| table.reader()));
        Self {
            readers: readers.collect(),
        }
    }

    /// The events of these runs after the first `skip`, with their numbers, until `each` has enough (false).
    /// Answers false where one is not at its place: somebody has rewritten the table (VACUUM FULL).
    pub fn events(
        &self,
        runs: &[Run],
        skip: i32,
        mut each: impl FnMut(i32, Row<'_>) -> Result<bool>,
    ) -> Result<bool> {
        let mut n = 0;
        for run in runs {
            // A reader who wants few of them goes through many.
            interrupts::check();
            let count = i32::from(run.count);
            if n + count <= skip {
                n += count;
                continue;
            }
            let reader = self.readers[run.part as usize].as_ref();
            for offset in run.first..run.first + run.count {
                n += 1;
                if n <= skip {
                    continue;
                }
                let position = run.position + i64::from(offset - run.first);
                let row = reader
                    .and_then(|reader| reader.fetch(run.block, offset))
                    .filter(|row| row.i64(parts::log::LSN) == position);
                let Some(row) = row else {
                    return Ok(false);
                };
                if !each(n, row)? {
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }
}
