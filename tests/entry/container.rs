//! An upload's bytes through the container's and the decoder's whole way to frames.

use std::time::Duration;

use headhunt::{
    error::{Error, Kind, Result},
    media::{ChunkEvent, ChunkSource, MediaEvent, MediaSource},
    pipeline::reduce,
    video::{
        self, Input, VideoLimits,
        worker::{self, Workers},
    },
};
use prost::bytes::Bytes;
use tokio_util::sync::CancellationToken;

/// Most pixels that a hostile header may ask for here: decoders take memory for what they are told.
const PIXELS_MAX: u64 = 1 << 20;

/// Longest wait for progress; what stands still is refused then.
pub const STALL: Duration = Duration::from_secs(5);

/// Bytes of a chunk: several chunks even for a small file.
const CHUNK: usize = 700;

pub fn run(bytes: &[u8]) -> std::result::Result<(), String> {
    decoded(bytes, None)
        .map(drop)
        .map_err(|error| format!("{error:#}"))
}

/// Frames and gaps, decoded here or in a process.
pub fn decoded(bytes: &[u8], workers: Option<Workers>) -> Result<(u64, u64)> {
    let limits = VideoLimits {
        workers,
        max_pixels: PIXELS_MAX,
        max_side: 4096,
        spool_max_bytes: 16 << 20,
        stall_timeout: STALL,
        ..VideoLimits::default()
    };
    let chunks = Chunks(Bytes::copy_from_slice(bytes));
    let upload = Input::Upload(Box::new(chunks));
    video::open(upload, &limits, CancellationToken::new())
        .and_then(|mut source| frames(&mut *source))
}

/// Takes all frames; what is counted must be in order.
fn frames(source: &mut dyn MediaSource) -> Result<(u64, u64)> {
    let mut count = 0;
    let mut gaps = 0;
    while let Some(event) = source.next_event()? {
        match event {
            MediaEvent::Frame(frame) => {
                assert_eq!(frame.stamp.index, count);
                count += 1;
                let image = frame.picture.to_rgb()?;
                let pixels = u64::from(image.width) * u64::from(image.height);
                assert!(pixels <= PIXELS_MAX, "{}x{}", image.width, image.height);
                assert_eq!(image.data.len() as u64, pixels * 3);
            }
            MediaEvent::Gap(gap) => {
                assert!(gap.from <= gap.to, "{gap:?}");
                gaps += 1;
            }
            MediaEvent::Opened(_) | MediaEvent::Source(_) => {}
        }
    }
    if count + gaps == 0 {
        return Err(headhunt::error::Error::invalid("neither a frame nor a gap"));
    }
    Ok((count, gaps))
}

struct Chunks(Bytes);

impl ChunkSource for Chunks {
    fn next_chunk(&mut self, _: Duration) -> Result<ChunkEvent> {
        if self.0.is_empty() {
            return Ok(ChunkEvent::End);
        }
        let next = self.0.split_to(self.0.len().min(CHUNK));
        Ok(ChunkEvent::Bytes(next))
    }
}

// The rest is for the fuzz target, which is not built with the tests. It stands here so that it goes on compiling.

/// The same in a process, which an input must neither end nor have hang.
#[allow(dead_code)]
pub fn through_a_process(bytes: &[u8], workers: Workers) {
    // What is no fault of an input: the process was ended, lost its pictures, or could not be started.
    let broke = |error: &Error| {
        matches!(
            error.kind(),
            Kind::Aborted | Kind::DataLoss | Kind::FailedPrecondition
        )
    };
    if let Err(there) = decoded(bytes, Some(workers))
        && broke(&there)
    {
        let here = decoded(bytes, None);
        let same = here.as_ref().is_err_and(|here| here.kind() == there.kind());
        assert!(same, "in a process: {there:#}; here: {here:?}");
    }
}

/// What a program does that a server started as its decoder process.
#[allow(dead_code)]
pub fn serve_as_decoder() -> ! {
    let stream = worker::take(worker::Ground::find(&[]));
    stream.unwrap().serve(reduce::for_decoder())
}
