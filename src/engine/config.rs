//! How the engine queues, batches and stops.

use std::time::Duration;

use crate::{
    error::{Error, Result},
    head::{HeadId, HeadSelection},
    limits,
};

use super::{Lane, probe::ProbeInfo};

/// How the engine queues, batches and stops.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Segments that may wait, over all lanes; at least 3. Half of it is the live lane's, a
    /// quarter each the others', so that no lane can fill another's room.
    pub queue_capacity: usize,
    /// Most clips in one pass.
    pub max_batch: usize,
    /// How long a pass waits for more clips while its batch is not full.
    pub batch_wait: Duration,
    /// Longest that a segment may wait, for room and in the queue together.
    pub max_queue_wait: Duration,
    /// Time without a heartbeat after which the engine counts as stalled (ten measured passes,
    /// where that is longer).
    pub stall_after: Duration,
    /// How often a model that failed every pass lately, and is not sent anything any more, is given one to show
    /// whether it works again.
    pub check_every: Duration,
    /// On shutdown, how long waiting segments may still be run before the rest is refused.
    pub drain: Duration,
    /// On shutdown, longest wait for the pass in progress after `drain`.
    pub join_timeout: Duration,
    /// Whether a warm-up pass runs first. A server wants one before it says that it is ready; a
    /// command that has its first segment at hand does not.
    pub warm_up: bool,
    /// Prompts of the warm-up pass.
    pub warm_up_prompts: Vec<String>,
    /// Heads of the warm-up pass; `None`: one head of the deepest resident layer.
    pub warm_up_heads: Option<HeadSelection>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            queue_capacity: limits::QUEUE_CAPACITY_SEGMENTS,
            max_batch: 1,
            batch_wait: Duration::ZERO,
            max_queue_wait: limits::QUEUE_WAIT_MAX,
            stall_after: limits::ENGINE_STALL,
            check_every: limits::PROBE_CHECK_PERIOD,
            drain: Duration::ZERO,
            join_timeout: limits::ENGINE_JOIN_TIMEOUT,
            warm_up: true,
            warm_up_prompts: vec!["Identify any abnormal events in this video.".into()],
            warm_up_heads: None,
        }
    }
}

impl EngineConfig {
    /// The defaults for a model: batches on a GPU, single clips on a CPU.
    pub fn for_device(device: &str) -> Self {
        EngineConfig {
            max_batch: if device == "cpu" {
                1
            } else {
                limits::BATCH_CLIPS_GPU
            },
            ..EngineConfig::default()
        }
    }

    /// Refuses values that cannot work, by name.
    pub fn validate(&self) -> Result<()> {
        if !(3..=limits::QUEUE_CAPACITY_MAX_SEGMENTS).contains(&self.queue_capacity) {
            return Err(Error::invalid(format!(
                "queue_capacity is {}: it must be 3 to {} segments",
                self.queue_capacity,
                limits::QUEUE_CAPACITY_MAX_SEGMENTS
            )));
        }
        if !(1..=limits::BATCH_CLIPS_MAX).contains(&self.max_batch) {
            return Err(Error::invalid(format!(
                "max_batch is {}: it must be 1 to {} clips",
                self.max_batch,
                limits::BATCH_CLIPS_MAX
            )));
        }
        if self.max_queue_wait.is_zero() {
            return Err(Error::invalid(
                "max_queue_wait is 0: no segment could ever wait",
            ));
        }
        Ok(())
    }

    /// Segments that may wait in `lane`.
    pub fn lane_capacity(&self, lane: Lane) -> usize {
        let quarter = (self.queue_capacity / 4).max(1);
        match lane {
            Lane::Live => self.queue_capacity - 2 * quarter,
            Lane::Upload | Lane::Offline => quarter,
        }
    }

    pub(super) fn warm_up_selection(&self, info: &ProbeInfo) -> HeadSelection {
        self.warm_up_heads.clone().unwrap_or_else(|| {
            HeadSelection::Only(vec![HeadId {
                layer: info.resident_layers.saturating_sub(1),
                head: 0,
            }])
        })
    }
}
