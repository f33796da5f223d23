//! The channels that this session listens to, counted in shared memory.
//!
//! A channel counts from its LISTEN on, before that has committed, and until an UNLISTEN has. As the server has it
//! (async.c): both take effect in their order when the transaction commits, and go with a savepoint.

use std::cell::RefCell;

use pushy_core::channel::hash;

use crate::pg::per_process::PerProcess;
use crate::pg::transaction_end::{self, End, Observer, SavepointEnd};
use crate::pg::utility::{self, Hooks, Statement};
use crate::pg::{database, shmem, transaction};
use crate::shared;
use crate::shared::listened::ListenerCounter;

struct Channel {
    name: Box<[u8]>,
    counter: ListenerCounter,
    /// As of the last commit.
    listened: bool,
}

/// What a statement will do to channels, by their places in the list, which lasts until the transaction ends.
#[derive(Clone, Copy)]
enum Action {
    Listen(usize),
    Unlisten(usize),
    UnlistenAll,
}

#[derive(Default)]
struct Listening {
    channels: Vec<Channel>,
    /// With the level of the savepoint.
    actions: Vec<(i32, Action)>,
    leaves_at_exit: bool,
}

static LISTENING: PerProcess<RefCell<Listening>> = PerProcess::new(RefCell::new(Listening {
    channels: Vec::new(),
    actions: Vec::new(),
    leaves_at_exit: false,
}));

static HOOKS: Hooks = Hooks {
    before,
    after: |_| {},
    skips: utility::skip_none,
};

static OBSERVER: Observer = Observer {
    before: None,
    at_end,
    at_savepoint_end,
};

/// Once, while preloading.
pub fn init() {
    utility::install(&HOOKS);
    transaction_end::observe(&OBSERVER);
}

fn before(statement: &Statement) {
    match statement {
        Statement::Listen { channel } => listen(channel.to_bytes()),
        Statement::Unlisten { channel } => unlisten(channel.as_ref().map(|name| name.to_bytes())),
        _ => {}
    }
}

fn listen(channel: &[u8]) {
    transaction_end::expect();
    let is_first = LISTENING.with_borrow_mut(|all| {
        let at = all.find(channel).unwrap_or_else(|| all.add(channel));
        let action = Action::Listen(at);
        all.actions.push((transaction::nest_level(), action));
        !std::mem::replace(&mut all.leaves_at_exit, true)
    });
    if is_first {
        shmem::before_exit(leave);
    }
}

fn unlisten(channel: Option<&[u8]>) {
    transaction_end::expect();
    LISTENING.with_borrow_mut(|all| {
        let action = match channel {
            None => Action::UnlistenAll,
            Some(channel) => match all.find(channel) {
                Some(at) => Action::Unlisten(at),
                None => return,
            },
        };
        all.actions.push((transaction::nest_level(), action));
    });
}

impl Listening {
    fn find(&self, channel: &[u8]) -> Option<usize> {
        self.channels
            .iter()
            .position(|entry| *entry.name == *channel)
    }

    fn add(&mut self, channel: &[u8]) -> usize {
        let counter = ListenerCounter::of(database::current(), hash(channel));
        self.channels.push(Channel {
            name: channel.into(),
            counter,
            listened: false,
        });
        shared::expect().listened.add(counter);
        self.channels.len() - 1
    }

    fn act(&mut self) {
        for (_, action) in self.actions.drain(..) {
            match action {
                Action::Listen(at) => self.channels[at].listened = true,
                Action::Unlisten(at) => self.channels[at].listened = false,
                Action::UnlistenAll => self
                    .channels
                    .iter_mut()
                    .for_each(|entry| entry.listened = false),
            }
        }
    }

    /// Counts out what is not listened to (any more).
    fn confirm(&mut self) {
        self.actions.clear();
        self.channels.retain(|entry| {
            if !entry.listened {
                shared::expect().listened.remove(entry.counter);
            }
            entry.listened
        });
    }
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn at_end(end: End) {
    LISTENING.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            if end == End::Commit {
                all.act();
            }
            all.confirm();
        }
    });
}

fn at_savepoint_end(end: SavepointEnd, level: i32) {
    LISTENING.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            match end {
                SavepointEnd::Rollback => all.actions.retain(|action| action.0 < level),
                SavepointEnd::Release => {
                    let ended = all.actions.iter_mut().filter(|action| action.0 >= level);
                    ended.for_each(|action| action.0 = level - 1);
                }
            }
        }
    });
}

/// The session is over.
fn leave() {
    LISTENING.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            all.actions.clear();
            let channels = &mut all.channels;
            channels.iter_mut().for_each(|entry| entry.listened = false);
            all.confirm();
        }
    });
}
