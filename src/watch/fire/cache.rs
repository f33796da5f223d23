//! Watches that this session has fired, with all that a firing wants to know: read from the catalogs once,
//! and again when one of them may have changed.

pub use super::cached_watch::CachedWatch;
use super::read::{not_ours, read};
use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use crate::errors::Result;
use crate::job::current::Cause;
use crate::pg::per_process::PerProcess;
use crate::pg::trigger::Firing;
use crate::pg::{identity, invalidation, Oid};
use crate::watch::orphans::{self, Claim};

/// Two jobs with equal values of this can be added together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Common {
    pub(super) statement: i64,
    pub(super) cause: Option<Cause>,
    /// Of queues and privileges: one statement, a DO block say, may drop the queue and register it again.
    pub(super) version: u64,
}

/// What there is of a token that triggers carry.
pub(super) enum Found {
    /// No watch here has it.
    Nobodys,
    /// Its watch publishes nothing: it is paused, broken, or came here by a restore.
    Silent,
    Watch(Rc<CachedWatch>),
}

struct Cache {
    generation: u64,
    /// By token.
    watches: FxHashMap<String, Rc<CachedWatch>>,
    /// Triggers whose firings publish nothing. By trigger, because not each that carries a watch's token is the watch's.
    silent: FxHashSet<Oid>,
    /// The trigger that fired last, of the many rows of a statement, and its watch.
    last: Option<(Oid, Option<Rc<CachedWatch>>)>,
}

static CACHE: PerProcess<RefCell<Cache>> = PerProcess::new(RefCell::new(Cache {
    generation: 0,
    watches: FxHashMap::with_hasher(FxBuildHasher),
    silent: FxHashSet::with_hasher(FxBuildHasher),
    last: None,
}));

/// The watch that a trigger of this firing belongs to; None when nothing is to be published: it is paused, broken, not
/// at home, or not here at all.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn of(firing: Firing) -> Result<Option<Rc<CachedWatch>>> {
    let trigger = firing.trigger();
    let last = CACHE.with_borrow(|cache| {
        let is_current = cache.generation == invalidation::generation();
        let last = cache.last.as_ref().filter(|_| is_current)?;
        (last.0 == trigger).then(|| last.1.clone())
    });
    if let Some(cached) = last {
        return Ok(cached);
    }
    let cached = find(firing)?;
    CACHE.with_borrow_mut(|cache| cache.last = Some((trigger, cached.clone())));
    Ok(cached)
}

#[cold]
fn find(firing: Firing) -> Result<Option<Rc<CachedWatch>>> {
    let claim = Claim::of(&firing).ok_or_else(|| not_ours(firing))?;
    let generation = invalidation::generation();
    let (is_silent, kept) = CACHE.with_borrow_mut(|cache| {
        if cache.generation != generation {
            cache.watches.clear();
            cache.silent.clear();
            cache.last = None;
            cache.generation = generation;
        }
        (
            cache.silent.contains(&firing.trigger()),
            cache.watches.get(claim.token).cloned(),
        )
    });
    if is_silent {
        return Ok(None);
    }
    invalidation::depend_on(firing.relation());
    let found = match kept {
        Some(watch) => Found::Watch(watch),
        None => identity::as_owner(|| read(claim.token))?,
    };
    // Reading may have taken in messages: what was read before them is not kept.
    let keep = |work: &dyn Fn(&mut Cache)| {
        if invalidation::generation() == generation {
            CACHE.with_borrow_mut(work);
        }
    };
    if let Found::Watch(watch) = &found {
        keep(&|cache| {
            cache
                .watches
                .insert(claim.token.to_owned(), Rc::clone(watch));
        });
    }
    match found {
        Found::Watch(watch) if watch.owns(firing)? => return Ok(Some(watch)),
        Found::Silent => {}
        _ => orphans::warn(firing, claim)?,
    }
    keep(&|cache| {
        cache.silent.insert(firing.trigger());
    });
    Ok(None)
}
