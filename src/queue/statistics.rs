//! Counts, rates and latencies of queues, from shared memory: no job is read.

use std::sync::atomic::{AtomicU64, Ordering};

use pushy_core::histogram::{self, quantile};

use super::privilege::Privilege;
use super::{cache, eligibility, visible};
use crate::errors::Result;
use crate::params;
use crate::pg::function::{Answer, Call};
use crate::pg::spi::{self, Plan};
use crate::pg::value::Interval;
use crate::pg::{clock, identity, BuiltinOid};
use crate::shared;
use crate::shared::executor::ExecutorState;
use crate::shared::queue_slot::{QueueSlot, NOTHING};
use crate::shared::statistics::{Histogram, Statistics};
use crate::{row, sql_function};

sql_function!(pushy_queue_statistics_v2, |call| queue_statistics(call));
sql_function!(pushy_queue_running_v1, |call| queue_running(
    visible::asked(call)?
));

sql_function!(pushy_queue_histograms_v1, |call| queue_histograms(call));
sql_function!(pushy_queue_oldest_ready_v1, |call| oldest_ready(
    visible::asked(call)?
));

sql_function!(pushy_queue_obstacle_v1, |call| obstacle(visible::asked(
    call
)?));

/// What keeps a queue from running that nobody has stopped or parked, until somebody mends it: none of what waits for an executor. NULL
/// also for a queue that the caller may not see.
fn obstacle(queue_id: i32) -> Result<Option<String>> {
    let Some(cached) = visible::queue(queue_id, &Privilege::ALL)? else {
        return Ok(None);
    };
    if cached.slot.is_none() && shared::get().is_some() {
        return Ok(Some(format!("{}, and it found none", cache::all_taken())));
    }
    let ineligible = eligibility::check_session(&cached.definition).err();
    Ok(ineligible.map(|ineligible| ineligible.reason()))
}

/// One row; none for a queue that the caller may not monitor, and without the preload.
fn queue_statistics(call: Call) -> Result<Answer> {
    let found = find(visible::asked(call)?)?;
    call.answer_rows(|rows| {
        if let Some((slot, statistics)) = found {
            rows.put(&columns(slot, statistics));
        }
        Ok(())
    })
}

fn queue_running(queue_id: i32) -> Result<Option<i32>> {
    Ok(find(queue_id)?.map(|(slot, _)| running(slot) as i32))
}

/// What is shared of a queue that the caller may monitor.
fn find(queue_id: i32) -> Result<Option<(&'static QueueSlot, &'static Statistics)>> {
    let slot = visible::queue(queue_id, &[Privilege::Monitor])?.and_then(|cached| cached.slot);
    Ok(shared::get()
        .zip(slot)
        .map(|(shared, slot)| (&shared.queues()[slot], shared.statistics_of(slot))))
}

/// Who has jobs of the queue in hand. Of its permits more may be taken: by executors that look whether there is a job.
fn running(slot: &QueueSlot) -> usize {
    let (Some(shared), Some(key)) = (shared::get(), slot.key()) else {
        return 0;
    };
    let have_jobs = shared
        .executors
        .iter()
        .filter(|executor| executor.state() != ExecutorState::Free && executor.has_jobs_of(key));
    have_jobs.count() + slot.sessions() as usize
}

fn columns(slot: &QueueSlot, statistics: &Statistics) -> [Answer; 20] {
    let second = clock::now().0 as u64 / 1_000_000;
    let [wait_p50, wait_p95, wait_p99] = quantiles(&statistics.wait);
    let [run_p50, run_p95, run_p99] = quantiles(&statistics.run);
    let runs: u64 = statistics.run.counts().iter().sum();
    let mean = (runs > 0).then(|| Interval((read(&statistics.run_us) / runs as i64).max(0)));
    *row![
        running(slot) as i32,
        read(&statistics.enqueued),
        read(&statistics.completed),
        read(&statistics.failed),
        read(&statistics.retried),
        read(&statistics.discarded),
        read(&statistics.cancelled),
        read(&statistics.given_back),
        read(&statistics.run_again),
        read(&statistics.parked),
        read(&statistics.batches),
        statistics.rate(second, 60),
        wait_p50,
        wait_p95,
        wait_p99,
        mean,
        run_p50,
        run_p95,
        run_p99,
        read(&statistics.snoozed),
    ]
}

fn read(counter: &AtomicU64) -> i64 {
    counter.load(Ordering::Relaxed) as i64
}

fn quantiles(histogram: &Histogram) -> [Option<Interval>; 3] {
    let counts = histogram.counts();
    [0.5, 0.95, 0.99].map(|q| quantile(&counts, q).map(|us| Interval(us as i64)))
}

/// The bounds of what a monitor is told: 2^6 µs to 2^27.
const POWERS: std::ops::Range<u32> = 6..28;

fn queue_histograms(call: Call) -> Result<Answer> {
    let found = find(visible::asked(call)?)?;
    call.answer_rows(|rows| {
        let Some((_, statistics)) = found else {
            return Ok(());
        };
        let run_seconds = read(&statistics.run_us) as f64 / 1e6;
        for (of, counted, sum) in [
            ("wait", &statistics.wait, None),
            ("run", &statistics.run, Some(run_seconds)),
        ] {
            let counts = counted.counts();
            for power in POWERS {
                let seconds = (1u64 << power) as f64 / 1e6;
                let jobs = histogram::below(&counts, power) as i64;
                rows.put(row![of, seconds, jobs, Answer::Null]);
            }
            let jobs: u64 = counts.iter().sum();
            rows.put(row![of, f64::INFINITY, jobs as i64, sum]);
        }
        Ok(())
    })
}

static FIRST_READY: Plan = Plan::new(
    "SELECT (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) j.run_at) \
               OPERATOR(pg_catalog.*) 1000000::pg_catalog.float8)::pg_catalog.int8 FROM pushy_internal.live_job j \
      WHERE j.queue_id OPERATOR(pg_catalog.=) $1 AND j.priority OPERATOR(pg_catalog.=) $2::pg_catalog.int2 AND j.position OPERATOR(pg_catalog.>=) $3 \
      ORDER BY j.position LIMIT 1",
    &[BuiltinOid::INT4OID, BuiltinOid::INT4OID, BuiltinOid::INT8OID],
);

/// From each watermark on, one look into the index: what executors have in hand lies before it.
fn oldest_ready(queue_id: i32) -> Result<Option<f64>> {
    let Some((slot, _)) = find(queue_id)? else {
        return Ok(None);
    };
    let marks: Vec<(i32, i64)> = (0..)
        .zip(&slot.low)
        .map(|(priority, low)| (priority, low.load(Ordering::SeqCst)))
        .filter(|(_, low)| *low != NOTHING)
        .map(|(priority, low)| (priority, i64::try_from(low).unwrap_or(i64::MAX)))
        .collect();
    identity::as_owner(|| {
        let age = |(priority, low): (i32, i64)| {
            spi::connect(|spi| {
                let found = spi.run(&FIRST_READY, params![queue_id, priority, low]);
                found.first().map_or(0, |row| row.i64(1))
            })
        };
        let oldest_us = marks.into_iter().map(age).max().unwrap_or(0);
        Ok(Some(oldest_us.max(0) as f64 / 1e6))
    })
}
