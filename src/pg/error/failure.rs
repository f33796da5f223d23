//! Errors that end a transaction of a worker, as data.

use pgrx::pg_sys::panic::CaughtError;
use pgrx::PgTryBuilder;

use crate::errors::{Error, SqlState};
use crate::pg::subtransaction::CallError;
use crate::pg::{panics, text};

/// An error that ended a transaction of a worker.
#[derive(Debug)]
pub struct Failure {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            sqlstate: error.sqlstate.0.to_owned(),
            message: error.message,
            detail: error.detail,
            hint: error.hint,
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self {
            sqlstate: error.sqlstate,
            message: error.message,
            detail: error.detail,
            hint: error.hint,
        }
    }
}

impl From<CaughtError> for Failure {
    fn from(caught: CaughtError) -> Self {
        if let CaughtError::RustPanic { payload, .. } = &caught {
            if let Some(error) = payload.downcast_ref::<CallError>() {
                return error.clone().into();
            }
            if let Some((message, detail)) = panics::description(&**payload) {
                return Self {
                    sqlstate: SqlState::INTERNAL_ERROR.0.to_owned(),
                    message,
                    detail,
                    hint: Some(panics::HINT.to_owned()),
                };
            }
        }
        let (report, read): (_, fn(&str) -> String) = match &caught {
            CaughtError::PostgresError(report) => (report, text::of_report),
            CaughtError::ErrorReport(report)
            | CaughtError::RustPanic {
                ereport: report, ..
            } => (report, str::to_owned),
        };
        Self {
            sqlstate: crate::pg::ereport::unpack_sqlstate(report.sql_error_code() as i32),
            message: read(report.message()),
            detail: report.detail().map(read),
            hint: report.hint().map(read),
        }
    }
}

/// Runs `work`, turning an ERROR or a panic inside into a Failure. Nothing is rolled back here.
pub fn catch<T>(work: impl FnOnce() -> T) -> std::result::Result<T, Failure> {
    PgTryBuilder::new(std::panic::AssertUnwindSafe(|| Ok(work())))
        .catch_others(|caught| Err(Failure::from(caught)))
        .catch_rust_panic(|caught| Err(Failure::from(caught)))
        .execute()
}

impl Failure {
    /// Somebody held a lock, and bookkeeping does not wait for that: come back later. A deadlock is the same.
    pub fn is_busy(&self) -> bool {
        const LOCK_NOT_AVAILABLE: &str = "55P03";
        const DEADLOCK_DETECTED: &str = "40P01";
        [LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED].contains(&self.sqlstate.as_str())
    }

    /// The error to raise again.
    pub fn into_error(self) -> Error {
        Error {
            sqlstate: SqlState::of_server(&self.sqlstate),
            message: self.message,
            detail: self.detail,
            hint: self.hint,
        }
    }
}
