//! The end of a gateway.

use std::time::Duration;

use tokio::time::timeout;

use crate::stage::{Stage, PATIENCE};

#[tokio::test]
async fn sockets_are_told_to_come_back() {
    let mut stage = Stage::open(|_| {}).await;
    let mut socket = stage.socket("ann").await;
    socket.subscribe(1, "orders", &[]).await;
    let mut events = stage.stream("/events?channel=orders").await;
    events.must("subscribed").await;
    stage.gateway.stop();
    let closed = socket.closed().await;
    assert_eq!(
        (closed["closed"].as_u64(), closed["reason"].as_str()),
        (Some(1001), Some("going_away"))
    );
    assert!(closed["retry_ms"].as_u64().unwrap() < 10_000);
    let close = events.must("close").await;
    assert_eq!(close.data["code"], 1001);
    assert!(events.next().await.is_none());
    timeout(PATIENCE, &mut stage.served)
        .await
        .expect("it stays")
        .unwrap();
    assert_eq!(stage.gateway.connections.total(), 0);
}

#[tokio::test]
async fn one_that_does_not_go_is_not_waited_for() {
    let mut stage = Stage::open(|settings| settings.drain = Duration::from_millis(200)).await;
    let mut socket = stage.socket("ann").await;
    socket.subscribe(1, "orders", &[]).await;
    let _silent = tokio::net::TcpStream::connect(stage.address).await.unwrap();
    stage
        .until("it is there", |stage| {
            stage.gateway.connections.total() == 2
        })
        .await;
    stage.gateway.stop();
    timeout(PATIENCE, &mut stage.served)
        .await
        .expect("it stays")
        .unwrap();
}

#[tokio::test]
async fn who_comes_meanwhile_is_sent_elsewhere() {
    let stage = Stage::open(|settings| settings.drain = Duration::from_secs(30)).await;
    // A connection that is open already.
    let mut kept = tokio::net::TcpStream::connect(stage.address).await.unwrap();
    stage
        .until("it is there", |stage| {
            stage.gateway.connections.total() == 1
        })
        .await;
    let mut socket = stage.socket("ann").await;
    stage.gateway.stop();
    assert_eq!(socket.closed().await["closed"], 1001);
    let _ = tokio::io::AsyncWriteExt::write_all(
        &mut kept,
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .await;
    let mut answer = String::new();
    let _ = tokio::io::AsyncReadExt::read_to_string(&mut kept, &mut answer).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 503"),
        "{answer}"
    );
}
