//! Enqueues at a fixed rate, whatever the server does (an open loop), and tells when each job was committed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::try_join_all;
use tokio_postgres::Client;

use crate::{connect, told, Failure};

/// `sql` takes the job's number as $1. The clock is read before COMMIT; times are µs since 1970.
pub async fn run(rate: &str, jobs: &str, sessions: &str, sql: &str) -> Result<(), Failure> {
    let (rate, jobs, sessions): (f64, usize, usize) =
        (rate.parse()?, jobs.parse()?, sessions.parse()?);
    let clients = try_join_all((0..sessions).map(|_| connect())).await?;
    println!("ready");
    told().await?;
    let begin = Instant::now() + Duration::from_millis(10);
    let loads = clients.into_iter().enumerate().map(|(session, client)| {
        let numbers = (session..jobs).step_by(sessions).collect();
        tokio::spawn(load(client, sql.to_owned(), numbers, begin, rate))
    });
    for commits in try_join_all(loads).await? {
        for (n, microseconds) in commits? {
            println!("{n} {microseconds}");
        }
    }
    Ok(())
}

async fn load(
    client: Client,
    sql: String,
    numbers: Vec<usize>,
    begin: Instant,
    rate: f64,
) -> Result<Vec<(usize, u128)>, Failure> {
    let enqueue = client.prepare(&sql).await?;
    client.batch_execute("SET synchronous_commit = off").await?;
    let mut commits = Vec::with_capacity(numbers.len());
    for n in numbers {
        keep_pace(begin + Duration::from_secs_f64(n as f64 / rate)).await;
        client.batch_execute("BEGIN").await?;
        client.execute(&enqueue, &[&(n as i32)]).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        client.batch_execute("COMMIT").await?;
        commits.push((n, now));
    }
    Ok(commits)
}

/// The pace of the open loop: sleeps until the next job is due. tokio's timer counts milliseconds: the last
/// one is left to the system's.
async fn keep_pace(when: Instant) {
    let left = when.saturating_duration_since(Instant::now());
    if left > Duration::from_millis(2) {
        tokio::time::sleep(left - Duration::from_millis(2)).await;
    }
    let left = when.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        let _ = tokio::task::spawn_blocking(move || std::thread::sleep(left)).await;
    }
}
