//! The jobs in memory, their queue, and the thread that runs them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    CalibrateRequest, OpenClip, ProfileBook, Progress, Request, State, Summary,
    journal::Journal,
    record::{Record, SCHEMA, Snapshot},
    work::Work,
};
use crate::{
    engine::EngineHandle,
    error::{Error, Kind, Result},
    library::{Library, Pin},
    limits,
    telemetry::jobs as counted,
};

/// Longest error that is written down, bytes.
const ERROR_MAX_BYTES: usize = 2048;

pub(super) struct Shared {
    pub engine: EngineHandle,
    pub library: Arc<Library>,
    pub open: OpenClip,
    pub book: Arc<dyn ProfileBook>,
    pub journal: Journal,
    /// For the thread's waits on the engine.
    pub runtime: Handle,
    pub kept: usize,
    pub jobs: Mutex<Table>,
    pub wake: Condvar,
    pub stopping: CancellationToken,
}

#[derive(Default)]
pub(super) struct Table {
    /// By time and id.
    pub cells: BTreeMap<(u64, String), Arc<Cell>>,
    pub waiting: VecDeque<Arc<Cell>>,
    /// Ids of those whose end the disk does not know yet.
    pub unwritten: BTreeSet<String>,
}

/// A job in memory.
pub(super) struct Cell {
    record: Mutex<Record>,
    pub progress: watch::Sender<Progress>,
    pub cancel: CancellationToken,
    /// Somebody asked for it, as opposed to a server that stops.
    pub cancelled: AtomicBool,
    pin: Mutex<Option<Pin>>,
}

impl Cell {
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn summary(&self) -> Summary {
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

impl Table {
    pub fn put(&mut self, cell: Arc<Cell>) {
        let key = {
            let record = cell.record();
            (record.created_unix_ns, record.id.clone())
        };
        self.cells.insert(key, cell);
    }
}

impl Shared {
    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn cell(&self, id: &str) -> Result<Arc<Cell>> {
        let table = self.table();
        let found = table.cells.iter().find(|(key, _)| key.1 == id);
        found.map(|(_, cell)| cell.clone()).ok_or_else(|| {
            let shown: String = id.chars().take(80).collect();
            Error::not_found(format!("there is no job {}", shown.escape_debug()))
                .with_field("job_id")
        })
    }

    /// Writes a job down and puts it into the queue; gives its id.
    pub fn enqueue(
        &self,
        request: Request,
        clips: Vec<Snapshot>,
        fingerprint: String,
    ) -> Result<String> {
        let mut table = self.table();
        if self.stopping.is_cancelled() {
            return Err(Error::unavailable("the server is shutting down"));
        }
        if table.waiting.len() >= limits::JOBS_WAITING_MAX {
            return Err(Error::exhausted(format!(
                "{} jobs wait already: wait for one to end, or cancel some",
                limits::JOBS_WAITING_MAX
            )));
        }
        if let Request::Calibrate(CalibrateRequest { profile, .. }) = &request {
            let writer = table.cells.values().find(|cell| {
                let record = cell.record();
                !record.state.is_end()
                    && matches!(&record.request, Request::Calibrate(other) if other.profile == *profile)
            });
            if let Some(writer) = writer {
                return Err(Error::aborted(format!(
                    "job {} writes profile {profile} already: wait for its end, or cancel it",
                    writer.record().id
                ))
                .with_field("profile"));
            }
        }
        let pin = self
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
            starts: 0,
            cancelled: false,
        };
        // Written before it is told: a job that somebody knows of survives a crash.
        self.journal.write(&record)?;
        let id = record.id.clone();
        let cell = Arc::new(cell(record, Some(pin), &self.stopping));
        table.waiting.push_back(cell.clone());
        table.put(cell);
        counted::queued(table.waiting.len());
        drop(table);
        self.wake.notify_all();
        Ok(id)
    }

    pub fn stop(&self) {
        // Under the lock, so that the thread cannot miss it between its look and its wait.
        let _table = self.table();
        self.stopping.cancel();
        self.wake.notify_all();
    }

    pub fn run(&self) {
        while let Some(cell) = self.next() {
            self.one(&cell);
        }
    }

    fn next(&self) -> Option<Arc<Cell>> {
        let mut table = self.table();
        loop {
            // Before other work, which may take hours, and before the server ends.
            self.write_ends(&mut table);
            if self.stopping.is_cancelled() {
                return None;
            }
            if let Some(cell) = table.waiting.pop_front() {
                counted::queued(table.waiting.len());
                return Some(cell);
            }
            table = if table.unwritten.is_empty() {
                let woken = self.wake.wait(table);
                woken.unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = self.wake.wait_timeout(table, limits::JOB_WRITE_RETRY);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    /// Tries again to write down ends that the disk refused.
    fn write_ends(&self, table: &mut Table) {
        if table.unwritten.is_empty() {
            return;
        }
        let unwritten = std::mem::take(&mut table.unwritten);
        for ((_, id), cell) in &table.cells {
            if unwritten.contains(id) && self.journal.write(&cell.record()).is_err() {
                table.unwritten.insert(id.clone());
            }
        }
    }

    fn one(&self, cell: &Arc<Cell>) {
        let record = {
            let mut record = cell.record();
            record.state = State::Running;
            record.starts = record.starts.saturating_add(1);
            record.clone()
        };
        let id = &record.id;
        if let Err(error) = self.journal.write(&record) {
            // It is written down as waiting; a restart takes it up all the same.
            tracing::error!(job = id, "{error:#}");
        }
        cell.progress.send_replace(Progress::new(State::Running));
        tracing::info!(job = id, kind = ?record.request.kind(), clips = record.clips.len(), "begins");
        let running = counted::Running::begin();
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
        drop(running);
        let (state, error) = match outcome {
            Ok(()) => (State::Succeeded, None),
            Err(_) if cell.cancelled.load(SeqCst) => (State::Cancelled, None),
            Err(error) if self.stopping.is_cancelled() => {
                tracing::info!(job = id, "stopped with the server: {error:#}");
                // An orderly stop is no attempt that failed.
                let mut record = cell.record();
                record.starts = record.starts.saturating_sub(1);
                if let Err(error) = self.journal.write(&record) {
                    tracing::error!(job = id, "{error:#}");
                }
                return;
            }
            Err(error) => {
                tracing::warn!(job = id, kind = error.kind().as_str(), "failed: {error:#}");
                let told = told(&error, id);
                // Where the server keeps things is nobody's business.
                let directory = self.library.directory().display().to_string();
                (State::Failed, Some(told.replace(&directory, "admin.dir")))
            }
        };
        tracing::info!(job = id, ?state, "ended");
        let mut table = self.table();
        self.ended(&mut table, cell, state, error);
    }

    /// Writes down that a job has ended, tells it, and forgets the oldest ended ones.
    pub fn ended(&self, table: &mut Table, cell: &Cell, state: State, error: Option<String>) {
        let mut record = cell.record();
        record.samples_reused = cell.progress.borrow().samples_reused;
        end(&mut record, state, error.clone());
        counted::ended(record.request.kind(), state);
        counted::queued(table.waiting.len());
        if let Err(error) = self.journal.write(&record) {
            tracing::error!(
                job = record.id,
                "its end is not written down yet: {error:#}"
            );
            table.unwritten.insert(record.id.clone());
            self.wake.notify_all();
        }
        drop(record);
        drop(
            cell.pin
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let mut ended: Vec<_> = table
            .cells
            .iter()
            .filter_map(|(key, cell)| Some((cell.record().ended_unix_ns?, key.clone())))
            .collect();
        // By their ends, so that the one that ended now stays.
        ended.sort();
        for (_, key) in ended.iter().take(ended.len().saturating_sub(self.kept)) {
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

pub(super) fn cell(record: Record, pin: Option<Pin>, stopping: &CancellationToken) -> Cell {
    Cell {
        progress: watch::Sender::new(record.progress()),
        record: Mutex::new(record),
        cancel: stopping.child_token(),
        cancelled: AtomicBool::new(false),
        pin: Mutex::new(pin),
    }
}

pub(super) fn end(record: &mut Record, state: State, error: Option<String>) {
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
