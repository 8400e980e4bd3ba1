//! TLS: whose certificate is believed.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};

use super::{Failure, FailureKind, Trust};

/// How to shake hands under `trust`.
pub(super) async fn config(trust: &Trust) -> Result<Arc<ClientConfig>, Failure> {
    let roots = match trust {
        Trust::System => system_roots().await?,
        Trust::Authorities(pem) => Arc::new(authorities(pem)?),
        Trust::Fingerprint(expected) => return unusual(Some(*expected)),
        Trust::Insecure => return unusual(None),
    };
    let config = builder()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The name to shake hands with. Where the certificate is not judged by it, a name that is not
/// possible in a certificate is no obstacle.
pub(super) fn name(
    host: &str,
    address: IpAddr,
    trust: &Trust,
) -> Result<ServerName<'static>, Failure> {
    match (ServerName::try_from(host.to_owned()), trust) {
        (Ok(name), _) => Ok(name),
        (Err(_), Trust::Fingerprint(_) | Trust::Insecure) => {
            Ok(ServerName::IpAddress(address.into()))
        }
        (Err(_), _) => Err(failure(format!("{host} cannot stand in a certificate"))),
    }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(ring::default_provider()))
        .clone()
}

fn builder() -> Result<Builder, Failure> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| failure(format!("TLS cannot be set up: {e}")))
}

fn unusual(expected: Option<[u8; 32]>) -> Result<Arc<ClientConfig>, Failure> {
    let config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unusual {
            expected,
            provider: provider(),
        }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The authorities of the machine, read once: they are some hundred files.
async fn system_roots() -> Result<Arc<RootCertStore>, Failure> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|e| failure(format!("the machine's authorities cannot be read: {e}")))?;
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        let why = found
            .errors
            .first()
            .map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(failure(format!(
            "the machine has no usable authorities: {why}; install ca-certificates, or give the \
             camera's own authority or fingerprint"
        )));
    }
    Ok(ROOTS.get_or_init(|| Arc::new(roots)).clone())
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|e| failure(format!("the authorities given are no PEM: {e}")))?;
        roots
            .add(certificate)
            .map_err(|e| failure(format!("an authority cannot be used: {e}")))?;
    }
    if roots.is_empty() {
        return Err(failure(
            "the authorities given hold no certificate".to_owned(),
        ));
    }
    Ok(roots)
}

fn failure(message: String) -> Failure {
    Failure::new(FailureKind::Tls, message)
}

/// Believes one certificate by its fingerprint, or any.
#[derive(Debug)]
struct Unusual {
    expected: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl Unusual {
    /// Who shows a certificate must have its key. Where any certificate is believed that proves
    /// nothing, and cameras with keys too old for the library would fail here.
    fn check(
        &self,
        verify: impl FnOnce() -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.expected {
            Some(_) => verify(),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }
}

impl ServerCertVerifier for Unusual {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(expected) = self.expected else {
            return Ok(ServerCertVerified::assertion());
        };
        let found: [u8; 32] = Sha256::digest(certificate).into();
        if found == expected {
            return Ok(ServerCertVerified::assertion());
        }
        let hex: String = found.iter().map(|b| format!("{b:02x}")).collect();
        let error: Box<dyn std::error::Error + Send + Sync> =
            format!("the certificate has the SHA-256 fingerprint {hex}, not the one given").into();
        Err(CertificateError::Other(OtherError(error.into())).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(|| {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signature, algorithms)
        })
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(|| {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, algorithms)
        })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
