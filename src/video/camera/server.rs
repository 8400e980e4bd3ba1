//! An RTSP server whose mount points are cameras.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use gstreamer as gst;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::{gio, gst_rtsp, prelude::*};

use super::{
    FileOptions, Identity, LoginMethod, ServerOptions,
    factory::{CameraFactory, ROLE},
    main_loop::MainLoop,
    reader::{Clip, Payload, Reader},
};
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits::{CAMERA_PATH_MAX_BYTES, CAMERA_SESSION_SWEEP_SECONDS, CAMERA_SESSIONS_MAX},
    video::codec,
};

/// Many cameras on one port. All of it stops when it is dropped.
pub struct Cameras {
    server: rtsp::RTSPServer,
    mounts: rtsp::RTSPMountPoints,
    /// The listening socket, and the search for vanished clients.
    sources: Vec<gst::glib::Source>,
    address: SocketAddr,
    secure: bool,
    paths: Mutex<BTreeSet<String>>,
    main_loop: MainLoop,
}

impl fmt::Debug for Cameras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cameras")
            .field("address", &self.address)
            .field("paths", &*self.paths())
            .finish_non_exhaustive()
    }
}

impl Cameras {
    /// Listens; there are no cameras yet.
    ///
    /// # Errors
    /// `Unavailable` if the address cannot be had; `InvalidArgument` for a certificate, a key or a
    /// login that cannot be used; `FailedPrecondition` if GStreamer or, for TLS, GLib lacks a
    /// package.
    pub fn start(options: ServerOptions) -> Result<Cameras> {
        crate::video::init()?;
        let secure = options.tls.is_some();
        let auth = authority(&options)?;
        let main_loop = MainLoop::start()?;
        let server = rtsp::RTSPServer::new();
        server.set_address(&options.listen.to_string());
        server.set_service(&options.port.to_string());
        server.set_auth(auth.as_ref());
        // Clients are served on the main loop's thread.
        let threads = rtsp::RTSPThreadPool::new();
        threads.set_max_threads(0);
        server.set_thread_pool(Some(&threads));
        let mounts = rtsp::RTSPMountPoints::new();
        server.set_mount_points(Some(&mounts));
        let pool = rtsp::RTSPSessionPool::new();
        pool.set_max_sessions(CAMERA_SESSIONS_MAX);
        server.set_session_pool(Some(&pool));
        let listen = server.attach(Some(main_loop.context())).map_err(|e| {
            // The attempt does not say why it failed; a second one does.
            let wanted = SocketAddr::new(options.listen, options.port);
            let error = Error::unavailable(format!("a camera cannot listen at {wanted}"));
            match server.create_socket(gio::Cancellable::NONE) {
                Err(reason) => error.with_source(reason),
                Ok(_) => error.with_source(e),
            }
        })?;
        let mut sources: Vec<_> = main_loop
            .context()
            .find_source_by_id(&listen)
            .into_iter()
            .collect();
        let pool = pool.downgrade();
        let sweep = gst::glib::source::timeout_source_new_seconds(
            CAMERA_SESSION_SWEEP_SECONDS,
            None,
            gst::glib::Priority::DEFAULT,
            move || match pool.upgrade() {
                Some(pool) => {
                    pool.cleanup();
                    gst::glib::ControlFlow::Continue
                }
                None => gst::glib::ControlFlow::Break,
            },
        );
        sweep.attach(Some(main_loop.context()));
        sources.push(sweep);
        let port = u16::try_from(server.bound_port()).unwrap_or(0);
        let cameras = Cameras {
            server,
            mounts,
            sources,
            address: SocketAddr::new(options.listen, port),
            secure,
            paths: Mutex::default(),
            main_loop,
        };
        match port {
            0 => Err(Error::internal("the cameras' server has no port")),
            _ => Ok(cameras),
        }
    }

    /// Serves a file at a path. Reads the file's first picture now, the rest when somebody watches.
    ///
    /// # Errors
    /// As [`crate::video::open`] of a file; `InvalidArgument` for a codec that cannot be sent, a
    /// path or an option that makes no sense, or a path that is taken.
    pub fn add(&self, options: FileOptions) -> Result<()> {
        check(&options)?;
        let named = || format!("the camera of {}", options.file.display());
        let clip = Clip::open(&options.file)?;
        let payload = look(&clip).map_err(|e| e.context(named()))?;
        codec::make(
            payload.payloader().split(' ').next().unwrap_or_default(),
            "gstreamer1.0-plugins-good",
        )?;
        let factory = CameraFactory::new(&options, clip, payload);
        if !self.paths().insert(options.path.clone()) {
            return Err(Error::invalid(format!(
                "there is a camera at {} already",
                options.path
            )));
        }
        self.mounts.add_factory(&options.path, factory);
        Ok(())
    }

    /// Where the camera at `path` can be watched, without user and password. A server that listens
    /// everywhere is named by its loopback address.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.secure { "rtsps" } else { "rtsp" };
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            });
        }
        format!("{scheme}://{address}{path}")
    }

    /// The address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn paths(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cameras {
    fn drop(&mut self) {
        let paths = std::mem::take(&mut *self.paths());
        let (server, mounts) = (self.server.clone(), self.mounts.clone());
        let sources = std::mem::take(&mut self.sources);
        // On the clients' own thread: nothing is taken away while it is in use.
        let stopped = self.main_loop.call(move || {
            sources.iter().for_each(gst::glib::Source::destroy);
            for path in paths {
                mounts.remove_factory(&path);
            }
            server.client_filter(Some(&mut |_, _| rtsp::RTSPFilterResult::Remove));
            // Sessions over UDP outlive their client's connection.
            if let Some(pool) = server.session_pool() {
                pool.filter(Some(&mut |_, _| rtsp::RTSPFilterResult::Remove));
            }
        });
        if let Err(e) = stopped {
            tracing::error!("the cameras at {} do not stop: {e:#}", self.address);
        }
    }
}

/// Refuses what cannot be meant.
fn check(options: &FileOptions) -> Result<()> {
    let path = &options.path;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    if !path.starts_with('/')
        || path.len() < 2
        || path.len() > CAMERA_PATH_MAX_BYTES
        || !path.chars().all(plain)
    {
        return Err(Error::invalid(format!(
            "the path of a camera is a slash and up to {CAMERA_PATH_MAX_BYTES} letters, digits, and -_.~/ in all, not `{path}`"
        )));
    }
    if let Some(loss) = options.loss
        && !(0.0..=1.0).contains(&loss.probability)
    {
        return Err(Error::invalid(format!(
            "packets are lost with a probability of 0 to 1, not {}",
            loss.probability
        )));
    }
    if let Some(rate) = options.frame_rate_claim
        && !(rate.is_finite() && rate >= 0.0)
    {
        return Err(Error::invalid(format!(
            "a frame rate of {rate} cannot be claimed; it must be a number from 0"
        )));
    }
    Ok(())
}

/// How the file's video travels, after its first picture was read.
fn look(clip: &Clip) -> Result<Payload> {
    let mut reader = Reader::open(clip)?;
    let first = reader.next(|| false)?;
    match (first, reader.payload()) {
        (Some(_), Some(payload)) => Ok(payload),
        _ => Err(Error::invalid("the file has no pictures")),
    }
}

/// What is asked of clients and shown to them, if anything.
fn authority(options: &ServerOptions) -> Result<Option<rtsp::RTSPAuth>> {
    if options.login.is_none() && options.tls.is_none() {
        return Ok(None);
    }
    let auth = rtsp::RTSPAuth::new();
    let mut token = rtsp::RTSPToken::builder()
        .field(rtsp::RTSP_TOKEN_MEDIA_FACTORY_ROLE.as_str(), ROLE)
        .build();
    match &options.login {
        Some(login) => {
            if login.user.is_empty() || login.user.contains(':') {
                return Err(Error::invalid(
                    "the user of a camera must have a name, without a colon in it",
                ));
            }
            auth.set_realm(Some("HeadHunt camera"));
            match login.method {
                LoginMethod::Digest => {
                    auth.set_supported_methods(gst_rtsp::RTSPAuthMethod::Digest);
                    auth.add_digest(&login.user, &login.password, &token);
                }
                LoginMethod::Basic => {
                    auth.set_supported_methods(gst_rtsp::RTSPAuthMethod::Basic);
                    let basic = rtsp::RTSPAuth::make_basic(&login.user, &login.password);
                    auth.add_basic(&basic, &token);
                }
            }
        }
        None => auth.set_default_token(Some(&mut token)),
    }
    if let Some(identity) = &options.tls {
        auth.set_tls_certificate(Some(&certificate(identity)?));
    }
    Ok(Some(auth))
}

fn certificate(identity: &Identity) -> Result<gio::TlsCertificate> {
    if !gio::TlsBackend::default().supports_tls() {
        return Err(Error::precondition(
            "GLib has no TLS: install glib-networking (Debian: glib-networking)",
        ));
    }
    let text = |bytes: &[u8], what: &str| {
        String::from_utf8(bytes.to_vec()).or_kind(Kind::InvalidArgument, || {
            format!("the {what} of a camera must be PEM, which is text")
        })
    };
    let certificate = text(&identity.certificate, "certificate")?;
    let key = text(&identity.key, "private key")?;
    let refused = || "the certificate and key of a camera cannot be used".to_owned();
    // GLib takes a certificate without one and fails every client later.
    if !key.contains("PRIVATE KEY-----") {
        return Err(Error::invalid(format!("{}: there is no key", refused())));
    }
    gio::TlsCertificate::from_pem(&format!("{certificate}\n{key}\n"))
        .or_kind(Kind::InvalidArgument, refused)
}
