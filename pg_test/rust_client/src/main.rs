//! Scenarios of a Rust program that uses Pushy: `pushy-rust-client DSN` runs each in the database of the DSN,
//! prints a line for each, and exits with 1 if one failed.

mod scenarios;

use std::future::poll_fn;
use std::process::ExitCode;
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver};
use tokio_postgres::{AsyncMessage, Client, NoTls, Notification};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Opens sessions to one database.
#[derive(Clone)]
pub struct Server {
    dsn: String,
}

impl Server {
    pub async fn connect(&self) -> Result<Client, Failure> {
        let (client, connection) = tokio_postgres::connect(&self.dsn, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Server {
    /// A session whose notices come through a channel of the program.
    pub async fn listen(&self) -> Result<(Client, UnboundedReceiver<Notification>), Failure> {
        let (client, mut connection) = tokio_postgres::connect(&self.dsn, NoTls).await?;
        let (send, heard) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(notice) = message {
                    let _ = send.send(notice);
                }
            }
        });
        Ok((client, heard))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(dsn) = std::env::args().nth(1) else {
        eprintln!("usage: pushy-rust-client DSN");
        return ExitCode::from(2);
    };
    let server = Server { dsn };
    let mut failed = false;
    macro_rules! run {
        ($($scenario:ident),+ $(,)?) => {$(
            match scenarios::$scenario(&server).await {
                Ok(()) => println!("ok      {}", stringify!($scenario)),
                Err(failure) => {
                    failed = true;
                    println!("FAILED  {}: {failure:?}", stringify!($scenario));
                }
            }
        )+};
    }
    run!(
        a_committed_job_runs_and_returns_its_result,
        a_rolled_back_job_never_was,
        a_job_of_a_rolled_back_savepoint_never_was,
        a_prepared_transaction_owes_its_job_from_its_commit_on,
        sixteen_sessions_lose_no_job_and_run_none_twice,
        an_error_carries_its_sqlstate_and_hint,
        a_listener_hears_what_the_relay_tells,
    );
    ExitCode::from(u8::from(failed))
}
