use super::*;
use crate::{
    hunt::Features,
    media::MediaTime,
    pipeline::samples::{Sample, SampleSet},
    score::locate::SegmentSpan,
};

const LAYERS: usize = 3;
const HEADS: usize = 2;
const DIM: usize = 4;
const HIDDEN: usize = 5;
const SEGMENTS: u64 = 6;

fn info() -> ProbeInfo {
    ProbeInfo {
        name: "made".into(),
        device: "cpu".into(),
        dtype: "f32".into(),
        layers: LAYERS,
        heads: HEADS,
        head_dim: DIM,
        resident_layers: LAYERS,
        image_side: 8,
        resizes: false,
    }
}

fn options(prompts: usize) -> AblateOptions {
    AblateOptions {
        prompts: (0..prompts).map(|i| format!("prompt {i}")).collect(),
        question: "well?".into(),
        hunt: HuntOptions {
            top_k: 1,
            lambda: 0.5,
        },
        fit: FitOptions::default(),
        seed: 3,
        bootstrap: 200,
        edge: Edge::Renormalize,
    }
}

/// A number in −0.5..0.5.
fn noise(seed: u64) -> f32 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 32;
    (x >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
}

fn video(name: &str, anomaly: bool) -> LabelledVideo {
    LabelledVideo {
        path: name.into(),
        name: name.into(),
        anomaly,
        anomalous: if anomaly { vec![(96, 240)] } else { Vec::new() },
        intervals_known: true,
    }
}

/// Videos of six segments; anomalous ones are anomalous in segments 2 to 4. Head (1, 1), the hidden
/// state after layer 2 and the answer tell; everything else is noise.
fn part(videos: usize, prompts: usize, seed: u64) -> Part {
    let videos: Vec<LabelledVideo> = (0..videos)
        .map(|v| LabelledVideo {
            path: format!("part {seed}/v{v}").into(),
            ..video(&format!("v{v}"), v % 2 == 0)
        })
        .collect();
    let mut samples = Vec::new();
    for (number, video) in videos.iter().enumerate() {
        for s in 0..SEGMENTS {
            samples.push(Sample {
                name: format!("{} {s}", video.name),
                video: number,
                anomaly: video.anomaly && (2..5).contains(&s),
                span: Some(SegmentSpan {
                    first_frame: 48 * s,
                    last_frame: 48 * s + 47,
                    start: MediaTime::from_nanos(s as i64 * 1_600_000_000),
                    end: MediaTime::from_nanos((s as i64 + 1) * 1_600_000_000),
                    run: 0,
                }),
            });
        }
    }
    let mut data = Vec::new();
    let mut at = seed << 32;
    for _ in 0..prompts {
        for sample in &samples {
            for head in 0..LAYERS * HEADS {
                for _ in 0..DIM {
                    at += 1;
                    let tells = head == HEADS + 1 && sample.anomaly;
                    data.push(noise(at) + if tells { 3.0 } else { 0.0 });
                }
            }
        }
    }
    let hidden = samples
        .iter()
        .map(|sample| {
            (0..LAYERS * HIDDEN)
                .map(|i| {
                    at += 1;
                    let tells = i / HIDDEN == 2 && sample.anomaly;
                    noise(at) + if tells { 2.0 } else { 0.0 }
                })
                .collect()
        })
        .collect();
    let yes = samples
        .iter()
        .map(|sample| if sample.anomaly { 0.6 } else { 0.4 })
        .collect();
    Part {
        set: SampleSet {
            features: Features {
                prompts,
                samples: samples.len(),
                layers: LAYERS,
                heads: HEADS,
                head_dim: DIM,
                data,
            },
            samples,
        },
        videos,
        hidden,
        yes,
    }
}

fn run(prompts: usize) -> Ablation {
    ablate(
        &part(8, prompts, 1),
        &part(6, prompts, 2),
        &info(),
        &options(prompts),
        &CancellationToken::new(),
        &|_, _| (),
    )
    .unwrap()
}

#[test]
fn every_row_has_its_figures_and_what_tells_ranks_high() {
    let ablation = run(2);
    let keys: Vec<&str> = ablation.rows.iter().map(|row| row.key).collect();
    assert_eq!(
        keys,
        [
            "full",
            "whole_layers",
            "best_layer",
            "random_heads",
            "single_prompt",
            "no_smoothing",
            "threshold_half",
            "mlp",
            "svm",
            "text"
        ]
    );
    assert_eq!(ablation.heads, [[1, 1].into()]);
    assert_eq!(
        (ablation.test_frames, ablation.test_positives),
        (6 * 288, 3 * 144)
    );
    let row = |key: &str| ablation.rows.iter().find(|row| row.key == key).unwrap();
    for row in &ablation.rows {
        assert_eq!(row.missing, None, "{}", row.key);
        let auc = row.roc_auc.unwrap();
        let (low, high) = auc.interval.unwrap();
        assert!(low <= auc.value && auc.value <= high, "{}", row.key);
        assert_eq!(auc.deviation.is_some(), row.key == "random_heads");
        assert_eq!(
            row.f1.is_some(),
            ["full", "no_smoothing", "threshold_half"].contains(&row.key)
        );
        assert_eq!(
            row.paper.is_none(),
            ["best_layer", "text"].contains(&row.key)
        );
    }
    for key in ["full", "best_layer", "no_smoothing", "mlp", "svm", "text"] {
        let auc = row(key).roc_auc.unwrap().value;
        assert!(auc > 0.95, "{key} {auc}");
    }
    // One head of six tells.
    let random = row("random_heads").roc_auc.unwrap();
    assert!(random.value < 0.9 && random.deviation.unwrap() > 0.05);
    assert!(row("best_layer").note.as_ref().unwrap().contains("layer 2"));
    assert!(
        row("whole_layers")
            .note
            .as_ref()
            .unwrap()
            .contains("24 numbers")
    );
    assert_eq!(row("threshold_half").threshold, Some(0.5));
    assert_eq!(row("no_smoothing").roc_auc.unwrap().value, 1.0);
}

#[test]
fn it_repeats_and_prints_what_it_found_beside_the_paper() {
    let ablation = run(1);
    assert_eq!(ablation, run(1));
    let table = ablation.table();
    assert!(table.contains("87.03   82.63"), "{table}");
    assert!(table.contains("66.65   45.33"), "{table}");
    assert!(table.contains("the paper's: InternVL3-8B"), "{table}");
    assert!(
        table.contains("single prompt: one prompt was given, so this is the full method"),
        "{table}"
    );
    let json: serde_json::Value = serde_json::from_str(&ablation.json().unwrap()).unwrap();
    let full = ablation.rows[0].roc_auc.unwrap().value;
    assert_eq!(json["rows"][0]["roc_auc"]["value"], full);
    assert_eq!(json["rows"][7]["paper"]["ucf_crime_roc_auc"], 0.8725);
}

#[test]
fn a_row_that_cannot_be_had_says_why_and_the_others_stay() {
    let (train, mut test) = (part(8, 1, 1), part(6, 1, 2));
    test.yes[3] = f64::NAN;
    test.hidden[2].clear();
    let options = options(1);
    let none = CancellationToken::new();
    let ablation = ablate(&train, &test, &info(), &options, &none, &|_, _| ()).unwrap();
    let missing: Vec<&str> = ablation
        .rows
        .iter()
        .filter(|row| row.missing.is_some())
        .map(|row| row.key)
        .collect();
    assert_eq!(missing, ["best_layer", "text"]);
    assert!(
        ablation
            .rows
            .iter()
            .all(|row| row.missing.is_none() || row.roc_auc.is_none())
    );
    let table = ablation.table();
    assert!(
        table.contains("missing: text answer Yes or No: the probability"),
        "{table}"
    );
    none.cancel();
    let error = ablate(&train, &test, &info(), &options, &none, &|_, _| ()).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Cancelled);
}

#[test]
fn test_videos_without_intervals_are_left_out_by_name() {
    let (train, mut test) = (part(8, 1, 1), part(6, 1, 2));
    test.videos[4].intervals_known = false;
    for sample in test.set.samples.iter_mut().filter(|s| s.video == 4) {
        sample.span = None;
    }
    let options = options(1);
    let token = CancellationToken::new();
    let ablation = ablate(&train, &test, &info(), &options, &token, &|_, _| ()).unwrap();
    assert_eq!((ablation.test.videos, ablation.test_frames), (5, 5 * 288));
    assert!(ablation.warnings.iter().any(|w| w.contains("v4")));
    for sample in &mut test.set.samples {
        sample.span = None;
    }
    let error = ablate(&train, &test, &info(), &options, &token, &|_, _| ()).unwrap_err();
    assert!(error.to_string().contains("give test clips with intervals"));
}

#[test]
fn what_can_be_told_before_the_work_is_told_before_it() {
    let (train, test) = (part(8, 1, 1).videos, part(6, 1, 2).videos);
    let good = options(1);
    assert!(good.check(&info(), &train, &test).is_ok());
    let field = |change: fn(&mut AblateOptions)| {
        let mut options = options(1);
        change(&mut options);
        let error = options.check(&info(), &train, &test).unwrap_err();
        error.field().unwrap_or_default().to_owned()
    };
    assert_eq!(field(|o| o.hunt.top_k = 7), "top_k");
    assert_eq!(field(|o| o.hunt.lambda = f64::NAN), "lambda");
    assert_eq!(field(|o| o.fit.c = 0.0), "c");
    assert_eq!(field(|o| o.bootstrap = 1 << 30), "bootstrap");
    let message = |train: &[LabelledVideo], test: &[LabelledVideo]| {
        good.check(&info(), train, test).unwrap_err().to_string()
    };
    assert!(message(&train[..2], &test).starts_with("1 training videos are anomalous"));
    assert!(message(&train, &[video("n", false)]).contains("no test video has annotated"));
}

#[test]
fn a_split_takes_its_part_of_each_class_and_follows_the_seed() {
    let videos = |n: usize| -> Vec<LabelledVideo> {
        (0..n).map(|i| video(&format!("v{i}"), i < n / 3)).collect()
    };
    let names =
        |part: &[LabelledVideo]| -> Vec<String> { part.iter().map(|v| v.name.clone()).collect() };
    let (train, test) = split(videos(30), 0.3, 1).unwrap();
    assert_eq!((train.len(), test.len()), (21, 9));
    assert_eq!(test.iter().filter(|v| v.anomaly).count(), 3);
    let mut all = names(&train);
    all.extend(names(&test));
    all.sort();
    let mut expected = names(&videos(30));
    expected.sort();
    assert_eq!(all, expected);
    assert_eq!(names(&split(videos(30), 0.3, 1).unwrap().1), names(&test));
    assert_ne!(names(&split(videos(30), 0.3, 2).unwrap().1), names(&test));
    // At least one on each side.
    let (train, test) = split(videos(6), 0.01, 1).unwrap();
    assert_eq!((train.len(), test.len()), (4, 2));
    let (train, _) = split(videos(6), 0.99, 1).unwrap();
    assert_eq!(train.len(), 2);
    for fraction in [0.0, 1.0, f64::NAN] {
        assert!(split(videos(6), fraction, 1).is_err());
    }
    assert!(split(videos(3), 0.5, 1).is_err());
}
