//! Subscriptions that are behind: led on through the ring, and through the log where that begins later.

use std::time::Duration;

use pushy_core::log::cursor::Cursor;

use crate::hub::outbox::Tag;
use crate::hub::Step;
use crate::source::{Chunk, Reader, SourceError};
use crate::topics::routes::Key;
use crate::ways::close;
use crate::ways::message;

use super::{within, Replay, Session};

/// Notices that are read at a time for one that is behind.
const REPLAYED: u32 = 500;
/// A source that has nothing where the ring begins later is asked so often.
const MOST_EMPTY: u32 = 20;

impl Session {
    /// Leads on those that are behind; whether the same can be done again at once.
    pub(super) fn catch_up(&mut self) -> bool {
        let mut has_more = false;
        let catching: Vec<Tag> = self.catching.iter().copied().collect();
        for tag in catching {
            let Some(key) = self.subscribed.get(&tag).and_then(|one| one.key) else {
                self.catching.remove(&tag);
                continue;
            };
            if self.replay.as_ref().is_some_and(|replay| replay.tag == tag) {
                continue;
            }
            match self.gateway.hub.catch_up(key) {
                Step::More => has_more = true,
                Step::Room => {}
                Step::Lost(_) => self.close_at_earliest(close::SLOW),
                Step::Ask(after) if self.replay.is_none() => {
                    self.replay = Some(self.replay(tag, key, after))
                }
                Step::Ask(_) => {}
                Step::Done => {
                    self.catching.remove(&tag);
                    self.empty_replays = 0;
                    let is_live = self.gateway.hub.is_live(key);
                    if let Some(subscribed) = self
                        .subscribed
                        .get_mut(&tag)
                        .filter(|one| is_live && !one.is_told_live)
                    {
                        subscribed.is_told_live = true;
                        self.outbox.answer(message::live(tag));
                    }
                }
            }
        }
        has_more
    }

    fn replay(&self, tag: Tag, key: Key, after: Cursor) -> Replay {
        let gateway = self.gateway.clone();
        gateway.metrics.replays.inc();
        let pause = Duration::from_millis(100) * self.empty_replays;
        let answer = async move {
            tokio::time::sleep(pause).await;
            let away = || SourceError::Away("the gateway ends".to_owned());
            let _permit = gateway
                .replays
                .clone()
                .acquire_owned()
                .await
                .map_err(|_| away())?;
            within(
                gateway.settings.ask_timeout,
                gateway.source.read(Reader::Replay, after, REPLAYED),
            )
            .await
        };
        Replay {
            key,
            tag,
            after,
            answer: Box::pin(answer),
        }
    }

    pub(super) fn hear_replay(&mut self, chunk: Result<Chunk, SourceError>) {
        let Some(replay) = self.replay.take() else {
            return;
        };
        match chunk {
            Ok(chunk) => {
                let is_empty = chunk.events.is_empty() && chunk.next == replay.after;
                self.empty_replays = if is_empty { self.empty_replays + 1 } else { 0 };
                self.gateway.hub.offer(replay.key, replay.after, &chunk);
            }
            Err(error) => {
                self.gateway.say(&error.to_string());
                self.empty_replays = MOST_EMPTY;
            }
        }
        if self.empty_replays >= MOST_EMPTY {
            self.close_at_earliest(close::UNAVAILABLE);
        }
    }
}
