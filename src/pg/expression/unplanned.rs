//! Expressions of a watch before they are planned: what they may be, and what they use.

use super::{c_string, expanded, read};
use crate::errors::{Error, Result, SqlState};
use crate::pg::identifier;
use crate::pg::identity;
use pgrx::pg_sys::{self, BuiltinOid};
use std::ffi::CString;

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
            error.sqlstate = failure.sqlstate;
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
                .map(|node| Traits::of(expanded(node, table)?))
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
    pub(super) unsafe fn of(node: *mut pg_sys::Node) -> Result<Self> {
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

/// Whether an expression cannot fail, planned or not.
pub(super) unsafe fn is_safe(node: *mut pg_sys::Node) -> bool {
    // The former says nothing of functions of no variable, the latter nothing of functions that nodes call by themselves.
    !pg_sys::contain_leaked_vars(node) && !may_fail(node, std::ptr::null_mut())
}

unsafe extern "C-unwind" fn is_leaky(function: pg_sys::Oid, _: *mut std::ffi::c_void) -> bool {
    !pg_sys::get_func_leakproof(function)
}

/// Whether what a node of an expression does, beside of plain work, is to call functions that
/// `check_functions_in_node` tells of.
pub(super) fn calls_functions_alone(tag: pg_sys::NodeTag) -> bool {
    use pg_sys::NodeTag::{
        T_ArrayExpr, T_BoolExpr, T_BooleanTest, T_CaseExpr, T_CaseTestExpr, T_CaseWhen,
        T_CoalesceExpr, T_CoerceViaIO, T_CollateExpr, T_Const, T_DistinctExpr, T_FieldSelect,
        T_FuncExpr, T_List, T_NamedArgExpr, T_NullIfExpr, T_NullTest, T_OpExpr, T_Param,
        T_RelabelType, T_RowExpr, T_SQLValueFunction, T_ScalarArrayOpExpr, T_SubscriptingRef,
        T_Var,
    };
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
}

/// Whether a function in it is not marked leakproof, whatever its arguments, or a node in it does more than call functions: one
/// runs the checks of a domain, with what their owner has put there.
unsafe extern "C-unwind" fn may_fail(
    node: *mut pg_sys::Node,
    context: *mut std::ffi::c_void,
) -> bool {
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

pub(super) unsafe fn expressions_of(tree: *mut pg_sys::Node) -> Option<Vec<*mut pg_sys::Node>> {
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
pub(super) unsafe fn is_of(node: *mut pg_sys::Node, type_: BuiltinOid) -> bool {
    let is_null =
        (*node).type_ == pg_sys::NodeTag::T_Const && (*node.cast::<pg_sys::Const>()).constisnull;
    is_null || pg_sys::exprType(node) == type_.into()
}
