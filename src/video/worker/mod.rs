//! Decoding in a process of its own, so that what breaks a decoder breaks one stream.
//!
//! ```text
//! server                                              decode-worker, one per stream
//! upload ─▶ Feeder ──── standard input (pipe) ──────▶ demuxer ─▶ decoder ─▶ pictures, kept there
//! camera ─▶ RemoteConnection ─┐                                                │
//!           RemoteSource ─────┴─ socket: requests ──▶ which to reduce ─────────┤
//!           frames without pixels ◀─ socket: events, reduced pictures ◀────────┘
//! ```
//!
//! Pictures stay in the process; what crosses, through shared memory, is the model's 448 × 448 pixels of
//! those that are sampled, or small ones as they are. The process is forked from one that has loaded GStreamer
//! (see `forks`) and confines itself before it reads the first byte of media (see `confine` and `reach`).

mod board;
mod child;
mod confine;
mod connection;
mod forks;
mod inbox;
mod picture;
mod process;
mod reach;
mod rights;
mod running;
mod source;
mod wire;
mod words;

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

pub use child::{Ground, Stream, Turn, check_here, serve_forks, take};
pub(crate) use connection::RemoteConnection;
pub use forks::ForkServer;
pub(crate) use source::RemoteSource;
pub use wire::Checked;

use self::{
    process::Process,
    wire::{FromWorker, Job},
};
use super::VideoLimits;
use crate::{
    error::{Error, Kind, Result},
    limits::{WORKER_MEMORY_BYTES, WORKER_PICTURES_AHEAD, WORKER_START_MAX, WORKER_START_SLOW},
};

/// Also where a thread panicked with it: what is behind these locks is whole between any two lines.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How decoder processes are started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// A `headhunt` binary; its `decode-worker` is run.
    pub program: PathBuf,
    /// Address space of a process, bytes.
    pub memory_max_bytes: u64,
    /// All that a process gets of the environment.
    pub environment: Vec<(String, String)>,
    /// Threads of a process that may make the model's pictures of large ones at a time.
    pub reducers: u32,
    /// Forks them; without it each is started from the program's file and loads GStreamer by itself.
    pub forks: Option<ForkServer>,
}

/// Half of the cores that this process may use: other streams need theirs.
fn reducers() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from((cores / 2).clamp(1, WORKER_PICTURES_AHEAD)).unwrap_or(1)
}

impl Workers {
    /// Processes of the running binary, also when its file has been replaced since.
    pub fn of_this_program() -> Self {
        Workers {
            program: PathBuf::from("/proc/self/exe"),
            memory_max_bytes: WORKER_MEMORY_BYTES,
            environment: Vec::new(),
            reducers: reducers(),
            forks: None,
        }
    }

    /// Starts one, and asks it how well it is confined.
    ///
    /// `FailedPrecondition` where it cannot be started, or can do what it must not.
    pub fn check(&self, limits: &VideoLimits) -> Result<()> {
        let unusable = |e: Error| {
            let text = format!("decoder processes cannot be used: {e:#}");
            Error::new(Kind::FailedPrecondition, text)
        };
        let began = Instant::now();
        let process = Process::start(
            self,
            Job::Check,
            process::no_input().map_err(unusable)?,
            limits,
            CancellationToken::new(),
        )
        .map_err(unusable)?;
        // Without what the fork server took of it.
        let started = Instant::now();
        let files_confined = loop {
            process.expect_news();
            match process.event(Duration::from_secs(1)).map_err(unusable)? {
                Some(FromWorker::Checked(checked)) if checked.faults.is_empty() => {
                    break checked.files_confined;
                }
                Some(FromWorker::Checked(checked)) => {
                    return Err(unusable(Error::precondition(format!(
                        "one is not confined: {}",
                        words::plain(&checked.faults)
                    ))));
                }
                Some(FromWorker::Failed(fault)) => return Err(unusable(fault.into())),
                Some(_) => return Err(unusable(process.broke_protocol("it gave no answer"))),
                None if started.elapsed() > WORKER_START_MAX => {
                    return Err(unusable(Error::deadline("one did not start")));
                }
                None => {}
            }
        };
        if !files_confined {
            tracing::warn!(
                "Landlock is not to be had here (Linux 5.13, where it is turned on and the container allows it): a decoder process that is taken over could read what the server's user can"
            );
        }
        let took = began.elapsed();
        if took > WORKER_START_SLOW {
            tracing::warn!(
                ?took,
                "decoder processes start slowly: GStreamer looks at all plugins each time where it cannot keep its list; set GST_REGISTRY to a file that can be written"
            );
        }
        Ok(())
    }
}
