//! A subtransaction around user code, and an error in it as data.

use pgrx::pg_sys;

/// What user code failed with, exactly as it was raised.
#[derive(Clone, Debug, Default)]
pub struct CallError {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub context: Option<String>,
}

impl From<super::transaction::Failure> for CallError {
    fn from(failure: super::transaction::Failure) -> Self {
        Self {
            sqlstate: failure.sqlstate,
            message: failure.message,
            detail: failure.detail,
            hint: failure.hint,
            context: None,
        }
    }
}

/// Runs `work` in a subtransaction with a snapshot of its own: kept when it answers Ok, else undone.
/// Memory context and resource owner are as before afterwards.
pub fn run<T>(work: impl FnOnce() -> Result<T, CallError>) -> Result<T, CallError> {
    // SAFETY: the protocol of plpgsql's exception blocks (pl_exec.c, exec_stmt_block).
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());

        let result = match super::transaction::catch(work) {
            Ok(result) => result,
            Err(failure) => Err(CallError::from(failure)),
        };

        if result.is_ok() {
            pg_sys::PopActiveSnapshot();
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}
