//! Carrying out cancels that were promised and struck no running job.

use crate::job::cancel;
use crate::pg::failure::Failure;
use crate::pg::transaction;
use crate::pg::{database, identity};
use crate::shared::cancels::Promise;
use crate::shared::Shared;

/// Carries out what can be; answers the rest, which somebody has locked, and why it failed if it did.
pub fn carry_out(shared: &Shared, promises: &[Promise]) -> (Vec<Promise>, Result<(), Failure>) {
    if promises.is_empty() {
        return (Vec::new(), Ok(()));
    }
    let jobs: Vec<i64> = promises.iter().map(|promise| promise.job).collect();
    let locked = transaction::run(|| identity::as_owner(|| cancel::carry_out(&jobs)));
    let (rest, done): (Vec<Promise>, Vec<Promise>) = promises.iter().partition(|promise| {
        let locked = locked.as_ref();
        locked.map_or(true, |locked| locked.contains(&promise.job))
    });
    for promise in done {
        shared.cancels.free(promise.place);
    }
    (rest, locked.map(|_| ()))
}

/// Leaves cancels to the scheduler.
pub fn leave(shared: &Shared, promises: &[Promise]) {
    for promise in promises {
        shared.leave_cancel(*promise, database::current());
    }
}
