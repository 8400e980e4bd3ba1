//! The response stream of a detection: a bounded queue and the status that ends it.
//!
//! The status travels beside the queue, so that a detection can end while the queue is full because
//! nobody reads it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time,
};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use super::proto::{DetectResponse, WatchResponse};
use crate::{
    error::{Error, Result},
    telemetry::server::response_dropped,
};

/// What tonic sends. Dropped when the client leaves or its connection dies, it fires `gone`.
pub struct Responses {
    queue: mpsc::Receiver<DetectResponse>,
    end: Option<oneshot::Receiver<Result<(), Status>>>,
    _gone: DropGuard,
}

/// The detection's side.
pub(super) struct Responder {
    queue: mpsc::Sender<DetectResponse>,
    capacity: usize,
    slow_reader: Duration,
}

/// How the stream ends; dropped without a word it ends with INTERNAL.
pub(super) type End = oneshot::Sender<Result<(), Status>>;

/// A stream of at most `capacity` waiting responses, each of which waits at most `slow_reader`.
pub(super) fn responses(
    capacity: usize,
    slow_reader: Duration,
    gone: CancellationToken,
) -> (Responder, End, Responses) {
    let (sender, queue) = mpsc::channel(capacity);
    let (end, ended) = oneshot::channel();
    let responder = Responder {
        queue: sender,
        capacity,
        slow_reader,
    };
    let responses = Responses {
        queue,
        end: Some(ended),
        _gone: gone.drop_guard(),
    };
    (responder, end, responses)
}

impl Responder {
    /// Queues a response. Fails with `ResourceExhausted` where the client has read nothing for too
    /// long, and with `Cancelled` where it has left.
    pub async fn send(&self, response: DetectResponse) -> Result<()> {
        match time::timeout(self.slow_reader, self.queue.reserve()).await {
            Ok(Ok(room)) => {
                room.send(response);
                Ok(())
            }
            Ok(Err(_closed)) => Err(left()),
            Err(_elapsed) => Err(self.too_slow()),
        }
    }

    /// Queues a response that may be left out, unless half of the queue is taken already. Fails with
    /// `Cancelled` where the client has left.
    pub fn offer(&self, response: DetectResponse) -> Result<()> {
        if self.queue.is_closed() {
            return Err(left());
        }
        if self.queue.capacity() * 2 <= self.capacity {
            response_dropped();
            return Ok(());
        }
        match self.queue.try_send(response) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                response_dropped();
                Ok(())
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(left()),
        }
    }

    /// Waits until the client has taken every response; fails like [`send`](Self::send), the time
    /// starting anew with each response it takes.
    pub async fn flush(&self) -> Result<()> {
        for waiting in (0..self.capacity).rev() {
            let taken = self.queue.reserve_many(self.capacity - waiting);
            match time::timeout(self.slow_reader, taken).await {
                Ok(Ok(_room)) => {}
                Ok(Err(_closed)) => return Err(left()),
                Err(_elapsed) => return Err(self.too_slow()),
            }
        }
        Ok(())
    }

    fn too_slow(&self) -> Error {
        Error::exhausted(format!(
            "the client read no response for {} s; read responses while uploading",
            self.slow_reader.as_secs_f64()
        ))
    }
}

fn left() -> Error {
    Error::cancelled("the client left")
}

impl Stream for Responses {
    type Item = Result<DetectResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.queue.poll_recv(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(response)) => return Poll::Ready(Some(Ok(response))),
            Poll::Ready(None) => {}
        }
        let Some(end) = self.end.as_mut() else {
            return Poll::Ready(None);
        };
        let end = ready!(Pin::new(end).poll(cx));
        self.end = None;
        Poll::Ready(match end {
            Ok(Ok(())) => None,
            Ok(Err(status)) => Some(Err(status)),
            // The detection's task is gone without a word.
            Err(_) => Some(Err(Status::internal("the server failed"))),
        })
    }
}

/// The same for `Watch`.
pub struct WatchResponses(pub Responses);

impl Stream for WatchResponses {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let response = ready!(Pin::new(&mut self.0).poll_next(cx));
        Poll::Ready(response.map(|response| response.map(watched)))
    }
}

fn watched(response: DetectResponse) -> WatchResponse {
    use super::proto::{detect_response::Message as From, watch_response::Message as To};
    WatchResponse {
        message: response.message.map(|message| match message {
            From::Opened(m) => To::Opened(m),
            From::FrameScores(m) => To::FrameScores(m),
            From::EventStarted(m) => To::EventStarted(m),
            From::EventUpdated(m) => To::EventUpdated(m),
            From::EventEnded(m) => To::EventEnded(m),
            From::Gap(m) => To::Gap(m),
            From::Summary(m) => To::Summary(m),
            From::SourceState(m) => To::SourceState(m),
            From::ProfileChanged(m) => To::ProfileChanged(m),
        }),
        received_at: response.received_at,
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::error::Kind;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_reader_that_stops_is_ended_and_still_gets_what_waited_and_the_status() {
        let (responder, end, mut stream) = responses(2, SHORT, CancellationToken::new());
        responder.send(DetectResponse::default()).await.unwrap();
        responder.send(DetectResponse::default()).await.unwrap();
        let error = responder.send(DetectResponse::default()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        assert_eq!(
            responder.flush().await.unwrap_err().kind(),
            Kind::ResourceExhausted
        );
        end.send(Err(Status::resource_exhausted("slow"))).unwrap();
        drop(responder);
        assert!(stream.next().await.unwrap().is_ok());
        assert!(stream.next().await.unwrap().is_ok());
        let status = stream.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn what_may_be_left_out_is_left_out_before_the_queue_is_full() {
        let (responder, _end, mut stream) = responses(4, LONG, CancellationToken::new());
        for _ in 0..5 {
            responder.offer(DetectResponse::default()).unwrap();
        }
        assert_eq!(
            responder.queue.capacity(),
            2,
            "half stays free for what must be said"
        );
        responder.send(DetectResponse::default()).await.unwrap();
        for _ in 0..3 {
            stream.next().await.unwrap().unwrap();
        }
        responder.offer(DetectResponse::default()).unwrap();
        assert_eq!(responder.queue.capacity(), 3);
        drop(stream);
        let error = responder.offer(DetectResponse::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled);
    }

    #[tokio::test]
    async fn flush_waits_for_the_reader() {
        let (responder, end, mut stream) = responses(3, LONG, CancellationToken::new());
        for _ in 0..3 {
            responder.send(DetectResponse::default()).await.unwrap();
        }
        let reader = tokio::spawn(async move {
            let mut n = 0;
            while let Some(response) = stream.next().await {
                response.unwrap();
                n += 1;
                time::sleep(SHORT).await;
            }
            n
        });
        responder.flush().await.unwrap();
        assert_eq!(responder.queue.capacity(), 3);
        drop(responder);
        end.send(Ok(())).unwrap();
        assert_eq!(reader.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_client_that_leaves_fires_the_token_and_a_lost_task_is_an_error() {
        let gone = CancellationToken::new();
        let (responder, _end, stream) = responses(1, LONG, gone.clone());
        drop(stream);
        assert!(gone.is_cancelled());
        let error = responder.send(DetectResponse::default()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled);

        let (responder, end, mut stream) = responses(1, LONG, CancellationToken::new());
        drop((responder, end));
        let status = stream.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::Internal);
    }
}
