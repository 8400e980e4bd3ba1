//! TLS of our own listeners.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::tls::provider;
use crate::error::{Error, Kind, Result, ResultExt as _};

/// What a listener proves itself with, PEM.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// Its certificate, then those between it and the authority.
    pub certificates: &'a [u8],
    /// The certificate's key.
    pub key: &'a [u8],
}

/// Whether clients must prove themselves too.
#[derive(Clone, Copy)]
pub enum Clients<'a> {
    /// They are not asked.
    Anonymous,
    /// Those that show a certificate must have it from these authorities (PEM).
    May(&'a [u8]),
    /// All must show one of these authorities (PEM).
    Must(&'a [u8]),
}

/// How a listener shakes hands.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

/// A connection that was accepted, with or without TLS.
pub enum ServerStream {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl ServerTls {
    /// `protocols` are what ALPN offers, the preferred one first.
    ///
    /// Fails with `InvalidArgument` where certificates, key or authorities cannot be used, or the key is
    /// not the certificate's.
    pub fn new(
        identity: Identity<'_>,
        clients: Clients<'_>,
        protocols: &[&[u8]],
    ) -> Result<ServerTls> {
        let certificates = certificates(identity.certificates, "server.tls_cert_file")?;
        let key = PrivateKeyDer::from_pem_slice(identity.key)
            .or_kind(Kind::InvalidArgument, || {
                "server.tls_key_file holds no private key in PEM".into()
            })?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .or_kind(Kind::Internal, || "TLS cannot be set up".into())?;
        let builder = match clients {
            Clients::Anonymous => builder.with_no_client_auth(),
            Clients::May(authorities) => {
                builder.with_client_cert_verifier(verifier(authorities, true)?)
            }
            Clients::Must(authorities) => {
                builder.with_client_cert_verifier(verifier(authorities, false)?)
            }
        };
        let mut config = builder
            .with_single_cert(certificates, key)
            .or_kind(Kind::InvalidArgument, || {
                "the certificate and the key of the server cannot be used together".into()
            })?;
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Ok(ServerTls(Arc::new(config)))
    }

    /// Shakes hands; the caller bounds the time.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<ServerStream> {
        let accepted = TlsAcceptor::from(self.0.clone()).accept(socket).await?;
        Ok(ServerStream::Tls(Box::new(accepted)))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

fn certificates(pem: &[u8], key: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.or_kind(Kind::InvalidArgument, || format!("{key} is no PEM"))?;
    if found.is_empty() {
        return Err(Error::invalid(format!("{key} holds no certificate in PEM")));
    }
    Ok(found)
}

fn verifier(pem: &[u8], optional: bool) -> Result<Arc<dyn ClientCertVerifier>> {
    let unusable = || "an authority of server.tls_client_ca_file cannot be used".to_owned();
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, "server.tls_client_ca_file")? {
        roots
            .add(certificate)
            .or_kind(Kind::InvalidArgument, unusable)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = if optional {
        builder.allow_unauthenticated()
    } else {
        builder
    };
    builder.build().or_kind(Kind::InvalidArgument, unusable)
}

impl ServerStream {
    /// Whether the client has shown a certificate that is believed.
    pub fn is_certified(&self) -> bool {
        match self {
            ServerStream::Plain(_) => false,
            ServerStream::Tls(stream) => stream.get_ref().1.peer_certificates().is_some(),
        }
    }

    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            ServerStream::Plain(stream) => stream,
            ServerStream::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ServerStream::Plain(s) => Pin::new(s).poll_read(cx, buffer),
            ServerStream::Tls(s) => Pin::new(s).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ServerStream::Plain(s) => Pin::new(s).poll_write(cx, data),
            ServerStream::Tls(s) => Pin::new(s).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ServerStream::Plain(s) => Pin::new(s).poll_write_vectored(cx, data),
            ServerStream::Tls(s) => Pin::new(s).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            ServerStream::Plain(s) => s.is_write_vectored(),
            ServerStream::Tls(s) => s.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ServerStream::Plain(s) => Pin::new(s).poll_flush(cx),
            ServerStream::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ServerStream::Plain(s) => Pin::new(s).poll_shutdown(cx),
            ServerStream::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
