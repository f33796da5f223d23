//! Who hears a channel through a gateway: deny by default, as grants stand now, and for a subject.

use pushy_core::channel::is_private;
use pushy_core::log::cursor::Cursor;
use pushy_core::topic::{Pattern, Patterns};

use crate::channel::granted::{self, Grant, GrantedChannel};
use crate::errors::Result;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, text, BuiltinOid, Oid};

/// From where on somebody may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Since {
    Oldest,
    After(Cursor),
    /// It was granted before that was noted.
    Now,
}

/// Whether these topics of a channel (None: all of it) are for a role and subject: from where on, or why not.
pub fn ask(
    channel: &[u8],
    role: Oid,
    subject: Option<&str>,
    topics: Option<&[Pattern]>,
) -> Result<std::result::Result<Since, String>> {
    let name = text::shown(channel);
    if is_private(channel) {
        return Ok(Err(format!("channel \"{name}\" is for gateways alone")));
    }
    let owned = identity::as_owner(|| granted::of(&[channel.to_vec()]))?.pop();
    let Some(owned) = owned else {
        return Ok(Err(format!("channel \"{name}\" was granted to nobody")));
    };
    if owned.is_owned_by(role) {
        return Ok(Ok(Since::Oldest));
    }
    let subject = subject.map(|subject| text::encode_lossy(subject).into_owned());
    let parts = owned.parts_of(role, subject.as_deref());
    if parts.is_empty() {
        return Ok(Err(format!(
            "channel \"{name}\" was not granted to this role"
        )));
    }
    let Some(topics) = topics else {
        let of_all = parts.iter().filter(|(topics, _)| topics.is_none());
        let since = of_all.map(|(_, since)| *since).min();
        return Ok(since.ok_or_else(|| {
            format!("of channel \"{name}\" only some topics were granted to this role: say which")
        }));
    };
    let mut since = Since::Oldest;
    for asked in topics {
        let is_covering =
            |topics: &Option<Patterns>| topics.as_ref().is_none_or(|topics| topics.cover(asked));
        let covering = parts.iter().filter(|(topics, _)| is_covering(topics));
        match covering.map(|(_, since)| *since).min() {
            Some(own) => since = since.max(own),
            None => {
                return Ok(Err(format!(
                    "topic \"{}\" of channel \"{name}\" was not granted to this role and subject",
                    text::shown(&asked.written())
                )))
            }
        }
    }
    Ok(Ok(since))
}

/// Whether a role may hear anything of the channel, as anybody.
pub fn hears_some(channel: &[u8], role: Oid) -> Result<bool> {
    let owned = identity::as_owner(|| granted::of(&[channel.to_vec()]))?.pop();
    Ok(owned.is_some_and(|owned| {
        owned.is_owned_by(role) || owned.grants.iter().any(|grant| owned.is_for(grant, role))
    }))
}

static IS_GATEWAY: Plan = Plan::new(
    "SELECT pg_catalog.has_function_privilege($1, 'pushy_internal.gateway_authorize(text, text, text, text[])'::pg_catalog.regprocedure::pg_catalog.oid, 'EXECUTE')",
    &[BuiltinOid::OIDOID],
);

/// Whether a role is a gateway's, which reads every channel and decides for its sockets as `ask` says.
pub fn is_gateway(role: Oid) -> Result<bool> {
    identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            spi.run(&IS_GATEWAY, params![role]).row(0).bool(1)
        }))
    })
}

impl GrantedChannel {
    fn is_for(&self, grant: &Grant, role: Oid) -> bool {
        grant.is_to_all() || self.is_home() && identity::has_rights_of(role, grant.grantee)
    }

    /// The topics (None: all, and what has none) that were granted to the role, with the subject in its place, and since when.
    fn parts_of(&self, role: Oid, subject: Option<&[u8]>) -> Vec<(Option<Patterns>, Since)> {
        let own = self.grants.iter().filter(|grant| self.is_for(grant, role));
        let part = |grant: &Grant| {
            let topics = grant.patterns().map(|topics| topics.of_subject(subject));
            (topics, self.since(grant))
        };
        own.map(part).collect()
    }

    fn since(&self, grant: &Grant) -> Since {
        if !self.is_home() {
            // The log of the place where it was granted is not here.
            return Since::Oldest;
        }
        let noted = grant.cursor.as_deref().and_then(|text| text.parse().ok());
        noted.map_or(Since::Now, Since::After)
    }
}
