//! `headhunt camera`: a video file as a camera, for trying the service without one.

use std::{net::IpAddr, path::PathBuf};

use crate::error::Result;

/// Arguments of `headhunt camera`.
///
/// Plays a video file over RTSP for ever, in real time and unchanged, until Ctrl-C. A client that
/// joins waits for the file's next key frame.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// MP4, MKV, MPEG-TS or AVI with H.264, H.265 or MJPEG
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Port to listen at; 0 for any that is free
    #[arg(long, value_name = "N", default_value_t = 8554)]
    port: u16,
    /// Address to listen at; 0.0.0.0 for all of this machine
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Path of the URL
    #[arg(long, value_name = "P", default_value = "/camera")]
    path: String,
    /// User that clients must log in as (digest)
    #[arg(long, value_name = "U", requires = "password")]
    user: Option<String>,
    /// Password of that user; others on this machine can read it in the list of processes
    #[arg(long, value_name = "P", requires = "user")]
    password: Option<String>,
}

/// Serves until SIGINT or SIGTERM.
#[cfg(feature = "video")]
pub fn run(args: Args) -> Result<()> {
    use std::io::Write as _;

    use crate::{
        error::{Kind, ResultExt as _},
        telemetry::{logging, shutdown},
        video::camera::{Camera, CameraOptions, FileOptions, Login, LoginMethod, ServerOptions},
    };

    logging::init("warn", false)?;
    let login = args.user.zip(args.password).map(|(user, password)| Login {
        user,
        password,
        method: LoginMethod::Digest,
    });
    let camera = Camera::start(CameraOptions {
        server: ServerOptions {
            listen: args.listen,
            port: args.port,
            login,
            tls: None,
        },
        media: FileOptions::new(args.file).at(args.path),
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_kind(Kind::Internal, || "cannot start the runtime".to_owned())?;
    let told = || "cannot print the camera's address".to_owned();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", camera.url()).or_kind(Kind::Internal, told)?;
    out.flush().or_kind(Kind::Internal, told)?;
    drop(out);
    runtime.block_on(shutdown::signalled())?;
    Ok(())
}

/// This build has no camera.
#[cfg(not(feature = "video"))]
pub fn run(args: Args) -> Result<()> {
    Err(crate::error::Error::unimplemented(format!(
        "cannot play {}: this binary was built without the `video` feature",
        args.file.display()
    )))
}
