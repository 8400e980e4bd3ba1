//! TLS and client certificates, renewed without a restart; and the exporter behind them.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use headhunt::{
    access::Role,
    clock::SystemClock,
    limits,
    rpc::Security,
    telemetry::{
        exporter,
        http::{Gate as _, Unwelcome},
    },
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::site::{Authority, Site, connect, held, replace, token};
use crate::common::{
    eventually,
    server::{TestServer, settings},
    within,
};

async fn health(channel: Channel) -> Result<(), Code> {
    let mut client = HealthClient::new(channel);
    let asked = client.check(HealthCheckRequest::default());
    within("health", asked)
        .await
        .map(drop)
        .map_err(|s| s.code())
}

/// Whether a client that believes this authority gets an answer. With TLS 1.3 a client learns only
/// from the first answer that its certificate was not taken.
async fn answers(port: u16, authority: &Authority, client: Option<(String, String)>) -> bool {
    match connect(port, authority, client).await {
        Ok(channel) => health(channel).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_plain_text_is_not() {
    let site = Site::new();
    let server = TestServer::start(&site.toml(true, false, false)).await;
    let port = server.address.port();
    assert!(answers(port, &site.authority, None).await);
    assert!(!answers(port, &Authority::new("other"), None).await);
    let plain = server.endpoint().connect_lazy();
    assert!(health(plain).await.is_err());
    // Whoever never finishes the handshake holds nobody up.
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let mut noise = TcpStream::connect(server.address).await.unwrap();
    noise
        .write_all(b"\x16\x03\x01\xff\xff nonsense")
        .await
        .unwrap();
    assert!(answers(port, &site.authority, None).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_are_asked_for_and_believed_from_one_authority() {
    let site = Site::new();
    let server = TestServer::start(&site.toml(true, false, true)).await;
    let port = server.address.port();
    let ours = site.authority.sign(false);
    let theirs = Authority::new("other").sign(false);
    assert!(answers(port, &site.authority, Some(ours)).await);
    assert!(!answers(port, &site.authority, None).await);
    assert!(!answers(port, &site.authority, Some(theirs)).await);
    // A server's certificate is none of a client.
    assert!(!answers(port, &site.authority, Some(site.authority.sign(true))).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_while_connections_go_on_and_a_broken_one_changes_nothing() {
    let site = Site::new();
    let server = TestServer::start(&site.toml(true, false, false)).await;
    let port = server.address.port();
    let running = connect(port, &site.authority, None).await.unwrap();
    assert_eq!(health(running.clone()).await, Ok(()));

    replace(
        &site.path("cert.pem"),
        "-----BEGIN CERTIFICATE-----\nbroken\n",
    );
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(answers(port, &site.authority, None).await);

    // Certificate first, key later: nothing that does not fit together is taken in between.
    let next = Authority::new("next");
    let (certificate, key) = next.sign(true);
    replace(&site.path("cert.pem"), &certificate);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(answers(port, &site.authority, None).await);
    assert!(!answers(port, &next, None).await);
    replace(&site.path("key.pem"), &key);
    eventually("the new certificate", || answers(port, &next, None)).await;
    assert!(!answers(port, &site.authority, None).await);
    assert_eq!(health(running).await, Ok(()));
    server.stop().await;
}

#[test]
fn what_cannot_be_used_is_refused_at_the_start_by_file() {
    let site = Site::new();
    let open = |site: &Site, tokens, clients| {
        let settings = settings(&site.toml(true, tokens, clients));
        let opened = Security::open(&settings.server, SystemClock::shared());
        opened.err().unwrap().to_string()
    };
    assert!(open(&site, true, false).contains("tokens.toml"));
    fs::write(site.path("tokens.toml"), "token = 3").unwrap();
    assert!(open(&site, true, false).contains("server.token_file"));
    fs::write(site.path("ca.pem"), "nothing").unwrap();
    assert!(open(&site, false, true).contains("server.tls_client_ca_file"));
    fs::write(site.path("key.pem"), site.authority.sign(true).1).unwrap();
    assert!(open(&site, false, false).contains("together"));
    fs::write(site.path("key.pem"), "").unwrap();
    assert!(open(&site, false, false).contains("server.tls_key_file"));
    fs::write(site.path("cert.pem"), "").unwrap();
    assert!(open(&site, false, false).contains("server.tls_cert_file"));
    fs::remove_file(site.path("cert.pem")).unwrap();
    assert!(open(&site, false, false).contains("cert.pem"));
}

/// An HTTPS request's status line and body.
async fn get(
    address: SocketAddr,
    authority: &Authority,
    path: &str,
    token: Option<&str>,
) -> String {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = within("TLS", connector.connect(name, socket))
        .await
        .unwrap();
    // Who shows no token is not asked: the exporter keeps connections of scrapers alone.
    let more = token.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\nConnection: close\r\n")
    });
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The end may come without TLS's own word for it.
    let _ = within("answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exporter_speaks_tls_and_asks_for_the_role_observe() {
    let site = Site::new();
    site.write_tokens(
        &(held("eye", &[Role::Observe], false)
            + &held("hand", &[Role::Detect, Role::Admin], false)
            + &held("gone", &[Role::Observe], true)),
    );
    // Client certificates are the callers' matter where there are tokens.
    let settings = settings(&site.toml(true, true, true));
    let security = Security::open(&settings.server, SystemClock::shared()).unwrap();
    let here = "127.0.0.1:0".parse().unwrap();
    let address = exporter::start_behind(here, Arc::new(security)).unwrap();
    let authority = &site.authority;
    let scrape = |token: Option<String>| async move {
        get(address, authority, "/metrics", token.as_deref()).await
    };
    for refused in [None, Some("hh_0".to_owned()), Some(token("gone"))] {
        let answer = scrape(refused).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(
            answer.to_lowercase().contains("www-authenticate: bearer"),
            "{answer}"
        );
        assert!(!answer.contains("headhunt_"), "{answer}");
    }
    assert!(
        scrape(Some(token("hand")))
            .await
            .starts_with("HTTP/1.1 403 ")
    );
    let answer = scrape(Some(token("eye"))).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.contains(r#"headhunt_credentials_refused_total{reason="expired"}"#),
        "{answer}"
    );
    let answer = get(address, authority, "/health", None).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    // Whoever holds all the places of an address holds nobody else's.
    let from = |source: &str| {
        let source = SocketAddr::new(source.parse().unwrap(), 0);
        async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(source).unwrap();
            socket.connect(address).await.unwrap()
        }
    };
    let mut silent = Vec::new();
    for _ in 0..limits::METRICS_CONNECTIONS_PER_ADDRESS_MAX {
        silent.push(from("127.0.0.2").await);
    }
    let mut one_more = from("127.0.0.2").await;
    let end = within("its end", one_more.read(&mut [0])).await;
    assert_eq!(end.unwrap_or(0), 0);
    let answer = get(address, authority, "/health", None).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn scrapers_show_a_certificate_where_there_are_no_tokens_to_tell_them_apart() {
    let site = Site::new();
    let settings = settings(&site.toml(true, false, true));
    let gate = Security::open(&settings.server, SystemClock::shared()).unwrap();
    assert_eq!(gate.may_scrape(&[], false), Err(Unwelcome::Unknown));
    assert_eq!(gate.may_scrape(&[], true), Ok(()));
}
