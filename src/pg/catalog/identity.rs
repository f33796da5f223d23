//! Who is asking, and the one guard under which Pushy's own statements run.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};

use pgrx::pg_sys::{self, Oid};
use pushy_core::version::Fit;

use crate::errors::{Error, Result, SqlState};
use crate::pg::function::Answer;
use crate::pg::major::{self, Object};
use crate::pg::per_process::PerProcess;
use crate::pg::utility::Whose;
use crate::pg::{guc, invalidation, script, text};

/// The role whose rights the current code has: never the session's, never an argument.
pub fn current_user() -> Oid {
    extern "C-unwind" {
        /// Without the guard of the bindings: it raises nothing.
        fn GetUserId() -> Oid;
    }
    // SAFETY: reads a backend global.
    unsafe { GetUserId() }
}

pub fn session_user() -> Oid {
    // SAFETY: reads a backend global.
    unsafe { pg_sys::GetSessionUserId() }
}

/// Who has logged in: a session that is another's by SET SESSION AUTHORIZATION can go back to this role.
pub fn authenticated_user() -> Oid {
    // SAFETY: reads a backend global.
    unsafe { pg_sys::GetAuthenticatedUserId() }
}

/// What the catalogs said of Pushy's schemas, until something of it changes: looked up for each commit that is
/// told of, names cost as much as the row that is written (4 % of an insert).
struct Known {
    generation: u64,
    relations: Vec<KnownRelation>,
    owner: Option<Owner>,
    extension: Option<Oid>,
}

/// The owner of the extension's tables, and whether this library works with them.
#[derive(Clone, Copy)]
struct Owner {
    role: Oid,
    fit: Fit,
}

struct KnownRelation {
    schema: Schema,
    name: String,
    relation: Oid,
}

static KNOWN: PerProcess<RefCell<Known>> = PerProcess::new(RefCell::new(Known::EMPTY));

impl Known {
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
    known: impl Fn(&Known) -> Option<T>,
    look_up: impl FnOnce() -> Option<(Oid, T)>,
    keep: impl FnOnce(&mut Known, T),
) -> Option<T> {
    let generation = invalidation::generation();
    let found = KNOWN.with_borrow_mut(|kept| {
        kept.refresh(generation);
        known(kept)
    });
    if found.is_some() {
        return found;
    }
    let (relation, found) = look_up()?;
    // The look-up may have taken in that something is another: then it is looked up again next time.
    if invalidation::generation() == generation {
        invalidation::depend_on(relation);
        KNOWN.with_borrow_mut(|kept| keep(kept, found));
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
        |known| {
            let mut relations = known.relations.iter();
            let found = relations.find(|known| known.schema == schema && known.name == name);
            found.map(|known| known.relation)
        },
        || find_relation(schema, name).map(|relation| (relation, relation)),
        |known, relation| {
            known.relations.push(KnownRelation {
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

/// Whether a schema of this name is the extension's, here.
pub fn is_schema_of_pushy(name: &CStr) -> bool {
    Schema::ALL.iter().any(|ours| ours.name() == name) && extension_oid().is_some()
}

/// The same, or the error that the extension is not there.
pub fn expect_relation(name: &str) -> Result<Oid> {
    internal_relation(name).ok_or_else(not_installed)
}

#[cold]
fn not_installed() -> Error {
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

/// Tells every session that the script may be another, with the commit of this transaction: pg_extension tells nobody.
pub fn tell_script_changed() {
    if let Some(relation) = internal_relation("queue") {
        invalidation::tell_changed(relation);
    }
}

fn owner() -> Option<Owner> {
    kept(
        |known| known.owner,
        || {
            let relation = internal_relation("queue")?;
            let role = owner_of(relation)?;
            let fit = script::stands();
            Some((relation, Owner { role, fit }))
        },
        |known, owner| known.owner = Some(owner),
    )
}

/// The owner of a relation; None where there is none of this number.
#[cold]
pub fn owner_of(relation: Oid) -> Option<Oid> {
    // SAFETY: a syscache look-up; the tuple is released before the function ends.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, relation.into());
        if tuple.is_null() {
            return None;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let owner = (*form).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// The OID of the extension in this database: new with each CREATE EXTENSION, so it is the epoch.
pub fn extension_oid() -> Option<Oid> {
    kept(
        |known| known.extension,
        // Its tables come and go with it; without them nothing is kept.
        || Some((internal_relation("queue")?, find_extension()?)),
        |known, extension| known.extension = Some(extension),
    )
}

#[cold]
fn find_extension() -> Option<Oid> {
    // SAFETY: a catalog look-up inside a transaction; a scan of pg_extension each time.
    let oid = unsafe { pg_sys::get_extension_oid(c"pushy".as_ptr(), true) };
    (oid != Oid::INVALID).then_some(oid)
}

extern "C-unwind" {
    /// Without the guards of the bindings: both only read or set variables of this process.
    fn GetUserIdAndSecContext(user: *mut Oid, context: *mut i32);
    fn SetUserIdAndSecContext(user: Oid, context: i32);
}

/// Restores the user of before when dropped, also when an ERROR unwinds through it; a longjmp past it
/// ends in an abort, which restores too.
struct Guard {
    user: Oid,
    context: i32,
}

impl Drop for Guard {
    fn drop(&mut self) {
        OWNER_ACTS.set(OWNER_ACTS.get() - 1);
        // SAFETY: puts back what GetUserIdAndSecContext answered.
        unsafe { SetUserIdAndSecContext(self.user, self.context) }
    }
}

/// How many guards there are.
static OWNER_ACTS: PerProcess<Cell<u32>> = PerProcess::new(Cell::new(0));

/// Whether the code runs within [`as_owner`]: then nothing of a user's may be looked up or run.
pub fn is_owner_acting() -> bool {
    OWNER_ACTS.get() > 0
}

/// Stops before something of a user's is looked up or run with the owner's rights.
pub fn expect_no_owner() {
    assert!(
        !is_owner_acting(),
        "code of a user's reached the rights of the extension's owner"
    );
}

/// Runs Pushy's own statements with the rights of the extension's owner, if they fit the tables that its script has made. No
/// handler, expression or input function of a user's type may ever run inside.
pub fn as_owner<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let owner = owner().ok_or_else(not_installed)?;
    if owner.fit != Fit::Works {
        return Err(script::refused(owner.fit));
    }
    let _guard = become_user(owner.role);
    work()
}

/// Who acts, and in what context: as the server's own notes for code that runs later.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    user: Oid,
    context: i32,
}

impl Actor {
    pub fn now() -> Self {
        let mut now = Self {
            user: Oid::INVALID,
            context: 0,
        };
        // SAFETY: only reads backend globals.
        unsafe { GetUserIdAndSecContext(&mut now.user, &mut now.context) };
        now
    }

    /// Runs code of users that this actor has caused, later, when another may be at work: it can neither get that one's
    /// rights nor do what was forbidden when it was caused.
    pub fn act<T>(self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        /// As [`Guard`], but for code of users.
        struct Lent(Actor);
        impl Drop for Lent {
            fn drop(&mut self) {
                // SAFETY: puts back what GetUserIdAndSecContext answered.
                unsafe { SetUserIdAndSecContext(self.0.user, self.0.context) }
            }
        }
        let now = Self::now();
        if now == self {
            return work();
        }
        let _lent = Lent(now);
        let local_change = pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        // SAFETY: only sets backend globals; an abort puts them back too.
        unsafe {
            SetUserIdAndSecContext(self.user, now.context | self.context | local_change);
        }
        work()
    }
}

/// Whose words a text of SQL holds beside Pushy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    Nobody,
    Role(Oid),
}

/// Reads words of SQL with the rights of their author, who may be another than the caller. They are looked up with these rights, and
/// nothing of them runs (see trigger.rs and expression.rs); if something did, words of another role could
/// neither get the caller's rights back nor leave anything behind that runs later (SECURITY_RESTRICTED_OPERATION), settings
/// included.
pub fn as_author<T>(author: Author, work: impl FnOnce() -> Result<T>) -> Result<T> {
    match author {
        Author::Role(role) if role != current_user() => {
            if !role_exists(role) {
                return Err(Error::new(
                    SqlState::INSUFFICIENT_PRIVILEGE,
                    "the role that wrote it is gone",
                ));
            }
            let restricted = Actor {
                user: role,
                context: pg_sys::SECURITY_RESTRICTED_OPERATION as i32,
            };
            let settings = guc::nest();
            let result = restricted.act(work);
            settings.undo();
            result
        }
        _ => work(),
    }
}

fn become_user(role: Oid) -> Guard {
    let mut guard = Guard {
        user: Oid::INVALID,
        context: 0,
    };
    let local_change = pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
    // SAFETY: both calls only read and set backend globals.
    unsafe {
        GetUserIdAndSecContext(&mut guard.user, &mut guard.context);
        SetUserIdAndSecContext(role, guard.context | local_change);
    }
    OWNER_ACTS.set(OWNER_ACTS.get() + 1);
    guard
}

/// What pg_authid says of a role.
pub struct Role {
    pub oid: Oid,
    pub name: String,
    pub superuser: bool,
    pub createdb: bool,
    pub login: bool,
    /// -1: none.
    pub connection_limit: i32,
}

/// The role of this OID, if there is one.
pub fn role(oid: Oid) -> Option<Role> {
    // SAFETY: a syscache look-up; everything is copied before the tuple is released.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::AUTHOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, oid.into());
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_authid>();
        let role = Role {
            oid,
            name: text::from_c(form.rolname.data.as_ptr()),
            superuser: form.rolsuper,
            createdb: form.rolcreatedb,
            login: form.rolcanlogin,
            connection_limit: form.rolconnlimit,
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(role)
    }
}

/// The role of exactly this name: what a caller says. What a table of ours says is asked of `home::role`.
pub fn find_role(name: &str) -> Option<Oid> {
    let name = CString::new(text::encode_lossy(name)).ok()?;
    // SAFETY: a syscache look-up; told that the role may be missing, it raises nothing.
    let oid = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (oid != Oid::INVALID).then_some(oid)
}

/// The role that a statement names.
pub fn find(whose: &Whose) -> Option<Oid> {
    match whose {
        Whose::Named(name) => {
            // SAFETY: as in find_role.
            let oid = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
            (oid != Oid::INVALID).then_some(oid)
        }
        Whose::CurrentUser => Some(current_user()),
        Whose::SessionUser => Some(session_user()),
    }
}

/// The role's name, or its number where it is gone.
pub fn role_name(oid: Oid) -> String {
    role(oid).map_or_else(|| oid.to_u32().to_string(), |role| role.name)
}

pub fn is_superuser(role: Oid) -> bool {
    // SAFETY: a syscache look-up.
    unsafe { pg_sys::superuser_arg(role) }
}

/// Whether there is a role of this number.
pub fn role_exists(role: Oid) -> bool {
    let cache = pg_sys::SysCacheIdentifier::AUTHOID as i32;
    let any = pg_sys::Datum::from(0);
    // SAFETY: a syscache look-up, of which nothing is kept.
    unsafe { pg_sys::SearchSysCacheExists(cache, role.into(), any, any, any) }
}

/// Whether `member` has the rights of `role` without SET ROLE: itself, superuser, or an inheriting
/// member. A role that is gone has none, not even its own.
pub fn has_rights_of(member: Oid, role: Oid) -> bool {
    // SAFETY: a cached catalog look-up.
    role_exists(member) && unsafe { pg_sys::has_privs_of_role(member, role) }
}

/// Whether a role has the rights of pg_read_all_stats, as pg_monitor does.
pub fn reads_all_statistics(role: Oid) -> bool {
    // The number in pg_authid.dat; its constant has another name in 13.
    has_rights_of(role, Oid::from(3375))
}

/// Whether `member` may become `role` by SET ROLE: the SET option from 16, membership before.
pub fn may_become(member: Oid, role: Oid) -> bool {
    major::may_set_role(member, role) && role_exists(member)
}

/// Whether `role` may connect to a database.
pub fn may_connect(database: u32, role: Oid) -> bool {
    major::has_privilege(
        Object::Database,
        Oid::from(database),
        role,
        pg_sys::ACL_CONNECT,
    )
}

/// Whether the server refuses one more session of `role` because of its CONNECTION LIMIT; workers do not
/// count, superusers have none (miscinit.c).
pub fn has_too_many_sessions(role: &Role) -> bool {
    // SAFETY: counts in shared memory.
    role.connection_limit >= 0
        && !role.superuser
        && unsafe { pg_sys::CountUserBackends(role.oid) } > role.connection_limit
}

/// Whether `role` may execute a function.
pub fn may_execute(function: Oid, role: Oid) -> bool {
    major::has_privilege(Object::Function, function, role, pg_sys::ACL_EXECUTE)
}

/// Whether `role` has USAGE on a schema.
pub fn may_use_schema(schema: Oid, role: Oid) -> bool {
    major::has_privilege(Object::Schema, schema, role, pg_sys::ACL_USAGE)
}

/// A role's name as a value of type name; NULL for no role, and for one that is gone: another may be called by
/// its number.
pub fn role_name_or_null(oid: Oid) -> Answer {
    role(oid).map_or(Answer::Null, |role| {
        Answer::Datum(text::to_name(&role.name))
    })
}

/// Whether `role` owns the extension of this database, or has its owner's rights.
pub fn owns_extension(role: Oid) -> bool {
    extension_owner().is_some_and(|owner| has_rights_of(role, owner))
}

/// Takes notice of what others have committed to the catalogs, roles and grants included.
pub fn accept_changes() {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() }
}
