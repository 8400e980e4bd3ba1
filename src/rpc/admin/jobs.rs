//! RPCs on jobs.

use std::{fs::File, io::Read as _, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    super::{proto, status::label},
    Admin,
    answer::failed,
    blocking, going_down, options, timestamp,
};
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    jobs::{self, CalibrateRequest, Jobs, Progress, ReportFormat, Request, State, Summary},
    limits,
    telemetry::server::rpc_ended,
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

    pub(super) async fn jobs_follow(
        &self,
        request: &proto::FollowJobRequest,
    ) -> Result<ReceiverStream<Result<proto::FollowJobResponse, Status>>> {
        let jobs = self.jobs()?;
        let place = self.place()?;
        let (table, id) = (jobs.clone(), request.job_id.clone());
        let progress = blocking(move || table.follow(&id)).await?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let follower = Follower {
            jobs,
            id: request.job_id.clone(),
            progress,
            closing: self.closing.clone(),
            sender,
            _place: place,
        };
        tokio::spawn(follower.run());
        Ok(ReceiverStream::new(receiver))
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

    pub(super) async fn jobs_report(
        &self,
        request: &proto::GetReportRequest,
    ) -> Result<ReceiverStream<Result<proto::GetReportResponse, Status>>> {
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
        let place = self.place()?;
        let id = request.job_id.clone();
        let file = blocking(move || jobs.report(&id, format)).await?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let closing = self.closing.clone();
        tokio::spawn(async move {
            let _place = place;
            send_file(file, &sender, &closing).await;
        });
        Ok(ReceiverStream::new(receiver))
    }

    fn place(&self) -> Result<OwnedSemaphorePermit> {
        self.followers.clone().try_acquire_owned().map_err(|_| {
            Error::exhausted(format!(
                "{} callers follow jobs already: try again later",
                limits::JOB_FOLLOWERS_MAX
            ))
        })
    }
}

/// One caller of FollowJob.
struct Follower {
    jobs: std::sync::Arc<Jobs>,
    id: String,
    progress: watch::Receiver<Progress>,
    closing: CancellationToken,
    sender: mpsc::Sender<Result<proto::FollowJobResponse, Status>>,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// Tells the present state at once, then what changes; a caller that reads slowly misses what
    /// came in between.
    async fn run(mut self) {
        let sender = self.sender.clone();
        let told = tokio::select! {
            biased;
            () = sender.closed() => Err(Error::cancelled("the client left")),
            told = self.tell() => told,
        };
        match told {
            Ok(()) => rpc_ended("FollowJob", label(Code::Ok)),
            Err(error) => {
                let status = failed("FollowJob", &error);
                // A caller that reads nothing learns it from the stream's end.
                let _ = self.sender.try_send(Err(status));
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
                    sent.map_err(|_| Error::cancelled("the client left, or reads nothing"))?;
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

/// Sends a file in chunks, until its reader leaves or reads nothing for long, or the server ends.
async fn send_file(
    mut file: File,
    to: &mpsc::Sender<Result<proto::GetReportResponse, Status>>,
    closing: &CancellationToken,
) {
    loop {
        let read = blocking(move || {
            let mut piece = vec![0; limits::REPORT_CHUNK_BYTES];
            let read = file.read(&mut piece);
            let n = read.or_kind(Kind::DataLoss, || "the report cannot be read".to_owned())?;
            piece.truncate(n);
            Ok((file, piece))
        })
        .await;
        let message = match read {
            Ok((_, chunk)) if chunk.is_empty() => return,
            Ok((rest, chunk)) => {
                file = rest;
                Ok(proto::GetReportResponse { chunk })
            }
            Err(error) => {
                let _ = to.try_send(Err(failed("GetReport", &error)));
                return;
            }
        };
        tokio::select! {
            biased;
            sent = to.send_timeout(message, limits::JOB_READER_TIMEOUT) => if sent.is_err() {
                return;
            },
            () = closing.cancelled() => {
                let _ = to.try_send(Err(failed("GetReport", &going_down())));
                return;
            }
        }
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
