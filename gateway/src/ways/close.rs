//! Why a socket ends, and whether it is to come back: the hundreds of a code say that.

use pushy_core::log::cursor::Cursor;

/// What a client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// 40xx: come back at once, from the cursor.
    ComeBack,
    /// 41xx: come back with another token or ticket.
    Renew,
    /// 42xx: do not come back; the client is wrong.
    Stop,
    /// 43xx: come back later.
    Later,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: &'static str,
    /// From where to go on.
    pub cursor: Option<Cursor>,
    pub retry_ms: Option<u64>,
}

macro_rules! closes {
    ($($name:ident $code:literal $reason:literal;)*) => {
        /// Each code and its word.
        pub const ALL: &[(u16, &str)] = &[$(($code, $reason)),*];
        $(pub const $name: Close = Close { code: $code, reason: $reason, cursor: None, retry_ms: None };)*
    };
}

closes! {
    GOING_AWAY 1001 "going_away";
    SLOW 4000 "slow";
    SILENT 4001 "silent";
    CLOSED_BY_SERVER 4002 "closed";
    UNAUTHENTICATED 4100 "unauthenticated";
    EXPIRED 4101 "expired";
    DENIED 4102 "denied";
    BAD_MESSAGE 4200 "bad_message";
    TOO_LARGE 4201 "too_large";
    TOO_FAST 4300 "too_fast";
    UNAVAILABLE 4301 "unavailable";
    TOO_MANY 4302 "too_many";
}

impl Close {
    pub fn at(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }

    pub fn after_ms(mut self, retry_ms: u64) -> Self {
        self.retry_ms = Some(retry_ms);
        self
    }

    pub fn next(&self) -> Next {
        match self.code {
            1001 | 4000..=4099 => Next::ComeBack,
            4100..=4199 => Next::Renew,
            4300..=4399 => Next::Later,
            _ => Next::Stop,
        }
    }

    /// What a closing frame says (123 bytes at most), and the event `close` of a stream.
    pub fn json(&self) -> String {
        let mut said = serde_json::Map::new();
        said.insert("reason".into(), self.reason.into());
        if let Some(cursor) = self.cursor {
            said.insert("cursor".into(), cursor.shown().into());
        }
        if let Some(retry_ms) = self.retry_ms {
            said.insert("retry_ms".into(), retry_ms.into());
        }
        serde_json::Value::Object(said).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_close_says_has_room_in_a_frame() {
        let longest = Cursor::new(i64::MAX, i64::MAX, i32::MAX);
        for (_, reason) in ALL {
            let close = Close {
                reason,
                ..GOING_AWAY
            }
            .at(longest)
            .after_ms(99_999);
            assert!(close.json().len() <= 123, "{}", close.json());
        }
    }
}
