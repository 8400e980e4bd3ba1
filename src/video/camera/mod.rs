//! A camera that is not there: a video file served over RTSP for ever.
//!
//! The file is taken apart and sent as it is, never decoded. At its end it begins again, and the
//! timestamps go on. All clients of one camera watch the same stream, in real time. It runs while
//! somebody watches; the first client after a pause sees the file from its start. A client that
//! joins waits for the file's next key frame, so files with short distances between key frames suit
//! best. Pictures are read one by one: memory does not grow with the file.
//!
//! - [`Camera`]: one file on one port. [`Cameras`]: many on one.
//! - `main_loop`: the one thread that accepts and answers for all cameras of the process.
//! - `factory`: makes the stream when the first client comes; the next ones share it.
//! - `reader`: one pass over the file; `seam`: timestamps over passes, pure; `feed`: puts both
//!   before the payloader; `wire`: lost packets and false claims behind it.
//!
//! While somebody watches, a camera runs five to eight threads of GStreamer's: demuxer, source,
//! RTCP, its bus, and the sending of each transport.

mod factory;
mod feed;
mod main_loop;
mod reader;
mod seam;
mod server;
mod wire;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

pub use server::Cameras;

use crate::error::Result;

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoginMethod {
    /// RFC 2617 with MD5.
    #[default]
    Digest,
    /// The password in base64.
    Basic,
}

/// What clients have to know.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Name.
    pub user: String,
    /// Password.
    pub password: String,
    /// How it is asked for.
    pub method: LoginMethod,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// What a server of `rtsps` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Certificate, PEM.
    pub certificate: Vec<u8>,
    /// Its private key, PEM, not encrypted.
    pub key: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// Where cameras are served and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Address to listen at.
    pub listen: IpAddr,
    /// Port to listen at; 0 for any that is free.
    pub port: u16,
    /// Asked of every client, if set.
    pub login: Option<Login>,
    /// Serves `rtsps` instead of `rtsp`, if set.
    pub tls: Option<Identity>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            login: None,
            tls: None,
        }
    }
}

/// How packets may travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocols {
    /// As the client wants.
    #[default]
    Any,
    /// Interleaved with RTSP alone.
    Tcp,
    /// Datagrams alone.
    Udp,
}

/// RTP packets that never leave the camera.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PacketLoss {
    /// Chance of each packet to be lost, 0 to 1.
    pub probability: f64,
    /// The same seed loses the same packets of a stream.
    pub seed: u64,
}

/// What one camera plays.
#[derive(Clone, Debug, PartialEq)]
pub struct FileOptions {
    /// MP4, MKV, MPEG-TS or AVI with H.264, H.265 or MJPEG.
    pub file: PathBuf,
    /// Path of its URL, with a leading slash.
    pub path: String,
    /// How packets may travel.
    pub protocols: Protocols,
    /// Packets that are lost, over TCP too.
    pub loss: Option<PacketLoss>,
    /// Frames per second that the session description claims (`a=framerate`), true or not.
    pub frame_rate_claim: Option<f64>,
}

impl FileOptions {
    /// The path that cameras have by default.
    pub const DEFAULT_PATH: &'static str = "/camera";

    /// `file` at [`Self::DEFAULT_PATH`], to anyone, complete.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        FileOptions {
            file: file.into(),
            path: Self::DEFAULT_PATH.to_owned(),
            protocols: Protocols::default(),
            loss: None,
            frame_rate_claim: None,
        }
    }

    /// The same at another path.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }
}

/// One camera on a port of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraOptions {
    /// Where and to whom.
    pub server: ServerOptions,
    /// What.
    pub media: FileOptions,
}

impl CameraOptions {
    /// `file` on a free port of 127.0.0.1.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        CameraOptions {
            server: ServerOptions::default(),
            media: FileOptions::new(file),
        }
    }
}

/// A camera that runs until it is dropped.
#[derive(Debug)]
pub struct Camera {
    cameras: Cameras,
    path: String,
}

impl Camera {
    /// Looks at the file, listens and serves.
    ///
    /// # Errors
    /// Those of [`Cameras::start`] and [`Cameras::add`].
    pub fn start(options: CameraOptions) -> Result<Camera> {
        let cameras = Cameras::start(options.server)?;
        let path = options.media.path.clone();
        cameras.add(options.media)?;
        Ok(Camera { cameras, path })
    }

    /// Where it can be watched, without user and password.
    pub fn url(&self) -> String {
        self.cameras.url(&self.path)
    }

    /// The address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.cameras.address()
    }
}
