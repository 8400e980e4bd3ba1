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

/// Token rows in one pass of the language model: two clips of 16 frames. It bounds the hidden
/// states (118 MB in f32 at the 8B width).
pub const LANGUAGE_ROWS_PER_PASS: usize = 8704;

/// Token rows that go through a gated MLP at once, so that its two wide activations stay at
/// 78 MB each in f32 at the 8B width.
pub const MLP_ROWS_PER_PASS: usize = 1024;

/// Query rows of an attention tile: the scores of one tile (128 × 512 f32, 256 kB) stay in the
/// second-level cache.
pub const ATTENTION_QUERY_ROWS: usize = 128;

/// Keys of an attention tile; see [`ATTENTION_QUERY_ROWS`].
pub const ATTENTION_KEY_ROWS: usize = 512;

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

// --- inputs

/// Resize tables kept for the next frame: two per resolution of the running streams. A table
/// takes 0.15 MB for 1080p and at most 0.8 MB (8191 to 8192 pixels).
pub const RESIZE_TABLES_MAX: usize = 32;

/// Largest file of a tokenizer, bytes: Qwen2.5's tokenizer.json has 7 MB.
pub const TOKENIZER_FILE_MAX_BYTES: u64 = 64 << 20;

/// Longest prompt with its image tokens, tokens: up to here InternVL3's dynamic RoPE scaling
/// changes nothing. 16 frames need about 4,300.
pub const SEQUENCE_MAX_TOKENS: usize = 32_768;
