//! Channel pushy_control: what somebody did to a queue or a job, as JSON, at commit.

use serde::Serialize;

use crate::pg::{identity, notify, text};

const CHANNEL: &[u8] = b"pushy_control";

/// What was done. The words are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    Register,
    Alter,
    Pause,
    Resume,
    Drop,
    /// One job, told with its id; as the next.
    Cancel,
    Retry,
}

#[derive(Serialize)]
struct Message<'a> {
    /// Version of this form.
    v: u32,
    event: Event,
    queue: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<i64>,
    /// The role that did it.
    by: String,
}

/// Tells of a change, when this transaction commits.
pub fn tell(event: Event, queue: &str, job: Option<i64>) {
    let message = Message {
        v: 1,
        event,
        queue,
        job,
        by: identity::role_name(identity::current_user()),
    };
    let json = serde_json::to_string(&message).expect("plain strings and numbers");
    notify::send(CHANNEL, &text::encode_lossy(&json));
}
