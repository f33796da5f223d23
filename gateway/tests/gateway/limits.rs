//! How much one may have.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stage::{token, Stage, PATIENCE};

/// Whether the connection was closed without a word.
async fn is_turned_away(stage: &Stage) -> bool {
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    let _ = stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    answer.is_empty()
}

#[tokio::test]
async fn connections_are_counted_before_they_say_anything() {
    let stage = Stage::open(|settings| settings.max_connections = 5).await;
    let mut half_open = Vec::new();
    for _ in 0..5 {
        half_open.push(TcpStream::connect(stage.address).await.unwrap());
    }
    stage
        .until("they are counted", |stage| {
            stage.gateway.connections.total() == 5
        })
        .await;
    assert!(is_turned_away(&stage).await);
    drop(half_open);
    stage
        .until("they are gone", |stage| {
            stage.gateway.connections.total() == 0
        })
        .await;
    assert!(!is_turned_away(&stage).await);
    assert_eq!(stage.refused("connections"), 1);
}

#[tokio::test]
async fn one_address_has_its_share() {
    let stage = Stage::open(|settings| settings.max_connections_per_address = 2).await;
    let _first = stage.socket("ann").await;
    let _second = stage.socket("bob").await;
    assert!(is_turned_away(&stage).await);
    assert_eq!(stage.refused("connections_of_address"), 1);
}

#[tokio::test]
async fn behind_a_proxy_each_client_is_counted_by_its_own_address() {
    let stage = Stage::open(|settings| {
        settings.max_connections_per_address = 1;
        settings.trusted_proxies =
            vec![pushy_gateway::who::address::Network::read("127.0.0.1").unwrap()];
    })
    .await;
    let bearer = format!("Bearer {}", token("ann"));
    let from = |address: &'static str| {
        [
            ("authorization", bearer.clone()),
            ("x-forwarded-for", address.to_owned()),
        ]
    };
    let mut kept = Vec::new();
    for (address, expected) in [
        ("1.1.1.1", Ok(())),
        ("2.2.2.2", Ok(())),
        ("1.1.1.1", Err(429)),
        ("9.9.9.9, 1.1.1.1", Err(429)),
    ] {
        let fields = from(address);
        let fields: Vec<(&'static str, &str)> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        match stage.try_socket("/socket", &fields).await {
            Ok(socket) => {
                assert_eq!(expected, Ok(()), "{address}");
                kept.push(socket);
            }
            Err(status) => assert_eq!(expected, Err(status), "{address}"),
        }
    }
    assert_eq!(stage.gateway.sockets()[0].1.address.to_string(), "1.1.1.1");
}

#[tokio::test]
async fn one_subject_has_its_share() {
    let stage = Stage::open(|settings| settings.max_sockets_per_subject = 1).await;
    let first = stage.socket("ann").await;
    let bearer = format!("Bearer {}", token("ann"));
    assert_eq!(
        stage
            .try_socket("/socket", &[("authorization", &bearer)])
            .await
            .err(),
        Some(429)
    );
    let _other = stage.socket("bob").await;
    drop(first);
    stage
        .until("she is gone", |stage| stage.gateway.of_subject.total() == 1)
        .await;
    let _again = stage.socket("ann").await;
    assert_eq!(stage.refused("sockets_of_subject"), 1);
}

#[tokio::test]
async fn one_address_asks_no_faster_than_it_may() {
    let stage = Stage::open(|settings| {
        settings.connect_rate = 0;
        settings.connect_burst = 3;
    })
    .await;
    for _ in 0..3 {
        assert_eq!(stage.get("/notices?channel=orders").await.status, 200);
    }
    let refused = stage.get("/notices?channel=orders").await.must(429);
    assert!(refused.field("retry-after").is_some());
    // Whoever watches over it is not counted.
    assert_eq!(stage.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_token_of_any_size_is_looked_at_only_so_far() {
    let stage = Stage::open(|settings| settings.max_token_bytes = 1_000).await;
    let bearer = format!("Bearer {}", "x".repeat(1_001));
    assert_eq!(
        stage
            .request(
                "GET",
                "/events?channel=orders",
                &[("Authorization", &bearer)]
            )
            .await
            .status,
        401
    );
    assert_eq!(stage.refused("token_too_large"), 1);
    let path = format!("/events?channel=orders&ticket={}", "x".repeat(1_001));
    assert_eq!(stage.request("GET", &path, &[]).await.status, 401);
}

#[tokio::test]
async fn the_counters_are_for_who_may_read_them() {
    let stage = Stage::open(|settings| settings.metrics_token = "open sesame".to_owned()).await;
    assert_eq!(stage.request("GET", "/metrics", &[]).await.status, 403);
    assert_eq!(
        stage
            .request(
                "GET",
                "/metrics",
                &[("Authorization", "Bearer open sesamf")]
            )
            .await
            .status,
        403
    );
    let text = stage
        .request(
            "GET",
            "/metrics",
            &[("Authorization", "Bearer open sesame")],
        )
        .await
        .must(200)
        .body()
        .await;
    assert!(text.contains("pushy_gateway_source_up 1\n"), "{text}");
    let stage = Stage::open(|_| {}).await;
    assert_eq!(stage.request("GET", "/metrics", &[]).await.status, 200);
    // A proxy on this machine speaks for others.
    assert_eq!(
        stage
            .request("GET", "/metrics", &[("X-Forwarded-For", "1.1.1.1")])
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn while_the_database_is_away_it_says_so_and_comes_back() {
    use pushy_gateway::source::SourceError;
    let stage = Stage::open(|_| {}).await;
    assert_eq!(stage.get("/readyz").await.status, 200);
    let mut socket = stage.socket("ann").await;
    socket.subscribe(1, "orders", &[]).await;
    stage
        .memory
        .fail(Some(SourceError::Away("gone fishing".to_owned())));
    stage
        .until("it notices", |stage| {
            stage.gateway.metrics.source_up.get() == 0
        })
        .await;
    assert_eq!(stage.get("/readyz").await.status, 503);
    assert_eq!(stage.get("/healthz").await.status, 200);
    assert_eq!(
        stage
            .get("/events?channel=orders")
            .await
            .must(503)
            .json()
            .await["code"],
        "unavailable"
    );
    assert_eq!(stage.request("GET", "/metrics", &[]).await.status, 200);
    stage.memory.publish("orders", None, "meanwhile");
    stage.memory.fail(None);
    assert_eq!(socket.payload().await, "meanwhile");
    stage
        .until("it notices", |stage| {
            stage.gateway.metrics.source_up.get() == 1
        })
        .await;
}
