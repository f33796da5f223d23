//! Which executors there may be: a bound for all, a share for each role, and a reserve for roles that have none.
//!
//! An executor serves a pair: one role in one database ([`ExecutorKey`]). As a rule there are `Limits::most` executors. One that has
//! been on the same batch for longer than [`HELD_US`] is *held* by a long job: it can be asked to leave, and will not soon. For a role
//! that has no executor at all, held ones do not count, up to `Limits::reserve` of them. So such a role gets one within a
//! second as long as fewer than `most + reserve` executors are held, whoever holds them, and a role alone may use `most` at full speed.
//! The reserve gives a role one executor at most, because then the role has one.
//!
//! A start that has not come up after [`HELD_US`] *hangs*: who owns a database may hold what every new session of it needs, and
//! hold it for hours. Such a start counts as held, and is ended after [`START_US`]. Its database gets no other start
//! meanwhile, and from the reserve one at a time, so that the starts of one database cannot take the reserve from all; afterwards
//! it is tried one start at a time and less and less often ([`Hangs`]).

mod hangs;

pub use hangs::Hangs;

/// A batch that lasts longer (µs) is one of long jobs: others need not wait for its end.
pub const HELD_US: i64 = 500_000;
/// A start that has not come up after so long (µs) is ended.
pub const START_US: i64 = 10_000_000;
/// More executors than any server runs: the most that pushy.max_executors allows, and ...
pub const MOST_AS_A_RULE: usize = 1_016;
/// ... pushy.reserved_executors.
pub const MOST_RESERVED: usize = 8;
/// While pairs wait for an executor, each may keep one for so long (µs).
pub const SLICE_US: i64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExecutorKey {
    pub database: u32,
    pub role: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Executors at a time.
    pub most: usize,
    /// How many more there may be, while as many are held.
    pub reserve: usize,
    /// Executors of one role, in all databases; 0: no bound.
    pub per_role: usize,
}

/// What an executor does. Times are in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Its process is on its way.
    Coming,
    Idle {
        since: i64,
    },
    Batch {
        since: i64,
    },
    /// Between two batches.
    Looking,
    /// Its process is on its way out.
    Going,
}

#[derive(Clone, Copy, Debug)]
pub struct ExecutorView {
    pub pair: ExecutorKey,
    pub started_at: i64,
    pub doing: Doing,
    /// When it was asked first to leave when its batch ends.
    pub asked_at: Option<i64>,
}

impl ExecutorView {
    /// When it becomes held, should its batch still be open then, or its process not have come up.
    fn held_from(&self) -> Option<i64> {
        match self.doing {
            Doing::Batch { since } => Some(since + HELD_US),
            Doing::Coming => Some(self.started_at + HELD_US),
            _ => None,
        }
    }

    pub fn is_held(&self, now: i64) -> bool {
        self.held_from().is_some_and(|from| from <= now)
    }

    /// It leaves in a moment. One that does not, for somebody holds what it needs, keeps nobody else from being asked.
    fn is_leaving(&self, now: i64) -> bool {
        let is_asked = self.asked_at.is_some_and(|at| now < at + SLICE_US);
        self.doing == Doing::Going || (is_asked && !self.is_held(now))
    }

    fn is_busy(&self) -> bool {
        matches!(self.doing, Doing::Batch { .. } | Doing::Looking)
    }
}

/// What is to be done for a pair that could do with an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is capacity for one more.
    Start,
    /// The executor of this index is asked to leave.
    Ask(usize),
    /// Nothing to do before this time (µs) or before an executor leaves; None: before an executor leaves.
    Wait(Option<i64>),
}

/// Whether an executor of `pair` may start, which has `serving` that are busy.
pub fn decide(
    pair: ExecutorKey,
    serving: usize,
    executors: &[ExecutorView],
    limits: &Limits,
    now: i64,
) -> Decision {
    let of_role = executors
        .iter()
        .filter(|executor| executor.pair.role == pair.role)
        .count();
    let has_its_share = limits.per_role > 0 && of_role >= limits.per_role;
    let held = executors.iter().filter(|e| e.is_held(now)).count();
    let beyond = if of_role == 0 {
        held.min(limits.reserve)
    } else {
        0
    };
    let mut coming = executors
        .iter()
        .filter(|e| e.pair.database == pair.database && e.doing == Doing::Coming);
    // When it comes up, or is ended, the launcher looks again.
    if coming.clone().any(|e| e.is_held(now)) {
        return Decision::Wait(None);
    }
    if !has_its_share && executors.len() < limits.most + beyond {
        let is_of_reserve = executors.len() >= limits.most;
        return if is_of_reserve && coming.next().is_some() {
            Decision::Wait(None)
        } else {
            Decision::Start
        };
    }
    let may_leave = |executor: &ExecutorView| {
        executor.pair != pair && (!has_its_share || executor.pair.role == pair.role)
    };
    if serving > 0 {
        return free_idle(executors, may_leave, now);
    }
    match free_one(executors, may_leave, now) {
        Decision::Wait(until) if of_role == 0 && held < limits.reserve => {
            // From then on an executor with an open batch counts as held, and the reserve opens.
            let held_from = executors.iter().filter_map(ExecutorView::held_from);
            Decision::Wait(
                until
                    .into_iter()
                    .chain(held_from.filter(|from| *from > now))
                    .min(),
            )
        }
        decision => decision,
    }
}

/// What a commit counts of executors before it calls the launcher for a pair of which none is idle.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub all: usize,
    pub of_role: usize,
    /// Of the pair, but for those on their way out.
    pub of_pair: usize,
    /// One of another pair is idle.
    pub idle_elsewhere: bool,
    /// One of the same role is, in another database.
    pub idle_of_role_elsewhere: bool,
}

/// Whether a look of the launcher's may find capacity for the pair: whenever [`decide`] has some, and seldom otherwise, because each
/// call wakes a process. `has_looked`: it has looked lately, and comes back by itself when the idle one may leave.
pub fn may_find_room(seen: &Seen, limits: &Limits, has_looked: bool) -> bool {
    if seen.of_pair == 0 {
        return true;
    }
    if limits.per_role > 0 && seen.of_role >= limits.per_role {
        return seen.idle_of_role_elsewhere && !has_looked;
    }
    seen.all < limits.most || (seen.idle_elsewhere && !has_looked)
}

/// For a pair that has no executor: one that is idle, or else the one that has been there longest, leaves. Those
/// that are held come last.
pub fn free_one(
    executors: &[ExecutorView],
    may_leave: impl Fn(&ExecutorView) -> bool,
    now: i64,
) -> Decision {
    let others = || executors.iter().enumerate().filter(|(_, e)| may_leave(e));
    if others().any(|(_, e)| e.is_leaving(now)) {
        return Decision::Wait(Some(now + SLICE_US));
    }
    let may_be_asked = || others().filter(|(_, e)| e.asked_at.is_none());
    if let Some((idle, _)) = may_be_asked().find(|(_, e)| matches!(e.doing, Doing::Idle { .. })) {
        return Decision::Ask(idle);
    }
    let oldest = |held: bool| {
        may_be_asked()
            .filter(|(_, e)| e.is_busy() && e.is_held(now) == held)
            .min_by_key(|(_, e)| e.started_at)
    };
    if let Some((index, e)) = oldest(false) {
        let until = e.started_at + SLICE_US;
        return if until > now {
            Decision::Wait(Some(until))
        } else {
            Decision::Ask(index)
        };
    }
    match oldest(true) {
        // A held executor leaves when its long job is over.
        Some((index, _)) if !others().any(|(_, e)| e.asked_at.is_some() && e.is_held(now)) => {
            Decision::Ask(index)
        }
        _ => Decision::Wait(Some(now + SLICE_US)),
    }
}

/// For a pair that has an executor: one that has been idle elsewhere for a while leaves. Not sooner,
/// because it would be missed there.
fn free_idle(
    executors: &[ExecutorView],
    may_leave: impl Fn(&ExecutorView) -> bool,
    now: i64,
) -> Decision {
    let others = || executors.iter().enumerate().filter(|(_, e)| may_leave(e));
    if others().any(|(_, e)| e.is_leaving(now)) {
        return Decision::Wait(Some(now + SLICE_US));
    }
    let longest = others()
        .filter_map(|(index, e)| match e.doing {
            Doing::Idle { since } if e.asked_at.is_none() => Some((since, index)),
            _ => None,
        })
        .min();
    match longest {
        // An executor of another pair that becomes idle does not call the launcher: look again.
        None if others().next().is_some() => Decision::Wait(Some(now + SLICE_US)),
        None => Decision::Wait(None),
        Some((since, _)) if since + SLICE_US > now => Decision::Wait(Some(since + SLICE_US)),
        Some((_, index)) => Decision::Ask(index),
    }
}

/// An executor that should leave because there are more than `most`: one of the role that has most of them, which so gives
/// back what others had to take from the reserve. Where no role has two, one leaves as soon as fewer are held. Idle ones
/// first, held ones last, and the youngest among equals.
pub fn surplus(executors: &[ExecutorView], limits: &Limits, now: i64) -> Option<usize> {
    let stays = |e: &&ExecutorView| e.asked_at.is_none() && e.doing != Doing::Going;
    let staying = executors.iter().filter(stays).count();
    if staying <= limits.most {
        return None;
    }
    let of_role = |role: u32| {
        let same = |e: &&ExecutorView| stays(e) && e.pair.role == role;
        executors.iter().filter(same).count()
    };
    let (index, leaves) = executors
        .iter()
        .enumerate()
        .filter(|(_, e)| stays(e) && e.doing != Doing::Coming)
        .max_by_key(|(_, e)| {
            let is_idle = matches!(e.doing, Doing::Idle { .. });
            (of_role(e.pair.role), is_idle, !e.is_held(now), e.started_at)
        })?;
    let reserve = if limits.most == 0 { 0 } else { limits.reserve };
    let held = executors.iter().filter(|e| e.is_held(now)).count();
    let must = of_role(leaves.pair.role) > 1 || staying > limits.most + held.min(reserve);
    must.then_some(index)
}

#[cfg(test)]
mod tests;
