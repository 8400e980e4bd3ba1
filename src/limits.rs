//! Every bound of the product, with its unit and its reason. Those an operator may change are
//! defaults here and keys of the configuration file; the others are constants of the protocol.

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
