//! docs/gateway-protocol.md says what the gateway does: its tables are walked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pushy_gateway::settings::TABLE;
use pushy_gateway::ways::close::{self, Close, Next};
use pushy_gateway::ways::message::{Code, Incoming};
use serde_json::{json, Value};

use crate::stage::{token, token_for, Socket, Stage};

const PAGE: &str = include_str!("../../../docs/gateway-protocol.md");

/// The rows of the tables below a heading, without their heads.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let section = PAGE
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .unwrap();
    let lines: Vec<&str> = section.lines().collect();
    let is_row = |n: usize| {
        lines[n].starts_with("| ")
            && !lines[n].starts_with("| ---")
            && lines
                .get(n + 1)
                .is_none_or(|next| !next.starts_with("| ---"))
    };
    let rows = (0..lines.len()).filter(|n| is_row(*n));
    rows.map(|n| lines[n].trim_matches(['|', ' ']).split(" | ").collect())
        .collect()
}

fn code(cell: &str) -> &str {
    cell.trim_matches('`')
}

#[test]
fn each_setting_is_there_with_its_default() {
    let said: Vec<(String, String, String)> = rows("Settings and limits")
        .iter()
        .map(|row| {
            (
                code(row[0]).to_owned(),
                if row[1] == "empty" {
                    String::new()
                } else {
                    code(row[1]).to_owned()
                },
                row[2].to_owned(),
            )
        })
        .collect();
    let own: Vec<(String, String, String)> = TABLE
        .iter()
        .map(|(name, default, what)| {
            (
                (*name).to_owned(),
                (*default).to_owned(),
                what.trim().to_owned(),
            )
        })
        .collect();
    assert_eq!(said, own);
}

#[test]
fn each_code_of_closing_is_there_and_its_hundreds_say_what_to_do() {
    let said: Vec<(u16, &str)> = rows("Codes of closing")
        .iter()
        .map(|row| (row[0].parse().unwrap(), code(row[1])))
        .collect();
    assert_eq!(said, close::ALL);
    for row in rows("Codes of closing") {
        let close = Close {
            code: row[0].parse().unwrap(),
            ..close::SLOW
        };
        let expected = match close.code / 100 {
            41 => Next::Renew,
            42 => Next::Stop,
            43 => Next::Later,
            _ => Next::ComeBack,
        };
        assert_eq!(close.next(), expected);
        assert_eq!(
            row[2].starts_with("do not"),
            expected == Next::Stop,
            "{row:?}"
        );
    }
}

#[test]
fn each_code_of_an_error_is_there() {
    let said: Vec<(&str, u16)> = rows("Codes of errors")
        .iter()
        .map(|row| (code(row[0]), row[1].parse().unwrap()))
        .collect();
    let own: Vec<(&str, u16)> = Code::ALL
        .iter()
        .map(|code| (code.word(), code.status()))
        .collect();
    assert_eq!(said, own);
}

#[test]
fn each_message_of_a_client_is_one() {
    for row in rows("From the client") {
        serde_json::from_str::<Incoming>(code(row[0])).unwrap();
    }
    assert_eq!(
        kinds_of(&rows("From the client")),
        ["auth", "ping", "subscribe", "unsubscribe"]
            .map(str::to_owned)
            .into()
    );
}

fn kinds_of(rows: &[Vec<&str>]) -> BTreeSet<String> {
    rows.iter()
        .map(|row| kind(&serde_json::from_str(code(row[0])).unwrap()))
        .collect()
}

/// `presence` has several.
fn kind(said: &Value) -> String {
    let kind = said["type"].as_str().unwrap().to_owned();
    match said["event"].as_str() {
        Some(event) => format!("{kind} {event}"),
        None => kind,
    }
}

fn members(said: &Value) -> BTreeMap<String, &'static str> {
    let shape = |value: &Value| match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "boolean",
        Value::Object(_) => "object",
        Value::Null => "null",
    };
    said.as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), shape(value)))
        .collect()
}

/// Until one of this kind has come; the first of each is kept.
async fn gather(heard: &mut BTreeMap<String, Value>, socket: &mut Socket, until: &str) {
    loop {
        let said = socket.hear().await;
        assert!(said.get("closed").is_none(), "{said} before {until}");
        let kind = kind(&said);
        heard.entry(kind.clone()).or_insert(said);
        if kind == until {
            return;
        }
    }
}

#[tokio::test]
async fn each_message_to_a_client_is_as_the_page_has_it() {
    let stage = Stage::open(|settings| {
        settings.keep_alive = Duration::from_millis(50);
        settings.leeway = Duration::ZERO;
        settings.recent_notices = 1;
    })
    .await;
    let mut heard = BTreeMap::new();
    let mut ann = stage.try_socket("/socket", &[]).await.unwrap();
    ann.say(json!({"type": "auth", "token": token_for("ann", 600)}))
        .await;
    ann.say(json!({"type": "subscribe", "id": 1, "channel": "orders", "topics": ["post/42"], "presence": true})).await;
    gather(&mut heard, &mut ann, "presence state").await;
    let mut bob = stage.socket("bob").await;
    bob.say(json!({"type": "subscribe", "id": 1, "channel": "orders", "topics": ["post/42"], "presence": true})).await;
    gather(&mut heard, &mut ann, "presence join").await;
    stage.memory.publish("orders", Some("post/42"), "payload");
    gather(&mut heard, &mut ann, "notice").await;
    gather(&mut heard, &mut ann, "position").await;
    ann.say(json!({"type": "ping", "id": 7})).await;
    gather(&mut heard, &mut ann, "pong").await;
    stage.memory.empty(stage.gateway.hub.end());
    ann.say(json!({"type": "subscribe", "id": 2, "channel": "orders", "after": "0-0-0"}))
        .await;
    gather(&mut heard, &mut ann, "live").await;
    ann.say(json!({"type": "subscribe", "id": 3, "channel": "secret"}))
        .await;
    gather(&mut heard, &mut ann, "error").await;
    ann.say(json!({"type": "unsubscribe", "id": 2})).await;
    gather(&mut heard, &mut ann, "unsubscribed").await;
    let bearer = format!("Bearer {}", token_for("eve", 2));
    let mut eve = stage
        .try_socket("/socket", &[("authorization", &bearer)])
        .await
        .unwrap();
    gather(&mut heard, &mut eve, "expiring").await;
    let table = rows("To the client");
    assert_eq!(kinds_of(&table), heard.keys().cloned().collect());
    for row in &table {
        let said: Value = serde_json::from_str(code(row[0])).unwrap();
        let own = &heard[&kind(&said)];
        assert_eq!(members(&said), members(own), "{own}");
    }
}

#[tokio::test]
async fn each_way_in_is_there_and_each_parameter_does_something() {
    let stage = Stage::open(|_| {}).await;
    let tables = rows("Ways in");
    let (ways, parameters): (Vec<_>, Vec<_>) =
        tables.iter().partition(|row| code(row[0]).starts_with('/'));
    for row in ways {
        let status = stage.get(code(row[0])).await.status;
        assert_ne!(status, 404, "{row:?}");
    }
    let names: Vec<&str> = parameters.iter().map(|row| code(row[0])).collect();
    // What each takes that is wrong, is refused; so it is read.
    for (name, wrong, status) in [
        ("channel", "", 400),
        ("topic", "**/a", 400),
        ("after", "x", 400),
        ("latest", "1", 200),
        ("ticket", "none", 401),
        ("wait", "x", 400),
        ("max", "x", 400),
    ] {
        assert!(names.contains(&name));
        let channel = if name == "channel" {
            ""
        } else {
            "channel=orders&"
        };
        let path = format!("/notices?{channel}{name}={wrong}");
        let bearer = format!("Bearer {}", token("ann"));
        let fields: &[(&str, &str)] = if name == "ticket" {
            &[]
        } else {
            &[("Authorization", &bearer)]
        };
        assert_eq!(
            stage.request("GET", &path, fields).await.status,
            status,
            "{path}"
        );
    }
    assert_eq!(names.len(), 7);
}
