//! What differs between the supported majors of PostgreSQL: nothing else in src/ asks which one it is built for.

use std::ffi::{c_int, CStr};

use pgrx::pg_sys::{self, Oid};

use super::guard::guarded;

// What a library tells the server of itself: pg_get_loaded_modules() of 18 shows it.
::pgrx::pg_module_magic!(name = c"pushy", version = VERSION);

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version has no NUL"),
    };

// -- workers ------------------------------------------------------------------------------------------------------

/// Whether a role that cannot log in may be a worker's session user.
pub const WORKERS_MAY_BE_NOLOGIN: bool = !cfg!(any(feature = "pg15", feature = "pg16"));

/// The flag that lets it, where there is one.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub(super) const BYPASS_ROLELOGINCHECK: u32 = 0;
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
pub(super) const BYPASS_ROLELOGINCHECK: u32 = pg_sys::BGWORKER_BYPASS_ROLELOGINCHECK;

/// Where a list of processes has none (proclist_types.h).
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub(super) const NO_PROCESS: i32 = pg_sys::INVALID_PGPROCNO as i32;
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
pub(super) const NO_PROCESS: i32 = pg_sys::INVALID_PROC_NUMBER;

/// Deadlines of sessions that not every major has: a worker's are Pushy's own.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub(super) const DEADLINES: &[&CStr] = &[];
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
pub(super) const DEADLINES: &[&CStr] = &[c"transaction_timeout"];

extern "C-unwind" {
    // A macro of that name from 18 on, because libpq has a function that is called so too. Without the guard of the bindings,
    // for signals.rs.
    #[cfg_attr(feature = "pg18", link_name = "pqsignal_be")]
    pub(super) fn pqsignal(signal: c_int, handler: unsafe extern "C-unwind" fn(c_int));
}

// -- rights -------------------------------------------------------------------------------------------------------

/// What rights are asked about by number.
#[derive(Clone, Copy)]
pub(super) enum Object {
    Database,
    Function,
    Schema,
}

/// A privilege bit, as wide as the server's AclMode: 32 bits before 16, 64 from then on.
#[cfg(feature = "pg15")]
fn acl(bit: u32) -> pg_sys::AclMode {
    bit
}
#[cfg(not(feature = "pg15"))]
fn acl(bit: u32) -> pg_sys::AclMode {
    bit.into()
}

/// Whether `role` has a privilege, one of pg_sys::ACL_*, on an object.
pub(super) fn has_privilege(object: Object, oid: Oid, role: Oid, bit: u32) -> bool {
    // SAFETY: ACL look-ups.
    #[cfg(feature = "pg15")]
    let result = unsafe {
        match object {
            Object::Database => pg_sys::pg_database_aclcheck(oid, role, acl(bit)),
            Object::Function => pg_sys::pg_proc_aclcheck(oid, role, acl(bit)),
            Object::Schema => pg_sys::pg_namespace_aclcheck(oid, role, acl(bit)),
        }
    };
    // SAFETY: as above.
    #[cfg(not(feature = "pg15"))]
    let result = unsafe {
        let class = match object {
            Object::Database => pg_sys::DatabaseRelationId,
            Object::Function => pg_sys::ProcedureRelationId,
            Object::Schema => pg_sys::NamespaceRelationId,
        };
        pg_sys::object_aclcheck(class, oid, role, acl(bit))
    };
    result == pg_sys::AclResult::ACLCHECK_OK
}

/// Whether `role` owns a database, or has its owner's rights.
pub(super) fn owns_database(oid: Oid, role: Oid) -> bool {
    // SAFETY: an ACL look-up.
    #[cfg(feature = "pg15")]
    unsafe {
        pg_sys::pg_database_ownercheck(oid, role)
    }
    // SAFETY: as above.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, oid, role)
    }
}

/// Whether `member` may become `role`: the SET option from 16, membership before.
pub(super) fn may_set_role(member: Oid, role: Oid) -> bool {
    // SAFETY: a cached catalog look-up.
    #[cfg(feature = "pg15")]
    unsafe {
        pg_sys::is_member_of_role(member, role)
    }
    // SAFETY: as above.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        pg_sys::member_can_set_role(member, role)
    }
}

/// What GRANT of a role must say so that the member may become it: one that was made WITH SET FALSE stays so otherwise.
#[cfg(feature = "pg15")]
pub const MAY_BECOME_IT: &str = "";
#[cfg(not(feature = "pg15"))]
pub const MAY_BECOME_IT: &str = " WITH SET TRUE";

// -- names --------------------------------------------------------------------------------------------------------

/// The path `pg_catalog` until [`end_catalog_path`]: temporary objects are not looked for either.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub(super) fn begin_catalog_path() -> c_int {
    extern "C-unwind" {
        #[link_name = "PushOverrideSearchPath"]
        fn raw_push(path: *mut pg_sys::OverrideSearchPath);
    }
    let mut path = pg_sys::OverrideSearchPath {
        schemas: std::ptr::null_mut(),
        addCatalog: true,
        addTemp: false,
        generation: 0,
    };
    // SAFETY: the path is copied. A setting would cost ten times as much, and plans made under a path that was pushed
    // stay valid whatever search_path says.
    unsafe { guarded(|| raw_push(&mut path)) }
    0
}
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub(super) fn end_catalog_path(_level: c_int) {
    extern "C-unwind" {
        #[link_name = "PopOverrideSearchPath"]
        fn raw_pop();
    }
    // SAFETY: pushed at this level of subtransactions: those begun since have ended, so it raises nothing.
    unsafe { raw_pop() }
}

/// The path `pg_catalog, pg_temp`, which is all that servers from 17 on offer; answers what to end it with.
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
pub(super) fn begin_catalog_path() -> c_int {
    extern "C-unwind" {
        fn NewGUCNestLevel() -> i32;
        #[link_name = "RestrictSearchPath"]
        fn raw_restrict();
    }
    // SAFETY: as maintenance commands of the server do it before they run functions of a table's owner.
    unsafe {
        guarded(|| {
            let level = NewGUCNestLevel();
            raw_restrict();
            level
        })
    }
}
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
pub(super) fn end_catalog_path(level: c_int) {
    extern "C-unwind" {
        #[link_name = "AtEOXact_GUC"]
        fn raw_end_nest_level(is_commit: bool, level: i32);
    }
    // SAFETY: the innermost level that is open: those of subtransactions begun since have ended.
    unsafe { raw_end_nest_level(false, level) }
}

/// The parts of a qualified name. Raises where it is none.
pub(super) unsafe fn qualified_name(name: &CStr) -> *mut pg_sys::List {
    #[cfg(feature = "pg15")]
    return pg_sys::stringToQualifiedNameList(name.as_ptr());
    #[cfg(not(feature = "pg15"))]
    return pg_sys::stringToQualifiedNameList(name.as_ptr(), std::ptr::null_mut());
}

// -- calls --------------------------------------------------------------------------------------------------------

/// Runs a portal of one utility statement to its end, at top level. Raises; without the guard of the bindings, for
/// subtransaction::protected.
pub(super) unsafe fn run_portal(portal: pg_sys::Portal, dest: *mut pg_sys::DestReceiver) {
    const ALL: std::ffi::c_long = std::ffi::c_long::MAX;
    #[cfg(not(feature = "pg18"))]
    {
        extern "C-unwind" {
            fn PortalRun(
                portal: pg_sys::Portal,
                count: std::ffi::c_long,
                is_top_level: bool,
                run_once: bool,
                dest: *mut pg_sys::DestReceiver,
                altdest: *mut pg_sys::DestReceiver,
                qc: *mut pg_sys::QueryCompletion,
            ) -> bool;
        }
        PortalRun(portal, ALL, true, true, dest, dest, std::ptr::null_mut());
    }
    #[cfg(feature = "pg18")]
    {
        extern "C-unwind" {
            fn PortalRun(
                portal: pg_sys::Portal,
                count: std::ffi::c_long,
                is_top_level: bool,
                dest: *mut pg_sys::DestReceiver,
                altdest: *mut pg_sys::DestReceiver,
                qc: *mut pg_sys::QueryCompletion,
            ) -> bool;
        }
        PortalRun(portal, ALL, true, dest, dest, std::ptr::null_mut());
    }
}

// -- statistics ---------------------------------------------------------------------------------------------------

/// Rows written in a database so far.
#[cfg(feature = "pg15")]
pub(super) fn rows_written(entry: &pg_sys::PgStat_StatDBEntry) -> i64 {
    entry.n_tuples_inserted + entry.n_tuples_updated + entry.n_tuples_deleted
}
#[cfg(not(feature = "pg15"))]
pub(super) fn rows_written(entry: &pg_sys::PgStat_StatDBEntry) -> i64 {
    entry.tuples_inserted + entry.tuples_updated + entry.tuples_deleted
}

// -- tables and indexes -------------------------------------------------------------------------------------------

/// A column of a row type, from 0.
pub(super) unsafe fn attribute(
    desc: pg_sys::TupleDesc,
    index: i32,
) -> *const pg_sys::FormData_pg_attribute {
    #[cfg(not(feature = "pg18"))]
    return (*desc).attrs.as_ptr().add(index as usize);
    #[cfg(feature = "pg18")]
    return pg_sys::TupleDescAttr(desc, index);
}

/// The number of the file that a table's rows are in.
#[cfg(feature = "pg15")]
pub(super) fn file_of(table: &pg_sys::RelationData) -> u32 {
    table.rd_node.relNode.to_u32()
}
#[cfg(not(feature = "pg15"))]
pub(super) fn file_of(table: &pg_sys::RelationData) -> u32 {
    table.rd_locator.relNumber.to_u32()
}

/// Whether no unique index has such a row.
pub(super) unsafe fn is_free_in_indexes(
    info: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
) -> bool {
    let (mut there, all) = (std::mem::zeroed(), std::ptr::null_mut());
    #[cfg(not(feature = "pg18"))]
    return pg_sys::ExecCheckIndexConstraints(info, slot, state, &mut there, all);
    #[cfg(feature = "pg18")]
    {
        // Offset 0: no row.
        let mut none = std::mem::zeroed();
        pg_sys::ExecCheckIndexConstraints(info, slot, state, &mut there, &mut none, all)
    }
}

/// Makes a row's index entries; `conflict`: speculatively, and whether there was one.
pub(super) unsafe fn insert_index_entries(
    info: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
    conflict: Option<&mut bool>,
) {
    let (speculatively, all) = (conflict.is_some(), std::ptr::null_mut());
    let conflict = conflict.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    #[cfg(feature = "pg15")]
    pg_sys::ExecInsertIndexTuples(info, slot, state, false, speculatively, conflict, all);
    #[cfg(not(feature = "pg15"))]
    pg_sys::ExecInsertIndexTuples(
        info,
        slot,
        state,
        false,
        speculatively,
        conflict,
        all,
        false,
    );
}

/// The same for a new version of a row, of which an entry may be there already under the same keys.
pub(super) unsafe fn update_index_entries(
    info: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
) {
    let none = std::ptr::null_mut();
    let all = std::ptr::null_mut();
    #[cfg(feature = "pg15")]
    pg_sys::ExecInsertIndexTuples(info, slot, state, true, false, none, all);
    #[cfg(not(feature = "pg15"))]
    pg_sys::ExecInsertIndexTuples(info, slot, state, true, false, none, all, false);
}

/// Writes a new version of a row that the caller has locked; whether the entries of the old one lead to it. To be called within a guard.
pub(super) unsafe fn heap_update(
    table: pg_sys::Relation,
    old: pg_sys::ItemPointer,
    new: pg_sys::HeapTuple,
) -> bool {
    #[cfg(feature = "pg15")]
    {
        extern "C-unwind" {
            fn simple_heap_update(
                table: pg_sys::Relation,
                old: pg_sys::ItemPointer,
                new: pg_sys::HeapTuple,
            );
        }
        simple_heap_update(table, old, new);
        u32::from((*(*new).t_data).t_infomask2) & pg_sys::HEAP_ONLY_TUPLE != 0
    }
    #[cfg(not(feature = "pg15"))]
    {
        extern "C-unwind" {
            fn simple_heap_update(
                table: pg_sys::Relation,
                old: pg_sys::ItemPointer,
                new: pg_sys::HeapTuple,
                entries: *mut pg_sys::TU_UpdateIndexes::Type,
            );
        }
        let mut entries = pg_sys::TU_UpdateIndexes::TU_None;
        simple_heap_update(table, old, new, &mut entries);
        // No index of ours is one that summarises pages.
        entries != pg_sys::TU_UpdateIndexes::TU_All
    }
}

pub(super) unsafe fn begin_index_scan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    keys: c_int,
) -> pg_sys::IndexScanDesc {
    #[cfg(not(feature = "pg18"))]
    return pg_sys::index_beginscan(table, index, snapshot, keys, 0);
    #[cfg(feature = "pg18")]
    return pg_sys::index_beginscan(table, index, snapshot, std::ptr::null_mut(), keys, 0);
}

// -- virtual generated columns ------------------------------------------------------------------------------------

/// Whether a column has no value in the row: a virtual generated one, from 18.
pub(super) fn is_virtual(attribute: &pg_sys::FormData_pg_attribute) -> bool {
    cfg!(feature = "pg18") && attribute.attgenerated as u8 == b'v'
}

/// Puts, for virtual columns of the row `number`, what they are generated by. Raises.
#[cfg(not(feature = "pg18"))]
pub(super) unsafe fn expand_virtual(
    node: *mut pg_sys::Node,
    _table: pg_sys::Relation,
    _number: c_int,
) -> *mut pg_sys::Node {
    node
}
#[cfg(feature = "pg18")]
pub(super) unsafe fn expand_virtual(
    node: *mut pg_sys::Node,
    table: pg_sys::Relation,
    number: c_int,
) -> *mut pg_sys::Node {
    extern "C-unwind" {
        /// Without the guard of the bindings, for subtransaction::protected.
        fn expand_generated_columns_in_expr(
            node: *mut pg_sys::Node,
            rel: pg_sys::Relation,
            rt_index: c_int,
        ) -> *mut pg_sys::Node;
    }
    expand_generated_columns_in_expr(node, table, number)
}
