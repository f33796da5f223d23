//! What would surprise who declares a watch.

use crate::channel::{access, Channel};
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::obstacle;
use crate::pg::{ereport, identity};
use crate::watch::definition::{Delivery, Payload, WatchDefinition};
use crate::watch::table::WatchedTable;

pub fn warn(watch: &WatchDefinition, table: &WatchedTable) -> Result<()> {
    let warn = |message: String, hint: &str| {
        ereport::warning(&Error::new(SqlState::WARNING, message).hint(hint));
    };
    let table_name = &table.qualified;
    if watch.channel.is_some()
        && table.has_row_security()
        && matches!(
            watch.payload,
            Payload::Row | Payload::Diff | Payload::Expression
        )
    {
        warn(
            format!("notices of {table_name} show rows that row security hides"),
            "Every role of the database may LISTEN: payload => 'key' names the row, and who may see it reads it.",
        );
    }
    let children = identity::as_owner(|| table.unwatched_children())?;
    if !children.is_empty() {
        const MOST: usize = 20;
        let more = if children.len() > MOST { ", …" } else { "" };
        let named = children[..children.len().min(MOST)].join(", ");
        warn(
            format!("tables that inherit from {table_name} are not watched: {named}{more}"),
            "Their rows fire their own triggers: watch each of them, perhaps with the same channel.",
        );
    }
    let says_rows_by_key = matches!(watch.payload, Payload::Key | Payload::Diff);
    let is_published = watch.channel.is_some() || watch.args_expr.is_none();
    if says_rows_by_key && is_published && !table.has_key() {
        let what = match (&watch.channel, &watch.args_expr) {
            (Some(_), _) => "notices",
            _ => "jobs",
        };
        warn(
            format!("table {table_name} has no key: its {what} do not say which row"),
            &format!(
                "Give it a primary key or a replica identity, or watch it with payload => 'row'. {}",
                silence(watch)
            ),
        );
    }
    let channel = watch.channel.as_deref().unwrap_or_default();
    if let Some(owner) = access::closed_by(channel, watch.owner)? {
        let channel = Channel::shown_ident(channel);
        warn(
            format!(
                "role \"{}\" may not read channel {channel}, which {owner} has closed",
                watch.owner_name
            ),
            &format!(
                "Subscriptions of {owner} and its grantees read it, and every role may LISTEN. Its owner can run: \
                 SELECT pushy.channel_grant({}, {}). Or watch with another channel.",
                quote_literal(&channel),
                quote_literal(&watch.owner_name)
            ),
        );
    }
    Ok(())
}

/// Says that no relay comes here: a watch without `delivery` uses NOTIFY where none can, and one with `relay` waits for it.
pub fn notice_no_relay(table: &WatchedTable, delivery: Option<Delivery>) {
    let table = &table.qualified;
    let message = match delivery {
        None if obstacle::a_relay_can_come() => {
            format!("notices of table {table} wait in the event log: no relay comes here to emit them")
        }
        Some(Delivery::Relay) => format!("notices of table {table} wait in the event log: no relay comes here to emit them"),
        Some(Delivery::Notify) => return,
        None => format!("notices of table {table} go by NOTIFY, and are not kept in the event log: no relay can come here"),
    };
    let reasons = obstacle::of_workers();
    let hint = reasons
        .first()
        .map(|first| first.fix.clone().unwrap_or_else(|| first.reason.clone()));
    ereport::notice(
        &Error::new(SqlState::SUCCESSFUL_COMPLETION, message).hint(hint.unwrap_or_default()),
    );
}

/// `merge` is for notices that can be equal: in these the transaction stands.
pub fn notice_never_merged(wanted: &WatchDefinition) {
    if !wanted.merge || !matches!(wanted.payload, Payload::Key | Payload::Row | Payload::Diff) {
        return;
    }
    ereport::notice(
        &Error::new(
            SqlState::SUCCESSFUL_COMPLETION,
            format!(
                "notices of watch \"{}\" are never merged: those with payload => '{}' have the transaction in them, so no two are equal",
                wanted.name,
                wanted.payload.as_str()
            ),
        )
        .hint("Pass payload => 'none' or a payload_expr with merge, or leave merge out."),
    );
}

/// `payload_expr` is for notices only.
pub fn notice_other_arguments(wanted: &WatchDefinition) {
    if wanted.queue.is_none() || wanted.payload_expr.is_none() || wanted.args_expr.is_some() {
        return;
    }
    ereport::notice(
        &Error::new(
            SqlState::SUCCESSFUL_COMPLETION,
            format!(
                "jobs of watch \"{}\" get the change and its key, and not what payload_expr makes of it, which is for notices",
                wanted.name
            ),
        )
        .hint("Pass args_expr to say what they get."),
    );
}

fn silence(watch: &WatchDefinition) -> String {
    format!(
        "To end the watch: SELECT pushy.unwatch({}, {})",
        quote_literal(&watch.relation_name),
        quote_literal(&watch.name)
    )
}
