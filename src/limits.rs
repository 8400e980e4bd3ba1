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

// --- hunt

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
