//! What a declaration changes without saying it: the channel or the queue that a watch had, and a second job for each change.

use crate::channel::Channel;
use crate::errors::{quote_literal, Error, SqlState};
use crate::pg::{ereport, text};
use crate::watch::definition::WatchDefinition;

/// A NOTICE to the client, of a channel or a queue that the watch had and has no more. One that was renamed with its table says so itself.
pub fn notice_lost(before: &WatchDefinition, now: &WatchDefinition, renamed: bool) {
    let watch = format!("watch \"{}\" of table {}", now.name, now.relation_name);
    let hint = "To keep both, give this declaration another name => ….";
    if let Some(lost) = before.channel.as_ref().filter(|_| !renamed) {
        if now.channel.as_ref() != Some(lost) {
            let now = match &now.channel {
                Some(now) => format!("publishes on channel {} now, and no longer on", ident(now)),
                None => "no longer publishes on channel".to_owned(),
            };
            notice(format!("{watch} {now} {}", ident(lost)), hint);
        }
    }
    if let Some(lost) = before.queue_name() {
        if now.queue_name() != Some(lost) {
            let now = match now.queue_name() {
                Some(now) => format!("feeds queue \"{now}\" now, and no longer"),
                None => "no longer feeds queue".to_owned(),
            };
            notice(format!("{watch} {now} \"{lost}\""), hint);
        }
    }
}

/// A NOTICE to the client when from now on a change can be two jobs of one queue, because two watches feed it.
pub fn notice_twin(
    now: &WatchDefinition,
    before: Option<&WatchDefinition>,
    watches: &[WatchDefinition],
) {
    let Some(queue) = now.queue_name() else {
        return;
    };
    if before.is_some_and(|before| before.queue_name() == Some(queue)) {
        return;
    }
    let is_twin = |other: &&WatchDefinition| {
        other.watch_id != now.watch_id
            && other.queue_name() == Some(queue)
            && other.events.iter().any(|event| now.events.contains(event))
    };
    if let Some(twin) = watches.iter().find(is_twin) {
        notice(
            format!(
                "watches \"{}\" and \"{}\" of table {} both feed queue \"{queue}\": a change can be two jobs",
                twin.name, now.name, now.relation_name
            ),
            &format!(
                "If the new one was to replace the other, pass name => {}, and end this one: SELECT pushy.unwatch({}, {})",
                quote_literal(&twin.name),
                quote_literal(&now.relation_name),
                quote_literal(&now.name)
            ),
        );
    }
}

fn ident(channel: &[u8]) -> String {
    let ident = Channel::exact(channel).map(|channel| text::shown(&channel.ident()));
    ident.unwrap_or_else(|_| text::shown(channel))
}

fn notice(message: String, hint: &str) {
    ereport::notice(&Error::new(SqlState::SUCCESSFUL_COMPLETION, message).hint(hint));
}
