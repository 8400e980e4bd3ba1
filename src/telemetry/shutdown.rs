//! The signals that end the server.

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Kind, Result, ResultExt as _};

/// Waits for SIGTERM or SIGINT and returns its name. Handlers are installed at the first poll.
pub async fn signalled() -> Result<&'static str> {
    let install =
        |kind| signal(kind).or_kind(Kind::Internal, || "cannot install a signal handler".into());
    let mut terminate = install(SignalKind::terminate())?;
    let mut interrupt = install(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
