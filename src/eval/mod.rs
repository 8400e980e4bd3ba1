//! EVAL: data set annotations and frame-level metrics; pure.
