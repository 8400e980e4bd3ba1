//! A file or an upload that a decoder process decodes.

use std::{
    fs::File,
    io::{self, PipeWriter, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio_util::sync::CancellationToken;

use super::{
    Workers, locked,
    picture::{Layout, RemotePicture},
    process::Process,
    wire::{FromWorker, Job, ToWorker},
    words,
};
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits::{
        WORKER_FILE_QUIET_MAX, WORKER_FRAMES_AHEAD, WORKER_FRAMES_AHEAD_BYTES,
        WORKER_FRAMES_AHEAD_MAX,
    },
    media::{ChunkEvent, ChunkSource, Frame, FrameStamp, Gap, MediaEvent, MediaInfo, MediaSource},
    video::{VideoLimits, pump::POLL, upload},
};

/// How a file is called in the process, which has it as its standard input.
pub(super) const STANDARD_INPUT: &str = "/proc/self/fd/0";

/// A [`MediaSource`] over a decoder process, which lives until its last picture is dropped too.
pub(crate) struct RemoteSource {
    process: Arc<Process>,
    feeder: Option<Feeder>,
    cancel: CancellationToken,
    /// What the user calls it, where it is a file.
    path: Option<String>,
    window: Window,
    layout: Layout,
    /// Gaps since the last frame.
    gaps: u32,
    /// The last frame.
    last: Option<FrameStamp>,
    opened: bool,
    end: Option<End>,
}

/// Gaps that may come one after another: a decoder tells of one before a frame, and of one at the end.
const GAPS_TOGETHER: u32 = 2;

/// How far a process may go ahead: as far as that takes little memory, and it is told of it seldom.
struct Window {
    /// Frames that it may give and that were not taken yet, with those of `taken`.
    ahead: u32,
    /// Frames taken that it does not know of yet.
    taken: u32,
}

impl Default for Window {
    fn default() -> Self {
        Window {
            ahead: WORKER_FRAMES_AHEAD,
            taken: 0,
        }
    }
}

impl Window {
    /// A frame of so many bytes is taken; how many more the process may give now.
    fn frame(&mut self, bytes: usize) -> u32 {
        self.taken += 1;
        let fit = u32::try_from(WORKER_FRAMES_AHEAD_BYTES / bytes.max(1)).unwrap_or(u32::MAX);
        let ahead = fit.clamp(WORKER_FRAMES_AHEAD, WORKER_FRAMES_AHEAD_MAX);
        let more = ahead.saturating_sub(self.ahead);
        // Where frames have grown, those that were taken are not replaced.
        let less = self.ahead.saturating_sub(ahead).min(self.taken);
        self.taken -= less;
        self.ahead = self.ahead + more - less;
        if more == 0 && self.taken * 2 < self.ahead {
            return 0;
        }
        std::mem::take(&mut self.taken) + more
    }
}

enum End {
    Orderly,
    Failed(String),
}

impl RemoteSource {
    /// Opens a regular file.
    pub(crate) fn file(
        workers: &Workers,
        path: &Path,
        limits: &VideoLimits,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let file: File = crate::video::open_file(path)?;
        let process = Process::start(workers, Job::File, file.into(), limits, cancel.clone())?;
        RemoteSource::started(process, None, Some(path.display().to_string()), cancel)
    }

    /// Opens an upload; it is read by a thread of its own, as far as the process takes it.
    pub(crate) fn upload(
        workers: &Workers,
        chunks: Box<dyn ChunkSource>,
        limits: &VideoLimits,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let (input, to) = io::pipe().or_kind(Kind::ResourceExhausted, || {
            "cannot make a pipe for an upload: the system has no more".into()
        })?;
        let process = Process::start(workers, Job::Upload, input.into(), limits, cancel.clone())?;
        let feeder = Feeder::start(chunks, to)?;
        RemoteSource::started(process, Some(feeder), None, cancel)
    }

    fn started(
        process: Process,
        feeder: Option<Feeder>,
        path: Option<String>,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let mut source = RemoteSource {
            process: Arc::new(process),
            feeder,
            cancel,
            path,
            window: Window::default(),
            layout: Layout::default(),
            gaps: 0,
            last: None,
            opened: false,
            end: None,
        };
        source
            .process
            .send(&ToWorker::More(WORKER_FRAMES_AHEAD), &[]);
        match source.message()? {
            FromWorker::Started => Ok(source),
            FromWorker::Failed(fault) => Err(source.named(fault.into())),
            _ => Err(source.process.broke_protocol("it gave frames of nothing")),
        }
    }

    /// The next message about the media.
    fn message(&mut self) -> Result<FromWorker> {
        self.process.expect_news();
        let began = Instant::now();
        loop {
            if self.cancel.is_cancelled() {
                return Err(upload::cancelled());
            }
            if let Some(error) = self.feeder.as_ref().and_then(Feeder::failed) {
                return Err(error);
            }
            match self.process.event(POLL) {
                Ok(Some(event)) => return Ok(event),
                // A file comes as fast as it is read: one that only says that it lives will not get on.
                Ok(None) if self.feeder.is_none() && began.elapsed() > WORKER_FILE_QUIET_MAX => {
                    return Err(self
                        .process
                        .broke_protocol("it made nothing of the file in ten minutes"));
                }
                Ok(None) => {}
                // The upload's own fault, if it has one, is what ended the process.
                Err(e) => {
                    let own = self.feeder.as_ref().and_then(Feeder::failed);
                    let frames = self.last.map_or(0, |stamp| stamp.index + 1);
                    return Err(own.unwrap_or_else(|| {
                        Error::new(e.kind(), format!("{e} after {frames} frames"))
                    }));
                }
            }
        }
    }

    fn advance(&mut self) -> Result<Option<MediaEvent>> {
        match self.message()? {
            FromWorker::Opened(info) if !self.opened => {
                self.opened = true;
                Ok(Some(MediaEvent::Opened(MediaInfo {
                    container: words::plain(&info.container),
                    codec: words::plain(&info.codec),
                    // What no camera and no file has says nothing.
                    declared_fps: info.declared_fps.filter(|fps| (1e-3..=1e6).contains(fps)),
                    ..info
                })))
            }
            FromWorker::Gap(gap)
                if self.opened && self.gaps < GAPS_TOGETHER && gap.from <= gap.to =>
            {
                self.gaps += 1;
                Ok(Some(MediaEvent::Gap(Gap {
                    detail: words::plain(&gap.detail),
                    ..gap
                })))
            }
            FromWorker::Frame {
                picture,
                stamp,
                size_bytes,
                laid,
            } if self.follows(stamp) => {
                let laid = self.layout.of(laid, &self.process);
                let laid = laid.map_err(|how| self.process.broke_protocol(how))?;
                self.last = Some(stamp);
                self.gaps = 0;
                let more = self.window.frame(size_bytes);
                if more > 0 {
                    self.process.send(&ToWorker::More(more), &[]);
                }
                let picture = RemotePicture::new(&self.process, picture, size_bytes, laid);
                Ok(Some(MediaEvent::Frame(Frame {
                    stamp,
                    picture: Arc::new(picture),
                    received: None,
                })))
            }
            FromWorker::End => {
                self.end = Some(End::Orderly);
                Ok(None)
            }
            FromWorker::Failed(fault) => Err(self.named(fault.into())),
            _ => Err(self
                .process
                .broke_protocol("it gave frames in another order than media has")),
        }
    }

    fn follows(&self, stamp: FrameStamp) -> bool {
        let expected = self.last.map_or(0, |last| last.index + 1);
        self.opened && stamp.index == expected && self.last.is_none_or(|last| last.pts <= stamp.pts)
    }

    /// The error as the user knows the file.
    fn named(&self, error: Error) -> Error {
        let Some(path) = &self.path else {
            return error;
        };
        let whole = format!("{error:#}");
        if !whole.contains(STANDARD_INPUT) {
            return error;
        }
        Error::new(error.kind(), whole.replace(STANDARD_INPUT, path))
    }
}

impl MediaSource for RemoteSource {
    fn next_event(&mut self) -> Result<Option<MediaEvent>> {
        match &self.end {
            Some(End::Orderly) => return Ok(None),
            Some(End::Failed(why)) => {
                return Err(Error::precondition(format!(
                    "this source has failed before: {why}"
                )));
            }
            None => {}
        }
        self.advance().inspect_err(|e| {
            self.end = Some(End::Failed(e.to_string()));
        })
    }
}

/// Moves an upload into a process's standard input.
struct Feeder {
    shared: Arc<Fed>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Fed {
    stop: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl Feeder {
    fn start(mut chunks: Box<dyn ChunkSource>, mut to: PipeWriter) -> Result<Self> {
        rustix::io::ioctl_fionbio(&to, true).or_kind(Kind::Internal, || {
            "cannot set up the input of a decoder process".into()
        })?;
        let shared = Arc::new(Fed::default());
        let fed = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("upload".into())
            .spawn(move || {
                let fault =
                    catch_unwind(AssertUnwindSafe(|| feed(&mut *chunks, &mut to, &fed.stop)))
                        .unwrap_or_else(|_| {
                            Err(Error::internal("the reader of an upload panicked"))
                        });
                if let Err(e) = fault {
                    *locked(&fed.error) = Some(e);
                    // Not the end of the upload: the pipe stays open until the process is ended.
                    while !fed.stop.load(Ordering::Relaxed) {
                        std::thread::park();
                    }
                }
            })
            .or_kind(Kind::ResourceExhausted, || {
                "cannot start a thread for an upload: the system has too many".into()
            })?;
        Ok(Feeder {
            shared,
            thread: Some(thread),
        })
    }

    /// The upload's own fault, if it has one; once.
    fn failed(&self) -> Option<Error> {
        locked(&self.shared.error).take()
    }
}

/// Gives an upload to the process until its end, or until `stop` was said.
fn feed(chunks: &mut dyn ChunkSource, to: &mut PipeWriter, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match chunks.next_chunk(POLL)? {
            ChunkEvent::Bytes(bytes) => {
                // A process that reads no more has its own reason, which it tells.
                if give(to, &bytes, stop).is_err() {
                    break;
                }
            }
            ChunkEvent::Pending => {}
            ChunkEvent::End => break,
        }
    }
    Ok(())
}

/// Writes all of it, as the process takes it, or what it took until `stop` was said.
fn give(to: &mut PipeWriter, mut bytes: &[u8], stop: &AtomicBool) -> io::Result<()> {
    let wait = Timespec::try_from(POLL).map_err(io::Error::other)?;
    while !bytes.is_empty() && !stop.load(Ordering::Relaxed) {
        match to.write(bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                match poll(&mut [PollFd::new(&*to, PollFlags::OUT)], Some(&wait)) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread of an upload panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_goes_ahead_as_far_as_its_frames_fit() {
        let mut window = Window::default();
        let mut credit = WORKER_FRAMES_AHEAD;
        let mut run = |bytes: usize, frames: u32, expected: u32| {
            let mut told = 0;
            for _ in 0..frames {
                // It gives a frame, which is taken.
                credit = credit.checked_sub(1).expect("it waits for ever");
                let more = window.frame(bytes);
                credit += more;
                told += u32::from(more > 0);
            }
            assert_eq!(window.ahead, expected, "{bytes} bytes");
            assert!(
                credit + window.taken == expected,
                "{credit} {}",
                window.taken
            );
            told
        };
        let small = run(115_200, 640, WORKER_FRAMES_AHEAD_MAX);
        assert!(small <= 41, "told {small} times");
        // 8K after 320 x 240: back to the least.
        run(50 << 20, 100, WORKER_FRAMES_AHEAD);
        run(1 << 20, 100, 16);
        run(0, 100, WORKER_FRAMES_AHEAD_MAX);
    }
}
