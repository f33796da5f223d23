//! Pushy makes PostgreSQL push: a change becomes a notice, a notice or a call becomes a job, and jobs
//! run inside the server. This file is the table of contents.

mod errors;
mod pg;

::pgrx::pg_module_magic!(name, version);

sql_function!(pushy_demo, |call| {
    pg::identity::as_owner(|| Ok(call.text("x", 0)?))
});
