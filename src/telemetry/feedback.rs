//! What is counted of feedback.

use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::metrics::Label;

/// Verdicts that were stored, by `verdict`.
pub const FEEDBACK: &str = "headhunt_feedback_total";
/// Segments that verdicts spoke of, by whether their features were `stored` or `missing`.
pub const SEGMENTS: &str = "headhunt_feedback_segments_total";
/// Samples in the store.
pub const SAMPLES: &str = "headhunt_feedback_samples";
/// Samples that gave way to newer ones.
pub const DROPPED: &str = "headhunt_feedback_samples_dropped_total";
/// Samples of other heads, prompts or models than were asked for last.
pub const UNUSABLE: &str = "headhunt_feedback_samples_unusable";
/// Files of the store that cannot be read.
pub const DAMAGED: &str = "headhunt_feedback_files_damaged";
/// Confirmed events in parts of those with a verdict, by `profile`.
pub const PRECISION: &str = "headhunt_feedback_precision_ratio";

/// Names what this file counts, for `/metrics`.
pub(super) fn describe() {
    describe_counter!(FEEDBACK, "Verdicts that were stored, by verdict");
    describe_counter!(
        SEGMENTS,
        "Segments that verdicts spoke of, by whether their features were still there"
    );
    describe_gauge!(SAMPLES, "Samples in the feedback store");
    describe_counter!(
        DROPPED,
        "Samples of the feedback store that gave way to newer ones"
    );
    describe_gauge!(
        UNUSABLE,
        "Samples of other heads, prompts or models than a calibration asked for last"
    );
    counter!(DROPPED).increment(0);
    for features in ["stored", "missing"] {
        counter!(SEGMENTS, "features" => features).increment(0);
    }
    describe_gauge!(DAMAGED, "Files of the feedback store that cannot be read");
    describe_gauge!(
        PRECISION,
        "Confirmed events in parts of those with a verdict, newest version, by profile"
    );
}

/// A verdict was stored, with the features of so many segments and without those of others.
pub fn reported(verdict: impl Label, stored: usize, missing: usize) {
    fn name<L: Label>(_: L) -> &'static str {
        L::NAME
    }
    counter!(FEEDBACK, name(verdict) => verdict.value()).increment(1);
    counter!(SEGMENTS, "features" => "stored").increment(stored as u64);
    counter!(SEGMENTS, "features" => "missing").increment(missing as u64);
}

/// The store holds so many samples now.
pub fn samples(n: usize) {
    gauge!(SAMPLES).set(n as f64);
}

/// So many samples gave way to newer ones.
pub fn dropped(n: usize) {
    counter!(DROPPED).increment(n as u64);
}

/// So many samples do not belong to what was asked for.
pub fn unusable(n: usize) {
    gauge!(UNUSABLE).set(n as f64);
}

/// So many files of the store cannot be read.
pub fn damaged(n: usize) {
    gauge!(DAMAGED).set(n as f64);
}

/// A profile's estimated precision, 0..1. The caller bounds the number of names.
pub fn precision(profile: &str, ratio: f64) {
    gauge!(PRECISION, "profile" => profile.to_owned()).set(ratio);
}
