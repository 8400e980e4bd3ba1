//! A model whose features follow from the pictures, and which a test can hold and let go.

use std::sync::{
    Arc, Condvar, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use headhunt::{
    engine::probe::{Clip, HeadProbe, ProbeInfo},
    error::Result,
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
}

/// The test's hand on the model.
#[derive(Default)]
pub struct Control {
    held: Mutex<bool>,
    changed: Condvar,
    entered: AtomicUsize,
    passed: AtomicUsize,
}

impl Control {
    /// Stops the model at its next pass.
    pub fn hold(&self) {
        *self.held.lock().unwrap() = true;
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
            },
            control,
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
        self.control.entered.fetch_add(1, SeqCst);
        let mut held = self.control.held.lock().unwrap();
        while *held {
            held = self.control.changed.wait(held).unwrap();
        }
        drop(held);
        let heads = heads.resolve(self.info.layers, self.info.heads).len();
        let features = clips
            .iter()
            .map(|clip| {
                let (sum, n) = clip
                    .frames
                    .iter()
                    .flat_map(|frame| frame.iter())
                    .fold((0u64, 0u64), |(sum, n), byte| {
                        (sum + u64::from(*byte), n + 1)
                    });
                let brightness = sum as f32 / n as f32 / 255.0;
                HeadFeatures {
                    prompts: prompts.len(),
                    heads,
                    head_dim: HEAD_DIM,
                    data: vec![brightness; prompts.len() * heads * HEAD_DIM],
                }
            })
            .collect();
        self.control.passed.fetch_add(clips.len(), SeqCst);
        Ok(features)
    }

    fn fingerprint(&self, layers: usize) -> Result<String> {
        Ok(fingerprint(layers))
    }
}
