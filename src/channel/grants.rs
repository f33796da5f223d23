//! channel_grant, channel_revoke, and the function behind the view pushy.channel_grants.

use super::granted::{self, GrantedChannel};
use super::name::Channel;
use super::topic;
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::function::{Answer, Call};
use crate::pg::name_lock::{self, Named};
use crate::pg::object_lock::LockMode;
use crate::pg::value::Timestamp;
use crate::pg::{ereport, identifier, identity, text, transaction, Oid};
use crate::queue::gateway_event::{self, GatewayEvent};
use crate::shared::pending;
use crate::{row, settings, sql_function, ON_CHANNELS};

const LISTEN: &str = "listen";

sql_function!(pushy_channel_grant_v1, |call| {
    transaction::require_writable(c"pushy.channel_grant()");
    let channel = Channel::declared(&call.bytes("channel", 0)?)?.not_ours()?;
    let role = call.text("role", 1)?;
    let privilege = read_privilege(call)?;
    if let Some(topics) = call.opt_bytes(3) {
        topic::patterns_of_text("topics", &topics)?;
    }
    let topics = call.opt_text(3)?;
    let number = identity::grantee(&role).ok_or_else(|| Error::no_such_role(&role))?;
    let owned = take(&channel)?;
    identity::as_owner(|| {
        owned.grant(number, &role, &privilege, topics.as_deref());
        Ok(())
    })?;
    say_changed(channel.as_bytes())?;
    Result::Ok(())
});

/// To sessions that remember who reads it, and to gateways.
fn say_changed(channel: &[u8]) -> Result<()> {
    pending::privileges_changed(None);
    gateway_event::publish(&GatewayEvent::Grants {
        channel: Some(&text::shown(channel)),
    })
}

sql_function!(pushy_channel_revoke_v1, |call| {
    transaction::require_writable(c"pushy.channel_revoke()");
    let channel = Channel::of_identifier(&call.bytes("channel", 0)?)?;
    let role = call.text("role", 1)?;
    let privilege = read_privilege(call)?;
    let number = identity::grantee(&role);
    let Some(owned) = find(channel.as_bytes())? else {
        return Err(Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!(
                "channel \"{}\" was granted to nobody",
                text::shown(channel.as_bytes())
            ),
        )
        .hint("It is open to every role that may use Pushy; pushy.channel_grant closes it to all others."));
    };
    require_owner(&owned)?;
    identity::as_owner(|| owned.lock())?;
    let revoked = identity::as_owner(|| Ok(owned.revoke(number, &role, &privilege)))?;
    if revoked == 0 && number.is_none() {
        return Err(Error::no_such_role(&role));
    }
    say_changed(channel.as_bytes())?;
    if revoked > 0 && owned.grants.len() as u64 == revoked {
        ereport::notice(&closed(&owned));
    }
    Result::Ok(())
});

fn closed(owned: &GrantedChannel) -> Error {
    let ident = quote_literal(&Channel::shown_ident(&owned.channel));
    Error::new(
        SqlState::SUCCESSFUL_COMPLETION,
        format!(
            "channel \"{}\" is read by its owner only now",
            text::shown(&owned.channel)
        ),
    )
    .hint(format!(
        "To open it to all: SELECT pushy.channel_grant({ident}, 'public')"
    ))
}

fn read_privilege(call: Call) -> Result<String> {
    let privilege = call.opt_text(2)?.unwrap_or_else(|| LISTEN.to_owned());
    if privilege != LISTEN {
        return Err(Error::out_of_range(
            "privilege",
            format!("\"{privilege}\""),
            "'listen'",
        ));
    }
    Ok(privilege)
}

fn find(channel: &[u8]) -> Result<Option<GrantedChannel>> {
    identity::as_owner(|| Ok(granted::of(&[channel.to_vec()])?.pop()))
}

fn require_owner(owned: &GrantedChannel) -> Result<()> {
    if owned.is_owned_by(identity::current_user()) {
        return Ok(());
    }
    Err(Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!(
            "must be owner of channel \"{}\"",
            text::shown(&owned.channel)
        ),
    )
    .hint(match owned.shown_owner() {
        Some(owner) => format!("It belongs to role \"{owner}\", which granted it first."),
        None => "The role that granted it first is gone: a superuser who grants it owns it then."
            .to_owned(),
    }))
}

/// The channel as the caller's: as it is, or from now on.
fn take(channel: &Channel) -> Result<GrantedChannel> {
    let caller = identity::current_user();
    loop {
        if let Some(owned) = find(channel.as_bytes())? {
            return keep(owned, caller);
        }
        // Whoever is refused comes to hold nothing, nor to wait.
        require_free(channel, caller)?;
        name_lock::take(Named::Channel, channel.as_bytes(), LockMode::Alone)?;
        // What others have declared on it was waited for, and is seen now.
        if let Some(owned) = find(channel.as_bytes())? {
            return keep(owned, caller);
        }
        require_free(channel, caller)?;
        if !identity::is_superuser(caller) {
            require_share(channel, caller)?;
        }
        let owned = GrantedChannel::new(channel.as_bytes(), caller);
        if identity::as_owner(|| Ok(owned.insert()))? {
            return Ok(owned);
        }
    }
}

/// One that has an owner, for a caller with that owner's rights.
fn keep(mut owned: GrantedChannel, caller: Oid) -> Result<GrantedChannel> {
    require_owner(&owned)?;
    identity::as_owner(|| owned.lock())?;
    let owner = owned.owner_here();
    if !owned.is_home() {
        // Whose owner is gone is for a superuser only, who owns it then.
        identity::as_owner(|| owned.adopt_for(owner.unwrap_or(caller)))?;
    } else if owner.is_none() {
        let before = owned.clone();
        owned.owner = caller;
        owned.owner_name = identity::role_name(caller);
        identity::as_owner(|| owned.update(&before))?;
    }
    Ok(owned)
}

/// Refuses a channel that others use; a superuser closes it all the same.
fn require_free(channel: &Channel, caller: Oid) -> Result<()> {
    if identity::is_superuser(caller) {
        return Ok(());
    }
    refuse_others(channel, caller)
}

/// Refuses one more channel of a role that has closed so many: others look through them.
fn require_share(channel: &Channel, caller: Oid) -> Result<()> {
    let most = settings::max_channels_per_role();
    if most == 0 || identity::as_owner(|| granted::count_of(caller))? < most {
        return Ok(());
    }
    Err(Error::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        format!(
            "channel \"{}\" would give role {} more channels of its own than pushy.max_channels_per_role allows, {most}",
            text::shown(channel.as_bytes()),
            identifier::quoted(&identity::role_name(caller))
        ),
    )
    .hint("Use fewer channels, or ask a superuser to grant it or to raise pushy.max_channels_per_role."))
}

/// A channel on which others' watches publish, or that others' subscriptions name, is not closed to them by whoever
/// comes first.
fn refuse_others(channel: &Channel, caller: Oid) -> Result<()> {
    let name = text::shown(channel.as_bytes());
    for users in &ON_CHANNELS {
        let Some(whose) = (users.of_another)(channel.as_bytes(), caller)? else {
            continue;
        };
        let (whose, way_out) = match whose {
            Some(role) => (
                format!("role \"{}\"", identity::role_name(role)),
                "That role, if the channel is nobody else's, or a superuser can grant it first.",
            ),
            None => (
                "a role that is gone".to_owned(),
                "A superuser can grant it first.",
            ),
        };
        return Err(Error::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("channel \"{name}\" is not yours to grant"),
        )
        .detail(format!("{} of {whose} {}.", users.one, users.does))
        .hint(way_out));
    }
    Ok(())
}

sql_function!(pushy_channel_grant_rows_v1, |call| channel_grant_rows(call));

/// Grants on channels of which the caller has the owner's rights, and those to it and to all.
fn channel_grant_rows(call: Call) -> Result<Answer> {
    let caller = identity::current_user();
    let owned = identity::as_owner(granted::all)?;
    call.answer_rows(|rows| {
        for owned in owned {
            let is_owner = owned.is_owned_by(caller);
            let channel = Channel::exact(&owned.channel)?.ident();
            let owner = match owned.shown_owner() {
                Some(owner) => Answer::Datum(text::to_name(&owner)),
                None => Answer::Null,
            };
            let nothing = || Answer::Null;
            let hold = |grant| Some((grant, owned.grantee_here(grant)?));
            let grants: Vec<_> = owned.grants.iter().filter_map(hold).collect();
            if is_owner && grants.is_empty() {
                rows.put(row![
                    channel,
                    nothing(),
                    nothing(),
                    nothing(),
                    owner,
                    nothing()
                ]);
                continue;
            }
            for (grant, (_, grantee)) in grants {
                let is_to_caller =
                    owned.is_home() && identity::has_rights_of(caller, grant.grantee);
                if !(is_owner || grant.is_to_all() || is_to_caller) {
                    continue;
                }
                rows.put(row![
                    channel.as_slice(),
                    text::to_name(&grantee),
                    grant.privilege.as_str(),
                    grant.topics.as_deref(),
                    owner,
                    Timestamp(grant.granted_at),
                ]);
            }
        }
        Ok(())
    })
}
