//! ticket_create, and the one time that a ticket is redeemed.

use crate::channel::{heard_outside, topic, Channel};
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::params;
use crate::pg::function::{Answer, Call};
use crate::pg::spi::{self, Plan};
use crate::pg::{array, identifier, identity, random, text, transaction, BuiltinOid, Oid};
use crate::{row, settings, sql_function};

use BuiltinOid::{INT8OID, OIDOID, TEXTARRAYOID, TEXTOID};

const MOST_CHANNELS: usize = 100;
const USUAL_US: i64 = 60_000_000;
const LONGEST_US: i64 = 86_400_000_000;
/// Bytes of a subject, as the gateway takes them from tokens.
const LONGEST_SUBJECT: usize = 256;

sql_function!(pushy_ticket_create_v1, |call| create(call));

// Nobody but the holder can read it in the table, nor in a log of what was written there.
static INSERT: Plan = Plan::new(
    "INSERT INTO pushy_internal.ticket (hash, role, subject, channels, topics, expires_at) \
     VALUES (pg_catalog.sha256(pg_catalog.convert_to($1, 'UTF8'::pg_catalog.name)), $2, $3, $4, $5, \
             pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) ($6 OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval))",
    &[TEXTOID, OIDOID, TEXTOID, TEXTARRAYOID, TEXTOID, INT8OID],
);

/// A few of those whose time is over: as many calls as make them take them away.
static TIDY: Plan = Plan::new(
    "DELETE FROM pushy_internal.ticket d USING ( \
       SELECT t.hash FROM pushy_internal.ticket t WHERE t.expires_at OPERATOR(pg_catalog.<) pg_catalog.clock_timestamp() \
        ORDER BY t.expires_at LIMIT 10 FOR UPDATE SKIP LOCKED) o WHERE d.hash OPERATOR(pg_catalog.=) o.hash",
    &[],
);

static ARE_MORE: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.ticket t WHERE t.role OPERATOR(pg_catalog.=) $1 OFFSET $2)",
    &[OIDOID, INT8OID],
);

fn create(call: Call) -> Result<String> {
    transaction::require_writable(c"pushy.ticket_create()");
    let channels = channels(call)?;
    let topics = call.opt_bytes(1);
    if let Some(topics) = &topics {
        topic::patterns_of_text("topics", topics)?;
    }
    let topics = call.opt_text(1)?;
    let subject = subject(call)?;
    let valid_us = call.opt_interval_us("valid", 3)?.unwrap_or(USUAL_US);
    if !(1..=LONGEST_US).contains(&valid_us) {
        return Err(Error::out_of_range(
            "valid",
            call.shown_interval(3),
            "more than 0, and 1 day at most",
        ));
    }
    let role = identity::current_user();
    for channel in &channels {
        require_heard(channel, role)?;
    }
    let ticket = made()?;
    identity::as_owner(|| {
        spi::run(&TIDY, &[]);
        require_share(role)?;
        let written = params![
            ticket.as_str(),
            role,
            subject.as_deref(),
            array::of_text_bytes(&channels),
            topics.as_deref(),
            valid_us
        ];
        spi::run(&INSERT, written);
        Ok(())
    })?;
    Ok(ticket)
}

fn made() -> Result<String> {
    let mut ticket = String::from("t_");
    for _ in 0..2 {
        for byte in random::secret_uuid()?.0 {
            ticket.push_str(&format!("{byte:02x}"));
        }
    }
    Ok(ticket)
}

fn channels(call: Call) -> Result<Vec<Vec<u8>>> {
    let given = call
        .datum(0)
        .ok_or_else(|| Error::null_argument("channels"))?;
    let written = array::text_bytes(given);
    if !(1..=MOST_CHANNELS).contains(&written.len()) {
        return Err(Error::out_of_range(
            "channels",
            format!("an array of {}", written.len()),
            "1 to 100 channels, written as after LISTEN",
        ));
    }
    let name = |(at, channel): (usize, Option<Vec<u8>>)| {
        let channel =
            channel.ok_or_else(|| Error::null_argument(&format!("channels[{}]", at + 1)))?;
        Ok(Channel::declared(&channel)?.into_bytes())
    };
    written.enumerate().map(name).collect()
}

fn subject(call: Call) -> Result<Option<String>> {
    match call.opt_text(2)? {
        Some(subject)
            if subject.is_empty()
                || subject.len() > LONGEST_SUBJECT
                || subject.contains(char::is_control) =>
        {
            Err(Error::out_of_range(
                "subject",
                format!("a text of {} bytes", subject.len()),
                "1 to 256 bytes of printable characters; leave it out for none",
            ))
        }
        subject => Ok(subject),
    }
}

/// Of what nobody could read no ticket is made.
fn require_heard(channel: &[u8], role: Oid) -> Result<()> {
    if heard_outside::hears_some(channel, role)? {
        return Ok(());
    }
    let name = identity::role_name(role);
    Err(Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!(
            "channel \"{}\" was not granted to role {}",
            text::shown(channel),
            identifier::quoted(&name)
        ),
    )
    .detail("Outside, a channel is heard by those only to whom it was granted.")
    .hint(format!(
        "SELECT pushy.channel_grant({}, {})",
        quote_literal(&Channel::shown_ident(channel)),
        quote_literal(&name)
    )))
}

fn require_share(role: Oid) -> Result<()> {
    let most = settings::max_tickets_per_role();
    if most == 0 || identity::is_superuser(role) {
        return Ok(());
    }
    let are_too_many =
        spi::connect(|spi| spi.run(&ARE_MORE, params![role, most - 1]).row(0).bool(1));
    if !are_too_many {
        return Ok(());
    }
    Err(Error::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        format!(
            "role {} has as many tickets that were not redeemed as pushy.max_tickets_per_role allows, {most}",
            identifier::quoted(&identity::role_name(role))
        ),
    )
    .hint("Make tickets valid for less long, or ask a superuser to raise pushy.max_tickets_per_role."))
}

sql_function!(pushy_gateway_redeem_v1, |call| redeem(call));

// Who meets one that another redeems at this moment finds none.
static REDEEM: Plan = Plan::new(
    "DELETE FROM pushy_internal.ticket d USING ( \
       SELECT t.hash FROM pushy_internal.ticket t \
        WHERE t.hash OPERATOR(pg_catalog.=) pg_catalog.sha256(pg_catalog.convert_to($1, 'UTF8'::pg_catalog.name)) FOR UPDATE SKIP LOCKED) o \
      WHERE d.hash OPERATOR(pg_catalog.=) o.hash \
  RETURNING d.role, d.subject, d.channels, d.topics, d.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()",
    &[TEXTOID],
);

fn redeem(call: Call) -> Result<Answer> {
    transaction::require_writable(c"pushy_internal.gateway_redeem()");
    let ticket = call.text("ticket", 0)?;
    call.answer_rows(|rows| {
        identity::as_owner(|| {
            spi::connect(|spi| {
                let found = spi.run(&REDEEM, params![ticket.as_str()]);
                let Some(row) = found.first().filter(|row| row.bool(5)) else {
                    return Ok(());
                };
                // A role that is gone has no tickets.
                if let Some(role) = identity::role(row.oid(1)) {
                    rows.put(row![
                        role.name,
                        row.opt_text(2)?,
                        row.answer(3),
                        row.opt_text(4)?
                    ]);
                }
                Ok(())
            })
        })
    })
}
