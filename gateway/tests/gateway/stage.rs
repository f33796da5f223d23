//! A gateway for a test: its own port, its own source.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use jsonwebtoken::{encode, Algorithm, EncodingKey, Header};
use pushy_gateway::clock;
use pushy_gateway::gateway::Gateway;
use pushy_gateway::hub::pump;
use pushy_gateway::serve::listen;
use pushy_gateway::serve::tls::Tls;
use pushy_gateway::settings::Settings;
use pushy_gateway::source::memory::Memory;
use pushy_gateway::source::{KeyText, Redeemed};
use serde_json::{json, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{client_async, WebSocketStream};

pub const SECRET: &str = "a secret of thirty-two bytes, or more";
/// Longer than anything here takes, on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Stage {
    pub gateway: Arc<Gateway>,
    pub memory: Arc<Memory>,
    pub address: SocketAddr,
    pub served: JoinHandle<()>,
}

pub fn hs256(name: &str, secret: &str) -> KeyText {
    KeyText {
        name: name.to_owned(),
        algorithm: "HS256".to_owned(),
        material: secret.to_owned(),
        kid: None,
        issuer: None,
        audience: None,
        role_claim: Some("role".to_owned()),
        role: None,
    }
}

pub fn signed(claims: &Value) -> String {
    encode(
        &Header::new(Algorithm::HS256),
        claims,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .unwrap()
}

pub fn token(subject: &str) -> String {
    token_for(subject, 600)
}

pub fn token_for(subject: &str, seconds: i64) -> String {
    signed(&json!({"sub": subject, "role": "app", "exp": clock::now_s() + seconds}))
}

impl Stage {
    /// Role `app` may read all of channel `orders`, and its own of `mail`.
    pub async fn open(change: impl FnOnce(&mut Settings)) -> Self {
        Self::open_with_tls(change, None).await
    }

    pub async fn open_with_tls(change: impl FnOnce(&mut Settings), tls: Option<Arc<Tls>>) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.check().unwrap();
        let memory = Arc::new(Memory::default());
        memory.set_keys(vec![hs256("main", SECRET)]);
        memory.grant("app", "orders", None);
        memory.grant("app", "mail", Some("user/{sub}/**"));
        let gateway = Gateway::new(settings, memory.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(pump::run(gateway.clone(), gateway.stopping.subscribe()));
        let of_presence = gateway.clone();
        tokio::spawn(async move { of_presence.presence.run().await });
        let served = tokio::spawn(listen::serve(gateway.clone(), listener, tls));
        let stage = Self {
            gateway,
            memory,
            address,
            served,
        };
        stage
            .until("the source is read", |stage| {
                stage.gateway.metrics.source_up.get() == 1
            })
            .await;
        stage
    }

    pub async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    pub fn ticket(&self, text: &str, channels: &[&str], topics: Option<&str>) {
        let ticket = Redeemed {
            role: "app".to_owned(),
            subject: Some("ann".to_owned()),
            channels: channels.iter().map(ToString::to_string).collect(),
            topics: topics.map(str::to_owned),
        };
        self.memory.ticket(text, ticket);
    }

    /// Sends a request and reads the answer's head.
    pub async fn request(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        if !fields
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            text += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in fields {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        stream.write_all(text.as_bytes()).await.unwrap();
        Answer::read(stream).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        let bearer = format!("Bearer {}", token("ann"));
        self.request("GET", path, &[("Authorization", &bearer)])
            .await
    }

    pub async fn stream(&self, path: &str) -> Events {
        Events(self.get(path).await.must(200))
    }

    pub async fn try_socket(
        &self,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<Socket, u16> {
        use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
        use tokio_tungstenite::tungstenite::Error;
        let mut request = format!("ws://{}{path}", self.address)
            .into_client_request()
            .unwrap();
        for (name, value) in fields {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        match timeout(PATIENCE, client_async(request, stream))
            .await
            .unwrap()
        {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Let in as this subject.
    pub async fn socket(&self, subject: &str) -> Socket {
        let bearer = format!("Bearer {}", token(subject));
        let mut socket = self
            .try_socket("/socket", &[("authorization", &bearer)])
            .await
            .unwrap();
        assert_eq!(socket.hear().await["type"], "authenticated");
        socket
    }

    pub fn refused(&self, reason: &str) -> u64 {
        let text = self.gateway.metrics.text(&[]);
        let line = format!("pushy_gateway_refused_total{{reason=\"{reason}\"}} ");
        let found = text
            .lines()
            .find_map(|one| one.strip_prefix(&line))
            .map(|count| count.parse().unwrap());
        found.unwrap_or(0)
    }
}

pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub stream: BufReader<TcpStream>,
}

impl Answer {
    pub async fn read(stream: TcpStream) -> Self {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        timeout(PATIENCE, stream.read_line(&mut line))
            .await
            .unwrap()
            .unwrap();
        let status = line
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("no answer: {line:?}"))
            .parse()
            .unwrap();
        let mut fields = Vec::new();
        loop {
            line.clear();
            timeout(PATIENCE, stream.read_line(&mut line))
                .await
                .unwrap()
                .unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Self {
            status,
            fields,
            stream,
        }
    }

    pub fn must(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}", self.fields);
        self
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    }

    pub async fn body(mut self) -> String {
        let length: usize = self
            .field("content-length")
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        timeout(PATIENCE, self.stream.read_exact(&mut body))
            .await
            .unwrap()
            .unwrap();
        String::from_utf8(body).unwrap()
    }

    pub async fn json(self) -> Value {
        serde_json::from_str(&self.body().await).unwrap()
    }
}

/// A stream of events, as a browser reads it.
pub struct Events(pub Answer);

#[derive(Debug, Default)]
pub struct Event {
    pub id: String,
    pub kind: String,
    pub data: Value,
}

impl Events {
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.0.stream.read_line(&mut line))
            .await
            .expect("no line in time");
        match read {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(
                line.trim_end_matches("\r\n")
                    .trim_end_matches('\n')
                    .to_owned(),
            ),
        }
    }

    /// The next event, or the comment or id that stands alone, as kind `:` or `id`; None at the end.
    pub async fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let line = self.line().await?;
            if let Some(id) = line.strip_prefix("id: ") {
                event.id = id.to_owned();
            } else if let Some(kind) = line.strip_prefix("event: ") {
                event.kind = kind.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                event.data = serde_json::from_str(data).unwrap();
            } else if line.starts_with(':') {
                event.kind = ":".to_owned();
            } else if line.is_empty()
                && !(event.id.is_empty() && event.kind.is_empty() && event.data.is_null())
            {
                if event.kind.is_empty() {
                    event.kind = if event.data.is_null() {
                        "id"
                    } else {
                        "message"
                    }
                    .to_owned();
                }
                return Some(event);
            }
            // All else is of the chunked encoding.
        }
    }

    pub async fn must(&mut self, kind: &str) -> Event {
        let event = self
            .next()
            .await
            .unwrap_or_else(|| panic!("the stream ends before {kind}"));
        assert_eq!(event.kind, kind, "{event:?}");
        event
    }

    pub async fn payload(&mut self) -> String {
        self.must("message").await.data["payload"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

pub struct Socket(pub WebSocketStream<TcpStream>);

impl Socket {
    pub async fn say(&mut self, said: Value) {
        self.0.send(Message::text(said.to_string())).await.unwrap();
    }

    /// The next message of JSON, or its end as `{"closed": code, …}`.
    pub async fn hear(&mut self) -> Value {
        loop {
            match timeout(PATIENCE, self.0.next())
                .await
                .expect("nothing to hear in time")
            {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    let said: Value = serde_json::from_str(&reason).unwrap_or_default();
                    return json!({"closed": u16::from(code), "reason": said["reason"], "cursor": said["cursor"], "retry_ms": said["retry_ms"]});
                }
                Some(Ok(Message::Close(None)) | Err(_)) | None => return json!({"closed": 0}),
                Some(Ok(_)) => {}
            }
        }
    }

    pub async fn must(&mut self, kind: &str) -> Value {
        let said = self.hear().await;
        assert_eq!(said["type"], kind, "{said}");
        said
    }

    pub async fn closed(&mut self) -> Value {
        loop {
            let said = self.hear().await;
            if said.get("closed").is_some() {
                return said;
            }
        }
    }

    pub async fn subscribe(&mut self, id: u32, channel: &str, topics: &[&str]) -> Value {
        self.say(json!({"type": "subscribe", "id": id, "channel": channel, "topics": topics}))
            .await;
        self.must("subscribed").await
    }

    pub async fn payload(&mut self) -> String {
        self.must("notice").await["payload"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// That nothing came: what is asked last is answered first.
    pub async fn hears_nothing_more(&mut self) {
        self.say(json!({"type": "ping", "id": 4711})).await;
        let said = self.must("pong").await;
        assert_eq!(said["id"], 4711);
    }
}
