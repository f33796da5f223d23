//! What a running handler says of how far it is: kept in shared memory, seen at once, gone with the job.

use crate::errors::{Error, Result};
use crate::job::current;
use crate::job::log;
use crate::pg::function::Call;
use crate::pg::text;
use crate::shared;
use crate::shared::executor::{self, MESSAGE_BYTES};
use crate::sql_function;

fn progress(call: Call) -> Result<()> {
    let fraction = call
        .opt_f64(0)
        .ok_or_else(|| Error::null_argument("fraction"))?;
    if !(0.0..=1.0).contains(&fraction) {
        return Err(Error::out_of_range("fraction", fraction, "0 to 1"));
    }
    if current::id().is_none() {
        return Err(log::no_job("job_progress"));
    }
    let message = call.opt_bytes(1).unwrap_or_default();
    if let (Some(shared), Some(slot)) = (shared::get(), executor::mine()) {
        shared.executors[slot].set_progress(fraction, text::cut(&message, MESSAGE_BYTES));
    }
    Ok(())
}

sql_function!(pushy_job_progress_v1, |call| progress(call));
