//! Channel pushy_control: what was done to queues and jobs, told as JSON at commit.

use serde::Serialize;

use crate::pg::{identity, notify};

const CHANNEL: &[u8] = b"pushy_control";

/// One message. Additions are new fields; `v` changes when a field changes its meaning.
#[derive(Serialize)]
struct Message<'a> {
    v: u32,
    event: &'a str,
    queue: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<i64>,
    by: String,
}

/// Tells at commit that `event` was done to a queue, or to a job of it.
pub fn tell(event: &str, queue: &str, job: Option<i64>) {
    let message = Message {
        v: 1,
        event,
        queue,
        job,
        by: identity::role_name(identity::current_user()),
    };
    let json = serde_json::to_string(&message).expect("strings and numbers only");
    notify::send(CHANNEL, json.as_bytes());
}
