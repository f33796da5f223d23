//! Telling LISTENers of queues for workers outside that an empty one has work. Nothing of it is in the log: who is not there to hear it
//! looks into the queue when it comes.

use std::sync::atomic::Ordering;

use super::emit::{EmitPause, NOTIFY_LOCK_MS};
use super::worker::Relay;
use crate::errors::Result;
use crate::pg::{clock, identity, notify, transaction};
use crate::queue::{channel_name, definition};
use crate::shared;
use crate::shared::database::NEVER;
use crate::shared::queue_slot::QueueKey;

/// LISTENers are told of queues no more often than this (µs).
const GAP_US: i64 = 50_000;

impl Relay {
    /// Answers when to come again. As when emitting, a failure is NOTIFY's, and the relay has more to do.
    pub(super) fn tell_queues(&mut self) -> i64 {
        let log = &self.database_slot.log;
        if !log.tells_queues.load(Ordering::SeqCst) {
            return NEVER;
        }
        let now = clock::now().0;
        if let Some(until) = self.queues_muted.rests_until(now) {
            return until;
        }
        let next = self.told_queues_at + GAP_US;
        // The clock may have been set back.
        if now < next && now >= self.told_queues_at {
            return next;
        }
        self.told_queues_at = now;
        // In this order: who is to be told from here on is told in the next round.
        log.tells_queues.store(false, Ordering::SeqCst);
        let queues = shared::expect().take_queues_to_tell(self.database_slot.oid());
        if queues.is_empty() {
            return NEVER;
        }
        match self.queues_muted.make_room().and_then(|()| tell(&queues)) {
            Ok(()) => {
                self.queues_muted = EmitPause::none();
                NEVER
            }
            Err(failure) => {
                shared::expect().put_back_queues_to_tell(self.database_slot);
                self.queues_muted.count(&failure)
            }
        }
    }
}

fn tell(queues: &[QueueKey]) -> Result<()> {
    let channels = transaction::run(|| {
        identity::as_owner(|| {
            let mut channels = Vec::with_capacity(queues.len());
            for key in queues {
                let queue = definition::find_by_id(key.queue_id)?;
                channels.extend(queue.map(|queue| channel_name::of(&queue.name)));
            }
            Ok(channels)
        })
    })?;
    transaction::run_within(NOTIFY_LOCK_MS, || {
        for channel in &channels {
            notify::send(channel, b"");
        }
        Ok(())
    })
}
