//! What the database is told of this gateway's sockets and rooms, for the view `sockets`: soon after somebody came or went, seldom while
//! there is but traffic, never while nothing happens. However many there are, a report is of a bounded length, and says how many it leaves out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{watch, Notify};
use tokio::time::sleep;

use crate::gateway::{Gateway, Reads, SocketEntry};
use crate::lock;
use crate::presence::Room;
use crate::source::Report;

/// After somebody came or went: many do at once.
const SOON: Duration = Duration::from_millis(300);
/// While there is but traffic, and after a failure.
const SELDOM: Duration = Duration::from_secs(5);
/// Between two reports at most.
const LATEST: Duration = Duration::from_secs(30);
/// So many times as long as a report takes, there is none: the database has other things to do for the sockets themselves.
const REST: u32 = 20;
/// Bytes of what is said of sockets, and of rooms.
const MOST_OF_SOCKETS: usize = 4 << 20;
const MOST_OF_ROOMS: usize = 1 << 20;
/// Rooms that are looked at.
const MOST_ROOMS: usize = 10_000;
/// Subscriptions of a socket that are shown, and bytes of the topics of all of them.
const SHOWN: usize = 20;
const SHOWN_BYTES: usize = 1_024;

#[derive(Default)]
pub struct Changes {
    /// Somebody came, or went, or reads something else.
    pub moved: Arc<Notify>,
    pub sent: Notify,
}

/// A row of the view `sockets`.
#[derive(Debug, Serialize)]
pub struct SocketRow {
    pub id: u64,
    pub subject: Option<String>,
    pub role: String,
    pub address: String,
    pub transport: &'static str,
    pub since_us: i64,
    /// Of the first subscriptions: channel and topics.
    pub channels: Vec<(String, String)>,
    /// How many there are.
    pub subscriptions: usize,
    pub sent: u64,
    pub buffered_notices: usize,
    pub buffered_bytes: usize,
    /// How long the first of them has been waiting.
    pub lag_us: u64,
}

#[derive(Serialize)]
struct RoomRow<'a> {
    channel: &'a str,
    topic: &'a str,
    members: &'a [String],
}

/// Beside the rows.
#[derive(Serialize)]
struct InAll {
    /// Sockets by transport.
    open: BTreeMap<&'static str, usize>,
    rooms: usize,
}

/// The patterns with commas between them, as many as have room.
fn shown(reads: &Reads, room: &mut usize) -> String {
    let mut text = String::new();
    for topic in reads.topics.iter().flat_map(|topics| topics.iter()) {
        let topic = topic.to_string();
        if topic.len() + 2 > *room {
            let _ = write!(text, "{}…", if text.is_empty() { "" } else { ", " });
            break;
        }
        *room -= topic.len() + 2;
        let _ = write!(text, "{}{topic}", if text.is_empty() { "" } else { ", " });
    }
    text
}

fn row(id: u64, entry: &SocketEntry) -> SocketRow {
    let who = lock(&entry.who).clone();
    let (buffered_notices, buffered_bytes, lag_seconds) = entry.outbox.standing();
    let reads = lock(&entry.channels);
    let mut room = SHOWN_BYTES;
    let first = reads.values().take(SHOWN);
    let channels = first
        .map(|reads| (reads.channel.to_string(), shown(reads, &mut room)))
        .collect();
    SocketRow {
        id,
        subject: who.as_ref().and_then(|who| who.subject.clone()),
        role: who.map(|who| who.role).unwrap_or_default(),
        address: entry.address.to_string(),
        transport: entry.transport,
        since_us: entry.since_us,
        channels,
        subscriptions: reads.len(),
        sent: entry.sent.load(Ordering::Relaxed),
        buffered_notices,
        buffered_bytes,
        lag_us: (lag_seconds * 1e6) as u64,
    }
}

/// An array in JSON of as many as have room, in ASCII: whatever the encoding of the database is, it can read it.
fn array<T: Serialize>(rows: impl Iterator<Item = T>, most: usize) -> String {
    let mut text = String::from("[");
    for row in rows {
        let Ok(row) = serde_json::to_string(&row) else {
            continue;
        };
        let before = text.len();
        text.push_str(if before > 1 { "," } else { "" });
        for char in row.chars() {
            if char.is_ascii() {
                text.push(char);
                continue;
            }
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
        if text.len() > most {
            text.truncate(before);
            break;
        }
    }
    text.push(']');
    text
}

pub fn report(gateway: &Gateway) -> Report {
    let sockets = gateway.sockets();
    let mut open = BTreeMap::new();
    for (_, entry) in &sockets {
        *open.entry(entry.transport).or_default() += 1;
    }
    let (rooms, in_all) = gateway.presence.all(MOST_ROOMS);
    let in_all = InAll {
        open,
        rooms: in_all,
    };
    let room = |(room, members): &(Room, Vec<String>)| {
        serde_json::to_value(RoomRow {
            channel: &room.channel,
            topic: &room.topic,
            members,
        })
        .unwrap_or_default()
    };
    Report {
        sockets: array(
            sockets.iter().map(|(id, entry)| row(*id, entry)),
            MOST_OF_SOCKETS,
        ),
        rooms: array(rooms.iter().map(room), MOST_OF_ROOMS),
        in_all: serde_json::to_string(&in_all).unwrap_or_default(),
    }
}

/// Runs until `stop`.
pub async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let mut soon = SOON;
    loop {
        let changes = &gateway.changes;
        tokio::select! {
            () = changes.moved.notified() => sleep(soon).await,
            () = changes.sent.notified() => tokio::select! {
                () = sleep(SELDOM.max(soon)) => {}
                () = changes.moved.notified() => sleep(soon).await,
                _ = stop.changed() => return,
            },
            _ = stop.changed() => return,
        }
        let since = Instant::now();
        let told = gateway.source.report(report(&gateway)).await;
        soon = (since.elapsed() * REST).clamp(SOON, LATEST);
        if told.is_err() {
            // Told again when the database is there again.
            tokio::select! {
                () = sleep(SELDOM) => changes.moved.notify_one(),
                _ = stop.changed() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::array;

    #[test]
    fn an_array_ends_where_it_has_no_more_room() {
        let rows = ["a\"b", "é😀", "c", "d"];
        let whole = array(rows.iter(), 100);
        assert_eq!(whole, r#"["a\"b","\u00e9\ud83d\ude00","c","d"]"#);
        let read: Vec<String> = serde_json::from_str(&whole).unwrap();
        assert_eq!(read, rows);
        for most in 0..100 {
            let text = array(rows.iter(), most);
            let read: Vec<String> = serde_json::from_str(&text).unwrap();
            assert_eq!(read, rows[..read.len()], "{most}");
            assert!(text.len() <= most + 2, "{most}");
        }
    }
}
