//! The chunks of an upload on their way from the connection to the decoder's thread.
//!
//! Two bounds hold the sender back, and with it, through HTTP/2 flow control, the client: bytes and
//! number of chunks.

use std::{sync::Arc, time::Duration};

use prost::bytes::{Bytes, BytesMut};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time,
};

use crate::{
    error::{Error, Result},
    limits,
    media::{ChunkEvent, ChunkSource},
};

enum Item {
    Bytes(Bytes, OwnedSemaphorePermit),
    End,
}

/// The connection's end. Dropped without [`finish`](Self::finish), it tells the decoder that the
/// upload broke off.
pub(super) struct UploadSender {
    items: mpsc::Sender<Item>,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
}

/// The decoder's end; to be used outside of async code.
pub(super) struct UploadSource {
    items: mpsc::Receiver<Item>,
    runtime: Handle,
    /// Taken from the channel while small chunks were gathered, but too large to join them.
    next: Option<Item>,
    ended: bool,
}

/// An upload of which at most about `budget_bytes` wait. Must be called inside a runtime.
pub(super) fn upload(budget_bytes: usize) -> (UploadSender, UploadSource) {
    let (sender, items) = mpsc::channel(limits::UPLOAD_QUEUE_CHUNKS);
    // A chunk's permits are counted in u32; the configuration allows 256 MiB.
    let budget_bytes = budget_bytes.min(u32::MAX as usize);
    let sender = UploadSender {
        items: sender,
        budget: Arc::new(Semaphore::new(budget_bytes)),
        budget_bytes,
    };
    let source = UploadSource {
        items,
        runtime: Handle::current(),
        next: None,
        ended: false,
    };
    (sender, source)
}

impl UploadSender {
    /// Waits for room and hands a chunk over; `false` if the decoder has gone. A chunk larger than
    /// the whole budget waits until nothing else does.
    pub async fn send(&self, bytes: Bytes) -> bool {
        let cost = bytes.len().min(self.budget_bytes) as u32; // fits: see `upload`
        tokio::select! {
            () = self.items.closed() => false,
            permit = self.budget.clone().acquire_many_owned(cost) => match permit {
                Ok(permit) => self.items.send(Item::Bytes(bytes, permit)).await.is_ok(),
                Err(_) => false,
            },
        }
    }

    /// The upload ended in an orderly way.
    pub async fn finish(self) {
        // A decoder that has gone needs no end.
        let _ = self.items.send(Item::End).await;
    }
}

impl UploadSource {
    /// Adds chunks that are there already to a small one.
    fn gather(&mut self, first: Bytes) -> Bytes {
        if first.len() >= limits::UPLOAD_COALESCE_BYTES {
            return first;
        }
        let mut all: Option<BytesMut> = None;
        let mut len = first.len();
        while let Ok(item) = self.items.try_recv() {
            match item {
                Item::Bytes(bytes, _) if len + bytes.len() <= limits::UPLOAD_COALESCE_BYTES => {
                    len += bytes.len();
                    all.get_or_insert_with(|| BytesMut::from(&first[..]))
                        .extend_from_slice(&bytes);
                }
                other => {
                    self.next = Some(other);
                    break;
                }
            }
        }
        all.map_or(first, BytesMut::freeze)
    }
}

impl ChunkSource for UploadSource {
    fn next_chunk(&mut self, timeout: Duration) -> Result<ChunkEvent> {
        if self.ended {
            return Ok(ChunkEvent::End);
        }
        let item = match self.next.take() {
            Some(item) => Some(item),
            None => match self.items.try_recv() {
                Ok(item) => Some(item),
                Err(mpsc::error::TryRecvError::Disconnected) => None,
                Err(mpsc::error::TryRecvError::Empty) => {
                    let items = &mut self.items;
                    let wait = async { time::timeout(timeout, items.recv()).await };
                    match self.runtime.block_on(wait) {
                        Ok(item) => item,
                        Err(_elapsed) => return Ok(ChunkEvent::Pending),
                    }
                }
            },
        };
        match item {
            Some(Item::Bytes(bytes, _permit)) => Ok(ChunkEvent::Bytes(self.gather(bytes))),
            Some(Item::End) => {
                self.ended = true;
                Ok(ChunkEvent::End)
            }
            None => Err(Error::cancelled("the upload broke off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const WAIT: Duration = Duration::from_secs(20);

    /// Reads everything on a thread of its own, as a decoder does.
    fn read_all(mut source: UploadSource) -> tokio::task::JoinHandle<Result<Vec<Bytes>>> {
        tokio::task::spawn_blocking(move || {
            let mut chunks = Vec::new();
            loop {
                match source.next_chunk(WAIT)? {
                    ChunkEvent::Bytes(bytes) => chunks.push(bytes),
                    ChunkEvent::Pending => return Err(Error::deadline("nothing came")),
                    ChunkEvent::End => return Ok(chunks),
                }
            }
        })
    }

    #[tokio::test]
    async fn bytes_come_whole_and_in_order_whatever_the_chunks() {
        let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        for size in [1usize, 7, 65_536, 131_072, 300_000] {
            let (sender, source) = upload(100_000);
            let reader = read_all(source);
            // A 1-byte chunking of everything would only repeat itself.
            let data = &data[..data.len().min(size * 20_000)];
            for chunk in data.chunks(size) {
                assert!(sender.send(Bytes::copy_from_slice(chunk)).await);
            }
            assert!(sender.send(Bytes::new()).await);
            sender.finish().await;
            let chunks = reader.await.unwrap().unwrap();
            assert!(chunks.concat() == data, "chunks of {size}");
            assert!(
                chunks
                    .iter()
                    .all(|c| c.len() <= limits::UPLOAD_COALESCE_BYTES.max(size))
            );
        }
    }

    #[tokio::test]
    async fn the_sender_is_held_back_by_bytes_and_let_go_by_a_reader() {
        let (sender, mut source) = upload(1000);
        assert!(sender.send(Bytes::from(vec![0; 900])).await);
        let mut blocked = Box::pin(sender.send(Bytes::from(vec![0; 101])));
        assert!(poll_once(blocked.as_mut()).await.is_none());
        let mut source = tokio::task::spawn_blocking(move || {
            assert!(matches!(source.next_chunk(WAIT), Ok(ChunkEvent::Bytes(b)) if b.len() == 900));
            source
        })
        .await
        .unwrap();
        assert!(blocked.as_mut().await);
        drop(blocked);
        // Larger than the budget: passes once nothing else waits.
        let large = tokio::spawn(async move { sender.send(Bytes::from(vec![1; 5000])).await });
        tokio::task::spawn_blocking(move || {
            assert!(matches!(source.next_chunk(WAIT), Ok(ChunkEvent::Bytes(b)) if b.len() == 101));
            assert!(matches!(source.next_chunk(WAIT), Ok(ChunkEvent::Bytes(b)) if b.len() == 5000));
        })
        .await
        .unwrap();
        assert!(large.await.unwrap());
    }

    #[tokio::test]
    async fn breaking_off_is_no_end_and_silence_is_pending() {
        let (sender, mut source) = upload(1000);
        let silent = tokio::task::spawn_blocking(move || {
            (source.next_chunk(Duration::from_millis(1)).unwrap(), source)
        });
        let (event, source) = silent.await.unwrap();
        assert_eq!(event, ChunkEvent::Pending);
        drop(sender);
        assert_eq!(
            read_all(source).await.unwrap().unwrap_err().kind(),
            Kind::Cancelled
        );
    }

    #[tokio::test]
    async fn a_gone_decoder_stops_the_sender_even_while_it_waits() {
        let (sender, source) = upload(10);
        assert!(sender.send(Bytes::from(vec![0; 10])).await);
        let blocked = tokio::spawn(async move { sender.send(Bytes::from(vec![0; 10])).await });
        tokio::task::yield_now().await;
        drop(source);
        assert!(!blocked.await.unwrap());
    }

    /// The future's output if it is ready at once.
    async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|cx| match std::pin::Pin::new(&mut future).poll(cx) {
            std::task::Poll::Ready(out) => std::task::Poll::Ready(Some(out)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}
