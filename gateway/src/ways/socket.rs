//! GET /socket: a WebSocket with many subscriptions.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::SinkExt as _;
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::limits::{Bucket, Rate};
use crate::serve::door::Visitor;

use super::close::{self, Close};
use super::message::{self, Code, Incoming, Refusal};
use super::query::{authenticate, request, verify, Query};
use super::session::{Out, Session};

const TRANSPORT: &str = "websocket";
/// What a socket that does nothing keeps.
const READ_BUFFER: usize = 4_096;
const WRITE_BUFFER: usize = 16_384;
/// Messages `auth` of one socket in a second, and at once: each has all its subscriptions decided anew.
const AUTH_RATE: u32 = 1;
const AUTH_BURST: u32 = 5;
/// Until a client has answered that it closes, too.
const FAREWELL: Duration = Duration::from_secs(1);

pub async fn open(
    gateway: &Arc<Gateway>,
    visitor: Visitor,
    headers: &HeaderMap,
    query: &str,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    let query = Query::read(query)?;
    let who = authenticate(gateway, headers, query.ticket.as_deref()).await?;
    let mut session = Session::new(
        gateway,
        TRANSPORT,
        visitor.address,
        false,
        gateway.settings.buffer_notices,
    );
    if let Some(who) = who {
        let until_s = who.until_s;
        session.admit(who)?;
        session.answer(message::authenticated(until_s));
    }
    let settings = &gateway.settings;
    let upgrade = upgrade
        .read_buffer_size(READ_BUFFER)
        // What is fed waits for what was: no more than that and one message.
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(settings.max_message_bytes)
        .max_frame_size(settings.max_message_bytes);
    let gateway = gateway.clone();
    Ok(upgrade.on_upgrade(move |socket| async move {
        let mut served = Served {
            rate: Rate::new(
                gateway.settings.message_rate,
                gateway.settings.message_burst,
            ),
            bucket: Rate::new(
                gateway.settings.message_rate,
                gateway.settings.message_burst,
            )
            .full(std::time::Instant::now()),
            auth: Rate::new(AUTH_RATE, AUTH_BURST).full(std::time::Instant::now()),
            heard: Instant::now(),
            gateway,
            session,
            socket,
            is_over: false,
            _visitor: visitor,
        };
        served.run().await;
    }))
}

struct Served {
    gateway: Arc<Gateway>,
    session: Session,
    socket: WebSocket,
    rate: Rate,
    bucket: Bucket,
    auth: Bucket,
    /// When the client said something last.
    heard: Instant,
    /// It is closed: what the client says now is not heard.
    is_over: bool,
    _visitor: Visitor,
}

enum Heard {
    Message(Message),
    Gone,
    Broken(Close),
}

impl Served {
    async fn run(&mut self) {
        loop {
            let is_busy = self.session.is_busy();
            tokio::select! {
                heard = hear(&mut self.socket), if !is_busy && !self.is_over => {
                    self.heard = Instant::now();
                    match heard {
                        Heard::Gone => return,
                        Heard::Broken(close) => return self.farewell(close).await,
                        Heard::Message(message) => self.obey(message),
                    }
                }
                out = self.session.next() => {
                    let is_over = matches!(out, Out::Close(_));
                    if self.write(out).await.is_err() || is_over {
                        return;
                    }
                }
            }
        }
    }

    fn end(&mut self, close: Close) {
        self.is_over = true;
        self.session.close(close);
    }

    fn obey(&mut self, message: Message) {
        if !self.rate.take(&mut self.bucket, std::time::Instant::now()) {
            self.gateway.metrics.refuse("message_rate");
            return self.end(close::TOO_FAST.after_ms(1_000));
        }
        match message {
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(incoming) => self.do_it(incoming),
                Err(_) => {
                    self.gateway.metrics.refuse("bad_message");
                    self.end(close::BAD_MESSAGE);
                }
            },
            Message::Binary(_) => {
                self.gateway.metrics.refuse("bad_message");
                self.end(close::BAD_MESSAGE);
            }
            // The library answers these.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {}
        }
    }

    fn do_it(&mut self, incoming: Incoming) {
        let (id, done) = match incoming {
            Incoming::Ping { id } => {
                self.session.answer(message::pong(id));
                return;
            }
            Incoming::Unsubscribe { id } => {
                let _ = self.session.unsubscribe(id);
                self.session.answer(message::unsubscribed(id));
                return;
            }
            Incoming::Auth { token, ticket } => (None, self.authenticate(token, ticket)),
            Incoming::Subscribe {
                id,
                channel,
                topics,
                after,
                latest,
                presence,
            } => {
                let asked = request(
                    &self.gateway,
                    id,
                    &channel,
                    &topics,
                    after.as_deref(),
                    latest,
                    presence,
                );
                (
                    Some(id),
                    asked.and_then(|request| self.session.subscribe(request)),
                )
            }
        };
        if let Err(refusal) = done {
            self.session.answer(message::error(id, &refusal));
            // A first token that is none: there is nothing to stay for.
            if id.is_none() && !self.session.is_authenticated() {
                self.end(match refusal.code {
                    Code::TooMany => close::TOO_MANY,
                    _ => close::UNAUTHENTICATED,
                });
            }
        }
    }

    fn authenticate(
        &mut self,
        token: Option<String>,
        ticket: Option<String>,
    ) -> Result<(), Refusal> {
        let rate = Rate::new(AUTH_RATE, AUTH_BURST);
        if !rate.take(&mut self.auth, std::time::Instant::now()) {
            self.gateway.metrics.refuse("auth_rate");
            return Err(Code::TooFast.because("a token or ticket a second is enough"));
        }
        match (token, ticket) {
            (Some(token), None) => {
                let who = verify(&self.gateway, &token)?;
                let until_s = who.until_s;
                self.session.admit(who)?;
                self.session.answer(message::authenticated(until_s));
                Ok(())
            }
            (None, Some(ticket)) if ticket.len() <= self.gateway.settings.max_token_bytes => {
                self.session.redeem(ticket)
            }
            _ => Err(Code::BadMessage.because("auth has a token, or a ticket")),
        }
    }

    async fn write(&mut self, out: Out) -> Result<(), axum::Error> {
        match out {
            Out::Items(items) => {
                for item in &items {
                    self.socket
                        .feed(Message::text(message::frame(item)))
                        .await?;
                }
                self.socket.flush().await?;
                self.session.sent(&items, TRANSPORT);
                Ok(())
            }
            Out::KeepAlive(position) => {
                let settings = &self.gateway.settings;
                if self.heard.elapsed() > settings.keep_alive * 2 + settings.write_timeout {
                    self.farewell(close::SILENT).await;
                    return Err(axum::Error::new("silent"));
                }
                if let Some(cursor) = position {
                    self.socket
                        .feed(Message::text(message::position(cursor)))
                        .await?;
                }
                self.socket
                    .send(Message::Ping(axum::body::Bytes::new()))
                    .await
            }
            Out::Expiring(until_s) => {
                self.socket
                    .send(Message::text(message::expiring(until_s)))
                    .await
            }
            Out::Close(close) => {
                self.farewell(close).await;
                Ok(())
            }
        }
    }

    async fn farewell(&mut self, close: Close) {
        self.session.count_close(&close);
        let frame = CloseFrame {
            code: close.code,
            reason: close.json().into(),
        };
        if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
            let gone = async { while matches!(hear(&mut self.socket).await, Heard::Message(_)) {} };
            // Gone or not, that was it.
            let _ = tokio::time::timeout(FAREWELL, gone).await;
        }
    }
}

async fn hear(socket: &mut WebSocket) -> Heard {
    match socket.recv().await {
        None => Heard::Gone,
        Some(Ok(message)) => Heard::Message(message),
        Some(Err(error)) => {
            let said = error.to_string().to_ascii_lowercase();
            if said.contains("too long") || said.contains("too big") {
                Heard::Broken(close::TOO_LARGE)
            } else if said.contains("protocol") || said.contains("utf-8") {
                Heard::Broken(close::BAD_MESSAGE)
            } else {
                Heard::Gone
            }
        }
    }
}
