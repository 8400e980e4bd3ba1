//! Decoder processes, as metrics.

use metrics::{counter, describe_counter, describe_gauge, gauge};

const RUNNING: &str = "headhunt_decoder_processes";
const LOST: &str = "headhunt_decoder_processes_lost_total";

pub(super) fn describe() {
    describe_gauge!(RUNNING, "Decoder processes that run");
    describe_counter!(
        LOST,
        "Decoder processes that crashed, hung, were killed or broke their protocol"
    );
    gauge!(RUNNING).set(0.0);
    counter!(LOST).increment(0);
}

/// A decoder process runs, until this is dropped.
#[derive(Debug)]
pub struct Running(());

impl Running {
    /// It begins.
    pub fn begin() -> Self {
        gauge!(RUNNING).increment(1.0);
        Running(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        gauge!(RUNNING).decrement(1.0);
    }
}

/// A decoder process ended before its time.
pub fn lost() {
    counter!(LOST).increment(1);
}
