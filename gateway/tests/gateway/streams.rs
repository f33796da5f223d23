//! GET /events.

use std::time::Duration;

use serde_json::json;

use crate::stage::{token_for, Events, Stage};

#[tokio::test]
async fn a_page_hears_what_was_published_and_goes_on_where_it_was() {
    let stage = Stage::open(|_| {}).await;
    let mut events = stage.stream("/events?channel=orders").await;
    assert_eq!(events.0.field("content-type"), Some("text/event-stream"));
    assert_eq!(events.0.field("x-accel-buffering"), Some("no"));
    assert_eq!(events.0.field("cache-control"), Some("no-store"));
    let subscribed = events.must("subscribed").await;
    assert_eq!(subscribed.data["live"], true);
    stage
        .memory
        .publish("orders", Some("post/42"), "{\"a\":\"line\nbreak\"}");
    let event = events.must("message").await;
    assert_eq!(event.data["payload"], "{\"a\":\"line\nbreak\"}");
    assert_eq!(
        (event.data["channel"].as_str(), event.data["topic"].as_str()),
        (Some("orders"), Some("post/42"))
    );
    assert_eq!(event.data["cursor"], event.id);
    drop(events);
    stage.memory.publish("orders", None, "in the tunnel");
    let bearer = format!("Bearer {}", token_for("ann", 600));
    let fields = [
        ("Authorization", bearer.as_str()),
        ("Last-Event-ID", event.id.as_str()),
    ];
    let mut events = Events(
        stage
            .request("GET", "/events?channel=orders&after=0-0-0", &fields)
            .await
            .must(200),
    );
    assert_eq!(events.must("subscribed").await.data["live"], false);
    assert_eq!(events.payload().await, "in the tunnel");
    events.must("live").await;
    stage.memory.publish("orders", None, "behind it");
    assert_eq!(events.payload().await, "behind it");
}

#[tokio::test]
async fn topics_choose_what_is_heard() {
    let stage = Stage::open(|_| {}).await;
    let mut events = stage
        .stream("/events?channel=orders&topic=post/42&topic=user/*/new&topic=log/**")
        .await;
    events.must("subscribed").await;
    for topic in [
        "post/4",
        "post/42/x",
        "post/42",
        "user/7/old",
        "user/7/new",
        "user/new",
        "log",
        "log/a/b",
        "login",
    ] {
        stage.memory.publish("orders", Some(topic), topic);
    }
    stage.memory.publish("orders", None, "without");
    stage.memory.publish("other", Some("post/42"), "elsewhere");
    for topic in ["post/42", "user/7/new", "log", "log/a/b"] {
        assert_eq!(events.payload().await, topic);
    }
    stage.memory.publish("orders", Some("post/42"), "last");
    assert_eq!(events.payload().await, "last");
}

#[tokio::test]
async fn beyond_the_recent_notices_the_log_is_read() {
    let stage = Stage::open(|settings| settings.recent_notices = 3).await;
    let from = stage.memory.publish("orders", None, "0");
    for n in 1..1_500 {
        stage.memory.publish("orders", None, &n.to_string());
    }
    let mut events = stage
        .stream(&format!("/events?channel=orders&after={from}"))
        .await;
    events.must("subscribed").await;
    for n in 1..1_500 {
        assert_eq!(events.payload().await, n.to_string());
    }
    stage.memory.publish("orders", None, "live");
    let mut last = events.next().await.unwrap();
    if last.kind == "live" {
        last = events.next().await.unwrap();
    }
    assert_eq!(last.data["payload"], "live");
}

#[tokio::test]
async fn what_is_gone_is_told_as_resync() {
    let stage = Stage::open(|settings| settings.recent_notices = 1).await;
    let from = stage.memory.publish("orders", None, "gone");
    let gone = stage.memory.publish("orders", None, "gone too");
    stage.memory.empty(gone);
    stage.memory.publish("orders", None, "kept");
    for after in [from.to_string(), "77-1-1".to_owned()] {
        let mut events = stage
            .stream(&format!("/events?channel=orders&after={after}"))
            .await;
        events.must("subscribed").await;
        let resync = events.must("resync").await;
        assert_eq!(resync.id, gone.to_string());
        assert_eq!(resync.data["cursor"], gone.to_string());
        assert_eq!(events.payload().await, "kept");
    }
}

#[tokio::test]
async fn a_promotion_tells_all_that_listen() {
    let stage = Stage::open(|_| {}).await;
    let mut events = stage.stream("/events?channel=orders").await;
    events.must("subscribed").await;
    stage.memory.publish("orders", None, "before");
    let before = events.must("message").await;
    stage.memory.promote(1);
    events.must("resync").await;
    stage.memory.publish("orders", None, "after");
    assert_eq!(events.payload().await, "after");
    let mut events = stage
        .stream(&format!("/events?channel=orders&after={}", before.id))
        .await;
    events.must("subscribed").await;
    events.must("resync").await;
    assert_eq!(events.payload().await, "after");
}

#[tokio::test]
async fn while_nothing_comes_it_shows_that_it_lives_and_where_it_is() {
    let stage = Stage::open(|settings| settings.keep_alive = Duration::from_millis(50)).await;
    let mut events = stage.stream("/events?channel=orders").await;
    events.must("subscribed").await;
    events.must("id").await;
    events.must(":").await;
    let elsewhere = stage.memory.publish("other", None, "not for it");
    loop {
        let event = events.next().await.unwrap();
        if event.kind == "id" {
            assert_eq!(event.id, elsewhere.to_string());
            break;
        }
        assert_eq!(event.kind, ":");
    }
}

#[tokio::test]
async fn who_may_not_is_refused_with_a_word() {
    let stage = Stage::open(|_| {}).await;
    let nobody = stage
        .request("GET", "/events?channel=orders", &[])
        .await
        .must(401);
    assert_eq!(nobody.field("www-authenticate"), Some("Bearer"));
    assert_eq!(nobody.json().await["code"], "unauthenticated");
    for (path, status, code) in [
        ("/events?channel=secret", 403, "denied"),
        ("/events?channel=mail&topic=user/bob/x", 403, "denied"),
        ("/events?channel=mail", 403, "denied"),
        ("/events?channel=mail&topic=user/*/x", 403, "denied"),
        ("/events?channel=mail&topic=user/ann/../bob", 200, ""),
        ("/events?channel=mail&topic=user/../bob", 403, "denied"),
        ("/events?channel=mail&topic=user/%7Bsub%7D/in", 200, ""),
        ("/events", 400, "bad_channel"),
        ("/events?channel=", 400, "bad_channel"),
        ("/events?channel=a&channel=b", 400, "bad_message"),
        ("/events?channel=orders&topic=a*b", 400, "bad_topic"),
        ("/events?channel=orders&topic=%00", 400, "bad_topic"),
        ("/events?channel=orders&after=yesterday", 400, "bad_cursor"),
        ("/events?channel=orders&ticket=none", 200, ""),
    ] {
        let answer = stage.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        if status != 200 {
            assert_eq!(answer.json().await["code"], code, "{path}");
        }
    }
    assert_eq!(stage.request("POST", "/events", &[]).await.status, 405);
    assert_eq!(stage.get("/nothing").await.status, 404);
}

#[tokio::test]
async fn nobody_reads_what_was_said_before_they_were_let_in() {
    let stage = Stage::open(|_| {}).await;
    let from = stage.memory.publish("board", None, "before");
    let since = stage.memory.publish("board", None, "said before, too");
    stage.memory.grant_since("app", "board", None, Some(since));
    stage.memory.publish("board", None, "after");
    let mut events = stage
        .stream(&format!("/events?channel=board&after={from}"))
        .await;
    let resync = events.must("resync").await;
    assert_eq!(resync.id, since.to_string());
    events.must("subscribed").await;
    assert_eq!(events.payload().await, "after");
}

#[tokio::test]
async fn a_revoked_grant_is_felt_at_once() {
    let stage = Stage::open(|_| {}).await;
    let mut events = stage.stream("/events?channel=orders").await;
    events.must("subscribed").await;
    stage.memory.revoke("app", "orders");
    stage.memory.publish("orders", None, "not any more");
    assert_eq!(events.must("error").await.data["code"], "denied");
    let close = events.must("close").await;
    assert_eq!(close.data["code"], 4102);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_verdict_from_before_a_revocation_lets_nobody_in() {
    let stage = Stage::open(|_| {}).await;
    stage.memory.hold("app", true);
    let revoke = async {
        stage
            .until("it asks", |stage| {
                stage.memory.asks.load(std::sync::atomic::Ordering::Relaxed) > 0
            })
            .await;
        stage.memory.revoke("app", "orders");
        let end = stage.memory.publish("orders", None, "not any more");
        stage
            .until("the pump has read of it", |stage| {
                stage.gateway.hub.end() >= end
            })
            .await;
        stage.memory.hold("app", false);
    };
    let (answer, ()) = tokio::join!(stage.get("/events?channel=orders"), revoke);
    answer.must(403);
}

#[tokio::test]
async fn until_the_server_has_said_so_anew_nothing_is_read() {
    let stage = Stage::open(|_| {}).await;
    let mut events = stage.stream("/events?channel=orders").await;
    events.must("subscribed").await;
    stage.memory.hold("app", true);
    let asked = stage.memory.asks.load(std::sync::atomic::Ordering::Relaxed);
    stage.memory.publish(
        "pushy_gateway",
        None,
        r#"{"event":"gateway_grants","channel":"orders"}"#,
    );
    stage.memory.publish("orders", None, "held");
    stage
        .until("it asks again", |stage| {
            stage.memory.asks.load(std::sync::atomic::Ordering::Relaxed) > asked
        })
        .await;
    assert_eq!(stage.gateway.hub.buffered(), 0);
    stage.memory.hold("app", false);
    assert_eq!(events.payload().await, "held");
}

#[tokio::test]
async fn the_end_of_a_token_is_told_before_it_comes() {
    let stage = Stage::open(|settings| settings.leeway = Duration::ZERO).await;
    let bearer = format!("Bearer {}", token_for("ann", 2));
    let answer = stage
        .request(
            "GET",
            "/events?channel=orders",
            &[("Authorization", &bearer)],
        )
        .await
        .must(200);
    let mut events = Events(answer);
    events.must("subscribed").await;
    assert!(events.must("expiring").await.data["until"].is_string());
    assert_eq!(events.must("close").await.data["code"], 4101);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_ticket_is_for_one_connection_and_for_what_it_says() {
    let stage = Stage::open(|_| {}).await;
    stage.ticket("t1", &["orders"], Some("post/**"));
    stage.ticket("t2", &["orders"], Some("post/**"));
    stage.ticket("t3", &["orders"], None);
    let path = "/events?channel=orders&topic=post/42&ticket=t1";
    let mut events = Events(stage.request("GET", path, &[]).await.must(200));
    events.must("subscribed").await;
    assert_eq!(stage.request("GET", path, &[]).await.status, 401);
    assert_eq!(
        stage
            .request("GET", "/events?channel=orders&ticket=t2", &[])
            .await
            .must(403)
            .json()
            .await["code"],
        json!("denied")
    );
    // Used is used, whatever it was used for.
    assert_eq!(
        stage
            .request("GET", "/events?channel=orders&topic=post/1&ticket=t2", &[])
            .await
            .status,
        401
    );
    assert_eq!(
        stage
            .request(
                "GET",
                "/events?channel=mail&topic=user/ann/x&ticket=t3",
                &[]
            )
            .await
            .status,
        403
    );
}
