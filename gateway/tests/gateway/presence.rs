//! Who is in a room.

use std::time::Duration;

use serde_json::json;

use crate::stage::{Socket, Stage};

async fn enter(socket: &mut Socket) -> serde_json::Value {
    socket.say(json!({"type": "subscribe", "id": 1, "channel": "orders", "topics": ["room/1"], "presence": true})).await;
    socket.must("subscribed").await;
    socket.must("presence").await
}

#[tokio::test]
async fn members_hear_who_comes_and_who_goes() {
    let stage =
        Stage::open(|settings| settings.presence_debounce = Duration::from_millis(100)).await;
    let mut ann = stage.socket("ann").await;
    assert_eq!(enter(&mut ann).await["members"], json!(["ann"]));
    let mut bob = stage.socket("bob").await;
    assert_eq!(enter(&mut bob).await["members"], json!(["ann", "bob"]));
    let join = ann.must("presence").await;
    assert_eq!(
        (
            join["event"].as_str(),
            join["subject"].as_str(),
            join["topic"].as_str()
        ),
        (Some("join"), Some("bob"), Some("room/1"))
    );
    drop(bob);
    let leave = ann.must("presence").await;
    assert_eq!(
        (leave["event"].as_str(), leave["subject"].as_str()),
        (Some("leave"), Some("bob"))
    );
    ann.say(json!({"type": "unsubscribe", "id": 1})).await;
    ann.must("unsubscribed").await;
}

#[tokio::test]
async fn who_reconnects_in_time_never_left() {
    let stage =
        Stage::open(|settings| settings.presence_debounce = Duration::from_secs(3_600)).await;
    let mut ann = stage.socket("ann").await;
    enter(&mut ann).await;
    for n in 0..3 {
        let mut bob = stage.socket("bob").await;
        enter(&mut bob).await;
        if n == 0 {
            assert_eq!(ann.must("presence").await["event"], "join");
        }
    }
    ann.hears_nothing_more().await;
}
