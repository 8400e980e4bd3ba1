//! Cameras behind TLS: whose certificate is believed.

use std::time::Duration;

use headhunt::rtsp::{Access, FailureKind, Transport, Trust, Url};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

use crate::rtsp_support::{
    Act, Camera, client, end, failure, frame, packet, patient, playing, rtp, within,
};

struct Authority {
    pem: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem().into_bytes();
    Authority {
        pem,
        issuer: Issuer::new(params, key),
    }
}

fn config(certificate: CertificateDer<'static>, key: &KeyPair, tls12: bool) -> ServerConfig {
    let versions: &[_] = if tls12 {
        &[&rustls::version::TLS12]
    } else {
        rustls::ALL_VERSIONS
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap()
}

/// A camera with a certificate for these names, and the certificate's fingerprint.
async fn camera(authority: &Authority, names: &[&str], tls12: bool) -> (Camera, [u8; 32]) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let params = CertificateParams::new(names).unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let fingerprint = Sha256::digest(certificate.der()).into();
    let config = config(certificate.der().clone(), &key, tls12);
    (Camera::tls(config, |_| None).await, fingerprint)
}

fn trusting(trust: Trust) -> Access {
    Access {
        transport: Transport::Tcp,
        trust,
    }
}

#[tokio::test]
async fn an_authority_is_believed_for_the_right_name() {
    let authority = authority();
    let access = trusting(Trust::Authorities(authority.pem.clone()));
    for tls12 in [false, true] {
        let (camera, _) = camera(&authority, &["127.0.0.1"], tls12).await;
        let mut session = playing(&camera, &patient(), &access).await;
        camera.act(Act::Bytewise(
            [frame(0, &rtp(1, 1)), frame(0, &rtp(2, 2))].concat(),
        ));
        assert_eq!(packet(&mut session).await, (1, 1, 0));
        assert_eq!(packet(&mut session).await, (2, 2, 0));
        assert!(camera.seen()[0].uri.starts_with("rtsps://127.0.0.1"));
        within(session.close()).await;
        assert_eq!(camera.methods().last().unwrap(), "TEARDOWN");
    }
    let (by_name, _) = camera(&authority, &["localhost"], false).await;
    let refused = failure(&by_name, &patient(), &access).await;
    assert_eq!(refused.kind, FailureKind::Tls, "{refused}");
    let url = format!("rtsps://localhost:{}/live", by_name.address.port());
    let url = Url::parse(&url).unwrap();
    within(patient().open(&url, &access)).await.unwrap();
}

#[tokio::test]
async fn another_authority_is_refused_and_nothing_is_said() {
    let (camera, _) = camera(&authority(), &["127.0.0.1"], false).await;
    for trust in [Trust::Authorities(authority().pem), Trust::System] {
        let failure = failure(&camera, &patient(), &trusting(trust)).await;
        assert_eq!(failure.kind, FailureKind::Tls, "{failure}");
    }
    assert_eq!(camera.seen().len(), 0);
}

#[tokio::test]
async fn authorities_that_are_none_are_refused() {
    let (camera, _) = camera(&authority(), &["127.0.0.1"], false).await;
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for pem in ["", "no PEM", broken] {
        let access = trusting(Trust::Authorities(pem.into()));
        let failure = failure(&camera, &patient(), &access).await;
        assert_eq!(failure.kind, FailureKind::Tls, "{failure}");
    }
}

#[tokio::test]
async fn a_fingerprint_is_believed_whatever_the_name() {
    for tls12 in [false, true] {
        let (camera, fingerprint) = camera(&authority(), &["other.example"], tls12).await;
        let right = trusting(Trust::Fingerprint(fingerprint));
        drop(playing(&camera, &patient(), &right).await);
        let before = camera.seen().len();
        let mut wrong = fingerprint;
        wrong[31] ^= 1;
        let failure = failure(&camera, &patient(), &trusting(Trust::Fingerprint(wrong))).await;
        assert_eq!(failure.kind, FailureKind::Tls);
        let hex: String = fingerprint.iter().map(|b| format!("{b:02x}")).collect();
        assert!(failure.message.contains(&hex), "{failure}");
        assert_eq!(camera.seen().len(), before);
    }
}

/// Who shows the right certificate without its key is not believed.
#[tokio::test]
async fn a_fingerprint_does_not_suffice_without_the_key() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["cam".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let fingerprint = Sha256::digest(certificate.der()).into();
    let stolen = certificate.der().clone();
    for tls12 in [false, true] {
        let other = KeyPair::generate().unwrap();
        // rustls refuses such a pair where it is put together openly.
        let signer =
            ring::sign::any_ecdsa_type(&PrivateKeyDer::try_from(other.serialize_der()).unwrap());
        let pair = rustls::sign::CertifiedKey::new(vec![stolen.clone()], signer.unwrap());
        let mut config = config(
            CertificateParams::new(Vec::new())
                .unwrap()
                .self_signed(&other)
                .unwrap()
                .der()
                .clone(),
            &other,
            tls12,
        );
        config.cert_resolver = std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(pair));
        let camera = Camera::tls(config, |_| None).await;
        let by_fingerprint = trusting(Trust::Fingerprint(fingerprint));
        let failure = failure(&camera, &patient(), &by_fingerprint).await;
        assert_eq!(failure.kind, FailureKind::Tls, "{failure}");
        // And where anyone is believed, so is this one.
        drop(playing(&camera, &patient(), &trusting(Trust::Insecure)).await);
    }
}

#[tokio::test]
async fn insecure_believes_anyone() {
    for tls12 in [false, true] {
        let (camera, _) = camera(&authority(), &["other.example"], tls12).await;
        let mut session = playing(&camera, &patient(), &trusting(Trust::Insecure)).await;
        camera.act(Act::Close);
        assert_eq!(end(&mut session).await.kind, FailureKind::Ended);
    }
}

#[tokio::test]
async fn udp_is_refused_before_anything_is_sent() {
    let (camera, _) = camera(&authority(), &["127.0.0.1"], false).await;
    let access = Access {
        transport: Transport::Udp,
        trust: Trust::Insecure,
    };
    let failure = failure(&camera, &patient(), &access).await;
    assert_eq!(failure.kind, FailureKind::Protocol);
    assert!(failure.message.contains("SRTP"), "{failure}");
    assert_eq!(camera.open.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_a_timeout_and_a_foreign_one_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rtsps://{}/live", listener.local_addr().unwrap());
    let url = Url::parse(&url).unwrap();
    let mute = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buffer = Vec::new();
        let _ = socket.read_to_end(&mut buffer).await;
        (listener, buffer)
    });
    let access = trusting(Trust::Insecure);
    let failure = within(client(100).open(&url, &access)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout, "{failure}");
    let (listener, said) = within(mute).await.unwrap();
    assert_eq!(said[0], 0x16, "nothing but a handshake");

    let plain = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        socket
            .try_write(b"RTSP/1.0 400 Bad Request\r\n\r\n")
            .unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    });
    let failure = within(patient().open(&url, &access)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Tls, "{failure}");
    plain.await.unwrap();
}

/// As one that starts, or that has no room for another: nothing is wrong with its certificate.
#[tokio::test]
async fn a_handshake_that_is_broken_off_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rtsps://{}/live", listener.local_addr().unwrap());
    let url = Url::parse(&url).unwrap();
    let closes = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        // All of the greeting, so that the end is no reset.
        let _ = socket.read(&mut [0; 4096]).await;
    });
    let access = trusting(Trust::Insecure);
    let failure = within(patient().open(&url, &access)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Reset, "{failure}");
    closes.await.unwrap();
}

#[tokio::test]
async fn a_redirect_does_not_lead_out_of_tls() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(Vec::new()).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    let access = trusting(Trust::Insecure);
    let target = Camera::ordinary().await;
    let (tls_target, _) = camera(&authority(), &["127.0.0.1"], false).await;
    for (to, plays) in [
        (target.text("/live"), false),
        (tls_target.text("/live"), true),
    ] {
        let config = config(certificate.der().clone(), &key, false);
        let first = Camera::tls(config, move |seen| {
            let location = format!("Location: {to}\r\n");
            (seen.method == "DESCRIBE").then(|| seen.says("302 Found", &location))?
        })
        .await;
        match within(patient().open(&first.url("/live"), &access)).await {
            Ok(_) => assert!(plays),
            Err(failure) => {
                assert!(!plays, "{failure}");
                assert_eq!(failure.kind, FailureKind::Protocol);
                assert!(failure.message.contains("not encrypted"), "{failure}");
            }
        }
    }
    assert_eq!(target.seen().len(), 0);
    assert_eq!(tls_target.methods().last().unwrap(), "PLAY");
}
