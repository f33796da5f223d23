//! The source as a peer at the other end of a socketpair: the server's worker, from inside.
//!
//! Each message is a length, four bytes, the most significant first, and so many bytes of JSON. Both sides begin with
//! `{"pushy": 1}`, the version; who does not know the other's version ends. A request is `{"id": n, "do": …}` with its arguments, an answer `{"id": n,
//! "ok": …}` or `{"id": n, "error": {"away": …}}` or `{"failed": …}`. Answers come in any order. A request that nobody
//! waits for any more is `{"id": n, "do": "cancel"}`, and is not answered. The end of the stream ends the gateway.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pushy_core::log::cursor::Cursor;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use super::{
    Answer, Ask, Chunk, Event, KeyText, Metric, Reader, Redeemed, Report, Source, SourceError,
    Verdict,
};
use crate::lock;
use crate::notice::Notice;

pub const VERSION: u32 = 1;
/// Bytes of one message: a thousand notices of any payload that is no reference, escaped.
pub const LONGEST: usize = 64 * 1024 * 1024;
/// Requests that wait to be written.
const QUEUED: usize = 1_024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    Position,
    Wait { after: String, at_most_ms: u64 },
    Read { after: String, max: u32 },
    Authorize(Ask),
    Redeem { ticket: String },
    Keys,
    Metrics,
    Report(Report),
    Cancel,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct EventText {
    pub cursor: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resync: bool,
    #[serde(default)]
    pub channel: String,
    pub topic: Option<String>,
    /// None: longer than a socket can hear.
    pub payload: Option<String>,
    /// Microseconds since 1970.
    #[serde(default)]
    pub at_us: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ChunkText {
    pub events: Vec<EventText>,
    pub next: String,
}

#[derive(Serialize)]
struct Asked<'a> {
    id: u64,
    #[serde(flatten)]
    request: &'a Request,
}

#[derive(Debug, Deserialize)]
struct Said<'a> {
    id: Option<u64>,
    pushy: Option<u32>,
    #[serde(borrow, default, deserialize_with = "said")]
    ok: Option<&'a RawValue>,
    error: Option<ErrorText>,
}

/// `null` is an answer, too.
fn said<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ErrorText {
    Away(String),
    Failed(String),
}

type Waiting = HashMap<u64, oneshot::Sender<Result<Box<RawValue>, SourceError>>>;

struct Inside {
    waiting: Waiting,
    last: u64,
    is_over: bool,
}

pub struct Framed {
    inside: Arc<Mutex<Inside>>,
    out: mpsc::Sender<Vec<u8>>,
}

fn away(why: impl std::fmt::Display) -> SourceError {
    SourceError::Away(why.to_string())
}

fn failed(why: impl std::fmt::Display) -> SourceError {
    SourceError::Failed(why.to_string())
}

/// Dropped before its answer came, the request is taken back.
struct Pending<'a> {
    framed: &'a Framed,
    id: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if lock(&self.framed.inside).waiting.remove(&self.id).is_some() {
            let cancel = Asked {
                id: self.id,
                request: &Request::Cancel,
            };
            if let Ok(bytes) = serde_json::to_vec(&cancel) {
                // A full queue takes it back later: by its time.
                let _ = self.framed.out.try_send(bytes);
            }
        }
    }
}

impl Framed {
    /// And what is told when the other side has ended.
    pub async fn open<S>(
        stream: S,
    ) -> Result<(Arc<Self>, oneshot::Receiver<SourceError>), SourceError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let hello = serde_json::json!({"pushy": VERSION}).to_string();
        write_frame(&mut writer, hello.as_bytes())
            .await
            .map_err(away)?;
        let theirs = read_frame(&mut reader).await?;
        let version = serde_json::from_slice::<Said>(&theirs)
            .map_err(failed)?
            .pushy;
        if version != Some(VERSION) {
            return Err(failed(format!("the server speaks version {version:?} of this protocol, and this gateway {VERSION}")));
        }
        let (out, mut queued) = mpsc::channel::<Vec<u8>>(QUEUED);
        let (tell_over, over) = oneshot::channel();
        let inside = Arc::new(Mutex::new(Inside {
            waiting: HashMap::new(),
            last: 0,
            is_over: false,
        }));
        let framed = Arc::new(Self {
            inside: inside.clone(),
            out,
        });
        tokio::spawn(async move {
            while let Some(bytes) = queued.recv().await {
                if write_frame(&mut writer, &bytes).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            let error = loop {
                let said = match read_frame(&mut reader).await {
                    Ok(said) => said,
                    Err(error) => break error,
                };
                if let Err(error) = hear(&inside, &said) {
                    break error;
                }
            };
            let mut inside = lock(&inside);
            inside.is_over = true;
            for (_, waits) in inside.waiting.drain() {
                let _ = waits.send(Err(error.clone()));
            }
            let _ = tell_over.send(error);
        });
        Ok((framed, over))
    }

    async fn ask<T: for<'a> Deserialize<'a>>(&self, request: Request) -> Result<T, SourceError> {
        let (answered, answer) = oneshot::channel();
        let id = {
            let mut inside = lock(&self.inside);
            if inside.is_over {
                return Err(away("the server has ended"));
            }
            inside.last += 1;
            let id = inside.last;
            inside.waiting.insert(id, answered);
            id
        };
        let pending = Pending { framed: self, id };
        let bytes = serde_json::to_vec(&Asked {
            id,
            request: &request,
        })
        .map_err(failed)?;
        self.out.send(bytes).await.map_err(away)?;
        let said = answer.await.map_err(away)??;
        drop(pending);
        serde_json::from_str(said.get()).map_err(failed)
    }
}

fn hear(inside: &Mutex<Inside>, said: &[u8]) -> Result<(), SourceError> {
    let read: Said = serde_json::from_slice(said).map_err(failed)?;
    let Some(id) = read.id else {
        return Err(failed("a message without an id"));
    };
    let Some(waits) = lock(inside).waiting.remove(&id) else {
        return Ok(());
    };
    let answer = match (read.ok, read.error) {
        (_, Some(ErrorText::Away(why))) => Err(away(why)),
        (_, Some(ErrorText::Failed(why))) => Err(failed(why)),
        (Some(ok), None) => Ok(ok.to_owned()),
        (None, None) => Err(failed("an answer without one")),
    };
    let _ = waits.send(answer);
    Ok(())
}

pub async fn write_frame(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    to.write_all(&length.to_be_bytes()).await?;
    to.write_all(bytes).await?;
    to.flush().await
}

pub async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, SourceError> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await.map_err(away)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(failed(format!("a message of {length} bytes")));
    }
    // Grows as it comes: a length alone costs nothing.
    let mut bytes = Vec::new();
    let read = from
        .take(length as u64)
        .read_to_end(&mut bytes)
        .await
        .map_err(away)?;
    if read < length {
        return Err(away("the stream ends within a message"));
    }
    Ok(bytes)
}

fn cursor(text: &str) -> Result<Cursor, SourceError> {
    text.parse()
        .map_err(|_| failed(format!("\"{text}\" is no cursor")))
}

impl ChunkText {
    pub fn read(self) -> Result<Chunk, SourceError> {
        let event = |event: EventText| {
            let cursor = cursor(&event.cursor)?;
            if event.resync {
                return Ok(Event::Resync(cursor));
            }
            let (channel, topic) = (&event.channel, event.topic.as_deref());
            let notice = match &event.payload {
                Some(payload) => Notice::new(cursor, channel, topic, payload, event.at_us),
                None => Notice::too_long(cursor, channel, topic, event.at_us),
            };
            Ok(Event::Notice(Arc::new(notice)))
        };
        Ok(Chunk {
            events: self
                .events
                .into_iter()
                .map(event)
                .collect::<Result<_, _>>()?,
            next: cursor(&self.next)?,
        })
    }
}

impl Source for Framed {
    fn position(&self) -> Answer<'_, Cursor> {
        Box::pin(async { cursor(&self.ask::<String>(Request::Position).await?) })
    }

    fn wait(&self, after: Cursor, at_most: Duration) -> Answer<'_, bool> {
        let at_most_ms = u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX);
        Box::pin(self.ask(Request::Wait {
            after: after.to_string(),
            at_most_ms,
        }))
    }

    fn read(&self, _reader: Reader, after: Cursor, max: u32) -> Answer<'_, Chunk> {
        let after = after.to_string();
        Box::pin(async move {
            self.ask::<ChunkText>(Request::Read { after, max })
                .await?
                .read()
        })
    }

    fn authorize(&self, ask: Ask) -> Answer<'_, Verdict> {
        Box::pin(self.ask(Request::Authorize(ask)))
    }

    fn redeem(&self, ticket: String) -> Answer<'_, Option<Redeemed>> {
        Box::pin(self.ask(Request::Redeem { ticket }))
    }

    fn keys(&self) -> Answer<'_, Vec<KeyText>> {
        Box::pin(self.ask(Request::Keys))
    }

    fn metrics(&self) -> Answer<'_, Vec<Metric>> {
        Box::pin(self.ask(Request::Metrics))
    }

    fn report(&self, report: Report) -> Answer<'_, ()> {
        Box::pin(self.ask(Request::Report(report)))
    }
}
