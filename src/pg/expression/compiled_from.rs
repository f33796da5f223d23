//! What of the catalogs an expression is compiled from: so that a session keeps it until some of that is another, and not only until
//! anybody has made or dropped something.
//!
//! | compiled into it | counts |
//! | --- | --- |
//! | a function, called or run by the planner | that function |
//! | who may execute it, where not everybody may | all roles and memberships |
//! | the checks of a domain, and that it has none | that domain |
//! | how values of a type compare | all operator classes |
//! | the body of a function in SQL; what a function calls that the planner has run; a node that is not known | all of it, and what its names mean |
//!
//! All else the server looks up anew whenever the expression is evaluated.

use pgrx::pg_sys::{self, Oid};

use super::unplanned::calls_functions_alone;
use crate::pg::catalog::cached_row;
use crate::pg::invalidation::{self, Row};

pub(super) struct CompiledFrom {
    /// Messages that had come before anything was read.
    before: u64,
    rows: Vec<Row>,
    /// Calls of functions of users so far, less those that the planner has left.
    run_by_planner: i64,
    /// Whether more is in it than can be told apart.
    is_open: bool,
}

impl CompiledFrom {
    pub fn nothing() -> Self {
        Self {
            before: invalidation::messages(),
            rows: vec![Row::any_operator_class()],
            run_by_planner: 0,
            is_open: false,
        }
    }

    /// What an expression has before it is planned.
    pub unsafe fn note(&mut self, node: *mut pg_sys::Node) {
        note_unplanned(node, std::ptr::from_mut(self).cast());
    }

    /// What it has then. Calls that are gone the planner has run, and what they called it does not say.
    pub unsafe fn note_planned(&mut self, node: *mut pg_sys::Node, others: *mut pg_sys::List) {
        let before = std::mem::take(&mut self.run_by_planner);
        note_planned(node, std::ptr::from_mut(self).cast());
        let left = std::mem::take(&mut self.run_by_planner);
        self.is_open |= left < before;
        // Domains that the planner has found to have no check.
        for at in 0..pg_sys::list_length(others) {
            let item = &*pg_sys::list_nth(others, at).cast::<pg_sys::PlanInvalItem>();
            self.rows.extend(Row::planned_type(item));
        }
    }

    /// Says that the session depends on it.
    pub fn depend(mut self) {
        if self.is_open {
            self.rows.extend(Row::any_meaning());
        }
        invalidation::depend_on_rows(&self.rows, self.before);
    }

    unsafe fn note_function(&mut self, function: Oid) {
        self.rows.push(Row::function(function));
        let Some(traits) = Traits::of(function) else {
            self.is_open = true;
            return;
        };
        self.is_open |= traits.is_in_sql;
        if traits.is_restricted {
            self.rows.extend(Row::any_role());
        }
        if is_of_user(function) {
            // A default is an expression more, of which only the planner knows.
            self.is_open |= traits.has_defaults;
            self.run_by_planner += 1;
        }
    }

    /// A domain and what it is a domain of, whose checks it has too.
    unsafe fn note_type(&mut self, mut type_oid: Oid) {
        while pg_sys::get_typtype(type_oid) as u8 == pg_sys::TYPTYPE_DOMAIN {
            self.rows.push(Row::domain(type_oid));
            let cache = pg_sys::SysCacheIdentifier::TYPEOID;
            let read = |form: &pg_sys::FormData_pg_type| form.typbasetype;
            let Some(base) = cached_row::of_oid(cache, type_oid, read) else {
                return;
            };
            type_oid = base;
        }
    }

    unsafe fn note_node(&mut self, node: *mut pg_sys::Node) {
        use pg_sys::NodeTag::{T_CoerceToDomain, T_Const, T_RelabelType};
        if !matches!((*node).type_, T_CoerceToDomain | T_Const | T_RelabelType) {
            return;
        }
        let type_oid = pg_sys::exprType(node);
        self.note_type(type_oid);
        let base = pg_sys::getBaseType(type_oid);
        // The checks call functions. Of a value of a user's type the planner runs what its owner has made for it.
        self.is_open |= match (*node).type_ {
            T_CoerceToDomain => pg_sys::DomainHasConstraints(type_oid),
            T_Const => is_of_user(base) && pg_sys::get_typtype(base) as u8 != pg_sys::TYPTYPE_ENUM,
            _ => false,
        };
    }
}

struct Traits {
    is_in_sql: bool,
    has_defaults: bool,
    /// Not everybody may execute it.
    is_restricted: bool,
}

impl Traits {
    /// None: it is gone.
    unsafe fn of(function: Oid) -> Option<Self> {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, function.into());
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let mut is_default = false;
        let rights = pg_sys::Anum_pg_proc_proacl as pg_sys::AttrNumber;
        pg_sys::SysCacheGetAttr(cache, tuple, rights, &mut is_default);
        let traits = Self {
            is_in_sql: form.prolang == Oid::from(SQL_LANGUAGE),
            has_defaults: form.pronargdefaults > 0,
            is_restricted: !is_default,
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(traits)
    }
}

/// Pinned in pg_language.dat.
const SQL_LANGUAGE: u32 = 14;

fn is_of_user(oid: Oid) -> bool {
    oid.to_u32() >= pg_sys::FirstNormalObjectId
}

unsafe extern "C-unwind" fn note_function(function: Oid, of: *mut std::ffi::c_void) -> bool {
    (*of.cast::<CompiledFrom>()).note_function(function);
    false
}

unsafe extern "C-unwind" fn note_unplanned(
    node: *mut pg_sys::Node,
    of: *mut std::ffi::c_void,
) -> bool {
    if node.is_null() {
        return false;
    }
    (*of.cast::<CompiledFrom>()).note_node(node);
    pg_sys::check_functions_in_node(node, Some(note_function), of);
    pg_sys::expression_tree_walker(node, Some(note_unplanned), of)
}

unsafe extern "C-unwind" fn note_planned(
    node: *mut pg_sys::Node,
    of: *mut std::ffi::c_void,
) -> bool {
    if node.is_null() {
        return false;
    }
    let from = &mut *of.cast::<CompiledFrom>();
    from.note_node(node);
    from.is_open |= !calls_functions_alone((*node).type_);
    pg_sys::check_functions_in_node(node, Some(note_function), of);
    pg_sys::expression_tree_walker(node, Some(note_planned), of)
}
