//! Of evaluations and reports.

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
