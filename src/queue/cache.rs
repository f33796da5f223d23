//! Queues a backend has used, so that an enqueue reads no catalog of ours.
//!
//! Valid while no definition or privilege of this database has changed since (a counter in shared
//! memory, raised at commit); not used by a transaction that has changed some itself, nor without the
//! preload, where there is no counter. Read under the latest snapshot (`Spi::run`), because a queue that the snapshot
//! of a REPEATABLE READ transaction shows may be gone, and entered only if nothing has changed during the read.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::alter;
use super::definition::{self, QueueDefinition};
use super::privilege::{self, Grant};
use crate::errors::{Error, Result, SqlState};
use crate::pg::per_process::PerProcess;
use crate::pg::{database, identity};
use crate::shared::{self, pending};

/// A queue with all that an enqueue wants to know.
pub struct CachedQueue {
    pub definition: QueueDefinition,
    pub grants: Vec<Grant>,
    /// Its slot in shared memory; None as `slot_of` says.
    pub slot: Option<usize>,
}

struct Cache {
    generation: u64,
    queues: FxHashMap<String, Rc<CachedQueue>>,
    /// The same by number.
    numbers: FxHashMap<i32, Rc<CachedQueue>>,
    /// How many a view has asked for in vain.
    missed: usize,
}

static CACHE: PerProcess<RefCell<Cache>> = PerProcess::new(RefCell::new(Cache {
    generation: 0,
    queues: FxHashMap::with_hasher(FxBuildHasher),
    numbers: FxHashMap::with_hasher(FxBuildHasher),
    missed: 0,
}));

/// Entries kept; a backend that uses more queues starts over.
const MOST: usize = 10_000;
/// A view that has missed so many goes through all, most likely: read at once they cost 10 µs each, one by
/// one 50.
const MANY: usize = 16;

/// The database's counter of definition changes plus one (0: never read); None without shared memory.
fn generation() -> Option<u64> {
    let shared = shared::get()?;
    let database = shared.ensure_database(database::current())?;
    Some(database.definitions.load(Ordering::SeqCst) + 1)
}

/// The same Some before and after: what was read of queues in between still holds. None: this transaction has changed
/// queues itself. Without the preload nothing runs and changes of others are not counted.
pub fn version() -> Option<u64> {
    (!pending::has_changes()).then(|| generation().unwrap_or(0))
}

/// The queue of this name, from the cache if that is valid.
pub fn get(name: &str) -> Result<Rc<CachedQueue>> {
    let valid = valid();
    if let Some(cached) = recall(valid, |cache| cache.queues.get(name)) {
        return Ok(cached);
    }
    let cached = Rc::new(identity::as_owner(|| read_grants(definition::get(name)?))?);
    remember(valid, &cached);
    Ok(cached)
}

/// The queue of this number, for a view, which may ask for one after the other; None: it is gone.
pub fn get_of_many(queue_id: i32) -> Result<Option<Rc<CachedQueue>>> {
    let recalled = |valid| recall(valid, |cache| cache.numbers.get(&queue_id));
    let mut valid = valid();
    if let Some(cached) = recalled(valid) {
        return Ok(Some(cached));
    }
    let has_missed_many = CACHE.with_borrow_mut(|cache| {
        cache.missed += 1;
        // Once, not again for each that is found from then on.
        cache.missed == MANY
    });
    if has_missed_many {
        read_all()?;
        valid = self::valid();
        if let Some(cached) = recalled(valid) {
            return Ok(Some(cached));
        }
    }
    let found = identity::as_owner(|| {
        let found = definition::find_by_id(queue_id)?;
        found.map(read_grants).transpose()
    })?;
    let found = found.map(Rc::new);
    found.iter().for_each(|cached| remember(valid, cached));
    Ok(found)
}

/// The generation of what the cache may say to this transaction; None: nothing.
fn valid() -> Option<u64> {
    generation().filter(|_| !pending::has_changes())
}

fn recall(
    valid: Option<u64>,
    find: impl FnOnce(&Cache) -> Option<&Rc<CachedQueue>>,
) -> Option<Rc<CachedQueue>> {
    let generation = valid?;
    CACHE.with_borrow_mut(|cache| {
        if cache.generation != generation || cache.queues.len() > MOST {
            cache.start_over(generation);
        }
        find(cache).cloned()
    })
}

/// Enters what was read since the cache was `valid` so.
fn remember(valid: Option<u64>, cached: &Rc<CachedQueue>) {
    if valid.is_some() && generation() == valid {
        CACHE.with_borrow_mut(|cache| cache.enter(Rc::clone(cached)));
    }
}

impl Cache {
    fn start_over(&mut self, generation: u64) {
        if self.generation != generation {
            self.missed = 0;
        }
        self.queues.clear();
        self.numbers.clear();
        self.generation = generation;
    }

    fn enter(&mut self, cached: Rc<CachedQueue>) {
        let definition = &cached.definition;
        self.queues
            .insert(definition.name.clone(), Rc::clone(&cached));
        self.numbers.insert(definition.queue_id, cached);
    }
}

/// What a queue of this number was called when it was last looked up.
pub fn name_of(queue_id: i32) -> Option<String> {
    CACHE.with_borrow(|cache| {
        let cached = cache.numbers.get(&queue_id)?;
        Some(cached.definition.name.clone())
    })
}

fn read_all() -> Result<()> {
    let Some(before) = valid() else {
        return Ok(());
    };
    let (queues, mut grants) =
        identity::as_owner(|| Ok((definition::all()?, privilege::all_grants()?)))?;
    let queues = queues.into_iter().take(MOST).map(|definition| {
        let grants = grants.remove(&definition.queue_id).unwrap_or_default();
        Rc::new(with_grants(definition, grants))
    });
    let queues: Vec<Rc<CachedQueue>> = queues.collect();
    if generation() == Some(before) {
        CACHE.with_borrow_mut(|cache| {
            cache.start_over(before);
            queues.into_iter().for_each(|cached| cache.enter(cached));
        });
    }
    Ok(())
}

fn read_grants(definition: QueueDefinition) -> Result<CachedQueue> {
    let grants = privilege::grants(definition.queue_id)?;
    Ok(with_grants(definition, grants))
}

fn with_grants(definition: QueueDefinition, grants: Vec<Grant>) -> CachedQueue {
    let slot = slot_of(&definition);
    CachedQueue {
        definition,
        grants,
        slot,
    }
}

/// Why a queue has no slot in shared memory: all reasons there are.
#[derive(Clone, Copy, PartialEq)]
pub enum NoSlot {
    NotPreloaded,
    /// It came here by a restore or a copy: nothing of it runs, and it takes no slot from those that do.
    Elsewhere,
    AllTaken,
}

/// The queue's slot in shared memory, made if need be.
pub fn slot_or_reason(definition: &QueueDefinition) -> std::result::Result<usize, NoSlot> {
    let shared = shared::get().ok_or(NoSlot::NotPreloaded)?;
    if definition.is_home() {
        let slot = shared.ensure_queue(&definition.facts());
        slot.ok_or(NoSlot::AllTaken)
    } else {
        let slot = shared.find_queue(definition.key());
        slot.ok_or(NoSlot::Elsewhere)
    }
}

/// The same where it does not matter why there is none.
pub fn slot_of(definition: &QueueDefinition) -> Option<usize> {
    slot_or_reason(definition).ok()
}

/// Whether nothing of the queue runs because it found no place in shared memory.
pub fn is_placeless(definition: &QueueDefinition) -> bool {
    slot_or_reason(definition) == Err(NoSlot::AllTaken)
}

impl NoSlot {
    /// What refuses a call that cannot do without the place.
    #[cold]
    pub fn error(self, queue: &QueueDefinition) -> Error {
        match self {
            Self::NotPreloaded => Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "no jobs of queue \"{}\" run: the library is not preloaded",
                    queue.name
                ),
            )
            .hint(
                "Add shared_preload_libraries = 'pushy' to postgresql.conf and restart the server.",
            ),
            Self::Elsewhere => alter::elsewhere(queue),
            Self::AllTaken => no_place(&queue.name),
        }
    }
}

/// How all places are said to be taken, and what makes more of them.
pub fn all_taken() -> String {
    let most = shared::get().map_or(0, |shared| shared.queues().len());
    format!("all {most} queue slots in shared memory are taken (pushy.max_queues)")
}

/// What cannot be done with a queue that has no place.
#[cold]
pub fn no_place(name: &str) -> Error {
    Error::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        format!("no slot for queue \"{name}\" in shared memory"),
    )
    .detail(format!("In the cluster {}.", all_taken()))
    .hint("Raise pushy.max_queues in postgresql.conf and restart the server, or drop queues no longer used.")
}
