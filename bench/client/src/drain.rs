//! The loop people write: lock the oldest jobs with FOR UPDATE SKIP LOCKED, do them, delete them, commit.

use futures::future::try_join_all;
use tokio_postgres::{Client, Statement};

use crate::{connect, told, Failure};

const CLAIM: &str =
    "SELECT id, args->>'n' FROM plain_job ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED";
const DELETE: &str = "DELETE FROM plain_job WHERE id = ANY ($1)";
const ONE_ROW: &str = "INSERT INTO written (n) VALUES ($1::text::int)";

pub async fn run(sessions: &str, batch: &str, handler: &str) -> Result<(), Failure> {
    let batch: i64 = batch.parse()?;
    let writes = handler == "one_row";
    let clients = try_join_all((0..sessions.parse()?).map(|_| connect())).await?;
    println!("ready");
    told().await?;
    println!("began");
    try_join_all(
        clients
            .into_iter()
            .map(|client| tokio::spawn(drain(client, batch, writes))),
    )
    .await?
    .into_iter()
    .collect::<Result<Vec<()>, Failure>>()?;
    println!("handled");
    told().await
}

/// One session's part, until nothing is left.
async fn drain(mut client: Client, batch: i64, writes: bool) -> Result<(), Failure> {
    let claim = client.prepare(CLAIM).await?;
    let delete = client.prepare(DELETE).await?;
    let one_row = client.prepare(ONE_ROW).await?;
    loop {
        let transaction = client.transaction().await?;
        let jobs = transaction.query(&claim, &[&batch]).await?;
        if jobs.is_empty() {
            return Ok(transaction.commit().await?);
        }
        if writes {
            // Pipelined: one round trip for all of them.
            try_join_all(
                jobs.iter()
                    .map(|job| write(&transaction, &one_row, job.get(1))),
            )
            .await?;
        }
        let done: Vec<i64> = jobs.iter().map(|job| job.get(0)).collect();
        transaction.execute(&delete, &[&done]).await?;
        transaction.commit().await?;
    }
}

async fn write(
    transaction: &tokio_postgres::Transaction<'_>,
    one_row: &Statement,
    n: &str,
) -> Result<(), Failure> {
    transaction.execute(one_row, &[&n]).await?;
    Ok(())
}
