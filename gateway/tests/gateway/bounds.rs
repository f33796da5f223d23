//! What nobody can make too much of, and what nobody hears who may not.

use std::sync::Arc;
use std::time::Duration;

use pushy_core::log::cursor::Cursor;
use pushy_gateway::hub::outbox::{Full, Item, Outbox};
use pushy_gateway::hub::{Hub, Step};
use pushy_gateway::limits::Budget;
use pushy_gateway::notice::Notice;
use pushy_gateway::report::report;
use pushy_gateway::source::{Chunk, Event, SourceError};
use pushy_gateway::topics::routes::Wants;
use pushy_gateway::ways::session::Session;
use pushy_gateway::who::Principal;
use serde_json::{json, Value};

use crate::stage::{token, Stage};

fn at(tick: i64) -> Cursor {
    Cursor::new(1, tick, 1)
}

fn notice(tick: i64) -> Event {
    Event::Notice(Arc::new(Notice::new(
        at(tick),
        "c",
        Some("t"),
        &tick.to_string(),
        0,
    )))
}

fn wants() -> Wants {
    Wants {
        channel: "c".into(),
        topics: None,
    }
}

fn heard(outbox: &Outbox) -> Vec<String> {
    let said = |item: Item| match item {
        Item::Notice { notice, .. } => format!("notice {}", notice.cursor.tick),
        Item::Resync { cursor, .. } => format!("resync {}", cursor.tick),
        Item::Message(text) => text.to_string(),
    };
    outbox.take(1_000).into_iter().map(said).collect()
}

fn hub() -> (Hub, Arc<Outbox>) {
    let hub = Hub::new(1_000, 1 << 20);
    hub.open(at(1));
    let outbox = hub.outbox(1_000, 1 << 20);
    (hub, outbox)
}

#[test]
fn the_first_subscription_hears_nothing_of_before_it_was_let_in() {
    let (hub, outbox) = hub();
    let mut begins = None;
    // The server has let it in at 5; the gateway has read up to 1.
    let asked = hub.asked_at();
    hub.subscribe(&outbox, 1, wants(), false, None, Some(at(5)), asked, |at| {
        begins = Some(at)
    })
    .unwrap();
    assert_eq!(begins, Some(at(5)));
    let events: Vec<Event> = (2..8).map(notice).collect();
    hub.publish(&events, at(7));
    assert_eq!(heard(&outbox), ["notice 6", "notice 7"]);
}

#[test]
fn a_resync_leads_nobody_back_before_it_was_let_in() {
    let (hub, outbox) = hub();
    let asked = hub.asked_at();
    // A cursor that no log has given out is behind whatever was compared with it.
    let strange = Cursor::new(9, 9, 9);
    let key = hub
        .subscribe(
            &outbox,
            1,
            wants(),
            false,
            Some(strange),
            Some(at(5)),
            asked,
            |_| {},
        )
        .unwrap();
    assert_eq!(hub.catch_up(key), Step::Ask(strange));
    let chunk = Chunk {
        events: [Event::Resync(at(1))]
            .into_iter()
            .chain((2..8).map(notice))
            .collect(),
        next: at(7),
    };
    hub.offer(key, strange, &chunk);
    assert_eq!(heard(&outbox), ["resync 5", "notice 6", "notice 7"]);
}

#[test]
fn a_close_leads_back_to_where_nobody_misses_anything() {
    let (hub, outbox) = hub();
    let asked = || hub.asked_at();
    let live = hub
        .subscribe(&outbox, 1, wants(), false, None, None, asked(), |_| {})
        .unwrap();
    let behind = hub
        .subscribe(
            &outbox,
            2,
            wants(),
            false,
            Some(at(0)),
            None,
            asked(),
            |_| {},
        )
        .unwrap();
    hub.publish(&[notice(2), notice(3)], at(3));
    assert_eq!(hub.earliest_position([live].into_iter()), Some(at(3)));
    assert_eq!(
        hub.earliest_position([live, behind].into_iter()),
        Some(at(0))
    );
}

#[test]
fn all_buffers_together_are_bounded_and_each_has_a_share() {
    let budget = Arc::new(Budget::new(100_000));
    let one = || Outbox::new(1_000, 1 << 20, budget.clone());
    let big = |n: i64| Arc::new(Notice::new(at(n), "c", None, &"x".repeat(10_000), 0));
    let greedy = one();
    let room = (0..20).take_while(|n| greedy.push_notice(1, &big(*n), false) == Ok(()));
    let room = room.count();
    assert!((8..11).contains(&room), "{room}");
    // Another one hears on, one at a time.
    let modest = one();
    for n in 0..100 {
        modest.push_notice(1, &big(n), false).unwrap();
        assert_eq!(modest.push_notice(1, &big(n + 1), false), Err(Full));
        assert_eq!(modest.take(10).len(), 1);
    }
    drop(greedy);
    assert!(budget.used() < 1_000);
}

#[tokio::test]
async fn a_payload_that_no_socket_can_hear_is_told_as_missing_to_who_wants_it() {
    let stage = Stage::open(|_| {}).await;
    let mut socket = stage.socket("ann").await;
    socket.subscribe(1, "orders", &["big"]).await;
    socket.subscribe(2, "orders", &["other"]).await;
    let cursor = stage
        .memory
        .publish("orders", Some("big"), &"x".repeat((1 << 20) + 1));
    let said = socket.must("resync").await;
    assert_eq!(
        (said["id"].as_u64(), said["cursor"].as_str()),
        (Some(1), Some(&*cursor.to_string()))
    );
    // The longest that there is, with each character as long as JSON can make it.
    let longest = "\u{1}".repeat(1 << 20);
    stage.memory.publish("orders", Some("big"), &longest);
    assert_eq!(socket.payload().await, longest);
    stage.memory.publish("orders", Some("other"), "after it");
    assert_eq!(socket.payload().await, "after it");
}

#[tokio::test]
async fn an_answer_to_a_poll_is_bounded_by_its_bytes() {
    let stage = Stage::open(|settings| settings.buffer_bytes = 100_000).await;
    for n in 0..30 {
        let payload = format!("{n} {}", "x".repeat(9_000));
        stage.memory.publish("orders", None, &payload);
    }
    let (mut after, mut heard) = ("1-0-0".to_owned(), 0);
    while heard < 30 {
        let path = format!("/notices?channel=orders&after={after}&max=1000");
        let body = stage.get(&path).await.must(200).body().await;
        assert!(body.len() < 200_000, "{}", body.len());
        let page: Value = serde_json::from_str(&body).unwrap();
        for notice in page["notices"].as_array().unwrap() {
            let payload = notice["payload"].as_str().unwrap();
            assert!(payload.starts_with(&format!("{heard} ")), "{heard}");
            heard += 1;
        }
        after = page["next"].as_str().unwrap().to_owned();
    }
}

#[tokio::test]
async fn topics_take_what_they_may_and_give_it_back() {
    let stage = Stage::open(|settings| {
        settings.max_topic_bytes = 20_000;
        settings.all_topic_bytes = 30_000;
    })
    .await;
    let many: Vec<String> = (0..30).map(|n| format!("a/*/b/{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refused = |said: Value| (said["code"].clone(), said["id"].clone());
    let mut ann = stage.socket("ann").await;
    ann.subscribe(1, "orders", &many).await;
    ann.say(json!({"type": "subscribe", "id": 2, "channel": "orders", "topics": many}))
        .await;
    assert_eq!(
        refused(ann.must("error").await),
        (json!("too_many"), json!(2))
    );
    assert_eq!(stage.refused("topic_bytes"), 1);
    let mut bob = stage.socket("bob").await;
    bob.say(json!({"type": "subscribe", "id": 1, "channel": "orders", "topics": many}))
        .await;
    assert_eq!(
        refused(bob.must("error").await),
        (json!("too_many"), json!(1))
    );
    assert_eq!(stage.refused("all_topic_bytes"), 1);
    ann.say(json!({"type": "unsubscribe", "id": 1})).await;
    ann.must("unsubscribed").await;
    bob.subscribe(1, "orders", &many).await;
    drop((ann, bob));
    stage
        .until("all was given back", |stage| {
            stage.gateway.hub.topics().used() == 0
        })
        .await;
}

#[tokio::test]
async fn a_decision_that_is_not_answered_is_waited_for() {
    let stage = Stage::open(|_| {}).await;
    let mut socket = stage.socket("ann").await;
    socket.subscribe(1, "orders", &[]).await;
    stage
        .memory
        .fail(Some(SourceError::Away("for a test".into())));
    stage.gateway.hub.recheck(None);
    let asks = || stage.memory.asks.load(std::sync::atomic::Ordering::Relaxed);
    let before = asks();
    stage
        .until("it was asked again", |_| asks() > before + 2)
        .await;
    stage.memory.fail(None);
    stage.memory.publish("orders", None, "after it");
    assert_eq!(socket.payload().await, "after it");
}

#[tokio::test]
async fn a_stranger_has_one_ticket_looked_at() {
    let stage = Stage::open(|_| {}).await;
    let mut socket = stage.try_socket("/socket", &[]).await.unwrap();
    stage.memory.delay(Duration::from_secs(1));
    for ticket in ["one", "two", "three"] {
        socket.say(json!({"type": "auth", "ticket": ticket})).await;
    }
    assert_eq!(socket.must("error").await["code"], "too_fast");
    assert_eq!(stage.refused("tickets_at_a_time"), 1);
    socket.closed().await;
}

#[tokio::test]
async fn who_renews_all_the_time_is_told_to_wait() {
    let stage = Stage::open(|_| {}).await;
    let mut socket = stage.socket("ann").await;
    let mut said = Vec::new();
    for _ in 0..10 {
        socket
            .say(json!({"type": "auth", "token": token("ann")}))
            .await;
        said.push(socket.hear().await);
    }
    let refused = said.iter().filter(|one| one["code"] == "too_fast").count();
    assert!((1..=5).contains(&refused), "{said:?}");
    socket.hears_nothing_more().await;
}

#[tokio::test]
async fn a_key_that_went_meanwhile_lets_nobody_in() {
    let stage = Stage::open(|_| {}).await;
    let mut session = Session::new(
        &stage.gateway,
        "sse",
        stage.address.ip(),
        true,
        stage.gateway.settings.buffer_notices,
    );
    let who = Principal {
        role: "app".into(),
        subject: Some("ann".into()),
        until_s: i64::MAX,
        scope: None,
        key: Some("gone".into()),
    };
    assert!(session.admit(who).is_err());
}

#[tokio::test]
async fn a_page_that_comes_back_before_the_first_notice_misses_nothing() {
    let stage = Stage::open(|_| {}).await;
    let mut events = stage.stream("/events?channel=orders").await;
    let begun = events.must("subscribed").await;
    assert_eq!(begun.id, begun.data["cursor"]);
    drop(events);
    stage.memory.publish("orders", None, "in the tunnel");
    let bearer = format!("Bearer {}", token("ann"));
    let fields = [
        ("Authorization", bearer.as_str()),
        ("Last-Event-ID", begun.id.as_str()),
    ];
    let answer = stage
        .request("GET", "/events?channel=orders", &fields)
        .await;
    let mut events = crate::stage::Events(answer.must(200));
    events.must("subscribed").await;
    assert_eq!(events.payload().await, "in the tunnel");
}

#[tokio::test]
async fn a_report_is_bounded_whatever_clients_ask_for() {
    let stage = Stage::open(|_| {}).await;
    let strange = ["\\\\u0000", "é😀", &"x".repeat(1_010), "last"];
    let mut socket = stage.socket("\\u0000 日本").await;
    for id in 0..30 {
        socket.subscribe(id, "orders", &strange).await;
    }
    let said = report(&stage.gateway);
    assert!(
        said.sockets.is_ascii() && said.sockets.len() < 4_000,
        "{said:?}"
    );
    let rows: Value = serde_json::from_str(&said.sockets).unwrap();
    let row = &rows[0];
    assert_eq!(row["subject"], "\\u0000 日本");
    assert_eq!(row["subscriptions"], 30);
    assert_eq!(row["channels"].as_array().unwrap().len(), 20);
    assert_eq!(row["channels"][0][0], "orders");
    assert_eq!(row["channels"][0][1], "\\\\u0000, é😀, …");
    let in_all: Value = serde_json::from_str(&said.in_all).unwrap();
    assert_eq!(in_all, json!({"open": {"websocket": 1}, "rooms": 0}));
}

#[tokio::test]
async fn the_counters_are_for_no_page() {
    let stage = Stage::open(|_| {}).await;
    let status = |fields: Vec<(&'static str, &'static str)>| {
        let stage = &stage;
        async move { stage.request("GET", "/metrics", &fields).await.status }
    };
    assert_eq!(status(vec![]).await, 200);
    assert_eq!(status(vec![("Host", "rebound.example")]).await, 403);
    assert_eq!(status(vec![("Origin", "http://localhost")]).await, 403);
}
