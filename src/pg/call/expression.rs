//! SQL expressions over the rows NEW and OLD of a trigger.
//!
//! The server keeps them for us as the WHEN condition of a trigger: so they follow renamed columns and
//! functions, are dumped as text, and what they use cannot be dropped without them.

use std::ffi::{CStr, CString};

use pgrx::pg_sys::{self, BuiltinOid};

use crate::errors::{Error, Result, SqlState};
use crate::pg::function::Answer;
use crate::pg::identifier;
use crate::pg::identity;
use crate::pg::invalidation;
use crate::pg::json::limit;
use crate::pg::major;
use crate::pg::memory::Context;
use crate::pg::slot::{Slot, VirtualColumn};
use crate::pg::subtransaction::{self, CallError};
use crate::pg::transaction_end;
use crate::pg::varlena::Varlena;

extern "C-unwind" {
    /// Without the guard of the bindings, for [`subtransaction::protected`].
    #[link_name = "expression_planner_with_deps"]
    fn raw_expression_planner(
        expression: *mut pg_sys::Expr,
        relations: *mut *mut pg_sys::List,
        others: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::Expr;
}

/// Refuses a text that is not exactly one expression. Nothing is looked up yet.
pub fn require_one(argument: &str, text: &str) -> Result<()> {
    let refused = || {
        Error::new(
            SqlState::SYNTAX_ERROR,
            format!("{argument} is not an expression: \"{text}\""),
        )
        .hint("Write one SQL expression over NEW and OLD, such as NEW.amount > 100.")
    };
    // Within parentheses and without: what closes ours and opens others is refused by the latter.
    for statement in [format!("SELECT ({text}\n)"), format!("SELECT {text}\n")] {
        let statement = CString::new(crate::pg::text::encode(&statement).as_ref());
        let statement = statement.map_err(|_| refused())?;
        let parsed = identifier::parsed(&statement).map_err(|failure| {
            let mut error = refused().detail(format!("The server says: {}.", failure.message));
            error.sqlstate = SqlState::of_server(&failure.sqlstate);
            error
        })?;
        // SAFETY: raw_parser answers a list of RawStmt; types of nodes are checked before they are read.
        let is_one = unsafe {
            pg_sys::list_length(parsed) == 1 && {
                let raw = pg_sys::list_nth(parsed, 0).cast::<pg_sys::RawStmt>();
                let node = (*raw).stmt;
                (*node).type_ == pg_sys::NodeTag::T_SelectStmt
                    && is_bare(&*node.cast::<pg_sys::SelectStmt>())
            }
        };
        if !is_one {
            return Err(refused());
        }
    }
    Ok(())
}

/// A SELECT of one value and nothing else.
unsafe fn is_bare(select: &pg_sys::SelectStmt) -> bool {
    pg_sys::list_length(select.targetList) == 1
        && select.distinctClause.is_null()
        && select.intoClause.is_null()
        && select.fromClause.is_null()
        && select.whereClause.is_null()
        && select.groupClause.is_null()
        && select.havingClause.is_null()
        && select.windowClause.is_null()
        && select.valuesLists.is_null()
        && select.sortClause.is_null()
        && select.limitOffset.is_null()
        && select.limitCount.is_null()
        && select.lockingClause.is_null()
        && select.withClause.is_null()
        && select.op == pg_sys::SetOperation::SETOP_NONE
}

/// The expressions of a trigger's condition as they are declared: they can be looked at, and that is all. Planning an
/// expression runs whatever is immutable in it, the functions and casts of others with the rights of who plans, so only the
/// writer of a row has an [`Evaluator`].
pub struct Unplanned(Vec<Traits>);

struct Traits {
    /// Cannot fail by itself: built of functions that are marked leakproof.
    is_safe: bool,
    uses_old: bool,
    uses_new: bool,
}

impl Unplanned {
    /// Reads a condition as [`Evaluator::of_condition`] does. An error where the current user may not execute a function in it.
    pub fn of_condition(
        table: pg_sys::Oid,
        condition: &str,
        types: &[BuiltinOid],
    ) -> Result<Option<Self>> {
        let condition = c_string(condition);
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        // SAFETY: as in Evaluator::compiled; nothing is planned.
        unsafe {
            let Some(nodes) = read(&condition, types) else {
                return Ok(None);
            };
            let table = pg_sys::table_open(table, lock);
            let traits: Result<Vec<Traits>> = nodes
                .into_iter()
                .map(|node| Traits::of(expanded(node, table).map_err(CallError::into_error)?))
                .collect();
            pg_sys::table_close(table, lock);
            traits.map(|traits| Some(Self(traits)))
        }
    }

    pub fn is_safe(&self, index: usize) -> bool {
        self.0[index].is_safe
    }

    pub fn uses_old(&self, index: usize) -> bool {
        self.0[index].uses_old
    }

    pub fn uses_new(&self, index: usize) -> bool {
        self.0[index].uses_new
    }
}

impl Traits {
    unsafe fn of(node: *mut pg_sys::Node) -> Result<Self> {
        let mut forbidden = pg_sys::Oid::INVALID;
        if calls_forbidden(node, std::ptr::from_mut(&mut forbidden).cast()) {
            return Err(may_not_execute(forbidden));
        }
        let used = pg_sys::pull_varnos(std::ptr::null_mut(), node);
        let uses = |number: u32| pg_sys::bms_is_member(number as i32, used);
        Ok(Self {
            is_safe: is_safe(node),
            uses_old: uses(pg_sys::PRS2_OLD_VARNO),
            uses_new: uses(pg_sys::PRS2_NEW_VARNO),
        })
    }
}

#[cold]
fn may_not_execute(function: pg_sys::Oid) -> Error {
    // SAFETY: a syscache look-up, and a copy of what it answers.
    let name = unsafe {
        let name = pg_sys::get_func_name(function);
        if name.is_null() {
            function.to_u32().to_string()
        } else {
            crate::pg::text::from_c(name)
        }
    };
    Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!("permission denied for function {name}"),
    )
}

/// The expressions of a trigger's condition, ready to be evaluated for a row: made when the trigger fires, with the rights of
/// the writer.
pub struct Evaluator {
    expressions: Vec<Compiled>,
    rows: *mut pg_sys::ExprContext,
    /// What all of it is allocated in.
    _context: Context,
}

struct Compiled {
    state: *mut pg_sys::ExprState,
    /// As in [`Traits`].
    is_safe: bool,
}

impl Compiled {
    /// As TriggerEnabled() of trigger.c does it. An error where planning runs an immutable function that fails.
    unsafe fn of(
        node: *mut pg_sys::Node,
        table: pg_sys::Relation,
        domains: &mut Domains,
    ) -> std::result::Result<Self, CallError> {
        let node = expanded(node, table)?;
        domains.note(node);
        pg_sys::ChangeVarNodes(node, pg_sys::PRS2_OLD_VARNO as i32, pg_sys::INNER_VAR, 0);
        pg_sys::ChangeVarNodes(node, pg_sys::PRS2_NEW_VARNO as i32, pg_sys::OUTER_VAR, 0);
        let (mut relations, mut others) = (std::ptr::null_mut(), std::ptr::null_mut());
        let dependencies = (&raw mut relations, &raw mut others);
        let planned = subtransaction::protected(|| {
            raw_expression_planner(node.cast(), dependencies.0, dependencies.1)
        })?;
        domains.note(planned.cast());
        domains.note_planners(others);
        Ok(Self {
            state: pg_sys::ExecInitExpr(planned, std::ptr::null_mut()),
            is_safe: is_safe(planned.cast()),
        })
    }
}

/// With what virtual columns are generated by in place of them.
unsafe fn expanded(
    mut node: *mut pg_sys::Node,
    table: pg_sys::Relation,
) -> std::result::Result<*mut pg_sys::Node, CallError> {
    for row in [pg_sys::PRS2_OLD_VARNO, pg_sys::PRS2_NEW_VARNO] {
        node = subtransaction::protected(|| major::expand_virtual(node, table, row as i32))?;
    }
    Ok(node)
}

/// The domains that an expression was compiled with, by their hash in the syscache. A domain's checks are compiled into the
/// expression, and one that has no check is left out of it; all else that the server looks up, it looks up anew.
#[derive(Default)]
struct Domains(Vec<u32>);

impl Domains {
    unsafe fn note(&mut self, node: *mut pg_sys::Node) {
        note_domains(node, std::ptr::from_mut(self).cast());
    }

    /// A domain and what it is a domain of, whose checks it has too.
    unsafe fn note_type(&mut self, mut type_oid: pg_sys::Oid) {
        let cache = pg_sys::SysCacheIdentifier::TYPEOID as i32;
        let none = pg_sys::Datum::null();
        while pg_sys::get_typtype(type_oid) as u8 == pg_sys::TYPTYPE_DOMAIN {
            let key = pg_sys::Datum::from(type_oid);
            self.0
                .push(pg_sys::GetSysCacheHashValue(cache, key, none, none, none));
            let tuple = pg_sys::SearchSysCache1(cache, key);
            if tuple.is_null() {
                return;
            }
            type_oid = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>()).typbasetype;
            pg_sys::ReleaseSysCache(tuple);
        }
    }

    /// Those of function bodies that the planner has put in place of calls.
    unsafe fn note_planners(&mut self, others: *mut pg_sys::List) {
        for at in 0..pg_sys::list_length(others) {
            let item = &*pg_sys::list_nth(others, at).cast::<pg_sys::PlanInvalItem>();
            if item.cacheId == pg_sys::SysCacheIdentifier::TYPEOID as i32 {
                self.0.push(item.hashValue);
            }
        }
    }
}

unsafe extern "C-unwind" fn note_domains(
    node: *mut pg_sys::Node,
    domains: *mut std::ffi::c_void,
) -> bool {
    use pg_sys::NodeTag::{T_CoerceToDomain, T_Const, T_RelabelType};
    if node.is_null() {
        return false;
    }
    if matches!((*node).type_, T_CoerceToDomain | T_Const | T_RelabelType) {
        (*domains.cast::<Domains>()).note_type(pg_sys::exprType(node));
    }
    pg_sys::expression_tree_walker(node, Some(note_domains), domains)
}

fn c_string(condition: &str) -> CString {
    CString::new(crate::pg::text::encode(condition).as_ref()).unwrap_or_default()
}

/// The nodes of a condition that [`Evaluator::of_condition`] describes.
unsafe fn read(condition: &CStr, types: &[BuiltinOid]) -> Option<Vec<*mut pg_sys::Node>> {
    let tree = pg_sys::stringToNode(condition.as_ptr()).cast::<pg_sys::Node>();
    let nodes = expressions_of(tree).unwrap_or_default();
    let fit =
        nodes.len() == types.len() && nodes.iter().zip(types).all(|(node, of)| is_of(*node, *of));
    fit.then_some(nodes)
}

impl Evaluator {
    /// Reads the condition `false AND ROW(a, b, …) IS NULL` as pg_trigger.tgqual has it: a, b, … are the
    /// expressions, about rows of the watched table's own layout. None where it is something else, or where an expression is
    /// not of the type that is due: the values are read as of these types, and anybody may have made a trigger that says it
    /// is the watch's. Call it in a subtransaction, or let its error go on.
    pub fn of_condition(
        table: pg_sys::Oid,
        condition: &str,
        types: &[BuiltinOid],
    ) -> std::result::Result<Option<Self>, CallError> {
        let condition = c_string(condition);
        // SAFETY: a node tree that the server wrote, with types checked on the way down.
        Self::compiled(table, || unsafe { read(&condition, types) })
    }

    /// What virtual columns of a table are generated by: for each of `columns` the value in OLD, then for each that in NEW.
    /// Call it in a subtransaction.
    pub fn of_virtual_columns(
        table: pg_sys::Oid,
        columns: &[VirtualColumn],
    ) -> std::result::Result<Option<Self>, CallError> {
        Self::compiled(table, || {
            let rows = [pg_sys::PRS2_OLD_VARNO, pg_sys::PRS2_NEW_VARNO];
            let of = |row: u32| {
                columns
                    .iter()
                    .map(move |column| column.variable(row as i32))
            };
            Some(rows.into_iter().flat_map(of).collect())
        })
    }

    fn compiled(
        table: pg_sys::Oid,
        nodes: impl FnOnce() -> Option<Vec<*mut pg_sys::Node>>,
    ) -> std::result::Result<Option<Self>, CallError> {
        // Planning runs what is immutable in it.
        identity::expect_no_owner();
        transaction_end::expect_now();
        let context = Context::new(c"pushy watch expressions");
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        // SAFETY: planning and compiling an expression needs a transaction and a snapshot, which a trigger has; the table is
        // open as long as it is looked at.
        let (expressions, rows) = context.enter(|| unsafe {
            let Some(nodes) = nodes() else {
                return (Ok(None), std::ptr::null_mut());
            };
            let messages = invalidation::type_messages();
            let mut domains = Domains::default();
            let table = pg_sys::table_open(table, lock);
            let expressions: std::result::Result<Vec<_>, _> = nodes
                .into_iter()
                .map(|node| Compiled::of(node, table, &mut domains))
                .collect();
            pg_sys::table_close(table, lock);
            invalidation::depend_on_domains(&domains.0, messages);
            (expressions.map(Some), pg_sys::CreateStandaloneExprContext())
        });
        Ok(expressions?.map(|expressions| Self {
            expressions,
            rows,
            _context: context,
        }))
    }

    pub fn is_safe(&self, index: usize) -> bool {
        self.expressions[index].is_safe
    }

    /// Evaluates several expressions with the rights of the current user, one after the other as long as
    /// `next` names one; in a subtransaction where one of them may fail.
    pub fn evaluate<T>(
        &self,
        old: Slot<'_>,
        new: Slot<'_>,
        may_fail: bool,
        work: impl FnOnce(&Evaluation<'_>) -> std::result::Result<T, CallError>,
    ) -> std::result::Result<T, CallError> {
        transaction_end::expect_now();
        // SAFETY: slots of the layout that the expressions were compiled for; what they allocate is
        // freed here, or by the subtransaction's abort and the next evaluation.
        unsafe {
            pg_sys::MemoryContextReset((*self.rows).ecxt_per_tuple_memory);
            (*self.rows).ecxt_innertuple = old.raw();
            (*self.rows).ecxt_outertuple = new.raw();
        }
        let evaluation = Evaluation(self);
        if may_fail {
            subtransaction::run(|| work(&evaluation))
        } else {
            work(&evaluation)
        }
    }
}

/// Expressions with the rows they are about.
pub struct Evaluation<'a>(&'a Evaluator);

impl Evaluation<'_> {
    /// The value of one expression; by reference it lives until the next evaluation.
    pub fn value(&self, index: usize) -> std::result::Result<Answer, CallError> {
        let state = self.0.expressions[index].state;
        let rows = self.0.rows;
        let mut is_null = false;
        let null = &mut is_null;
        // SAFETY: compiled and bound to rows above; what ExecEvalExprSwitchContext (executor.h) does, but
        // with errors as data.
        let value = unsafe {
            let evaluate = (*state).evalfunc.expect("ExecInitExpr sets it");
            let old = pg_sys::MemoryContextSwitchTo((*rows).ecxt_per_tuple_memory);
            let value = subtransaction::protected(|| evaluate(state, rows, null));
            pg_sys::MemoryContextSwitchTo(old);
            value?
        };
        Ok(if is_null {
            Answer::Null
        } else {
            Answer::Datum(value)
        })
    }

    pub fn is_true(&self, index: usize) -> std::result::Result<bool, CallError> {
        Ok(match self.value(index)? {
            Answer::Null => false,
            Answer::Datum(datum) => datum.value() & 0xff != 0,
        })
    }

    /// The bytes of a value of type text, `most` of them; NULL has none.
    pub fn bytes(&self, index: usize, most: usize) -> std::result::Result<Vec<u8>, CallError> {
        let Answer::Datum(datum) = self.value(index)? else {
            return Ok(Vec::new());
        };
        // SAFETY: of type text, as whoever named the types of this evaluator knows.
        unsafe {
            if Varlena::of(datum).length() > most {
                return Err(limit::too_long(most));
            }
            Ok(crate::pg::text::bytes_from_datum(datum))
        }
    }

    /// A value of variable length, as one flat piece with its header.
    pub fn varlena(&self, index: usize) -> std::result::Result<Option<Vec<u8>>, CallError> {
        Ok(match self.value(index)? {
            Answer::Null => None,
            Answer::Datum(datum) => Some(crate::pg::text::flat_bytes(datum)),
        })
    }
}

/// Whether an expression cannot fail, planned or not.
unsafe fn is_safe(node: *mut pg_sys::Node) -> bool {
    // The former says nothing of functions of no variable, the latter nothing of functions that nodes call by themselves.
    !pg_sys::contain_leaked_vars(node) && !may_fail(node, std::ptr::null_mut())
}

unsafe extern "C-unwind" fn is_leaky(function: pg_sys::Oid, _: *mut std::ffi::c_void) -> bool {
    !pg_sys::get_func_leakproof(function)
}

/// Whether a function in it is not marked leakproof, whatever its arguments, or a node in it does more than call functions: one
/// runs the checks of a domain, with what their owner has put there.
unsafe extern "C-unwind" fn may_fail(
    node: *mut pg_sys::Node,
    context: *mut std::ffi::c_void,
) -> bool {
    use pg_sys::NodeTag::{
        T_ArrayExpr, T_BoolExpr, T_BooleanTest, T_CaseExpr, T_CaseTestExpr, T_CaseWhen,
        T_CoalesceExpr, T_CoerceViaIO, T_CollateExpr, T_Const, T_DistinctExpr, T_FieldSelect,
        T_FuncExpr, T_List, T_NamedArgExpr, T_NullIfExpr, T_NullTest, T_OpExpr, T_Param,
        T_RelabelType, T_RowExpr, T_SQLValueFunction, T_ScalarArrayOpExpr, T_SubscriptingRef,
        T_Var,
    };
    let calls_functions_alone = |tag| {
        matches!(
            tag,
            T_ArrayExpr
                | T_BoolExpr
                | T_BooleanTest
                | T_CaseExpr
                | T_CaseTestExpr
                | T_CaseWhen
                | T_CoalesceExpr
                | T_CoerceViaIO
                | T_CollateExpr
                | T_Const
                | T_DistinctExpr
                | T_FieldSelect
                | T_FuncExpr
                | T_List
                | T_NamedArgExpr
                | T_NullIfExpr
                | T_NullTest
                | T_OpExpr
                | T_Param
                | T_RelabelType
                | T_RowExpr
                | T_SQLValueFunction
                | T_ScalarArrayOpExpr
                | T_SubscriptingRef
                | T_Var
        )
    };
    !node.is_null()
        && (!calls_functions_alone((*node).type_)
            || pg_sys::check_functions_in_node(node, Some(is_leaky), context)
            || pg_sys::expression_tree_walker(node, Some(may_fail), context))
}

unsafe extern "C-unwind" fn is_forbidden(
    function: pg_sys::Oid,
    found: *mut std::ffi::c_void,
) -> bool {
    let is_forbidden = !identity::may_execute(function, identity::current_user());
    if is_forbidden {
        *found.cast::<pg_sys::Oid>() = function;
    }
    is_forbidden
}

/// Whether the current user may not execute a function in it, and which; functions of types' input and output are not asked
/// about, as nowhere.
unsafe extern "C-unwind" fn calls_forbidden(
    node: *mut pg_sys::Node,
    found: *mut std::ffi::c_void,
) -> bool {
    !node.is_null()
        && ((*node).type_ != pg_sys::NodeTag::T_CoerceViaIO
            && pg_sys::check_functions_in_node(node, Some(is_forbidden), found)
            || pg_sys::expression_tree_walker(node, Some(calls_forbidden), found))
}

unsafe fn expressions_of(tree: *mut pg_sys::Node) -> Option<Vec<*mut pg_sys::Node>> {
    if tree.is_null() || (*tree).type_ != pg_sys::NodeTag::T_BoolExpr {
        return None;
    }
    let and = tree.cast::<pg_sys::BoolExpr>();
    if pg_sys::list_length((*and).args) != 2 {
        return None;
    }
    let test = pg_sys::list_nth((*and).args, 1).cast::<pg_sys::NullTest>();
    if (*test).xpr.type_ != pg_sys::NodeTag::T_NullTest {
        return None;
    }
    let row = (*test).arg.cast::<pg_sys::RowExpr>();
    if (*row).xpr.type_ != pg_sys::NodeTag::T_RowExpr {
        return None;
    }
    let count = pg_sys::list_length((*row).args);
    Some(
        (0..count)
            .map(|at| pg_sys::list_nth((*row).args, at).cast())
            .collect(),
    )
}

/// Whether an expression answers values of a type; a NULL that is written so has none.
unsafe fn is_of(node: *mut pg_sys::Node, type_: BuiltinOid) -> bool {
    let is_null =
        (*node).type_ == pg_sys::NodeTag::T_Const && (*node.cast::<pg_sys::Const>()).constisnull;
    is_null || pg_sys::exprType(node) == type_.into()
}
