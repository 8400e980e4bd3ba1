//! A CUDA GPU that others have filled: batches are halved, and what can be answered is. In a process of its own, since
//! it takes all of the GPU's memory. Where this build or this machine has no GPU the test says so and does nothing else.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use candle_core::{DType, Tensor};
use headhunt::{
    engine::{
        Engine, EngineConfig, EngineHandle, Job, Lane,
        probe::{Clip, HeadProbe, PassTimes, ProbeInfo},
    },
    error::{Kind, Result},
    head::{HeadFeatures, HeadId, HeadSelection},
    media::{SharedImage, rgb_bytes},
    model::{
        DeviceSpec, InternVl, LoadOptions, Precision,
        device::Place,
        prompt::DEFAULT_PROMPTS,
        synthesize::{Dtype, Layout, Preset, Synthesis},
    },
};
use tokio_util::sync::CancellationToken;

const CLIPS: usize = 8;
const PIECE_BYTES: usize = 64 << 20;
const SIDE: u32 = 448;

/// Clips of each pass, and the kind of its failure.
type Log = Arc<Mutex<Vec<(usize, Option<Kind>)>>>;

/// A model that notes down its passes.
struct Noted(InternVl, Log);

impl HeadProbe for Noted {
    fn info(&self) -> &ProbeInfo {
        self.0.info()
    }

    fn probe(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
    ) -> Result<Vec<HeadFeatures>> {
        Ok(self.probe_timed(clips, prompts, heads)?.0)
    }

    fn probe_timed(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
    ) -> Result<(Vec<HeadFeatures>, Option<PassTimes>)> {
        let passed = self.0.probe_timed(clips, prompts, heads);
        let failed = passed.as_ref().err().map(|e| e.kind());
        self.1.lock().unwrap().push((clips.len(), failed));
        passed
    }

    fn fingerprint(&self, layers: usize) -> Result<String> {
        self.0.fingerprint(layers)
    }
}

fn job(seed: usize) -> Job {
    let picture = |number: usize| SharedImage {
        width: SIDE,
        height: SIDE,
        data: (0..rgb_bytes((SIDE, SIDE)))
            .map(|i| ((i / 5 + 31 * number + 997 * seed).wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect(),
    };
    Job {
        clip: Clip {
            frames: (0..16).map(picture).collect(),
        },
        prompts: vec![DEFAULT_PROMPTS[0].to_owned()].into(),
        heads: HeadSelection::Only((0..14).map(|head| HeadId { layer: 1, head }).collect()),
        lane: Lane::Live,
        stream: seed as u64,
        deadline: None,
        cancel: CancellationToken::new(),
        stages: None,
    }
}

/// Several at once, so that they can share a pass.
async fn answers(engine: &EngineHandle, jobs: &[Job]) -> Vec<Result<HeadFeatures>> {
    let mut tickets = Vec::new();
    for job in jobs {
        tickets.push(engine.submit(job.clone()).await.unwrap());
    }
    let mut answers = Vec::new();
    for ticket in tickets {
        answers.push(ticket.await);
    }
    answers
}

/// As far as other tiles of the same products round alike.
fn alike(a: &[f32], b: &[f32]) -> bool {
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let apart = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    apart <= 5e-3_f64.powi(2) * norm(&mut b.iter().copied())
}

#[tokio::test]
async fn batches_that_find_no_memory_are_halved_until_they_do() {
    let place = match Place::open(DeviceSpec::Cuda(0), Precision::Auto) {
        Ok(place) => place,
        Err(e) => return println!("skipped: no device ({e:#})"),
    };
    let dir = tempfile::tempdir().unwrap();
    Synthesis {
        preset: "1b".parse::<Preset>().unwrap(),
        seed: 5,
        layout: Layout::Hf,
        dtype: Dtype::Bf16,
        shard_max_bytes: 4 << 30,
        progress: &mut |_, _| {},
    }
    .write(dir.path())
    .unwrap();
    let options = LoadOptions {
        device: DeviceSpec::Cuda(0),
        resident_layers: Some(2),
        ..LoadOptions::default()
    };
    let log = Log::default();
    let model = Noted(InternVl::load(dir.path(), &options).unwrap(), log.clone());
    let config = EngineConfig {
        max_batch: CLIPS,
        batch_wait: Duration::from_secs(1),
        ..EngineConfig::default()
    };
    let engine = Engine::start(Box::new(model), config).unwrap();
    let handle = engine.handle();
    handle.ready().await.unwrap();
    let jobs: Vec<Job> = (0..CLIPS).map(job).collect();
    let mut expected = Vec::new();
    for job in &jobs {
        expected.extend(answers(&handle, std::slice::from_ref(job)).await);
    }
    let expected: Vec<HeadFeatures> = expected.into_iter().map(Result::unwrap).collect();

    // All that is left, in pieces; then so many are given back that a single clip can pass.
    let piece = || Tensor::zeros(PIECE_BYTES, DType::U8, &place.device);
    let mut pieces = Vec::new();
    while let Ok(piece) = piece() {
        pieces.push(piece);
        // Lazily made ones would be found out too late.
        if place.device.synchronize().is_err() {
            break;
        }
    }
    let held = pieces.len();
    let lack = loop {
        match answers(&handle, &jobs[..1]).await.remove(0) {
            Ok(_) => break held - pieces.len(),
            Err(e) => assert_eq!(e.kind(), Kind::ResourceExhausted, "{e:#}"),
        }
        assert!(
            pieces.pop().is_some(),
            "no single clip passes with all memory back"
        );
        place.device.synchronize().unwrap();
    };
    println!("{held} pieces of 64 MiB held; a single clip passes with {lack} of them back");

    log.lock().unwrap().clear();
    let halved = answers(&handle, &jobs).await;
    let passes = std::mem::take(&mut *log.lock().unwrap());
    println!("passes (clips, failure): {passes:?}");
    let lacked = |pass: &(usize, Option<Kind>)| pass.1 == Some(Kind::ResourceExhausted);
    assert!(
        passes.iter().any(lacked),
        "a batch found memory that was taken"
    );
    for (answer, expected) in halved.into_iter().zip(&expected) {
        let answer = answer.unwrap();
        assert!(alike(&answer.data, &expected.data));
    }

    // What did not fit is not tried again at once.
    for answer in answers(&handle, &jobs).await {
        answer.unwrap();
    }
    let passes = std::mem::take(&mut *log.lock().unwrap());
    println!("and again: {passes:?}");
    assert!(!passes.iter().any(lacked), "{passes:?}");

    // With memory back, so are batches.
    drop(pieces);
    place.device.synchronize().unwrap();
    for (answer, expected) in answers(&handle, &jobs).await.into_iter().zip(&expected) {
        assert!(alike(&answer.unwrap().data, &expected.data));
    }
    println!("at the end: {:?}", log.lock().unwrap());
    engine.shutdown().unwrap();
}
