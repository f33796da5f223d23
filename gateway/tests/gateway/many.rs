//! Two thousand sockets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crate::stage::{Stage, PATIENCE};
use serde_json::json;

const SOCKETS: usize = 2_000;
const NOTICES: usize = 5;

/// Two descriptors each, of the gateway and of the test.
fn as_many_as_there_may_be(wanted: usize) -> usize {
    let descriptors = std::fs::read_to_string("/proc/self/limits").unwrap();
    let open_files = descriptors
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let most: usize = open_files
        .split_whitespace()
        .nth(3)
        .unwrap()
        .parse()
        .unwrap_or(usize::MAX);
    wanted.min((most - 500) / 3)
}

/// A gateway that has just begun has nothing of what they missed: all of it comes out of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_that_come_back_at_once_miss_nothing() {
    let sockets = as_many_as_there_may_be(5_000);
    let stage = Stage::open(|settings| {
        settings.max_connections_per_address = sockets;
        settings.connect_burst = 100_000;
        // Longer than it takes on a machine that is busy: what is heard is what was published.
        settings.keep_alive = PATIENCE * 10;
    })
    .await;
    let before = stage.memory.publish("orders", None, "before");
    for n in 0..3 {
        stage.memory.publish("orders", None, &n.to_string());
    }
    stage
        .until("it has read that", |stage| stage.gateway.hub.end() > before)
        .await;
    // As if it had begun here.
    let end = stage.gateway.hub.end();
    stage.gateway.hub.open(end);
    let stage = Arc::new(stage);
    let mut readers = tokio::task::JoinSet::new();
    for n in 0..sockets {
        let stage = stage.clone();
        readers.spawn(async move {
            let mut socket = stage.socket(&format!("user {n}")).await;
            socket
                .say(json!({"type": "subscribe", "id": 1, "channel": "orders", "after": before.to_string()}))
                .await;
            socket.must("subscribed").await;
            for expected in 0..3 {
                assert_eq!(socket.payload().await, expected.to_string());
            }
            socket.must("live").await;
            socket
        });
    }
    let mut kept = Vec::new();
    while let Some(socket) = readers.join_next().await {
        kept.push(socket.unwrap());
    }
    stage.memory.publish("orders", None, "after it");
    for socket in &mut kept {
        assert_eq!(socket.payload().await, "after it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_sockets_hear_one_topic() {
    let sockets = as_many_as_there_may_be(SOCKETS);
    let stage = Stage::open(|settings| {
        settings.max_connections_per_address = SOCKETS;
        settings.connect_burst = 10_000;
        settings.keep_alive = PATIENCE * 10;
    })
    .await;
    let heard = Arc::new(AtomicUsize::new(0));
    let mut readers = tokio::task::JoinSet::new();
    for n in 0..sockets {
        let mut socket = stage.socket(&format!("user {n}")).await;
        socket.subscribe(1, "orders", &["everybody"]).await;
        let heard = heard.clone();
        readers.spawn(async move {
            for expected in 0..NOTICES {
                assert_eq!(socket.payload().await, expected.to_string());
                heard.fetch_add(1, Ordering::Relaxed);
            }
            socket
        });
    }
    let reads = stage.memory.reads.load(Ordering::Relaxed);
    for n in 0..NOTICES {
        stage
            .memory
            .publish("orders", Some("everybody"), &n.to_string());
        stage.memory.publish("orders", Some("nobody"), "");
    }
    let mut kept = Vec::new();
    while let Some(socket) = tokio::time::timeout(PATIENCE, readers.join_next())
        .await
        .unwrap()
    {
        kept.push(socket.unwrap());
    }
    assert_eq!(heard.load(Ordering::Relaxed), sockets * NOTICES);
    // One reader reads for all.
    assert!(stage.memory.reads.load(Ordering::Relaxed) - reads <= 3 * 2 * NOTICES as u64);
    assert_eq!(stage.gateway.hub.deliveries(), (sockets * NOTICES) as u64);
    drop(kept);
    stage
        .until("they are gone", |stage| {
            stage.gateway.sockets().is_empty() && stage.gateway.hub.subscriptions() == 0
        })
        .await;
    assert_eq!(stage.gateway.hub.buffered(), 0);
}
