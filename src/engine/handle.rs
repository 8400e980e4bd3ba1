//! The engine as its owner and its callers see it.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread::JoinHandle,
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot, watch};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    telemetry::metrics::{self, Outcome, Stage},
};

use super::{
    EngineConfig, Health, Job, Lane, Ticket,
    gate::{Gate, Waiting},
    probe::{HeadProbe, ProbeInfo},
    worker::{Rooms, Worker},
};

/// The owner of the model's thread. Dropping it stops the thread within
/// [`EngineConfig::drain`] + [`EngineConfig::join_timeout`].
pub struct Engine {
    handle: EngineHandle,
    thread: Option<JoinHandle<()>>,
    /// Disconnects when the thread has ended.
    ended: mpsc::Receiver<()>,
}

/// A way to the engine; cheap to clone. Outliving the engine is harmless: it then answers
/// [`Kind::Unavailable`].
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
}

struct Shared {
    info: ProbeInfo,
    config: EngineConfig,
    gate: Arc<Gate>,
    warm: watch::Receiver<bool>,
    streams: AtomicU64,
}

/// How busy the engine is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Segments that wait.
    pub queued: usize,
    /// Most that may wait.
    pub capacity: usize,
    /// Moving average; 0 before the warm-up pass.
    pub segments_per_second: f64,
}

impl Engine {
    /// Starts the thread, which runs a warm-up pass first; [`EngineHandle::ready`] waits for it.
    /// Fails with `InvalidArgument` where the configuration cannot work.
    pub fn start(probe: Box<dyn HeadProbe>, config: EngineConfig) -> Result<Engine> {
        config.validate()?;
        let gate = Arc::new(Gate::new(&config));
        let (warm_sender, warm) = watch::channel(false);
        let shared = Shared {
            info: probe.info().clone(),
            config: config.clone(),
            gate: gate.clone(),
            warm,
            streams: AtomicU64::new(0),
        };
        let worker = Worker {
            rooms: Rooms::default(),
            checked: Cell::new(Instant::now()),
            probe,
            gate,
            config,
            warm: warm_sender,
        };
        let (ended_sender, ended) = mpsc::sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || {
                let _ended = ended_sender;
                worker.run();
            })
            .or_kind(Kind::Internal, || "cannot start the engine's thread".into())?;
        Ok(Engine {
            handle: EngineHandle {
                shared: Arc::new(shared),
            },
            thread: Some(thread),
            ended,
        })
    }

    /// A way to this engine.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Takes nothing more, runs what waits for at most [`EngineConfig::drain`], refuses the rest
    /// and joins the thread. Blocks. Fails with `DeadlineExceeded` where the pass in progress does
    /// not end in time; its thread is then left behind.
    pub fn shutdown(mut self) -> Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let config = &self.handle.shared.config;
        self.handle.shared.gate.close(config.drain);
        let limit = config.drain.saturating_add(config.join_timeout);
        if let Err(mpsc::RecvTimeoutError::Timeout) = self.ended.recv_timeout(limit) {
            return Err(Error::deadline(format!(
                "the model's thread did not end within {} s and is left behind",
                limit.as_secs_f64()
            )));
        }
        thread
            .join()
            .map_err(|_| Error::internal("the engine's thread panicked"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "engine shutdown");
        }
    }
}

impl EngineHandle {
    /// Facts about the resident model.
    pub fn info(&self) -> &ProbeInfo {
        &self.shared.info
    }

    /// A number of its own for one stream of segments; see [`Job::stream`].
    pub fn new_stream(&self) -> u64 {
        self.shared.streams.fetch_add(1, Relaxed)
    }

    /// Waits for the end of the warm-up pass; fails with its error where it fails.
    pub async fn ready(&self) -> Result<()> {
        let mut warm = self.shared.warm.clone();
        match warm.wait_for(|warm| *warm).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.shared.gate.stopped()),
        }
    }

    /// True from the end of the warm-up pass until the engine stops.
    pub fn warm(&self) -> watch::Receiver<bool> {
        self.shared.warm.clone()
    }

    /// The model's fingerprint over its first `layers` layers; computed once, between passes.
    pub async fn fingerprint(&self, layers: usize) -> Result<String> {
        let receiver = match self.shared.gate.fingerprint(layers)? {
            Ok(known) => return Ok(known),
            Err(receiver) => receiver,
        };
        receiver
            .await
            .unwrap_or_else(|_| Err(self.shared.gate.stopped()))
    }

    /// Queues a segment; waits while its lane is full.
    ///
    /// Fails with `InvalidArgument` or `FailedPrecondition` for a job that the model cannot run,
    /// `ResourceExhausted` where no room came in time, `Cancelled` with the job's token, and
    /// `Unavailable` where the engine has stopped.
    pub async fn submit(&self, job: Job) -> Result<Ticket> {
        job.check(&self.shared.info)?;
        let (since, latest) = self.times(&job);
        let room = self.room(job.lane);
        let expired = async {
            match latest {
                Some(latest) => tokio::time::sleep_until(latest.into()).await,
                None => std::future::pending().await,
            }
        };
        let permit = tokio::select! {
            biased;
            () = job.cancel.cancelled() => {
                metrics::segment(Outcome::Cancelled);
                return Err(Error::cancelled("the caller left while waiting for room"));
            }
            permit = room.acquire_owned() => permit.map_err(|_| self.shared.gate.stopped())?,
            () = expired => {
                metrics::segment(Outcome::Rejected);
                job.passed(Stage::Queue, since);
                return Err(Error::exhausted(format!(
                    "no room in the queue within {:.1} s: the model is busy, try again later",
                    since.elapsed().as_secs_f64()
                )));
            }
        };
        self.enter(job, permit, since, latest)
    }

    /// Queues a segment if there is room, and fails with `ResourceExhausted` at once if not;
    /// otherwise as [`submit`](Self::submit).
    pub fn try_submit(&self, job: Job) -> Result<Ticket> {
        job.check(&self.shared.info)?;
        let (since, latest) = self.times(&job);
        let room = self.room(job.lane);
        let permit = room.try_acquire_owned().map_err(|error| match error {
            TryAcquireError::Closed => self.shared.gate.stopped(),
            TryAcquireError::NoPermits => {
                metrics::segment(Outcome::Rejected);
                Error::exhausted(format!(
                    "{} segments wait already: the model is busy, try again later",
                    self.shared.config.lane_capacity(job.lane)
                ))
            }
        })?;
        self.enter(job, permit, since, latest)
    }

    fn room(&self, lane: Lane) -> Arc<Semaphore> {
        let room = self.shared.gate.room(lane).clone();
        if room.available_permits() == 0 {
            // Cancelled segments may hold places until the pass in progress ends.
            self.shared.gate.sweep();
        }
        room
    }

    fn times(&self, job: &Job) -> (Instant, Option<Instant>) {
        let now = Instant::now();
        let latest = now.checked_add(self.shared.config.max_queue_wait);
        let latest = [latest, job.deadline].into_iter().flatten().min();
        (now, latest)
    }

    fn enter(
        &self,
        job: Job,
        room: OwnedSemaphorePermit,
        since: Instant,
        latest: Option<Instant>,
    ) -> Result<Ticket> {
        let (answer, receiver) = oneshot::channel();
        self.shared.gate.enter(Waiting {
            job,
            answer,
            since,
            latest,
            room,
        })?;
        Ok(Ticket::new(receiver, self.shared.gate.clone()))
    }

    /// How busy the engine is, over all lanes.
    pub fn load(&self) -> Load {
        Load {
            queued: Lane::ALL
                .into_iter()
                .map(|lane| self.shared.gate.waiting(lane))
                .sum(),
            capacity: self.shared.config.queue_capacity,
            segments_per_second: self.shared.gate.pulse.segments_per_second(),
        }
    }

    /// Segments that wait in one lane.
    pub fn queued(&self, lane: Lane) -> usize {
        self.shared.gate.waiting(lane)
    }

    /// When the model's thread last showed life: between passes and once a second when idle.
    pub fn heartbeat(&self) -> Instant {
        self.shared.gate.pulse.last_beat()
    }

    /// Whether the engine answers.
    pub fn health(&self) -> Health {
        let gate = &self.shared.gate;
        if gate.is_closed() {
            return Health::Stopped(gate.stopped().message().to_owned());
        }
        if !*self.shared.warm.borrow() {
            return Health::WarmingUp;
        }
        let config = &self.shared.config;
        match gate.pulse.ailment(config.stall_after, config.max_batch) {
            Some(ailment) => Health::Unhealthy(ailment),
            None => Health::Serving,
        }
    }
}
