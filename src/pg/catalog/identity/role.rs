//! Roles: who is asking, and which one is meant.

use crate::pg::catalog::cached_row;
use crate::pg::function::Answer;
use crate::pg::text;
use crate::pg::utility::Whose;
use pgrx::pg_sys::{self, Oid};
use std::ffi::CString;

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
    // SAFETY: the cache of pg_authid; its names end with NUL.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::AUTHOID;
        cached_row::of_oid(cache, oid, |form: &pg_sys::FormData_pg_authid| Role {
            oid,
            name: text::from_c(form.rolname.data.as_ptr()),
            superuser: form.rolsuper,
            createdb: form.rolcreatedb,
            login: form.rolcanlogin,
            connection_limit: form.rolconnlimit,
        })
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

/// A role's name as a value of type name; NULL for no role, and for one that is gone: another may be called by
/// its number.
pub fn role_name_or_null(oid: Oid) -> Answer {
    role(oid).map_or(Answer::Null, |role| {
        Answer::Datum(text::to_name(&role.name))
    })
}

/// Whether there is a role of this number.
pub fn role_exists(role: Oid) -> bool {
    let cache = pg_sys::SysCacheIdentifier::AUTHOID as i32;
    let any = pg_sys::Datum::from(0);
    // SAFETY: a syscache look-up, of which nothing is kept.
    unsafe { pg_sys::SearchSysCacheExists(cache, role.into(), any, any, any) }
}

/// To whom something is granted: a role by its exact name, or 0 for PUBLIC.
pub fn grantee(role: &str) -> Option<Oid> {
    match role {
        "public" => Some(Oid::INVALID),
        _ => find_role(role),
    }
}

pub fn is_superuser(role: Oid) -> bool {
    // SAFETY: a syscache look-up.
    unsafe { pg_sys::superuser_arg(role) }
}
