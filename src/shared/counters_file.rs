//! Statistics outlive a clean stop of the server, as PostgreSQL's own do: the last process writes them to a file, and the
//! next start reads it. After a crash or an immediate stop they begin at zero.

use std::fs;
use std::io;
use std::sync::atomic::Ordering;

use pushy_core::counters_file::{self, Counted, Unusable};

use crate::errors::{Error, SqlState};
use crate::pg::{control_file, ereport};
use crate::shared::queue_slot::QueueKey;
use crate::shared::statistics::{Statistics, COUNTERS};
use crate::shared::Shared;

const PATH: &str = "pg_stat/pushy.counters";
const UNFINISHED: &str = "pg_stat/pushy.counters.tmp";

/// When all processes but this one are gone.
pub(in crate::shared) fn write(shared: &Shared) {
    if let Err(error) = try_write(shared) {
        let _ = fs::remove_file(UNFINISHED);
        log(format!("could not write \"{PATH}\": {error}"));
    }
}

fn try_write(shared: &Shared) -> io::Result<()> {
    let life = control_file::life()?;
    if !control_file::is_clean(&life) {
        return Ok(());
    }
    let queues: Vec<Counted> = shared
        .queues()
        .iter()
        .enumerate()
        .filter_map(|(index, slot)| {
            let (key, epoch) = slot.counts_for()?;
            let counters = shared.statistics_of(index).counted();
            (!counters.is_empty()).then_some(Counted {
                database: key.database,
                queue_id: key.queue_id,
                epoch,
                counters,
            })
        })
        .collect();
    if queues.is_empty() {
        return Ok(());
    }
    // Not flushed to disk: what a power cut leaves of it is seen to be torn.
    fs::write(UNFINISHED, counters_file::write(&life, COUNTERS, &queues))?;
    fs::rename(UNFINISHED, PATH)
}

/// Before any other process has seen the memory. The file goes, so that no backup has it.
pub(in crate::shared) fn read(shared: &Shared) {
    let bytes = match fs::read(PATH) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return log(format!("could not read \"{PATH}\": {error}")),
    };
    let found = control_file::life().map(|life| counters_file::read(&bytes, &life, COUNTERS));
    if let Err(error) = fs::remove_file(PATH) {
        log(format!("could not remove \"{PATH}\": {error}"));
    }
    match found {
        Ok(Ok(queues)) => queues.iter().for_each(|queue| restore(shared, queue)),
        // The server has crashed since, without this library.
        Ok(Err(Unusable::OtherLife)) => {}
        Ok(Err(Unusable::OtherVersion)) => log(format!("\"{PATH}\" is of another version")),
        Ok(Err(Unusable::Torn)) => log(format!("\"{PATH}\" is damaged")),
        Err(error) => log(format!("could not read the control file: {error}")),
    }
}

fn restore(shared: &Shared, queue: &Counted) {
    let key = QueueKey {
        database: queue.database,
        queue_id: queue.queue_id,
    };
    // No slot is left when pushy.max_queues was lowered.
    if let Some(slot) = shared.keep_slot(key, queue.epoch) {
        let counters: [_; COUNTERS] = Statistics::counters(shared.statistics_of(slot));
        for (index, value) in &queue.counters {
            counters[*index].store(*value, Ordering::Relaxed);
        }
    }
}

fn log(message: String) {
    ereport::log(
        &Error::new(SqlState::WARNING, message)
            .detail("The counters of pushy.stats begin at zero."),
    );
}
