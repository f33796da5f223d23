//! What pg_proc says of a function that is to be a handler.

use pgrx::pg_sys::{self, Oid};

use crate::errors::Result;
use crate::params;
use crate::pg::catalog::cached_row;
use crate::pg::catch::caught;
use crate::pg::spi::{self, Plan};
use crate::pg::{identifier, identity, major, text, BuiltinOid};

pub struct Function {
    pub oid: Oid,
    pub owner: Oid,
    pub schema: Oid,
    /// 'f' function, 'p' procedure, 'a' aggregate, 'w' window function.
    pub kind: u8,
    pub returns_set: bool,
    /// SECURITY DEFINER.
    pub is_of_definer: bool,
    /// It has SET clauses.
    pub has_settings: bool,
    pub returns: Oid,
    pub arguments: Vec<Oid>,
    /// `schema.name(types)`: always the same text, whatever the session's settings.
    pub signature: String,
}

/// The function of this OID, if it exists.
pub fn function(oid: Oid) -> Option<Function> {
    // SAFETY: the cache of pg_proc; the name of what is there.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID;
        let read = |form: &pg_sys::FormData_pg_proc, tuple| Function {
            oid,
            owner: form.proowner,
            schema: form.pronamespace,
            kind: form.prokind as u8,
            returns_set: form.proretset,
            is_of_definer: form.prosecdef,
            has_settings: !pg_sys::heap_attisnull(
                tuple,
                pg_sys::Anum_pg_proc_proconfig as i32,
                std::ptr::null_mut(),
            ),
            returns: form.prorettype,
            arguments: form
                .proargtypes
                .values
                .as_slice(form.pronargs as usize)
                .to_vec(),
            signature: String::new(),
        };
        let mut found = cached_row::of_oid_with(cache, oid, read)?;
        let signature =
            identifier::quoting_little(|| text::from_c(pg_sys::format_procedure_qualified(oid)));
        // What nearly every handler takes, as people write it.
        found.signature = match signature.strip_suffix("(pg_catalog.jsonb)") {
            Some(name) => format!("{name}(jsonb)"),
            None => with_bare_types(signature),
        };
        Some(found)
    }
}

/// Types of the server's own without their schema.
fn with_bare_types(signature: String) -> String {
    match signature.rsplit_once('(') {
        Some((name, types)) if types.contains("pg_catalog.") => {
            let bare = |name| str::strip_prefix(name, "pg_catalog.").unwrap_or(name);
            let types: Vec<&str> = types.split(',').map(bare).collect();
            format!("{name}({}", types.join(","))
        }
        _ => signature,
    }
}

static NAMED: Plan = Plan::new(
    "SELECT p.oid FROM pg_catalog.pg_proc p \
      WHERE pg_catalog.strpos($1, pg_catalog.replace(p.proname::pg_catalog.text, '\"', '\"\"')) OPERATOR(pg_catalog.>) 0 \
        AND p.pronargs OPERATOR(pg_catalog.<=) 1",
    &[BuiltinOid::TEXTOID],
);

/// The function of exactly this signature, as `Function` writes it, of one argument at most. It reads all of
/// pg_proc, because a signature that a user wrote is not to be read with the rights of the extension's owner.
pub fn named(signature: &str) -> Result<Option<Function>> {
    let named: Vec<Oid> = identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            let found = spi.run(&NAMED, params![signature]);
            found.rows().map(|row| row.oid(1)).collect()
        }))
    })?;
    let is_it = |function: &Function| function.signature == signature;
    Ok(named.into_iter().filter_map(function).find(is_it))
}

static ALIKE: Plan = Plan::new(
    "SELECT p.oid FROM pg_catalog.pg_proc p \
      WHERE pg_catalog.lower(p.proname::pg_catalog.text) OPERATOR(pg_catalog.=) pg_catalog.lower($1) ORDER BY 1 LIMIT 10",
    &[BuiltinOid::TEXTOID],
);

/// Functions of this name, whatever their schema, their arguments and the case of their letters: some of them, for a message.
pub fn alike(name: &str) -> Result<Vec<Function>> {
    let alike: Vec<Oid> = identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            let found = spi.run(&ALIKE, params![name]);
            found.rows().map(|row| row.oid(1)).collect()
        }))
    })?;
    Ok(alike.into_iter().filter_map(function).collect())
}

/// The name of a schema, as SQL wants it written.
pub fn schema_name(schema: Oid) -> String {
    // SAFETY: a syscache look-up; a palloc'd name, or null.
    let name = unsafe { text::from_c(pg_sys::get_namespace_name(schema)) };
    identifier::quoted(&name)
}

/// Whether a schema holds temporary objects, of whatever session.
pub fn is_temporary_schema(schema: Oid) -> bool {
    // SAFETY: a syscache look-up.
    unsafe { pg_sys::isAnyTempNamespace(schema) }
}

/// Whether a type has no values of its own: trigger, cstring, anyelement, void, record, …
pub fn is_pseudo_type(oid: Oid) -> bool {
    // SAFETY: a syscache look-up.
    unsafe { pg_sys::get_typtype(oid) as u8 == pg_sys::TYPTYPE_PSEUDO }
}

/// The name of a type, as SQL wants it written.
pub fn type_name(oid: Oid) -> String {
    // SAFETY: a syscache look-up; answers a palloc'd name also for a type that is gone.
    identifier::quoting_little(|| unsafe { text::from_c(pg_sys::format_type_be(oid)) })
}

/// The function that `signature` names with its argument types, by the rules of regprocedure: the
/// current search path and the current user's rights. On an Error (bad syntax, no such type, no
/// right to the schema) the transaction must be rolled back: the caller raises it in its own words.
pub fn find_by_signature(signature: &str) -> Result<Option<Oid>> {
    identity::expect_no_owner();
    // SAFETY: to_regprocedure takes one text and answers an oid or NULL.
    caught(|| unsafe {
        let argument = Some(text::to_datum(signature));
        pgrx::direct_function_call::<Oid>(pg_sys::to_regprocedure, &[argument])
    })
}

/// How many functions of this name a user sees, whatever their arguments. An Error as above.
pub fn count_by_name(name: &str) -> Result<usize> {
    identity::expect_no_owner();
    let Ok(name) = std::ffi::CString::new(text::encode(name)) else {
        return Ok(0);
    };
    // SAFETY: parses the name as the server does; the list is palloc'd.
    caught(|| unsafe {
        let names = major::qualified_name(&name);
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
    })
}

/// The composite type pushy.job.
pub fn job_type() -> Option<Oid> {
    let relation = crate::pg::identity::public_relation("job")?;
    // SAFETY: a syscache look-up.
    let oid = unsafe { pg_sys::get_rel_type_id(relation) };
    (oid != Oid::INVALID).then_some(oid)
}
