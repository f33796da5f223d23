//! Who is asking, what a role may do, and the one guard under which Pushy's own statements run.

mod acting;
mod extension;
mod privilege;
mod role;

pub use acting::{
    as_author, as_owner, as_owner_in_script, expect_no_owner, is_owner_acting, Author,
};
pub use extension::{
    expect_relation, extension_oid, extension_owner, fit, internal_relation, is_in_pushy,
    is_schema_of_pushy, owner_of, owns_extension, public_relation, quoted_name, relation_name,
    require_installed, send_script_changed,
};
pub use privilege::{
    accept_changes, has_rights_of, has_too_many_sessions, may_become, may_connect, may_execute,
    may_use_schema, reads_all_statistics,
};
pub use role::{
    authenticated_user, current_user, find, find_role, grantee, is_superuser, role, role_exists,
    role_name, role_name_or_null, session_user, Role,
};
