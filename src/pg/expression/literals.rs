//! Literals in the condition of a CREATE TRIGGER. A literal without a type goes through the input function of the type that
//! the server finds for it, while the statement is read, with the rights of who runs the statement. The input function of a row
//! type or of an array reads its parts, and a part of a domain runs the checks of the domain, which are anybody's.
//!
//! So the condition is read twice. First each literal is a parameter, whose type the server finds out without reading a value;
//! then each literal is cast to this type, which is named by its number, because names can change hands between both readings.
//! A literal of a type whose input function would run a user's code is a text that is cast: the server reads a text when the
//! trigger fires, with the rights of the writer.

use std::ffi::{c_char, c_int, c_void, CStr};

use pgrx::pg_sys::{self, BuiltinOid, NodeTag, Oid};

use crate::pg::guard::guarded;

extern "C-unwind" {
    // Not in the bindings: parser/parse_param.h and parser/parse_clause.h.
    fn setup_parse_variable_parameters(
        pstate: *mut pg_sys::ParseState,
        param_types: *mut *mut Oid,
        num_params: *mut c_int,
    );
    fn transformWhereClause(
        pstate: *mut pg_sys::ParseState,
        clause: *mut pg_sys::Node,
        expr_kind: pg_sys::ParseExprKind::Type,
        construct_name: *const c_char,
    ) -> *mut pg_sys::Node;
}

/// Gives each literal of a condition its type. Raises what is wrong with the condition.
///
/// # Safety
/// `condition` is a raw parse tree, about rows of `table`, as the server's parser has just made it of `text`; the caller is in a
/// transaction and has locked the table.
pub(in crate::pg) unsafe fn give_types(condition: *mut pg_sys::Node, table: Oid, text: &CStr) {
    let literals = literals_of(condition);
    if literals.is_empty() {
        return;
    }
    for (literal, type_) in literals.iter().zip(types_of(condition, table, text)) {
        cast(*literal, type_);
    }
}

/// The types that the server finds for the literals of a condition, in the order of [`literals_of`].
unsafe fn types_of(condition: *mut pg_sys::Node, table: Oid, text: &CStr) -> Vec<Oid> {
    let copy = pg_sys::copyObjectImpl(condition.cast()).cast::<pg_sys::Node>();
    let literals = literals_of(copy);
    for (index, literal) in literals.iter().enumerate() {
        let location = (**literal).location;
        literal.cast::<pg_sys::ParamRef>().write(pg_sys::ParamRef {
            type_: NodeTag::T_ParamRef,
            number: index as c_int + 1,
            location,
        });
    }
    let (mut types, mut count) = (std::ptr::null_mut(), 0);
    let (found, length) = (&mut types, &mut count);
    // As CreateTriggerFiringOn() of trigger.c reads a condition.
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    let table = pg_sys::table_open(table, lock);
    let state = pg_sys::make_parsestate(std::ptr::null_mut());
    (*state).p_sourcetext = text.as_ptr();
    for name in [c"old", c"new"] {
        let alias = pg_sys::makeAlias(name.as_ptr(), std::ptr::null_mut());
        let row = pg_sys::addRangeTableEntryForRelation(state, table, lock, alias, false, false);
        pg_sys::addNSItemToQuery(state, row, false, true, true);
    }
    // Neither has the guard of the bindings.
    guarded(|| {
        setup_parse_variable_parameters(state, found, length);
        let kind = pg_sys::ParseExprKind::EXPR_KIND_TRIGGER_WHEN;
        transformWhereClause(state, copy, kind, c"WHEN".as_ptr());
    });
    pg_sys::free_parsestate(state);
    pg_sys::table_close(table, lock);
    (0..literals.len())
        .map(|index| {
            // The server's array has `count` members.
            if index < count as usize {
                *types.add(index)
            } else {
                Oid::INVALID
            }
        })
        .collect()
}

/// Makes a literal a cast of it.
unsafe fn cast(literal: *mut pg_sys::A_Const, type_: Oid) {
    const { assert!(size_of::<pg_sys::TypeCast>() <= size_of::<pg_sys::A_Const>()) };
    if (*literal).type_ != NodeTag::T_A_Const {
        return;
    }
    let is_unknown = type_ == Oid::INVALID || type_ == BuiltinOid::UNKNOWNOID.into();
    let text = BuiltinOid::TEXTOID.into();
    let location = (*literal).location;
    let bare = pg_sys::copyObjectImpl(literal.cast_const().cast()).cast::<pg_sys::Node>();
    let to = |argument, type_| pg_sys::TypeCast {
        type_: NodeTag::T_TypeCast,
        arg: argument,
        typeName: pg_sys::makeTypeNameFromOid(type_, -1),
        location,
    };
    let cast = if is_unknown {
        to(bare, text)
    } else if is_read_by_the_server(pg_sys::getBaseType(type_)) {
        to(bare, type_)
    } else {
        let inner = pg_sys::palloc0(size_of::<pg_sys::TypeCast>()).cast::<pg_sys::TypeCast>();
        inner.write(to(bare, text));
        to(inner.cast(), type_)
    };
    literal.cast::<pg_sys::TypeCast>().write(cast);
}

/// Whether values of a type are read by functions of the server and of superusers alone, who make all base types; whatever else
/// the type is made of, which cannot change as long as it has this number.
unsafe fn is_read_by_the_server(type_: Oid) -> bool {
    let element = pg_sys::get_element_type(type_);
    if element != Oid::INVALID {
        return is_read_by_the_server(element);
    }
    match pg_sys::get_typtype(type_) as u8 {
        pg_sys::TYPTYPE_BASE | pg_sys::TYPTYPE_ENUM => true,
        pg_sys::TYPTYPE_RANGE => is_read_by_the_server(pg_sys::get_range_subtype(type_)),
        pg_sys::TYPTYPE_MULTIRANGE => is_read_by_the_server(pg_sys::get_multirange_range(type_)),
        // Row types, domains within others, pseudo-types.
        _ => false,
    }
}

/// The literals of a raw parse tree that have no type of their own. That of `interval '1' year` and the like has one, under a
/// name that the grammar gives and nobody else can take.
unsafe fn literals_of(tree: *mut pg_sys::Node) -> Vec<*mut pg_sys::A_Const> {
    let mut found = Vec::new();
    collect(tree, std::ptr::from_mut(&mut found).cast());
    found
}

unsafe extern "C-unwind" fn collect(node: *mut pg_sys::Node, found: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    match (*node).type_ {
        // The modifiers of a type are literals too, which a type of the server or of a superuser reads.
        NodeTag::T_TypeName => false,
        NodeTag::T_TypeCast => {
            let cast = node.cast::<pg_sys::TypeCast>();
            let is_of_server = is_string((*cast).arg) && is_in_catalog((*cast).typeName);
            !is_of_server && pg_sys::raw_expression_tree_walker(node, Some(collect), found)
        }
        NodeTag::T_A_Const => {
            if is_string(node) {
                (*found.cast::<Vec<*mut pg_sys::A_Const>>()).push(node.cast());
            }
            false
        }
        _ => pg_sys::raw_expression_tree_walker(node, Some(collect), found),
    }
}

unsafe fn is_string(node: *mut pg_sys::Node) -> bool {
    let constant = node.cast::<pg_sys::A_Const>();
    !node.is_null()
        && (*node).type_ == NodeTag::T_A_Const
        && !(*constant).isnull
        && (*constant).val.node.type_ == NodeTag::T_String
}

unsafe fn is_in_catalog(name: *mut pg_sys::TypeName) -> bool {
    let names = (*name).names;
    pg_sys::list_length(names) == 2 && {
        let schema = pg_sys::list_nth(names, 0).cast::<pg_sys::String>();
        CStr::from_ptr((*schema).sval) == c"pg_catalog"
    }
}
