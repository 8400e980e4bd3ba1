//! Every bound of the product, with its unit and its reason. Those an operator may change are
//! defaults here and keys of the configuration file; the others are constants of the protocol.

mod decoders;
mod eval;
mod hunt;
mod model;
mod pipeline;
mod rpc;
mod rtsp;
mod store;
mod telemetry;
mod video;

pub use decoders::*;
pub use eval::*;
pub use hunt::*;
pub use model::*;
pub use pipeline::*;
pub use rpc::*;
pub use rtsp::*;
pub use store::*;
pub use telemetry::*;
pub use video::*;

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
