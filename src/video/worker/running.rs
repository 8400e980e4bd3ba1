//! A decoder process as the system sees it: it runs, is killed, has ended.

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use super::forks::Forked;
use crate::limits::WORKER_END_WAIT;

/// A process, however it was started.
#[derive(Debug)]
pub(super) enum Running {
    /// From the program's file.
    Started(Child),
    /// Of a fork server.
    Forked(Forked),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    With(ExitStatus),
    /// Whoever it was told has ended too.
    Unknown,
}

impl Running {
    /// Kills it and waits for its end; whether it is known to have ended.
    pub(super) fn end(&mut self) -> bool {
        // It may have ended by itself.
        match self {
            Running::Started(child) => {
                let _ = child.kill();
                child.wait().is_ok()
            }
            Running::Forked(forked) => {
                forked.kill();
                matches!(forked.wait(None), Ok(Some(_)))
            }
        }
    }

    fn try_wait(&mut self) -> io::Result<Option<Ended>> {
        match self {
            Running::Started(child) => Ok(child.try_wait()?.map(Ended::With)),
            Running::Forked(forked) => forked.wait(Some(Duration::ZERO)),
        }
    }

    /// Waits for one that has hung up, and names its end.
    pub(super) fn ended(&mut self) -> String {
        let began = Instant::now();
        loop {
            match self.try_wait() {
                Ok(Some(ended)) => return told(ended),
                Ok(None) if began.elapsed() < WORKER_END_WAIT => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(None) | Err(_) => {
                    self.end();
                    return "the decoder process hung up and was stopped".to_owned();
                }
            }
        }
    }
}

fn told(ended: Ended) -> String {
    let Ended::With(status) = ended else {
        return "the decoder process ended, with the process that could tell how".to_owned();
    };
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = match signal {
                4 => " (SIGILL)",
                5 => " (SIGTRAP: out of memory, or an assertion)",
                6 => " (SIGABRT: out of memory, or an assertion)",
                7 => " (SIGBUS)",
                9 => " (SIGKILL)",
                11 => " (SIGSEGV)",
                24 => " (SIGXCPU: its CPU time was used up)",
                25 => " (SIGXFSZ: its file grew too large)",
                31 => " (SIGSYS: a forbidden system call)",
                _ => "",
            };
            format!("the decoder process was killed by signal {signal}{name}")
        }
        (None, code) => format!(
            "the decoder process ended with exit code {}",
            code.unwrap_or(-1)
        ),
    }
}
