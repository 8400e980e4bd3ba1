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
