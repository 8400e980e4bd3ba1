//! The way to a server: its address, whose certificate is believed, and who we are.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    access::read_file,
    error::{Error, Kind, Result, ResultExt as _},
};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server and how to speak to it.
#[derive(Debug, clap::Args)]
pub struct Remote {
    /// Address of the server; https:// for one with TLS
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:50051",
        global = true
    )]
    pub server: String,
    /// File with a token of the server (see `headhunt token`)
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// Authorities of the server's certificate, PEM, instead of the machine's
    #[arg(long, value_name = "FILE", global = true)]
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM, for a server that asks for one
    #[arg(long, value_name = "FILE", requires = "key", global = true)]
    pub cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "cert", global = true)]
    pub key: Option<PathBuf>,
}

/// Calls with our token.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// Adds the token to calls.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Remote {
    /// A channel that connects when the first call is made.
    ///
    /// Fails with `InvalidArgument` or `NotFound` where an address or a file cannot be used, and for a
    /// token that would travel in plain text to another machine.
    pub fn channel(&self) -> Result<Authorized> {
        let url = if self.server.contains("://") {
            self.server.clone()
        } else {
            format!("http://{}", self.server)
        };
        let endpoint = Endpoint::from_shared(url).or_kind(Kind::InvalidArgument, || {
            format!(
                "--server {} is no address: give e.g. http://127.0.0.1:50051",
                self.server
            )
        })?;
        let encrypted = endpoint.uri().scheme_str() == Some("https");
        if !encrypted && (self.ca.is_some() || self.cert.is_some()) {
            return Err(Error::invalid(
                "--ca, --cert and --key are for a server with TLS: give its address as https://",
            ));
        }
        let token = self.token_file.as_deref().map(token).transpose()?;
        let host = endpoint.uri().host().unwrap_or_default();
        if token.is_some() && !encrypted && !is_here(host) {
            return Err(Error::invalid(format!(
                "the token would travel to {host} in plain text: give --server as https://"
            )));
        }
        let endpoint = if encrypted {
            endpoint
                .tls_config(self.tls()?)
                .or_kind(Kind::InvalidArgument, || {
                    "--ca, --cert or --key cannot be used".into()
                })?
        } else {
            endpoint
        };
        let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy();
        Ok(InterceptedService::new(channel, Bearer(token)))
    }

    fn tls(&self) -> Result<ClientTlsConfig> {
        let mut tls = ClientTlsConfig::new();
        tls = match &self.ca {
            Some(file) => tls.ca_certificate(Certificate::from_pem(read_file(file)?)),
            None => tls.with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls = tls.identity(Identity::from_pem(read_file(cert)?, read_file(key)?));
        }
        Ok(tls)
    }
}

fn is_here(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The token that is a file's only word.
fn token(file: &Path) -> Result<MetadataValue<Ascii>> {
    let wrong = || {
        format!(
            "--token-file {} does not hold a token and nothing else",
            file.display()
        )
    };
    let bytes = read_file(file)?;
    let text = std::str::from_utf8(&bytes).or_kind(Kind::InvalidArgument, wrong)?;
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err(Error::invalid(wrong()));
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .map_err(|_| Error::invalid(wrong()))?;
    value.set_sensitive(true);
    Ok(value)
}
