//! The source as a client of the database, from outside: two connections, one that waits and reads for all sockets, one that answers questions.
//! Both are of one server: they come together, and go together.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use pushy_core::log::cursor::Cursor;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::CertificateDer;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{
    Answer, Ask, Chunk, Event, KeyText, Metric, Reader, Redeemed, Report, Source, SourceError,
    Verdict,
};
use crate::lock;
use crate::notice::Notice;

/// All that the gateway says to the database.
mod sql {
    pub const POSITION: &str = "SELECT pushy_internal.gateway_position()";
    pub const WAIT: &str = "CALL pushy_internal.log_wait($1::text, NULL, NULL, make_interval(secs => $2::float8), NULL)";
    /// In order; a row with `resync` has but its cursor. The end is in the last row, whose channel is NULL.
    pub const READ: &str = "SELECT cursor, channel, topic, payload, at, resync FROM pushy_internal.log_read(after => $1::text, max_notices => $2::int)";
    pub const AUTHORIZE: &str =
        "SELECT allowed, reason, channel, since FROM pushy_internal.gateway_authorize($1::text, $2::text, $3::text, $4::text[])";
    pub const REDEEM: &str =
        "SELECT role, subject, channels, topics FROM pushy_internal.gateway_redeem($1::text)";
    pub const KEYS: &str =
        "SELECT name, algorithm, material, kid, issuer, audience, role_claim, role FROM pushy_internal.gateway_keys()";
    pub const METRICS: &str =
        "SELECT name, help, kind, labels::text, value FROM pushy_internal.gateway_metrics()";
    pub const REPORT: &str = "SELECT pushy_internal.gateway_report($1::text, $2::text, $3::text)";
}

/// Until a connection is there, or an answer that is no wait.
const PATIENCE: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection with what it has prepared.
struct Lane {
    client: Client,
    statements: Mutex<Vec<(&'static str, Statement)>>,
}

struct Session {
    pump: Lane,
    questions: Lane,
}

pub struct Postgres {
    config: Config,
    tls: MakeRustlsConnect,
    session: AsyncMutex<Option<Arc<Session>>>,
}

/// What an error may say: no value of a statement, no address with a password.
fn refused(error: &tokio_postgres::Error) -> SourceError {
    match error.as_db_error() {
        Some(said) => SourceError::Failed(format!("{}: {}", said.code().code(), said.message())),
        None => SourceError::Away(error.to_string()),
    }
}

/// What somebody has said is the reason, such as a character that the database's encoding does not have: all others go on.
fn is_of_values(error: &tokio_postgres::Error) -> bool {
    let code = error.code().map_or("", |code| code.code());
    code.starts_with("22") || code.starts_with("54")
}

fn roots(file: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if file.is_empty() {
        for cert in rustls_native_certs::load_native_certs().certs {
            // One of the machine's that is none is not trusted.
            let _ = roots.add(cert);
        }
        return Ok(roots);
    }
    let certs = CertificateDer::pem_file_iter(file).map_err(|error| format!("{file}: {error}"))?;
    for cert in certs {
        let cert = cert.map_err(|error| format!("{file}: {error}"))?;
        roots
            .add(cert)
            .map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(roots)
}

/// Over Unix sockets there is no TLS, nor a name that a certificate could be for.
fn is_local(config: &Config) -> bool {
    let is_socket = |host: &Host| matches!(host, Host::Unix(_));
    let hosts = config.get_hosts();
    !hosts.is_empty() && hosts.iter().all(is_socket)
}

impl Lane {
    async fn connect(config: &Config, tls: &MakeRustlsConnect) -> Result<Self, SourceError> {
        let late = |_| SourceError::Away("no connection in time".to_owned());
        let failed = |error| refused(&error);
        // A connection ends when its client is dropped; what went wrong, the next statement says.
        let client = if is_local(config) {
            let connected = timeout(PATIENCE, config.connect(NoTls)).await;
            let (client, connection) = connected.map_err(late)?.map_err(failed)?;
            tokio::spawn(async move {
                let _ = connection.await;
            });
            client
        } else {
            let connected = timeout(PATIENCE, config.connect(tls.clone())).await;
            let (client, connection) = connected.map_err(late)?.map_err(failed)?;
            tokio::spawn(async move {
                let _ = connection.await;
            });
            client
        };
        Ok(Self {
            client,
            statements: Mutex::default(),
        })
    }

    async fn prepared(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        let known = lock(&self.statements)
            .iter()
            .find(|(text, _)| *text == sql)
            .map(|(_, statement)| statement.clone());
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        lock(&self.statements).push((sql, statement.clone()));
        Ok(statement)
    }

    async fn rows(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let statement = self.prepared(sql).await?;
        self.client.query(&statement, values).await
    }
}

impl Postgres {
    pub fn new(dsn: &str, root_cert: &str) -> Result<Self, String> {
        let mut config: Config = dsn.parse().map_err(|_| {
            "dsn is no connection string, such as postgresql://gateway@host/app".to_owned()
        })?;
        config.application_name("pushy-gateway");
        config
            .keepalives(true)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE / 3)
            .keepalives_retries(3);
        config.connect_timeout(PATIENCE);
        let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions();
        let builder = versions.map_err(|error| error.to_string())?;
        let tls = builder
            .with_root_certificates(roots(root_cert)?)
            .with_no_client_auth();
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(tls),
            session: AsyncMutex::new(None),
        })
    }

    async fn session(&self) -> Result<Arc<Session>, SourceError> {
        let mut kept = self.session.lock().await;
        if let Some(session) = kept
            .as_ref()
            .filter(|one| !one.pump.client.is_closed() && !one.questions.client.is_closed())
        {
            return Ok(session.clone());
        }
        *kept = None;
        let session = Arc::new(Session {
            pump: Lane::connect(&self.config, &self.tls).await?,
            questions: Lane::connect(&self.config, &self.tls).await?,
        });
        *kept = Some(session.clone());
        Ok(session)
    }

    /// Statements prepared for functions of an older version of the extension fail: another session prepares them anew.
    async fn ask(
        &self,
        reader: Reader,
        limit: Duration,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, SourceError> {
        let session = self.session().await?;
        let lane = match reader {
            Reader::Pump => &session.pump,
            Reader::Replay => &session.questions,
        };
        let answered = timeout(limit, lane.rows(sql, values)).await;
        match answered {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => {
                if !is_of_values(&error) {
                    self.leave(&session).await;
                }
                Err(refused(&error))
            }
            Err(_) => {
                self.leave(&session).await;
                Err(SourceError::Away("no answer in time".to_owned()))
            }
        }
    }

    async fn leave(&self, session: &Arc<Session>) {
        let mut kept = self.session.lock().await;
        if kept.as_ref().is_some_and(|own| Arc::ptr_eq(own, session)) {
            *kept = None;
        }
    }
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: &str,
) -> Result<T, SourceError> {
    row.try_get(column)
        .map_err(|error| SourceError::Failed(format!("column {column}: {error}")))
}

fn cursor(text: &str) -> Result<Cursor, SourceError> {
    text.parse()
        .map_err(|_| SourceError::Failed(format!("\"{text}\" is no cursor")))
}

fn chunk(rows: &[Row], after: Cursor) -> Result<Chunk, SourceError> {
    let mut events = Vec::with_capacity(rows.len());
    let mut next = after;
    for row in rows {
        let at = cursor(get(row, "cursor")?)?;
        next = at;
        if get::<Option<bool>>(row, "resync")? == Some(true) {
            events.push(Event::Resync(at));
            continue;
        }
        let Some(channel) = get::<Option<&str>>(row, "channel")? else {
            continue;
        };
        let published: Option<std::time::SystemTime> = get(row, "at")?;
        let since = published.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let at_us = since.map_or(0, |since| {
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        });
        let (topic, payload) = (get(row, "topic")?, get::<Option<&str>>(row, "payload")?);
        let notice = match payload {
            Some(payload) => Notice::new(at, channel, topic, payload, at_us),
            None => Notice::too_long(at, channel, topic, at_us),
        };
        events.push(Event::Notice(Arc::new(notice)));
    }
    Ok(Chunk { events, next })
}

impl Source for Postgres {
    fn position(&self) -> Answer<'_, Cursor> {
        Box::pin(async {
            let rows = self.ask(Reader::Pump, PATIENCE, sql::POSITION, &[]).await?;
            let row = rows.first().ok_or_else(|| {
                SourceError::Failed("gateway_position() answers nothing".to_owned())
            })?;
            let text: &str = row
                .try_get(0)
                .map_err(|error| SourceError::Failed(error.to_string()))?;
            cursor(text)
        })
    }

    fn wait(&self, after: Cursor, at_most: Duration) -> Answer<'_, bool> {
        Box::pin(async move {
            let (after, seconds) = (after.to_string(), at_most.as_secs_f64());
            let rows = self
                .ask(
                    Reader::Pump,
                    at_most + PATIENCE,
                    sql::WAIT,
                    &[&after, &seconds],
                )
                .await?;
            Ok(rows
                .first()
                .and_then(|row| row.try_get("ready").ok())
                .unwrap_or(false))
        })
    }

    fn read(&self, reader: Reader, after: Cursor, max: u32) -> Answer<'_, Chunk> {
        Box::pin(async move {
            let max = i32::try_from(max).unwrap_or(i32::MAX);
            let rows = self
                .ask(reader, PATIENCE, sql::READ, &[&after.to_string(), &max])
                .await?;
            chunk(&rows, after)
        })
    }

    fn authorize(&self, ask: Ask) -> Answer<'_, Verdict> {
        Box::pin(async move {
            let values: [&(dyn ToSql + Sync); 4] =
                [&ask.role, &ask.subject, &ask.channel, &ask.topics];
            let asked = self.ask(Reader::Replay, PATIENCE, sql::AUTHORIZE, &values);
            let rows = match asked.await {
                Err(SourceError::Failed(why)) if why.starts_with("22") => {
                    let reason = "the database has no such channel, topic, role or subject";
                    return Ok(Verdict::Refused {
                        reason: reason.to_owned(),
                    });
                }
                asked => asked?,
            };
            let row = rows.first().ok_or_else(|| {
                SourceError::Failed("gateway_authorize() answers nothing".to_owned())
            })?;
            let channel: Option<String> = get(row, "channel")?;
            match (get::<Option<bool>>(row, "allowed")?, channel) {
                (Some(true), Some(channel)) => Ok(Verdict::Allowed {
                    channel,
                    since: get(row, "since")?,
                }),
                _ => Ok(Verdict::Refused {
                    reason: get::<Option<String>>(row, "reason")?
                        .unwrap_or_else(|| "refused".to_owned()),
                }),
            }
        })
    }

    fn redeem(&self, ticket: String) -> Answer<'_, Option<Redeemed>> {
        Box::pin(async move {
            let rows = self
                .ask(Reader::Replay, PATIENCE, sql::REDEEM, &[&ticket])
                .await?;
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            Ok(Some(Redeemed {
                role: get(row, "role")?,
                subject: get(row, "subject")?,
                channels: get(row, "channels")?,
                topics: get(row, "topics")?,
            }))
        })
    }

    fn keys(&self) -> Answer<'_, Vec<KeyText>> {
        Box::pin(async {
            let rows = self.ask(Reader::Pump, PATIENCE, sql::KEYS, &[]).await?;
            let key = |row: &Row| {
                Ok(KeyText {
                    name: get(row, "name")?,
                    algorithm: get(row, "algorithm")?,
                    material: get(row, "material")?,
                    kid: get(row, "kid")?,
                    issuer: get(row, "issuer")?,
                    audience: get(row, "audience")?,
                    role_claim: get(row, "role_claim")?,
                    role: get(row, "role")?,
                })
            };
            rows.iter().map(key).collect()
        })
    }

    fn metrics(&self) -> Answer<'_, Vec<Metric>> {
        Box::pin(async {
            let rows = self
                .ask(Reader::Replay, PATIENCE, sql::METRICS, &[])
                .await?;
            let metric = |row: &Row| {
                let labels: Option<&str> = get(row, "labels")?;
                let labels: std::collections::BTreeMap<String, String> =
                    serde_json::from_str(labels.unwrap_or("{}"))
                        .map_err(|error| SourceError::Failed(format!("labels: {error}")))?;
                Ok(Metric {
                    name: get(row, "name")?,
                    help: get(row, "help")?,
                    kind: get(row, "kind")?,
                    labels: labels.into_iter().collect(),
                    value: get(row, "value")?,
                })
            };
            rows.iter().map(metric).collect()
        })
    }

    fn report(&self, report: Report) -> Answer<'_, ()> {
        Box::pin(async move {
            let values: [&(dyn ToSql + Sync); 3] = [&report.sockets, &report.rooms, &report.in_all];
            self.ask(Reader::Replay, PATIENCE, sql::REPORT, &values)
                .await?;
            Ok(())
        })
    }
}
