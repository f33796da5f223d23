//! The extension in this database: its relations, its owner, and whether this library works with its script.

use super::has_rights_of;
use std::cell::RefCell;
use std::ffi::{CStr, CString};

use pgrx::pg_sys::{self, Oid};
use pushy_core::version::Fit;

use crate::errors::{Error, Result, SqlState};
use crate::pg::catalog::cached_row;
use crate::pg::invalidation::{self, Row};
use crate::pg::per_process::PerProcess;
use crate::pg::{identifier, script, text};

/// What the catalogs said of Pushy's schemas, until something of it changes: looked up for each commit that is
/// published, names cost as much as the row that is written (4 % of an insert).
struct CatalogCache {
    generation: u64,
    relations: Vec<CachedRelation>,
    owner: Option<Owner>,
    extension: Option<Oid>,
}

/// The owner of the extension's tables, and whether this library works with them.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    pub(super) role: Oid,
    pub(super) fit: Fit,
}

struct CachedRelation {
    schema: Schema,
    name: String,
    relation: Oid,
}

static CACHE: PerProcess<RefCell<CatalogCache>> =
    PerProcess::new(RefCell::new(CatalogCache::EMPTY));

impl CatalogCache {
    const EMPTY: Self = Self {
        generation: 0,
        relations: Vec::new(),
        owner: None,
        extension: None,
    };

    /// Empty when something has changed.
    fn refresh(&mut self, generation: u64) {
        if self.generation != generation {
            *self = Self {
                generation,
                ..Self::EMPTY
            };
        }
    }
}

/// Keeps what `look_up` finds about a relation of ours as long as that is true.
fn kept<T: Copy>(
    cached: impl Fn(&CatalogCache) -> Option<T>,
    look_up: impl FnOnce() -> Option<(Oid, T)>,
    keep: impl FnOnce(&mut CatalogCache, T),
) -> Option<T> {
    let generation = invalidation::generation();
    let found = CACHE.with_borrow_mut(|kept| {
        kept.refresh(generation);
        cached(kept)
    });
    if found.is_some() {
        return found;
    }
    let (relation, found) = look_up()?;
    // The look-up may have taken in that something is another: then it is looked up again next time.
    if invalidation::generation() == generation {
        invalidation::depend_on(relation);
        CACHE.with_borrow_mut(|kept| keep(kept, found));
    }
    Some(found)
}

/// The extension's two schemas.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Schema {
    /// What people read and call.
    Public,
    /// What Pushy keeps for itself.
    Internal,
}

impl Schema {
    const ALL: [Self; 2] = [Self::Public, Self::Internal];

    const fn name(self) -> &'static CStr {
        match self {
            Self::Public => c"pushy",
            Self::Internal => c"pushy_internal",
        }
    }

    /// Inside a transaction.
    fn oid(self) -> Option<Oid> {
        // SAFETY: a syscache look-up; told that the schema may be missing, it raises nothing.
        let oid = unsafe { pg_sys::get_namespace_oid(self.name().as_ptr(), true) };
        (oid != Oid::INVALID).then_some(oid)
    }
}

/// The OID of a relation of schema pushy_internal, or None where the extension is not (or no longer) there.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn internal_relation(name: &str) -> Option<Oid> {
    relation_in(Schema::Internal, name)
}

/// The same for schema pushy: of a view or a composite type.
pub fn public_relation(name: &str) -> Option<Oid> {
    relation_in(Schema::Public, name)
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn relation_in(schema: Schema, name: &str) -> Option<Oid> {
    kept(
        |cache| {
            let mut relations = cache.relations.iter();
            let found =
                relations.find(|relation| relation.schema == schema && relation.name == name);
            found.map(|relation| relation.relation)
        },
        || find_relation(schema, name).map(|relation| (relation, relation)),
        |cache, relation| {
            cache.relations.push(CachedRelation {
                schema,
                name: name.to_owned(),
                relation,
            })
        },
    )
}

#[cold]
fn find_relation(schema: Schema, name: &str) -> Option<Oid> {
    let name = CString::new(name).ok()?;
    let schema = schema.oid()?;
    // It may be renamed.
    invalidation::depend_on_row(Row::schema(schema));
    // SAFETY: a syscache look-up inside a transaction.
    let relation = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
    (relation != Oid::INVALID).then_some(relation)
}

/// Whether a relation is in one of the extension's schemas.
pub fn is_in_pushy(relation: Oid) -> bool {
    // SAFETY: a syscache look-up inside a transaction.
    let schema = unsafe { pg_sys::get_rel_namespace(relation) };
    Schema::ALL.iter().any(|ours| ours.oid() == Some(schema)) && extension_oid().is_some()
}

/// `schema.name` of a relation, for messages.
#[cold]
pub fn relation_name(relation: Oid) -> String {
    // SAFETY: syscache look-ups inside a transaction, and copies of what they answer.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        if name.is_null() || schema.is_null() {
            return relation.to_u32().to_string();
        }
        format!("{}.{}", text::from_c(schema), text::from_c(name))
    }
}

/// Schema and name of a relation, quoted where need be; None: it is gone.
pub fn quoted_name(relation: Oid) -> Option<String> {
    // SAFETY: syscache look-ups inside a transaction, and copies of what they answer.
    let (schema, name) = unsafe {
        let name = pg_sys::get_rel_name(relation);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        if name.is_null() || schema.is_null() {
            return None;
        }
        (text::from_c(schema), text::from_c(name))
    };
    Some(format!(
        "{}.{}",
        identifier::quoted(&schema),
        identifier::quoted(&name)
    ))
}

/// Whether a schema of this name is the extension's, here.
pub fn is_schema_of_pushy(name: &CStr) -> bool {
    Schema::ALL.iter().any(|ours| ours.name() == name) && extension_oid().is_some()
}

/// The same, or the error that the extension is not there.
pub fn expect_relation(name: &str) -> Result<Oid> {
    internal_relation(name).ok_or_else(not_installed)
}

#[cold]
pub(super) fn not_installed() -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "extension \"pushy\" is not installed in this database",
    )
    .hint("Run: CREATE EXTENSION pushy")
}

/// The owner of the extension's tables.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn extension_owner() -> Option<Oid> {
    owner().map(|owner| owner.role)
}

/// How the database's script stands to this library, if the extension is here.
pub fn fit() -> Option<Fit> {
    owner().map(|owner| owner.fit)
}

/// Invalidates in every session which script is installed, with the commit of this transaction, because a change of pg_extension invalidates nothing.
pub fn send_script_changed() {
    if let Some(relation) = internal_relation("queue") {
        invalidation::send(relation);
    }
}

pub(super) fn owner() -> Option<Owner> {
    kept(
        |cache| cache.owner,
        || {
            let relation = internal_relation("queue")?;
            let role = owner_of(relation)?;
            let fit = script::stands();
            Some((relation, Owner { role, fit }))
        },
        |cache, owner| cache.owner = Some(owner),
    )
}

/// The owner of a relation; None where there is none of this number.
#[cold]
pub fn owner_of(relation: Oid) -> Option<Oid> {
    let cache = pg_sys::SysCacheIdentifier::RELOID;
    // SAFETY: the cache of pg_class.
    unsafe {
        cached_row::of_oid(cache, relation, |form: &pg_sys::FormData_pg_class| {
            form.relowner
        })
    }
}

/// The OID of the extension in this database: new with each CREATE EXTENSION, so it is the epoch.
pub fn extension_oid() -> Option<Oid> {
    kept(
        |cache| cache.extension,
        // Its tables come and go with it; without them nothing is kept.
        || Some((internal_relation("queue")?, find_extension()?)),
        |cache, extension| cache.extension = Some(extension),
    )
}

/// The same, or the error that there is none.
pub fn require_installed() -> Result<Oid> {
    extension_oid().ok_or_else(not_installed)
}

#[cold]
fn find_extension() -> Option<Oid> {
    // SAFETY: a catalog look-up inside a transaction; a scan of pg_extension each time.
    let oid = unsafe { pg_sys::get_extension_oid(c"pushy".as_ptr(), true) };
    (oid != Oid::INVALID).then_some(oid)
}

/// Whether `role` owns the extension of this database, or has its owner's rights.
pub fn owns_extension(role: Oid) -> bool {
    extension_owner().is_some_and(|owner| has_rights_of(role, owner))
}
