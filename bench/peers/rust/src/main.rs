//! graphile_worker of crates.io: `install`, or `work OPTIONS`. Settings are those of its own benchmark of
//! throughput (benches/perf_test.rs): local queue, batched completion, many jobs at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use graphile_worker::{IntoTaskHandlerResult, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::io::{AsyncBufReadExt, BufReader};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Counts the jobs handled; tells the first and the last.
#[derive(Clone, Debug)]
struct Count {
    jobs: u64,
    began: Arc<AtomicU64>,
    handled: Arc<AtomicU64>,
}

impl Count {
    fn begin(&self) {
        if self.began.load(Ordering::Relaxed) == 0 && self.began.fetch_add(1, Ordering::Relaxed) == 0 {
            println!("began");
        }
    }

    fn end(&self) {
        if self.handled.fetch_add(1, Ordering::Relaxed) + 1 == self.jobs {
            println!("handled");
        }
    }
}

#[derive(Clone, Debug)]
struct Pool(PgPool);

#[derive(Deserialize, Serialize)]
struct Noop {}

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let count = context.get_ext::<Count>().expect("set by main");
        count.begin();
        count.end();
        Ok::<(), String>(())
    }
}

#[derive(Deserialize, Serialize)]
struct OneRow {
    n: i32,
}

impl TaskHandler for OneRow {
    const IDENTIFIER: &'static str = "one_row";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let count = context.get_ext::<Count>().expect("set by main");
        count.begin();
        let pool = context.get_ext::<Pool>().expect("set by main");
        sqlx::query("INSERT INTO written (n) VALUES ($1)")
            .bind(self.n)
            .execute(&pool.0)
            .await
            .map_err(|error| error.to_string())?;
        count.end();
        Ok::<(), String>(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next();
    let options: serde_json::Value = serde_json::from_str(&arguments.next().unwrap_or("{}".into()))?;
    let pool = PgPoolOptions::new()
        .min_connections(10)
        .max_connections(20)
        .connect_with(PgConnectOptions::new())
        .await?;
    let count = Count {
        jobs: options["jobs"].as_u64().unwrap_or(0),
        began: Arc::default(),
        handled: Arc::default(),
    };
    let batch_delay = Duration::from_millis(5);
    let worker = WorkerOptions::default()
        .pg_pool(pool.clone())
        .concurrency(500)
        .poll_interval(Duration::from_millis(5))
        .complete_job_batch_delay(batch_delay)
        .fail_job_batch_delay(batch_delay)
        .local_queue(LocalQueueConfig::default().with_size(5000))
        .add_extension(count)
        .add_extension(Pool(pool))
        .define_job::<Noop>()
        .define_job::<OneRow>()
        .init()
        .await?;
    if verb.as_deref() == Some("install") {
        return Ok(());
    }
    let worker = Arc::new(worker);
    let mut told = BufReader::new(tokio::io::stdin()).lines();
    println!("ready");
    told.next_line().await?;
    let running = tokio::spawn({
        let worker = worker.clone();
        async move { worker.run().await }
    });
    println!("running");
    told.next_line().await?;
    worker.request_shutdown();
    tokio::time::timeout(Duration::from_secs(10), running).await???;
    Ok(())
}
