//! Following a job to its end, over lost connections.

use std::time::Duration;

use serde_json::{Value, json};
use tonic::{Code, Status};

use super::connection::{Connection, refused};
use crate::{
    cli::common::Progress,
    error::{Error, Result},
    rpc::proto::{self, JobProgress, JobState},
};

/// Waits between attempts to reach the server: the first, the longest, and all of them together.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(10);
const RETRY_FOR: Duration = Duration::from_secs(600);

/// Follows a job that was just begun, or with `wait` unset only tells its id.
pub(super) async fn begun(to: &Connection, id: &str, wait: bool) -> Result<()> {
    if wait {
        if !to.json {
            remark!("job {id}");
        }
        follow(to, id).await
    } else {
        to.print(&json!({"job_id": id}), || id.to_owned());
        Ok(())
    }
}

/// Shows a job's progress until it ends, and prints its result. Ctrl-C leaves it running.
///
/// Fails with what was wrong where the job failed, and with `Cancelled` where it was cancelled or is
/// no longer followed.
pub(super) async fn follow(to: &Connection, id: &str) -> Result<()> {
    let ended = tokio::select! {
        ended = to_the_end(to, id) => ended?,
        interrupted = tokio::signal::ctrl_c() => {
            let _ = interrupted;
            let server = &to.server;
            return Err(Error::cancelled(format!(
                "job {id} goes on: follow it with `headhunt admin --server {server} jobs follow \
                 {id}`, cancel it with `headhunt admin --server {server} jobs cancel {id}`"
            )));
        }
    };
    match ended.state() {
        JobState::Succeeded => {
            to.print(&told(id, &ended), || result(&ended));
            Ok(())
        }
        JobState::Cancelled => {
            to.print(&told(id, &ended), String::new);
            Err(Error::cancelled(format!("job {id} was cancelled")))
        }
        _ => {
            to.print(&told(id, &ended), String::new);
            Err(Error::precondition(format!(
                "job {id} failed: {}",
                ended.error
            )))
        }
    }
}

async fn to_the_end(to: &Connection, id: &str) -> Result<JobProgress> {
    let mut shown = Shown::default();
    let mut wait = RETRY_FIRST;
    let mut waited = Duration::ZERO;
    loop {
        let lost = match once(to, id, &mut shown).await {
            Ok(Some(ended)) => return Ok(ended),
            Ok(None) => Status::unavailable("the stream ended early"),
            Err(status) => status,
        };
        if shown.heard {
            shown.heard = false;
            (wait, waited) = (RETRY_FIRST, Duration::ZERO);
        }
        if !passing(&lost) || waited >= RETRY_FOR {
            return Err(refused(lost).context(format!("job {id}")));
        }
        if waited.is_zero() {
            remark!("the connection was lost; the job goes on, and is followed again");
        }
        tokio::time::sleep(wait).await;
        waited += wait;
        wait = (wait * 2).min(RETRY_LONGEST);
    }
}

/// Whether trying again may help.
fn passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::ResourceExhausted
    ) || (status.code() == Code::Internal && std::error::Error::source(status).is_some())
}

/// One call: the job's end, or `None` where the stream ended before it.
async fn once(to: &Connection, id: &str, shown: &mut Shown) -> Result<Option<JobProgress>, Status> {
    let request = proto::FollowJobRequest {
        job_id: id.to_owned(),
    };
    let mut stream = to.client().follow_job(request).await?.into_inner();
    while let Some(response) = stream.message().await? {
        shown.heard = true;
        let progress = response.progress.unwrap_or_default();
        if matches!(
            progress.state(),
            JobState::Succeeded | JobState::Failed | JobState::Cancelled
        ) {
            shown.finish();
            return Ok(Some(progress));
        }
        shown.tell(to, id, &progress);
    }
    Ok(None)
}

/// What is shown of the stage.
#[derive(Default)]
struct Shown {
    bar: Option<(String, Progress)>,
    heard: bool,
}

impl Shown {
    fn tell(&mut self, to: &Connection, id: &str, progress: &JobProgress) {
        if to.json {
            to.print(&told(id, progress), String::new);
            return;
        }
        let stage = if progress.stage.is_empty() {
            "waiting"
        } else {
            &progress.stage
        };
        if self.bar.as_ref().is_none_or(|(name, _)| name != stage) {
            self.finish();
            self.bar = Some((stage.to_owned(), Progress::new(stage)));
        }
        let remark = match &progress.remaining {
            Some(left) => format!("about {} s left", left.seconds),
            None => String::new(),
        };
        if let Some((_, bar)) = &self.bar {
            bar.tell(progress.done as usize, progress.total as usize, &remark);
        }
    }

    fn finish(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish();
        }
    }
}

/// Progress as JSON.
pub(super) fn told(id: &str, progress: &JobProgress) -> Value {
    let left = progress
        .remaining
        .as_ref()
        .map(|left| left.seconds as f64 + f64::from(left.nanos) / 1e9);
    let result: Option<Value> = serde_json::from_str(&progress.result_json).ok();
    json!({
        "job_id": id,
        "state": state_name(progress.state()),
        "stage": progress.stage,
        "done": progress.done,
        "total": progress.total,
        "remaining_s": left,
        "samples_reused": progress.samples_reused,
        "error": progress.error,
        "result": result,
    })
}

/// A state's name for people.
pub(super) fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Unspecified => "unknown",
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// A result's short parts, one a line.
fn result(ended: &JobProgress) -> String {
    let Ok(Value::Object(map)) = serde_json::from_str::<Value>(&ended.result_json) else {
        return ended.result_json.clone();
    };
    let short = |(name, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Array(items) if name != "heads" && items.iter().all(Value::is_string) => {
                let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                items.join("; ")
            }
            Value::Array(_) if name != "heads" => return None,
            other => other.to_string(),
        };
        Some(format!("{name:<20} {text}"))
    };
    map.iter().filter_map(short).collect::<Vec<_>>().join("\n")
}
