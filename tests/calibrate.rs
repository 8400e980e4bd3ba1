//! Calibration on made-up features: what is fitted on what, and what the report says of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

use headhunt::{
    engine::probe::ProbeInfo,
    error::{Error, Kind},
    hunt::{
        self, Features, HuntOptions,
        calibrate::{CalibrationVideo, calibrate_locator},
        folds::out_of_fold,
        split,
    },
    media::MediaTime,
    pipeline::{
        calibrate::{
            CalibrateOptions, CalibrateStage, Calibration, NormalOptions, RefitSample, calibrate,
            calibrate_normal, cut_normal_clips, hunt_heads, refit,
        },
        labelled::LabelledVideo,
        samples::{Sample, SampleSet},
    },
    profile::{Edge, Profile},
    score::{
        Scorer,
        locate::{SegmentSpan, locate},
        logistic::{FitOptions, Logistic},
    },
    segment::SegmentRule,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio_util::sync::CancellationToken;

const SHAPE: [usize; 3] = [4, 3, 8];
const FINGERPRINT: &str = "abababababababababababababababababababababababababababababababab";

fn info() -> ProbeInfo {
    ProbeInfo {
        name: "made up".into(),
        device: "cpu".into(),
        dtype: "f32".into(),
        layers: SHAPE[0],
        heads: SHAPE[1],
        head_dim: SHAPE[2],
        resident_layers: SHAPE[0],
        image_side: 28,
        resizes: false,
    }
}

fn options() -> CalibrateOptions {
    CalibrateOptions {
        name: "site".into(),
        prompts: vec!["odd?".into(), "anything <odd> here?".into()],
        rule: SegmentRule::Frames(48),
        frames_per_segment: 16,
        hunt: HuntOptions {
            top_k: 3,
            lambda: 0.5,
        },
        auto_top_k: false,
        validation_fraction: 0.0,
        fit: FitOptions::default(),
        seed: 5,
        edge: Edge::Renormalize,
    }
}

fn span(segment: u64) -> SegmentSpan {
    SegmentSpan {
        first_frame: 48 * segment,
        last_frame: 48 * segment + 47,
        start: MediaTime::from_nanos(segment as i64 * 1_600_000_000),
        end: MediaTime::from_nanos((segment as i64 + 1) * 1_600_000_000),
        run: 0,
    }
}

/// `videos` of ten segments, every other one with an anomaly in segments 3 to 5, which heads 4 and 9
/// see.
fn set(videos: usize, shift: f32) -> (SampleSet, Vec<LabelledVideo>) {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let labelled: Vec<LabelledVideo> = (0..videos)
        .map(|i| LabelledVideo {
            path: format!("/clips/{i}.mp4").into(),
            name: format!("<b>clip</b> {i}"),
            anomaly: i % 2 == 0,
            anomalous: if i % 2 == 0 {
                vec![(144, 288)]
            } else {
                Vec::new()
            },
            intervals_known: true,
        })
        .collect();
    let samples: Vec<Sample> = (0..videos * 10)
        .map(|i| Sample {
            name: format!("clip {} from frame {}", i / 10, i % 10 * 48),
            video: i / 10,
            anomaly: i / 10 % 2 == 0 && (3..6).contains(&(i % 10)),
            span: Some(span(i as u64 % 10)),
        })
        .collect();
    let numbers = SHAPE.iter().product::<usize>();
    let mut data = Vec::new();
    for _ in 0..2 {
        for sample in &samples {
            for at in 0..numbers {
                let seen = sample.anomaly && [4, 9].contains(&(at / SHAPE[2]));
                let noise = rng.random::<f32>() - rng.random::<f32>();
                data.push(noise + if seen { shift } else { 0.0 });
            }
        }
    }
    let features = Features {
        prompts: 2,
        samples: samples.len(),
        layers: SHAPE[0],
        heads: SHAPE[1],
        head_dim: SHAPE[2],
        data,
    };
    (SampleSet { samples, features }, labelled)
}

fn run(
    set: &SampleSet,
    videos: &[LabelledVideo],
    options: &CalibrateOptions,
) -> Result<Calibration, Error> {
    calibrate(
        set,
        videos,
        &info(),
        |_| Ok(FINGERPRINT.into()),
        options,
        &CancellationToken::new(),
        &|_, _, _| (),
    )
}

fn weights(profile: &Profile) -> Vec<u64> {
    let params = profile.scorer.logistic().unwrap();
    let numbers = params.weights.iter().chain([&params.intercept]);
    numbers.map(|w| w.to_bits()).collect()
}

fn bits(scorer: &Logistic) -> Vec<u64> {
    let numbers = scorer.weights.iter().chain([&scorer.intercept]);
    numbers.map(|w| w.to_bits()).collect()
}

/// The videos of some samples with their p.
fn validation(
    set: &SampleSet,
    videos: &[LabelledVideo],
    p: &[(usize, f64)],
) -> Vec<CalibrationVideo> {
    let mut found: Vec<CalibrationVideo> = videos
        .iter()
        .map(|v| CalibrationVideo {
            name: v.name.clone(),
            spans: Vec::new(),
            p: Vec::new(),
            truth: v.anomalous.clone(),
            has_intervals: true,
        })
        .collect();
    for &(i, p) in p {
        let video = &mut found[set.samples[i].video];
        video.spans.push(set.samples[i].span.unwrap());
        video.p.push(p);
    }
    found.retain(|v| !v.spans.is_empty());
    found
}

/// Without a split and without a choice of K the profile is, to the bit, what the pieces give: hunt on
/// all, fit on all, locate out of fold. Its notes have no new key.
#[test]
fn plain_calibration_stays_what_it_was() {
    let (set, videos) = set(12, 0.5);
    let options = options();
    let found = run(&set, &videos, &options).unwrap();
    let profile = &found.profile;
    let labels = set.labels();
    let hunted = hunt::hunt(&set.features, &labels, None, &options.hunt, &|_, _| ()).unwrap();
    assert_eq!(found.hunt, Some(hunted.clone()));
    assert_eq!(profile.heads, hunted.expert_heads);
    let rows = set.gather(0, &profile.heads).unwrap();
    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let scorer = Logistic::fit(&rows, &labels, &options.fit).unwrap();
    assert_eq!(weights(profile), bits(&scorer));
    let groups: Vec<usize> = set.samples.iter().map(|s| s.video).collect();
    let p = out_of_fold(&rows, &labels, &groups, options.seed, &options.fit).unwrap();
    let p: Vec<(usize, f64)> = p.into_iter().enumerate().collect();
    let locator = calibrate_locator(&validation(&set, &videos, &p), options.edge).unwrap();
    assert_eq!(
        (profile.locator.sigma, profile.locator.threshold),
        (locator.sigma, locator.threshold)
    );
    assert_eq!(profile.schema, 1);
    let keys: Vec<&str> = profile.notes.keys().map(String::as_str).collect();
    let mut before = [
        "videos",
        "samples",
        "anomalous_samples",
        "lambda",
        "c",
        "penalize_intercept",
        "seed",
        "expert_head_rss",
        "validation_frame_f1",
        "warnings",
    ];
    let mut keys_sorted = keys.clone();
    keys_sorted.sort_unstable();
    before.sort_unstable();
    assert_eq!(keys_sorted, before);
    profile.validate().unwrap();
}

#[test]
fn kept_videos_are_unseen_by_hunt_and_fit_and_decide_the_locator() {
    let (set, videos) = set(12, 0.5);
    let mut options = options();
    options.validation_fraction = 0.34;
    let found = run(&set, &videos, &options).unwrap();
    let groups: Vec<usize> = set.samples.iter().map(|s| s.video).collect();
    let kept = split::validation(&set.labels(), &groups, 0.34, options.seed).unwrap();
    assert_eq!(kept.iter().filter(|k| **k).count(), 40, "4 of 12 videos");

    // The same on a set that holds the training samples alone.
    let training: Vec<usize> = (0..kept.len()).filter(|i| !kept[*i]).collect();
    let len = SHAPE.iter().product::<usize>();
    let mut data = Vec::new();
    for prompt in 0..2 {
        for &i in &training {
            let at = (prompt * kept.len() + i) * len;
            data.extend_from_slice(&set.features.data[at..at + len]);
        }
    }
    let alone = SampleSet {
        samples: training.iter().map(|&i| set.samples[i].clone()).collect(),
        features: Features {
            samples: training.len(),
            data,
            ..set.features.clone()
        },
    };
    let labels = alone.labels();
    let hunted = hunt::hunt(&alone.features, &labels, None, &options.hunt, &|_, _| ()).unwrap();
    assert_eq!(found.hunt, Some(hunted.clone()));
    let z = alone.gather(0, &hunted.expert_heads).unwrap();
    let z: Vec<&[f32]> = z.iter().map(Vec::as_slice).collect();
    let scorer = Logistic::fit(&z, &labels, &options.fit).unwrap();
    assert_eq!(weights(&found.profile), bits(&scorer));
    let all = set.gather(0, &hunted.expert_heads).unwrap();
    let p: Vec<(usize, f64)> = (0..kept.len())
        .filter(|i| kept[*i])
        .map(|i| (i, scorer.probability(&all[i]).unwrap()))
        .collect();
    let locator = calibrate_locator(&validation(&set, &videos, &p), options.edge).unwrap();
    assert_eq!(found.locator, Some(locator));
    assert_eq!(found.report.samples.validation, 40);
    let held = found.report.held_out.as_ref().unwrap();
    assert_eq!((held.samples, found.report.clips.len()), (40, 4));
    assert!(held.how.contains("kept"), "{}", held.how);
    assert_eq!(found.profile.notes["validation_fraction"], 0.34);
}

#[test]
fn k_is_chosen_on_folds_and_the_report_shows_the_curve() {
    let (set, videos) = set(12, 1.2);
    let mut options = options();
    options.auto_top_k = true;
    let found = run(&set, &videos, &options).unwrap();
    let choice = found.report.top_k.as_ref().unwrap();
    assert_eq!(choice.curve.len(), 12, "as many as there are heads");
    assert_eq!(found.profile.heads.len(), choice.k);
    assert!(choice.k <= 3, "two heads see it: {:?}", choice.curve);
    assert_eq!(
        found.hunt.as_ref().unwrap().expert_heads,
        found.profile.heads
    );
    assert_eq!(found.profile.notes["auto_top_k"], true);
    let hunted = hunt_heads(
        &set,
        &videos,
        &info(),
        &options,
        &CancellationToken::new(),
        &|_, _, _| (),
    )
    .unwrap();
    assert_eq!(Some(hunted.hunt), found.hunt);
    assert_eq!(hunted.report.top_k, found.report.top_k);
    assert!(hunted.report.held_out.is_none());
}

fn refit_samples(set: &SampleSet, profile: &Profile) -> Vec<RefitSample> {
    set.gather(0, &profile.heads)
        .unwrap()
        .into_iter()
        .zip(&set.samples)
        .map(|(z, sample)| RefitSample {
            name: sample.name.clone(),
            z,
            anomaly: sample.anomaly,
            group: sample.video,
            span: sample.span,
        })
        .collect()
}

#[test]
fn a_refit_on_the_same_samples_is_the_calibration_again() {
    let (set, videos) = set(12, 0.5);
    for fraction in [0.0, 0.34] {
        let mut options = options();
        options.validation_fraction = fraction;
        let found = run(&set, &videos, &options).unwrap();
        let samples = refit_samples(&set, &found.profile);
        let cancel = CancellationToken::new();
        let again = refit(
            &found.profile,
            &samples,
            &videos,
            &options,
            &cancel,
            &|_, _, _| (),
        )
        .unwrap();
        assert_eq!(weights(&again.profile), weights(&found.profile));
        assert_eq!(Some(again.locator), found.locator);
        assert_eq!(again.profile.locator, found.profile.locator);
        assert_eq!(again.profile.heads, found.profile.heads);
        assert_eq!(again.report.held_out, found.report.held_out);
        assert_eq!(again.report.clips, found.report.clips);
        assert_eq!(
            again.profile.notes["refit_of"],
            found.profile.checksum().unwrap().as_str()
        );
        again.profile.validate().unwrap();
    }
}

#[test]
fn feedback_is_fitted_to_and_stays_out_of_the_grid() {
    let (set, videos) = set(12, 0.5);
    let mut options = options();
    let found = run(&set, &videos, &options).unwrap();
    let mut samples = refit_samples(&set, &found.profile);
    let normal = samples.iter().position(|s| !s.anomaly).unwrap();
    for i in 0..6 {
        // Normal segments that are said to be anomalous, which moves every weight.
        samples.push(RefitSample {
            name: format!("feedback {i}"),
            anomaly: true,
            group: videos.len() + i,
            ..samples[normal + i].clone()
        });
    }
    let cancel = CancellationToken::new();
    let again = |options: &CalibrateOptions, samples: &[RefitSample]| {
        refit(
            &found.profile,
            samples,
            &videos,
            options,
            &cancel,
            &|_, _, _| (),
        )
    };
    let with = again(&options, &samples).unwrap();
    assert_ne!(weights(&with.profile), weights(&found.profile));
    assert_eq!(with.report.samples.feedback, 6);
    assert_eq!(with.profile.notes["feedback_samples"], 6);
    assert_eq!(with.report.clips.len(), videos.len());
    // The grid has the frames of the videos alone: its surface is that of their out-of-fold p.
    let rows: Vec<&[f32]> = samples.iter().map(|s| s.z.as_slice()).collect();
    let labels: Vec<bool> = samples.iter().map(|s| s.anomaly).collect();
    let groups: Vec<usize> = samples.iter().map(|s| s.group).collect();
    let p = out_of_fold(&rows, &labels, &groups, options.seed, &options.fit).unwrap();
    let p: Vec<(usize, f64)> = p.into_iter().enumerate().take(set.samples.len()).collect();
    let locator = calibrate_locator(&validation(&set, &videos, &p), options.edge).unwrap();
    assert_eq!(with.locator, locator);
    // Kept for validation: videos only.
    options.validation_fraction = 0.34;
    let split = again(&options, &samples).unwrap();
    assert_eq!(split.report.held_out.unwrap().samples, 40);

    samples[2].z.pop();
    let error = again(&options, &samples).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert!(error.message().contains(&samples[2].name), "{error}");
    samples[2].z.push(f32::NAN);
    assert!(
        again(&options, &samples)
            .unwrap_err()
            .message()
            .contains("NaN")
    );
}

#[test]
fn the_page_is_whole_escaped_and_without_strangers() {
    let (set, videos) = set(40, 0.5);
    let mut options = options();
    options.auto_top_k = true;
    let mut found = run(&set, &videos, &options).unwrap();
    found
        .report
        .warnings
        .push("<script>alert(1)</script>".into());
    let page = found.report.html().unwrap();
    for heading in [
        "Expert heads",
        "Robust score of every head",
        "Spread over prompts",
        "How many heads",
        "Scores of held-out samples",
        "ROC and precision",
        "Is p a probability",
        "Smoothing and threshold",
        "Held-out clips over time",
        "16 more clips are not drawn",
        "Options",
        "anything &lt;odd&gt; here?",
        "&lt;script&gt;alert(1)",
        "&lt;b&gt;clip",
    ] {
        assert!(page.contains(heading), "{heading}");
    }
    for stranger in [
        "<script", "http", "NaN", "inf\"", "<b>clip", "url(", "@import",
    ] {
        assert!(!page.contains(stranger), "{stranger}");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    // One frame per expert head, one shaded stretch per anomalous clip drawn.
    assert_eq!(
        page.matches("class=\"chosen\"").count(),
        found.profile.heads.len()
    );
    assert_eq!(page.matches("class=\"truth\"").count(), 20);
    assert_eq!(found.report.clips[0].truth, [(4.8, 9.6)]);
    assert!(page.len() < 1 << 20, "{}", page.len());
    let json: serde_json::Value = serde_json::from_str(&found.report.json().unwrap()).unwrap();
    assert_eq!(
        json["ranking"]["metrics"][0]["values"]
            .as_array()
            .unwrap()
            .len(),
        24
    );
    assert_eq!(
        json["locator"]["surface"].as_array().unwrap().len(),
        11 * 81
    );
    assert_eq!(json["held_out"]["samples"], 400);
}

#[test]
fn it_ends_when_cancelled_and_tells_its_stages() {
    let (set, videos) = set(12, 0.5);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let fingerprint = |_| Ok(FINGERPRINT.into());
    let ended = calibrate(
        &set,
        &videos,
        &info(),
        fingerprint,
        &options(),
        &cancel,
        &|_, _, _| (),
    );
    assert_eq!(ended.unwrap_err().kind(), Kind::Cancelled);

    let stages = std::sync::Mutex::new(Vec::new());
    let mut options = options();
    options.auto_top_k = true;
    let cancel = CancellationToken::new();
    calibrate(
        &set,
        &videos,
        &info(),
        fingerprint,
        &options,
        &cancel,
        &|stage, done, total| {
            assert!(done <= total);
            if done == total {
                stages.lock().unwrap().push(stage);
            }
        },
    )
    .unwrap();
    assert_eq!(
        *stages.lock().unwrap(),
        [
            CalibrateStage::Hunt,
            CalibrateStage::ChooseK,
            CalibrateStage::Fit,
            CalibrateStage::Locate,
            CalibrateStage::Report
        ]
    );
    assert_eq!(CalibrateStage::ChooseK.as_str(), "choose-k");
}

#[test]
fn what_cannot_work_is_said_before_extraction() {
    let (_, videos) = set(4, 0.5);
    let says = |change: &dyn Fn(&mut CalibrateOptions), videos: &[LabelledVideo], words: &str| {
        let mut options = options();
        change(&mut options);
        let error = options.check(&info(), videos).unwrap_err();
        assert!(error.message().contains(words), "{error}");
        error.field().map(str::to_owned)
    };
    assert_eq!(
        says(&|o| o.hunt.top_k = 13, &videos, "12 heads").unwrap(),
        "top_k"
    );
    assert_eq!(
        says(&|o| o.hunt.lambda = -1.0, &videos, "lambda").unwrap(),
        "lambda"
    );
    assert_eq!(says(&|o| o.fit.c = 0.0, &videos, "C is 0").unwrap(), "c");
    let field = says(&|o| o.validation_fraction = 0.95, &videos, "0 to 0.9");
    assert_eq!(field.unwrap(), "validation_fraction");
    says(&|_| (), &videos[1..2], "--normal-only");
    says(
        &|_| (),
        &videos[..2],
        "1 of 2 clips can have anomalous samples",
    );
    let mut auto = options();
    (auto.auto_top_k, auto.hunt.top_k) = (true, 0);
    auto.check(&info(), &videos).unwrap();

    // Few videos: no part can have both classes.
    let (mut small, videos) = set(3, 0.5);
    for sample in &mut small.samples {
        sample.anomaly = sample.video == 0;
    }
    let mut options = options();
    options.validation_fraction = 0.5;
    let error = run(&small, &videos, &options).unwrap_err();
    assert_eq!(error.field(), Some("validation_fraction"));
    // A NaN is named by its sample.
    let (mut set, videos) = set(12, 0.5);
    set.features.data[5] = f32::NAN;
    let error = run(&set, &videos, &options).unwrap_err();
    assert!(error.message().contains("clip 0 from frame 0"), "{error}");
}

#[test]
fn the_profile_scores_what_its_scorer_scores() {
    let (set, videos) = set(12, 0.5);
    let found = run(&set, &videos, &options()).unwrap();
    let z = set.gather(0, &found.profile.heads).unwrap();
    let scorer = Scorer::from(&found.profile);
    let Scorer::Logistic(logistic) = &scorer else {
        panic!("not a logistic scorer")
    };
    for z in &z {
        assert_eq!(
            scorer.probability(z).unwrap(),
            logistic.probability(z).unwrap()
        );
    }
}

fn normal_options(rate: f64, accept: bool) -> NormalOptions {
    NormalOptions {
        calibrate: options(),
        false_alarms_per_day: rate,
        accept_upper_bound: accept,
    }
}

fn run_normal(
    set: &SampleSet,
    videos: &[LabelledVideo],
    options: &NormalOptions,
) -> Result<Calibration, Error> {
    calibrate_normal(
        set,
        videos,
        &info(),
        |_| Ok(FINGERPRINT.into()),
        options,
        &CancellationToken::new(),
        &|_, _, _| (),
    )
}

/// The normal clips of a set alone.
fn normal_only(videos: usize) -> (SampleSet, Vec<LabelledVideo>) {
    let (mut set, mut videos) = set(videos, 0.0);
    for sample in &mut set.samples {
        sample.anomaly = false;
    }
    for video in &mut videos {
        (video.anomaly, video.anomalous) = (false, Vec::new());
    }
    (set, videos)
}

#[test]
fn normal_footage_alone_gives_a_profile_of_schema_2_that_keeps_its_rate() {
    let (set, videos) = normal_only(30);
    // 300 segments of 1.6 s: 480 s, which show 540 false alarms a day at best.
    let found = run_normal(&set, &videos, &normal_options(1800.0, false)).unwrap();
    let profile = &found.profile;
    assert_eq!(profile.schema, 2);
    profile.validate().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.json");
    profile.save(&path).unwrap();
    assert_eq!(&Profile::load(&path).unwrap(), profile);
    assert!(found.hunt.is_none() && found.locator.is_none());
    let rate = found.normal.as_ref().unwrap().rate;
    assert!(
        rate.target_shown && rate.upper_bound_per_day <= 1800.0,
        "{rate:?}"
    );
    assert!((rate.days * 86_400.0 - 480.0).abs() < 1e-6);
    // The held-out p is uniform, and the events at the threshold are the locator's.
    let held = found.report.held_out.as_ref().unwrap();
    assert!(
        held.histogram_normal.iter().all(|n| (10..=20).contains(n)),
        "{held:?}"
    );
    let mut events = 0;
    let clips = &found.report.clips;
    assert_eq!(found.report.clips_left_out, 30 - clips.len());
    for clip in clips {
        let spans: Vec<SegmentSpan> = (0..clip.segments.len() as u64).map(span).collect();
        let p: Vec<f64> = clip.segments.iter().map(|s| s[2]).collect();
        events += locate(&spans, &p, &profile.locator, 1.6)
            .unwrap()
            .events
            .len();
    }
    assert!(events <= rate.events, "{events} of {}", rate.events);
    let page = found.report.html().unwrap();
    for words in [
        "False alarms on normal footage",
        "structure",
        "steadiness",
        "quantile",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("NaN") && !page.contains("ROC and precision"));
}

#[test]
fn too_little_normal_footage_is_refused_or_bounded() {
    let (set, videos) = normal_only(12);
    let error = run_normal(&set, &videos, &normal_options(1.0, false)).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert_eq!(error.field(), Some("normal_only.accept_upper_bound"));
    let found = run_normal(&set, &videos, &normal_options(1.0, true)).unwrap();
    let rate = found.normal.as_ref().unwrap().rate;
    assert_eq!((rate.events, rate.target_shown), (0, false));
    // 192 s of footage without an event: at most 3 in 192 s.
    assert!((rate.upper_bound_per_day - 1350.0).abs() < 1e-6);
    assert!(
        found
            .warnings
            .iter()
            .any(|w| w.contains("at most 1350 a day"))
    );
    let highest = found
        .report
        .clips
        .iter()
        .flat_map(|clip| clip.segments.iter().map(|s| s[3]))
        .fold(0.0, f64::max);
    assert_eq!(found.profile.locator.threshold, highest);

    let refused = |change: &dyn Fn(&mut NormalOptions), videos: &[LabelledVideo]| {
        let mut options = normal_options(1800.0, true);
        change(&mut options);
        run_normal(&set, videos, &options)
            .unwrap_err()
            .field()
            .map(str::to_owned)
    };
    let mut wide = info();
    wide.head_dim = 400;
    let error = normal_options(1800.0, true)
        .check(&wide, &videos)
        .unwrap_err();
    assert!(error.message().contains("1 to 2"), "{error}");
    assert_eq!(
        refused(&|o| o.calibrate.auto_top_k = true, &videos).unwrap(),
        "auto_top_k"
    );
    let field = refused(&|o| o.calibrate.validation_fraction = 0.2, &videos);
    assert_eq!(field.unwrap(), "validation_fraction");
    let field = refused(&|o| o.false_alarms_per_day = 0.0, &videos);
    assert_eq!(field.unwrap(), "normal_only.false_alarms_per_day");
    refused(&|_| (), &videos[..1]);
    let mut whole = set.clone();
    whole.samples.iter_mut().for_each(|s| s.span = None);
    let error = run_normal(&whole, &videos, &normal_options(1800.0, true)).unwrap_err();
    assert_eq!(error.field(), Some("sampling_unit"));
}

#[test]
fn anomalous_clips_are_scored_and_not_fitted_to() {
    let (set, videos) = set(24, 4.0);
    let found = run_normal(&set, &videos, &normal_options(1800.0, true)).unwrap();
    let keep: Vec<usize> = (0..24).filter(|v| !videos[*v].anomaly).collect();
    let len = SHAPE.iter().product::<usize>();
    let normal: Vec<usize> = (0..240)
        .filter(|&i| keep.contains(&set.samples[i].video))
        .collect();
    let alone = SampleSet {
        samples: normal
            .iter()
            .map(|&i| Sample {
                video: keep
                    .iter()
                    .position(|v| *v == set.samples[i].video)
                    .unwrap(),
                ..set.samples[i].clone()
            })
            .collect(),
        features: Features {
            samples: normal.len(),
            data: (0..2)
                .flat_map(|prompt| normal.iter().map(move |i| (prompt * 240 + i) * len))
                .flat_map(|at| set.features.data[at..at + len].to_vec())
                .collect(),
            ..set.features.clone()
        },
    };
    let clips: Vec<LabelledVideo> = keep.iter().map(|&v| videos[v].clone()).collect();
    let without = run_normal(&alone, &clips, &normal_options(1800.0, true)).unwrap();
    assert_eq!(found.profile.heads, without.profile.heads);
    assert_eq!(found.profile.scorer, without.profile.scorer);
    assert_eq!(found.profile.locator, without.profile.locator);
    let held = found.report.held_out.unwrap();
    assert_eq!((held.samples, held.anomalous), (240, 36));
    assert!(held.roc_auc.is_some() && without.report.held_out.unwrap().roc_auc.is_none());
}

#[test]
fn the_few_shot_report_stands_beside_normal_footage_alone() {
    for fraction in [0.0, 0.34] {
        let (set, videos) = set(24, 0.5);
        let mut options = options();
        options.validation_fraction = fraction;
        // All heads, so that the two that see it are among them.
        options.hunt.top_k = 12;
        let found = run(&set, &videos, &options).unwrap();
        let [few_shot, normal] = found.report.comparison.as_slice() else {
            panic!("{:?}", found.report.comparison)
        };
        let held = found.report.held_out.as_ref().unwrap();
        assert_eq!(Some(few_shot.roc_auc), held.roc_auc);
        assert_eq!(Some(few_shot.average_precision), held.average_precision);
        assert!(
            normal.roc_auc > 0.6 && normal.roc_auc < few_shot.roc_auc,
            "{normal:?}"
        );
        assert!(found.report.html().unwrap().contains("normal footage only"));
        // What it says is not in the profile.
        assert!(!found.profile.notes.contains_key("comparison"));
    }
}

#[test]
fn normal_clips_are_cut_into_segments() {
    let (_, mut videos) = set(2, 0.5);
    videos.iter_mut().for_each(|v| v.intervals_known = false);
    cut_normal_clips(&mut videos);
    assert_eq!(
        [videos[0].intervals_known, videos[1].intervals_known],
        [false, true]
    );
}
