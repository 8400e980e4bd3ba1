//! Of the engine, detections, what they tell, and profiles.

use std::time::Duration;

// --- engine, pipeline, profile

/// Default for the segments that may wait before the model, over all lanes. A 16-frame clip at
/// 448 × 448 is 9.2 MiB, so a full queue holds about 300 MiB.
pub const QUEUE_CAPACITY_SEGMENTS: usize = 32;

/// Most that an operator may set for the above: about 9.4 GiB of clips.
pub const QUEUE_CAPACITY_MAX_SEGMENTS: usize = 1024;

/// Default for the longest that one segment may wait, for room and in the queue together. A model
/// on a CPU takes up to two minutes a segment, so this is a handful of passes there.
pub const QUEUE_WAIT_MAX: Duration = Duration::from_secs(600);

/// Default for the clips of one pass on a GPU; a CPU gains nothing from batches and runs one.
pub const BATCH_CLIPS_GPU: usize = 8;

/// After the device's memory ran out in a pass: full passes of the size that it held before one more clip
/// is tried.
pub const ROOM_PASSES: u32 = 1_000;

/// Most clips of one pass that an operator may set.
pub const BATCH_CLIPS_MAX: usize = 64;

/// Passes that a lane with waiting segments may be passed over before it goes next. Two lanes can
/// reach it together, and then the second waits one pass more: still at least one pass in ten.
pub const LANE_PASSED_OVER_MAX: u32 = 8;

/// Passes before a server serves: a cold one, and those by which it measures how fast the model is.
pub const WARM_UP_PASSES: u32 = 3;

/// Those that measure end within this time; where the first takes longer, as on a CPU, it is the measure.
pub const WARM_UP_TIME: Duration = Duration::from_secs(5);

/// Panics of the model in a row after which the engine says that it is unhealthy.
pub const PROBE_PANICS_MAX: u32 = 3;

/// The same of segments that the device, or its memory, failed one after the other: a GPU that has fallen
/// out fails every pass, and mostly only a restart brings it back.
pub const PROBE_FAILURES_MAX: u32 = 10;

/// An engine that fails and has nothing to do runs a pass of its own so often, to see whether it works again: nobody
/// sends anything to one that is out of service.
pub const PROBE_CHECK_PERIOD: Duration = Duration::from_secs(30);

/// Longest sleep of the idle engine between heartbeats.
pub const ENGINE_BEAT: Duration = Duration::from_secs(1);

/// Default for the time without a heartbeat after which the engine counts as stalled: more than
/// twice the slowest pass known (120 s). Ten measured passes, where that is longer.
pub const ENGINE_STALL: Duration = Duration::from_secs(300);

/// Default for the longest wait for the pass in progress when the engine is dropped; a pass
/// cannot be interrupted, and its thread is left behind after that.
pub const ENGINE_JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Most fingerprint requests that may wait for the model's thread.
pub const FINGERPRINT_REQUESTS_MAX: usize = 64;

/// Prepared segments that may wait between a stream's decode thread and its detection.
pub const PREPARED_SEGMENTS_MAX: usize = 2;

/// Memory of pictures that nobody holds any more which is kept for the next ones, bytes, over all streams: three clips
/// and a bit.
pub const SPARE_PIXELS_MAX_BYTES: usize = 32 << 20;

/// Smaller ones are not kept, bytes: the allocator keeps them by itself.
pub const SPARE_PIXELS_MIN_BYTES: usize = 64 << 10;

/// Segments that one detection may have in the engine at once: one in the pass, one ready behind
/// it, and two so that batches can form.
pub const OUTSTANDING_SEGMENTS_MAX: usize = 4;

/// Longest wait for a decode thread to end after its cancellation.
pub const DECODE_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest profile file, bytes: 1,024 heads of 128 numbers fit.
pub const PROFILE_MAX_BYTES: u64 = 4 << 20;

/// Most heads in a profile.
pub const PROFILE_HEADS_MAX: usize = 1024;

/// Most files that a profile store reads.
pub const PROFILES_MAX: usize = 1000;

/// Longest bridge inside an event that a profile may ask for, seconds.
pub const EVENT_BRIDGE_MAX_SECONDS: f64 = 3600.0;

// --- segment, score, hunt/calibrate, eval

/// Shortest and longest segment under the `seconds` rule, seconds: below, most segments would hold
/// one frame; above, a score says too little about when.
pub const SEGMENT_SECONDS_MIN: f64 = 0.05;
/// See [`SEGMENT_SECONDS_MIN`].
pub const SEGMENT_SECONDS_MAX: f64 = 60.0;

/// Most frames sampled per segment: 64 × 258 tokens is half the model's 32,768 positions.
pub const FRAMES_PER_SEGMENT_MAX: usize = 64;

/// Largest σ_g of the locator, segments. The final score of a segment waits for 3σ later ones: at
/// 32 that is two and a half minutes.
pub const LOCATOR_SIGMA_MAX: f64 = 32.0;

/// Newton steps of a logistic fit. It needs 5 to 15; more means numbers beyond f64.
pub const LOGISTIC_MAX_STEPS: usize = 200;

/// Largest annotation, frame count or manifest file, bytes: a hundred thousand rows of 600.
pub const ANNOTATIONS_MAX_BYTES: u64 = 64 << 20;

/// Longest line of a scores file, bytes: one video of 2.5 million scores at 25 characters.
pub const SCORES_LINE_MAX_BYTES: u64 = 64 << 20;

// --- events for people, static scenes

/// Masks of one detection: a camera's picture has a few parts that nobody is to see.
pub const MASK_POLYGONS_MAX: usize = 32;

/// Fewest points of a mask: a triangle.
pub const MASK_POINTS_MIN: usize = 3;

/// Most points of a mask: with the number of masks it bounds the work for a new picture size to
/// 2,048 edges a row, and the pixels to remember to 1,024 stretches a row.
pub const MASK_POINTS_MAX: usize = 64;

/// Default for the largest difference that counts as nothing, in parts of full brightness: five
/// levels of 255, above the noise of a compressed still scene in means over 64 pixels.
pub const MOTION_THRESHOLD: f64 = 0.02;

/// Blocks along one side of the picture in which motion is looked for: 8 × 8 pixels each at 448, so
/// that noise is averaged out and a person far away still fills a few.
pub const MOTION_BLOCKS_PER_SIDE: usize = 56;

/// One in so many blocks counts, the worst ones: 49 of 3,136, or a square of an eighth of the
/// picture's side, so that something small that moves is not lost in the mean.
pub const MOTION_WORST_ONE_IN: usize = 64;

/// Longest media time for which a score is repeated while nothing moves: what the gate does not see
/// (a change of colour alone, a slow flow) is seen by the model at least so often.
pub const GATED_RUN_MAX: Duration = Duration::from_secs(30);

/// Longest minimum duration of an event that a client may ask for: beyond an hour nothing would be
/// told that still helps.
pub const EVENT_MIN_DURATION_MAX: Duration = Duration::from_secs(3600);

/// Longest cooldown between events that a client may ask for: one alarm a day.
pub const EVENT_COOLDOWN_MAX: Duration = Duration::from_secs(24 * 3600);

/// Default for a snapshot's larger side, pixels: enough for a person to tell what it is about.
pub const SNAPSHOT_SIDE: u32 = 640;

/// Largest side of a snapshot that a client may ask for, pixels: full HD.
pub const SNAPSHOT_SIDE_MAX: u32 = 1920;

/// Default for a snapshot's size, bytes: a 640 × 360 picture at quality 85 has about 40 kB.
pub const SNAPSHOT_BYTES: usize = 64 << 10;

/// Largest size of a snapshot that a client may ask for, bytes. A detection keeps one per segment
/// that is not final, 10 or so, and one of the open event.
pub const SNAPSHOT_BYTES_MAX: usize = 512 << 10;

/// Qualities (1 to 100) that are tried for a snapshot, one after the other, until it is small
/// enough. Below the last one a picture tells less than its absence.
pub const SNAPSHOT_QUALITIES: [u8; 7] = [85, 75, 65, 55, 45, 35, 25];

// --- pipeline: live

/// Segments of a live stream that may wait to be queued; one more drops the oldest. With those
/// queued ([`OUTSTANDING_SEGMENTS_MAX`]) a camera holds at most six clips, 58 MB.
pub const LIVE_BACKLOG_SEGMENTS: usize = 2;

/// Segments, gaps and source states that may wait in media order: a camera that comes and goes
/// while the model is stuck.
pub const BACKLOG_ENTRIES_MAX: usize = 64;

/// Default for how old a live segment may be when its pass begins: ten segments of the method. An
/// alarm that comes later still tells something; a picture of the past that delays it does not.
pub const LIVE_DELAY_MAX: Duration = Duration::from_secs(16);

// --- profiles

/// Versions of one profile that are kept: one a week for two years.
pub const PROFILE_VERSIONS_MAX: usize = 100;

/// Versions of all profiles together. A list of them is one message: at some 300 bytes each it stays
/// far below the 4 MiB that clients take.
pub const PROFILE_VERSIONS_TOTAL_MAX: usize = 5000;

/// Activations that can be undone; older ones are forgotten.
pub const PROFILE_HISTORY_MAX: usize = 256;

/// Largest state file of a profile store, bytes: 1,000 names with two versions, and the history, take
/// some 350 kB.
pub const PROFILE_STATE_MAX_BYTES: u64 = 1 << 20;

/// Active versions that have a metric series of their own in one run of the server; later ones share
/// one.
pub const PROFILE_SERIES_MAX: usize = 64;
