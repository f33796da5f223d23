//! sqlx: a pool of one session, statements that it keeps prepared, typed binds, its listener, and its migrations.
//! `sqlx SOCKETS PORT DATABASE` prints a line for each thing seen: its name and what it was.

use serde_json::{json, Value};
use sqlx::migrate::Migrator;
use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use sqlx::{query, query_scalar, PgConnection};
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

fn saw(what: &str, value: impl Into<Value>) {
    println!("{}", json!([what, value.into()]));
}

async fn one(pool: &PgPool, sql: &'static str) -> sqlx::Result<Value> {
    query_scalar(sql).fetch_one(pool).await
}

async fn enqueue(by: &mut PgConnection, n: i32) -> sqlx::Result<i64> {
    query_scalar("SELECT pushy.enqueue($1, $2)")
        .bind("q")
        .bind(json!({"n": n}))
        .fetch_one(by)
        .await
}

async fn job_wait(pool: &PgPool, job: i64) -> sqlx::Result<Value> {
    query_scalar(
        "SELECT jsonb_build_object('state', state, 'result', result) FROM pushy.job_wait($1)",
    )
    .bind(job)
    .fetch_one(pool)
    .await
}

async fn next(listener: &mut PgListener) -> Result<Value, Failure> {
    let notice = listener.recv().await?;
    let payload: Value = serde_json::from_str(notice.payload())?;
    Ok(json!({"channel": notice.channel(), "payload": payload}))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let options = PgConnectOptions::new_without_pgpass()
        .socket(&arguments[1])
        .port(arguments[2].parse()?)
        .database(&arguments[3])
        .username("postgres");
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options.clone())
        .await?;

    let mut transaction = pool.begin().await?;
    enqueue(&mut transaction, 1).await?;
    transaction.rollback().await?;
    let mut transaction = pool.begin().await?;
    let job = enqueue(&mut transaction, 2).await?;
    transaction.commit().await?;
    saw("committed", job_wait(&pool, job).await?);
    saw(
        "jobs",
        one(
            &pool,
            "SELECT jsonb_build_object('count', count(*)) FROM pushy.jobs",
        )
        .await?,
    );

    let job: i64 = query_scalar(
        "SELECT pushy.enqueue(queue => $1, args => $2, delay => $3, unique_key => $4)",
    )
    .bind("q")
    .bind(json!({"text": "it's ? :x $1"}))
    .bind(PgInterval {
        months: 0,
        days: 0,
        microseconds: 3_600_000_000,
    })
    .bind("k")
    .fetch_one(&pool)
    .await?;
    let named: Value = query_scalar("SELECT jsonb_build_object('args', args, 'delay', run_at - enqueued_at) FROM pushy.jobs WHERE id = $1")
        .bind(job)
        .fetch_one(&pool)
        .await?;
    saw("named", named);
    query("SELECT pushy.subscription_create($1, $2)")
        .bind("s")
        .bind(vec!["plain", "\"Item News\""])
        .execute(&pool)
        .await?;
    saw(
        "array",
        one(
            &pool,
            "SELECT jsonb_build_object('channels', channels) FROM pushy.subscriptions",
        )
        .await?,
    );

    query("SELECT pushy.queue_drop('q', force => true)")
        .execute(&pool)
        .await?;
    let refused = enqueue(&mut *pool.acquire().await?, 3).await.unwrap_err();
    saw(
        "dropped",
        refused
            .as_database_error()
            .and_then(|error| error.code())
            .as_deref(),
    );
    query("SELECT pushy.queue_register('q', 'see(jsonb)')")
        .execute(&pool)
        .await?;
    let job = enqueue(&mut *pool.acquire().await?, 3).await?;
    saw("registered", job_wait(&pool, job).await?);

    // Its listen quotes: the exact name, and not what to write after LISTEN.
    let mut listener = PgListener::connect_with(&PgPool::connect_lazy_with(options)).await?;
    let channel: String = query_scalar("SELECT channel_name FROM pushy.watches")
        .fetch_one(&pool)
        .await?;
    listener.listen(&channel).await?;
    query("INSERT INTO item (title, amount) VALUES ($1, $2)")
        .bind("a")
        .bind(1)
        .execute(&pool)
        .await?;
    saw("created", next(&mut listener).await?);
    query("UPDATE item SET title = $1")
        .bind("b")
        .execute(&pool)
        .await?;
    query("UPDATE item SET amount = $1")
        .bind(2)
        .execute(&pool)
        .await?;
    saw("updated", next(&mut listener).await?);

    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    Migrator::new(migrations).await?.run(&pool).await?;
    saw("watch", one(&pool, "SELECT jsonb_build_object('columns', columns, 'condition', condition, 'state', state) FROM pushy.watches").await?);
    query("UPDATE item SET total = $1")
        .bind(5_000_000_000_i64)
        .execute(&pool)
        .await?;
    saw("migrated", next(&mut listener).await?);
    query("ALTER TABLE item DROP title").execute(&pool).await?;
    query("UPDATE item SET total = $1")
        .bind(3_i64)
        .execute(&pool)
        .await?;
    saw("removed", next(&mut listener).await?);
    Ok(())
}
