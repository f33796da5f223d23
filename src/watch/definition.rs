//! A watch as declared: one row of pushy_internal.watch.

pub use super::options::{Delivery, Level, NamedBy, Payload};
use super::restore;
use super::stored::find::{of_channel, of_queue};
use super::stored::lost::forget_lost;
use super::stored::write::take_up;
use crate::channel::users::Users;
use crate::errors::quote_literal;
use crate::pg::home::{self, Home};
use crate::pg::identity::Author;
use crate::pg::trigger::Op;
use crate::pg::{identity, Oid};
use crate::queue::dependents::{Dependent, Dependents};
use crate::queue::reference::QueueReference;

/// Whether the numbers in a definition (table, triggers, role) mean the same here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// Declared here, and its table is there.
    Home,
    /// Declared here, and its table is gone; a restore may have brought another in its place.
    Bereft,
    /// Came here by a restore or a copy.
    Elsewhere,
}

#[derive(Clone, Debug, PartialEq)]
pub struct WatchDefinition {
    pub watch_id: i32,
    /// A random text that the watch's triggers carry beside its number; new whenever they are made.
    pub token: String,
    pub relation: Oid,
    /// `schema.table`; of one that is not at home as it was when declared.
    pub relation_name: String,
    /// The owner of the table when it was declared, by name.
    pub relation_owner: String,
    pub name: String,
    /// The caller gave neither name nor channel: the name is the table's, as the channel is, or the queue's.
    pub named_by: Option<NamedBy>,
    pub owner: Oid,
    pub owner_name: String,
    /// The exact name, in the server's encoding; None: jobs only.
    pub channel: Option<Vec<u8>>,
    pub events: Vec<Op>,
    pub columns: Option<Vec<String>>,
    pub condition: Option<String>,
    pub payload: Payload,
    pub payload_expr: Option<String>,
    pub level: Level,
    /// None: as is usual here.
    pub delivery: Option<Delivery>,
    pub queue: Option<QueueReference>,
    pub args_expr: Option<String>,
    pub topic_expr: Option<String>,
    pub merge: bool,
    pub paused: bool,
    pub home: Home,
    pub residence: Residence,
    /// Its triggers by OID; those of partitions are copies of them.
    pub triggers: Vec<Oid>,
    /// The trigger that holds the expressions.
    pub expressions: Option<Oid>,
    /// What the triggers said when they were made, as the server writes it: the only thing about them that a restore keeps.
    pub trigger_texts: Vec<String>,
    /// The fingerprint of the triggers when they were made, which they still have.
    pub print: String,
}

/// Watches, as queues have them.
pub const DEPENDENTS: Dependents = Dependents {
    kind: ["watch", "watches"],
    of_queue: |queue| {
        let named = |watch: WatchDefinition| Dependent {
            what: format!("watch \"{}\" on {}", watch.name, watch.relation_name),
            end: format!(
                "SELECT pushy.unwatch({}, {})",
                quote_literal(&watch.relation_name),
                quote_literal(&watch.name)
            ),
        };
        let feeds = |watch: &WatchDefinition| watch.has_table() && watch.owner_here().is_some();
        Ok(of_queue(queue)?
            .into_iter()
            .filter(feeds)
            .map(named)
            .collect())
    },
    take_up,
    forget_lost,
    adopt_all: restore::adopt_all,
    adopt_from: restore::adopt_from,
    rest: |_| Ok(None),
};

/// Watches, as channels have them.
pub const CHANNEL_USERS: Users = Users {
    one: "A watch",
    does: "publishes on it",
    of_another: |channel, role| {
        let watches = identity::as_owner(|| of_channel(channel))?;
        let mut foreign = watches.iter().filter(|watch| !watch.is_made_by(role));
        identity::as_owner(|| {
            let foreign = foreign.find(|watch| watch.has_table());
            Ok(foreign.map(WatchDefinition::owner_here))
        })
    },
};

impl WatchDefinition {
    /// Whether both watches publish on the same channel, or have none and feed the same queue.
    pub fn has_same_target(&self, other: &Self) -> bool {
        match (&self.channel, &other.channel) {
            (None, None) => self.queue_name() == other.queue_name(),
            (mine, other) => mine == other,
        }
    }

    /// Whether both are jobs of one queue, whatever that was called when they were named.
    pub fn feeds_same_queue(&self, other: &Self) -> bool {
        self.queue_id().is_some() && self.queue_id() == other.queue_id()
    }

    fn queue_id(&self) -> Option<i32> {
        self.queue.as_ref().map(|queue| queue.queue_id)
    }

    pub fn queue_name(&self) -> Option<&str> {
        self.queue.as_ref().map(|queue| queue.name.as_str())
    }

    /// Who wrote what it has of expressions: nobody where Pushy itself has made them, of `columns`.
    pub fn author(&self) -> Author {
        if self.expressions_given().all(|(_, words)| words.is_none()) {
            return Author::Nobody;
        }
        Author::Role(self.owner)
    }

    /// What its maker may have written, by the names of arguments.
    pub fn expressions_given(&self) -> impl Iterator<Item = (&'static str, &Option<String>)> {
        [
            ("condition", &self.condition),
            ("payload_expr", &self.payload_expr),
            ("args_expr", &self.args_expr),
            ("topic_expr", &self.topic_expr),
        ]
        .into_iter()
    }

    pub fn is_home(&self) -> bool {
        self.residence == Residence::Home
    }

    /// Whether the table is here that it is about, at home or as a restore has brought it: else it fires no more. As the extension's
    /// owner.
    pub fn has_table(&self) -> bool {
        self.is_home() || restore::table_elsewhere(self.watch_id).is_some()
    }

    /// Who declared it, as known here; None: gone.
    pub fn owner_here(&self) -> Option<Oid> {
        home::role(self.home.system, self.owner, &self.owner_name)
    }

    /// Whether a role has the rights of who declared it.
    pub fn is_made_by(&self, role: Oid) -> bool {
        home::has_rights_of(role, self.home.system, self.owner, &self.owner_name)
    }
}
