//! Every interleaving of the protocol by which a scheduler finds the jobs whose time has come (src/worker/time/scheduler.rs,
//! src/shared/worker/database.rs), looking at none that waited before. And of broken variants, each of which must be caught.
//!
//! ```text
//! commit      the row is visible; fetch_min(waiting_from, its time); fetch_min(due, its time), and if that was later
//!             set the scheduler's latch. COMMIT PREPARED: ask for a sweep, set the latch.
//! round       reset the latch. Read the queues, if they have changed and that does not rest. Swap(due, NEVER): put back if it is not yet.
//!             from = swap(waiting_from, NEVER). Make rows ready that wait for a time from there to now, some at a time, each time
//!             going on behind the last, skipping locked ones. Look which row waits first now, from `from` on, locked or
//!             not: fetch_min(waiting_from, its time); fetch_min(due, its time, or soon if that is past).
//!             A sweep is asked for: waiting_from = due = 0; or it rests, and fetch_min(due, when that is over).
//!             A failure puts back what was taken; who is terminated sets waiting_from = due = 0 and asks for a sweep.
//! sleep       until `due` as it is then, or the latch is set.
//! queue       is registered by a transaction before those that enqueue into it; a counter of definitions goes up after its
//!             commit. The scheduler reads the queues where the counter is another than it knows, once in a round, because
//!             others may raise it all the time. Who makes a row ready announces it, also where the queue came after that; a sweep reads the queues
//!             itself.
//! ```
//!
//! Steps are single reads and writes of shared memory, in one order that all processes see. Times are 1 to 3; the clock
//! goes on whenever it likes. Checked of every world: no row is due and free, and none is ready that nobody has announced,
//! while the scheduler sleeps with nobody about to wake it, but for rows by COMMIT PREPARED until the sweep's rest is over; nor
//! does it read the queues twice before it looks for due rows.

#[path = "../common/mod.rs"]
mod common;
mod scheduler;
mod sessions;
mod world;

use world::World;

/// What is done in another order than it should be, or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A commit wakes the scheduler before it says from when on jobs wait.
    DueBeforeWaiting,
    /// It says so before the row is visible.
    AnnounceBeforeCommit,
    /// It does not say so.
    SilentCommit,
    /// The scheduler takes the time after its snapshot.
    SnapshotBeforeTake,
    /// It looks for what waits first behind the last row it made ready, where it would go on.
    LooksBehindLast,
    /// It does not put back what it has found.
    PutsNothingBack,
    /// Or, after a failure, what it had taken.
    SilentFailure,
    /// Terminated, it says nothing.
    SilentEnd,
    /// Or it asks for a sweep only, which may rest.
    EndTrustsSweep,
    /// While a sweep rests, it does not say when that is over.
    RestsForEver,
    /// It reads the queues until none has changed meanwhile.
    ReadsUntilQuiet,
    /// A sweep does not make it look at all that wait.
    SweepsReadyOnly,
    /// It resets its latch after it has looked.
    ResetsLate,
    /// It announces only rows of queues that it knew when its round began.
    AnnouncesKnownOnly,
    /// A sweep looks only for those.
    SweepsKnownOnly,
}

const FAULTS: [Fault; 15] = [
    Fault::DueBeforeWaiting,
    Fault::AnnounceBeforeCommit,
    Fault::SilentCommit,
    Fault::SnapshotBeforeTake,
    Fault::LooksBehindLast,
    Fault::PutsNothingBack,
    Fault::SilentFailure,
    Fault::SilentEnd,
    Fault::EndTrustsSweep,
    Fault::RestsForEver,
    Fault::ReadsUntilQuiet,
    Fault::SweepsReadyOnly,
    Fault::ResetsLate,
    Fault::AnnouncesKnownOnly,
    Fault::SweepsKnownOnly,
];

/// What happens beside two commits: all at once would be too many worlds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beside {
    /// A session locks a row that waits, and gives it up.
    Locker,
    /// A round fails, or the scheduler is terminated.
    Trouble,
    /// A row comes by COMMIT PREPARED.
    Prepared,
    /// Somebody changes a queue of his own all the time.
    Storm,
    /// The queue of the rows is registered in the midst of a round; a row of it is ready by COMMIT PREPARED.
    NewQueue,
}

const BESIDE: [Beside; 5] = [
    Beside::Locker,
    Beside::Trouble,
    Beside::Prepared,
    Beside::Storm,
    Beside::NewQueue,
];

#[derive(Clone, Copy)]
pub struct Rules {
    pub beside: Beside,
    pub fault: Option<Fault>,
}

impl Rules {
    pub fn breaks(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

/// How many worlds there are, and whether a job waits longer than its time in one of them.
fn explore(rules: &Rules) -> (usize, bool) {
    common::explore(
        World::new(rules),
        World::has_forgotten_a_row,
        |world, mut visit| world.successors(rules, &mut visit),
    )
}

#[test]
fn no_job_waits_longer_than_its_time() {
    let fault = None;
    common::assert_holds(&BESIDE, |beside| explore(&Rules { beside, fault }));
}

#[test]
fn each_broken_variant_forgets_a_job() {
    common::assert_caught(&FAULTS, &BESIDE, |beside, fault| {
        let fault = Some(fault);
        explore(&Rules { beside, fault }).1
    });
}
