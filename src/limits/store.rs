//! Of what is kept on disk: verdicts, clips, features, jobs.

use std::time::Duration;

use super::HUNT_SAMPLES_MAX;

// --- feedback

/// Features that one detection keeps for feedback, bytes. Ten minutes of the method's profile (640
/// numbers a segment) take 1 MB; with many heads or prompts it is less time than configured.
pub const FEEDBACK_RING_MAX_BYTES: usize = 16 << 20;

/// Segments of a detection whose place in time is remembered, with features or without: 3.6 hours.
pub const FEEDBACK_SEGMENTS_MAX: usize = 8192;

/// Events of a detection that a verdict may name; the oldest are forgotten first.
pub const FEEDBACK_EVENTS_MAX: usize = 1024;

/// Detections that ended and may still get verdicts; the oldest are forgotten first.
pub const FEEDBACK_ENDED_MAX: usize = 256;

/// What these keep together, bytes; past it the oldest are forgotten as well.
pub const FEEDBACK_ENDED_MAX_BYTES: usize = 256 << 20;

/// Longest ring that an operator may set, minutes: two hours of the method's profile fit its bytes.
pub const FEEDBACK_RING_MAX_MINUTES: f64 = 120.0;

/// Longest time after its end that a detection may be kept, seconds.
pub const FEEDBACK_KEEP_MAX_SECONDS: f64 = 86_400.0;

/// Segments that one report stores, the newest of those it speaks of: 1.8 hours.
pub const FEEDBACK_REPORT_SEGMENTS_MAX: usize = 4096;

/// Largest file of a report, bytes: all that a ring can hold, and 8 MiB to describe it.
pub const FEEDBACK_REPORT_MAX_BYTES: u64 = 24 << 20;

/// Most samples that an operator may have stored: 2.5 GB of the method's profile.
pub const FEEDBACK_SAMPLES_MAX: usize = 1_000_000;

/// Profiles whose estimated precision is exported: each name is a time series.
pub const FEEDBACK_PROFILES_LABELLED_MAX: usize = 64;

/// A session's or an event's id in a report, bytes: 32 hex digits, or 20 decimal ones.
pub const FEEDBACK_ID_MAX_BYTES: usize = 64;

/// Verdicts that are written at a time: each is one small file, and they take turns anyway.
pub const FEEDBACK_WRITERS_MAX: usize = 4;

/// Longest wait of a verdict for its turn.
pub const FEEDBACK_WRITE_WAIT: Duration = Duration::from_secs(10);

// --- library

/// Clips that a library may hold: as many as fit the memory of its index some times over.
pub const LIBRARY_CLIPS_MAX: usize = 20_000;

/// Intervals of one clip.
pub const CLIP_INTERVALS_MAX: usize = 1000;

/// A clip's name, bytes.
pub const CLIP_NAME_MAX_BYTES: usize = 256;

/// What is written about one clip, bytes: 1,000 intervals take some 40 kB.
pub const CLIP_RECORD_MAX_BYTES: u64 = 1 << 20;

/// Uploads of clips at the same time.
pub const CLIP_UPLOADS_MAX: usize = 8;

/// Longest wait for the next message of a clip's upload. A client that is alive and sends nothing
/// would hold its place and its part of the quota.
pub const CLIP_UPLOAD_SILENCE: Duration = Duration::from_secs(60);

/// Bytes of a clip that are copied at once, for imports.
pub const CLIP_COPY_BYTES: usize = 1 << 20;

/// Clips of one page of a list, most and where none is asked for.
pub const CLIPS_PAGE_MAX: usize = 1000;
/// See [`CLIPS_PAGE_MAX`].
pub const CLIPS_PAGE: usize = 100;

/// Sets of features kept of one clip (one per model, prompts and segment rule): the longest unused
/// makes room for one more.
pub const KEPT_SETS_MAX: usize = 16;

/// Head of a file of kept features, bytes: 32 prompts of 4,096 bytes, each byte escaped, and room.
pub const KEPT_HEADER_MAX_BYTES: u64 = 1 << 20;

/// Samples of one clip whose features are kept: as many as hunting takes in all.
pub const KEPT_SAMPLES_MAX: usize = HUNT_SAMPLES_MAX;

/// A manifest to import, bytes: some hundred thousand rows.
pub const MANIFEST_MAX_BYTES: u64 = 16 << 20;

// --- jobs

/// Longest wait for a reader of a job's progress or report; then it has left without saying so.
pub const JOB_READER_TIMEOUT: Duration = Duration::from_secs(60);

/// Processes of the server that may end without a word while one job runs: then it is the job. Each costs
/// the cameras a restart, and a job may be hit by some that are not its fault.
pub const JOB_STARTS_MAX: u32 = 8;

/// Time between attempts to write down the end of a job, where the disk refused it.
pub const JOB_WRITE_RETRY: Duration = Duration::from_secs(30);

/// Jobs that wait for their turn.
pub const JOBS_WAITING_MAX: usize = 32;

/// Most ended jobs that the configuration may keep; what ListJobs answers fits one message.
pub const JOBS_KEPT_MAX: usize = 1000;

/// What is written about one job, bytes: the labels of a full library.
pub const JOB_RECORD_MAX_BYTES: u64 = 64 << 20;

/// A job's result as JSON on the wire, bytes: most clients take messages of 4 MiB. A longer one is
/// sent without its arrays, which its report has.
pub const JOB_RESULT_MAX_BYTES: usize = 3 << 20;

/// A report, bytes.
pub const JOB_REPORT_MAX_BYTES: u64 = 256 << 20;

/// Bytes of a report in one message.
pub const REPORT_CHUNK_BYTES: usize = 1 << 20;

/// Segments of a job in the engine at once: enough to fill batches while the job decodes ahead.
pub const JOB_SEGMENTS_AHEAD: usize = 4;

/// How often a job's segment may be put into the engine's queue. A busy engine gives it up after
/// `engine.max_queue_wait_s`; a job has time.
pub const JOB_PASS_ATTEMPTS: usize = 100;

/// Callers that follow jobs at the same time.
pub const JOB_FOLLOWERS_MAX: usize = 256;

/// Of these, those of one token: one that forgets to hang up must not keep the others out.
pub const JOB_FOLLOWERS_OF_TOKEN_MAX: usize = JOB_FOLLOWERS_MAX / 4;

/// Least time between two states of a job that followers are told, so that thousands of samples
/// from kept features do not become thousands of messages.
pub const JOB_PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// Longest wait at the shutdown for the job's step in progress. It goes on where it was after a
/// restart, however it ends.
pub const JOBS_STOP: Duration = Duration::from_secs(30);

/// Most numbers of a feature vector whose covariance is taken apart, eight heads of 128: some 6 G
/// operations for each held-out group of videos.
pub const NORMALITY_NUMBERS_MAX: usize = 1024;

/// Most normal samples of one fit of the comparison in a few-shot calibration's report, taken evenly:
/// a row of a report must not cost more than the calibration.
pub const NORMAL_COMPARISON_SAMPLES_MAX: usize = 1024;
