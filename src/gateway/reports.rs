//! What gateways say of their sockets and rooms, and who sees it; socket_close.

use std::collections::BTreeMap;

use pushy_core::topic::Pattern;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::channel::{heard_outside, topic, Channel};
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::params;
use crate::pg::function::{Answer, Call};
use crate::pg::spi::{self, Plan};
use crate::pg::{database, identifier, identity, text, transaction, worker, BuiltinOid};
use crate::queue::gateway_event::{self, GatewayEvent};
use crate::sql_function;

use BuiltinOid::{BOOLOID, INT4OID, INT8OID, OIDOID, TEXTOID};

/// Bytes of a part of a report.
const LONGEST: usize = 16 * 1024 * 1024;

sql_function!(pushy_gateway_report_v1, |call| report(call));

// Of a session that has ended nobody writes any more.
static TIDY: Plan = Plan::new(
    "DELETE FROM pushy_internal.gateway_report d USING ( \
       SELECT r.pid FROM pushy_internal.gateway_report r \
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a \
                           WHERE a.pid OPERATOR(pg_catalog.=) r.pid AND a.backend_start OPERATOR(pg_catalog.=) r.started) \
          FOR UPDATE SKIP LOCKED) o WHERE d.pid OPERATOR(pg_catalog.=) o.pid",
    &[],
);

static REPORT: Plan = Plan::new(
    "INSERT INTO pushy_internal.gateway_report AS r (pid, started, address, reported_at, sockets, rooms, open, room_count) \
     SELECT a.pid, a.backend_start, CASE WHEN a.backend_type OPERATOR(pg_catalog.=) 'client backend' THEN COALESCE(pg_catalog.host(a.client_addr), 'local') END, \
            pg_catalog.clock_timestamp(), $2::pg_catalog.jsonb, $3::pg_catalog.jsonb, $4::pg_catalog.jsonb, $5 \
       FROM pg_catalog.pg_stat_activity a WHERE a.pid OPERATOR(pg_catalog.=) $1 \
     ON CONFLICT (pid) DO UPDATE SET started = excluded.started, address = excluded.address, reported_at = excluded.reported_at, \
            sockets = excluded.sockets, rooms = excluded.rooms, open = excluded.open, room_count = excluded.room_count",
    &[INT4OID, TEXTOID, TEXTOID, TEXTOID, INT8OID],
);

#[derive(Clone, Copy, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Sse,
    Websocket,
    Poll,
}

/// What a gateway says of a socket. Readers of the view meet nothing else, whatever a gateway has sent.
#[derive(Deserialize, Serialize)]
struct SocketRow {
    id: i64,
    subject: Option<Shown>,
    role: Shown,
    address: Shown,
    transport: Transport,
    since_us: Microseconds,
    channels: Vec<(Shown, Shown)>,
    subscriptions: i64,
    sent: i64,
    buffered_notices: i64,
    buffered_bytes: i64,
    lag_us: Microseconds,
}

#[derive(Deserialize, Serialize)]
struct RoomRow {
    channel: Shown,
    topic: Shown,
    members: Vec<Shown>,
}

#[derive(Deserialize)]
struct InAll {
    open: BTreeMap<Transport, u32>,
    rooms: u32,
}

/// A text that the database can have: without NUL, in its encoding.
#[derive(Deserialize, Serialize)]
#[serde(from = "String")]
struct Shown(String);

impl From<String> for Shown {
    fn from(said: String) -> Self {
        let said = said.replace(char::is_control, "?");
        let encoded = text::encode_lossy(&said);
        if encoded.is_ascii() {
            return Self(String::from_utf8_lossy(&encoded).into_owned());
        }
        drop(encoded);
        Self(said)
    }
}

/// A time, or a length of time, that the server has.
#[derive(Deserialize, Serialize)]
#[serde(from = "i64")]
struct Microseconds(i64);

impl From<i64> for Microseconds {
    fn from(said: i64) -> Self {
        // The year 9999.
        Self(said.clamp(0, 253_402_300_799_999_999))
    }
}

fn report(call: Call) -> Result<()> {
    transaction::require_writable(c"pushy_internal.gateway_report()");
    let sockets = rows::<SocketRow>(call, "sockets", 0)?;
    let rooms = rows::<RoomRow>(call, "rooms", 1)?;
    let in_all: InAll = read(call, "in_all", 2)?;
    let open = serde_json::to_string(&in_all.open).unwrap_or_default();
    identity::as_owner(|| {
        spi::run(&TIDY, &[]);
        spi::run(
            &REPORT,
            params![
                worker::my_pid(),
                sockets.as_str(),
                rooms.as_str(),
                open.as_str(),
                i64::from(in_all.rooms)
            ],
        );
        Ok(())
    })
}

fn read<T: DeserializeOwned>(call: Call, argument: &str, index: usize) -> Result<T> {
    let given = call.text(argument, index)?;
    let read = (given.len() <= LONGEST)
        .then(|| serde_json::from_str(&given).ok())
        .flatten();
    read.ok_or_else(|| {
        Error::out_of_range(
            argument,
            format!("a text of {} bytes", given.len()),
            "JSON as pushy-gateway sends it",
        )
    })
}

/// Those that are such rows, as they are kept: one that is none says nothing of the others.
fn rows<T: DeserializeOwned + Serialize>(
    call: Call,
    argument: &str,
    index: usize,
) -> Result<String> {
    let given: Vec<Value> = read(call, argument, index)?;
    let row = |one| serde_json::from_value::<T>(one).ok();
    let kept: Vec<T> = given.into_iter().filter_map(row).collect();
    Ok(serde_json::to_string(&kept).unwrap_or_default())
}

sql_function!(pushy_socket_rows_v1, |call| socket_rows(call));

macro_rules! alive {
    () => {
        "pushy_internal.gateway_report r JOIN pg_catalog.pg_stat_activity a \
           ON a.pid OPERATOR(pg_catalog.=) r.pid AND a.backend_start OPERATOR(pg_catalog.=) r.started "
    };
}

static SOCKETS: Plan = Plan::new(
    concat!(
        "SELECT CASE WHEN r.address IS NULL THEN 'inside' ELSE pg_catalog.format('%s, process %s', r.address, r.pid) END, \
                s.id, s.subject, s.role, s.address, s.transport, \
                '1970-01-01 00:00:00+00'::pg_catalog.timestamptz OPERATOR(pg_catalog.+) (s.since_us OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval), \
                ARRAY(SELECT c.e OPERATOR(pg_catalog.->>) 0 FROM pg_catalog.jsonb_array_elements(s.channels) WITH ORDINALITY AS c (e, n) ORDER BY c.n), \
                ARRAY(SELECT c.e OPERATOR(pg_catalog.->>) 1 FROM pg_catalog.jsonb_array_elements(s.channels) WITH ORDINALITY AS c (e, n) ORDER BY c.n), \
                s.sent, s.buffered_notices, s.buffered_bytes, s.lag_us OPERATOR(pg_catalog.*) '1 microsecond'::pg_catalog.interval, r.reported_at, \
                s.subscriptions \
           FROM ", alive!(),
        "CROSS JOIN LATERAL pg_catalog.jsonb_to_recordset(r.sockets) AS s (id pg_catalog.int8, subject pg_catalog.text, role pg_catalog.text, \
                address pg_catalog.text, transport pg_catalog.text, since_us pg_catalog.int8, channels pg_catalog.jsonb, sent pg_catalog.int8, \
                buffered_notices pg_catalog.int8, buffered_bytes pg_catalog.int8, lag_us pg_catalog.int8, subscriptions pg_catalog.int8) \
          WHERE $1 OR EXISTS (SELECT FROM pg_catalog.pg_roles x WHERE x.rolname OPERATOR(pg_catalog.=) s.role::pg_catalog.name \
                                 AND pg_catalog.pg_has_role($2, x.oid, 'USAGE')) \
          ORDER BY 1, 2"
    ),
    &[BOOLOID, OIDOID],
);

/// None on a standby, which has no unlogged table.
fn socket_rows(call: Call) -> Result<Answer> {
    let caller = identity::current_user();
    let sees_all = identity::reads_all_statistics(caller);
    call.answer_rows(|rows| {
        if transaction::is_in_recovery() {
            return Ok(());
        }
        identity::as_owner(|| {
            spi::connect(|spi| {
                for row in spi.run(&SOCKETS, params![sees_all, caller]).rows() {
                    let columns: Vec<Answer> = (1..=15).map(|column| row.answer(column)).collect();
                    rows.put(&columns);
                }
                Ok(())
            })
        })
    })
}

sql_function!(pushy_socket_counts_v1, |call| socket_counts(call));

static COUNTS: Plan = Plan::new(
    concat!(
        "SELECT o.key, pg_catalog.sum(o.value::pg_catalog.int8)::pg_catalog.int8 FROM ",
        alive!(),
        "CROSS JOIN LATERAL pg_catalog.jsonb_each_text(r.open) AS o (key, value) GROUP BY o.key"
    ),
    &[],
);
static COUNTS_OF_CALLER: Plan = Plan::new(
    "SELECT s.transport, pg_catalog.count(*) FROM pushy.sockets s GROUP BY s.transport",
    &[],
);

fn socket_counts(call: Call) -> Result<Answer> {
    let sees_all = identity::reads_all_statistics(identity::current_user());
    call.answer_rows(|rows| {
        let mut count = |plan: &'static Plan| {
            spi::connect(|spi| {
                for row in spi.run(plan, &[]).rows() {
                    rows.put(&[row.answer(1), row.answer(2)]);
                }
                Ok(())
            })
        };
        if transaction::is_in_recovery() {
            return Ok(());
        }
        if sees_all {
            return identity::as_owner(|| count(&COUNTS));
        }
        count(&COUNTS_OF_CALLER)
    })
}

sql_function!(pushy_presence_v1, |call| presence(call));

static PRESENT: Plan = Plan::new(
    concat!(
        "SELECT DISTINCT m.subject FROM ", alive!(),
        "CROSS JOIN LATERAL pg_catalog.jsonb_to_recordset(r.rooms) AS o (channel pg_catalog.text, topic pg_catalog.text, members pg_catalog.jsonb) \
         CROSS JOIN LATERAL pg_catalog.jsonb_array_elements_text(o.members) AS m (subject) \
          WHERE o.channel OPERATOR(pg_catalog.=) $1 AND o.topic OPERATOR(pg_catalog.=) $2 ORDER BY m.subject"
    ),
    &[TEXTOID, TEXTOID],
);

fn presence(call: Call) -> Result<Answer> {
    let channel = Channel::declared(&call.bytes("channel", 0)?)?;
    let topic = topic::checked(call.bytes("topic", 1)?)?;
    let asked = [Pattern::of_topic(&topic)];
    let caller = identity::current_user();
    let answer = heard_outside::ask(channel.as_bytes(), caller, None, Some(&asked))?;
    if let (Err(reason), false) = (answer, identity::reads_all_statistics(caller)) {
        return Err(
            Error::new(SqlState::INSUFFICIENT_PRIVILEGE, reason).hint(format!(
                "The channel's owner can run: SELECT pushy.channel_grant({}, {})",
                quote_literal(&Channel::shown_ident(channel.as_bytes())),
                quote_literal(&identity::role_name(caller))
            )),
        );
    }
    call.answer_rows(|rows| {
        if transaction::is_in_recovery() {
            return Ok(());
        }
        let named = params![
            text::bytes_to_datum(channel.as_bytes()),
            text::bytes_to_datum(&topic)
        ];
        identity::as_owner(|| {
            spi::connect(|spi| {
                for row in spi.run(&PRESENT, named).rows() {
                    rows.put(&[row.answer(1)]);
                }
                Ok(())
            })
        })
    })
}

sql_function!(pushy_socket_close_v1, |call| socket_close(call));

static MEANT: Plan = Plan::new(
    concat!(
        "SELECT pg_catalog.count(*)::pg_catalog.int4 FROM ", alive!(),
        "CROSS JOIN LATERAL pg_catalog.jsonb_to_recordset(r.sockets) AS s (subject pg_catalog.text, channels pg_catalog.jsonb) \
          WHERE ($1 IS NULL OR s.subject OPERATOR(pg_catalog.=) $1) \
            AND ($2 IS NULL OR EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(s.channels) AS c (e) \
                                        WHERE (c.e OPERATOR(pg_catalog.->>) 0) OPERATOR(pg_catalog.=) $2 \
                                          AND ($3 IS NULL OR $3 OPERATOR(pg_catalog.=) ANY (pg_catalog.string_to_array(c.e OPERATOR(pg_catalog.->>) 1, ', ')))))"
    ),
    &[TEXTOID, TEXTOID, TEXTOID],
);

/// Bytes of what is said of sockets: the event log has it.
const LONGEST_WORD: usize = 1024;

fn socket_close(call: Call) -> Result<i32> {
    transaction::require_writable(c"pushy.socket_close()");
    let subject = word(call, "subject", 0)?;
    let channel = call
        .opt_bytes(1)
        .map(|channel| Channel::declared(&channel))
        .transpose()?;
    let topic = word(call, "topic", 2)?;
    let reason = word(call, "reason", 3)?;
    if subject.is_none() && channel.is_none() {
        return Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "socket_close needs a subject or a channel",
        )
        .hint("pushy.sockets shows who is there."));
    }
    if topic.is_some() && channel.is_none() {
        return Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("topic \"{}\" is of no channel", topic.unwrap_or_default()),
        )
        .hint("Pass the channel, too."));
    }
    let channel = channel.map(|channel| text::shown(channel.as_bytes()));
    let named = params![subject.as_deref(), channel.as_deref(), topic.as_deref()];
    let meant =
        identity::as_owner(|| Ok(spi::connect(|spi| spi.run(&MEANT, named).row(0).i32(1))))?;
    gateway_event::publish(&GatewayEvent::SocketClose {
        subject: subject.as_deref(),
        channel: channel.as_deref(),
        topic: topic.as_deref(),
        reason: reason.as_deref(),
    })?;
    Ok(meant)
}

fn word(call: Call, argument: &str, index: usize) -> Result<Option<String>> {
    match call.opt_text(index)? {
        Some(word) if word.len() > LONGEST_WORD => Err(Error::out_of_range(
            argument,
            format!("a text of {} bytes", word.len()),
            "1024 bytes at most",
        )),
        word => Ok(word),
    }
}

static REPORTING: Plan = Plan::new(concat!("SELECT pg_catalog.count(*) FROM ", alive!()), &[]);

/// How many gateways are there, as far as they have reported. As the extension's owner.
pub(super) fn count() -> i64 {
    if transaction::is_in_recovery() {
        return 0;
    }
    spi::connect(|spi| spi.run(&REPORTING, &[]).row(0).i64(1))
}

static HIDDEN: Plan = Plan::new(
    concat!(
        "SELECT COALESCE(pg_catalog.sum(n.sockets OPERATOR(pg_catalog.-) pg_catalog.jsonb_array_length(r.sockets)), 0)::pg_catalog.int8, \
                COALESCE(pg_catalog.sum(r.room_count OPERATOR(pg_catalog.-) pg_catalog.jsonb_array_length(r.rooms)), 0)::pg_catalog.int8 FROM ", alive!(),
        "CROSS JOIN LATERAL (SELECT COALESCE(pg_catalog.sum(o.value::pg_catalog.int8), 0) AS sockets FROM pg_catalog.jsonb_each_text(r.open) AS o (key, value)) n"
    ),
    &[],
);

/// How many sockets and rooms there are more than the views show. As the extension's owner.
pub(super) fn hidden() -> (i64, i64) {
    if transaction::is_in_recovery() {
        return (0, 0);
    }
    spi::connect(|spi| {
        let found = spi.run(&HIDDEN, &[]);
        (found.row(0).i64(1).max(0), found.row(0).i64(2).max(0))
    })
}

/// For messages: how a role becomes a gateway's.
pub(super) fn example() -> String {
    let role = identifier::quoted("gateway");
    let database = identifier::quoted(&database::name(database::current()).unwrap_or_default());
    format!(
        "ALTER DATABASE {database} SET pushy.gateway_listen = '127.0.0.1:8432', or CREATE ROLE {role} LOGIN; SELECT pushy.gateway_grant({}), and start pushy-gateway --dsn … as that role",
        quote_literal("gateway")
    )
}
