//! Of hunting and calibrating.

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
