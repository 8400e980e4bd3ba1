//! What is counted of jobs.

use std::sync::{Mutex, PoisonError};

use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::{
    metrics::Label,
    present::{Family, Kind, Series},
};

/// Jobs that wait, and whether one runs, by `state`.
pub const JOBS: &str = "headhunt_jobs";
/// Jobs that ended, by `kind` and `state`.
pub const ENDED: &str = "headhunt_jobs_ended_total";

static PROGRESS: Family = Family {
    name: "headhunt_job_progress_ratio",
    help: "How much of its present stage the running job has done, 0 to 1; no series while none runs",
    kind: Kind::Gauge,
    label: "stage",
};

/// Names what this file counts, for `/metrics`.
pub(super) fn describe() {
    describe_gauge!(JOBS, "Jobs that are queued, and whether one is running");
    describe_counter!(ENDED, "Jobs that ended, by kind and state");
    queued(0);
    gauge!(JOBS, "state" => "running").set(0.0);
}

/// So many jobs wait.
pub fn queued(n: usize) {
    gauge!(JOBS, "state" => "queued").set(n as f64);
}

fn pair<L: Label>(label: L) -> (&'static str, &'static str) {
    (L::NAME, label.value())
}

/// None has ended so yet: the first one is an increase.
pub fn none_ended(kind: impl Label, state: impl Label) {
    counter!(ENDED, &[pair(kind), pair(state)]).increment(0);
}

/// A job ended.
pub fn ended(kind: impl Label, state: impl Label) {
    counter!(ENDED, &[pair(kind), pair(state)]).increment(1);
}

/// Stage of the job that runs, and its series.
static STAGE: Mutex<Option<(&'static str, Series)>> = Mutex::new(None);

/// A job runs until this is dropped.
#[derive(Debug)]
pub struct Running(());

impl Running {
    /// One begins.
    pub fn begin() -> Running {
        gauge!(JOBS, "state" => "running").set(1.0);
        Running(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        gauge!(JOBS, "state" => "running").set(0.0);
        *STAGE.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The job that runs has done so much of a stage; `total` 0: not known yet.
pub fn progress(stage: &'static str, done: u64, total: u64) {
    let mut at = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    if at.as_ref().is_none_or(|(before, _)| *before != stage) {
        *at = Some((stage, Series::begin(&PROGRESS, stage)));
    }
    if let Some((_, series)) = &*at {
        series.set(if total == 0 {
            0.0
        } else {
            (done as f64 / total as f64).min(1.0)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{super::present, *};

    fn lines() -> Vec<String> {
        let mut text = String::new();
        present::render(&mut text);
        let ours = text.lines().filter(|line| line.starts_with(PROGRESS.name));
        ours.map(str::to_owned).collect()
    }

    #[test]
    fn the_running_job_shows_its_present_stage_alone() {
        let running = Running::begin();
        progress("extract", 1, 0);
        progress("extract", 3, 4);
        assert_eq!(
            lines(),
            [r#"headhunt_job_progress_ratio{stage="extract"} 0.75"#]
        );
        progress("hunt", 5, 4);
        assert_eq!(lines(), [r#"headhunt_job_progress_ratio{stage="hunt"} 1"#]);
        drop(running);
        assert!(lines().is_empty());
    }
}
