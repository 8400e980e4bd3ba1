//! Decoder processes that are forked from one that has loaded GStreamer already.
//!
//! To load the decoders' libraries takes some 75 ms of CPU, as long as three segments of a small picture. A
//! *fork server* is a process that has done so, never sees a byte of media, and forks itself when it is asked:
//!
//! ```text
//! server ── control: standard input, output, error, status ─▶ fork server ── fork ─▶ decoder process
//!        ◀─────────── status: pidfd at once, exit status at its end ──┘
//! ```
//!
//! The server kills and waits through the pidfd, so neither needs the fork server any more. Where there is none
//! to be had, decoder processes are started from the program's file: they come later and are the same.

use std::{
    fmt, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, TryLockError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, SocketFlags, SocketType, socketpair,
        sockopt::{Timeout, set_socket_timeout},
    },
    process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};

use super::{Workers, locked, rights, running::Ended, words::LastWords};
use crate::limits::{
    FORK_SERVER_RETRY, WORKER_END_WAIT, WORKER_FORK_MAX, WORKER_START_MAX, WORKER_WRITE_TIMEOUT,
};

/// To the server: it has loaded what there is to load.
pub(super) const READY: u8 = b'R';
/// To the fork server, with standard input, output and error and a socket for the status.
pub(super) const FORK: u8 = b'F';
/// Through that socket, with a pidfd.
pub(super) const FORKED: u8 = b'P';

/// Forks decoder processes from one that has loaded what they need. Clones are the same one, which runs until the last
/// of them and of its processes is gone.
#[derive(Clone, Default)]
pub struct ForkServer(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    /// It is started when it is needed.
    #[default]
    Idle,
    Runs(Arc<Forker>),
    /// Since when there is none.
    Lost(Instant),
}

impl fmt::Debug for ForkServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForkServer")
    }
}

impl PartialEq for ForkServer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ForkServer {}

impl ForkServer {
    /// A new process with these standard files. `None` where there is no fork server; why is in the log then.
    pub(super) fn fork(&self, workers: &Workers, files: [BorrowedFd<'_>; 3]) -> Option<Forked> {
        let forker = self.forker(workers)?;
        match Forker::fork(&forker, files) {
            Ok(forked) => Some(forked),
            // It is not to blame where this process has no room for another file. What it forked ends by itself.
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::MFILE | Errno::NFILE)) => {
                tracing::warn!("no decoder process could be forked: {e}");
                None
            }
            Err(e) => {
                let said = forker.words.take().unwrap_or_default();
                tracing::warn!(
                    "the fork server of decoder processes is given up, they are started one by one for {} s: {e} {said}",
                    FORK_SERVER_RETRY.as_secs()
                );
                // What it was asked for it must not do later. Its processes go on.
                let _ = locked(&forker.child).kill();
                *locked(&self.0) = State::Lost(Instant::now());
                None
            }
        }
    }

    /// The fork server, started if need be. Who comes while another starts it does without.
    fn forker(&self, workers: &Workers) -> Option<Arc<Forker>> {
        let mut state = match self.0.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        match &*state {
            State::Runs(forker) => return Some(Arc::clone(forker)),
            State::Lost(since) if since.elapsed() < FORK_SERVER_RETRY => return None,
            State::Idle | State::Lost(_) => {}
        }
        match Forker::start(workers) {
            Ok(forker) => {
                let forker = Arc::new(forker);
                *state = State::Runs(Arc::clone(&forker));
                Some(forker)
            }
            Err(e) => {
                tracing::warn!(
                    "decoder processes cannot be forked here, each loads GStreamer by itself: {e}"
                );
                *state = State::Lost(Instant::now());
                None
            }
        }
    }
}

/// The process that forks.
struct Forker {
    child: Mutex<Child>,
    control: OwnedFd,
    words: LastWords,
}

impl Forker {
    fn start(workers: &Workers) -> io::Result<Self> {
        let (control, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        set_socket_timeout(&control, Timeout::Send, Some(WORKER_WRITE_TIMEOUT))?;
        let (words, printed) = LastWords::new()?;
        let child = Command::new(&workers.program)
            .arg0("headhunt")
            .args(["decode-worker", "--fork-server"])
            .env_clear()
            .envs(workers.environment.iter().cloned())
            // What is looked up here its processes need not look up again, each of them.
            .env("LD_BIND_NOW", "1")
            .stdin(Stdio::null())
            .stdout(theirs)
            .stderr(printed)
            // As decoder processes, which stay in its group.
            .process_group(0)
            .spawn()?;
        let forker = Forker {
            child: Mutex::new(child),
            control,
            words,
        };
        let ready = within(&forker.control, Some(WORKER_START_MAX))
            .and_then(|()| rights::expect::<0>(&forker.control, READY));
        match ready {
            Ok(_) => Ok(forker),
            Err(e) => {
                // It prints its reason before it ends.
                let _ = locked(&forker.child).kill();
                let _ = locked(&forker.child).wait();
                let said = forker.words.take().unwrap_or_default();
                Err(io::Error::new(e.kind(), format!("{e} {said}")))
            }
        }
    }

    fn fork(self: &Arc<Self>, [input, output, errors]: [BorrowedFd<'_>; 3]) -> io::Result<Forked> {
        let (status, theirs) = UnixStream::pair()?;
        status.set_read_timeout(Some(WORKER_END_WAIT))?;
        let files = [input, output, errors, theirs.as_fd()];
        rights::send(&self.control, FORK, &files)?;
        // Its end there is the only one: a fork server that ends is heard.
        drop(theirs);
        within(&status, Some(WORKER_FORK_MAX))?;
        let [pidfd] = rights::expect(&status, FORKED)?;
        Ok(Forked {
            pidfd,
            status,
            ended: None,
            forker: Arc::clone(self),
        })
    }
}

impl Drop for Forker {
    fn drop(&mut self) {
        // None of its processes is left.
        let child = self.child.get_mut();
        let child = child.unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A process that was forked.
pub(super) struct Forked {
    pidfd: OwnedFd,
    /// Where its end is told.
    status: UnixStream,
    ended: Option<Ended>,
    /// It tells of its end.
    forker: Arc<Forker>,
}

impl fmt::Debug for Forked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a process forked by {:?}",
            locked(&self.forker.child).id()
        )
    }
}

impl Forked {
    pub(super) fn kill(&self) {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Waits for its end, at most so long; `None` if it has not ended by then.
    pub(super) fn wait(&mut self, most: Option<Duration>) -> io::Result<Option<Ended>> {
        if self.ended.is_some() {
            return Ok(self.ended);
        }
        match within(&self.pidfd, most) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::TimedOut => return Ok(None),
            Err(e) => return Err(e),
        }
        let mut status = [0; 4];
        let told = io::Read::read_exact(&mut &self.status, &mut status);
        self.ended = Some(match told {
            Ok(()) => Ended::With(ExitStatus::from_raw(i32::from_le_bytes(status))),
            Err(_) => {
                // Its end was for the fork server to hear, which has ended before. Where that made it a child of
                // this process (the first of a container), nothing of it may stay behind.
                let _ = waitid(
                    WaitId::PidFd(self.pidfd.as_fd()),
                    WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
                );
                Ended::Unknown
            }
        });
        Ok(self.ended)
    }
}

/// Waits until something can be read there.
fn within(from: impl AsFd, most: Option<Duration>) -> io::Result<()> {
    let until = most.map(|most| Instant::now() + most);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(Timespec::try_from).transpose();
        let left = left.map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&from, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
