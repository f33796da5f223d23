//! The certificate, and another one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pushy_gateway::serve::tls::{Reload, Tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{crypto::ring, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::stage::{token, Stage, PATIENCE};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("pushy-gateway-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self) -> rcgen::CertifiedKey<rcgen::KeyPair> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(self.0.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(self.0.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        made
    }

    fn read(&self) -> Result<Tls, String> {
        let file = |name: &str| Path::to_str(&self.0.join(name)).unwrap().to_owned();
        Tls::read(&file("cert.pem"), &file("key.pem"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn connect(
    stage: &Stage,
    trusted: &rcgen::CertifiedKey<rcgen::KeyPair>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(stage.address).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect("localhost".try_into().unwrap(), stream)
        .await
}

async fn open_stream(stream: &mut TlsStream<TcpStream>) {
    let head = format!("GET /events?channel=orders HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n", token("ann"));
    stream.write_all(head.as_bytes()).await.unwrap();
}

async fn until_heard(stream: &mut TlsStream<TcpStream>, what: &str) {
    let read = async {
        let mut heard = String::new();
        let mut buffer = [0; 4_096];
        while !heard.contains(what) {
            let n = stream.read(&mut buffer).await.unwrap();
            assert!(n > 0, "ended: {heard}");
            heard += &String::from_utf8_lossy(&buffer[..n]);
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .unwrap_or_else(|_| panic!("not heard: {what}"));
}

#[tokio::test]
async fn a_new_certificate_is_for_those_that_come_and_the_others_stay() {
    let folder = Folder::new("reload");
    let first = folder.write();
    let tls = Arc::new(folder.read().unwrap());
    let stage = Stage::open_with_tls(|_| {}, Some(tls.clone())).await;
    let mut stream = connect(&stage, &first).await.unwrap();
    open_stream(&mut stream).await;
    until_heard(&mut stream, "subscribed").await;
    let second = folder.write();
    assert_eq!(tls.reload(), Reload::Done);
    assert!(connect(&stage, &first).await.is_err());
    let mut other = connect(&stage, &second).await.unwrap();
    open_stream(&mut other).await;
    until_heard(&mut other, "subscribed").await;
    stage.memory.publish("orders", None, "to both of them");
    until_heard(&mut stream, "to both of them").await;
    until_heard(&mut other, "to both of them").await;
    // One that is none changes nothing.
    std::fs::write(folder.0.join("cert.pem"), "nonsense").unwrap();
    assert!(matches!(tls.reload(), Reload::Failed(_)));
    assert!(connect(&stage, &second).await.is_ok());
    // A key of another certificate neither.
    folder.write();
    std::fs::write(folder.0.join("key.pem"), first.signing_key.serialize_pem()).unwrap();
    assert!(matches!(tls.reload(), Reload::Failed(_)));
    assert!(connect(&stage, &second).await.is_ok());
}

#[tokio::test]
async fn who_does_not_speak_tls_is_not_waited_for() {
    let folder = Folder::new("plain");
    folder.write();
    let tls = Arc::new(folder.read().unwrap());
    let stage = Stage::open_with_tls(
        |settings| settings.header_timeout = std::time::Duration::from_millis(200),
        Some(tls),
    )
    .await;
    for said in ["", "GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("it is waited for");
    }
    stage
        .until("they are gone", |stage| {
            stage.gateway.connections.total() == 0
        })
        .await;
}
