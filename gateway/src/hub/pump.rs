//! The one reader of the log: waits, reads, publishes; comes back with backoff when the database was away.

use std::sync::Arc;
use std::time::Duration;

use pushy_core::log::cursor::Cursor;
use serde::Deserialize;
use tokio::sync::watch;

use crate::gateway::Gateway;
use crate::source::{Event, Reader, SourceError};

/// Notices that are read at a time.
const MOST: u32 = 1_000;
/// Notices that are handed out in one hold of the hub's lock.
const AT_A_TIME: usize = 64;
/// An idle gateway asks no more often than this.
const WAIT: Duration = Duration::from_secs(600);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where the server says what concerns sockets.
const CONTROL: &str = "pushy_gateway";

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Control {
    /// Who may read this channel was changed; none: any channel.
    GatewayGrants { channel: Option<String> },
    /// A key came or went.
    GatewayKeys,
    SocketClose {
        subject: Option<String>,
        channel: Option<String>,
        topic: Option<String>,
    },
    #[serde(other)]
    Other,
}

/// Runs until `stop`.
pub async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let mut pause = FIRST_PAUSE;
    while !*stop.borrow() {
        let ended = tokio::select! {
            ended = read_on(&gateway) => ended,
            _ = stop.changed() => return,
        };
        gateway.metrics.source_up.set(0);
        let Progress { has_read, error } = ended;
        if has_read {
            pause = FIRST_PAUSE;
        }
        gateway.metrics.source_errors.inc();
        gateway.say(&error.to_string());
        // Many gateways do not come back at the same moment.
        let jittered = pause.mul_f64(0.5 + fastrand::f64());
        tokio::select! {
            () = tokio::time::sleep(jittered) => {}
            _ = stop.changed() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

struct Progress {
    has_read: bool,
    error: SourceError,
}

/// Until the source fails.
async fn read_on(gateway: &Gateway) -> Progress {
    let mut has_read = false;
    loop {
        match read_once(gateway, &mut has_read).await {
            Ok(()) => {}
            Err(error) => return Progress { has_read, error },
        }
    }
}

async fn read_once(gateway: &Gateway, has_read: &mut bool) -> Result<(), SourceError> {
    let (hub, source) = (&gateway.hub, &gateway.source);
    if !*has_read {
        // Before the keys are asked for: what is said of them since is behind it.
        let place = if hub.is_open() {
            None
        } else {
            Some(source.position().await?)
        };
        load_keys(gateway).await?;
        match place {
            Some(place) => hub.open(place),
            // What was said meanwhile may be in a log that is not there any more.
            None => hub.recheck(None),
        }
    }
    let after = hub.end();
    let chunk = source.read(Reader::Pump, after, MOST).await?;
    if !*has_read {
        *has_read = true;
        gateway.changes.moved.notify_one();
        gateway.metrics.source_up.set(1);
    }
    // What the server says of who may read counts for all that comes after it.
    for events in chunk.events.chunk_by(|before, _| !is_word(before)) {
        let Some(last) = events.last() else {
            continue;
        };
        // Others have the hub between two parts.
        for part in events.chunks(AT_A_TIME) {
            hub.publish(part, part.last().map_or(after, cursor_of));
        }
        match last {
            // What was changed meanwhile was said in what is missing.
            Event::Resync(_) => {
                hub.recheck(None);
                load_keys(gateway).await?;
            }
            Event::Notice(notice) if is_word(last) => obey(gateway, notice.members()).await?,
            Event::Notice(_) => {}
        }
    }
    hub.publish(&[], chunk.next);
    let is_behind = chunk.next != after || !chunk.events.is_empty();
    if !is_behind {
        source.wait(after, WAIT).await?;
    }
    Ok(())
}

async fn load_keys(gateway: &Gateway) -> Result<(), SourceError> {
    gateway.who.load_keys(&*gateway.source).await?;
    for (name, why) in gateway.who.unusable() {
        gateway.say(&format!("key \"{name}\" is not used: it {why}"));
    }
    gateway.recheck_tokens();
    Ok(())
}

/// Whether something is to be done before what comes after it is published.
fn is_word(event: &Event) -> bool {
    match event {
        Event::Resync(_) => true,
        Event::Notice(notice) => &*notice.channel == CONTROL,
    }
}

fn cursor_of(event: &Event) -> Cursor {
    match event {
        Event::Resync(at) => *at,
        Event::Notice(notice) => notice.cursor,
    }
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    payload: std::borrow::Cow<'a, str>,
}

async fn obey(gateway: &Gateway, members: &[u8]) -> Result<(), SourceError> {
    let braced = [b"{", members, b"}"].concat();
    let Ok(said) = serde_json::from_slice::<Members>(&braced) else {
        return Ok(());
    };
    match serde_json::from_str(&said.payload) {
        Ok(Control::GatewayGrants { channel }) => gateway.hub.recheck(channel.as_deref()),
        Ok(Control::GatewayKeys) => {
            load_keys(gateway).await?;
        }
        Ok(Control::SocketClose {
            subject,
            channel,
            topic,
        }) => {
            gateway.close_sockets(subject.as_deref(), channel.as_deref(), topic.as_deref());
        }
        Ok(Control::Other) | Err(_) => {}
    }
    Ok(())
}
