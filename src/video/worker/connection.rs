//! A camera's connection that a decoder process decodes.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Workers,
    picture::{Layout, RemotePicture},
    process::{self, Process},
    wire::{self, FromWorker, Job, PacketHead, ToWorker},
    words,
};
use crate::{
    error::{Kind, Result},
    limits::{UPLOAD_QUEUE_BYTES, WORKER_FRAMES_AHEAD, WORKER_PACKETS_BYTES},
    rtsp::{Codec, Packet, Track},
    video::{
        VideoLimits,
        ledger::Loss,
        live::{Decoded, Decoding, Placed, Pulled},
    },
};

/// The decoder process of one connection. It lives until its last picture is dropped.
pub(crate) struct RemoteConnection {
    /// None where it could not be started; why is told once.
    process: Option<Arc<Process>>,
    fault: Option<String>,
    /// It listens: before that messages would fill the socket.
    started: bool,
    layout: Layout,
    codec: Codec,
    look: Arc<Notify>,
    /// Messages that are not written yet.
    pending: Vec<u8>,
    /// Bytes of packets given, and those that the decoder has taken.
    given: u64,
    taken: u64,
    pictures: u64,
    /// Pictures taken that the process does not know of yet.
    pulled: u32,
}

impl RemoteConnection {
    /// Starts the process. One that cannot be started is like one that ends at once: the camera is tried again.
    pub(crate) fn start(
        workers: &Workers,
        track: &Track,
        limits: &VideoLimits,
        cancel: CancellationToken,
    ) -> Self {
        let job = Job::Packets(track.clone());
        let started =
            process::no_input().and_then(|none| Process::start(workers, job, none, limits, cancel));
        let (process, fault) = match started {
            Ok(process) => (Some(Arc::new(process)), None),
            Err(e) => (None, Some(format!("{e:#}"))),
        };
        if let Some(process) = &process {
            process.send(&ToWorker::More(WORKER_FRAMES_AHEAD), &[]);
        }
        RemoteConnection {
            look: process
                .as_ref()
                .map_or_else(Arc::default, |process| process.look()),
            process,
            fault,
            started: false,
            layout: Layout::default(),
            codec: track.codec,
            pending: Vec::new(),
            given: 0,
            taken: 0,
            pictures: 0,
            pulled: 0,
        }
    }

    fn flush(&mut self) {
        if let Some(process) = self.process.as_ref().filter(|_| self.started)
            && !self.pending.is_empty()
        {
            process.write(&self.pending);
            self.pending.clear();
        }
    }

    fn in_flight(&self) -> u64 {
        self.given.saturating_sub(self.taken)
    }
}

impl Decoding for RemoteConnection {
    fn look(&self) -> Arc<Notify> {
        Arc::clone(&self.look)
    }

    fn wants(&self) -> bool {
        self.in_flight() < UPLOAD_QUEUE_BYTES
    }

    fn pictures(&self) -> u64 {
        self.pictures
    }

    fn codec(&self) -> Codec {
        self.codec
    }

    fn push(&mut self, packet: &Packet, placed: Placed) {
        let head = PacketHead {
            pts: placed.pts.as_nanos(),
            jumped: placed.jumped,
            lost: packet.lost,
            arrived: packet.arrived,
        };
        let message = ToWorker::Packet(head);
        // Only a packet over 4 GiB cannot be written down.
        if wire::encode(&message, &packet.data, &mut self.pending).is_ok() {
            self.given += packet.data.len() as u64;
        }
        if self.pending.len() >= WORKER_PACKETS_BYTES {
            self.flush();
        }
    }

    fn end(&mut self) {
        let _ = wire::encode(&ToWorker::NoMorePackets, &[], &mut self.pending);
        self.flush();
    }

    fn pull(&mut self) -> Result<Pulled> {
        loop {
            self.flush();
            let Some(process) = &self.process else {
                return Ok(Pulled::Ended(self.fault.take()));
            };
            let event = match process.event(Duration::ZERO) {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(Pulled::Nothing),
                // The camera goes on, with another process.
                Err(e) => return Ok(Pulled::Ended(Some(e.to_string()))),
            };
            match event {
                FromWorker::Taken(bytes) if self.taken < bytes && bytes <= self.given => {
                    self.taken = bytes;
                }
                FromWorker::Started if !self.started => self.started = true,
                FromWorker::Decoded(head) => {
                    let laid = match self.layout.of(head.laid, process) {
                        Ok(laid) => laid,
                        Err(how) => {
                            let error = process.broke_protocol(how);
                            return Ok(Pulled::Ended(Some(error.to_string())));
                        }
                    };
                    self.pictures += 1;
                    self.pulled += 1;
                    if self.pulled * 2 >= WORKER_FRAMES_AHEAD {
                        let pulled = std::mem::take(&mut self.pulled);
                        process.send(&ToWorker::More(pulled), &[]);
                    }
                    let picture = RemotePicture::new(process, head.picture, head.size_bytes, laid);
                    return Ok(Pulled::Picture(Decoded {
                        pts: head.pts,
                        picture: Arc::new(picture),
                        size: head.size,
                        arrived: head.arrived,
                        loss: Loss {
                            frames: head.lost_frames,
                            untimed: head.lost_untimed,
                            discontinuity: head.discontinuity,
                        },
                        jumped: head.jumped,
                    }));
                }
                FromWorker::Ended(fault) => {
                    return Ok(Pulled::Ended(fault.map(|why| words::plain(&why))));
                }
                FromWorker::Failed(fault) => {
                    let error = crate::error::Error::from(fault);
                    // What no other process would do better; the rest may.
                    return match error.kind() {
                        Kind::InvalidArgument | Kind::FailedPrecondition => Err(error),
                        _ => Ok(Pulled::Ended(Some(error.to_string()))),
                    };
                }
                _ => {
                    let error = process.broke_protocol("it told of what no camera has");
                    return Ok(Pulled::Ended(Some(error.to_string())));
                }
            }
        }
    }
}
