//! pushy-gateway: see docs/gateway.md.

use std::future::Future;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::Arc;

use pushy_gateway::gateway::Gateway;
use pushy_gateway::hub::pump;
use pushy_gateway::report;
use pushy_gateway::serve::listen;
use pushy_gateway::serve::tls::Tls;
use pushy_gateway::settings::{Settings, TABLE};
use pushy_gateway::source::framed::Framed;
use pushy_gateway::source::postgres::Postgres;
use pushy_gateway::source::{Source, SourceError};
use tokio::net::{TcpListener, UnixStream};
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::oneshot;

fn main() -> ExitCode {
    if std::env::args()
        .skip(1)
        .any(|argument| argument == "--help")
    {
        help();
        return ExitCode::SUCCESS;
    }
    if std::env::args()
        .skip(1)
        .any(|argument| argument == "--version")
    {
        let _ = writeln!(
            std::io::stdout(),
            "pushy-gateway {}",
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::SUCCESS;
    }
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "pushy-gateway: {why}");
            ExitCode::FAILURE
        }
    }
}

fn help() {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "pushy-gateway --dsn postgresql://gateway@host/app [--name value …]\n\nSettings, also as PUSHY_GATEWAY_NAME:\n");
    for (name, default, what) in TABLE {
        let default = if default.is_empty() {
            String::new()
        } else {
            format!(" [{default}]")
        };
        let _ = writeln!(
            out,
            "  --{}{default}\n       {}",
            name.replace('_', "-"),
            what.trim()
        );
    }
}

fn start() -> Result<(), String> {
    let settings = Settings::read(std::env::vars(), std::env::args().skip(1))?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if settings.threads > 0 {
        builder.worker_threads(settings.threads);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let ended = runtime.block_on(run(settings));
    // Sockets that have not gone by now are not waited for.
    runtime.shutdown_background();
    ended
}

/// When the server's worker ends, at the other end of standard input.
type Over = oneshot::Receiver<SourceError>;

async fn source(settings: &Settings) -> Result<(Arc<dyn Source>, Option<Over>), String> {
    if !settings.dsn.is_empty() {
        return Ok((
            Arc::new(Postgres::new(&settings.dsn, &settings.dsn_root_cert)?),
            None,
        ));
    }
    let usage = |_| "set --dsn, or let the server start it: see --help".to_owned();
    let stdin = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| error.to_string())?;
    let stream = std::os::unix::net::UnixStream::from(stdin);
    // Something else than a socket has no such address.
    stream.local_addr().map_err(usage)?;
    stream
        .set_nonblocking(true)
        .map_err(|error| error.to_string())?;
    let stream = UnixStream::from_std(stream).map_err(|error| error.to_string())?;
    let (framed, over) = Framed::open(stream)
        .await
        .map_err(|error| error.to_string())?;
    Ok((framed, Some(over)))
}

async fn run(settings: Settings) -> Result<(), String> {
    let tls = if settings.has_tls() {
        Some(Arc::new(Tls::read(&settings.tls_cert, &settings.tls_key)?))
    } else {
        None
    };
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
    let (source, over) = source(&settings).await?;
    let gateway = Gateway::new(settings, source);
    let address = listener
        .local_addr()
        .map_or_else(|_| String::new(), |address| address.to_string());
    gateway.say(&format!("listens on {address}"));
    let stopping = || gateway.stopping.subscribe();
    keep(&gateway, pump::run(gateway.clone(), stopping()));
    keep(&gateway, report::run(gateway.clone(), stopping()));
    let of_presence = gateway.clone();
    keep(&gateway, async move { of_presence.presence.run().await });
    let signals = signals(gateway.clone(), tls.clone())?;
    tokio::spawn(signals);
    if let Some(over) = over {
        let ending = gateway.clone();
        tokio::spawn(async move {
            let _ = over.await;
            ending.say("the server has ended");
            ending.stop();
        });
    }
    listen::serve(gateway.clone(), listener, tls).await;
    if gateway.has_failed() {
        return Err("a part of it has ended by a fault".to_owned());
    }
    Ok(())
}

/// Without one of these a gateway would look as if it were well: it ends, and another one comes.
fn keep(gateway: &Arc<Gateway>, part: impl Future<Output = ()> + Send + 'static) {
    let (gateway, part) = (gateway.clone(), tokio::spawn(part));
    tokio::spawn(async move {
        if part.await.is_err_and(|error| error.is_panic()) {
            gateway.fail();
        }
    });
}

fn signals(
    gateway: Arc<Gateway>,
    tls: Option<Arc<Tls>>,
) -> Result<impl std::future::Future<Output = ()>, String> {
    let of = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut term, mut int, mut hup) = (
        of(SignalKind::terminate())?,
        of(SignalKind::interrupt())?,
        of(SignalKind::hangup())?,
    );
    Ok(async move {
        loop {
            tokio::select! {
                _ = term.recv() => gateway.stop(),
                _ = int.recv() => gateway.stop(),
                _ = hup.recv() => if let Some(tls) = &tls {
                    listen::told(&gateway, &tls.reload());
                },
            }
        }
    })
}
