//! Whether a queue may start a job now, and why not: one answer for those who start jobs, those who wake them and those who
//! explain.
//!
//! Not asked here: whether a job is ready (the queue's watermarks say so); whether the queue's role may have a session and its
//! handler can be called, which takes look-ups in catalogs and a transaction; where an executor comes from (`capacity`).

use crate::presence::Presence;
use crate::standing::Standing;

/// What is known of a queue, of its database and of the server at one moment. Times are in µs.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// pushy.enabled.
    pub enabled: bool,
    /// Jobs run in the queue's database (pushy.databases, and it takes connections).
    pub served: bool,
    pub presence: Presence,
    /// A transaction keeps workers out of the database.
    pub quiesced: bool,
    pub standing: Standing,
    /// Not tried before, because its last batches failed for want of something in the server, or somebody holds a lock.
    pub suspended_until: i64,
    /// Executors that work on the queue.
    pub running: u32,
    /// How many there may be; 0: as many as there are.
    pub limit: u32,
    /// A job that may have crashed the server runs alone in the cluster, or waits to.
    pub quarantined: bool,
}

/// Why a queue starts no job now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    Disabled,
    NotServed,
    Unknown,
    Absent,
    Incompatible,
    Quiesced,
    Dropped,
    Unborn,
    Elsewhere,
    Paused,
    Parked,
    /// Workers outside do its jobs, and no executor.
    Outside,
    SuspendedUntil(i64),
    AtItsLimit {
        running: u32,
        limit: u32,
    },
    Quarantined,
}

/// Who asks. Those who start jobs pass over what they see to themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// An executor that chooses a queue, or who wakes it: it reads the settings itself, and leaves. What it finds in its database
    /// is there. A quarantine it waits for.
    Executor,
    /// Who calls the launcher for a queue. Where somebody has just enqueued, the database has the extension.
    WakeUp,
    /// The launcher, which looks into pg_database itself.
    Launcher,
    /// Who wants to know whether a job would start if it were ready.
    Anybody,
    /// A worker outside that claims jobs.
    Outside,
}

impl Asker {
    pub const ALL: [Asker; 5] = [
        Asker::Executor,
        Asker::WakeUp,
        Asker::Launcher,
        Asker::Anybody,
        Asker::Outside,
    ];

    /// Whether nothing that the queue's definition says concerns this asker.
    #[inline]
    const fn passes(self, standing: Standing) -> bool {
        match self {
            Asker::Executor | Asker::WakeUp | Asker::Launcher => standing.is_open(),
            Asker::Anybody | Asker::Outside => standing.is_open_but_for(Standing::OUTSIDE),
        }
    }
}

impl Closed {
    /// Whether it keeps this asker from the queue.
    pub const fn concerns(self, asker: Asker) -> bool {
        match self {
            Closed::Disabled => !matches!(asker, Asker::Executor),
            Closed::NotServed => !matches!(asker, Asker::Executor | Asker::Launcher),
            Closed::Unknown => !matches!(asker, Asker::Executor | Asker::WakeUp | Asker::Outside),
            // A worker outside does not need what its executors lacked, and nobody would wake it when that time has come.
            Closed::SuspendedUntil(_) => !matches!(asker, Asker::Outside),
            Closed::Outside => !matches!(asker, Asker::Anybody | Asker::Outside),
            Closed::Quarantined => matches!(asker, Asker::Anybody),
            _ => true,
        }
    }

    /// Whether it stays so until somebody acts; the others end by themselves.
    pub const fn is_standing(self) -> bool {
        !matches!(
            self,
            Closed::Unknown
                | Closed::Unborn
                | Closed::SuspendedUntil(_)
                | Closed::AtItsLimit { .. }
                | Closed::Quarantined
        )
    }
}

impl Facts {
    /// Of a queue that may start jobs.
    pub const OPEN: Self = Self {
        enabled: true,
        served: true,
        presence: Presence::Present,
        quiesced: false,
        standing: Standing::OPEN,
        suspended_until: 0,
        running: 0,
        limit: 0,
        quarantined: false,
    };

    const fn is_at_its_limit(&self) -> bool {
        self.limit != 0 && self.running >= self.limit
    }

    /// Whether no reason concerns this asker: the same as `gate`, in the few instructions that a batch and a commit have for it.
    #[inline]
    pub fn let_in(&self, now: i64, asker: Asker) -> bool {
        asker.passes(self.standing)
            && (self.suspended_until <= now || matches!(asker, Asker::Outside))
            && !self.is_at_its_limit()
            && !self.quiesced
            && match self.presence {
                Presence::Present => true,
                Presence::Unknown => !Closed::Unknown.concerns(asker),
                Presence::Absent | Presence::Incompatible => false,
            }
            && (self.enabled || !Closed::Disabled.concerns(asker))
            && (self.served || !Closed::NotServed.concerns(asker))
            && (!self.quarantined || !Closed::Quarantined.concerns(asker))
    }

    /// All reasons, in the order in which people should hear them.
    pub fn reasons(&self, now: i64) -> impl Iterator<Item = Closed> {
        let standing = |one, closed| self.standing.has(one).then_some(closed);
        let (running, limit) = (self.running, self.limit);
        [
            (!self.enabled).then_some(Closed::Disabled),
            (!self.served).then_some(Closed::NotServed),
            (self.presence == Presence::Unknown).then_some(Closed::Unknown),
            (self.presence == Presence::Absent).then_some(Closed::Absent),
            (self.presence == Presence::Incompatible).then_some(Closed::Incompatible),
            self.quiesced.then_some(Closed::Quiesced),
            standing(Standing::DROPPED, Closed::Dropped),
            standing(Standing::UNBORN, Closed::Unborn),
            standing(Standing::ELSEWHERE, Closed::Elsewhere),
            standing(Standing::PAUSED, Closed::Paused),
            standing(Standing::PARKED, Closed::Parked),
            standing(Standing::OUTSIDE, Closed::Outside),
            (self.suspended_until > now).then_some(Closed::SuspendedUntil(self.suspended_until)),
            self.is_at_its_limit()
                .then_some(Closed::AtItsLimit { running, limit }),
            self.quarantined.then_some(Closed::Quarantined),
        ]
        .into_iter()
        .flatten()
    }
}

/// Whether a queue may start a job now, as far as this asker is concerned; if not, the first reason.
pub fn gate(facts: &Facts, now: i64, asker: Asker) -> Result<(), Closed> {
    let first = facts.reasons(now).find(|closed| closed.concerns(asker));
    first.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
