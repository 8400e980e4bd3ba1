//! The state that callers and the model's thread share: who may enter, who waits, who goes next.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    error::{Error, Kind, Result},
    head::HeadFeatures,
    limits,
    telemetry::metrics::{self, Outcome, Stage},
};

use super::{EngineConfig, Job, Lane, pulse::Pulse, queue::Lanes};

/// A job that waits for the model.
pub(super) struct Waiting {
    pub job: Job,
    pub answer: oneshot::Sender<Result<HeadFeatures>>,
    pub since: Instant,
    /// When its pass must have begun; never, if that lies beyond the clock.
    pub latest: Option<Instant>,
    /// Its place in the lane, given back when it leaves the queue.
    pub room: OwnedSemaphorePermit,
}

/// A job in a pass.
pub(super) struct Running {
    pub job: Job,
    pub answer: oneshot::Sender<Result<HeadFeatures>>,
}

impl Running {
    /// Nobody waits for its answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_closed() || self.job.cancel.is_cancelled()
    }
}

impl Waiting {
    /// Leaves the queue for a pass.
    fn start(self) -> Running {
        metrics::queue_wait(self.job.lane, self.since.elapsed());
        self.job.passed(Stage::Queue, self.since);
        drop(self.room);
        Running {
            job: self.job,
            answer: self.answer,
        }
    }

    fn is_dead(&self, now: Instant) -> bool {
        self.answer.is_closed()
            || self.job.cancel.is_cancelled()
            || self.latest.is_some_and(|latest| latest <= now)
    }

    /// Answers a dead one with the reason of its death.
    fn bury(self) {
        self.job.passed(Stage::Queue, self.since);
        if self.answer.is_closed() || self.job.cancel.is_cancelled() {
            metrics::segment(Outcome::Cancelled);
            let _ = self
                .answer
                .send(Err(Error::cancelled("the caller left before its pass")));
        } else {
            metrics::segment(Outcome::DeadlineExceeded);
            let _ = self.answer.send(Err(Error::deadline(format!(
                "the segment waited {:.1} s for the model, longer than it may: send less, or later",
                self.since.elapsed().as_secs_f64()
            ))));
        }
    }
}

pub(super) struct FingerprintRequest {
    pub layers: usize,
    pub answer: oneshot::Sender<Result<String>>,
}

/// What the model's thread does next.
pub(super) enum Work {
    /// Runs one pass over these; not empty, and all fit together.
    Pass(Vec<Running>),
    /// Computes a fingerprint.
    Fingerprint(FingerprintRequest),
    /// Sees whether the model works again.
    Check,
    /// Ends.
    Stop,
}

#[derive(Clone, Copy)]
enum Phase {
    Open,
    /// Takes nothing more; runs what waits until then.
    Closing(Instant),
    Stopped,
}

struct State {
    lanes: Lanes<Waiting>,
    fingerprint_requests: Vec<FingerprintRequest>,
    fingerprints: BTreeMap<usize, String>,
    phase: Phase,
}

pub(super) struct Gate {
    state: Mutex<State>,
    work: Condvar,
    rooms: [Arc<Semaphore>; Lane::ALL.len()],
    pub pulse: Pulse,
    end: OnceLock<(Kind, String)>,
}

impl Gate {
    pub fn new(config: &EngineConfig) -> Self {
        Gate {
            state: Mutex::new(State {
                lanes: Lanes::default(),
                fingerprint_requests: Vec::new(),
                fingerprints: BTreeMap::new(),
                phase: Phase::Open,
            }),
            work: Condvar::new(),
            rooms: Lane::ALL.map(|lane| Arc::new(Semaphore::new(config.lane_capacity(lane)))),
            pulse: Pulse::new(),
            end: OnceLock::new(),
        }
    }

    /// No code that runs under the lock can panic half-way, so a poisoned state is still sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- callers

    pub fn room(&self, lane: Lane) -> &Arc<Semaphore> {
        &self.rooms[lane.index()]
    }

    /// Lets a job wait that has found room.
    pub fn enter(&self, waiting: Waiting) -> Result<()> {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Open) {
            return Err(self.stopped());
        }
        let (lane, stream) = (waiting.job.lane, waiting.job.stream);
        state.lanes.push(lane, stream, waiting);
        metrics::queue_depth(lane, state.lanes.len(lane));
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// The fingerprint, if known; otherwise where it will arrive.
    pub fn fingerprint(
        &self,
        layers: usize,
    ) -> Result<Result<String, oneshot::Receiver<Result<String>>>> {
        let mut state = self.lock();
        if let Some(known) = state.fingerprints.get(&layers) {
            return Ok(Ok(known.clone()));
        }
        if !matches!(state.phase, Phase::Open) {
            return Err(self.stopped());
        }
        if state.fingerprint_requests.len() >= limits::FINGERPRINT_REQUESTS_MAX {
            return Err(Error::exhausted(format!(
                "{} callers wait for the model's fingerprint already: try again later",
                limits::FINGERPRINT_REQUESTS_MAX
            )));
        }
        let (answer, receiver) = oneshot::channel();
        state
            .fingerprint_requests
            .push(FingerprintRequest { layers, answer });
        drop(state);
        self.work.notify_one();
        Ok(Err(receiver))
    }

    pub fn waiting(&self, lane: Lane) -> usize {
        self.lock().lanes.len(lane)
    }

    /// Takes nothing more; what waits may still run for `drain`.
    pub fn close(&self, drain: Duration) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Open) {
            let until = Instant::now()
                .checked_add(drain)
                .unwrap_or_else(|| Instant::now() + limits::QUEUE_WAIT_MAX);
            state.phase = Phase::Closing(until);
            let _ = self
                .end
                .set((Kind::Unavailable, "the engine shuts down".into()));
        }
        drop(state);
        for room in &self.rooms {
            room.close();
        }
        self.work.notify_one();
    }

    /// Why nothing more is answered.
    pub fn stopped(&self) -> Error {
        match self.end.get() {
            Some((kind, message)) => Error::new(*kind, message.clone()),
            None => Error::unavailable("the engine has stopped"),
        }
    }

    pub fn is_closed(&self) -> bool {
        !matches!(self.lock().phase, Phase::Open)
    }

    /// Lets go of every job whose caller left or whose time is over.
    pub fn sweep(&self) {
        self.sweep_locked(&mut self.lock());
    }

    fn sweep_locked(&self, state: &mut State) {
        let now = Instant::now();
        let dead = state.lanes.remove_if(|waiting| waiting.is_dead(now));
        if !dead.is_empty() {
            for lane in Lane::ALL {
                metrics::queue_depth(lane, state.lanes.len(lane));
            }
        }
        for waiting in dead {
            waiting.bury();
        }
    }

    // --- the model's thread

    /// Waits for work, until `check` if there is none by then; beats while it waits. `max_batch` says how many share a
    /// pass with one of a lane.
    pub fn next(
        &self,
        max_batch: impl Fn(Lane) -> usize,
        batch_wait: Duration,
        check: Option<Instant>,
    ) -> Work {
        let mut state = self.lock();
        loop {
            self.pulse.beat();
            self.sweep_locked(&mut state);
            if let Phase::Closing(until) = state.phase
                && (state.lanes.is_empty() || until <= Instant::now())
            {
                return Work::Stop;
            }
            if let Some(request) = state.fingerprint_requests.pop() {
                return Work::Fingerprint(request);
            }
            if let Some(first) = state.lanes.take_first() {
                let most = max_batch(first.job.lane);
                return Work::Pass(self.fill(state, first, most, batch_wait));
            }
            if check.is_some_and(|check| check <= Instant::now()) {
                return Work::Check;
            }
            state = self.wait(state, limits::ENGINE_BEAT);
        }
    }

    /// Adds waiting jobs that fit to the first one, and those that come within `batch_wait`.
    fn fill<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        first: Waiting,
        max_batch: usize,
        batch_wait: Duration,
    ) -> Vec<Running> {
        let until = Instant::now() + batch_wait;
        let mut batch = vec![first.start()];
        loop {
            while batch.len() < max_batch
                && let Some(more) = state
                    .lanes
                    .take_fitting(|waiting| waiting.job.fits(&batch[0].job))
            {
                batch.push(more.start());
            }
            let left = until.saturating_duration_since(Instant::now());
            if batch.len() >= max_batch || left.is_zero() || !matches!(state.phase, Phase::Open) {
                break;
            }
            state = self.wait(state, left.min(limits::ENGINE_BEAT));
            self.pulse.beat();
            self.sweep_locked(&mut state);
        }
        for lane in Lane::ALL {
            metrics::queue_depth(lane, state.lanes.len(lane));
        }
        batch
    }

    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        at_most: Duration,
    ) -> MutexGuard<'a, State> {
        self.work
            .wait_timeout(state, at_most)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Remembers a fingerprint and answers everybody else who waits for it.
    pub fn keep_fingerprint(&self, layers: usize, fingerprint: &str) {
        let mut state = self.lock();
        state.fingerprints.insert(layers, fingerprint.to_owned());
        let (same, others) = std::mem::take(&mut state.fingerprint_requests)
            .into_iter()
            .partition(|request| request.layers == layers);
        state.fingerprint_requests = others;
        drop(state);
        for FingerprintRequest { answer, .. } in same {
            let _ = answer.send(Ok(fingerprint.to_owned()));
        }
    }

    /// The thread ends: refuses everything that waits and everything to come.
    pub fn stop(&self, why: Option<(Kind, String)>) {
        let mut state = self.lock();
        let why = why.unwrap_or((Kind::Unavailable, "the engine has stopped".into()));
        let _ = self.end.set(why);
        state.phase = Phase::Stopped;
        let refused = state.lanes.remove_if(|_| true);
        let requests = std::mem::take(&mut state.fingerprint_requests);
        drop(state);
        for room in &self.rooms {
            room.close();
        }
        for lane in Lane::ALL {
            metrics::queue_depth(lane, 0);
        }
        for waiting in refused {
            metrics::segment(Outcome::Rejected);
            let _ = waiting.answer.send(Err(self.stopped()));
        }
        for request in requests {
            let _ = request.answer.send(Err(self.stopped()));
        }
    }
}
