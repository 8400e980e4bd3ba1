//! A container so simple that a test can write it by hand: `RAWV`, then one byte per frame, the
//! brightness of all its pixels, at 30 frames per second. A byte of 255 is a damaged frame.

use std::{sync::Arc, time::Duration};

use headhunt::{
    error::{Error, Result},
    media::{
        ChunkEvent, ChunkSource, Frame, FrameStamp, Gap, GapReason, MediaEvent, MediaInfo,
        MediaSource, MediaTime, Picture, RgbImage,
    },
    rpc::OpenMedia,
};
use tokio_util::sync::CancellationToken;

pub const MAGIC: &[u8] = b"RAWV";

/// Nanoseconds of a frame.
pub const FRAME: i64 = 33_333_333;

/// Brightness of a damaged frame.
pub const DAMAGE: u8 = 255;

/// A video of these frames.
pub fn video(brightness: &[u8]) -> Vec<u8> {
    [MAGIC, brightness].concat()
}

/// 48-frame segments: `dark` ones, then `bright` ones, then `dark` ones, then `rest` frames.
pub fn flash(dark: usize, bright: usize, rest: usize) -> Vec<u8> {
    let segment = |level: u8, n: usize| vec![level; 48 * n];
    video(
        &[
            segment(10, dark),
            segment(240, bright),
            segment(10, dark),
            vec![10; rest],
        ]
        .concat(),
    )
}

pub struct RawMedia;

impl OpenMedia for RawMedia {
    fn open_upload(
        &self,
        chunks: Box<dyn ChunkSource>,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        let mut source = RawSource {
            chunks,
            cancel,
            bytes: Vec::new(),
            at: 0,
            frames: 0,
            slots: 0,
            opened: false,
        };
        for expected in MAGIC {
            if source.byte()? != Some(*expected) {
                return Err(Error::invalid(
                    "the upload is no video of a known container",
                ));
            }
        }
        Ok(Box::new(source))
    }
}

struct RawSource {
    chunks: Box<dyn ChunkSource>,
    cancel: CancellationToken,
    bytes: Vec<u8>,
    at: usize,
    /// Decoded frames.
    frames: u64,
    /// Places in media time, damaged ones included.
    slots: i64,
    opened: bool,
}

impl RawSource {
    fn byte(&mut self) -> Result<Option<u8>> {
        while self.at == self.bytes.len() {
            if self.cancel.is_cancelled() {
                return Err(Error::cancelled("decoding was cancelled"));
            }
            match self.chunks.next_chunk(Duration::from_millis(50))? {
                ChunkEvent::Bytes(bytes) => {
                    self.bytes = bytes.to_vec();
                    self.at = 0;
                }
                ChunkEvent::Pending => {}
                ChunkEvent::End => return Ok(None),
            }
        }
        let byte = self.bytes[self.at];
        self.at += 1;
        Ok(Some(byte))
    }
}

impl MediaSource for RawSource {
    fn next_event(&mut self) -> Result<Option<MediaEvent>> {
        if !self.opened {
            self.opened = true;
            return Ok(Some(MediaEvent::Opened(MediaInfo {
                container: "raw".into(),
                codec: "raw".into(),
                width: 16,
                height: 16,
                declared_fps: Some(30.0),
            })));
        }
        let Some(byte) = self.byte()? else {
            return Ok(None);
        };
        let pts = MediaTime::from_nanos(self.slots * FRAME);
        self.slots += 1;
        if byte == DAMAGE {
            return Ok(Some(MediaEvent::Gap(Gap {
                from: pts,
                to: MediaTime::from_nanos(self.slots * FRAME),
                reason: GapReason::DecodeError,
                frames_lost: 1,
                detail: "damaged".into(),
            })));
        }
        let index = self.frames;
        self.frames += 1;
        Ok(Some(MediaEvent::Frame(Frame {
            stamp: FrameStamp {
                index,
                pts,
                duration: Duration::from_nanos(FRAME as u64),
            },
            picture: Arc::new(Plain(byte)),
            received: None,
        })))
    }
}

struct Plain(u8);

impl Picture for Plain {
    fn to_rgb(&self) -> Result<RgbImage> {
        Ok(RgbImage {
            width: 16,
            height: 16,
            data: vec![self.0; 16 * 16 * 3],
        })
    }

    fn size_bytes(&self) -> usize {
        16 * 16 * 3
    }
}
