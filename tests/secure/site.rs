//! A directory with certificates and tokens, and ways to a server that uses them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use headhunt::access::{Role, digest, entry};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tonic::{
    metadata::MetadataValue,
    service::interceptor::InterceptedService,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::common::within;

/// Adds credentials, well-formed or not.
#[derive(Clone)]
pub struct Says(pub Option<String>);

impl tonic::service::Interceptor for Says {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(text) = &self.0 {
            let value: MetadataValue<_> = text.parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

pub type Way = InterceptedService<Channel, Says>;

/// This token over this channel.
pub fn with(channel: &Channel, token: &str) -> Way {
    InterceptedService::new(channel.clone(), Says(Some(format!("Bearer {token}"))))
}

/// An authority that signs.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Certificate and key, PEM.
    pub fn sign(&self, server: bool) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = if server {
            vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
        } else {
            vec!["client".to_owned()]
        };
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![if server {
            ExtendedKeyUsagePurpose::ServerAuth
        } else {
            ExtendedKeyUsagePurpose::ClientAuth
        }];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// The files.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub authority: Authority,
}

impl Site {
    pub fn new() -> Site {
        let site = Site {
            dir: tempfile::tempdir().unwrap(),
            authority: Authority::new("site"),
        };
        site.install(&site.authority);
        fs::write(site.path("ca.pem"), &site.authority.pem).unwrap();
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new identity of the server, signed by this authority.
    pub fn install(&self, authority: &Authority) {
        let (certificate, key) = authority.sign(true);
        fs::write(self.path("cert.pem"), certificate).unwrap();
        fs::write(self.path("key.pem"), key).unwrap();
    }

    /// Settings with TLS, tokens and client certificates, as asked for.
    pub fn toml(&self, tls: bool, tokens: bool, clients: bool) -> String {
        let mut toml = "server.reload_s = 0.1\n".to_owned();
        let mut file = |key: &str, name: &str| {
            toml += &format!("server.{key} = '{}'\n", self.path(name).display());
        };
        if tls {
            file("tls_cert_file", "cert.pem");
            file("tls_key_file", "key.pem");
        }
        if clients {
            file("tls_client_ca_file", "ca.pem");
        }
        if tokens {
            file("token_file", "tokens.toml");
        }
        toml
    }

    pub fn write_tokens(&self, text: &str) {
        replace(&self.path("tokens.toml"), text);
    }
}

/// Whole or not at all, as those who deploy files do.
pub fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

/// The token of a name in tests.
pub fn token(name: &str) -> String {
    format!("hh_{}", hex(&digest(name)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// An entry for [`token`] of this name; expired ones have been so for an hour.
pub fn held(name: &str, roles: &[Role], expired: bool) -> String {
    let moment = SystemTime::now() - Duration::from_secs(3600);
    let moment = prost_types::Timestamp::from(moment).to_string();
    let expires = expired.then_some(moment.as_str());
    entry(name, &token(name), roles, expires) + "\n"
}

/// Connects through TLS, believing this authority, with a client's certificate and key where given.
pub async fn connect(
    port: u16,
    authority: &Authority,
    client: Option<(String, String)>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority.pem));
    if let Some((certificate, key)) = client {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://localhost:{port}"))
        .unwrap()
        .tls_config(tls)
        .unwrap();
    within("TLS", endpoint.connect()).await
}
