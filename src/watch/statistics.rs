//! What the view pushy.watches shows of the counts in shared memory.

use std::sync::atomic::Ordering;

use crate::errors::Result;
use crate::shared::{self, watch_slot};
use crate::{row, sql_function};

sql_function!(pushy_watch_counts, |call| {
    let watch_id = call.opt_i32(0).unwrap_or_default();
    let slot = shared::get().and_then(|shared| shared.find_watch(watch_id));
    Result::Ok(match slot {
        None => call.answer_row(row![0i64, 0i64, 0i64, None::<i64>, None::<i64>]),
        Some(slot) => {
            let count =
                |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as i64;
            call.answer_row(row![
                count(&slot.notices),
                count(&slot.jobs),
                count(&slot.errors),
                watch_slot::time(&slot.last_told_at),
                watch_slot::time(&slot.last_error_at),
            ])
        }
    })
});

sql_function!(pushy_watch_is_home, |call| {
    let system = call.opt_i64(0).unwrap_or_default();
    let database = call.opt_oid(1).map_or(0, |oid| oid.to_u32());
    Result::Ok(
        system == crate::pg::database::system_identifier()
            && database == crate::pg::database::current(),
    )
});
