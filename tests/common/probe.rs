//! A model whose features follow from the pictures, and which a test can hold and let go.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

use headhunt::{
    engine::probe::{Clip, HeadProbe, PassTimes, ProbeInfo},
    error::{Error, Result},
    head::{HeadFeatures, HeadId, HeadSelection},
};

/// Width and height of the pictures, pixels.
pub const SIDE: usize = 8;

/// Heads of the test's profiles.
pub const HEADS: [HeadId; 2] = [HeadId { layer: 0, head: 1 }, HeadId { layer: 2, head: 0 }];

/// Numbers per head.
pub const HEAD_DIM: usize = 4;

/// Every number of every feature is the clip's mean brightness, 0..1.
pub struct BrightnessProbe {
    info: ProbeInfo,
    control: Arc<Control>,
    /// Heads differ, and so do prompts: for hunting.
    varied: bool,
    /// Of the weights; see [`fingerprint`].
    seed: usize,
}

/// The test's hand on the model.
#[derive(Default)]
pub struct Control {
    held: Mutex<bool>,
    changed: Condvar,
    /// Passes before it holds, where it counts.
    left: AtomicUsize,
    counting: AtomicBool,
    failing: AtomicBool,
    entered: AtomicUsize,
    passed: AtomicUsize,
}

impl Control {
    /// Stops the model at its next pass.
    pub fn hold(&self) {
        *self.held.lock().unwrap() = true;
    }

    /// Stops the model at the pass after so many more.
    pub fn hold_after(&self, passes: usize) {
        self.left.store(passes, SeqCst);
        self.counting.store(true, SeqCst);
    }

    /// Every pass from now on fails.
    pub fn fail(&self) {
        self.failing.store(true, SeqCst);
    }

    /// Lets it go on.
    pub fn let_go(&self) {
        *self.held.lock().unwrap() = false;
        self.changed.notify_all();
    }

    /// Passes that began.
    pub fn entered(&self) -> usize {
        self.entered.load(SeqCst)
    }

    /// Clips that were passed, warm-up included.
    pub fn passed(&self) -> usize {
        self.passed.load(SeqCst)
    }
}

impl BrightnessProbe {
    pub fn new(control: Arc<Control>) -> Self {
        BrightnessProbe {
            info: ProbeInfo {
                name: "brightness".into(),
                device: "cpu".into(),
                dtype: "f32".into(),
                layers: 4,
                heads: 2,
                head_dim: HEAD_DIM,
                resident_layers: 3,
                image_side: SIDE,
                resizes: false,
            },
            control,
            varied: false,
            seed: 0,
        }
    }

    /// With all layers resident and heads that differ; [`HEADS`] tell brightness, the others less of
    /// it under noise.
    pub fn whole(control: Arc<Control>) -> Self {
        let mut probe = BrightnessProbe::new(control);
        probe.info.resident_layers = probe.info.layers;
        probe.varied = true;
        probe
    }

    /// The same of another checkpoint.
    pub fn other(control: Arc<Control>) -> Self {
        BrightnessProbe {
            seed: 1000,
            ..BrightnessProbe::whole(control)
        }
    }

    fn number(&self, brightness: f32, prompt: usize, id: HeadId, i: usize) -> f32 {
        if !self.varied {
            return brightness;
        }
        let noise = |scale: f32| {
            let seed = (brightness * 255.0) as usize * 13 + id.layer * 31 + id.head * 57;
            let mixed = (seed + i * 17 + prompt * 7) * 2_654_435_761;
            scale * ((mixed >> 7) % 1000) as f32 / 1000.0
        };
        if HEADS.contains(&id) {
            brightness + noise(0.01)
        } else {
            0.1 * brightness + noise(0.5)
        }
    }
}

/// The fingerprint that the probe gives.
pub fn fingerprint(layers: usize) -> String {
    format!("{layers:064x}")
}

impl HeadProbe for BrightnessProbe {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn probe(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
    ) -> Result<Vec<HeadFeatures>> {
        if self.control.counting.load(SeqCst)
            && self
                .control
                .left
                .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
                .is_err()
        {
            self.control.counting.store(false, SeqCst);
            self.control.hold();
        }
        self.control.entered.fetch_add(1, SeqCst);
        let mut held = self.control.held.lock().unwrap();
        while *held {
            held = self.control.changed.wait(held).unwrap();
        }
        drop(held);
        if self.control.failing.load(SeqCst) {
            return Err(Error::data_loss("a weight is no number"));
        }
        let heads = heads.resolve(self.info.layers, self.info.heads);
        let features = clips
            .iter()
            .map(|clip| {
                let (sum, n) = clip
                    .frames
                    .iter()
                    .flat_map(|frame| frame.data.iter())
                    .fold((0u64, 0u64), |(sum, n), byte| {
                        (sum + u64::from(*byte), n + 1)
                    });
                let brightness = sum as f32 / n as f32 / 255.0;
                HeadFeatures {
                    prompts: prompts.len(),
                    heads: heads.len(),
                    head_dim: HEAD_DIM,
                    data: (0..prompts.len())
                        .flat_map(|prompt| heads.iter().map(move |id| (prompt, *id)))
                        .flat_map(|(prompt, id)| (0..HEAD_DIM).map(move |i| (prompt, id, i)))
                        .map(|(prompt, id, i)| self.number(brightness, prompt, id, i))
                        .collect(),
                }
            })
            .collect();
        self.control.passed.fetch_add(clips.len(), SeqCst);
        Ok(features)
    }

    fn probe_timed(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
    ) -> Result<(Vec<HeadFeatures>, Option<PassTimes>)> {
        let began = Instant::now();
        let features = self.probe(clips, prompts, heads)?;
        let half = began.elapsed() / 2;
        let times = PassTimes {
            vision: half,
            language: half,
        };
        Ok((features, Some(times)))
    }

    fn fingerprint(&self, layers: usize) -> Result<String> {
        Ok(fingerprint(layers + self.seed))
    }
}
