//! Watches that this session has fired, with all that a firing wants to know: read from the catalogs once,
//! and again when one of them may have changed.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::rc::Rc;

use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use crate::errors::{Error, Result, SqlState};
use crate::job::current::{self, Cause};
use crate::job::moves::enqueue::Request;
use crate::notice::usual;
use crate::params;
use crate::pg::expression::Evaluator;
use crate::pg::json::limit;
use crate::pg::memory::Context;
use crate::pg::per_process::PerProcess;
use crate::pg::slot::{Layout, OwnSlot, RowType, Slot, VirtualColumn};
use crate::pg::spi::{self, Plan};
use crate::pg::subtransaction::{self, CallError};
use crate::pg::trigger::{Firing, Op};
use crate::pg::{array, clock, ereport, identity, invalidation, search_path, BuiltinOid, Oid};
use crate::queue::cache;
use crate::queue::reference::HeldQueue;
use crate::shared;
use crate::watch::definition::{self, Definition, Payload, Stands, Way};
use crate::watch::notice_json::{Kind, Shape};
use crate::watch::orphans::{self, Claim};
use crate::watch::triggers::{self, Expression};

pub struct Known {
    pub definition: Definition,
    pub channel: Option<Rc<[u8]>>,
    pub kind: Kind,
    pub shape: Shape,
    pub is_partitioned: bool,
    /// The watch's slot of counts; None without the preload, or with too many watches.
    pub counter: Option<usize>,
    /// The node tree of its expressions; None: it has none, or they are gone.
    expressions: Option<String>,
    /// The compiled expressions.
    evaluators: ByRole,
    virtual_columns: Vec<VirtualColumn>,
    /// What generates those.
    generators: ByRole,
    /// The layouts of partitions, None where it is the table's own.
    layouts: RefCell<FxHashMap<Oid, Option<Rc<Layout>>>>,
    /// Triggers found to be the watch's, or copies of them.
    trusted: RefCell<FxHashSet<Oid>>,
    /// What the jobs of one statement have in common.
    request: RefCell<Option<(Common, Rc<Request>)>>,
    last_logged: Cell<i64>,
    /// Bytes of the last payload of a row.
    last_length: Cell<usize>,
    row_type: RowType,
    /// The row that there is not: OLD of an insert, NEW of a delete. Never filled otherwise.
    nulls: OwnSlot,
    /// What all of the above has allocated on the server's side; dropped last.
    pub context: Context,
}

/// Compiled expressions by role and search path, because compiling looks up whether the role may execute their functions, and
/// reads the bodies of those in SQL. Taken out while in use, because an expression may fire the watch again.
#[derive(Default)]
struct ByRole(RefCell<Vec<Compiled>>);

struct Compiled {
    role: Oid,
    path: CString,
    evaluator: Evaluator,
}

impl ByRole {
    fn with<T>(
        &self,
        compile: impl FnOnce() -> std::result::Result<Evaluator, CallError>,
        work: impl FnOnce(&Evaluator) -> std::result::Result<T, CallError>,
    ) -> std::result::Result<T, CallError> {
        /// Roles that fire a watch by turns in one session, and search paths.
        const MOST: usize = 8;
        let role = identity::current_user();
        let take = |kept: &mut Vec<Compiled>| {
            let path = search_path::setting();
            let is_it = |kept: &Compiled| kept.role == role && *kept.path == *path;
            let at = kept.iter().position(is_it)?;
            Some(kept.swap_remove(at))
        };
        let kept = take(&mut self.0.borrow_mut());
        let compiled = match kept {
            Some(compiled) => compiled,
            None => {
                let path = search_path::setting().to_owned();
                Compiled {
                    role,
                    path,
                    evaluator: subtransaction::run(compile)?,
                }
            }
        };
        let result = work(&compiled.evaluator);
        let mut kept = self.0.borrow_mut();
        if kept.len() == MOST {
            kept.remove(0);
        }
        kept.push(compiled);
        result
    }
}

/// Two jobs with equal values of this can be added together.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Common {
    statement: i64,
    cause: Option<Cause>,
    /// Of queues and privileges: one statement, a DO block say, may drop the queue and register it again.
    version: u64,
}

/// What there is of a number that triggers carry.
enum Number {
    /// No watch here has it.
    Nobodys,
    /// Its watch tells nothing: it is paused, broken, or came here by a restore.
    Silent {
        token: String,
    },
    Watch(Rc<Known>),
}

struct Cache {
    generation: u64,
    watches: FxHashMap<i32, Rc<Known>>,
    /// Triggers whose firings nobody is told of. By trigger, because a number may be another watch's.
    silent: FxHashSet<Oid>,
    /// The trigger that fired last, of the many rows of a statement, and its watch.
    last: Option<(Oid, Option<Rc<Known>>)>,
}

static CACHE: PerProcess<RefCell<Cache>> = PerProcess::new(RefCell::new(Cache {
    generation: 0,
    watches: FxHashMap::with_hasher(FxBuildHasher),
    silent: FxHashSet::with_hasher(FxBuildHasher),
    last: None,
}));

/// The watch that a trigger of this firing belongs to; None when nothing is to be told: it is paused, broken, not
/// at home, or not here at all.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn of(firing: Firing) -> Result<Option<Rc<Known>>> {
    let trigger = firing.trigger();
    let last = CACHE.with_borrow(|cache| {
        let is_current = cache.generation == invalidation::generation();
        let last = cache.last.as_ref().filter(|_| is_current)?;
        (last.0 == trigger).then(|| last.1.clone())
    });
    if let Some(known) = last {
        return Ok(known);
    }
    let known = find(firing)?;
    CACHE.with_borrow_mut(|cache| cache.last = Some((trigger, known.clone())));
    Ok(known)
}

#[cold]
fn find(firing: Firing) -> Result<Option<Rc<Known>>> {
    let claim = Claim::of(&firing).ok_or_else(|| not_ours(firing))?;
    let watch_id = claim.watch_id;
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
            cache.watches.get(&watch_id).cloned(),
        )
    });
    if is_silent {
        return Ok(None);
    }
    invalidation::depend_on(firing.relation());
    let number = match kept {
        Some(known) => Number::Watch(known),
        None => identity::as_owner(|| read(watch_id))?,
    };
    // Reading may have taken in messages: what was read before them is not kept.
    let keep = |work: &dyn Fn(&mut Cache)| {
        if invalidation::generation() == generation {
            CACHE.with_borrow_mut(work);
        }
    };
    if let Number::Watch(known) = &number {
        keep(&|cache| {
            cache.watches.insert(watch_id, Rc::clone(known));
        });
    }
    match number {
        Number::Watch(known) if known.owns(firing, claim)? => return Ok(Some(known)),
        Number::Silent { token } if token.as_bytes() == claim.token => {}
        _ => orphans::warn(firing, claim)?,
    }
    keep(&|cache| {
        cache.silent.insert(firing.trigger());
    });
    Ok(None)
}

static FACTS: Plan = Plan::new(
    "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind OPERATOR(pg_catalog.=) 'p', \
            (SELECT pg_catalog.array_agg(k.number ORDER BY k.place) \
               FROM (SELECT i.indkey::pg_catalog.int2[] AS numbers, i.indnkeyatts FROM pg_catalog.pg_index i \
                      WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indisvalid AND (i.indisprimary OR i.indisreplident) \
                      ORDER BY i.indisprimary DESC LIMIT 1) i, \
                    LATERAL pg_catalog.unnest(i.numbers) WITH ORDINALITY k(number, place) \
              WHERE k.place OPERATOR(pg_catalog.<=) i.indnkeyatts) \
       FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
      WHERE c.oid OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::OIDOID],
);

/// As the extension's owner: a writer may have lost the right to look at catalogs.
fn read(watch_id: i32) -> Result<Number> {
    let Some(definition) = definition::find_by_id(watch_id)? else {
        return Ok(Number::Nobodys);
    };
    invalidation::depend_on(definition.relation);
    match definition.stands {
        // Its table is gone: triggers that carry its token came with another.
        Stands::Bereft => return Ok(Number::Nobodys),
        Stands::Home if !definition.paused => {}
        Stands::Home | Stands::Elsewhere => {
            return Ok(Number::Silent {
                token: definition.token,
            })
        }
    }
    let relation = definition.relation;
    if !triggers::are_unchanged(&definition)? {
        // With one missing the others would tell of changes that its condition excluded, or of some events only; one that
        // was replaced has the words of somebody else, who has not the rights of the watch's maker.
        log_broken(&definition);
        return Ok(Number::Silent {
            token: definition.token,
        });
    }
    let expressions = match definition.expressions {
        Some(trigger) => triggers::condition_of(trigger)?,
        None => None,
    };
    let context = Context::new(c"pushy watch");
    let row_type = RowType::of_table(relation, &context);
    let (shape, is_partitioned) = spi::connect(|spi| {
        let found = spi.run(&FACTS, params![relation]);
        let row = found.row(0);
        let key = row.datum(4).map_or_else(Vec::new, array::int2s);
        let (schema, table) = (row.opt_bytes(1), row.opt_bytes(2));
        let shape = Shape::new(
            &schema.unwrap_or_default(),
            &table.unwrap_or_default(),
            row_type.columns(),
            &key,
        );
        (shape, row.bool(3))
    });
    Ok(Number::Watch(Rc::new(Known {
        channel: definition.channel.as_deref().map(Rc::from),
        kind: match definition.payload {
            Payload::None => Kind::None,
            Payload::Key | Payload::Expression => Kind::Key,
            Payload::Row => Kind::Row,
            Payload::Diff => Kind::Diff,
        },
        shape,
        is_partitioned,
        counter: shared::get().and_then(|shared| {
            let owner = definition.owner;
            let is_bounded = !identity::is_superuser(owner);
            shared.ensure_watch(watch_id, owner.to_u32(), is_bounded)
        }),
        expressions,
        evaluators: ByRole::default(),
        virtual_columns: match definition.payload {
            Payload::Row | Payload::Diff => row_type.virtual_columns(),
            Payload::None | Payload::Key | Payload::Expression => Vec::new(),
        },
        generators: ByRole::default(),
        layouts: RefCell::default(),
        trusted: RefCell::default(),
        request: RefCell::new(None),
        last_logged: Cell::new(i64::MIN),
        last_length: Cell::new(0),
        nulls: OwnSlot::new(row_type, &context),
        row_type,
        context,
        definition,
    })))
}

#[cold]
fn log_broken(watch: &Definition) {
    ereport::log(
        &Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "watch \"{}\" on {} is broken and makes no notices and no jobs: a trigger of it was dropped, by hand or with what it used, or replaced",
                watch.name, watch.relation_name
            ),
        )
        .hint("Declare it again with pushy.watch, or end it with pushy.unwatch."),
    );
}

#[cold]
pub fn not_ours(firing: Firing) -> Error {
    let (trigger, table) = firing.names();
    Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!("trigger {trigger} on table {table} was not made by pushy.watch"),
    )
    .hint(format!(
        "Drop it, DROP TRIGGER {trigger} ON {table}, and declare the watch with pushy.watch."
    ))
}

static PARENT: Plan = Plan::new(
    "SELECT t.tgparentid FROM pg_catalog.pg_trigger t WHERE t.oid OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::OIDOID],
);

impl Known {
    /// How its notices go now.
    pub fn way(&self) -> Way {
        self.definition.delivery.unwrap_or_else(|| {
            if usual::a_relay_can_come() {
                Way::Relay
            } else {
                Way::Notify
            }
        })
    }

    /// Whether it has made this trigger. One that a restore has brought, or somebody has made by hand with its
    /// number and token, would have the rights of the watch's owner on its queue.
    fn owns(&self, firing: Firing, claim: Claim<'_>) -> Result<bool> {
        let trigger = firing.trigger();
        if *claim.token != *self.definition.token.as_bytes() {
            return Ok(false);
        }
        if self.trusted.borrow().contains(&trigger) {
            return Ok(true);
        }
        let mut ancestor = trigger;
        while !self.definition.triggers.contains(&ancestor) {
            let parent = identity::as_owner(|| {
                Ok(spi::connect(|spi| {
                    let found = spi.run(&PARENT, params![ancestor]);
                    found.first().map(|row| row.oid(1))
                }))
            });
            match parent?.filter(|parent| *parent != Oid::INVALID) {
                Some(parent) => ancestor = parent,
                None => return Ok(false),
            }
        }
        self.trusted.borrow_mut().insert(trigger);
        Ok(true)
    }

    pub fn has_expressions(&self) -> bool {
        self.definition.expressions.is_some()
    }

    /// Runs `work` with the watch's expressions, compiled at the role's first use.
    pub fn with_evaluator<T>(
        &self,
        work: impl FnOnce(&Evaluator) -> std::result::Result<T, CallError>,
    ) -> std::result::Result<T, CallError> {
        self.evaluators.with(|| self.compiled(), work)
    }

    /// Whether its notices have values that no row has: of virtual generated columns.
    pub fn has_virtual_columns(&self) -> bool {
        !self.virtual_columns.is_empty()
    }

    /// The rows of a change with the values of their virtual columns, in slots that [`new_slot`](Self::new_slot) has made.
    #[cold]
    pub fn completed<'a>(
        &self,
        slots: &'a [OwnSlot; 2],
        old: Option<Slot<'_>>,
        new: Option<Slot<'_>>,
    ) -> std::result::Result<[Option<Slot<'a>>; 2], CallError> {
        let columns = &self.virtual_columns;
        let relation = self.definition.relation;
        let compile = || {
            let generators = Evaluator::of_virtual_columns(relation, columns)?;
            Ok(generators.expect("there are columns"))
        };
        self.generators.with(compile, |evaluator| {
            let rows = [old, new].map(|row| row.unwrap_or_else(|| self.no_row()));
            let may_fail = (0..2 * columns.len()).any(|index| !evaluator.is_safe(index));
            evaluator.evaluate(rows[0], rows[1], may_fail, |evaluation| {
                let mut completed = [None, None];
                for (at, row) in [old, new].into_iter().enumerate() {
                    let Some(row) = row else { continue };
                    let numbers = at * columns.len()..(at + 1) * columns.len();
                    let values: std::result::Result<Vec<_>, _> =
                        numbers.map(|index| evaluation.value(index)).collect();
                    completed[at] =
                        Some(slots[at].completed(row, columns, &values?, &self.context));
                }
                Ok(completed)
            })
        })
    }

    fn compiled(&self) -> std::result::Result<Evaluator, CallError> {
        let condition = self.expressions.as_deref().unwrap_or_default();
        let relation = self.definition.relation;
        if let Some(evaluator) = Evaluator::of_condition(relation, condition, &Expression::TYPES)? {
            return Ok(evaluator);
        }
        // By hand, or with a column or a function by CASCADE.
        Err(CallError {
            sqlstate: SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE.0.to_owned(),
            message: format!(
                "the expressions of watch \"{}\" were dropped with something they used",
                self.definition.name
            ),
            hint: Some("Declare the watch again with pushy.watch.".to_owned()),
            ..CallError::default()
        })
    }

    /// Where the columns of the fired row lie, when not as in the watched table.
    pub fn layout(&self, firing: Firing) -> Option<Rc<Layout>> {
        let relation = firing.relation();
        if relation == self.definition.relation {
            return None;
        }
        if let Some(known) = self.layouts.borrow().get(&relation) {
            return known.clone();
        }
        invalidation::depend_on(relation);
        let partition = firing.row_type(&self.context);
        let layout = Layout::between(partition, self.row_type, &self.context).map(Rc::new);
        self.layouts.borrow_mut().insert(relation, layout.clone());
        layout
    }

    /// Room for a payload as long as the last one, and for a number that has grown by a few digits.
    pub fn new_payload(&self) -> Vec<u8> {
        const DIGITS: usize = 8;
        Vec::with_capacity(self.last_length.get() + DIGITS)
    }

    pub fn note_length(&self, payload: &[u8]) {
        self.last_length.set(payload.len().min(limit::LARGE));
    }

    /// A row of NULLs.
    pub fn no_row(&self) -> Slot<'_> {
        self.nulls.filled()
    }

    pub fn new_slot(&self) -> OwnSlot {
        OwnSlot::new(self.row_type, &self.context)
    }

    /// What a job of this watch is enqueued with; the same for all jobs of a statement.
    pub fn request(&self, queue: &HeldQueue) -> Result<Rc<Request>> {
        let common = cache::version().map(|version| Common {
            statement: clock::statement_start().0,
            cause: current::cause(),
            version,
        });
        if let (Some(common), Some((known, request))) = (common, &*self.request.borrow()) {
            if *known == common {
                return Ok(Rc::clone(request));
            }
        }
        let owner = self.definition.owner;
        let queue = queue.open(owner)?;
        let request = Rc::new(Request::of_watch(queue, owner, clock::now()));
        *self.request.borrow_mut() = common.map(|common| (common, Rc::clone(&request)));
        Ok(request)
    }

    /// Whether an error should go to the server's log: the first, and then one a minute.
    pub fn may_log(&self) -> bool {
        const PAUSE_US: i64 = 60_000_000;
        let now = clock::now().0;
        let due = self.last_logged.get().saturating_add(PAUSE_US) <= now;
        if due {
            self.last_logged.set(now);
        }
        due
    }

    /// Whether changes of this kind are to be told.
    pub fn counts(&self, op: Op) -> bool {
        self.definition.events.contains(&op)
    }
}
