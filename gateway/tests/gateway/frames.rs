//! Frames as no browser sends them, over a bare connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stage::{token, Answer, Stage, PATIENCE};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const FIN: u8 = 0x80;

struct Raw(tokio::io::BufReader<TcpStream>);

fn frame(first: u8, body: &[u8], is_masked: bool) -> Vec<u8> {
    let mask = if is_masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match body.len() {
        length @ 0..=125 => bytes.push(mask | length as u8),
        length @ 126..=65_535 => {
            bytes.push(mask | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(mask | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if is_masked {
        let key = [1, 2, 3, 4];
        bytes.extend_from_slice(&key);
        bytes.extend(
            body.iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
    } else {
        bytes.extend_from_slice(body);
    }
    bytes
}

impl Raw {
    async fn open(stage: &Stage) -> Self {
        let bearer = format!("Bearer {}", token("ann"));
        let fields = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Authorization", bearer.as_str()),
        ];
        let answer = stage.request("GET", "/socket", &fields).await;
        assert_eq!(answer.status, 101);
        assert_eq!(
            answer.field("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert_eq!(answer.field("sec-websocket-extensions"), None);
        let mut raw = Self(answer.stream);
        assert!(raw.text().await.contains("authenticated"));
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        // Whoever has closed already does not take it.
        let _ = self.0.get_mut().write_all(bytes).await;
    }

    /// The next frame; None at the end.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).await.ok()?;
            assert_eq!(head[1] & 0x80, 0, "a server masks nothing");
            let length = match head[1] {
                126 => usize::from(self.0.read_u16().await.ok()?),
                127 => usize::try_from(self.0.read_u64().await.ok()?).unwrap(),
                length => usize::from(length),
            };
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.ok()?;
            Some((head[0], body))
        };
        timeout(PATIENCE, read).await.expect("no frame in time")
    }

    async fn text(&mut self) -> String {
        let (first, body) = self.frame().await.expect("it has ended");
        assert_eq!(first, FIN | TEXT);
        String::from_utf8(body).unwrap()
    }

    /// The code with which it ends; None without one.
    async fn end(&mut self) -> Option<u16> {
        loop {
            match self.frame().await {
                None => return None,
                Some((first, body)) if first == FIN | CLOSE => {
                    return body.first_chunk().map(|code| u16::from_be_bytes(*code));
                }
                Some(_) => {}
            }
        }
    }
}

const SAID: &[u8] = br#"{"type":"ping","id":7}"#;
const ANSWER: &str = r#"{"id":7,"type":"pong"}"#;

#[tokio::test]
async fn a_message_may_come_in_any_pieces() {
    let stage = Stage::open(|_| {}).await;
    let mut raw = Raw::open(&stage).await;
    // Byte by byte.
    for byte in frame(FIN | TEXT, SAID, true) {
        raw.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(raw.text().await, ANSWER);
    // In fragments, with a control frame between them.
    let (begin, rest) = SAID.split_at(5);
    let (middle, end) = rest.split_at(5);
    raw.send(&frame(TEXT, begin, true)).await;
    raw.send(&frame(FIN | PING, b"still there?", true)).await;
    raw.send(&frame(0, middle, true)).await;
    raw.send(&frame(0, b"", true)).await;
    raw.send(&frame(FIN, end, true)).await;
    let (first, body) = raw.frame().await.unwrap();
    assert_eq!(
        (first, body.as_slice()),
        (FIN | 10, b"still there?".as_slice())
    );
    assert_eq!(raw.text().await, ANSWER);
    // Several in one packet.
    let three = frame(FIN | TEXT, SAID, true).repeat(3);
    raw.send(&three).await;
    for _ in 0..3 {
        assert_eq!(raw.text().await, ANSWER);
    }
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_socket() {
    let stage = Stage::open(|_| {}).await;
    let half = frame(TEXT, b"{", true);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("not masked", frame(FIN | TEXT, SAID, false)),
        ("a reserved bit", frame(FIN | 0x40 | TEXT, SAID, true)),
        ("an unknown kind", frame(FIN | 3, SAID, true)),
        ("an unknown control frame", frame(FIN | 11, b"", true)),
        ("a control frame in pieces", frame(PING, b"", true)),
        (
            "a control frame of 126 bytes",
            frame(FIN | PING, &[0; 126], true),
        ),
        ("a continuation of nothing", frame(FIN, SAID, true)),
        (
            "a message in a message",
            [half.clone(), frame(FIN | TEXT, SAID, true)].concat(),
        ),
        ("text that is none", frame(FIN | TEXT, &[0xff, 0xfe], true)),
        (
            "text that is none, in two pieces",
            [frame(TEXT, &[0xc3], true), frame(FIN, b"(", true)].concat(),
        ),
        ("bytes", frame(FIN | BINARY, SAID, true)),
    ];
    for (what, bytes) in cases {
        let mut raw = Raw::open(&stage).await;
        raw.send(&bytes).await;
        let end = raw.end().await;
        assert!(matches!(end, Some(4200 | 4201) | None), "{what}: {end:?}");
    }
    stage
        .until("they are gone", |stage| stage.gateway.sockets().is_empty())
        .await;
}

#[tokio::test]
async fn what_is_too_large_is_not_kept() {
    let stage = Stage::open(|settings| settings.max_message_bytes = 1_000).await;
    // A length that no memory has, in the head of a frame.
    let mut huge = vec![FIN | TEXT, 0x80 | 127];
    huge.extend_from_slice(&(u64::MAX >> 1).to_be_bytes());
    huge.extend_from_slice(&[1, 2, 3, 4]);
    let pieces = |size: usize, count: usize| {
        let mut bytes = frame(TEXT, &vec![b' '; size], true);
        for _ in 1..count {
            bytes.extend(frame(0, &vec![b' '; size], true));
        }
        bytes
    };
    let cases = [
        ("a length", huge),
        ("a frame", frame(FIN | TEXT, &[b' '; 1_001], true)),
        ("many frames", pieces(400, 3)),
    ];
    for (what, bytes) in cases {
        let mut raw = Raw::open(&stage).await;
        raw.send(&bytes).await;
        assert_eq!(raw.end().await, Some(4201), "{what}");
    }
}

#[tokio::test]
async fn a_close_of_any_kind_ends_it() {
    let stage = Stage::open(|_| {}).await;
    let cases: Vec<Vec<u8>> = vec![
        frame(FIN | CLOSE, b"", true),
        frame(FIN | CLOSE, &[3], true),
        frame(FIN | CLOSE, &[3, 232, b'x'], true),
        frame(FIN | CLOSE, &[3, 232, 0xff], true),
        frame(FIN | CLOSE, &[0, 0], true),
        frame(FIN | CLOSE, &[0xff, 0xff], true),
    ];
    for bytes in cases {
        let mut raw = Raw::open(&stage).await;
        raw.send(&bytes).await;
        let _ = raw.end().await;
    }
    stage
        .until("they are gone", |stage| stage.gateway.sockets().is_empty())
        .await;
}

#[tokio::test]
async fn a_connection_that_is_torn_is_forgotten() {
    let stage = Stage::open(|_| {}).await;
    for cut in 1..12 {
        let mut raw = Raw::open(&stage).await;
        let bytes = frame(FIN | TEXT, SAID, true);
        raw.send(&bytes[..cut]).await;
        drop(raw);
    }
    stage
        .until("they are gone", |stage| {
            stage.gateway.sockets().is_empty() && stage.gateway.connections.total() == 0
        })
        .await;
}

#[tokio::test]
async fn a_flood_of_control_frames_ends_it() {
    let stage = Stage::open(|settings| settings.message_burst = 20).await;
    let mut raw = Raw::open(&stage).await;
    raw.send(&frame(FIN | PING, b"", true).repeat(200)).await;
    assert_eq!(raw.end().await, Some(4300));
    assert_eq!(stage.refused("message_rate"), 1);
}

#[tokio::test]
async fn heads_of_requests_are_bounded() {
    let stage = Stage::open(|settings| settings.header_timeout = Duration::from_millis(300)).await;
    let long = "x".repeat(1_000_000);
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    let _ = stream
        .write_all(
            format!("GET /events HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n").as_bytes(),
        )
        .await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let many: String = (0..1_000).map(|n| format!("X{n}: 1\r\n")).collect();
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    stream
        .write_all(format!("GET /events HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").as_bytes())
        .await
        .unwrap();
    assert_eq!(Answer::read(stream).await.status, 431);
    for half in ["", "GET /ev", "GET /events HTTP/1.1\r\nHost: loc"] {
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("half a head is waited for");
    }
    stage
        .until("they are gone", |stage| {
            stage.gateway.connections.total() == 0
        })
        .await;
    assert!(stage.refused("header_timeout") >= 1 && stage.refused("header_too_large") >= 1);
}

#[tokio::test]
async fn what_is_no_upgrade_is_refused() {
    let stage = Stage::open(|_| {}).await;
    let upgrade = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for without in [
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Key",
    ] {
        let fields: Vec<(&str, &str)> = upgrade
            .iter()
            .filter(|(name, _)| *name != without)
            .copied()
            .collect();
        let status = stage.request("GET", "/socket", &fields).await.status;
        assert!((400..500).contains(&status), "{without}: {status}");
    }
    for origin in ["https://evil.example", "null"] {
        let fields: Vec<(&str, &str)> = upgrade
            .iter()
            .copied()
            .chain([("Origin", origin)])
            .collect();
        assert_eq!(stage.request("GET", "/socket", &fields).await.status, 403);
    }
}
