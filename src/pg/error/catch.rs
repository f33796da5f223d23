//! Errors of the server and panics, caught as data.

use pgrx::pg_sys::panic::CaughtError;
use pgrx::PgTryBuilder;

use crate::errors::{Error, Result, SqlState};
use crate::pg::ereport::unpack_sqlstate;
use crate::pg::{panics, text};

fn as_data(caught: &CaughtError) -> Error {
    if let CaughtError::RustPanic { payload, .. } = caught {
        if let Some(error) = payload.downcast_ref::<Error>() {
            return error.clone();
        }
        if let Some((message, detail)) = panics::description(&**payload) {
            return Error {
                detail,
                ..Error::new(SqlState::INTERNAL_ERROR, message).hint(panics::HINT)
            };
        }
    }
    let (report, read): (_, fn(&str) -> String) = match caught {
        CaughtError::PostgresError(report) => (report, text::of_report),
        CaughtError::ErrorReport(report)
        | CaughtError::RustPanic {
            ereport: report, ..
        } => (report, str::to_owned),
    };
    let sqlstate = unpack_sqlstate(report.sql_error_code() as i32);
    Error {
        detail: report.detail().map(read),
        hint: report.hint().map(read),
        ..Error::new(sqlstate, read(report.message()))
    }
}

/// Runs `work` and answers an ERROR or a panic inside as data. Nothing is rolled back here.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T> {
    PgTryBuilder::new(std::panic::AssertUnwindSafe(|| Ok(work())))
        .catch_others(|caught| Err(as_data(&caught)))
        .catch_rust_panic(|caught| Err(as_data(&caught)))
        .execute()
}
