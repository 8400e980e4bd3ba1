//! Of checkpoints and forward passes.

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
