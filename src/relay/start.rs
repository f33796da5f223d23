//! A relay takes up what the one before it had come to, in an epoch of its own.

use pushy_core::log::cursor::{self, Cursor};

use super::worker::Relay;
use crate::errors::Result;
use crate::log::log_snapshot::LogSnapshot;
use crate::log::state::{self, State};
use crate::log::tick::Tick;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, transaction, BuiltinOid};

static BEGIN_EPOCH: Plan = Plan::new(
    "UPDATE pushy_internal.log_state SET epoch = $1",
    &[BuiltinOid::INT8OID],
);

impl Relay {
    /// Begins an epoch, written to disk before anything is emitted in it; false when the extension is not here.
    pub(super) fn start(&mut self) -> Result<bool> {
        let found = transaction::run(|| {
            if identity::extension_oid().is_none() {
                return Ok(None);
            }
            identity::as_owner(|| {
                let log = LogSnapshot::take()?;
                let newest = log.newest_tick()?;
                let timeline = state::timeline();
                let epoch = cursor::next_epoch(log.epoch, timeline as u32, log.born);
                spi::run(&BEGIN_EPOCH, params![epoch]);
                transaction::commit_durably();
                Ok(Some((log.into_state(), epoch, timeline, newest)))
            })
        })?;
        let Some((state, epoch, timeline, newest)) = found else {
            return Ok(false);
        };
        self.resume(&state, newest.as_ref());
        self.epoch = epoch;
        self.next_tick = 1;
        self.new_timeline = Some(timeline).filter(|timeline| *timeline != state.timeline);
        self.database_slot.log.begin_epoch(epoch);
        self.database_slot.log.set_part(state.part, state.blocks());
        Ok(true)
    }

    /// Takes up what the relay before had come to.
    fn resume(&mut self, state: &State, newest: Option<&Tick>) {
        self.part = state.part;
        self.last = state.last;
        self.seen = state.seen.clone().unwrap_or_default();
        self.lost_until = state.lost_until;
        let mut emitted = state.emitted;
        if let Some(newest) = newest.filter(|newest| newest.last() > state.last) {
            self.last = newest.last();
            self.last_at = newest.at.0;
            self.seen = newest.seen().unwrap_or_default();
            emitted = emitted.max(newest.emitted);
        }

        // In the life of this server it is known to the event.
        let remembered = self.database_slot.log.emitted();
        self.emitted = Cursor::new(emitted.0, emitted.1, i32::MAX).min(self.last);
        if remembered > self.emitted && remembered <= self.last {
            self.emitted = remembered;
        }
    }
}
