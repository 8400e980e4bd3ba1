//! Threads that make pictures for the server where there are cores to spare: a camera's segment of large pictures waits
//! for sixteen of them, and packets wait behind whoever makes them.

use std::sync::{
    Arc, Mutex,
    mpsc::{Receiver, SyncSender, sync_channel},
};

use super::locked;
use crate::limits::WORKER_PICTURES_AHEAD;

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// Started with the first picture that is asked for: light streams ask for none.
pub(super) struct Reducers {
    threads: u32,
    jobs: Option<SyncSender<Job>>,
}

impl Reducers {
    /// So many threads; with less than two there are none.
    pub(super) fn new(threads: u32) -> Self {
        Reducers {
            threads,
            jobs: None,
        }
    }

    /// Where jobs are done; `None` where nobody else is there to do them.
    pub(super) fn started(&mut self) -> Option<&SyncSender<Job>> {
        if self.jobs.is_none() && self.threads > 1 {
            self.jobs = start(self.threads);
            // Where there was no room for them there is none the next time either.
            self.threads = 0;
        }
        self.jobs.as_ref()
    }
}

/// `None` where not one thread can be started.
fn start(threads: u32) -> Option<SyncSender<Job>> {
    let (sender, jobs) = sync_channel(WORKER_PICTURES_AHEAD);
    let jobs = Arc::new(Mutex::new(jobs));
    let started = (0..threads)
        .filter(|_| {
            let jobs = Arc::clone(&jobs);
            let thread = std::thread::Builder::new().name("pictures".into());
            thread.spawn(move || work(&jobs)).is_ok()
        })
        .count();
    (started > 0).then_some(sender)
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let next = locked(jobs).recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}
