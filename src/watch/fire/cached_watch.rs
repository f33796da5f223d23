//! A watch as a session that has fired it keeps it: evaluators, layouts, requests, the length of its last payload.

use super::cache::Common;
use super::read::PARENT;
use crate::errors::{Error, Result, SqlState};
use crate::job::current::{self};
use crate::job::moves::enqueue::Request;
use crate::obstacle;
use crate::params;
use crate::pg::expression::Evaluator;
use crate::pg::json::limit;
use crate::pg::memory::Context;
use crate::pg::slot::{Layout, OwnSlot, RowType, Slot, VirtualColumn};
use crate::pg::spi::{self};
use crate::pg::subtransaction;
use crate::pg::trigger::{Firing, Op};
use crate::pg::{clock, identity, invalidation, search_path, Oid};
use crate::queue::cache;
use crate::queue::reference::QueueReference;
use crate::watch::definition::{Delivery, WatchDefinition};
use crate::watch::notice_json::{PayloadKind, Shape};
use crate::watch::triggers::Expression;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::rc::Rc;

pub struct CachedWatch {
    pub definition: WatchDefinition,
    pub channel: Option<Rc<[u8]>>,
    pub kind: PayloadKind,
    pub shape: Shape,
    pub is_partitioned: bool,
    /// The watch's slot of counts; None without the preload, or with too many watches.
    pub counter: Option<usize>,
    /// The node tree of its expressions; None: it has none, or they are gone.
    pub(super) expressions: Option<String>,
    /// The compiled expressions.
    pub(super) evaluators: ByRole,
    pub(super) virtual_columns: Vec<VirtualColumn>,
    /// What generates those.
    pub(super) generators: ByRole,
    /// The layouts of partitions, None where it is the table's own.
    pub(super) layouts: RefCell<FxHashMap<Oid, Option<Rc<Layout>>>>,
    /// Triggers found to be the watch's, or copies of them.
    pub(super) trusted: RefCell<FxHashSet<Oid>>,
    /// What the jobs of one statement have in common.
    pub(super) request: RefCell<Option<(Common, Rc<Request>)>>,
    pub(super) last_logged: Cell<i64>,
    /// Bytes of the last payload of a row.
    pub(super) last_length: Cell<usize>,
    pub(super) row_type: RowType,
    /// The row that there is not: OLD of an insert, NEW of a delete. Never filled otherwise.
    pub(super) nulls: OwnSlot,
    /// What all of the above has allocated on the server's side; dropped last.
    pub context: Context,
}

/// Compiled expressions by role and search path, because compiling looks up whether the role may execute their functions, and
/// reads the bodies of those in SQL. Taken out while in use, because an expression may fire the watch again.
#[derive(Default)]
pub(super) struct ByRole(RefCell<Vec<Compiled>>);

struct Compiled {
    role: Oid,
    path: CString,
    evaluator: Evaluator,
}

impl ByRole {
    fn with<T>(
        &self,
        compile: impl FnOnce() -> Result<Evaluator>,
        work: impl FnOnce(&Evaluator) -> Result<T>,
    ) -> Result<T> {
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

impl CachedWatch {
    /// How its notices go now: asked of those that have a channel and of those that have none, so nothing follows from it.
    pub fn delivery(&self) -> Delivery {
        self.definition.delivery.unwrap_or_else(|| {
            if obstacle::a_relay_can_come() {
                Delivery::Relay
            } else {
                Delivery::Notify
            }
        })
    }

    /// Whether it has made this trigger. One that a restore has brought, or somebody has made by hand with its
    /// token, would have the rights of the watch's owner on its queue.
    pub(super) fn owns(&self, firing: Firing) -> Result<bool> {
        let trigger = firing.trigger();
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
    pub fn with_evaluator<T>(&self, work: impl FnOnce(&Evaluator) -> Result<T>) -> Result<T> {
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
    ) -> Result<[Option<Slot<'a>>; 2]> {
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

    fn compiled(&self) -> Result<Evaluator> {
        let condition = self.expressions.as_deref().unwrap_or_default();
        let relation = self.definition.relation;
        let types = Expression::types_of(&self.definition);
        if let Some(evaluator) = Evaluator::of_condition(relation, condition, types)? {
            return Ok(evaluator);
        }
        // By hand, or with a column or a function by CASCADE.
        Err(Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "the expressions of watch \"{}\" were dropped with something they used",
                self.definition.name
            ),
        )
        .hint("Declare the watch again with pushy.watch."))
    }

    /// Where the columns of the fired row lie, when not as in the watched table.
    pub fn layout(&self, firing: Firing) -> Option<Rc<Layout>> {
        let relation = firing.relation();
        if relation == self.definition.relation {
            return None;
        }
        if let Some(layout) = self.layouts.borrow().get(&relation) {
            return layout.clone();
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
    pub fn request(&self, queue: &QueueReference) -> Result<Rc<Request>> {
        let common = cache::version().map(|version| Common {
            statement: clock::statement_start().0,
            cause: current::cause(),
            version,
        });
        if let (Some(common), Some((kept, request))) = (common, &*self.request.borrow()) {
            if *kept == common {
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

    /// Whether changes of this kind are to be published.
    pub fn counts(&self, op: Op) -> bool {
        self.definition.events.contains(&op)
    }
}
