//! Who is there: addresses, origins, tokens, tickets. What they may read, the server says.

pub mod address;
pub mod origin;
pub mod token;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::lock;
use crate::source::{KeyText, Redeemed, Source, SourceError};
use crate::topics::pattern::Pattern;
use token::{Keys, Rejected};

/// Who was let in, as what, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub role: String,
    pub subject: Option<String>,
    /// Seconds since 1970.
    pub until_s: i64,
    /// What a ticket was for; None: what the role may.
    pub scope: Option<Scope>,
    /// The key that signed the token.
    pub key: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub channels: Vec<String>,
    /// None: all.
    pub topics: Option<Vec<Pattern>>,
}

impl Scope {
    /// Whether the ticket was for all of these topics, too. Of the channel, by the name that it has in notices.
    pub fn covers(&self, channel: &str, topics: Option<&[Pattern]>) -> bool {
        let is_in = |topic: &Pattern, own: &[Pattern]| own.iter().any(|one| one.covers(topic));
        self.channels.iter().any(|own| own == channel)
            && match (&self.topics, topics) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(own), Some(asked)) => asked.iter().all(|topic| is_in(topic, own)),
            }
    }
}

impl Principal {
    pub fn of_ticket(ticket: Redeemed, max_age: Duration, now_s: i64) -> Option<Self> {
        let topics = match ticket.topics.as_deref().map(Pattern::read_list) {
            None => None,
            Some(Ok(topics)) => {
                let own = topics
                    .iter()
                    .filter_map(|pattern| pattern.of_subject(ticket.subject.as_deref()));
                Some(own.collect())
            }
            Some(Err(_)) => return None,
        };
        Some(Self {
            role: ticket.role,
            subject: ticket.subject,
            until_s: now_s.saturating_add(i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX)),
            scope: Some(Scope {
                channels: ticket.channels,
                topics,
            }),
            key: None,
        })
    }
}

/// The keys, as they are now.
#[derive(Default)]
pub struct Who {
    keys: Mutex<Arc<Keys>>,
}

impl Who {
    pub async fn load_keys(&self, source: &dyn Source) -> Result<(), SourceError> {
        let texts = source.keys().await?;
        self.set_keys(&texts);
        Ok(())
    }

    pub fn set_keys(&self, texts: &[KeyText]) {
        *lock(&self.keys) = Arc::new(Keys::read(texts));
    }

    /// Keys that were left out, by name and why.
    pub fn unusable(&self) -> Vec<(String, String)> {
        lock(&self.keys).unusable.clone()
    }

    pub fn has_key(&self, name: &str) -> bool {
        lock(&self.keys).has(name)
    }

    pub fn verify(
        &self,
        token: &str,
        leeway: Duration,
        max_age: Duration,
        now_s: i64,
    ) -> Result<Principal, Rejected> {
        let keys = lock(&self.keys).clone();
        keys.verify(token, leeway, max_age, now_s)
    }
}
