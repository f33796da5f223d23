//! Databases of the cluster, and where this process is.

use pgrx::pg_sys;

use crate::pg::catalog::cached_row;
use crate::pg::{major, text};

/// The OID of this session's database.
pub fn current() -> u32 {
    // SAFETY: reads a global of this process.
    unsafe { pg_sys::MyDatabaseId.to_u32() }
}

/// The name of a database, if it exists.
pub fn name(oid: u32) -> Option<String> {
    // SAFETY: a catalog look-up inside a transaction; the name is palloc'd or null.
    unsafe {
        let name = pg_sys::get_database_name(pg_sys::Oid::from(oid));
        (!name.is_null()).then(|| text::from_c(name))
    }
}

/// What `read` finds in the row of a database; None where it is gone.
fn read_row<T>(oid: u32, read: impl FnOnce(&pg_sys::FormData_pg_database) -> T) -> Option<T> {
    let cache = pg_sys::SysCacheIdentifier::DATABASEOID;
    // SAFETY: the cache of pg_database.
    unsafe { cached_row::of_oid(cache, pg_sys::Oid::from(oid), read) }
}

/// Who is let into a database.
#[derive(Default)]
pub struct Limits {
    /// pg_database.datallowconn; false where it is gone.
    pub allows_connections: bool,
    /// pg_database.datconnlimit; negative: none.
    pub connections: i32,
}

pub fn limits(oid: u32) -> Limits {
    let limits = read_row(oid, |form| Limits {
        allows_connections: form.datallowconn,
        connections: form.datconnlimit,
    });
    limits.unwrap_or_default()
}

/// Whether the server refuses one more session of a database because of its CONNECTION LIMIT; workers do not
/// count, superusers have none (postinit.c).
pub fn has_too_many_sessions(oid: u32, limits: &Limits) -> bool {
    // SAFETY: counts in shared memory.
    limits.connections >= 0
        && unsafe { pg_sys::CountDBConnections(pg_sys::Oid::from(oid)) } > limits.connections
}

/// The OID of the database of this name.
pub fn oid_of(name: &std::ffi::CStr) -> Option<u32> {
    // SAFETY: a catalog look-up inside a transaction.
    let oid = unsafe { pg_sys::get_database_oid(name.as_ptr(), true) };
    (oid != pg_sys::Oid::INVALID).then(|| oid.to_u32())
}

/// What identifies the cluster, made by initdb.
pub fn system_identifier() -> i64 {
    // SAFETY: reads the control file's copy in shared memory.
    unsafe { pg_sys::GetSystemIdentifier() as i64 }
}

/// A database as pg_database has it.
pub struct DatabaseRow {
    pub oid: u32,
    pub name: String,
    pub allows_connections: bool,
}

/// All databases. For workers that are connected to none; inside a transaction.
pub fn all() -> Vec<DatabaseRow> {
    let mut found = Vec::new();
    // SAFETY: a catalog scan as in autovacuum's get_database_list: relation opened and closed here,
    // tuples read while the scan holds them.
    unsafe {
        let relation = pg_sys::table_open(
            pg_sys::DatabaseRelationId,
            pg_sys::AccessShareLock as pg_sys::LOCKMODE,
        );
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            found.push(DatabaseRow {
                oid: form.oid.to_u32(),
                name: text::from_c(form.datname.data.as_ptr()),
                allows_connections: form.datallowconn,
            });
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
    }
    found
}

/// Rows written in a database so far, as the cumulative statistics have them; None when they have
/// nothing of it.
pub fn rows_written(oid: u32) -> Option<u64> {
    // SAFETY: a copy of shared statistics, or null.
    unsafe {
        pg_sys::pgstat_clear_snapshot();
        pg_sys::pgstat_fetch_stat_dbentry(pg_sys::Oid::from(oid))
            .as_ref()
            .map(|entry| major::rows_written(entry) as u64)
    }
}

/// The name of this database's encoding.
pub fn encoding_name() -> String {
    // SAFETY: a static string of the server.
    unsafe { text::from_c(pg_sys::GetDatabaseEncodingName()) }
}

/// Who owns a database; None where it is gone.
pub fn owner(oid: u32) -> Option<pg_sys::Oid> {
    read_row(oid, |form| form.datdba)
}

/// Whether `role` owns a database, or has its owner's rights.
pub fn is_owner(oid: u32, role: pg_sys::Oid) -> bool {
    major::owns_database(pg_sys::Oid::from(oid), role)
}

/// Whether `role` may create a database from this one: CREATEDB, and its owner or it a template
/// (createdb in dbcommands.c).
pub fn may_copy(oid: u32, role: pg_sys::Oid) -> bool {
    let creator = crate::pg::identity::role(role);
    creator.is_some_and(|creator| creator.superuser || creator.createdb)
        && read_row(oid, |form| form.datistemplate)
            .is_some_and(|is_template| is_template || is_owner(oid, role))
}
