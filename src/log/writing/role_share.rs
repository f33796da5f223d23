//! How much of the log the notices of a role may fill: pushy.log_max_size_per_role.

use pushy_core::channel;

use super::append::LoggedNotice;
use crate::errors::{Error, Result, SqlState};
use crate::pg::{database, identifier, identity, Oid};
use crate::{settings, shared};

/// What a row takes beside channel and payload.
const ROW_BYTES: usize = 64;

/// What a notice counts of its role's share of the log. What Pushy itself says is not counted.
pub fn counted_bytes(channel: &[u8], topic: Option<&[u8]>, payload: &[u8]) -> usize {
    if channel::is_ours(channel) {
        0
    } else {
        channel.len() + topic.map_or(0, <[u8]>::len) + payload.len() + ROW_BYTES
    }
}

/// Refuses what would give the role more of the log than its share.
#[cold]
pub(super) fn charge(role: Oid, part: u32, events: &[LoggedNotice<'_>]) -> Result<()> {
    let counted = events
        .iter()
        .map(|event| counted_bytes(event.channel, event.topic, event.payload));
    let bytes = counted.sum::<usize>() as i64;
    let most = settings::log_max_size_per_role();
    let Some(shared) = shared::get().filter(|_| bytes > 0 && !identity::is_superuser(role)) else {
        return Ok(());
    };
    let here = database::current();
    let charged = shared.charge_log(here, role.to_u32(), part, bytes, most);
    charged.map_err(|has| above_share(role, has, bytes))
}

/// Refuses, ahead of the write, notices of the current role that its share of the log has no room for: where they were
/// caused, because at the commit the error would be nobody's. They may take up to `at_most` bytes; what exactly, `exact`
/// finds out if that is too much.
#[cold]
pub fn expect_share(at_most: usize, exact: impl FnOnce() -> usize) -> Result<()> {
    let most = settings::log_max_size_per_role();
    let role = identity::current_user();
    let has = shared::get()
        .filter(|_| most > 0 && !identity::is_superuser(role))
        .and_then(|shared| shared.log_charged(database::current(), role.to_u32()));
    let Some(has) = has.filter(|has| has + at_most as i64 > most) else {
        return Ok(());
    };
    match exact() as i64 {
        bytes if bytes > 0 && has + bytes > most => Err(above_share(role, has, bytes)),
        _ => Ok(()),
    }
}

fn above_share(role: Oid, has: i64, bytes: i64) -> Error {
    Error::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        format!(
            "notices of role {} fill {} kB of the event log, and {} kB more would be above pushy.log_max_size_per_role",
            identifier::quoted(&identity::role_name(role)),
            has >> 10,
            (bytes >> 10) + 1
        ),
    )
    .detail("Else they would push out those of others, which nobody could read again.")
    .hint("Try again when the log's oldest part is emptied (pushy.log_keep), or ask a superuser to raise pushy.log_max_size_per_role. Notices with delivery => 'notify' take no room there: whoever calls pushy.notify may say so, and for a watch, who declared it.")
}
