//! GET /socket.

use std::time::Duration;

use serde_json::json;

use crate::stage::{token, token_for, Stage};

#[tokio::test]
async fn one_socket_has_many_subscriptions() {
    let stage = Stage::open(|_| {}).await;
    let mut socket = stage.socket("ann").await;
    let said = socket.subscribe(1, "orders", &["post/**"]).await;
    assert_eq!(
        (said["id"].as_u64(), said["live"].as_bool()),
        (Some(1), Some(true))
    );
    socket.subscribe(2, "orders", &["post/42", "post/*"]).await;
    socket.subscribe(3, "mail", &["user/{sub}/**"]).await;
    stage.memory.publish("orders", Some("post/42"), "both");
    let both = socket.must("notice").await;
    let mut ids: Vec<u64> = both["ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    stage.memory.publish("mail", Some("user/bob/in"), "bob's");
    stage.memory.publish("mail", Some("user/ann/in"), "hers");
    let hers = socket.must("notice").await;
    assert_eq!(
        (hers["payload"].as_str(), &hers["ids"]),
        (Some("hers"), &json!([3]))
    );
    socket.say(json!({"type": "unsubscribe", "id": 1})).await;
    assert_eq!(socket.must("unsubscribed").await["id"], 1);
    stage.memory.publish("orders", Some("post/a/b"), "nobody's");
    stage.memory.publish("orders", Some("post/42"), "2's");
    assert_eq!(socket.must("notice").await["ids"], json!([2]));
    socket.hears_nothing_more().await;
}

#[tokio::test]
async fn each_subscription_goes_on_where_it_was() {
    let stage = Stage::open(|settings| settings.recent_notices = 2).await;
    let first = stage.memory.publish("orders", Some("a"), "0");
    for n in 1..10 {
        stage.memory.publish("orders", Some("a"), &n.to_string());
    }
    let mut socket = stage.socket("ann").await;
    socket.subscribe(1, "orders", &["a"]).await;
    socket.say(json!({"type": "subscribe", "id": 2, "channel": "orders", "topics": ["*"], "after": first.to_string()})).await;
    assert_eq!(socket.must("subscribed").await["live"], false);
    for n in 1..10 {
        let notice = socket.must("notice").await;
        assert_eq!(
            (notice["payload"].as_str().unwrap(), &notice["ids"]),
            (n.to_string().as_str(), &json!([2]))
        );
    }
    assert_eq!(socket.must("live").await["id"], 2);
    stage.memory.publish("orders", Some("a"), "both");
    assert_eq!(
        socket.must("notice").await["ids"].as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_subscription_concerns_no_other() {
    let stage = Stage::open(|settings| {
        settings.max_subscriptions = 2;
        settings.max_topics = 3;
    })
    .await;
    let mut socket = stage.socket("ann").await;
    socket.subscribe(1, "orders", &[]).await;
    for (said, code) in [
        (json!({"id": 1, "channel": "orders"}), "taken"),
        (json!({"id": 2, "channel": "secret"}), "denied"),
        (json!({"id": 2, "channel": ""}), "bad_channel"),
        (
            json!({"id": 2, "channel": "orders", "topics": ["a//**/b"]}),
            "bad_topic",
        ),
        (
            json!({"id": 2, "channel": "orders", "topics": ["1", "2", "3", "4"]}),
            "too_many",
        ),
        (
            json!({"id": 2, "channel": "orders", "after": "-1"}),
            "bad_cursor",
        ),
        (
            json!({"id": 2, "channel": "orders", "topics": ["*"], "presence": true}),
            "no_presence",
        ),
    ] {
        let mut message = said.clone();
        message["type"] = "subscribe".into();
        socket.say(message).await;
        let error = socket.must("error").await;
        assert_eq!(
            (error["code"].as_str(), error["id"].as_u64()),
            (Some(code), said["id"].as_u64()),
            "{error}"
        );
    }
    socket.subscribe(2, "mail", &["user/ann/a"]).await;
    socket
        .say(json!({"type": "subscribe", "id": 3, "channel": "orders"}))
        .await;
    assert_eq!(socket.must("error").await["code"], "too_many");
    stage.memory.publish("orders", None, "still");
    assert_eq!(socket.payload().await, "still");
}

#[tokio::test]
async fn a_message_that_is_none_ends_the_socket_for_good() {
    let stage = Stage::open(|_| {}).await;
    for text in [
        "",
        "{",
        "[]",
        "{\"type\":\"shout\"}",
        "{\"type\":\"subscribe\",\"id\":1}",
        "{\"type\":\"ping\",\"more\":1}",
        "{\"type\":\"subscribe\",\"id\":-1,\"channel\":\"a\"}",
    ] {
        let mut socket = stage.socket("ann").await;
        socket.0.send_text(text).await;
        assert_eq!(socket.closed().await["closed"], 4200, "{text}");
    }
    let mut socket = stage.socket("ann").await;
    let deep = format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000));
    socket.0.send_text(&deep).await;
    assert_eq!(socket.closed().await["closed"], 4200);
}

#[allow(async_fn_in_trait)]
trait SendText {
    async fn send_text(&mut self, text: &str);
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> SendText
    for tokio_tungstenite::WebSocketStream<S>
{
    async fn send_text(&mut self, text: &str) {
        use futures_util::SinkExt as _;
        self.send(tokio_tungstenite::tungstenite::Message::text(text))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn who_says_nothing_of_himself_in_time_has_to_go() {
    let stage = Stage::open(|settings| settings.auth_timeout = Duration::from_millis(50)).await;
    let mut socket = stage.try_socket("/socket", &[]).await.unwrap();
    assert_eq!(socket.closed().await["closed"], 4100);
}

#[tokio::test]
async fn a_token_may_come_as_the_first_message_and_at_any_time() {
    let stage = Stage::open(|_| {}).await;
    let mut socket = stage.try_socket("/socket", &[]).await.unwrap();
    socket
        .say(json!({"type": "subscribe", "id": 1, "channel": "orders"}))
        .await;
    assert_eq!(socket.must("error").await["code"], "unauthenticated");
    socket
        .say(json!({"type": "auth", "token": token_for("ann", 100)}))
        .await;
    let until = socket.must("authenticated").await["until"].clone();
    socket.subscribe(1, "orders", &[]).await;
    socket
        .say(json!({"type": "auth", "token": token_for("ann", 1_000)}))
        .await;
    assert!(socket.must("authenticated").await["until"].as_str() > until.as_str());
    for wrong in [token("bob"), "nonsense".to_owned()] {
        socket.say(json!({"type": "auth", "token": wrong})).await;
        let code = socket.must("error").await["code"].clone();
        assert!(code == "other_subject" || code == "unauthenticated");
    }
    stage.ticket("t", &["orders"], None);
    socket.say(json!({"type": "auth", "ticket": "t"})).await;
    socket.must("authenticated").await;
    stage.memory.publish("orders", None, "still");
    assert_eq!(socket.payload().await, "still");
    let mut socket = stage.try_socket("/socket", &[]).await.unwrap();
    socket
        .say(json!({"type": "auth", "token": "nonsense"}))
        .await;
    assert_eq!(socket.closed().await["closed"], 4100);
}

#[tokio::test]
async fn a_renewed_token_is_asked_about_anew() {
    let stage = Stage::open(|_| {}).await;
    let mut socket = stage.socket("ann").await;
    socket.subscribe(1, "orders", &[]).await;
    // Without a word from the server: the renewal itself asks.
    stage.ticket("narrow", &["mail"], None);
    socket
        .say(json!({"type": "auth", "ticket": "narrow"}))
        .await;
    socket.must("authenticated").await;
    let error = socket.must("error").await;
    assert_eq!(
        (error["code"].as_str(), error["id"].as_u64()),
        (Some("denied"), Some(1))
    );
    stage.memory.publish("orders", None, "not any more");
    socket.hears_nothing_more().await;
}

#[tokio::test]
async fn the_end_is_told_before_it_comes_and_can_be_put_off() {
    let stage = Stage::open(|settings| settings.leeway = Duration::ZERO).await;
    let bearer = format!("Bearer {}", token_for("ann", 2));
    let mut socket = stage
        .try_socket("/socket", &[("authorization", &bearer)])
        .await
        .unwrap();
    socket.must("authenticated").await;
    socket.must("expiring").await;
    socket
        .say(json!({"type": "auth", "token": token_for("ann", 4)}))
        .await;
    socket.must("authenticated").await;
    socket.must("expiring").await;
    let closed = socket.closed().await;
    assert_eq!(
        (closed["closed"].as_u64(), closed["reason"].as_str()),
        (Some(4101), Some("expired"))
    );
}

#[tokio::test]
async fn the_server_closes_the_sockets_of_a_subject() {
    let stage = Stage::open(|_| {}).await;
    let (mut ann, mut bob) = (stage.socket("ann").await, stage.socket("bob").await);
    ann.subscribe(1, "orders", &["a"]).await;
    bob.subscribe(1, "orders", &["b"]).await;
    stage.memory.publish(
        "pushy_gateway",
        None,
        r#"{"v":1,"event":"socket_close","subject":"ann"}"#,
    );
    assert_eq!(ann.closed().await["closed"], 4002);
    stage.memory.publish(
        "pushy_gateway",
        None,
        r#"{"v":1,"event":"socket_close","channel":"orders","topic":"a"}"#,
    );
    stage.memory.publish("orders", Some("b"), "bob's");
    assert_eq!(bob.payload().await, "bob's");
    stage.memory.publish(
        "pushy_gateway",
        None,
        r#"{"v":1,"event":"socket_close","channel":"orders","topic":"b"}"#,
    );
    assert_eq!(bob.closed().await["closed"], 4002);
}

#[tokio::test]
async fn who_wants_the_latest_of_a_topic_gets_that() {
    let stage = Stage::open(|settings| settings.buffer_notices = 10).await;
    let gateway = stage.gateway.clone();
    let outbox = gateway.hub.outbox(10, 1 << 20);
    let wants = pushy_gateway::topics::routes::Wants {
        channel: "orders".into(),
        topics: None,
    };
    gateway
        .hub
        .subscribe(
            &outbox,
            1,
            wants,
            true,
            None,
            None,
            gateway.hub.asked_at(),
            |_| {},
        )
        .unwrap();
    for n in 0..1_000 {
        stage
            .memory
            .publish("orders", Some(["a", "b", "c"][n % 3]), &n.to_string());
    }
    stage
        .until("it was pushed", |stage| {
            stage.gateway.hub.deliveries() == 1_000
        })
        .await;
    let (waiting, _, _) = outbox.standing();
    assert_eq!(waiting, 3);
    let texts: Vec<String> = outbox
        .take(10)
        .iter()
        .map(pushy_gateway::ways::message::frame)
        .collect();
    let payloads: Vec<String> = texts
        .iter()
        .map(|text| {
            serde_json::from_str::<serde_json::Value>(text).unwrap()["payload"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(payloads, ["997", "998", "999"]);
}

#[tokio::test]
async fn a_burst_that_has_no_room_is_read_from_the_ring() {
    let stage = Stage::open(|settings| settings.buffer_notices = 8).await;
    let mut socket = stage.socket("ann").await;
    socket.subscribe(1, "orders", &[]).await;
    let texts: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    let many: Vec<(Option<&str>, &str)> = texts
        .iter()
        .map(|text| (Some("t"), text.as_str()))
        .collect();
    stage.memory.publish_many("orders", &many);
    for text in &texts {
        assert_eq!(socket.payload().await, *text);
    }
    socket.hears_nothing_more().await;
}

#[tokio::test]
async fn who_never_reads_is_left_behind_and_costs_the_rest_nothing() {
    let stage = Stage::open(|settings| {
        settings.buffer_notices = 8;
        settings.recent_notices = 64;
        settings.write_timeout = Duration::from_millis(300);
    })
    .await;
    let mut sleeper = stage.socket("sleeper").await;
    sleeper.subscribe(1, "orders", &[]).await;
    let mut reader = stage.socket("reader").await;
    reader.subscribe(1, "orders", &[]).await;
    let payload = "x".repeat(50_000);
    for _ in 0..400 {
        stage.memory.publish("orders", None, &payload);
        assert_eq!(reader.payload().await.len(), 50_000);
        // All that waits for anybody: a few notices.
        assert!(stage.gateway.hub.buffered() < 2_000_000);
    }
    stage
        .until("the sleeper is gone", |stage| {
            stage.gateway.sockets().len() == 1
        })
        .await;
    drop(sleeper);
}

#[tokio::test]
async fn a_slow_one_is_closed_with_the_cursor_to_come_back_with() {
    let stage = Stage::open(|settings| {
        settings.buffer_notices = 4;
        settings.recent_notices = 8;
    })
    .await;
    let mut socket = stage.socket("ann").await;
    socket.subscribe(1, "orders", &[]).await;
    let payload = "x".repeat(20_000);
    let mut last_sent = 0;
    // So much that neither the buffer, nor the ring, nor the system has room for it.
    for n in 0..2_000 {
        stage
            .memory
            .publish("orders", None, &format!("{n} {payload}"));
        last_sent = n;
        if n % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut heard = Vec::new();
    let closed = loop {
        let said = socket.hear().await;
        if said.get("closed").is_some() {
            break said;
        }
        if said["type"] == "notice" {
            heard.push((
                said["payload"]
                    .as_str()
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap()
                    .parse::<usize>()
                    .unwrap(),
                said["cursor"].clone(),
            ));
        }
        if heard.last().is_some_and(|(n, _)| *n == last_sent) {
            return;
        }
    };
    assert!(heard.iter().map(|(n, _)| *n).eq(0..heard.len()));
    assert_eq!(
        (closed["closed"].as_u64(), &closed["cursor"]),
        (Some(4000), &heard.last().unwrap().1)
    );
}
