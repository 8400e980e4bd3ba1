//! The fork server: loads what decoder processes need, then forks one whenever the server asks.
//!
//! Only the thread that forks lives on in the new process, so there must be no other: a lock that it held
//! would never be released. GStreamer and its plugins start none before there is a pipeline; that is looked
//! at before each fork, not trusted.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, getpid, getrlimit, kill_process,
        pidfd_open, setrlimit, waitpid,
    },
};

use super::{Ground, confine, reach::Readable};
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    video::worker::{
        forks::{FORK, FORKED, READY},
        rights,
    },
};

/// Whose turn it is after [`serve_forks`].
#[derive(Debug)]
pub enum Turn {
    /// The server has hung up.
    Over,
    /// This is a new process, with the standard files of a decoder process.
    Forked(Ground),
}

/// A decoder process that was forked here.
struct Forked {
    pid: Pid,
    pidfd: OwnedFd,
    /// Where its end is told.
    status: OwnedFd,
}

/// Loads what decoding needs and forks decoder processes, until the server hangs up. Comes back in each of them too.
///
/// # Errors
/// `FailedPrecondition` where standard output is no socket of a server, or processes cannot be forked here.
pub fn serve_forks(environment: &[(String, String)]) -> Result<Turn> {
    let cannot = || "decoder processes cannot be forked here".to_owned();
    let _ = rustix::thread::set_name(c"headhunt-forks");
    super::end_with_server_alone();
    let control = OwnedFd::from(super::control()?);
    // Each process takes two.
    let most = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    );
    crate::video::preload()?;
    let ground = Ground {
        readable: Readable::find(environment),
        confined: true,
    };
    confine::forbid_to_all()?;
    alone().or_kind(Kind::FailedPrecondition, cannot)?;
    // Linux 5.3, where the container allows it.
    pidfd_open(getpid(), PidfdFlags::empty()).or_kind(Kind::FailedPrecondition, cannot)?;
    rights::send(&control, READY, &[]).or_kind(Kind::FailedPrecondition, cannot)?;
    let mut running: Vec<Forked> = Vec::new();
    loop {
        let mut looked: Vec<_> = running
            .iter()
            .map(|forked| &forked.pidfd)
            .chain([&control])
            .map(|file| PollFd::new(file, PollFlags::IN))
            .collect();
        match poll(&mut looked, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::internal(cannot()).with_source(e)),
        }
        let asked = looked.pop().is_some_and(|fd| !fd.revents().is_empty());
        running.retain(|forked| !bury(forked));
        if !asked {
            continue;
        }
        let message = rights::receive(&control).or_kind(Kind::Internal, cannot)?;
        let Some((FORK, files)) = message else {
            return Ok(Turn::Over);
        };
        match fork(files) {
            Ok(Some(forked)) => running.push(forked),
            // What was opened here closes with the end of this.
            Ok(None) => return Ok(Turn::Forked(ground)),
            // The server hears it by the end of the status.
            Err(e) => eprintln!("{}: {e}", cannot()),
        }
    }
}

/// Whether it has ended; tells how.
fn bury(forked: &Forked) -> bool {
    match waitpid(Some(forked.pid), WaitOptions::NOHANG) {
        Ok(None) | Err(rustix::io::Errno::INTR) => false,
        Ok(Some((_, status))) => {
            // Who does not listen any more does not want to know.
            let _ = rustix::io::write(&forked.status, &status.as_raw().to_le_bytes());
            true
        }
        Err(_) => true,
    }
}

/// That there is no other thread.
fn alone() -> io::Result<()> {
    match fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        n => Err(io::Error::other(format!("there are {n} threads"))),
    }
}

/// `None` in the new process, whose standard files are those that came.
fn fork(files: Vec<OwnedFd>) -> io::Result<Option<Forked>> {
    let [input, output, errors, status] =
        <[OwnedFd; 4]>::try_from(files).map_err(|_| io::Error::other("other files came"))?;
    alone()?;
    // SAFETY: there is no other thread, which could hold a lock or be in the middle of something.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(pid) = Pid::from_raw(pid) else {
        let set = rustix::stdio::dup2_stdin(input)
            .and_then(|()| rustix::stdio::dup2_stdout(output))
            .and_then(|()| rustix::stdio::dup2_stderr(errors));
        // It must not go on as a second fork server.
        return set.map_or_else(|_| super::gone(), |()| Ok(None));
    };
    let told = pidfd_open(pid, PidfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|pidfd| {
            rights::send(&status, FORKED, &[pidfd.as_fd()])?;
            Ok(pidfd)
        });
    match told {
        Ok(pidfd) => Ok(Some(Forked { pid, pidfd, status })),
        Err(e) => {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
            Err(e)
        }
    }
}
