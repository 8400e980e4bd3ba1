//! Every bound of the product, with its unit and its reason. Those an operator may change are
//! defaults here and keys of the configuration file; the others are constants of the protocol.

use std::time::Duration;

/// Payload of one upload chunk, bytes. Large enough to amortise HTTP/2 framing.
pub const CHUNK_MAX_BYTES: usize = 4 << 20;

/// Room for the protobuf framing around a chunk, bytes.
pub const MESSAGE_OVERHEAD_BYTES: usize = 64 << 10;

/// Largest gRPC request message, bytes: a chunk of the largest size still fits with its framing.
pub const MESSAGE_MAX_BYTES: usize = CHUNK_MAX_BYTES + MESSAGE_OVERHEAD_BYTES;

/// Frames sampled per segment (F of the method).
pub const FRAMES_PER_SEGMENT: usize = 16;

/// Length of a segment in frames under the `frames` rule.
pub const SEGMENT_FRAMES: u32 = 48;

/// Length of a segment in seconds of media time under the `seconds` rule.
pub const SEGMENT_SECONDS: f64 = 1.6;

/// Most frames one segment may hold: 1.6 s at 480 fps with room; a source with more frames per
/// segment is refused, since each keeps its stamp until the segment is final.
pub const SEGMENT_MAX_FRAMES: usize = 1024;

/// Largest width or height of a frame, pixels.
pub const FRAME_MAX_SIDE: u32 = 8192;

/// Default for the most pixels in a frame: 8K UHD (7680 × 4320).
pub const FRAME_MAX_PIXELS: u64 = 7680 * 4320;

/// Raw pictures that a stream keeps until their segment is complete, bytes. Past it a picture is
/// reduced to the model's size at once: more work per frame, but bounded memory.
pub const RAW_PICTURES_MAX_BYTES: usize = 192 << 20;

/// Longest prompt, bytes: a few sentences.
pub const PROMPT_MAX_BYTES: usize = 4096;

/// Most prompts in a profile.
pub const PROMPTS_MAX: usize = 32;

// --- rpc

/// What RESOURCE_EXHAUSTED and UNAVAILABLE advise a client to wait: about one segment on a GPU, and
/// long enough that 4096 refused clients do not load the server.
pub const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Chunks of an upload that wait for the decoder, at most: bounds the bookkeeping of 1-byte chunks,
/// whose bytes the buffer limit would hardly count.
pub const UPLOAD_QUEUE_CHUNKS: usize = 1024;

/// Small chunks are handed to the decoder together up to this size, bytes: a wake-up per byte would
/// dominate the decoding.
pub const UPLOAD_COALESCE_BYTES: usize = 64 << 10;

/// Events between a detection and its response queue: the response queue is the bound that an
/// operator sets, this one only decouples two tasks.
pub const EVENT_QUEUE: usize = 4;

/// Label of an upload, bytes: a file name (255) and a little more.
pub const UPLOAD_NAME_MAX_BYTES: usize = 256;

/// Name of a profile in a request, bytes.
pub const PROFILE_NAME_MAX_BYTES: usize = 64;

/// URI of a source in a request, bytes.
pub const URI_MAX_BYTES: usize = 2048;

/// How long an ended detection's decoder and pending forward pass may take to notice; then its slot
/// is freed regardless. A forward pass that runs is not interrupted: it belongs to the engine.
pub const WIND_DOWN: Duration = Duration::from_secs(10);

/// How often the engine's sign of life is looked at for grpc.health.v1.
pub const HEALTH_PERIOD: Duration = Duration::from_millis(250);

/// After the shutdown's grace: how long connections may take to deliver the final statuses.
pub const DRAIN: Duration = Duration::from_secs(5);

/// TCP connections at the same time; one more waits in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 4096;

/// How long a new connection may say nothing: its place is one of those above. A client speaks at
/// once; HTTP/2 pings and HTTP/1 header timeouts take over from its first byte.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(20);

/// HTTP header block of a request, bytes: gRPC metadata is small.
pub const HEADERS_MAX_BYTES: u32 = 16 << 10;

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

/// Panics of the model in a row after which the engine says that it is unhealthy.
pub const PROBE_PANICS_MAX: u32 = 3;

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
// --- model

/// Largest config.json, bytes; the longest known one has 7 kB.
pub const MODEL_CONFIG_MAX_BYTES: u64 = 1 << 20;

/// Largest model.safetensors.index.json, bytes: 100,000 tensor names with room.
pub const MODEL_INDEX_MAX_BYTES: u64 = 32 << 20;

/// Most files a sharded checkpoint may have; each is one memory map.
pub const MODEL_SHARDS_MAX: usize = 1024;

/// Most layers of a vision tower or language model; the 78B model has 80.
pub const MODEL_MAX_LAYERS: usize = 512;

/// Largest width of a model (hidden, intermediate), numbers; the 78B model has 29,568.
pub const MODEL_MAX_WIDTH: usize = 1 << 18;

/// Most attention heads of a layer; the 78B model has 64.
pub const MODEL_MAX_HEADS: usize = 1024;

/// Largest vocabulary, tokens; InternVL3 has 151,674.
pub const MODEL_MAX_VOCAB: usize = 1 << 21;

/// Longest context, tokens; InternVL3 has 32,768.
pub const MODEL_MAX_POSITIONS: usize = 1 << 17;

/// Largest side of the model's picture, pixels; InternVL3 has 448.
pub const MODEL_MAX_IMAGE_SIDE: usize = 2048;

/// Frames in one pass of the vision tower: products are already large enough to run at full speed,
/// and the widest activation (4 × 1025 × 4096 f32) stays at 67 MB.
pub const VISION_FRAMES_PER_PASS: usize = 4;

/// The same on a GPU: a whole segment, which fills it.
pub const VISION_FRAMES_PER_PASS_GPU: usize = 16;

/// Token rows in one pass of the language model: two clips of 16 frames. It bounds the hidden
/// states (118 MB in f32 at the 8B width).
pub const LANGUAGE_ROWS_PER_PASS: usize = 8704;

/// The same on a GPU: four clips of 16 frames. Hidden states take 125 MB in bf16 at the 8B width.
pub const LANGUAGE_ROWS_PER_PASS_GPU: usize = 17_408;

/// Token rows that go through a gated MLP at once, so that its two wide activations stay at
/// 78 MB each in f32 at the 8B width.
pub const MLP_ROWS_PER_PASS: usize = 1024;

/// The same on a GPU, where they can be all of a pass: 660 MB each in bf16 at the 8B width.
pub const MLP_ROWS_PER_PASS_GPU: usize = LANGUAGE_ROWS_PER_PASS_GPU;

/// Query rows of an attention tile: the scores of one tile (128 × 512 f32, 256 kB) stay in the
/// second-level cache.
pub const ATTENTION_QUERY_ROWS: usize = 128;

/// Keys of an attention tile; see [`ATTENTION_QUERY_ROWS`].
pub const ATTENTION_KEY_ROWS: usize = 512;

/// Most threads that the model computes on.
pub const MODEL_THREADS_MAX: usize = 512;

/// Most clips in one call of the model; the engine's batches are smaller.
pub const PROBE_MAX_CLIPS: usize = 256;

// --- model: hub

/// Longest wait for the hub's answer to a request for facts.
pub const HUB_REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Longest time without a byte before a download from the hub is given up; it can be resumed.
pub const HUB_STALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Most files of a hub model that are listed: real ones have under 100.
pub const HUB_FILES_MAX: usize = 10_000;

// --- model: synthesize

/// Most bytes of tensors in one file of a synthesized checkpoint, as the hub's files have it.
pub const SHARD_MAX_BYTES: u64 = 5_000_000_000;

/// Free space asked for beyond the tensors, bytes: tokenizer files and headers take about 20 MB.
pub const SYNTHESIZE_SPARE_BYTES: u64 = 64 << 20;

// --- model: fingerprint

/// Most remembered fingerprints; the oldest go first.
pub const FINGERPRINT_CACHE_ENTRIES_MAX: usize = 256;

/// Largest remembered fingerprint file, bytes: 1024 shards with long paths.
pub const FINGERPRINT_CACHE_ENTRY_MAX_BYTES: u64 = 4 << 20;

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
// --- hunt

/// Least samples of either class that a hunt can compare.
pub const HUNT_SAMPLES_MIN: usize = 2;

/// Most labelled samples of one hunt. The squared distances of all pairs are kept for their median:
/// 64 MiB a worker at this count.
pub const HUNT_SAMPLES_MAX: usize = 4096;

/// Most layers that features may have; the deepest InternVL3 has 80.
pub const HUNT_LAYERS_MAX: usize = 256;

/// Most heads per layer that features may have; the widest InternVL3 has 64.
pub const HUNT_HEADS_MAX: usize = 256;

/// Most numbers per head: a worker keeps three square matrices of this side, 24 MiB.
pub const HUNT_HEAD_DIM_MAX: usize = 1024;

/// Most numbers in the features of one hunt, 16 GiB of f32: 28 × 28 heads of 128 numbers under 10
/// prompts for 4096 samples.
pub const HUNT_FEATURES_MAX: usize = 1 << 32;

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
// --- video: live

/// A step of a camera's clock that is ahead of the time at which its packets arrive by more than
/// this is a jump, milliseconds. Bursts after a stall stay below it packet by packet.
pub const LIVE_CLOCK_AHEAD_MILLIS: u64 = 5_000;

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

// --- rtsp

/// Largest head of an RTSP message, bytes: real ones have under 2 kB.
pub const RTSP_HEAD_MAX_BYTES: usize = 16 << 10;

/// Largest body of an RTSP message, bytes. A session description has some kB.
pub const RTSP_BODY_MAX_BYTES: usize = 256 << 10;

/// Room for one read from a camera's connection, bytes: some twenty packets of video.
pub const RTSP_READ_BYTES: usize = 32 << 10;

/// Requests and reports that a camera has not taken yet, bytes. Past it reports are left out and
/// requests fail: who reads nothing of 64 kB does not listen.
pub const RTSP_UNSENT_MAX_BYTES: usize = 64 << 10;

/// Redirects that are followed for one session.
pub const RTSP_REDIRECTS_MAX: usize = 3;

/// Addresses of one name that are tried.
pub const ADDRESSES_MAX: usize = 8;

/// When a camera forgets a session without a sign of life, unless it says otherwise (RFC 2326,
/// 12.37).
pub const RTSP_SESSION_TIMEOUT: Duration = Duration::from_secs(60);

/// Shortest and longest time between signs of life. The lower one keeps a camera that claims a
/// timeout of one second from being asked all the time.
pub const RTSP_KEEPALIVE_MIN: Duration = Duration::from_secs(1);
/// See [`RTSP_KEEPALIVE_MIN`].
pub const RTSP_KEEPALIVE_MAX: Duration = Duration::from_secs(600);

/// Longest wait for a camera's farewell.
pub const RTSP_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Packets that may arrive before the answer to PLAY: half a second of a 4K camera.
pub const RTSP_EARLY_PACKETS: usize = 1024;

/// The same in bytes.
pub const RTSP_EARLY_BYTES: usize = 4 << 20;

/// What may arrive after the silence timeout without a packet of the track among it, messages or
/// datagrams. It ends a session whose peer keeps talking, just not about the video.
pub const RTSP_FRUITLESS_MAX: u32 = 4096;

/// Second look before a camera counts as silent: packets may wait in the kernel because nobody
/// asked for them.
pub const RTSP_SILENCE_RECHECK: Duration = Duration::from_millis(50);

/// Control attributes of a session description, bytes each: URIs, or their last parts.
pub const RTSP_CONTROL_MAX_BYTES: usize = URI_MAX_BYTES;

/// Largest UDP datagram, bytes, and with it the largest RTP packet.
pub const RTP_PACKET_MAX_BYTES: usize = 65_535;

/// Packets that wait for an earlier one that is missing. Networks reorder by a handful; this is
/// the burst of one picture.
pub const RTP_REORDER_PACKETS: usize = 64;

/// Longest that a packet waits for an earlier one.
pub const RTP_REORDER_WAIT: Duration = Duration::from_millis(200);

/// A step of the sequence number beyond this is a new beginning, not a loss (RFC 3550, A.1).
pub const RTP_SEQUENCE_JUMP: i64 = 3000;

/// How far two packets may lie apart that together confirm a new beginning over UDP.
pub const RTP_RESTART_SPREAD: u16 = 16;

/// Time between receiver reports: RFC 3550's minimum.
pub const RTCP_REPORT_PERIOD: Duration = Duration::from_secs(5);

/// Attempts to find two free neighbouring UDP ports.
pub const UDP_PAIR_TRIES: usize = 64;

// --- rpc: live

/// PEM certificates of a request's own authorities for a camera, bytes.
pub const TLS_AUTHORITIES_MAX_BYTES: usize = 64 << 10;

// --- web

/// Redirects that are followed for one file: a shortener, a balancer, a mirror.
pub const WEB_REDIRECTS_MAX: usize = 5;

/// Head of an answer, bytes, and with it what hyper reads ahead of the decoder.
pub const WEB_HEAD_MAX_BYTES: usize = 256 << 10;

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

// --- metrics

/// Longest name of a camera in metrics, characters; what is longer is cut.
pub const CAMERA_LABEL_MAX_CHARS: usize = 256;

/// Connections to the exporter at the same time: a few scrapers and probes.
pub const METRICS_CONNECTIONS_MAX: usize = 32;

/// How long a connection to the exporter may last: Prometheus keeps one for its scrapes, and opens
/// another where it was closed.
pub const METRICS_CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// Head of a request to the exporter, bytes.
pub const METRICS_REQUEST_MAX_BYTES: usize = 16 << 10;

/// Pause after a connection to the exporter could not be accepted: too many open files pass.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

// --- choosing K, validation

/// Largest K that a choice by cross-validation considers.
pub const AUTO_TOP_K_MAX: usize = 32;

/// Largest part of the videos that may be kept for validation: what remains has to be hunted on.
pub const VALIDATION_FRACTION_MAX: f64 = 0.9;

// --- normality

/// Most directions that a normality scorer stores beside its one variance. 64 of 640 numbers are
/// about 1 MB of the profile's file.
pub const NORMALITY_DIRECTIONS_MAX: usize = 64;

/// Most quantiles that a normality scorer stores: 1 − p in steps of 3% from 1 to 1/2000.
pub const NORMALITY_QUANTILES_MAX: usize = 256;

// --- report

/// Largest page of a report, bytes: browsers and mail still open it at once.
pub const REPORT_MAX_BYTES: usize = 8 << 20;

/// Most clips drawn in a report; anomalous ones come first.
pub const REPORT_CLIPS_MAX: usize = 24;

/// Most segments drawn of a clip: 16 minutes at 1.6 s.
pub const REPORT_CLIP_SEGMENTS_MAX: usize = 600;

/// Most warnings shown in a report's page; all are in its JSON.
pub const REPORT_WARNINGS_MAX: usize = 100;

/// Longest text of one warning, name or prompt in a report's page, characters.
pub const REPORT_TEXT_MAX_CHARS: usize = 600;

/// Cells of a report's heat map that carry their number as a title; larger maps have none.
pub const REPORT_TITLED_CELLS_MAX: usize = 8192;

// --- evaluation

/// Steps of a support vector machine's fit; some ten suffice, since each settles which samples lie
/// inside the margin.
pub const SVM_MAX_STEPS: usize = 200;

/// Most resamples of a bootstrap: 1,000 give the 95 % interval, more cost time only.
pub const BOOTSTRAP_MAX: usize = 100_000;

/// Most shards of a scoring run: more processes than any cluster gives one job.
pub const SCORING_SHARDS_MAX: usize = 10_000;

/// Largest file that says what scores were made with, bytes: the names of some hundred thousand
/// videos.
pub const SCORES_META_MAX_BYTES: u64 = 16 << 20;

/// Files and folders that are looked at for the videos of a list, at most: a mistyped `/` must not
/// walk a whole machine.
pub const VIDEO_FOLDER_ENTRIES_MAX: usize = 500_000;

/// Folders within folders in which the videos of a list are looked for; data sets have one or two.
pub const VIDEO_FOLDER_DEPTH: usize = 4;

// --- normal footage

/// Numbers of all stored directions of a normality scorer together: as text about 2 MB of the
/// profile's file. More heads leave room for fewer directions.
pub const NORMALITY_DIRECTION_NUMBERS_MAX: usize = 1 << 16;

/// Fewest held-out normal samples whose quantiles are stored: with fewer, p has no tail to speak of.
pub const NORMALITY_SAMPLES_MIN: usize = 20;

/// Most groups of videos that are held out one after another for the quantiles; up to here each
/// video is a group of its own.
pub const NORMALITY_FOLDS_MAX: usize = 20;

/// Most samples that heads are ranked by on normal footage, taken evenly: each head needs a square
/// matrix of this side, 0.5 MB.
pub const NORMAL_RANKING_SAMPLES_MAX: usize = 256;

/// Largest rate of false alarms that may be asked for, per camera and day: one a second.
pub const FALSE_ALARMS_PER_DAY_MAX: f64 = 86_400.0;

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

// --- access

/// A file with a certificate, a key, authorities or tokens, bytes: a token takes some 200.
pub const SECRET_FILE_MAX_BYTES: u64 = 1 << 20;

/// Tokens in a file: each request is compared with all of them.
pub const TOKENS_MAX: usize = 1024;

/// Name of a token, bytes.
pub const TOKEN_NAME_MAX_BYTES: usize = 64;

/// A bearer token in a request, bytes; ours have 67.
pub const TOKEN_MAX_BYTES: usize = 512;

// --- memory

/// Arenas that the allocator may have. Two cost no time that can be measured, since few threads allocate
/// at the same time, and memory that one thread freed is used again by the next.
pub const ALLOCATOR_ARENAS: i32 = 2;

/// Blocks up to this size, bytes, and as much at the end of an arena, are kept by a decoder process for the
/// next picture: the most that glibc takes.
pub const ALLOCATOR_REUSED_BYTES: i32 = 32 << 20;

/// Time between two searches for free pages that go back to the system.
pub const MEMORY_TRIM_PERIOD: Duration = Duration::from_secs(30);

// --- decoder processes

/// Frames that a decoder process gives ahead of its reader. What it decodes meanwhile is worth a wake-up
/// less for each of them; each may hold a picture in its memory.
pub const WORKER_FRAMES_AHEAD: u32 = 8;

/// The same for a file or an upload whose frames together stay within [`WORKER_FRAMES_AHEAD_BYTES`].
pub const WORKER_FRAMES_AHEAD_MAX: u32 = 32;

/// See [`WORKER_FRAMES_AHEAD_MAX`].
pub const WORKER_FRAMES_AHEAD_BYTES: usize = 16 << 20;

/// Frames decoded, and pictures made, within so long of the first of them are told together.
pub const WORKER_GATHER_TIME: Duration = Duration::from_millis(5);

/// Bytes of messages that wait for that at most, and one message.
pub const WORKER_GATHER_MAX_BYTES: usize = 16 << 10;

/// Pictures that a decoder process may be reducing, or have reduced and not yet given, for one stream.
/// Each has 602 kB of shared memory.
pub const WORKER_PICTURES_AHEAD: usize = 4;

/// The same for small pictures, which go as they are: as many as have [`WORKER_PICTURES_AHEAD_BYTES`] together.
pub const WORKER_PICTURES_AHEAD_MAX: usize = 16;

/// See [`WORKER_PICTURES_AHEAD_MAX`]; as decoded.
pub const WORKER_PICTURES_AHEAD_BYTES: usize = 2 << 20;

/// Memory that a decoder process shares with its server, bytes: [`WORKER_PICTURES_AHEAD`] pictures of up to
/// 1024 × 1024 pixels, or [`WORKER_PICTURES_AHEAD_MAX`] of the model's. Larger ones go another way.
pub const WORKER_SHARED_BYTES: u64 = WORKER_PICTURES_AHEAD as u64 * (3 << 20);

/// Events of one frame at most: a gap before it, what was opened, itself, and the end.
pub const WORKER_EVENTS_PER_FRAME: u32 = 4;

/// Largest header of a message between a server and its decoder process, bytes: masks are the longest.
pub const WORKER_HEADER_MAX_BYTES: usize = 1 << 20;

/// The same of a message from the process.
pub const WORKER_ANSWER_MAX_BYTES: usize = 64 << 10;

/// Longest text of a decoder process that is passed on, bytes.
pub const WORKER_TEXT_MAX_BYTES: usize = 2000;

/// What is read at its end of what a decoder process printed, bytes: as much as a pipe holds.
pub const WORKER_LAST_WORDS_BYTES: usize = 64 << 10;

/// Log lines of a decoder process in [`WORKER_LOG_PERIOD`], of warnings and errors as many again; more are dropped.
pub const WORKER_LOG_LINES: u32 = 20;

/// See [`WORKER_LOG_LINES`].
pub const WORKER_LOG_PERIOD: Duration = Duration::from_secs(60);

/// Signs of life and log lines of a decoder process in a second; one that sends more is stopped. An orderly
/// one sends two and what [`WORKER_LOG_LINES`] lets through; a server that stood still finds some 300 in the socket.
pub const WORKER_IDLE_TALK: u32 = 1000;

/// Longest wait for a picture of a decoder process, where the stall time of its input is not shorter.
pub const WORKER_PICTURE_WAIT: Duration = Duration::from_secs(30);

/// Packets of a camera are written to its decoder process in pieces of so many bytes.
pub const WORKER_PACKETS_BYTES: usize = 64 << 10;

/// A decoder process that takes nothing for so long is taken for hung.
pub const WORKER_WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a decoder process gets beyond the stall time of its input before it is taken for hung: a fault
/// that it finds itself has the better message.
pub const WORKER_GRACE: Duration = Duration::from_secs(2);

/// Between two signs of life of a decoder process that waits for input.
pub const WORKER_ALIVE_PERIOD: Duration = Duration::from_millis(500);

/// How long a decoder process that has hung up may take to end, so that its end can be named.
pub const WORKER_END_WAIT: Duration = Duration::from_secs(1);

/// Longest start of a decoder process: GStreamer looks at all of its plugins where it has no list of them.
pub const WORKER_START_MAX: Duration = Duration::from_secs(60);

/// A start that takes longer is told: the list of plugins cannot be written.
pub const WORKER_START_SLOW: Duration = Duration::from_secs(1);

/// Longest wait for a process of the fork server, which takes a millisecond.
pub const WORKER_FORK_MAX: Duration = Duration::from_secs(10);

/// How long there is no fork server after one was lost or could not be started; decoder processes are started one by one.
pub const FORK_SERVER_RETRY: Duration = Duration::from_secs(60);

/// CPU time that a decoder process may use without an event, seconds; then the kernel ends it.
pub const WORKER_CPU_SECONDS: u64 = 600;

/// Between two renewals of it while frames come.
pub const WORKER_CPU_RENEWAL: Duration = Duration::from_secs(10);

/// Files that a decoder process may have open.
pub const WORKER_FILES: u64 = 256;

/// Largest file that a decoder process may write where its spool is smaller, bytes: shared pictures count.
pub const WORKER_FILE_BYTES: u64 = 64 << 20;

/// Address space of a decoder process by default, bytes. A frame of 8K takes 50 MB, and a decoder keeps
/// up to 17 of them for reference.
pub const WORKER_MEMORY_BYTES: u64 = 4 << 30;

/// Least address space with which a decoder process starts, bytes: libraries, threads' stacks.
pub const WORKER_MEMORY_MIN_BYTES: u64 = 1 << 30;

// --- traces

/// Default for the spans that may wait for the collector: 7 a segment, so a minute of twenty busy cameras.
/// Some 700 bytes each.
pub const TRACE_QUEUE_SPANS: usize = 8192;

/// Fewest and most that an operator may set for the above: the spans of one segment fit into the one, the
/// other takes some 200 MB.
pub const TRACE_QUEUE_MIN_SPANS: usize = 64;
/// See [`TRACE_QUEUE_MIN_SPANS`].
pub const TRACE_QUEUE_MAX_SPANS: usize = 1 << 18;

/// Spans of one export: some 300 KB on the wire, where collectors take 4 MiB.
pub const TRACE_BATCH_SPANS: usize = 512;

/// Longest wait of a span for a batch to fill.
pub const TRACE_BATCH_WAIT: Duration = Duration::from_secs(1);

/// How often a batch is sent before it is given up.
pub const TRACE_ATTEMPTS: u32 = 3;

/// Wait before the second attempt; it doubles with each. The queue takes what comes meanwhile.
pub const TRACE_RETRY_WAIT: Duration = Duration::from_secs(1);

/// Longest wait at the shutdown for the collector to take what still waits.
pub const TRACE_FLUSH: Duration = Duration::from_secs(3);

/// Stages that are kept of one segment: a batch of 64 that fails is halved six times and then taken apart.
pub const TRACE_STAGES_MAX: usize = 16;

/// `tracestate` of a caller, bytes: what the standard says must be passed on at least.
pub const TRACE_STATE_MAX_BYTES: usize = 512;

/// Error message in a span, bytes.
pub const TRACE_MESSAGE_MAX_BYTES: usize = 1024;

/// Metadata lines in `traces.headers_file`.
pub const TRACE_HEADERS_MAX: usize = 32;
