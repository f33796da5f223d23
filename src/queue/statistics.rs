//! Counts, rates and latencies of queues since the server started, from shared memory: no job is read.

use std::sync::atomic::{AtomicU64, Ordering};

use pushy_core::histogram::quantile;

use super::privilege::Privilege;
use super::visible;
use crate::errors::Result;
use crate::pg::clock;
use crate::pg::function::{Answer, Call};
use crate::pg::value::Interval;
use crate::shared::queue_slot::{Histogram, QueueSlot};
use crate::shared::{self, Shared};
use crate::{row, sql_function};

sql_function!(pushy_stat_rows, |call| stat_rows(call));

/// A row per queue that the caller may monitor; none without the preload.
fn stat_rows(call: Call) -> Result<Answer> {
    call.answer_rows(|rows| {
        let Some(shared) = shared::get() else {
            return Ok(());
        };
        let second = clock::now().0 as u64 / 1_000_000;
        for queue in visible::with(Privilege::Monitor)? {
            // A queue that nobody has used since the start has no slot yet.
            if let Some(slot) = slot_of(shared, &queue) {
                rows.put(&columns(queue.queue_id, &queue.name, slot, second));
            }
        }
        Ok(())
    })
}

fn slot_of<'a>(shared: &'a Shared, queue: &super::definition::Definition) -> Option<&'a QueueSlot> {
    shared
        .find_queue(queue.key())
        .map(|index| &shared.queues()[index])
}

fn columns(queue_id: i32, queue: &str, slot: &QueueSlot, second: u64) -> [Answer; 18] {
    let statistics = &slot.statistics;
    let [wait_p50, wait_p95, wait_p99] = quantiles(&statistics.wait);
    let [run_p50, run_p95, run_p99] = quantiles(&statistics.run);
    let runs: u64 = statistics.run.counts().iter().sum();
    let mean = (runs > 0).then(|| Interval((read(&statistics.run_us) / runs as i64).max(0)));
    *row![
        queue_id,
        queue,
        slot.running.load(Ordering::Relaxed) as i32,
        read(&statistics.enqueued),
        read(&statistics.completed),
        read(&statistics.failed),
        read(&statistics.retried),
        read(&statistics.discarded),
        read(&statistics.cancelled),
        read(&statistics.batches),
        statistics.rate(second, 60),
        wait_p50,
        wait_p95,
        wait_p99,
        mean,
        run_p50,
        run_p95,
        run_p99,
    ]
}

fn read(counter: &AtomicU64) -> i64 {
    counter.load(Ordering::Relaxed) as i64
}

fn quantiles(histogram: &Histogram) -> [Option<Interval>; 3] {
    let counts = histogram.counts();
    [0.5, 0.95, 0.99].map(|q| quantile(&counts, q).map(|us| Interval(us as i64)))
}
