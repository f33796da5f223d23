//! The words of a watch: what a notice says, of what, and how it goes.

use crate::pg::trigger::Op;

/// The words of the contract for each, in the order in which messages list them.
macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        impl $type {
            #[allow(dead_code)] // not every kind is an argument
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

/// What a notice says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: that something changed.
    None,
    Key,
    /// The key, and the row before and after.
    Row,
    /// The key, and what differs.
    Diff,
    /// What payload_expr answers.
    Expression,
}

words!(Payload { None = "none", Key = "key", Row = "row", Diff = "diff", Expression = "expression" });

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A notice per row.
    Row,
    /// A notice per statement and kind of change, with count and keys.
    Statement,
}

words!(Level { Row = "row", Statement = "statement" });

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Notify,
    Relay,
}

words!(Delivery { Notify = "notify", Relay = "relay" });

/// Whose name a watch has for which nobody has chosen one, and whose new name it takes when it is declared again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    Table,
    Queue,
}

words!(NamedBy { Table = "table", Queue = "queue" });

words!(Op { Insert = "insert", Update = "update", Delete = "delete", Truncate = "truncate" });
