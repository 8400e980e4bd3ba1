//! An attempt to reach a camera, and the session that comes of it: a task that hands over packets.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    limits::LIVE_PACKETS_MAX,
    rtsp::{Access, Client, Failure, FailureKind, Packet, Session, Track, Url},
};

/// A wait for the network.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// Reaches a camera, once per call; tests bring their own.
pub trait Dial: Send + Sync + 'static {
    /// A new session. Dropping the future gives the attempt up.
    fn dial(&self) -> Pending<'_, Box<dyn Packets>>;
}

/// A session. Dropping it closes its sockets.
pub trait Packets: Send + 'static {
    /// The video track.
    fn track(&self) -> &Track;

    /// The next packet. Dropping the future loses nothing.
    fn next(&mut self) -> Pending<'_, Packet>;

    /// Says goodbye before it is dropped; in bounded time.
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async { drop(self) })
    }
}

/// A camera's address and how it is reached.
pub struct Camera {
    /// What all sessions have in common.
    pub client: Client,
    /// Its address.
    pub url: Url,
    /// How it is reached.
    pub access: Access,
}

impl Dial for Camera {
    fn dial(&self) -> Pending<'_, Box<dyn Packets>> {
        Box::pin(async {
            let session = self.client.open(&self.url, &self.access).await?;
            Ok(Box::new(session) as Box<dyn Packets>)
        })
    }
}

impl Packets for Session {
    fn track(&self) -> &Track {
        Session::track(self)
    }

    fn next(&mut self) -> Pending<'_, Packet> {
        Box::pin(Session::next(self))
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Session::close(*self))
    }
}

/// What the task hands over: a track, then packets; a failure ends it.
pub(crate) enum Arrival {
    Track(Track),
    Packet(Packet),
    Failed(Failure),
}

/// The task. It ends when this is dropped, once it has said goodbye: cameras have few sessions, and keep one over UDP until
/// its timeout otherwise.
pub(crate) struct Attempt {
    arrivals: mpsc::Receiver<Arrival>,
    _over: DropGuard,
}

impl Attempt {
    pub(crate) fn start(dial: &Arc<dyn Dial>, runtime: &Handle) -> Self {
        let (sender, arrivals) = mpsc::channel(LIVE_PACKETS_MAX);
        let (dial, over) = (Arc::clone(dial), CancellationToken::new());
        runtime.spawn(run(dial, sender, over.clone()));
        Attempt {
            arrivals,
            _over: over.drop_guard(),
        }
    }

    /// Waits for what the task hands over. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Arrival {
        self.arrivals.recv().await.unwrap_or_else(lost)
    }

    /// What is there already.
    pub(crate) fn at_hand(&mut self) -> Option<Arrival> {
        match self.arrivals.try_recv() {
            Ok(arrival) => Some(arrival),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => Some(lost()),
        }
    }
}

async fn run(dial: Arc<dyn Dial>, sender: mpsc::Sender<Arrival>, over: CancellationToken) {
    let dialled = tokio::select! {
        biased;
        () = over.cancelled() => return,
        dialled = dial.dial() => dialled,
    };
    // Nobody waits for a failure any more where the receiver is gone.
    let mut session = match dialled {
        Ok(session) => session,
        Err(failure) => {
            let _ = sender.send(Arrival::Failed(failure)).await;
            return;
        }
    };
    let failure = tokio::select! {
        biased;
        () = over.cancelled() => None,
        failure = hand_over(session.as_mut(), &sender) => failure,
    };
    if let Some(failure) = failure {
        let _ = sender.send(Arrival::Failed(failure)).await;
    }
    drop(sender);
    session.close().await;
}

/// Until nobody listens any more, or the session fails.
async fn hand_over(session: &mut dyn Packets, sender: &mpsc::Sender<Arrival>) -> Option<Failure> {
    let track = Arrival::Track(session.track().clone());
    sender.send(track).await.ok()?;
    loop {
        match session.next().await {
            Ok(packet) => sender.send(Arrival::Packet(packet)).await.ok()?,
            Err(failure) => return Some(failure),
        }
    }
}

fn lost() -> Arrival {
    Arrival::Failed(Failure {
        kind: FailureKind::Reset,
        message: "the camera's session ended without a word".to_owned(),
    })
}
