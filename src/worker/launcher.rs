//! The launcher: one for the cluster, without a database. Starts a scheduler where one is due and
//! executors where there is work, within pushy.max_executors, and gives each group its turn.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::executor;
use super::recorder::{self, Recorder};
use super::scheduler;
use crate::errors::{Error, SqlState};
use crate::pg::worker::{self, Handle, Kind, Status};
use crate::pg::{clock, database, ereport, guc, latch, shmem, signals, transaction};
use crate::queue::fitness::{self, Unfit};
use crate::shared::database::{Database, Presence, NEVER};
use crate::shared::executor::ExecutorState;
use crate::shared::{self, Shared};
use crate::{settings, worker_entry};

const KIND: Kind = Kind {
    name: "pushy launcher",
    entry: "pushy_launcher_main",
};

/// A scheduler is started so long before something is due: it takes some milliseconds to come up.
const LEAD_US: i64 = 200_000;
/// The longest sleep, after which it looks whether the sweep is due.
const SWEEP_US: i64 = 60_000_000;
/// While groups wait for an executor, each may keep one for so long.
const SLICE_US: i64 = 1_000_000;
/// The postmaster frees the slot of a worker that has ended within this time.
const SLOT_RETURN_US: i64 = 50_000;
/// The longest wait before a worker that failed to start is tried again.
const MOST_RETRY_US: i64 = 60_000_000;

pub fn register() {
    worker::register_static(&KIND, "pushy launcher", Duration::from_secs(1));
}

worker_entry!(pushy_launcher_main, launcher);

fn launcher(_arg: usize) {
    if worker::is_binary_upgrade() {
        return;
    }
    let shared = shared::expect();
    shared.launcher.enter();
    shmem::at_exit(|| {
        if let Some(shared) = shared::get() {
            shared.launcher.leave();
        }
    });
    signals::init_worker();
    worker::connect_shared();
    let recorder = recorder::open();
    if !shared.recorder_read.swap(true, Ordering::SeqCst) {
        recorder.judge_last_life();
    }
    Launching {
        shared,
        recorder,
        names: HashMap::new(),
        executors: HashMap::new(),
        schedulers: HashMap::new(),
        groups: HashMap::new(),
        last_xid: 0,
        swept_at: clock::now().0,
        last_started: HashMap::new(),
        next_held: NEVER,
        starved_since: None,
    }
    .live();
}

/// Who an executor serves: (database, role).
type Group = (u32, u32);

/// Failures to start executors of a group.
#[derive(Default)]
struct Trouble {
    failures: u32,
    retry_at: i64,
}

struct Launching {
    shared: &'static Shared,
    recorder: &'static Recorder,
    /// Databases in which jobs may run, by OID.
    names: HashMap<u32, String>,
    /// Workers we have started, by slot and by database.
    executors: HashMap<usize, (Handle, Group)>,
    schedulers: HashMap<u32, Handle>,
    groups: HashMap<Group, Trouble>,
    last_xid: u64,
    swept_at: i64,
    /// When an executor of a group was last started: whose turn it is.
    last_started: HashMap<Group, i64>,
    /// When the first of the queues that were passed over after a failure may be tried again.
    next_held: i64,
    starved_since: Option<i64>,
}

impl Launching {
    fn live(mut self) {
        self.refresh_databases();
        loop {
            if guc::reload_if_asked() {
                self.refresh_databases();
            }
            if self.shared.access_changed.swap(false, Ordering::SeqCst) {
                self.forgive();
            }
            self.reap();
            let mut next = clock::now().0 + SWEEP_US;
            if settings::enabled() {
                self.sweep_if_due();
                next = next.min(self.start_schedulers());
                next = next.min(self.start_executors());
            }
            worker::show_activity(None);
            let left = next.saturating_sub(clock::now().0).max(1000);
            latch::wait(Some(Duration::from_micros(left as u64)));
        }
    }

    /// Tries again at once what failed to start.
    fn forgive(&mut self) {
        self.refresh_databases();
        for trouble in self.groups.values_mut() {
            trouble.retry_at = 0;
        }
        for place in &self.shared.databases {
            place.retry_at.store(0, Ordering::SeqCst);
        }
    }

    /// Reads pg_database: at the start, after a reload, and when a database is met that is not known.
    fn refresh_databases(&mut self) {
        let found = transaction::run(|| Ok(database::all()));
        let found = match found {
            Ok(found) => found,
            Err(failure) => {
                ereport::log(&Error::new(
                    SqlState::INTERNAL_ERROR,
                    format!("could not read pg_database: {}", failure.message),
                ));
                return;
            }
        };
        for place in &self.shared.databases {
            let oid = place.oid();
            if oid != 0 && !found.iter().any(|database| database.oid == oid) {
                self.shared.free_database(oid);
                self.recorder.forget_database(oid);
                self.last_started.retain(|group, _| group.0 != oid);
            }
        }
        self.names = found
            .into_iter()
            .filter(|database| database.allows_connections && settings::runs_in(&database.name))
            .map(|database| (database.oid, database.name))
            .collect();
        for oid in self.names.keys() {
            if self.shared.ensure_database(*oid).is_none() {
                ereport::log(
                    &Error::new(
                        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                        "there are more databases than Pushy has room for",
                    )
                    .hint("Name those in which jobs run in pushy.databases."),
                );
                break;
            }
        }
    }

    fn runs_in(&mut self, place: &Database) -> bool {
        let oid = place.oid();
        if !self.names.contains_key(&oid) && place.presence() == Presence::Present {
            // New since we last looked, or not for us: ask once per change of its definitions.
            let generation = place.definitions.load(Ordering::SeqCst) + 1;
            if place.looked_up.swap(generation, Ordering::SeqCst) != generation {
                self.refresh_databases();
            }
        }
        self.names.contains_key(&oid)
    }

    /// Looks after workers that have ended: what their executor's note says, and those that never came up.
    fn reap(&mut self) {
        for (slot, executor) in self.shared.executors.iter().enumerate() {
            let state = executor.state();
            if state == ExecutorState::Free {
                let ended = self.executors.remove(&slot);
                if let Some((_, group)) = &ended {
                    if executor.came_up.load(Ordering::SeqCst) {
                        let group = *group;
                        self.end_trouble(group);
                    }
                }
                if ended.is_some() || self.recorder.is_noted(slot) {
                    let judged = self.recorder.judge_exit(slot);
                    self.tell_verdicts(judged);
                }
                continue;
            }
            let group = (
                executor.database.load(Ordering::SeqCst),
                executor.role.load(Ordering::SeqCst),
            );
            if state != ExecutorState::Starting {
                self.end_trouble(group);
                continue;
            }
            let gone = match self.executors.get(&slot) {
                Some((handle, _)) => handle.status() == Status::Stopped,
                // A launcher before us started it: long enough ago, it is not coming.
                None => clock::now().0 - executor.started_at.load(Ordering::SeqCst) > SWEEP_US,
            };
            if gone {
                self.executors.remove(&slot);
                executor.release();
            }
        }
        let shared = self.shared;
        self.schedulers.retain(|oid, handle| {
            if handle.status() != Status::Stopped {
                return true;
            }
            if let Some(place) = shared.find_database(*oid) {
                // It ended before it had come up: the database may be gone, or full.
                if place.scheduler_starting.swap(false, Ordering::SeqCst) {
                    let failures = place.failures.fetch_add(1, Ordering::SeqCst);
                    let at = clock::now().0 + retry_delay(failures);
                    place.retry_at.store(at, Ordering::SeqCst);
                }
            }
            false
        });
        let failed: Vec<u32> = shared
            .databases
            .iter()
            .filter(|place| place.oid() != 0 && place.failures.load(Ordering::SeqCst) > 0)
            .map(Database::oid)
            .collect();
        if failed.iter().any(|oid| self.names.contains_key(oid)) {
            self.refresh_databases();
        }
    }

    /// An executor's end was judged: to be carried out by a scheduler, or nobody's fault.
    fn tell_verdicts(&self, judged: bool) {
        if judged {
            for place in &self.shared.databases {
                if place.oid() != 0 && self.recorder.has_verdicts(place.oid()) {
                    place.scheduler.wake();
                }
            }
            self.shared.wake_executors();
        }
    }

    /// Once a minute, if anybody has written: asks the schedulers of databases with new rows to look.
    fn sweep_if_due(&mut self) {
        let now = clock::now().0;
        if now - self.swept_at < SWEEP_US {
            return;
        }
        self.swept_at = now;
        let xid = transaction::next_xid();
        if xid == self.last_xid {
            return;
        }
        self.last_xid = xid;
        for place in &self.shared.databases {
            if place.oid() == 0 || place.presence() != Presence::Present {
                continue;
            }
            let writes = transaction::run(|| Ok(database::rows_written(place.oid())));
            let writes = writes.ok().flatten().unwrap_or(xid);
            if place.swept_writes.swap(writes, Ordering::SeqCst) != writes {
                place.sweep_requested.store(true, Ordering::SeqCst);
                place.scheduler.wake();
            }
        }
    }

    /// Starts schedulers where something is due; answers when the next one is.
    fn start_schedulers(&mut self) -> i64 {
        let now = clock::now().0;
        let mut next = NEVER;
        let shared = self.shared;
        let mut starting = shared
            .databases
            .iter()
            .filter(|place| place.oid() != 0 && place.scheduler_starting.load(Ordering::SeqCst))
            .count();
        for place in &shared.databases {
            let oid = place.oid();
            if oid == 0 || place.is_quiesced() {
                continue;
            }
            if place.presence() == Presence::Absent {
                // Another CREATE EXTENSION would begin to count its jobs anew.
                self.recorder.forget_database(oid);
                continue;
            }
            if place.scheduler.is_entered() || place.scheduler_starting.load(Ordering::SeqCst) {
                continue;
            }
            let due = self.scheduler_due(place);
            let due = due.max(place.retry_at.load(Ordering::SeqCst));
            if due > now {
                next = next.min(due);
                continue;
            }
            if !self.runs_in(place) {
                continue;
            }
            // One after another: two hundred databases at start must not take all slots.
            if starting > 0 {
                continue;
            }
            place.scheduler_starting.store(true, Ordering::SeqCst);
            let title = format!("pushy scheduler: {}", self.names[&oid]);
            match worker::start(&scheduler::KIND, &title, oid as usize) {
                Some(handle) => {
                    self.schedulers.insert(oid, handle);
                    starting += 1;
                    self.fed();
                }
                None => {
                    place.scheduler_starting.store(false, Ordering::SeqCst);
                    next = next.min(self.starve(now));
                    next = next.min(self.make_room((oid, 0), now));
                    break;
                }
            }
        }
        next
    }

    /// When the scheduler of a database is wanted, 0 for now.
    fn scheduler_due(&self, place: &Database) -> i64 {
        let wanted = place.presence() == Presence::Unknown
            || place.sweep_requested.load(Ordering::SeqCst)
            || place.orphans_requested.load(Ordering::SeqCst)
            || self.recorder.has_verdicts(place.oid());
        if wanted {
            return 0;
        }
        let due = place.due.load(Ordering::SeqCst);
        if due == NEVER {
            NEVER
        } else {
            due.saturating_sub(LEAD_US)
        }
    }

    /// The groups that have work no executor will take, each once, in the order of their turn.
    fn groups_in_need(&mut self) -> Vec<(Group, usize)> {
        let shared = self.shared;
        let now = clock::now().0;
        let mut needs: Vec<(Group, usize)> = Vec::new();
        self.next_held = NEVER;
        for (word, bits) in shared.ready_bits().iter().enumerate() {
            let mut bits = bits.load(Ordering::SeqCst);
            while bits != 0 {
                let index = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let slot = &shared.queues()[index];
                let Some(key) = slot.key() else {
                    shared.clear_ready(index);
                    continue;
                };
                if !slot.is_runnable() || !slot.has_permit() || !slot.may_be_ready() {
                    continue;
                }
                if slot.held_until() > now {
                    self.next_held = self.next_held.min(slot.held_until());
                    continue;
                }
                let group = (key.database, slot.role.load(Ordering::SeqCst));
                if !needs.iter().any(|(known, _)| *known == group) {
                    needs.push((group, 0));
                }
            }
        }
        needs.retain_mut(|(group, serving)| {
            let Some(place) = shared.find_database(group.0) else {
                return false;
            };
            if place.presence() != Presence::Present || place.is_quiesced() {
                return false;
            }
            let mut coming = false;
            for executor in &shared.executors {
                if !executor.serves(group.0, group.1) {
                    continue;
                }
                match executor.state() {
                    ExecutorState::Starting => coming = true,
                    ExecutorState::Idle => coming |= executor.wake_if_idle(),
                    ExecutorState::Busy if !executor.stop_requested.load(Ordering::SeqCst) => {
                        *serving += 1;
                    }
                    _ => {}
                }
            }
            !coming
        });
        // Those with nobody at all come first, and among them whose last executor started longest ago.
        needs.sort_by_key(|(group, serving)| {
            let started = self.last_started.get(group).copied().unwrap_or(0);
            (*serving, started)
        });
        needs
    }

    /// Starts executors for groups in need; answers when to look again.
    fn start_executors(&mut self) -> i64 {
        let now = clock::now().0;
        let mut next = NEVER;
        let most = settings::max_executors();
        self.stop_surplus(most);
        for (group, serving) in self.groups_in_need() {
            let trouble = self
                .groups
                .get(&group)
                .map_or(0, |trouble| trouble.retry_at);
            if trouble > now {
                next = next.min(trouble);
                continue;
            }
            let place = self.shared.find_database(group.0);
            if !place.is_some_and(|place| self.runs_in(place)) {
                continue;
            }
            if self.shared.executors_in_use() >= most {
                if serving == 0 && most > 0 {
                    next = next.min(self.make_room(group, now));
                }
                continue;
            }
            match self.start_executor(group, now) {
                Ok(()) => self.fed(),
                Err(at) => {
                    next = next.min(at);
                    if self.starved_since.is_some() && serving == 0 {
                        next = next.min(self.make_room(group, now));
                    }
                    break;
                }
            }
        }
        next.min(self.next_held)
    }

    fn start_executor(&mut self, group: Group, now: i64) -> Result<(), i64> {
        let shared = self.shared;
        let free = shared
            .executors
            .iter()
            .position(|executor| executor.state() == ExecutorState::Free);
        let Some(slot) = free else {
            return Err(now + SLICE_US);
        };
        // Before it is reserved: a note in a slot that is taken is not looked at as one left behind.
        let judged = self.recorder.judge_exit(slot);
        self.tell_verdicts(judged);
        shared.executors[slot].reserve(group.0, group.1);
        // Assumed to fail until it has come up: what never comes up is tried less and less often.
        let trouble = self.groups.entry(group).or_default();
        trouble.retry_at = now + retry_delay(trouble.failures);
        trouble.failures += 1;
        let first = trouble.failures == 1;
        if !first {
            let retry_at = trouble.retry_at;
            self.show_retry(group, retry_at);
        }
        if let Some(unfit) = self.obstacle(group) {
            shared.executors[slot].release();
            if first {
                self.say_waiting(group, &unfit);
            }
            return Err(now);
        }
        let title = format!("pushy executor: {}", self.names[&group.0]);
        match worker::start(&executor::KIND, &title, slot) {
            Some(handle) => {
                self.executors.insert(slot, (handle, group));
                self.last_started.insert(group, now);
                Ok(())
            }
            None => {
                self.end_trouble(group);
                shared.executors[slot].release();
                Err(self.starve(now))
            }
        }
    }

    /// An executor of the group has come up, or it is not the group's fault that none has.
    fn end_trouble(&mut self, group: Group) {
        if self
            .groups
            .remove(&group)
            .is_some_and(|was| was.failures > 1)
        {
            self.show_retry(group, 0);
        }
    }

    /// Says for queue_explain when the next start is tried; 0: none has failed.
    fn show_retry(&self, (database, role): Group, retry_at: i64) {
        for slot in self.shared.queues() {
            if slot.key().is_some_and(|key| key.database == database)
                && slot.role.load(Ordering::SeqCst) == role
            {
                slot.start_retry_at.store(retry_at, Ordering::SeqCst);
            }
        }
    }

    /// Why no session of the role can be opened in the database, asked before a worker dies of it.
    fn obstacle(&self, (database, role): Group) -> Option<Unfit> {
        let asked = transaction::run(|| Ok(fitness::session_of(database, role).err()));
        // What cannot be asked is left to the worker to find out.
        asked.ok().flatten()
    }

    fn say_waiting(&self, group: Group, unfit: &Unfit) {
        ereport::log(
            &Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "jobs in database \"{}\" wait: {}",
                    self.names[&group.0],
                    unfit.reason()
                ),
            )
            .hint(format!(
                "{}. This is said once until they run.",
                unfit.fix()
            )),
        );
    }

    /// All executors, or all worker slots of the server, are taken and this group has none: one that is
    /// idle, or else the one that has been there longest, leaves when its batch ends.
    fn make_room(&self, group: Group, now: i64) -> i64 {
        let others = || {
            self.shared.executors.iter().filter(|executor| {
                executor.state() != ExecutorState::Free && !executor.serves(group.0, group.1)
            })
        };
        if others().any(|executor| executor.stop_requested.load(Ordering::SeqCst)) {
            // One is on its way out; its exit wakes us.
            return now + SLICE_US;
        }
        if let Some(idle) = others().find(|executor| executor.state() == ExecutorState::Idle) {
            idle.ask_to_stop();
            return now + SLICE_US;
        }
        let oldest = others()
            .filter(|executor| executor.state() == ExecutorState::Busy)
            .min_by_key(|executor| executor.started_at.load(Ordering::SeqCst));
        let Some(oldest) = oldest else {
            return now + SLICE_US;
        };
        let until = oldest.started_at.load(Ordering::SeqCst) + SLICE_US;
        if until > now {
            return until;
        }
        oldest.ask_to_stop();
        now + SLICE_US
    }

    /// pushy.max_executors was lowered: the youngest leave.
    fn stop_surplus(&self, most: usize) {
        let staying =
            |state: ExecutorState| matches!(state, ExecutorState::Idle | ExecutorState::Busy);
        let mut kept: Vec<_> = self
            .shared
            .executors
            .iter()
            .filter(|executor| {
                staying(executor.state()) && !executor.stop_requested.load(Ordering::SeqCst)
            })
            .collect();
        kept.sort_by_key(|executor| executor.started_at.load(Ordering::SeqCst));
        for executor in kept.iter().skip(most) {
            executor.ask_to_stop();
        }
    }

    /// No worker slot is free: said once, with the setting to raise, until one was. A worker that has just
    /// ended gives its slot back a moment later, so not at the first look.
    fn starve(&mut self, now: i64) -> i64 {
        let since = *self.starved_since.get_or_insert(now);
        if now - since < SLICE_US {
            return now + SLOT_RETURN_US;
        }
        if self.shared.starved.swap(1, Ordering::SeqCst) == 0 {
            ereport::log(
                &Error::new(
                    SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                    "jobs wait: no background worker slot is free",
                )
                .hint("Raise max_worker_processes: Pushy takes pushy.max_executors + 2, beside parallel queries and replication. Tried again every second; this is said once."),
            );
        }
        now + SLICE_US
    }

    fn fed(&mut self) {
        self.shared.starved.store(0, Ordering::SeqCst);
        self.starved_since = None;
    }
}

/// How long to wait after so many failures in a row.
fn retry_delay(failures: u32) -> i64 {
    (500_000i64 << failures.min(8)).min(MOST_RETRY_US)
}
