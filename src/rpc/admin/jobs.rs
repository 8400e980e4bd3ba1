//! RPCs on jobs.

use std::{fs::File, io::Read as _, time::Duration};

use tokio::{
    sync::{
        OwnedSemaphorePermit,
        mpsc::{self, error::SendTimeoutError},
        watch,
    },
    time,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    super::{proto, status::label},
    Admin,
    answer::failed,
    blocking, going_down, options, timestamp,
};
use crate::{
    access::{Caller, Share},
    error::{Error, Kind, Result, ResultExt as _},
    jobs::{self, CalibrateRequest, Jobs, Progress, ReportFormat, Request, State, Summary},
    limits,
    telemetry::server::RpcRunning,
};

/// Messages of a stream that wait for its reader: a follower gets the newest state when it reads.
const WAITING: usize = 1;

impl Admin {
    pub(super) async fn jobs_hunt(
        &self,
        request: proto::HuntHeadsRequest,
    ) -> Result<proto::HuntHeadsResponse> {
        let jobs = self.jobs()?;
        let options = options::hunt(request.options)?;
        let job_id = jobs
            .submit(Request::Hunt { options }, &request.clip_ids)
            .await?;
        Ok(proto::HuntHeadsResponse { job_id })
    }

    pub(super) async fn jobs_calibrate(
        &self,
        request: proto::CalibrateRequest,
    ) -> Result<proto::CalibrateResponse> {
        let jobs = self.jobs()?;
        let wanted = Request::Calibrate(CalibrateRequest {
            profile: request.profile,
            options: options::hunt(request.options)?,
            activate: request.activate,
            keep_heads: request.keep_heads,
            base_version: String::new(),
            include_feedback: request.include_feedback,
            normal_only: options::normal_only(request.normal_only, request.keep_heads)?,
        });
        let job_id = jobs.submit(wanted, &request.clip_ids).await?;
        Ok(proto::CalibrateResponse { job_id })
    }

    pub(super) async fn jobs_evaluate(
        &self,
        request: proto::EvaluateRequest,
    ) -> Result<proto::EvaluateResponse> {
        let jobs = self.jobs()?;
        let wanted = Request::Evaluate {
            profile: request.profile,
            version: request.profile_version,
        };
        let job_id = jobs.submit(wanted, &request.clip_ids).await?;
        Ok(proto::EvaluateResponse { job_id })
    }

    // Who looks at the table may have to wait for a disk: not on the runtime's threads.

    pub(super) async fn jobs_list(&self) -> Result<proto::ListJobsResponse> {
        let jobs = self.jobs()?;
        blocking(move || {
            Ok(proto::ListJobsResponse {
                jobs: jobs.list().into_iter().map(message).collect(),
            })
        })
        .await
    }

    /// Who tells of a job, and what it tells.
    pub(super) async fn jobs_follow(
        &self,
        request: proto::FollowJobRequest,
        caller: Option<&Caller>,
    ) -> Result<(Follower, Told<proto::FollowJobResponse>)> {
        let jobs = self.jobs()?;
        let place = self.place(caller)?;
        let (table, id) = (jobs.clone(), request.job_id.clone());
        let progress = blocking(move || table.follow(&id)).await?;
        let (sender, last, receiver) = answers()?;
        let follower = Follower {
            jobs,
            id: request.job_id,
            progress,
            closing: self.closing.clone(),
            sender,
            last,
            _place: place,
        };
        Ok((follower, receiver))
    }

    pub(super) async fn jobs_cancel(
        &self,
        request: proto::CancelJobRequest,
    ) -> Result<proto::CancelJobResponse> {
        let jobs = self.jobs()?;
        blocking(move || {
            let progress = jobs.cancel(&request.job_id)?;
            Ok(proto::CancelJobResponse {
                progress: Some(progress_message(&progress)),
            })
        })
        .await
    }

    /// Who sends a report, and what it sends.
    pub(super) async fn jobs_report(
        &self,
        request: proto::GetReportRequest,
        caller: Option<&Caller>,
    ) -> Result<(ReportReader, Told<proto::GetReportResponse>)> {
        let jobs = self.jobs()?;
        let format = match proto::ReportFormat::try_from(request.format) {
            Ok(proto::ReportFormat::Unspecified | proto::ReportFormat::Html) => ReportFormat::Html,
            Ok(proto::ReportFormat::Json) => ReportFormat::Json,
            Err(_) => {
                return Err(
                    Error::invalid("no format that this version knows").with_field("format")
                );
            }
        };
        let place = self.place(caller)?;
        let file = blocking(move || jobs.report(&request.job_id, format)).await?;
        let (sender, last, receiver) = answers()?;
        let reader = ReportReader {
            file,
            closing: self.closing.clone(),
            sender,
            last,
            _place: place,
        };
        Ok((reader, receiver))
    }

    fn place(&self, caller: Option<&Caller>) -> Result<Place> {
        let share = caller.map(|caller| {
            let most = limits::JOB_FOLLOWERS_OF_TOKEN_MAX;
            self.followers_of.one_of(caller, most, |count| {
                format!("this token follows {count} jobs already, the most it may: end one")
            })
        });
        let share = share.transpose()?;
        let place = self.followers.clone().try_acquire_owned().map_err(|_| {
            Error::exhausted(format!(
                "{} callers follow jobs already: try again later",
                limits::JOB_FOLLOWERS_MAX
            ))
        })?;
        Ok(Place {
            _place: place,
            _share: share,
        })
    }
}

/// Of one who follows a job or reads a report.
struct Place {
    _place: OwnedSemaphorePermit,
    _share: Option<Share>,
}

/// What an RPC that streams has told and its caller has not read.
type Told<T> = mpsc::Receiver<Result<T, Status>>;

/// One caller of GetReport.
pub(super) struct ReportReader {
    file: File,
    closing: CancellationToken,
    sender: mpsc::Sender<Result<proto::GetReportResponse, Status>>,
    last: mpsc::OwnedPermit<Result<proto::GetReportResponse, Status>>,
    _place: Place,
}

impl ReportReader {
    pub(super) async fn run(self, counted: RpcRunning) {
        let sent = tokio::select! {
            biased;
            sent = send_file(self.file, &self.sender, limits::JOB_READER_TIMEOUT) => sent,
            () = self.closing.cancelled() => Err(going_down()),
        };
        match sent {
            Ok(()) => counted.ended(label(Code::Ok)),
            Err(error) => {
                self.last.send(Err(failed(counted, &error)));
            }
        }
    }
}

/// One caller of FollowJob.
pub(super) struct Follower {
    jobs: std::sync::Arc<Jobs>,
    id: String,
    progress: watch::Receiver<Progress>,
    closing: CancellationToken,
    sender: mpsc::Sender<Result<proto::FollowJobResponse, Status>>,
    last: mpsc::OwnedPermit<Result<proto::FollowJobResponse, Status>>,
    _place: Place,
}

impl Follower {
    /// Tells the present state at once, then what changes; a caller that reads slowly misses what
    /// came in between.
    pub(super) async fn run(mut self, counted: RpcRunning) {
        let sender = self.sender.clone();
        let told = tokio::select! {
            biased;
            () = sender.closed() => Err(Error::cancelled("the client left")),
            told = self.tell() => told,
        };
        match told {
            Ok(()) => counted.ended(label(Code::Ok)),
            Err(error) => {
                self.last.send(Err(failed(counted, &error)));
            }
        }
    }

    async fn tell(&mut self) -> Result<()> {
        loop {
            let progress = self.progress.borrow_and_update().clone();
            let ended = progress.state.is_end();
            let mut message = progress_message(&progress);
            if progress.state == State::Succeeded {
                let (jobs, id) = (self.jobs.clone(), self.id.clone());
                message.result_json = blocking(move || jobs.result(&id)).await?;
            }
            let response = proto::FollowJobResponse {
                progress: Some(message),
            };
            tokio::select! {
                biased;
                sent = self.sender.send_timeout(Ok(response), limits::JOB_READER_TIMEOUT) => {
                    sent.map_err(unread)?;
                }
                () = self.closing.cancelled() => return Err(going_down()),
            }
            if ended {
                return Ok(());
            }
            time::sleep(limits::JOB_PROGRESS_PERIOD).await;
            tokio::select! {
                biased;
                changed = self.progress.changed() => changed.map_err(|_| going_down())?,
                () = self.closing.cancelled() => return Err(going_down()),
            }
        }
    }
}

/// A stream of answers with a place kept for an error at its end: a stream that is cut off must not look whole to
/// a caller who reads on later.
type Answers<T> = (
    mpsc::Sender<Result<T, Status>>,
    mpsc::OwnedPermit<Result<T, Status>>,
    Told<T>,
);

fn answers<T>() -> Result<Answers<T>> {
    let (sender, receiver) = mpsc::channel(WAITING + 1);
    let last = (sender.clone().try_reserve_owned())
        .map_err(|_| Error::internal("a new channel has no room"))?;
    Ok((sender, last, receiver))
}

fn unread<T>(error: SendTimeoutError<T>) -> Error {
    match error {
        SendTimeoutError::Closed(_) => Error::cancelled("the client left"),
        SendTimeoutError::Timeout(_) => Error::exhausted(format!(
            "nothing was read for {} s: read faster",
            limits::JOB_READER_TIMEOUT.as_secs()
        )),
    }
}

/// Sends a file in chunks, until its reader leaves or reads nothing for long.
async fn send_file(
    mut file: File,
    to: &mpsc::Sender<Result<proto::GetReportResponse, Status>>,
    patience: Duration,
) -> Result<()> {
    loop {
        let (rest, chunk) = blocking(move || {
            let mut piece = vec![0; limits::REPORT_CHUNK_BYTES];
            let read = file.read(&mut piece);
            let n = read.or_kind(Kind::DataLoss, || "the report cannot be read".to_owned())?;
            piece.truncate(n);
            Ok((file, piece))
        })
        .await?;
        if chunk.is_empty() {
            return Ok(());
        }
        file = rest;
        let message = Ok(proto::GetReportResponse { chunk });
        let sent = to.send_timeout(message, patience).await;
        sent.map_err(unread)?;
    }
}

fn message(job: Summary) -> proto::Job {
    let kind = match job.kind {
        jobs::Kind::Hunt => proto::JobKind::HuntHeads,
        jobs::Kind::Calibrate => proto::JobKind::Calibrate,
        jobs::Kind::Evaluate => proto::JobKind::Evaluate,
    };
    proto::Job {
        id: job.id,
        kind: kind.into(),
        progress: Some(progress_message(&job.progress)),
        created_at: Some(timestamp(job.created_unix_ns)),
        ended_at: job.ended_unix_ns.map(timestamp),
        profile: job.profile,
    }
}

fn progress_message(progress: &Progress) -> proto::JobProgress {
    let state = match progress.state {
        State::Queued => proto::JobState::Queued,
        State::Running => proto::JobState::Running,
        State::Succeeded => proto::JobState::Succeeded,
        State::Failed => proto::JobState::Failed,
        State::Cancelled => proto::JobState::Cancelled,
    };
    proto::JobProgress {
        state: state.into(),
        stage: progress.stage.to_owned(),
        done: progress.done,
        total: progress.total,
        remaining: progress.remaining.map(duration),
        error: progress.error.clone().unwrap_or_default(),
        result_json: String::new(),
        samples_reused: progress.samples_reused,
    }
}

fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: span.subsec_nanos() as i32,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn a_report_that_nobody_reads_ends_with_an_error_behind_what_was_sent() {
        let mut written = tempfile::tempfile().unwrap();
        written
            .write_all(&vec![7; 5 * limits::REPORT_CHUNK_BYTES])
            .unwrap();
        std::io::Seek::rewind(&mut written).unwrap();
        let (sender, last, mut receiver) = answers().unwrap();
        let error = send_file(written, &sender, Duration::from_millis(50))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        last.send(Err(failed(RpcRunning::begin("GetReport"), &error)));
        drop(sender);
        let first = receiver.recv().await.unwrap().unwrap();
        assert_eq!(first.chunk.len(), limits::REPORT_CHUNK_BYTES);
        let end = receiver.recv().await.unwrap().unwrap_err();
        assert_eq!(end.code(), Code::ResourceExhausted);
        assert!(receiver.recv().await.is_none());
    }
}
