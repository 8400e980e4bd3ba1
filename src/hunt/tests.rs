//! Behaviour of a hunt on awkward input; agreement with the reference is in tests/golden_hunt.rs.

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::error::Kind;

const QUIET: &(dyn Fn(usize, usize) + Sync) = &|_, _| ();

/// Random features; the later the head the further apart its classes. Labels alternate.
fn random(shape: [usize; 5], seed: u64) -> (Features, Vec<bool>) {
    let [prompts, samples, layers, heads, head_dim] = shape;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut data = Vec::with_capacity(shape.iter().product());
    for _ in 0..prompts {
        for sample in 0..samples {
            for head in 0..layers * heads {
                let shift = if sample % 2 == 0 {
                    0.1 * head as f32
                } else {
                    0.0
                };
                data.extend((0..head_dim).map(|_| rng.random::<f32>() - 0.5 + shift));
            }
        }
    }
    let features = Features {
        prompts,
        samples,
        layers,
        heads,
        head_dim,
        data,
    };
    (features, (0..samples).map(|i| i % 2 == 0).collect())
}

fn run(features: &Features, labels: &[bool]) -> HuntResult {
    hunt(
        features,
        labels,
        None,
        &HuntOptions {
            top_k: 3,
            lambda: 0.5,
        },
        QUIET,
    )
    .unwrap()
}

/// Runs of the numbers of one head, in sample order, prompt by prompt.
fn head_mut(features: &mut Features, head: usize) -> impl Iterator<Item = &mut [f32]> {
    let (d, step) = (features.head_dim, features.sample_len());
    features
        .data
        .chunks_exact_mut(step)
        .map(move |sample| &mut sample[head * d..(head + 1) * d])
}

fn assert_near(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (g - w).abs() <= tolerance * w.abs().max(1e-12),
            "[{i}]: {g}, wanted {w}"
        );
    }
}

fn error_of(features: &Features, labels: &[bool], options: &HuntOptions) -> Error {
    hunt(features, labels, None, options, QUIET).unwrap_err()
}

#[test]
fn separated_heads_win() {
    let (features, labels) = random([2, 40, 2, 3, 8], 1);
    let result = run(&features, &labels);
    let ids: Vec<[usize; 2]> = result.expert_heads.into_iter().map(Into::into).collect();
    assert_eq!(ids, [[1, 2], [1, 1], [1, 0]]);
}

#[test]
fn head_with_constant_features_tells_nothing() {
    let (mut features, labels) = random([1, 30, 1, 4, 8], 2);
    head_mut(&mut features, 3).for_each(|x| x.fill(0.3));
    head_mut(&mut features, 2).for_each(|x| x[5] = 7.0);
    let result = run(&features, &labels);
    assert_eq!(
        [
            result.lda[3],
            result.mmd[3],
            result.nmi[3],
            result.saliency[3]
        ],
        [0.0; 4]
    );
    assert!(result.kl[3] < 1e-6, "{}", result.kl[3]);
    // One constant component changes nothing but the count of components.
    assert!(result.lda[2] > 0.1 && result.kl[2] > 0.1);
}

#[test]
fn constant_everywhere_is_all_zeros_and_says_so() {
    let (mut features, labels) = random([2, 10, 1, 4, 3], 3);
    features.data.fill(1.5);
    let result = run(&features, &labels);
    assert_eq!(result.rss, [0.0; 4]);
    let ids: Vec<[usize; 2]> = result.expert_heads.into_iter().map(Into::into).collect();
    assert_eq!(ids, [[0, 0], [0, 1], [0, 2]]);
    assert_eq!(
        result
            .notes
            .iter()
            .filter(|n| n.contains("same for all heads"))
            .count(),
        8
    );
}

#[test]
fn duplicates_within_and_across_classes() {
    let (mut features, labels) = random([1, 24, 1, 4, 6], 4);
    let step = features.sample_len();
    // Samples 1, 3, 5 (normal) and 2 (anomalous) equal sample 0 (anomalous).
    for copy in [1, 2, 3, 5] {
        features.data.copy_within(..step, copy * step);
    }
    let result = run(&features, &labels);
    // The median skips pairs at distance zero: computed here from its definition.
    for head in 0..4 {
        let rows: Vec<Vec<f64>> = features
            .data
            .chunks_exact(step)
            .map(|s| s[head * 6..][..6].iter().map(|&x| f64::from(x)).collect())
            .collect();
        let distance = |i: usize, j: usize| -> f64 {
            rows[i]
                .iter()
                .zip(&rows[j])
                .map(|(a, b)| (a - b) * (a - b))
                .sum()
        };
        let mut positive: Vec<f64> = (0..24)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| distance(i, j))
            .filter(|&d| d > 0.0)
            .collect();
        assert_eq!(positive.len(), 24 * 23 / 2 - 10);
        positive.sort_by(f64::total_cmp);
        let m = positive.len();
        let gamma = 1.0 / (positive[(m - 1) / 2] + positive[m / 2]);
        let mut want = 0.0;
        for (i, j) in (0..24).flat_map(|i| (0..24).map(move |j| (i, j))) {
            let sign = if labels[i] == labels[j] { 1.0 } else { -1.0 };
            want += sign * (-gamma * distance(i, j)).exp() / 144.0;
        }
        assert_near(&[result.mmd[head]], &[want], 1e-10);
    }
}

#[test]
fn badly_scaled_features_keep_the_order_of_heads() {
    for shape in [[2, 40, 2, 3, 8], [2, 16, 2, 3, 40]] {
        let (features, labels) = random(shape, 5);
        let plain = run(&features, &labels);
        for scale in [1e-8_f32, 1e6] {
            let mut scaled = features.clone();
            scaled.data.iter_mut().for_each(|x| *x *= scale);
            let result = run(&scaled, &labels);
            // MMD and NMI do not depend on the scale; LDA does where the ridge shows.
            assert_near(&result.mmd, &plain.mmd, 1e-4);
            assert_eq!(result.nmi, plain.nmi);
            assert_eq!(result.expert_heads[0], plain.expert_heads[0]);
            assert!(result.lda.iter().all(|x| *x >= 0.0));
            if scale < 1.0 {
                assert!(result.lda.iter().all(|x| *x == 0.0), "{:?}", result.lda);
            }
        }
    }
}

#[test]
fn pseudo_inverse_drops_what_the_features_dwarf() {
    let (mut features, labels) = random([1, 16, 1, 3, 40], 6);
    let clean = run(&features, &labels);
    assert!(clean.notes.iter().all(|n| !n.contains("leaves out")));
    assert!(
        clean
            .notes
            .iter()
            .any(|n| n.contains("16 samples for 40 numbers"))
    );
    features.data.iter_mut().for_each(|x| *x *= 1e6);
    let result = run(&features, &labels);
    assert!(
        result
            .notes
            .iter()
            .any(|n| n.contains("LDA of 3 of 3 heads leaves out"))
    );
    // Without the bare ridge the criterion no longer grows with the scale.
    assert!(
        result
            .lda
            .iter()
            .zip(&clean.lda)
            .all(|(cut, full)| cut < full)
    );
}

#[test]
fn order_of_samples_within_a_class_does_not_matter_to_three_metrics() {
    for shape in [[1, 40, 1, 4, 8], [1, 14, 1, 4, 30]] {
        let (features, labels) = random(shape, 7);
        let plain = run(&features, &labels);
        let step = features.sample_len();
        // Labels alternate, so turning by an even count keeps them.
        let mut turned = features.clone();
        turned.data.rotate_left(6 * step);
        let result = run(&turned, &labels);
        assert_near(&result.lda, &plain.lda, 1e-9);
        assert_near(&result.kl, &plain.kl, 1e-9);
        assert_near(&result.mmd, &plain.mmd, 1e-9);
    }
}

#[test]
fn result_does_not_depend_on_the_number_of_threads() {
    let (features, labels) = random([3, 30, 3, 7, 20], 8);
    let with = |threads: usize| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(|| run(&features, &labels))
    };
    let one = with(1);
    for threads in [2, 5] {
        assert_eq!(with(threads), one);
    }
}

#[test]
fn progress_ends_at_all_heads() {
    let (features, labels) = random([2, 8, 3, 5, 4], 9);
    let most = AtomicUsize::new(0);
    hunt(
        &features,
        &labels,
        None,
        &HuntOptions::default(),
        &|done, total| {
            assert_eq!(total, 30);
            most.fetch_max(done, Ordering::Relaxed);
        },
    )
    .unwrap();
    assert_eq!(most.into_inner(), 30);
}

#[test]
fn one_prompt_has_no_spread() {
    let (features, labels) = random([1, 12, 2, 2, 3], 10);
    let result = run(&features, &labels);
    assert_eq!(result.std, [0.0; 4]);
    assert_eq!(result.rss, result.saliency);
}

#[test]
fn two_samples_of_a_class_are_enough_and_one_is_not() {
    let (features, _) = random([1, 12, 1, 4, 5], 11);
    let mut labels = vec![false; 12];
    labels[4] = true;
    let names: Vec<String> = (0..12).map(|i| format!("clip{i}.mp4")).collect();
    let e = hunt(
        &features,
        &labels,
        Some(&names),
        &HuntOptions::default(),
        QUIET,
    )
    .unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);
    assert!(e.message().contains("sample 4 (clip4.mp4)"), "{e}");
    labels[7] = true;
    let result = run(&features, &labels);
    assert!(result.kl.iter().all(|x| (0.0..=1e6).contains(x)));
    let none = error_of(&features, &[true; 12], &HuntOptions::default());
    assert!(
        none.message().contains("2 normal samples, there is none"),
        "{none}"
    );
}

#[test]
fn feature_that_is_not_finite_is_named() {
    let (mut features, labels) = random([2, 6, 2, 3, 4], 12);
    let names: Vec<String> = (0..6).map(|i| format!("clip{i}")).collect();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // Prompt 1, sample 3, layer 1, head 2, component 1.
        let at = (((6 + 3) * 2 + 1) * 3 + 2) * 4 + 1;
        let kept = std::mem::replace(&mut features.data[at], bad);
        let e = hunt(
            &features,
            &labels,
            Some(&names),
            &HuntOptions::default(),
            QUIET,
        )
        .unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
        let place = "component 1 of layer 1, head 2 under prompt 1";
        assert!(
            e.message().contains("sample 3 (clip3)") && e.message().contains(place),
            "{e}"
        );
        features.data[at] = kept;
    }
}

#[test]
fn options_and_counts_that_do_not_fit_are_refused() {
    let (features, labels) = random([1, 6, 2, 3, 4], 13);
    let options = |top_k, lambda| HuntOptions { top_k, lambda };
    for (options, field) in [
        (options(0, 0.5), "top_k"),
        (options(7, 0.5), "top_k"),
        (options(5, -0.1), "lambda"),
        (options(5, f64::NAN), "lambda"),
        (options(5, f64::INFINITY), "lambda"),
    ] {
        let e = error_of(&features, &labels, &options);
        assert_eq!(
            (e.kind(), e.field()),
            (Kind::InvalidArgument, Some(field)),
            "{e}"
        );
    }
    let refused = |features: &Features, labels: &[bool], names: Option<&[String]>| {
        let e = hunt(features, labels, names, &options(1, 0.5), QUIET).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
        e.message().to_owned()
    };
    assert!(refused(&features, &labels[1..], None).contains("5 labels for 6 samples"));
    assert!(refused(&features, &labels, Some(&[])).contains("0 sample names for 6 samples"));
    let mut short = features.clone();
    short.data.pop();
    assert!(refused(&short, &labels, None).contains("need 144 numbers and have 143"));
    for (change, what) in [
        (|f: &mut Features| f.samples = usize::MAX, "samples"),
        (|f: &mut Features| f.head_dim = 0, "0 head_dim"),
        (
            |f: &mut Features| (f.samples, f.layers, f.heads, f.head_dim) = (4096, 256, 256, 1024),
            "more than",
        ),
    ] as [(fn(&mut Features), &str); 3]
    {
        let mut features = features.clone();
        change(&mut features);
        assert!(refused(&features, &labels, None).contains(what));
    }
}

#[test]
fn clusters_of_a_head_that_is_not_there_are_refused() {
    let (features, labels) = random([1, 6, 2, 3, 4], 14);
    let head = HeadId { layer: 2, head: 0 };
    let e = clusters(&features, &labels, 0, head).unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);
    let found = clusters(&features, &labels, 0, HeadId { layer: 1, head: 2 }).unwrap();
    assert_eq!(found.order, [0, 2, 4, 1, 3, 5]);
}

#[test]
fn every_instruction_set_measures_the_same() {
    #[derive(Clone, Copy)]
    struct Compare<'a> {
        features: &'a Features,
        labels: &'a [bool],
        want: &'a HuntResult,
    }
    impl Task for Compare<'_> {
        type Output = ();
        #[inline(always)]
        fn run<T: Isa>(self) {
            let layout = features::check(self.features, self.labels, None, None).unwrap();
            let mut scratch = Scratch::new(&layout);
            for head in 0..self.want.rss.len() {
                let measure = Measure {
                    source: Source::new(self.features, 0, head),
                    layout: &layout,
                    scratch: &mut scratch,
                };
                let got = measure.run::<T>().unwrap();
                let want = self.want;
                assert_near(
                    &[got.lda, got.kl, got.mmd],
                    &[want.lda[head], want.kl[head], want.mmd[head]],
                    1e-9,
                );
                assert_eq!(got.nmi, want.nmi[head]);
            }
        }
    }
    for shape in [[1, 50, 1, 4, 24], [1, 20, 1, 4, 33], [1, 7, 1, 4, 2]] {
        let (features, labels) = random(shape, 15);
        let want = run(&features, &labels);
        simd::tests::on_every_isa(Compare {
            features: &features,
            labels: &labels,
            want: &want,
        });
    }
}
