//! The source at the other end of a socketpair.

use std::sync::Arc;
use std::time::Duration;

use pushy_core::log::cursor::Cursor;
use pushy_gateway::source::framed::{
    read_frame, write_frame, ChunkText, EventText, Framed, VERSION,
};
use pushy_gateway::source::memory::Memory;
use pushy_gateway::source::{Ask, Event, Reader, Source, SourceError, Verdict};
use serde_json::{json, Value};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// As the server's worker answers, over a source in memory.
struct Worker {
    reader: OwnedReadHalf,
    writer: Arc<Mutex<OwnedWriteHalf>>,
}

fn chunk_text(chunk: pushy_gateway::source::Chunk) -> ChunkText {
    let event = |event: Event| match event {
        Event::Resync(at) => EventText {
            cursor: at.to_string(),
            resync: true,
            channel: String::new(),
            topic: None,
            payload: None,
            at_us: 0,
        },
        Event::Notice(notice) => {
            let said: Value =
                serde_json::from_slice(&[b"{", notice.members().as_ref(), b"}"].concat()).unwrap();
            EventText {
                cursor: notice.cursor.to_string(),
                resync: false,
                channel: notice.channel.to_string(),
                topic: notice.topic.as_deref().map(str::to_owned),
                payload: (!notice.is_too_long)
                    .then(|| said["payload"].as_str().unwrap().to_owned()),
                at_us: notice.at_us,
            }
        }
    };
    ChunkText {
        events: chunk.events.into_iter().map(event).collect(),
        next: chunk.next.to_string(),
    }
}

async fn answer(memory: &Memory, said: &Value) -> Value {
    let after = || said["after"].as_str().unwrap().parse::<Cursor>().unwrap();
    match said["do"].as_str().unwrap() {
        "position" => json!(memory.position().await.unwrap().to_string()),
        "wait" => json!(memory
            .wait(
                after(),
                Duration::from_millis(said["at_most_ms"].as_u64().unwrap())
            )
            .await
            .unwrap()),
        "read" => json!(chunk_text(
            memory
                .read(Reader::Pump, after(), said["max"].as_u64().unwrap() as u32)
                .await
                .unwrap()
        )),
        "authorize" => json!(memory
            .authorize(serde_json::from_value::<Ask>(said.clone()).unwrap())
            .await
            .unwrap()),
        "redeem" => json!(memory
            .redeem(said["ticket"].as_str().unwrap().to_owned())
            .await
            .unwrap()),
        "keys" => json!(memory.keys().await.unwrap()),
        "metrics" => json!(memory.metrics().await.unwrap()),
        other => panic!("{other}"),
    }
}

impl Worker {
    async fn open(stream: UnixStream, version: u32) -> Self {
        let (mut reader, mut writer) = stream.into_split();
        write_frame(
            &mut writer,
            json!({"pushy": version}).to_string().as_bytes(),
        )
        .await
        .unwrap();
        let hello: Value = serde_json::from_slice(&read_frame(&mut reader).await.unwrap()).unwrap();
        assert_eq!(hello["pushy"], VERSION);
        Self {
            reader,
            writer: Arc::new(Mutex::new(writer)),
        }
    }

    /// Answers in any order, until the other side ends. What is taken back goes into the channel.
    async fn serve(
        mut self,
        memory: Arc<Memory>,
        answers: tokio::sync::mpsc::UnboundedSender<Value>,
    ) {
        while let Ok(said) = read_frame(&mut self.reader).await {
            let said: Value = serde_json::from_slice(&said).unwrap();
            if said["do"] == "cancel" {
                let _ = answers.send(said);
                continue;
            }
            let (memory, writer) = (memory.clone(), self.writer.clone());
            tokio::spawn(async move {
                let answer = json!({"id": said["id"], "ok": answer(&memory, &said).await});
                let _ = write_frame(&mut *writer.lock().await, answer.to_string().as_bytes()).await;
            });
        }
    }
}

#[tokio::test]
async fn both_sides_understand_each_other() {
    let (near, far) = UnixStream::pair().unwrap();
    let memory = Arc::new(Memory::default());
    memory.grant("app", "orders", None);
    memory.ticket(
        "t",
        pushy_gateway::source::Redeemed {
            role: "app".into(),
            subject: None,
            channels: vec!["orders".into()],
            topics: None,
        },
    );
    memory.set_keys(vec![crate::stage::hs256("main", crate::stage::SECRET)]);
    let (heard, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let of_worker = memory.clone();
    let opened = tokio::spawn(async move { Worker::open(far, VERSION).await });
    let (framed, over) = Framed::open(near).await.unwrap();
    let worker = opened.await.unwrap();
    let writer = worker.writer.clone();
    let served = tokio::spawn(worker.serve(of_worker, heard));
    let end = framed.position().await.unwrap();
    // A wait keeps no other question waiting.
    let waiting = {
        let framed = framed.clone();
        tokio::spawn(async move { framed.wait(end, Duration::from_secs(60)).await })
    };
    let ask = Ask {
        role: "app".into(),
        subject: None,
        channel: "Orders".into(),
        topics: vec!["a/*".into()],
    };
    let allowed = Verdict::Allowed {
        channel: "orders".into(),
        since: None,
    };
    assert_eq!(framed.authorize(ask.clone()).await.unwrap(), allowed);
    assert!(matches!(
        framed
            .authorize(Ask {
                role: "web".into(),
                ..ask
            })
            .await
            .unwrap(),
        Verdict::Refused { .. }
    ));
    assert_eq!(
        framed.redeem("t".into()).await.unwrap().unwrap().role,
        "app"
    );
    assert_eq!(framed.redeem("t".into()).await.unwrap(), None);
    assert_eq!(framed.keys().await.unwrap().len(), 1);
    let cursor = memory.publish("orders", Some("a\n/\"b"), &"é\0".repeat(50_000));
    assert!(waiting.await.unwrap().unwrap());
    let chunk = framed.read(Reader::Pump, end, 10).await.unwrap();
    assert_eq!(chunk.next, cursor);
    assert!(
        matches!(&chunk.events[..], [Event::Notice(notice)] if notice.topic.as_deref() == Some("a\n/\"b"))
    );
    // Nobody waits any more.
    drop(
        tokio::time::timeout(
            Duration::from_millis(20),
            framed.wait(cursor, Duration::from_secs(1)),
        )
        .await,
    );
    assert_eq!(answers.recv().await.unwrap()["do"], "cancel");
    served.abort();
    drop(writer);
    assert!(matches!(over.await.unwrap(), SourceError::Away(_)));
    assert!(matches!(framed.position().await, Err(SourceError::Away(_))));
}

#[tokio::test]
async fn another_version_is_not_spoken_to() {
    let (near, far) = UnixStream::pair().unwrap();
    tokio::spawn(async move { Worker::open(far, VERSION + 1).await });
    assert!(
        matches!(Framed::open(near).await, Err(SourceError::Failed(why)) if why.contains("version"))
    );
}

#[tokio::test]
async fn what_is_no_message_ends_it() {
    for bytes in [
        &b"\xff\xff\xff\xff"[..],
        b"\0\0\0\x02{",
        b"\0\0\0\x02[]",
        b"\0\0\0\x02{}",
        b"\0\0\0\x09not json!",
    ] {
        let (near, far) = UnixStream::pair().unwrap();
        let bytes = bytes.to_vec();
        let far = tokio::spawn(async move {
            let worker = Worker::open(far, VERSION).await;
            tokio::io::AsyncWriteExt::write_all(&mut *worker.writer.lock().await, &bytes)
                .await
                .unwrap();
        });
        let (framed, over) = Framed::open(near).await.unwrap();
        far.await.unwrap();
        over.await.unwrap();
        assert!(framed.keys().await.is_err());
    }
}
