//! Of media: files, uploads, pictures, live sources.

use std::time::Duration;

// --- video: encode

/// Raw frames that wait for the encoder.
pub const ENCODE_QUEUE_FRAMES: usize = 16;

/// Longest time without progress before encoding is given up.
pub const ENCODE_STALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

// --- video: camera

/// Encoded pictures that wait between a simulated camera's demuxer and its clients' payloader.
pub const CAMERA_QUEUE_PICTURES: u32 = 4;

/// Longest wait for a simulated camera's next encoded picture from its file, seconds: the file is
/// local, so longer means that it cannot be read.
pub const CAMERA_READ_STALL_SECONDS: u64 = 10;

/// RTSP sessions that one server of simulated cameras holds.
pub const CAMERA_SESSIONS_MAX: u32 = 1024;

/// How often sessions whose client has vanished are looked for, seconds; a session lives for 60.
pub const CAMERA_SESSION_SWEEP_SECONDS: u32 = 5;

/// Longest wait for the thread of the simulated cameras to do what it is asked, seconds: one
/// client's first request may keep it busy for 20, GStreamer's limit for starting a stream.
pub const CAMERA_CALL_SECONDS: u64 = 30;

/// Longest mount path of a simulated camera, bytes.
pub const CAMERA_PATH_MAX_BYTES: usize = 128;

// --- inputs

/// Resize tables kept for the next frame: two per resolution of the running streams, and two more
/// where they make snapshots. A table takes
/// 32 KB for 1080p to 448 and at most 0.2 MB (8191 to 8192 pixels).
pub const RESIZE_TABLES_MAX: usize = 32;

/// Largest file of a tokenizer, bytes: Qwen2.5's tokenizer.json has 7 MB.
pub const TOKENIZER_FILE_MAX_BYTES: u64 = 64 << 20;

/// Longest prompt with its image tokens, tokens: up to here InternVL3's dynamic RoPE scaling
/// changes nothing. 16 frames need about 4,300.
pub const SEQUENCE_MAX_TOKENS: usize = 32_768;

// --- video

/// First bytes of an input that may be held in memory while its container is told, bytes. An MP4
/// whose index has not begun by then is spooled.
pub const SNIFF_MAX_BYTES: usize = 1 << 20;

/// Encoded bytes that wait in front of the demuxer while an upload is decoded as it arrives,
/// bytes. A chunk is taken only below this, so at most one chunk more.
pub const UPLOAD_QUEUE_BYTES: u64 = 4 << 20;

/// Small chunks are gathered up to this before they go to the demuxer, bytes.
pub const UPLOAD_GATHER_BYTES: usize = 32 << 10;

/// Default for the largest upload that is spooled to disk, bytes: some hours of CCTV video.
pub const SPOOL_MAX_BYTES: u64 = 4 << 30;

/// Decoded pictures that wait for the consumer, frames. The decoder stops when they are not taken.
pub const DECODED_QUEUE_FRAMES: u32 = 2;

/// The same of a file or an upload whose pictures together stay within [`DECODED_QUEUE_BYTES`]: with two small ones decoder
/// and consumer would wake each other up all the time.
pub const DECODED_QUEUE_FRAMES_MAX: u32 = 16;

/// See [`DECODED_QUEUE_FRAMES_MAX`].
pub const DECODED_QUEUE_BYTES: usize = 8 << 20;

/// Threads of one decoder. One, so that hundreds of streams share the cores evenly and a decoder
/// holds no frames back for threading.
pub const DECODER_THREADS: u32 = 1;

/// Default for the longest wait without any progress of an input or a decoder, seconds.
pub const VIDEO_STALL_SECONDS: u64 = 30;

/// Longest single wait of a video source before it looks at its cancellation token, milliseconds.
pub const VIDEO_POLL_MILLIS: u64 = 20;

/// Tracks of one container that are looked at. Later ones are ignored: a crafted file may declare
/// thousands.
pub const CONTAINER_MAX_TRACKS: usize = 64;

/// Top-level boxes of an MP4 that are walked in search of its index.
pub const MP4_MAX_BOXES: usize = 100_000;

/// Encoded frames that are remembered while their pictures are awaited, frames. The deepest
/// reordering of any codec here is 16; more pending ones have been lost.
pub const PENDING_MAX_FRAMES: usize = 1024;

/// Media time without frames that counts as a jump of the clock, milliseconds. Below it, it is a
/// variable frame rate.
pub const TIMESTAMP_JUMP_MILLIS: u64 = 10_000;

/// A step back of the media time up to this is a disorder and is levelled out, milliseconds;
/// beyond it the clock was reset.
pub const TIMESTAMP_DISORDER_MILLIS: u64 = 1_000;

/// Shortest frame duration that is believed, microseconds: high-speed cameras. A decoder that knows
/// no frame rate may make one up from the clock's resolution.
pub const FRAME_DURATION_MIN_MICROS: u64 = 100;

/// Longest frame duration that is believed, milliseconds.
pub const FRAME_DURATION_MAX_MILLIS: u64 = 60_000;

// --- video: live

/// A step of a camera's clock that is ahead of the time at which its packets arrive by more than
/// this is a jump, milliseconds. Bursts after a stall stay below it packet by packet.
pub const LIVE_CLOCK_AHEAD_MILLIS: u64 = 5_000;

/// A camera's clock is compared with the arrival of its packets over so much time in which they arrive, milliseconds.
pub const LIVE_PACE_WINDOW_MILLIS: u64 = 2_500;

/// So many times too slow or too fast it is not what it declares; less is a network that is slow for a while.
pub const LIVE_PACE_FACTOR: u64 = 4;

/// Media time of a live source without pictures that is reported as a gap, milliseconds, where it is
/// also three times as long as a frame was shown before it: less is a camera that slows down to a
/// picture a second where nothing moves.
pub const LIVE_HOLE_MILLIS: u64 = 1_000;

/// The same where the pictures on both sides arrived together, milliseconds: no time has passed that
/// the camera could have been slow in, so its clock stepped, or it threw pictures away.
pub const LIVE_STEP_MILLIS: u64 = 250;

/// First wait before a camera is tried again; it doubles with each failure.
pub const LIVE_RETRY_FIRST: Duration = Duration::from_millis(500);

/// Longest such wait for a camera that worked until [`LIVE_RETRY_OFTEN_FOR`] ago: most outages are
/// a reboot of camera or switch.
pub const LIVE_RETRY_CAP_AT_FIRST: Duration = Duration::from_secs(3);

/// See [`LIVE_RETRY_CAP_AT_FIRST`].
pub const LIVE_RETRY_OFTEN_FOR: Duration = Duration::from_secs(300);

/// Longest wait before a camera is tried again.
pub const LIVE_RETRY_CAP: Duration = Duration::from_secs(30);

/// A connection that showed pictures for so long counts as steady: waits begin small again.
pub const LIVE_STEADY_AFTER: Duration = Duration::from_secs(5);

/// A stream that is not found in so many attempts in a row...
pub const LIVE_NOT_FOUND_ATTEMPTS: u32 = 10;

/// ... over so long is given up.
pub const LIVE_NOT_FOUND_FOR: Duration = Duration::from_secs(600);

/// RTP packets between a camera's connection and its decode thread. At 1.4 kB each some 360 kB, at
/// the 64 kB that TCP allows 16 MB.
pub const LIVE_PACKETS_MAX: usize = 256;

/// After lost packets pictures are dropped up to the next key frame, but for no longer than this:
/// some cameras refresh their picture without ever sending one, nanoseconds of media time.
pub const LIVE_KEY_FRAME_WAIT_NANOS: i64 = 10_000_000_000;

/// Longest wait for the last pictures of a connection that ended, milliseconds.
pub const LIVE_DRAIN_MILLIS: u64 = 2_000;

/// A live source looks at its pipeline at least this often, milliseconds.
pub const LIVE_POLL_MILLIS: u64 = 250;
