//! `ReportFeedback`: a verdict is checked, written and answered.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task, time};

use super::proto::{self, FeedbackVerdict};
use crate::{
    clock::Clock,
    config::FeedbackSettings,
    error::{Error, Result},
    feedback::{Feedback, FeedbackOptions, Statement},
    limits,
    media::MediaTime,
};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The feedback that these settings ask for; `None` where `feedback.dir` is empty or
/// `feedback.ring_minutes` is 0. Reads the store: blocks.
///
/// Fails with `FailedPrecondition` where the directory cannot be used.
pub fn open_feedback(
    settings: &FeedbackSettings,
    clock: Arc<dyn Clock>,
) -> Result<Option<Arc<Feedback>>> {
    let Some(dir) = settings.dir.clone().filter(|_| settings.ring_minutes > 0.0) else {
        return Ok(None);
    };
    let options = FeedbackOptions {
        dir,
        ring: Duration::from_secs_f64(settings.ring_minutes * 60.0),
        keep_after_end: settings.keep_after_end,
        max_samples: settings.max_samples,
    };
    Feedback::open(options, clock).map(|feedback| Some(Arc::new(feedback)))
}

/// Takes verdicts, or says why it does not.
pub(super) struct Verdicts {
    feedback: Option<Arc<Feedback>>,
    /// What is to be set where there is no feedback.
    missing: &'static str,
    writers: Arc<Semaphore>,
}

impl Verdicts {
    pub fn new(feedback: Option<Arc<Feedback>>, settings: &FeedbackSettings) -> Self {
        Verdicts {
            feedback,
            missing: match settings.dir {
                None => "feedback.dir names no directory",
                Some(_) => "feedback.ring_minutes is 0",
            },
            writers: Arc::new(Semaphore::new(limits::FEEDBACK_WRITERS_MAX)),
        }
    }

    /// Stores a verdict.
    ///
    /// Fails with `FailedPrecondition` where there is no feedback, `InvalidArgument` with the field,
    /// `NotFound` for an unknown detection or event, and `ResourceExhausted` where too many verdicts
    /// come at once.
    pub async fn take(
        &self,
        request: proto::ReportFeedbackRequest,
    ) -> Result<proto::ReportFeedbackResponse> {
        let Some(feedback) = self.feedback.clone() else {
            return Err(Error::precondition(format!(
                "this server takes no feedback: {} in its configuration",
                self.missing
            )));
        };
        let statement = statement(&request)?;
        let session = request.session_id;
        let writer = self.writers.clone().acquire_owned();
        let writer = match time::timeout(limits::FEEDBACK_WRITE_WAIT, writer).await {
            Ok(Ok(writer)) => writer,
            Ok(Err(_)) | Err(_) => {
                return Err(Error::exhausted(format!(
                    "verdicts come faster than they are written: none of {} places in {} s",
                    limits::FEEDBACK_WRITERS_MAX,
                    limits::FEEDBACK_WRITE_WAIT.as_secs()
                )));
            }
        };
        let written = task::spawn_blocking(move || {
            let _writer = writer;
            let reported = feedback.report(&session, statement)?;
            tracing::info!(
                session,
                ?statement,
                stored = reported.stored,
                missing = reported.missing,
                "feedback"
            );
            Ok(reported)
        });
        let reported = written.await.unwrap_or_else(|error| {
            Err(Error::internal("a verdict's task failed").with_source(error))
        })?;
        Ok(proto::ReportFeedbackResponse {
            segments_stored: count(reported.stored),
            segments_missing: count(reported.missing),
        })
    }
}

/// What a request says, its fields checked.
fn statement(request: &proto::ReportFeedbackRequest) -> Result<Statement> {
    let session = &request.session_id;
    if session.is_empty() || session.len() > limits::FEEDBACK_ID_MAX_BYTES {
        return Err(wrong(
            "session_id",
            format!(
                "session_id has {} bytes: give the one that `opened` told",
                session.len()
            ),
        ));
    }
    match request.verdict() {
        FeedbackVerdict::Unspecified => Err(wrong(
            "verdict",
            format!(
                "verdict is {}: give CONFIRMED, FALSE_ALARM or MISSED_INTERVAL",
                request.verdict
            ),
        )),
        FeedbackVerdict::Confirmed => event(request).map(Statement::Confirmed),
        FeedbackVerdict::FalseAlarm => event(request).map(Statement::FalseAlarm),
        FeedbackVerdict::MissedInterval => {
            if !request.event_id.is_empty() {
                return Err(wrong(
                    "event_id",
                    "a missed interval has no event: leave event_id empty".to_owned(),
                ));
            }
            let start = media_time("start", request.start.as_ref())?;
            let end = media_time("end", request.end.as_ref())?;
            if end <= start {
                return Err(wrong(
                    "end",
                    format!("the interval ends at {end} and starts at {start}: it must end later"),
                ));
            }
            Ok(Statement::Missed { start, end })
        }
    }
}

/// The event that a verdict is about.
fn event(request: &proto::ReportFeedbackRequest) -> Result<u64> {
    for (field, given) in [
        ("start", request.start.is_some()),
        ("end", request.end.is_some()),
    ] {
        if given {
            return Err(wrong(
                field,
                format!("{field} is for MISSED_INTERVAL alone: an event has its own"),
            ));
        }
    }
    let id = &request.event_id;
    if id.is_empty() || id.len() > limits::FEEDBACK_ID_MAX_BYTES {
        return Err(wrong(
            "event_id",
            format!(
                "event_id has {} bytes: give the id of the event that the verdict is about",
                id.len()
            ),
        ));
    }
    id.parse()
        .ok()
        // One spelling alone: "007" was never told.
        .filter(|number: &u64| number.to_string() == *id)
        .ok_or_else(|| {
            Error::not_found(format!("no event `{}`", id.escape_debug())).with_field("event_id")
        })
}

fn media_time(field: &str, given: Option<&prost_types::Duration>) -> Result<MediaTime> {
    let Some(given) = given else {
        return Err(wrong(
            field,
            format!("a missed interval needs `{field}`, in media time"),
        ));
    };
    let nanos = i64::from(given.nanos);
    let is_valid = nanos.abs() < NANOS_PER_SECOND && given.seconds.signum() * nanos.signum() >= 0;
    given
        .seconds
        .checked_mul(NANOS_PER_SECOND)
        .and_then(|seconds| seconds.checked_add(nanos))
        .filter(|_| is_valid)
        .map(MediaTime::from_nanos)
        .ok_or_else(|| {
            wrong(
                field,
                format!(
                    "{field} of {} s and {nanos} ns is no time of any media",
                    given.seconds
                ),
            )
        })
}

fn wrong(field: &str, message: String) -> Error {
    Error::invalid(message).with_field(field)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
