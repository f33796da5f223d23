//! What a transaction has to publish: a notice, by which route, or a job that is owed.

use super::repeats::{NoticeKey, Repeat};
use crate::job::moves::enqueue::Request;
use std::rc::Rc;

/// How a notice goes to those who listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// NOTIFY, in the transaction that says it.
    Notify,
    /// Through the event log; `merge`: with equal ones of other transactions. `cause`: the job that says it,
    /// and its depth.
    Relay {
        merge: bool,
        cause: Option<(i64, i32)>,
    },
}

/// One thing to publish; text in the database's encoding.
#[derive(Clone)]
pub enum Item {
    Notice {
        channel: Rc<[u8]>,
        /// By relay only.
        topic: Option<Box<[u8]>>,
        payload: Vec<u8>,
        delivery: Route,
        repeat: Repeat,
    },
    Job {
        id: i64,
        request: Rc<Request>,
        /// A value of type jsonb, as its bytes.
        args: Vec<u8>,
    },
}

impl Item {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Notice { payload, topic, .. } => {
                payload.len() + topic.as_ref().map_or(0, |topic| topic.len()) + size_of::<Self>()
            }
            Self::Job { args, .. } => args.len() + size_of::<Self>(),
        }
    }
}

impl Item {
    pub(super) fn is_for_notify(&self) -> bool {
        matches!(
            self,
            Self::Notice {
                delivery: Route::Notify,
                ..
            }
        )
    }

    /// What of a notice is looked at to find its equals.
    pub fn key(&self) -> Option<NoticeKey<'_>> {
        let Self::Notice {
            channel,
            topic,
            payload,
            delivery,
            repeat,
        } = self
        else {
            return None;
        };
        Some(NoticeKey {
            channel,
            topic: topic.as_deref(),
            payload,
            cause: match delivery {
                Route::Notify => None,
                Route::Relay { cause, .. } => *cause,
            },
            repeat: *repeat,
        })
    }
}
