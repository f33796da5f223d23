//! What a declaration changes or means without saying it: the channel or the queue that a watch had, a second job or notice for each
//! change, a condition that looks at a row that is not there.

use crate::channel::Channel;
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::trigger::Op;
use crate::pg::{ereport, identity};
use crate::watch::definition::{NamedBy, WatchDefinition};
use crate::watch::find;

/// A NOTICE to the client, of a channel or a queue that the watch had and has no more. One that was renamed with its table says so itself.
pub fn notice_lost(before: &WatchDefinition, now: &WatchDefinition, renamed: bool) {
    let watch = format!("watch \"{}\" of table {}", now.name, now.relation_name);
    let hint = "To keep both, give this declaration another name => ….";
    if let Some(lost) = before.channel.as_ref().filter(|_| !renamed) {
        if now.channel.as_ref() != Some(lost) {
            let now = match &now.channel {
                Some(now) => format!(
                    "publishes on channel {} now, and no longer on",
                    Channel::shown_ident(now)
                ),
                None => "no longer publishes on channel".to_owned(),
            };
            notice(
                format!("{watch} {now} {}", Channel::shown_ident(lost)),
                hint,
            );
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

/// A NOTICE to the client when from now on a change can be two jobs of one queue, or two notices on one channel, because two
/// watches of the table say so.
pub fn notice_twin(
    now: &WatchDefinition,
    before: Option<&WatchDefinition>,
    watches: &[WatchDefinition],
) {
    let of = |has_same: &dyn Fn(&WatchDefinition) -> bool| {
        let is_twin = |other: &&WatchDefinition| {
            other.watch_id != now.watch_id
                && has_same(other)
                && other.events.iter().any(|event| now.events.contains(event))
        };
        let is_new = !before.is_some_and(has_same);
        watches.iter().find(is_twin).filter(|_| is_new)
    };
    if let Some(queue) = now.queue_name() {
        if let Some(twin) = of(&|other| other.queue_name() == Some(queue)) {
            say_twin(
                now,
                twin,
                &format!("feed queue \"{queue}\": a change can be two jobs"),
            );
        }
    }
    if let Some(channel) = &now.channel {
        if let Some(twin) = of(&|other| other.channel.as_ref() == Some(channel)) {
            let channel = Channel::shown_ident(channel);
            say_twin(
                now,
                twin,
                &format!("publish on channel {channel}: a change can be two notices"),
            );
        }
    }
}

/// A NOTICE to the client when a channel that was named after the table is that of another table too, which has the same name in another
/// schema: a notice does not say of which of the two it is.
pub fn notice_namesake(now: &WatchDefinition, before: Option<&WatchDefinition>) -> Result<()> {
    let Some(channel) = now
        .channel
        .as_ref()
        .filter(|_| now.named_by == Some(NamedBy::Table))
    else {
        return Ok(());
    };
    if before.is_some_and(|before| before.channel.as_ref() == Some(channel)) {
        return Ok(());
    }
    let namesake = identity::as_owner(|| {
        let mut watches = find::of_channel(channel)?.into_iter();
        Ok(watches.find(|other| {
            other.watch_id != now.watch_id
                && other.relation_name != now.relation_name
                && other.has_table()
        }))
    })?;
    let Some(namesake) = namesake else {
        return Ok(());
    };
    let which = if namesake.is_made_by(identity::current_user()) {
        format!("of table {}", namesake.relation_name)
    } else {
        "of another role".to_owned()
    };
    notice(
        format!(
            "watch \"{}\" of table {} publishes on channel {}, as a watch {which} does",
            now.name,
            now.relation_name,
            Channel::shown_ident(channel)
        ),
        "The channel is named after the table, without its schema. To tell them apart, end this watch with pushy.unwatch and declare it with a channel => … of its own.",
    );
    Ok(())
}

fn say_twin(now: &WatchDefinition, twin: &WatchDefinition, do_what: &str) {
    notice(
        format!(
            "watches \"{}\" and \"{}\" of table {} both {do_what}",
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

/// A NOTICE to the client where the condition looks at a row that no watched event has, so that all of it is NULL: mostly such a
/// condition never holds.
pub fn notice_blind(watch: &WatchDefinition, uses_old: bool, uses_new: bool) {
    let (row, event) = match watch.events.as_slice() {
        [Op::Insert] if uses_old => ("OLD", Op::Insert),
        [Op::Delete] if uses_new => ("NEW", Op::Delete),
        _ => return,
    };
    let event = event.as_str();
    notice(
        format!(
            "condition of watch \"{}\" looks at {row}, which is all NULL for {event}, and no other event is watched",
            watch.name
        ),
        &format!("A comparison with NULL is never true: nothing may come of this watch. Leave {row} out of the condition, or add events to events => '{{{event}}}'."),
    );
}

fn notice(message: String, hint: &str) {
    ereport::notice(&Error::new(SqlState::SUCCESSFUL_COMPLETION, message).hint(hint));
}
