//! The jobs as their callers see them.

use std::{
    fs::File,
    sync::{Arc, Condvar, Mutex, PoisonError, atomic::Ordering::SeqCst},
    thread::JoinHandle,
};

use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    Kind as JobKind, OpenClip, ProfileBook, Progress, ReportFormat, State, Summary,
    journal::Journal,
    queue::{Shared, Table, cell, end},
};
use crate::{
    engine::EngineHandle,
    error::{Error, Kind, Result, ResultExt},
    library::Library,
    limits,
    telemetry::jobs as counted,
};

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
    pub(super) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
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
        let mut ended_at_start = Vec::new();
        for mut record in records {
            let mut pin = None;
            if !record.state.is_end() {
                let ids = record.clips.iter().map(|clip| clip.id.clone()).collect();
                let ended = if journal.has_result(&record.id) {
                    // That is its last step: it was told to have succeeded, and the disk refused its record. Once more, it
                    // would activate its profile again, over what people have activated since.
                    Some((State::Succeeded, None))
                } else if record.cancelled {
                    Some((State::Cancelled, None))
                } else if record.starts >= limits::JOB_STARTS_MAX {
                    Some((
                        State::Failed,
                        Some(format!(
                            "the server ended without a word {} times while this job ran (memory? its log and the system's say more); submit it again with fewer clips or prompts",
                            record.starts
                        )),
                    ))
                } else {
                    match parts.library.pin(ids) {
                        Ok(pinned) => {
                            record.state = State::Queued;
                            pin = Some(pinned);
                            None
                        }
                        Err(error) => Some((State::Failed, Some(error.message().to_owned()))),
                    }
                };
                if let Some((state, why)) = ended {
                    end(&mut record, state, why);
                    ended_at_start.push((record.request.kind(), state));
                    if let Err(error) = journal.write(&record) {
                        tracing::error!(job = record.id, "{error:#}");
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
        counted::queued(table.waiting.len());
        for kind in [JobKind::Hunt, JobKind::Calibrate, JobKind::Evaluate] {
            for state in [State::Succeeded, State::Failed, State::Cancelled] {
                counted::none_ended(kind, state);
            }
        }
        for (kind, state) in ended_at_start {
            counted::ended(kind, state);
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
        } else {
            let mut record = cell.record();
            record.cancelled = true;
            if let Err(error) = shared.journal.write(&record) {
                tracing::error!(job = record.id, "{error:#}");
            }
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
