//! The bench's own client programs over tokio-postgres: `drain OPTIONS` and `load OPTIONS`, by PGHOST and the like.

mod drain;
mod load;

use std::process::ExitCode;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_postgres::{Client, NoTls};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A session to the database that the environment names.
pub async fn connect() -> Result<Client, Failure> {
    let of = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let (client, connection) = tokio_postgres::Config::new()
        .host(of("PGHOST")?)
        .port(of("PGPORT")?.parse()?)
        .dbname(of("PGDATABASE")?)
        .user(of("PGUSER")?)
        .connect(NoTls)
        .await?;
    tokio::spawn(connection);
    Ok(client)
}

/// One line from the bench.
pub async fn told() -> Result<(), Failure> {
    BufReader::new(tokio::io::stdin())
        .lines()
        .next_line()
        .await?;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["drain", sessions, batch, handler] => drain::run(sessions, batch, handler).await,
        ["load", rate, jobs, sessions, sql] => load::run(rate, jobs, sessions, sql).await,
        _ => Err("usage: drain SESSIONS BATCH HANDLER | load RATE JOBS SESSIONS SQL".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
