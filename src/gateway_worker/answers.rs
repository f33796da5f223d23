//! What the gateway asks, answered by the functions that one outside would call.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::frames;
use crate::errors::{Error, Result};
use crate::params;
use crate::pg::spi::{self, Param, Plan};
use crate::pg::{array, transaction, BuiltinOid};
use crate::shared::database::DatabaseSlot;

use BuiltinOid::{INT4OID, TEXTARRAYOID, TEXTOID};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Request {
    Position,
    Wait {
        after: String,
        at_most_ms: u64,
    },
    Read {
        after: String,
        max: i32,
    },
    Authorize {
        role: String,
        subject: Option<String>,
        channel: String,
        topics: Vec<String>,
    },
    Redeem {
        ticket: String,
    },
    Keys,
    Metrics,
    Report {
        sockets: String,
        rooms: String,
        in_all: String,
    },
    Cancel,
}

#[derive(Deserialize)]
struct Asked {
    id: u64,
    #[serde(flatten)]
    request: Request,
}

/// Somebody waits for the next tick.
struct Waiting {
    id: u64,
    until: Instant,
    /// How many there had been when it was looked whether there is something.
    ticks: u64,
}

pub struct Answers {
    database_slot: &'static DatabaseSlot,
    waiting: Vec<Waiting>,
}

static POSITION: Plan = Plan::new(
    "SELECT pg_catalog.to_json(pushy_internal.gateway_position())::pg_catalog.text",
    &[],
);

static READ: Plan = Plan::new(
    "SELECT pg_catalog.json_build_object( \
       'events', COALESCE(pg_catalog.json_agg(pg_catalog.json_strip_nulls(pg_catalog.json_build_object( \
                   'cursor', r.cursor, 'resync', r.resync, 'channel', r.channel, 'topic', r.topic, 'payload', r.payload, \
                   'at_us', pg_catalog.round(pg_catalog.extract('epoch', r.at) OPERATOR(pg_catalog.*) 1000000::pg_catalog.numeric)::pg_catalog.int8)) ORDER BY r.n) \
                 FILTER (WHERE r.more IS NULL), '[]'::pg_catalog.json), \
       'next', pg_catalog.max(r.cursor) FILTER (WHERE r.more IS NOT NULL))::pg_catalog.text \
       FROM pushy_internal.log_read(after => $1, max_notices => $2) WITH ORDINALITY AS r (cursor, channel, topic, payload, at, merge, resync, more, n)",
    &[TEXTOID, INT4OID],
);

/// Whether there is something after a cursor by now.
static HAS_MORE: Plan = Plan::new(
    "SELECT (pg_catalog.bool_or(r.more IS NULL) OR pg_catalog.bool_or(r.more) OR pg_catalog.max(r.cursor) OPERATOR(pg_catalog.<>) $1)::pg_catalog.text \
       FROM pushy_internal.log_read(after => $1, max_notices => 1) AS r",
    &[TEXTOID],
);

static AUTHORIZE: Plan = Plan::new(
    "SELECT CASE WHEN a.allowed \
       THEN pg_catalog.json_build_object('allowed', pg_catalog.json_strip_nulls(pg_catalog.json_build_object('channel', a.channel, 'since', a.since))) \
       ELSE pg_catalog.json_build_object('refused', pg_catalog.json_build_object('reason', a.reason)) END::pg_catalog.text \
       FROM pushy_internal.gateway_authorize($1, $2, $3, $4) a",
    &[TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID],
);

static REDEEM: Plan = Plan::new(
    "SELECT pg_catalog.to_json(r.*)::pg_catalog.text FROM pushy_internal.gateway_redeem($1) r",
    &[TEXTOID],
);

static KEYS: Plan = Plan::new(
    "SELECT COALESCE(pg_catalog.json_agg(k.*), '[]'::pg_catalog.json)::pg_catalog.text FROM pushy_internal.gateway_keys() k",
    &[],
);

static METRICS: Plan = Plan::new(
    "SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object('name', m.name, 'help', m.help, 'kind', m.kind, 'value', m.value, 'labels', \
       COALESCE((SELECT pg_catalog.json_agg(pg_catalog.json_build_array(l.key, l.value)) FROM pg_catalog.jsonb_each_text(m.labels) AS l (key, value)), '[]'::pg_catalog.json))), \
       '[]'::pg_catalog.json)::pg_catalog.text FROM pushy_internal.gateway_metrics() m",
    &[],
);

static REPORT: Plan = Plan::new(
    "SELECT 'null'::pg_catalog.text FROM (SELECT pushy_internal.gateway_report($1, $2, $3)) r",
    &[TEXTOID, TEXTOID, TEXTOID],
);

const NOTHING: &str = "null";
const UNHEARD_OF: &str =
    r#"{"refused":{"reason":"the database has no such channel, topic, role or subject"}}"#;

impl Answers {
    pub fn new(database_slot: &'static DatabaseSlot) -> Self {
        Self {
            database_slot,
            waiting: Vec::new(),
        }
    }

    /// Answers one message, or begins to wait for its answer. What cannot be read has no number to answer to; its asker's time ends it.
    pub fn hear(&mut self, message: &[u8], out: &mut Vec<u8>) {
        let Ok(Asked { id, request }) = serde_json::from_slice(message) else {
            return;
        };
        let answer = match request {
            Request::Cancel => {
                self.waiting.retain(|waiting| waiting.id != id);
                return;
            }
            Request::Wait { after, at_most_ms } => match self.wait(id, &after, at_most_ms) {
                Some(answer) => answer,
                None => return,
            },
            Request::Position => ask(&POSITION, |_| params![].to_vec()),
            Request::Read { after, max } => ask(&READ, |_| params![after.as_str(), max].to_vec()),
            Request::Authorize {
                role,
                subject,
                channel,
                topics,
            } => {
                let topics = topics.iter().map(String::as_str);
                let verdict = ask(&AUTHORIZE, |_| {
                    let topics = array::of_texts(topics);
                    params![role.as_str(), subject.as_deref(), channel.as_str(), topics].to_vec()
                });
                match verdict {
                    // What the encoding of the database does not have, nobody has granted.
                    Err(failure) if failure.sqlstate.as_str().starts_with("22") => {
                        Ok(UNHEARD_OF.to_owned())
                    }
                    verdict => verdict,
                }
            }
            Request::Redeem { ticket } => ask(&REDEEM, |_| params![ticket.as_str()].to_vec()),
            Request::Keys => ask(&KEYS, |_| params![].to_vec()),
            Request::Metrics => ask(&METRICS, |_| params![].to_vec()),
            Request::Report {
                sockets,
                rooms,
                in_all,
            } => ask(&REPORT, |_| {
                params![sockets.as_str(), rooms.as_str(), in_all.as_str()].to_vec()
            }),
        };
        put(id, &answer, out);
    }

    /// None: it is to be waited.
    fn wait(&mut self, id: u64, after: &str, at_most_ms: u64) -> Option<Result<String>> {
        let ticks = self.database_slot.log.ticks();
        let found = ask(&HAS_MORE, |_| params![after].to_vec());
        match found.as_deref() {
            Ok("false") => {
                self.waiting.push(Waiting {
                    id,
                    until: Instant::now() + Duration::from_millis(at_most_ms.min(86_400_000)),
                    ticks,
                });
                None
            }
            _ => Some(found),
        }
    }

    /// Answers those whose wait is over.
    pub fn look(&mut self, out: &mut Vec<u8>) {
        let (ticks, now) = (self.database_slot.log.ticks(), Instant::now());
        self.waiting.retain(|waiting| {
            let is_ready = waiting.ticks != ticks;
            let is_over = is_ready || waiting.until <= now;
            if is_over {
                put(waiting.id, &Ok(is_ready.to_string()), out);
            }
            !is_over
        });
    }

    /// Until when (from now) there is nothing to do by itself.
    pub fn next(&self) -> Duration {
        let now = Instant::now();
        let left = self
            .waiting
            .iter()
            .map(|waiting| waiting.until.saturating_duration_since(now));
        left.min().unwrap_or(Duration::MAX)
    }

    /// Does `sleep`, unless there is a tick that somebody waits for; one that comes meanwhile ends it.
    pub fn while_awaiting(&self, sleep: impl FnOnce()) {
        let log = &self.database_slot.log;
        if self.waiting.is_empty() {
            sleep();
            return;
        }
        log.while_awaiting_tick(|| {
            let ticks = log.ticks();
            if self.waiting.iter().all(|waiting| waiting.ticks == ticks) {
                sleep();
            }
        });
    }
}

/// One statement in a transaction of its own: a text of JSON.
fn ask(plan: &Plan, params: impl FnOnce(()) -> Vec<Param>) -> Result<String> {
    transaction::run(|| {
        spi::connect(|spi| {
            let params = params(());
            let found = spi.run(plan, &params);
            let answer = found.first().map(|row| row.opt_text(1)).transpose()?;
            Ok(answer.flatten().unwrap_or_else(|| NOTHING.to_owned()))
        })
    })
}

fn put(id: u64, answer: &Result<String>, out: &mut Vec<u8>) {
    let message = match answer {
        Ok(json) => format!("{{\"id\":{id},\"ok\":{json}}}"),
        Err(failure) => {
            let kind = if failure.is_busy() { "away" } else { "failed" };
            let why = serde_json::to_string(&said(failure)).unwrap_or_default();
            format!("{{\"id\":{id},\"error\":{{\"{kind}\":{why}}}}}")
        }
    };
    frames::put(out, &message);
}

fn said(failure: &Error) -> String {
    format!("{}: {}", failure.sqlstate.as_str(), failure.message)
}
