//! The certificate: read anew on SIGHUP, and when its files were changed, for connections that come after.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use crate::lock;

/// The files are looked at no more often than this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    changed: [Option<(SystemTime, u64)>; 2],
    looked: Instant,
}

/// What came of a look at the files.
#[derive(Debug, PartialEq, Eq)]
pub enum Reload {
    Unchanged,
    Done,
    /// The old one stays.
    Failed(String),
}

fn load(cert: &PathBuf, key: &PathBuf) -> Result<Arc<ServerConfig>, String> {
    let shown =
        |path: &PathBuf, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let certs = CertificateDer::pem_file_iter(cert).map_err(|error| shown(cert, &error))?;
    let certs: Vec<CertificateDer<'static>> = certs
        .collect::<Result<_, _>>()
        .map_err(|error| shown(cert, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| shown(key, &error))?;
    let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions();
    let builder = versions
        .map_err(|error| error.to_string())?
        .with_no_client_auth();
    let mut config = builder
        .with_single_cert(certs, private)
        .map_err(|error| shown(cert, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Tls {
    pub fn read(cert: &str, key: &str) -> Result<Self, String> {
        let (cert, key) = (PathBuf::from(cert), PathBuf::from(key));
        let config = load(&cert, &key)?;
        let tls = Self {
            current: Mutex::new(Current {
                config,
                changed: [None, None],
                looked: Instant::now(),
            }),
            cert,
            key,
        };
        lock(&tls.current).changed = tls.changed();
        Ok(tls)
    }

    /// What another file would not have.
    fn changed(&self) -> [Option<(SystemTime, u64)>; 2] {
        [&self.cert, &self.key].map(|path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        })
    }

    pub fn reload(&self) -> Reload {
        let changed = self.changed();
        match load(&self.cert, &self.key) {
            Ok(config) => {
                let mut current = lock(&self.current);
                (current.config, current.changed) = (config, changed);
                Reload::Done
            }
            Err(why) => Reload::Failed(why),
        }
    }

    pub fn reload_if_changed(&self) -> Reload {
        let known = {
            let mut current = lock(&self.current);
            if current.looked.elapsed() < LOOK_AGAIN {
                return Reload::Unchanged;
            }
            current.looked = Instant::now();
            current.changed
        };
        if self.changed() == known {
            return Reload::Unchanged;
        }
        self.reload()
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(lock(&self.current).config.clone())
    }
}
