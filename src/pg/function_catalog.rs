//! What pg_proc says of a function that is to be a handler.

use pgrx::pg_sys::{self, Datum, Oid};

use super::text;

pub struct Function {
    pub oid: Oid,
    pub owner: Oid,
    pub schema: Oid,
    /// 'f' function, 'p' procedure, 'a' aggregate, 'w' window function.
    pub kind: u8,
    pub returns_set: bool,
    pub returns: Oid,
    pub arguments: Vec<Oid>,
    /// `schema.name(types)`, quoted as needed whatever the search path.
    pub signature: String,
}

/// The function of this OID, if it exists.
pub fn function(oid: Oid) -> Option<Function> {
    // SAFETY: a syscache look-up; everything is copied before the tuple is released.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, oid.into());
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let arguments = form
            .proargtypes
            .values
            .as_slice(form.pronargs as usize)
            .to_vec();
        let mut found = Function {
            oid,
            owner: form.proowner,
            schema: form.pronamespace,
            kind: form.prokind as u8,
            returns_set: form.proretset,
            returns: form.prorettype,
            arguments,
            signature: String::new(),
        };
        pg_sys::ReleaseSysCache(tuple);
        found.signature = text::from_c(pg_sys::format_procedure_qualified(oid));
        Some(found)
    }
}

/// The function that `signature` names with its argument types, by the rules of regprocedure: the
/// current search path and the current user's rights. Bad syntax is an ERROR of the server's own.
pub fn find_by_signature(signature: &str) -> Option<Oid> {
    find(pg_sys::to_regprocedure, signature)
}

fn find(lookup: unsafe fn(pg_sys::FunctionCallInfo) -> Datum, name: &str) -> Option<Oid> {
    // SAFETY: to_regprocedure takes one text and answers an oid or NULL.
    unsafe {
        let argument = Some(text::to_datum(name));
        pgrx::direct_function_call::<Oid>(lookup, &[argument])
    }
}

/// Functions of this name that a user sees, whatever their arguments; None when the name is not one.
pub fn count_by_name(name: &str) -> usize {
    // SAFETY: parses the name as the server does; the list is palloc'd.
    unsafe {
        let Ok(name) = std::ffi::CString::new(name) else {
            return 0;
        };
        #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
        let names = pg_sys::stringToQualifiedNameList(name.as_ptr());
        #[cfg(not(any(feature = "pg13", feature = "pg14", feature = "pg15")))]
        let names = pg_sys::stringToQualifiedNameList(name.as_ptr(), std::ptr::null_mut());
        #[cfg(feature = "pg13")]
        let mut found =
            pg_sys::FuncnameGetCandidates(names, -1, std::ptr::null_mut(), false, false, true);
        #[cfg(not(feature = "pg13"))]
        let mut found = pg_sys::FuncnameGetCandidates(
            names,
            -1,
            std::ptr::null_mut(),
            false,
            false,
            false,
            true,
        );
        let mut count = 0;
        while !found.is_null() {
            count += 1;
            found = (*found).next;
        }
        count
    }
}

/// The composite type pushy.job.
pub fn job_type() -> Option<Oid> {
    let relation = super::identity::pushy_relation("job")?;
    // SAFETY: a syscache look-up.
    let oid = unsafe { pg_sys::get_rel_type_id(relation) };
    (oid != Oid::INVALID).then_some(oid)
}
