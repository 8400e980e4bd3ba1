//! An attempt to reach a camera, and the session that comes of it: a task that hands over packets.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::{runtime::Handle, sync::mpsc, task::AbortHandle};

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
pub trait Packets: Send {
    /// The video track.
    fn track(&self) -> &Track;

    /// The next packet. Dropping the future loses nothing.
    fn next(&mut self) -> Pending<'_, Packet>;
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
}

/// What the task hands over: a track, then packets; a failure ends it.
pub(crate) enum Arrival {
    Track(Track),
    Packet(Packet),
    Failed(Failure),
}

/// The task. It ends when this is dropped.
pub(crate) struct Attempt {
    arrivals: mpsc::Receiver<Arrival>,
    task: AbortHandle,
}

impl Attempt {
    pub(crate) fn start(dial: &Arc<dyn Dial>, runtime: &Handle) -> Self {
        let (sender, arrivals) = mpsc::channel(LIVE_PACKETS_MAX);
        let dial = Arc::clone(dial);
        let task = runtime.spawn(async move {
            let failure = match run(dial.as_ref(), &sender).await {
                Ok(()) => return,
                Err(failure) => failure,
            };
            // Nobody waits for it any more where the receiver is gone.
            let _ = sender.send(Arrival::Failed(failure)).await;
        });
        Attempt {
            arrivals,
            task: task.abort_handle(),
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

impl Drop for Attempt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends well only when nobody listens any more.
async fn run(dial: &dyn Dial, sender: &mpsc::Sender<Arrival>) -> Result<(), Failure> {
    let mut session = dial.dial().await?;
    let track = Arrival::Track(session.track().clone());
    if sender.send(track).await.is_err() {
        return Ok(());
    }
    loop {
        let packet = session.next().await?;
        if sender.send(Arrival::Packet(packet)).await.is_err() {
            return Ok(());
        }
    }
}

fn lost() -> Arrival {
    Arrival::Failed(Failure {
        kind: FailureKind::Reset,
        message: "the camera's session ended without a word".to_owned(),
    })
}
