//! What the database is told of this gateway's sockets and rooms, for the view `sockets`: soon after somebody came or went, seldom while
//! there is but traffic, never while nothing happens.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{watch, Notify};
use tokio::time::sleep;

use crate::gateway::Gateway;
use crate::presence::Room;
use crate::source::Report;

/// After somebody came or went: many do at once.
const SOON: Duration = Duration::from_millis(300);
/// While there is but traffic, and after a failure.
const SELDOM: Duration = Duration::from_secs(5);
/// Sockets, and rooms, of one report.
const MOST: usize = 10_000;

#[derive(Default)]
pub struct Changes {
    /// Somebody came, or went, or reads something else.
    pub moved: Arc<Notify>,
    pub sent: Notify,
}

#[derive(Serialize)]
struct RoomRow<'a> {
    channel: &'a str,
    topic: &'a str,
    members: &'a [String],
}

fn report(gateway: &Gateway) -> Result<Report, serde_json::Error> {
    let mut sockets = gateway.sockets();
    sockets.truncate(MOST);
    let rooms: Vec<(Room, Vec<String>)> = gateway.presence.all(MOST);
    let rows: Vec<RoomRow> = rooms
        .iter()
        .map(|(room, members)| RoomRow {
            channel: &room.channel,
            topic: &room.topic,
            members,
        })
        .collect();
    Ok(Report {
        sockets: serde_json::to_string(&sockets)?,
        rooms: serde_json::to_string(&rows)?,
    })
}

/// Runs until `stop`.
pub async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    loop {
        let changes = &gateway.changes;
        tokio::select! {
            () = changes.moved.notified() => sleep(SOON).await,
            () = changes.sent.notified() => tokio::select! {
                () = sleep(SELDOM) => {}
                () = changes.moved.notified() => sleep(SOON).await,
                _ = stop.changed() => return,
            },
            _ = stop.changed() => return,
        }
        let Ok(now) = report(&gateway) else { continue };
        if gateway.source.report(now).await.is_err() {
            // Told again when the database is there again.
            tokio::select! {
                () = sleep(SELDOM) => changes.moved.notify_one(),
                _ = stop.changed() => return,
            }
        }
    }
}
