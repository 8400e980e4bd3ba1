//! The jobs: what is asked of them, their queue, and the thread that runs them.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    OpenClip, ProfileBook, Progress, ReportFormat, Request, State, Summary,
    journal::Journal,
    later,
    record::{Record, SCHEMA, Snapshot},
    work::Work,
};
use crate::{
    engine::EngineHandle,
    error::{Error, Kind, Result, ResultExt},
    library::{Library, Pin},
    limits,
    pipeline::labelled::assign_units,
    profile::check_name,
};

/// Longest error that is written down, bytes.
const ERROR_MAX_BYTES: usize = 2048;

/// What jobs work with.
pub struct JobsParts {
    /// The resident model's queue.
    pub engine: EngineHandle,
    /// Clips and kept features; jobs are written below its directory.
    pub library: Arc<Library>,
    /// Opens stored clips.
    pub open: OpenClip,
    /// Profiles.
    pub book: Arc<dyn ProfileBook>,
    /// Ended jobs that are kept.
    pub kept: usize,
}

/// All jobs. Dropping it stops the one that runs within a pass; it goes on when the directory is
/// opened again.
pub struct Jobs {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(super) struct Shared {
    pub engine: EngineHandle,
    pub library: Arc<Library>,
    pub open: OpenClip,
    pub book: Arc<dyn ProfileBook>,
    pub journal: Journal,
    /// For the thread's waits on the engine.
    pub runtime: Handle,
    kept: usize,
    jobs: Mutex<Table>,
    wake: Condvar,
    stopping: CancellationToken,
}

#[derive(Default)]
struct Table {
    /// By time and id.
    cells: BTreeMap<(u64, String), Arc<Cell>>,
    waiting: VecDeque<Arc<Cell>>,
}

/// A job in memory.
struct Cell {
    record: Mutex<Record>,
    progress: watch::Sender<Progress>,
    cancel: CancellationToken,
    /// Somebody asked for it, as opposed to a server that stops.
    cancelled: AtomicBool,
    pin: Mutex<Option<Pin>>,
}

impl Cell {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn summary(&self) -> Summary {
        let record = self.record();
        Summary {
            id: record.id.clone(),
            kind: record.request.kind(),
            progress: self.progress.borrow().clone(),
            created_unix_ns: record.created_unix_ns,
            ended_unix_ns: record.ended_unix_ns,
            profile: record.request.profile().to_owned(),
        }
    }
}

impl Jobs {
    /// Opens the jobs below the library's directory, takes up those that had not ended, and starts
    /// the thread. Must be called inside a runtime.
    ///
    /// Fails with `FailedPrecondition` where the directory cannot be used.
    pub fn start(parts: JobsParts) -> Result<Jobs> {
        let (journal, records) = Journal::open(parts.library.directory().join("jobs"))?;
        let stopping = CancellationToken::new();
        let mut table = Table::default();
        for mut record in records {
            let mut pin = None;
            if !record.state.is_end() {
                let ids = record.clips.iter().map(|clip| clip.id.clone()).collect();
                match parts.library.pin(ids) {
                    Ok(pinned) => {
                        record.state = State::Queued;
                        pin = Some(pinned);
                    }
                    Err(error) => {
                        end(&mut record, State::Failed, Some(error.message().to_owned()));
                        if let Err(error) = journal.write(&record) {
                            tracing::error!(job = record.id, "{error:#}");
                        }
                    }
                }
            }
            let waits = !record.state.is_end();
            let cell = Arc::new(cell(record, pin, &stopping));
            if waits {
                tracing::info!(job = cell.record().id, "a job of a former run is taken up");
                table.waiting.push_back(cell.clone());
            }
            table.put(cell);
        }
        // Their jobs have pinned what they need.
        parts.library.sweep_deleted();
        let shared = Arc::new(Shared {
            engine: parts.engine,
            library: parts.library,
            open: parts.open,
            book: parts.book,
            journal,
            runtime: Handle::current(),
            kept: parts.kept,
            jobs: Mutex::new(table),
            wake: Condvar::new(),
            stopping,
        });
        let at_work = shared.clone();
        let thread = std::thread::Builder::new()
            .name("jobs".into())
            .spawn(move || at_work.run())
            .or_kind(Kind::Internal, || "cannot start the jobs' thread".into())?;
        Ok(Jobs {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Takes a job; gives its id. An empty list of clips is every stored one (for an evaluation,
    /// every one whose frames are all known).
    ///
    /// Fails, before any long work, with the field where one is at fault: `InvalidArgument` for
    /// options and clips that cannot be used, `NotFound` for a clip or profile that is not there,
    /// `Aborted` where a job writes the same profile already, `FailedPrecondition` where the server
    /// cannot do it, `ResourceExhausted` where too many jobs wait, `Unimplemented` for what this
    /// version does not have.
    pub async fn submit(&self, mut request: Request, clip_ids: &[String]) -> Result<String> {
        later::refuse(&request)?;
        let shared = &self.shared;
        let info = shared.engine.info();
        if info.resident_layers < info.layers {
            return Err(Error::precondition(format!(
                "only {} of {} layers are loaded, and jobs read all heads: start the server with \
                 admin.dir set",
                info.resident_layers, info.layers
            )));
        }
        if let Request::Calibrate { profile, .. } = &request {
            check_name(profile).map_err(|e| e.with_field("profile"))?;
            shared.book.writable()?;
        }
        if let Request::Evaluate { profile, version } = &mut request {
            let (found, which) = shared.book.get(profile, version)?;
            // So that the job stays with it, whatever is activated meanwhile.
            *profile = found.name.clone();
            *version = which;
        }
        let clips = self.clips(&request, clip_ids)?;
        self.check(&request, &clips)?;
        let fingerprint = shared.engine.fingerprint(info.layers).await?;
        self.enqueue(request, clips, fingerprint)
    }

    fn clips(&self, request: &Request, ids: &[String]) -> Result<Vec<Snapshot>> {
        let library = &self.shared.library;
        let evaluates = matches!(request, Request::Evaluate { .. });
        if ids.is_empty() {
            let mut all = library.all();
            all.retain(|clip| !evaluates || clip.labelled().frames_known());
            if all.is_empty() {
                return Err(Error::precondition(if evaluates {
                    "no stored clip has labels of all of its frames: upload some, or give \
                     anomalous clips their intervals"
                } else {
                    "no clips are stored: upload some"
                }));
            }
            return Ok(all.iter().map(Snapshot::of).collect());
        }
        if ids.len() > limits::LIBRARY_CLIPS_MAX {
            return Err(Error::invalid(format!(
                "{} clips; at most {} are taken",
                ids.len(),
                limits::LIBRARY_CLIPS_MAX
            ))
            .with_field("clip_ids"));
        }
        let mut seen = std::collections::HashSet::new();
        let mut clips = Vec::with_capacity(ids.len());
        for (number, id) in ids.iter().enumerate() {
            let field = format!("clip_ids[{number}]");
            let (clip, _) = library.get(id).map_err(|e| e.with_field(&field))?;
            if !seen.insert(id) {
                return Err(Error::invalid(format!("clip {id} is named twice")).with_field(field));
            }
            if evaluates && !clip.labelled().frames_known() {
                return Err(Error::invalid(format!(
                    "of clip {id} ({}) only the video's label is known, not that of each frame: \
                     relabel it with intervals, or leave it out",
                    clip.name
                ))
                .with_field(field));
            }
            clips.push(Snapshot::of(&clip));
        }
        Ok(clips)
    }

    /// What can be told to be wrong before any pass.
    fn check(&self, request: &Request, clips: &[Snapshot]) -> Result<()> {
        let mut videos: Vec<_> = clips
            .iter()
            .map(|clip| clip.video(self.shared.library.path(&clip.id)))
            .collect();
        let (Request::Hunt { options } | Request::Calibrate { options, .. }) = request else {
            if !videos.iter().any(|video| video.anomaly) {
                return Err(Error::invalid(
                    "no clip is anomalous, so no AUC can be computed: label some with the frames \
                     where something happens",
                )
                .with_field("clip_ids"));
            }
            return Ok(());
        };
        let inside = |error: Error| match error.field() {
            Some(field) => {
                let field = format!("options.{field}");
                error.with_field(field)
            }
            None => error.with_field("clip_ids"),
        };
        options.rule.validate().map_err(inside)?;
        assign_units(&mut videos, options.unit).map_err(inside)?;
        options
            .options("hunt")
            .check(self.shared.engine.info(), &videos)
            .map_err(inside)?;
        if videos.iter().all(|video| !video.intervals_known) {
            for (anomaly, class) in [(true, "anomalous"), (false, "normal")] {
                let n = videos.iter().filter(|v| v.anomaly == anomaly).count();
                if n < 2 {
                    return Err(Error::invalid(format!(
                        "hunting needs at least 2 {class} samples, and there is {n}: add clips, or \
                         give the frames where something happens"
                    ))
                    .with_field("clip_ids"));
                }
            }
        }
        Ok(())
    }

    fn enqueue(
        &self,
        request: Request,
        clips: Vec<Snapshot>,
        fingerprint: String,
    ) -> Result<String> {
        let shared = &self.shared;
        let mut table = shared.table();
        if shared.stopping.is_cancelled() {
            return Err(Error::unavailable("the server is shutting down"));
        }
        if table.waiting.len() >= limits::JOBS_WAITING_MAX {
            return Err(Error::exhausted(format!(
                "{} jobs wait already: wait for one to end, or cancel some",
                limits::JOBS_WAITING_MAX
            )));
        }
        if let Request::Calibrate { profile, .. } = &request {
            let writer = table.cells.values().find(|cell| {
                let record = cell.record();
                !record.state.is_end()
                    && matches!(&record.request, Request::Calibrate { profile: other, .. } if other == profile)
            });
            if let Some(writer) = writer {
                return Err(Error::aborted(format!(
                    "job {} writes profile {profile} already: wait for its end, or cancel it",
                    writer.record().id
                ))
                .with_field("profile"));
            }
        }
        let pin = shared
            .library
            .pin(clips.iter().map(|clip| clip.id.clone()).collect())
            .map_err(|e| e.with_field("clip_ids"))?;
        let last = table.cells.last_key_value().map_or(0, |(key, _)| key.0);
        let record = Record {
            schema: SCHEMA,
            id: format!("{:032x}", rand::random::<u128>()),
            request,
            clips,
            fingerprint,
            created_unix_ns: now_ns().max(last + 1),
            ended_unix_ns: None,
            state: State::Queued,
            error: None,
            samples_reused: 0,
        };
        // Written before it is told: a job that somebody knows of survives a crash.
        shared.journal.write(&record)?;
        let id = record.id.clone();
        let cell = Arc::new(cell(record, Some(pin), &shared.stopping));
        table.waiting.push_back(cell.clone());
        table.put(cell);
        drop(table);
        shared.wake.notify_all();
        Ok(id)
    }

    /// Every job, newest first.
    pub fn list(&self) -> Vec<Summary> {
        let table = self.shared.table();
        table
            .cells
            .values()
            .rev()
            .map(|cell| cell.summary())
            .collect()
    }

    /// A job's progress, as it is and as it changes.
    ///
    /// Fails with `NotFound`.
    pub fn follow(&self, id: &str) -> Result<watch::Receiver<Progress>> {
        Ok(self.shared.cell(id)?.progress.subscribe())
    }

    /// Ends a job; gives its progress, which may be that of a job that is about to end. One that has
    /// ended stays as it is.
    ///
    /// Fails with `NotFound`.
    pub fn cancel(&self, id: &str) -> Result<Progress> {
        let shared = &self.shared;
        let cell = shared.cell(id)?;
        let mut table = shared.table();
        if cell.record().state.is_end() {
            return Ok(cell.progress.borrow().clone());
        }
        cell.cancelled.store(true, SeqCst);
        cell.cancel.cancel();
        let waited = table.waiting.len();
        table.waiting.retain(|waiting| !Arc::ptr_eq(waiting, &cell));
        if table.waiting.len() < waited {
            shared.ended(&mut table, &cell, State::Cancelled, None);
        }
        Ok(cell.progress.borrow().clone())
    }

    /// The result of a job that succeeded, as JSON.
    ///
    /// Fails with `NotFound`, and with `DataLoss` where its file is gone.
    pub fn result(&self, id: &str) -> Result<String> {
        self.shared.cell(id)?;
        self.shared.journal.result(id)
    }

    /// The report of a job that succeeded.
    ///
    /// Fails with `NotFound`, and with `FailedPrecondition` for a job without one.
    pub fn report(&self, id: &str, format: ReportFormat) -> Result<File> {
        let state = self.shared.cell(id)?.record().state;
        if state != State::Succeeded {
            return Err(Error::precondition(format!(
                "job {id} has no report: it has not succeeded"
            )));
        }
        self.shared.journal.report(id, format)
    }

    /// Takes no more jobs and stops the one that runs, without waiting for it.
    pub fn close(&self) {
        self.shared.stop();
    }

    /// Stops: the job that runs ends within a pass and goes on when the directory is opened again.
    /// Waits for that, not forever.
    pub async fn stop(&self) {
        self.shared.stop();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(thread) = thread else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join().is_ok());
        if tokio::time::timeout(limits::JOBS_STOP, joined)
            .await
            .is_err()
        {
            tracing::warn!("the job's step in progress does not end and is left behind");
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Table {
    fn put(&mut self, cell: Arc<Cell>) {
        let key = {
            let record = cell.record();
            (record.created_unix_ns, record.id.clone())
        };
        self.cells.insert(key, cell);
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell(&self, id: &str) -> Result<Arc<Cell>> {
        let table = self.table();
        let found = table.cells.iter().find(|(key, _)| key.1 == id);
        found.map(|(_, cell)| cell.clone()).ok_or_else(|| {
            let shown: String = id.chars().take(80).collect();
            Error::not_found(format!("there is no job {}", shown.escape_debug()))
                .with_field("job_id")
        })
    }

    fn stop(&self) {
        // Under the lock, so that the thread cannot miss it between its look and its wait.
        let _table = self.table();
        self.stopping.cancel();
        self.wake.notify_all();
    }

    fn run(&self) {
        while let Some(cell) = self.next() {
            self.one(&cell);
        }
    }

    fn next(&self) -> Option<Arc<Cell>> {
        let mut table = self.table();
        loop {
            if self.stopping.is_cancelled() {
                return None;
            }
            if let Some(cell) = table.waiting.pop_front() {
                return Some(cell);
            }
            table = self
                .wake
                .wait(table)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn one(&self, cell: &Arc<Cell>) {
        let record = {
            let mut record = cell.record();
            record.state = State::Running;
            record.clone()
        };
        let id = &record.id;
        if let Err(error) = self.journal.write(&record) {
            // It is written down as waiting; a restart takes it up all the same.
            tracing::error!(job = id, "{error:#}");
        }
        cell.progress.send_replace(Progress::new(State::Running));
        tracing::info!(job = id, kind = ?record.request.kind(), clips = record.clips.len(), "begins");
        let work = Work {
            shared: self,
            record: &record,
            progress: &cell.progress,
            cancel: &cell.cancel,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| work.run())).unwrap_or_else(|panic| {
            let what = crate::engine::panic_message(panic.as_ref());
            Err(Error::internal(format!("the job panicked: {what}")))
        });
        let (state, error) = match outcome {
            Ok(()) => (State::Succeeded, None),
            Err(_) if cell.cancelled.load(SeqCst) => (State::Cancelled, None),
            Err(error) if self.stopping.is_cancelled() => {
                tracing::info!(job = id, "stopped with the server: {error:#}");
                return;
            }
            Err(error) => {
                tracing::warn!(job = id, kind = error.kind().as_str(), "failed: {error:#}");
                (State::Failed, Some(told(&error, id)))
            }
        };
        tracing::info!(job = id, ?state, "ended");
        let mut table = self.table();
        self.ended(&mut table, cell, state, error);
    }

    /// Writes down that a job has ended, tells it, and forgets the oldest ended ones.
    fn ended(&self, table: &mut Table, cell: &Cell, state: State, error: Option<String>) {
        let mut record = cell.record();
        record.samples_reused = cell.progress.borrow().samples_reused;
        end(&mut record, state, error.clone());
        if let Err(error) = self.journal.write(&record) {
            tracing::error!(job = record.id, "{error:#}");
        }
        drop(record);
        drop(
            cell.pin
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let ended: Vec<_> = table
            .cells
            .iter()
            .filter(|(_, cell)| cell.record().state.is_end())
            .map(|(key, _)| key.clone())
            .collect();
        for key in ended.iter().take(ended.len().saturating_sub(self.kept)) {
            table.cells.remove(key);
            self.journal.remove(&key.1);
        }
        // Last: who hears of the end finds everything done.
        cell.progress.send_modify(|progress| {
            progress.state = state;
            progress.error = error;
            progress.remaining = None;
        });
    }
}

fn cell(record: Record, pin: Option<Pin>, stopping: &CancellationToken) -> Cell {
    Cell {
        progress: watch::Sender::new(record.progress()),
        record: Mutex::new(record),
        cancel: stopping.child_token(),
        cancelled: AtomicBool::new(false),
        pin: Mutex::new(pin),
    }
}

fn end(record: &mut Record, state: State, error: Option<String>) {
    record.state = state;
    record.error = error;
    record.ended_unix_ns = Some(now_ns().max(record.created_unix_ns));
}

fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

/// What people are told of a failure: nothing of the server's inside.
fn told(error: &Error, id: &str) -> String {
    match error.kind() {
        Kind::Internal | Kind::DataLoss => {
            format!("the server failed; its log has the details under job {id}")
        }
        _ => error.message().chars().take(ERROR_MAX_BYTES / 4).collect(),
    }
}
