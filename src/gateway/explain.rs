//! gateway_explain: in words why nobody can connect and hear something, and what changes it.

use std::sync::atomic::Ordering;

use super::{keys, reports};
use crate::errors::Result;
use crate::obstacle::{self, blocked, said, Finding};
use crate::pg::spi::{self, Plan};
use crate::pg::{database, identity, transaction};
use crate::{row, shared, sql_function};

sql_function!(pushy_gateway_explain_v1, |call| {
    let findings = explain()?;
    call.answer_rows(|rows| {
        for finding in findings {
            rows.put(row![finding.reason, finding.fix]);
        }
        Ok(())
    })
});

struct Here {
    keys: i64,
    tickets: i64,
    channels: i64,
}

static KEYS_AND_CHANNELS: Plan = Plan::new(
    "SELECT (SELECT pg_catalog.count(*) FROM pushy_internal.gateway_key k), (SELECT pg_catalog.count(*) FROM pushy_internal.channel c)",
    &[],
);
static TICKETS: Plan = Plan::new(
    "SELECT pg_catalog.count(*) FROM pushy_internal.ticket t WHERE t.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()",
    &[],
);

fn here() -> Here {
    let (keys, channels) = spi::connect(|spi| {
        let counted = spi.run(&KEYS_AND_CHANNELS, &[]);
        (counted.row(0).i64(1), counted.row(0).i64(2))
    });
    // A standby has no unlogged tables.
    let tickets = if transaction::is_in_recovery() {
        0
    } else {
        spi::connect(|spi| spi.run(&TICKETS, &[]).row(0).i64(1))
    };
    Here {
        keys,
        tickets,
        channels,
    }
}

/// What is known, the things that block everything first.
fn explain() -> Result<Vec<Finding>> {
    let mut findings = obstacle::of_workers();
    let (here, gateways, hidden) =
        identity::as_owner(|| Ok((here(), reports::count(), reports::hidden())))?;
    let is_ours = shared::get()
        .and_then(|shared| shared.find_database(database::current()))
        .is_some_and(|slot| slot.gateway_settings.load(Ordering::SeqCst) != 0);
    if gateways == 0 && is_ours {
        findings.push(blocked(
            "the gateway that pushy.gateway_listen asks for has not reported: it is being started, or cannot start",
            "Look into the server's log for lines with pushy-gateway, and for 'the gateway'",
        ));
    } else if gateways == 0 {
        findings.push(blocked(
            "no gateway has reported that it is connected to this database",
            reports::example(),
        ));
    }
    if here.channels == 0 {
        findings.push(blocked(
            "no channel was granted to anybody, and outside a channel is heard by those only to whom it was granted",
            "SELECT pushy.channel_grant('orders', 'web')",
        ));
    }
    if here.keys == 0 {
        let tickets = match here.tickets {
            0 => "and there is no ticket that could be redeemed".to_owned(),
            some => format!("so tickets only let somebody in, of which {some} can be redeemed"),
        };
        let reason = format!("no key of tokens is registered, {tickets}");
        findings.push(blocked(
            reason,
            format!(
                "{}, or SELECT pushy.ticket_create('{{orders}}') for each connection",
                keys::example()
            ),
        ));
    }
    let is_clear = findings.is_empty();
    if hidden != (0, 0) {
        let (sockets, rooms) = hidden;
        findings.push(said(format!(
            "the reports of gateways have no room for {sockets} sockets and {rooms} rooms, which pushy.sockets and pushy.presence do not show; pushy.metrics() counts all sockets",
        )));
    }
    if is_clear {
        findings.push(said(
            "nothing is in the way: who brings a good token or ticket is let in, and hears what was granted to its role",
        ));
    }
    Ok(findings)
}
