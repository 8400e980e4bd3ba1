//! URI sources: what a request may name.

#[cfg(feature = "video")]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use super::proto::{self, tls_trust};
use crate::{
    access::{Caller, Sources},
    config::{Scheme, SourceSettings},
    error::{Error, Kind, Result},
    limits, net, rtsp, web,
};

/// A URI source that the configuration allows.
#[derive(Clone, Debug, PartialEq)]
pub enum UriSource {
    /// A camera; goes on until it is stopped.
    Camera {
        /// Its address.
        url: rtsp::Url,
        /// How it is reached.
        access: rtsp::Access,
        /// The hosts that the caller's token allows; `None`: all that the server may reach.
        within: Option<Arc<[net::Rule]>>,
    },
    /// A file of the server's, below one of these folders.
    File {
        /// As the request has it.
        path: PathBuf,
        /// Where files may be.
        roots: Vec<PathBuf>,
    },
    /// A file of a web server's.
    Web {
        /// Its address.
        url: web::Url,
        /// Whose certificate is believed.
        trust: net::Trust,
        /// As for cameras.
        within: Option<Arc<[net::Rule]>>,
    },
}

impl UriSource {
    /// Whether time goes on whether or not it is read.
    pub fn is_live(&self) -> bool {
        matches!(self, UriSource::Camera { .. })
    }

    /// The same for the holder of a token, who may name and be led to what it allows alone; `field` is
    /// where the URI stands.
    ///
    /// Fails with `PermissionDenied` for what cannot be allowed wherever its name leads.
    pub(super) fn confined(mut self, field: &str, caller: &Caller) -> Result<Self> {
        let Some(Sources { files, hosts }) = &caller.sources else {
            return Ok(self);
        };
        let could = |host: &str, port: u16| hosts.iter().any(|rule| rule.could_hold(host, port));
        let allowed = match &mut self {
            UriSource::File { .. } => *files,
            UriSource::Camera { url, within, .. } => {
                *within = Some(hosts.clone());
                could(url.host(), url.port())
            }
            UriSource::Web { url, within, .. } => {
                *within = Some(hosts.clone());
                could(url.host(), url.port())
            }
        };
        if allowed {
            return Ok(self);
        }
        Err(Error::new(
            Kind::PermissionDenied,
            "it is not among the sources of this token",
        )
        .with_field(field))
    }

    /// For logs: nothing secret.
    pub(super) fn shown(&self) -> String {
        match self {
            UriSource::Camera { url, .. } => url.to_string(),
            UriSource::File { path, .. } => path.display().to_string(),
            UriSource::Web { url, .. } => url.to_string(),
        }
    }
}

/// Checks a request's source; `field` is where it stands. The URI, which may hold credentials, is
/// not repeated.
pub(super) fn parse(
    field: &str,
    source: &proto::UriSource,
    allowed: &SourceSettings,
) -> Result<UriSource> {
    let at = |name: &str| format!("{field}.{name}");
    let uri = &source.uri;
    if uri.len() > limits::URI_MAX_BYTES {
        return Err(Error::invalid(format!(
            "the URI has {} bytes; at most {} are taken",
            uri.len(),
            limits::URI_MAX_BYTES
        ))
        .with_field(at("uri")));
    }
    let scheme = uri
        .split_once("://")
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    let scheme = match scheme.as_deref() {
        Some("rtsp") => Scheme::Rtsp,
        Some("rtsps") => Scheme::Rtsps,
        Some("file") => Scheme::File,
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        _ => {
            return Err(Error::invalid(
                "not a URI with one of the schemes rtsp, rtsps, file, http and https",
            )
            .with_field(at("uri")));
        }
    };
    if !allowed.schemes.contains(&scheme) {
        return Err(Error::new(
            Kind::PermissionDenied,
            format!(
                "this server takes no {} sources: its configuration names the schemes that it takes in sources.schemes",
                scheme.as_str()
            ),
        )
        .with_field(at("uri")));
    }
    if scheme == Scheme::File {
        let path = uri.get("file://".len()..).unwrap_or_default();
        if !path.starts_with('/') || path.contains(['%', '?', '#', '\0']) {
            return Err(Error::invalid(
                "a file URI is file:// and an absolute path as it is, without escapes",
            )
            .with_field(at("uri")));
        }
        return Ok(UriSource::File {
            path: path.into(),
            roots: allowed.file_roots.clone(),
        });
    }
    let told_trust = source.trust.as_ref().and_then(|trust| trust.trust.as_ref());
    let trust_for = |tls, scheme| {
        trust_of(told_trust, tls, scheme, allowed).map_err(|error| error.with_field(at("trust")))
    };
    if matches!(scheme, Scheme::Http | Scheme::Https) {
        let url = web::Url::parse(uri).map_err(|error| error.with_field(at("uri")))?;
        if source.transport != proto::RtspTransport::Unspecified as i32 {
            return Err(Error::invalid("transport is for cameras: leave it out")
                .with_field(at("transport")));
        }
        let trust = trust_for(url.is_tls(), "http")?;
        return Ok(UriSource::Web {
            url,
            trust,
            within: None,
        });
    }
    let url = rtsp::Url::parse(uri).map_err(|error| error.with_field(at("uri")))?;
    let transport = match proto::RtspTransport::try_from(source.transport) {
        Ok(proto::RtspTransport::Unspecified) => rtsp::Transport::Either,
        Ok(proto::RtspTransport::Tcp) => rtsp::Transport::Tcp,
        Ok(proto::RtspTransport::Udp) if url.is_tls() => {
            return Err(Error::invalid(
                "rtsps carries packets over its own connection: leave transport out",
            )
            .with_field(at("transport")));
        }
        Ok(proto::RtspTransport::Udp) => rtsp::Transport::Udp,
        Err(_) => {
            return Err(
                Error::invalid("no transport that this version knows").with_field(at("transport"))
            );
        }
    };
    let trust = trust_for(url.is_tls(), "rtsp")?;
    Ok(UriSource::Camera {
        url,
        access: rtsp::Access { transport, trust },
        within: None,
    })
}

fn trust_of(
    trust: Option<&tls_trust::Trust>,
    tls: bool,
    plain_scheme: &str,
    allowed: &SourceSettings,
) -> Result<net::Trust> {
    use tls_trust::Trust;
    if trust.is_some() && !tls {
        return Err(Error::invalid(format!(
            "an {plain_scheme} address has no certificate: use {plain_scheme}s, or leave trust out"
        )));
    }
    Ok(match trust {
        None | Some(Trust::Insecure(false)) => net::Trust::System,
        Some(Trust::Insecure(true)) if allowed.allow_insecure_tls => net::Trust::Insecure,
        Some(Trust::Insecure(true)) => {
            return Err(Error::new(
                Kind::PermissionDenied,
                "this server checks certificates: give its SHA-256 or its authority, or have the operator set sources.allow_insecure_tls",
            ));
        }
        Some(Trust::AuthoritiesPem(pem)) if pem.len() > limits::TLS_AUTHORITIES_MAX_BYTES => {
            return Err(Error::invalid(format!(
                "the authorities have {} bytes; at most {} are taken",
                pem.len(),
                limits::TLS_AUTHORITIES_MAX_BYTES
            )));
        }
        Some(Trust::AuthoritiesPem(pem)) => net::Trust::Authorities(pem.clone()),
        Some(Trust::CertificateSha256(digest)) => {
            let digest = digest.as_slice().try_into().map_err(|_| {
                Error::invalid(format!("a SHA-256 has 32 bytes, this one {}", digest.len()))
            })?;
            net::Trust::Fingerprint(digest)
        }
    })
}

/// The file itself, its links followed, if it lies below one of the folders. Blocks.
///
/// Fails with `PermissionDenied` where it does not, whether or not there is such a file.
#[cfg(feature = "video")]
pub(super) fn below_roots(path: &Path, roots: &[PathBuf]) -> Result<PathBuf> {
    let denied = || {
        Error::new(
            Kind::PermissionDenied,
            "no such file in a folder that this server may read: see sources.file_roots",
        )
    };
    let real = path.canonicalize().map_err(|_| denied())?;
    let inside = roots.iter().any(|root| {
        root.canonicalize()
            .is_ok_and(|root| real.starts_with(root) && real.is_file())
    });
    if inside { Ok(real) } else { Err(denied()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::TlsTrust;
    use tls_trust::Trust;

    fn allowed() -> SourceSettings {
        SourceSettings {
            schemes: vec![Scheme::Rtsp, Scheme::Rtsps, Scheme::File],
            file_roots: vec![],
            allow: vec![],
            deny: vec![],
            allow_insecure_tls: false,
        }
    }

    fn source(uri: &str, trust: Option<Trust>) -> proto::UriSource {
        proto::UriSource {
            uri: uri.into(),
            transport: 0,
            trust: trust.map(|trust| TlsTrust { trust: Some(trust) }),
        }
    }

    fn refusal(source: &proto::UriSource) -> Error {
        parse("open.uri", source, &allowed()).unwrap_err()
    }

    #[test]
    fn nonsense_is_refused_by_field_and_nothing_secret_is_repeated() {
        for (uri, kind) in [
            ("", Kind::InvalidArgument),
            ("camera", Kind::InvalidArgument),
            ("gopher://ann:secret@x", Kind::InvalidArgument),
            ("rtsp://", Kind::InvalidArgument),
            ("rtsp://ann:secret@cam:99999/1", Kind::InvalidArgument),
            ("http://ann:secret@cam/1", Kind::PermissionDenied),
            ("file://relative", Kind::InvalidArgument),
        ] {
            let error = refusal(&source(uri, None));
            assert_eq!(error.kind(), kind, "{uri}");
            assert!(!format!("{error:#}").contains("secret"), "{error:#}");
        }
        let long = format!("rtsp://cam/{}", "a".repeat(2048));
        assert_eq!(refusal(&source(&long, None)).field(), Some("open.uri.uri"));
    }

    #[test]
    fn schemes_that_are_not_allowed_are_denied() {
        let allowed = SourceSettings {
            schemes: vec![Scheme::Rtsps],
            ..allowed()
        };
        for uri in ["rtsp://cam/1", "file:///etc/passwd"] {
            let error = parse("source", &source(uri, None), &allowed).unwrap_err();
            assert_eq!(error.kind(), Kind::PermissionDenied);
            assert_eq!(error.field(), Some("source.uri"));
        }
        assert!(parse("source", &source("RTSPS://cam/1", None), &allowed).is_ok());
    }

    #[test]
    fn web_sources_are_taken_where_they_are_allowed() {
        let allowed = SourceSettings {
            schemes: vec![Scheme::Http, Scheme::Https],
            ..allowed()
        };
        let parsed = parse(
            "s",
            &source("https://ann:secret@host/a.mp4?token=secret", None),
            &allowed,
        );
        let web = parsed.unwrap();
        assert!(!web.is_live());
        assert_eq!(web.shown(), "https://host:443/a.mp4");
        assert!(!format!("{web:?}").contains("secret"));
        let plain = source("http://host/a.mp4", Some(Trust::Insecure(false)));
        let error = parse("s", &plain, &allowed).unwrap_err();
        assert_eq!(error.field(), Some("s.trust"));
        let mut udp = source("http://host/a.mp4", None);
        udp.transport = proto::RtspTransport::Udp.into();
        assert_eq!(
            parse("s", &udp, &allowed).unwrap_err().field(),
            Some("s.transport")
        );
    }

    #[test]
    fn trust_is_for_tls_and_insecure_only_where_allowed() {
        let access = |trust| match parse("s", &source("rtsps://cam/1", trust), &allowed()) {
            Ok(UriSource::Camera { access, .. }) => Ok(access.trust),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.kind()),
        };
        assert_eq!(access(None), Ok(net::Trust::System));
        assert_eq!(
            access(Some(Trust::CertificateSha256(vec![7; 32]))),
            Ok(net::Trust::Fingerprint([7; 32]))
        );
        assert_eq!(
            access(Some(Trust::CertificateSha256(vec![7; 31]))),
            Err(Kind::InvalidArgument)
        );
        assert_eq!(
            access(Some(Trust::Insecure(true))),
            Err(Kind::PermissionDenied)
        );
        assert_eq!(
            access(Some(Trust::AuthoritiesPem(vec![b'-'; 65 << 10]))),
            Err(Kind::InvalidArgument)
        );
        let error = refusal(&source("rtsp://cam/1", Some(Trust::Insecure(true))));
        assert_eq!(error.field(), Some("open.uri.trust"));
        let mut udp = source("rtsps://cam/1", None);
        udp.transport = proto::RtspTransport::Udp.into();
        assert_eq!(refusal(&udp).field(), Some("open.uri.transport"));
    }

    #[test]
    #[cfg(feature = "video")]
    fn files_are_read_below_the_roots_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("clips");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("a.mp4"), b"a").unwrap();
        std::fs::write(dir.path().join("secret"), b"s").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("link")).unwrap();
        let roots = [root.clone()];
        assert!(below_roots(&root.join("a.mp4"), &roots).is_ok());
        for path in [
            root.join("link"),
            root.join("../secret"),
            root.join("none"),
            root.clone(),
            "/etc/passwd".into(),
        ] {
            let error = below_roots(&path, &roots).unwrap_err();
            assert_eq!(error.kind(), Kind::PermissionDenied, "{}", path.display());
        }
    }
}
