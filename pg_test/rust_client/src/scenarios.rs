//! One function per scenario. Each registers queues of its own.

use crate::{Failure, Server};
use serde_json::{json, Value};
use std::collections::BTreeSet;
use tokio_postgres::Client;

const SESSIONS: i32 = 16;
const JOBS_PER_SESSION: i32 = 100;

/// Registers `queue` with a plpgsql handler of this body.
async fn register(client: &Client, queue: &str, body: &str) -> Result<(), Failure> {
    client
        .batch_execute(&format!(
            "CREATE FUNCTION {queue}_handler(args jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN {body} END$$;
             SELECT pushy.queue_register('{queue}', '{queue}_handler(jsonb)')"
        ))
        .await?;
    Ok(())
}

async fn enqueue(
    client: &impl tokio_postgres::GenericClient,
    queue: &str,
    args: &Value,
) -> Result<i64, Failure> {
    let row = client
        .query_one("SELECT pushy.enqueue($1, $2)", &[&queue, args])
        .await?;
    Ok(row.get(0))
}

/// Waits for a job; its state and result.
async fn job_wait(client: &Client, job: i64) -> Result<(String, Option<Value>), Failure> {
    let row = client
        .query_one(
            "SELECT state::text, result FROM pushy.job_wait($1, '30 seconds')",
            &[&job],
        )
        .await?;
    Ok((row.get(0), row.get(1)))
}

async fn job_count(client: &Client, queue: &str) -> Result<i64, Failure> {
    let row = client
        .query_one(
            "SELECT count(*) FROM pushy.jobs WHERE queue = $1",
            &[&queue],
        )
        .await?;
    Ok(row.get(0))
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, expected: T) -> Result<(), Failure> {
    if seen == expected {
        return Ok(());
    }
    Err(format!("{what}: {seen:?} instead of {expected:?}").into())
}

pub async fn a_committed_job_runs_and_returns_its_result(server: &Server) -> Result<(), Failure> {
    let mut client = server.connect().await?;
    register(
        &client,
        "rust_commit",
        "RETURN jsonb_build_object('twice', 2 * (args->>'n')::int);",
    )
    .await?;
    let transaction = client.transaction().await?;
    let job = enqueue(&transaction, "rust_commit", &json!({"n": 21})).await?;
    transaction.commit().await?;
    expect(
        "outcome",
        job_wait(&client, job).await?,
        ("completed".into(), Some(json!({"twice": 42}))),
    )
}

pub async fn a_rolled_back_job_never_was(server: &Server) -> Result<(), Failure> {
    let mut client = server.connect().await?;
    register(&client, "rust_rollback", "RETURN NULL;").await?;
    let transaction = client.transaction().await?;
    enqueue(&transaction, "rust_rollback", &json!({})).await?;
    transaction.rollback().await?;
    expect("jobs", job_count(&client, "rust_rollback").await?, 0)
}

pub async fn a_job_of_a_rolled_back_savepoint_never_was(server: &Server) -> Result<(), Failure> {
    let mut client = server.connect().await?;
    register(&client, "rust_savepoint", "RETURN args;").await?;
    let mut transaction = client.transaction().await?;
    let kept = enqueue(&transaction, "rust_savepoint", &json!("kept")).await?;
    let savepoint = transaction.savepoint("before_the_other").await?;
    enqueue(&savepoint, "rust_savepoint", &json!("undone")).await?;
    savepoint.rollback().await?;
    transaction.commit().await?;
    expect(
        "outcome",
        job_wait(&client, kept).await?,
        ("completed".into(), Some(json!("kept"))),
    )?;
    expect("jobs", job_count(&client, "rust_savepoint").await?, 1)
}

pub async fn a_prepared_transaction_owes_its_job_from_its_commit_on(
    server: &Server,
) -> Result<(), Failure> {
    let client = server.connect().await?;
    register(&client, "rust_prepared", "RETURN args;").await?;
    client.batch_execute("BEGIN").await?;
    let job = enqueue(&client, "rust_prepared", &json!(1)).await?;
    client
        .batch_execute("PREPARE TRANSACTION 'rust_prepared'")
        .await?;
    expect(
        "jobs before COMMIT PREPARED",
        job_count(&client, "rust_prepared").await?,
        0,
    )?;
    client
        .batch_execute("COMMIT PREPARED 'rust_prepared'")
        .await?;
    // The sweep finds it (at most a minute later), or the next commit that enqueues does: this one.
    let next = enqueue(&client, "rust_prepared", &json!(2)).await?;
    expect(
        "the next job",
        job_wait(&client, next).await?,
        ("completed".into(), Some(json!(2))),
    )?;
    client
        .batch_execute("CALL pushy.jobs_wait('rust_prepared', '90 seconds')")
        .await?;
    expect(
        "the prepared job",
        job_wait(&client, job).await?,
        ("completed".into(), Some(json!(1))),
    )
}

pub async fn sixteen_sessions_lose_no_job_and_run_none_twice(
    server: &Server,
) -> Result<(), Failure> {
    let client = server.connect().await?;
    client
        .batch_execute("CREATE TABLE rust_ledger (session int, n int, job bigint)")
        .await?;
    register(
        &client,
        "rust_ledger_queue",
        "INSERT INTO public.rust_ledger VALUES ((args->>'session')::int, (args->>'n')::int, (pushy.current_job()).id);
         RETURN NULL;",
    )
    .await?;

    let sessions: Vec<_> = (0..SESSIONS)
        .map(|session| tokio::spawn(enqueue_share(server.clone(), session)))
        .collect();
    let mut enqueued = BTreeSet::new();
    for session in sessions {
        enqueued.extend(session.await??);
    }
    client
        .batch_execute("CALL pushy.jobs_wait('rust_ledger_queue', '60 seconds')")
        .await?;

    let rows = client.query("SELECT job FROM rust_ledger", &[]).await?;
    let ran: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    expect(
        "entries in the ledger",
        rows.len(),
        (SESSIONS * JOBS_PER_SESSION / 2) as usize,
    )?;
    expect("jobs that ran", ran, enqueued)
}

/// Enqueues the session's share; every second one is rolled back. The ids of the others.
async fn enqueue_share(server: Server, session: i32) -> Result<Vec<i64>, Failure> {
    let mut client = server.connect().await?;
    let mut committed = Vec::new();
    for n in 0..JOBS_PER_SESSION {
        let transaction = client.transaction().await?;
        let job = enqueue(
            &transaction,
            "rust_ledger_queue",
            &json!({"session": session, "n": n}),
        )
        .await?;
        if n % 2 == 0 {
            transaction.commit().await?;
            committed.push(job);
        } else {
            transaction.rollback().await?;
        }
    }
    Ok(committed)
}

pub async fn an_error_carries_its_sqlstate_and_hint(server: &Server) -> Result<(), Failure> {
    let client = server.connect().await?;
    let Err(error) = client
        .query("SELECT pushy.enqueue('no such queue')", &[])
        .await
    else {
        return Err("enqueue into a queue that does not exist was accepted".into());
    };
    let error = error.as_db_error().ok_or("not an error of the server")?;
    expect("SQLSTATE", error.code().code(), "42704")?;
    expect(
        "message names the queue",
        error.message().contains("no such queue"),
        true,
    )?;
    expect("has a hint", error.hint().is_some(), true)
}

pub async fn a_listener_hears_what_the_relay_tells(server: &Server) -> Result<(), Failure> {
    let (listener, mut heard) = server.listen().await?;
    listener.batch_execute("LISTEN \"Rust\"").await?;
    let mut writer = server.connect().await?;
    let notify = "SELECT pushy.notify('\"Rust\"', $1, delivery => 'relay')";
    for n in 0..200 {
        let transaction = writer.transaction().await?;
        transaction.execute(notify, &[&format!("{n}")]).await?;
        if n % 2 == 0 {
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
    }
    for n in (0..200).step_by(2) {
        let notice = tokio::time::timeout(std::time::Duration::from_secs(30), heard.recv()).await?;
        let notice = notice.ok_or("the session ended")?;
        let seen = (notice.channel().to_owned(), notice.payload().to_owned());
        expect("notice", seen, ("Rust".to_owned(), format!("{n}")))?;
    }
    Ok(())
}
