//! A notice as it goes out: written once, shared by all that get it.

use std::fmt::Write as _;

use bytes::Bytes;
use pushy_core::log::cursor::Cursor;

use crate::clock;

#[derive(Debug)]
pub struct Notice {
    pub cursor: Cursor,
    pub channel: Box<str>,
    pub topic: Option<Box<str>>,
    /// When it was published, in microseconds since 1970.
    pub at_us: i64,
    /// Its payload is not here: who wants it is told that something is missing.
    pub is_too_long: bool,
    /// Its event of a stream, `id: …` to the empty line.
    event: Bytes,
    /// Its members, within `event`: `"cursor":…` without the braces.
    members: Bytes,
}

impl Notice {
    pub fn new(
        cursor: Cursor,
        channel: &str,
        topic: Option<&str>,
        payload: &str,
        at_us: i64,
    ) -> Self {
        let mut event = String::with_capacity(payload.len() + channel.len() + 160);
        // Writing to a String does not fail.
        let _ = write!(event, "id: {cursor}\ndata: {{");
        let begin = event.len();
        let _ = write!(event, r#""cursor":"{cursor}","channel":{},"#, json(channel));
        if let Some(topic) = topic {
            let _ = write!(event, r#""topic":{},"#, json(topic));
        }
        let _ = write!(
            event,
            r#""at":"{}","payload":{}"#,
            clock::iso(at_us),
            json(payload)
        );
        let end = event.len();
        event.push_str("}\n\n");
        let event = Bytes::from(event);
        Self {
            cursor,
            channel: channel.into(),
            topic: topic.map(Into::into),
            at_us,
            is_too_long: false,
            members: event.slice(begin..end),
            event,
        }
    }

    /// One whose payload is longer than a socket can hear.
    pub fn too_long(cursor: Cursor, channel: &str, topic: Option<&str>, at_us: i64) -> Self {
        Self {
            is_too_long: true,
            ..Self::new(cursor, channel, topic, "", at_us)
        }
    }

    /// As Server-Sent Events have it. JSON has no line breaks, so it is one line.
    pub fn event(&self) -> &Bytes {
        &self.event
    }

    pub fn members(&self) -> &Bytes {
        &self.members
    }

    /// What it takes in a buffer, about.
    pub fn size(&self) -> usize {
        self.event.len() + self.channel.len() + self.topic.as_deref().map_or(0, str::len) + 64
    }
}

/// A text as JSON has it.
pub fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_one_event_whatever_its_payload_is() {
        let notice = Notice::new(
            Cursor::new(1, 2, 3),
            "a\"b",
            Some("x\ny"),
            "1\r\n\u{2028}\0",
            0,
        );
        let event = String::from_utf8(notice.event().to_vec()).unwrap();
        assert_eq!(event.lines().count(), 3, "{event}");
        let members = String::from_utf8(notice.members().to_vec()).unwrap();
        let read: serde_json::Value = serde_json::from_str(&format!("{{{members}}}")).unwrap();
        assert_eq!(read["channel"], "a\"b");
        assert_eq!(read["topic"], "x\ny");
        assert_eq!(read["payload"], "1\r\n\u{2028}\0");
        assert_eq!(read["cursor"], Cursor::new(1, 2, 3).to_string());
    }
}
