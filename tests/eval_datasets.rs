//! Importers on the data sets' own files, and everything that is refused.

// Helpers of tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write;

use headhunt::{
    error::Kind,
    eval::{
        Dataset, Evaluator, VideoTruth, counts::FrameCounts, evaluate, manifest, metrics,
        scores::VideoScores, ucf_crime, xd_violence,
    },
};

const UCF: &str =
    include_str!("golden/datasets/ucf_crime/Temporal_Anomaly_Annotation_for_Testing_Videos.txt");
const UCF_COUNTS: &str = include_str!("golden/datasets/ucf_crime/frame_counts.csv");
const XD: &str = include_str!("golden/datasets/xd_violence/annotations.txt");
const XD_COUNTS: &str = include_str!("golden/datasets/xd_violence/frame_counts.csv");

fn ucf() -> Dataset {
    ucf_crime::parse(UCF, &FrameCounts::parse(UCF_COUNTS).unwrap()).unwrap()
}

fn xd() -> Dataset {
    xd_violence::parse(XD, &FrameCounts::parse(XD_COUNTS).unwrap()).unwrap()
}

fn counts(text: &str) -> FrameCounts {
    FrameCounts::parse(text).unwrap()
}

fn video<'a>(dataset: &'a Dataset, name: &str) -> &'a VideoTruth {
    &dataset.videos()[dataset.position(name).unwrap()]
}

#[test]
fn ucf_crime_has_its_exact_totals() {
    let set = ucf();
    assert_eq!(set.videos().len(), 290);
    assert_eq!(set.frames(), 1_111_808);
    assert_eq!(set.positives(), 84_331);
    let normal = set.videos().iter().filter(|v| v.positive.is_empty());
    assert_eq!(normal.count(), 150);
    // Ends belong to the event; two events; names with and without .mp4.
    assert_eq!(video(&set, "Abuse028_x264").positive, [(165, 241)]);
    assert_eq!(
        video(&set, "Vandalism017_x264.mp4").positive,
        [(270, 331), (780, 841)]
    );
    // Seven events end at or past the last frame.
    let to_the_end = set
        .videos()
        .iter()
        .filter(|v| v.positive.last().is_some_and(|(_, end)| *end == v.frames))
        .count();
    assert!(to_the_end >= 7, "{to_the_end}");
}

#[test]
fn xd_violence_has_its_exact_totals() {
    let set = xd();
    assert_eq!(set.videos().len(), 800);
    assert_eq!(set.frames(), 2_335_801);
    assert_eq!(set.positives(), 539_562);
    let normal = set.videos().iter().filter(|v| v.positive.is_empty());
    assert_eq!(normal.count(), 300);
    // Names with dots are whole.
    assert_eq!(
        video(&set, "Bad.Boys.1995__#01-33-51_01-34-37_label_B2-0-0").positive,
        [(57, 671), (728, 801)]
    );
    let most = set.videos().iter().map(|v| v.positive.len()).max();
    assert_eq!(most, Some(22));
}

/// A scores file for all videos: score of a frame from its video and its index.
fn scores_file(set: &Dataset, stride: u64, score: impl Fn(&VideoTruth, u64) -> f64) -> String {
    let mut file = String::new();
    for (i, v) in set.videos().iter().enumerate() {
        let scores: Vec<f64> = (0..v.frames.div_ceil(stride))
            .map(|k| score(v, k * stride))
            .collect();
        // Some with a trailing .mp4.
        let suffix = if i % 3 == 0 { ".mp4" } else { "" };
        let line = serde_json::json!({
            "video": format!("{}{suffix}", v.name), "stride": stride, "scores": scores,
        });
        writeln!(file, "{line}").unwrap();
    }
    file
}

fn is_positive(v: &VideoTruth, frame: u64) -> bool {
    v.positive.iter().any(|(a, b)| (*a..*b).contains(&frame))
}

#[test]
fn true_scores_of_every_frame_are_perfect_and_constant_ones_are_chance() {
    for set in [ucf(), xd()] {
        let truth = scores_file(&set, 1, |v, frame| f64::from(is_positive(v, frame)));
        let e = evaluate(&set, truth.as_bytes()).unwrap();
        assert_eq!(
            (e.roc_auc, e.average_precision, e.pr_auc_trapezoid),
            (1.0, 1.0, 1.0)
        );
        let constant = scores_file(&set, 48, |_, _| 0.25);
        let e = evaluate(&set, constant.as_bytes()).unwrap();
        assert_eq!(e.roc_auc, 0.5);
        assert_eq!(
            e.average_precision,
            set.positives() as f64 / set.frames() as f64
        );
        assert_eq!(
            (e.videos as usize, e.frames, e.positives),
            (set.videos().len(), set.frames(), set.positives())
        );
    }
}

#[test]
fn a_stride_is_the_same_score_on_each_of_its_frames() {
    let set = ucf();
    // Any numbers, with ties.
    let score = |v: &VideoTruth, frame: u64| ((v.frames * 31 + frame * 7) % 97) as f64 / 97.0;
    let e = evaluate(&set, scores_file(&set, 16, score).as_bytes()).unwrap();
    let (mut scores, mut labels) = (Vec::new(), Vec::new());
    for v in set.videos() {
        for frame in 0..v.frames {
            scores.push(score(v, frame / 16 * 16));
            labels.push(is_positive(v, frame));
        }
    }
    assert_eq!(e.roc_auc, metrics::roc_auc(&scores, &labels).unwrap());
    let ap = metrics::average_precision(&scores, &labels).unwrap();
    assert!((e.average_precision - ap).abs() < 1e-12);
}

/// A number from 0 to 1 for a video's frame, the same on every machine.
fn random(v: &VideoTruth, frame: u64) -> f64 {
    let mut x = v
        .name
        .bytes()
        .fold(frame.wrapping_add(0x9e37_79b9_7f4a_7c15), |x, byte| {
            (x ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    x ^= x >> 31;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 29;
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

#[test]
fn random_scores_of_every_frame_are_chance_in_every_class() {
    for (set, classes) in [(ucf(), 13), (xd(), 6)] {
        let file = scores_file(&set, 1, random);
        let e = evaluate(&set, file.as_bytes()).unwrap();
        assert_eq!(
            (e.videos as usize, e.frames, e.positives),
            (set.videos().len(), set.frames(), set.positives())
        );
        assert!((e.roc_auc - 0.5).abs() < 0.003, "{}", e.roc_auc);
        assert_eq!(e.per_class.len(), classes);
        for class in &e.per_class {
            // The class's videos and all normal ones, by themselves.
            let videos: Vec<&VideoTruth> = set
                .videos()
                .iter()
                .filter(|v| v.is_normal() || v.classes.contains(&class.class))
                .collect();
            let (mut scores, mut labels) = (Vec::new(), Vec::new());
            for v in &videos {
                for frame in 0..v.frames {
                    scores.push(random(v, frame));
                    labels.push(is_positive(v, frame));
                }
            }
            let positives = labels.iter().filter(|l| **l).count() as u64;
            assert_eq!(class.positives, positives, "{}", class.class);
            assert_eq!(
                class.videos as usize,
                videos.iter().filter(|v| !v.is_normal()).count()
            );
            let auc = metrics::roc_auc(&scores, &labels).unwrap();
            assert_eq!(class.roc_auc, Some(auc), "{}", class.class);
            assert!((auc - 0.5).abs() < 0.02, "{} {auc}", class.class);
        }
        // Every annotated event lies in a video; each is overlapped by single frames above the
        // threshold, which are too short to match at half its length.
        let annotated: usize = set.videos().iter().map(|v| v.positive.len()).sum();
        assert_eq!(e.events.annotated, annotated as u64);
        assert!(e.events.scores[2].f1 < 0.01);
        let normal = (set.frames() - set.positives()) as f64;
        assert!((e.events.normal_hours - normal / 30.0 / 3600.0).abs() < 1e-9);
    }
}

/// scikit-learn's figures of the same made-up scores, over annotations that it read by itself.
#[test]
fn areas_over_the_whole_annotation_files_are_scikit_learns() {
    let text = include_str!("golden/dataset_metrics.json");
    let golden: serde_json::Value = serde_json::from_str(text).unwrap();
    for (key, set) in [("ucf_crime", ucf()), ("xd_violence", xd())] {
        for (kind, tied) in [("random", false), ("tied", true)] {
            let theirs = &golden[key][kind];
            let mut file = String::new();
            for (number, v) in set.videos().iter().enumerate() {
                let scores: Vec<f64> = (0..v.frames)
                    .map(|frame| {
                        let hashed = number as u64 * 7919 + frame * 104_729 + frame * frame * 31;
                        let score = (hashed % 10_007) as f64 / 10_007.0;
                        if tied {
                            (score * 20.0).floor() / 20.0
                        } else {
                            score
                        }
                    })
                    .collect();
                let line = serde_json::json!({"video": v.name, "stride": 1, "scores": scores});
                writeln!(file, "{line}").unwrap();
            }
            let e = evaluate(&set, file.as_bytes()).unwrap();
            assert_eq!(golden[key]["videos"], e.videos);
            assert_eq!(golden[key]["frames"], e.frames);
            assert_eq!(theirs["positives"], e.positives);
            let close = |name: &str, ours: f64, theirs: &serde_json::Value| {
                let theirs = theirs.as_f64().unwrap();
                assert!(
                    (ours - theirs).abs() < 1e-10,
                    "{key} {kind} {name}: {ours} {theirs}"
                );
            };
            close("roc_auc", e.roc_auc, &theirs["roc_auc"]);
            close("ap", e.average_precision, &theirs["average_precision"]);
            close("pr", e.pr_auc_trapezoid, &theirs["pr_auc_trapezoid"]);
            let classes = theirs["per_class"].as_object().unwrap();
            assert_eq!(classes.len(), e.per_class.len());
            for class in &e.per_class {
                let code = class.class.split(' ').next().unwrap();
                close(&class.class, class.roc_auc.unwrap(), &classes[code]);
            }
        }
    }
}

#[test]
fn tied_scores_per_class_are_as_the_metric_has_them() {
    let set = xd();
    let score = |v: &VideoTruth, frame: u64| (random(v, frame / 48) * 8.0).floor() / 8.0;
    let e = evaluate(&set, scores_file(&set, 16, score).as_bytes()).unwrap();
    for class in &e.per_class {
        let (mut scores, mut labels) = (Vec::new(), Vec::new());
        for v in set.videos() {
            if v.is_normal() || v.classes.contains(&class.class) {
                for frame in 0..v.frames {
                    scores.push(score(v, frame / 16 * 16));
                    labels.push(is_positive(v, frame));
                }
            }
        }
        assert_eq!(
            class.roc_auc,
            Some(metrics::roc_auc(&scores, &labels).unwrap())
        );
    }
}

#[test]
fn classes_are_those_of_the_annotations_and_of_the_names() {
    let ucf = ucf();
    assert_eq!(video(&ucf, "Abuse028_x264").classes, ["Abuse"]);
    let normal = ucf.videos().iter().filter(|v| v.is_normal());
    assert_eq!(normal.count(), 150);
    let xd = xd();
    let name = "Bad.Boys.1995__#01-33-51_01-34-37_label_B2-0-0";
    assert_eq!(video(&xd, name).classes, ["B2 shooting"]);
    let in_class = |class: &str| {
        let has = |v: &&VideoTruth| v.classes.iter().any(|c| c.starts_with(class));
        xd.videos().iter().filter(has).count()
    };
    // Videos with several codes count in each.
    let counts: Vec<usize> = ["B1", "B2", "B4", "B5", "B6", "G"].map(in_class).to_vec();
    assert_eq!(counts, [126, 104, 101, 11, 106, 103]);
}

fn small() -> Dataset {
    manifest::dataset(
        "video,label,start_frame,end_frame\na.mp4,anomaly,10,20\nb.x,normal,,\n",
        &counts("video,frames\na,100\nb.x,50\n"),
    )
    .unwrap()
}

fn refused(scores: &str) -> String {
    let error = evaluate(&small(), scores.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    error.to_string()
}

#[test]
fn scores_that_do_not_fit_are_refused_with_video_and_line() {
    let a = r#"{"video": "a", "stride": 50, "scores": [0.1, 0.2]}"#;
    let b = r#"{"scores": [-3e5], "video": "b.x", "stride": 64}"#;
    // Any finite numbers, any order of keys and videos, empty lines, no newline at the end.
    for text in [format!("{a}\n{b}\n"), format!("\n{b}\r\n\n{a}")] {
        assert_eq!(evaluate(&small(), text.as_bytes()).unwrap().frames, 150);
    }
    let cases = [
        (
            format!("{a}\n"),
            "1 of 2 videos have no scores, the first of them b.x",
        ),
        (
            format!("{a}\n{b}\n{a}"),
            "line 3: video a has its scores in line 1 already",
        ),
        (
            format!("{a}\n{}", b.replace("b.x", "b")),
            "line 2: video b is not in the data set",
        ),
        (
            a.replace("0.1, 0.2", "0.1"),
            "line 1: video a has 1 scores; 100 frames at 50 a score take 2",
        ),
        (
            a.replace("0.1, 0.2", "0.1, 0.2, 0.3"),
            "line 1: video a has 3 scores",
        ),
        (
            a.replace("0.1, 0.2", "0.1, NaN"),
            "line 1: score 1 of video a is not a finite number",
        ),
        (
            a.replace("0.1, 0.2", "-Infinity, 0.2"),
            "line 1: score 0 of video a is not a finite",
        ),
        (
            a.replace("0.1, 0.2", "0.1, null"),
            "line 1: score 1 of video a is not a finite number",
        ),
        (a.replace("50", "0"), "line 1: video a has stride 0"),
        (
            a.replace("50,", "50, \"fps\": -1,"),
            "line 1: video a has -1 frames a second",
        ),
        (
            a.replace("50", "-50"),
            "line 1: not an object with video, stride and scores",
        ),
        (
            a.replace("50", "2.5"),
            "line 1: not an object with video, stride and scores",
        ),
        (a.replace("\"stride\": 50,", ""), "line 1: not an object"),
        (a.replace("0.1", "1e999"), "line 1: not an object"),
        (a.replace(']', ""), "line 1: not an object"),
        (format!("{a} {b}"), "line 1: not an object"),
        ("hello".into(), "line 1: not an object"),
        (String::new(), "2 of 2 videos have no scores"),
    ];
    for (text, expected) in cases {
        let message = refused(&text);
        assert!(message.contains(expected), "{text}: {message}");
    }
    // A name that looks like a number keeps its letters in the message.
    let message = refused(r#"{"video": "NaN \" Infinity", "stride": 1, "scores": [NaN]}"#);
    assert!(
        message.contains("score 0 of video NaN \" Infinity"),
        "{message}"
    );
}

#[test]
fn an_evaluator_takes_no_scores_that_a_file_could_not_hold() {
    let set = small();
    let mut scores = VideoScores {
        video: "a".into(),
        stride: 100,
        scores: vec![f64::NAN],
        fps: None,
        line: 7,
    };
    assert!(Evaluator::new(&set).add(&scores).is_err());
    scores.stride = 0;
    assert!(Evaluator::new(&set).add(&scores).is_err());
    scores.stride = u64::MAX;
    scores.scores = vec![0.5];
    assert!(Evaluator::new(&set).add(&scores).is_ok());
}

#[test]
fn annotations_that_do_not_fit_are_refused_by_line() {
    let ucf = |text: &str| {
        let counts = counts("video,frames\nA_x264,100\nN_x264.mp4,50\n");
        ucf_crime::parse(text, &counts).map_err(|e| e.to_string())
    };
    let good = ucf("A_x264.mp4  Abuse  1  99  -1  -1\nN_x264 Normal -1 -1 -1 -1\n").unwrap();
    assert_eq!(good.positives(), 99);
    // Cut off at the last frame, joined where they overlap.
    let cut = ucf("A_x264.mp4  Abuse  90  5000  80  95\n").unwrap();
    assert_eq!(cut.videos()[0].positive, [(80, 100)]);
    for (text, expected) in [
        ("", "no videos"),
        ("A_x264.mp4 Abuse 1 5", "line 1: 2 numbers"),
        ("A_x264.mp4", "line 1"),
        (
            "B_x264.mp4 Abuse 1 5 -1 -1",
            "line 1: video B_x264 is not in the frame counts",
        ),
        (
            "A_x264.mp4 Abuse 5 1 -1 -1",
            "line 1: an event starts at frame 5 and ends before it",
        ),
        (
            "A_x264.mp4 Abuse 100 101 -1 -1",
            "line 1: an event starts at frame 100 of a video of 100",
        ),
        (
            "A_x264.mp4 Abuse 1 -1 -1 -1",
            "line 1: \"-1\" is not a frame number",
        ),
        (
            "A_x264.mp4 Abuse 1 x -1 -1",
            "line 1: \"x\" is not a frame number",
        ),
        (
            "A_x264.mp4 Abuse -1 -1 -1 -1",
            "line 1: class Abuse with 0 events",
        ),
        (
            "N_x264.mp4 Normal 1 5 -1 -1",
            "line 1: class Normal with 1 events",
        ),
        (
            "A_x264 Abuse 1 5 -1 -1\nA_x264.mp4 Abuse 1 5 -1 -1",
            "A_x264 comes twice",
        ),
    ] {
        let message = ucf(text).unwrap_err();
        assert!(message.contains(expected), "{text}: {message}");
    }

    let xd = |text: &str| {
        let counts = counts("a.b__label_A,100\nc.d__label_B1-0-0.mp4,50\n");
        xd_violence::parse(text, &counts).map_err(|e| e.to_string())
    };
    assert_eq!(xd("c.d__label_B1-0-0 0 9 20 99\n").unwrap().positives(), 40);
    for (text, expected) in [
        ("", "c.d__label_B1-0-0 is not normal by its name"),
        ("c.d__label_B1-0-0", "line 1: 0 numbers"),
        ("c.d__label_B1-0-0 1 2 3", "line 1: 3 numbers"),
        ("c 1 2", "line 1: video c is not in the frame counts"),
        (
            "a.b__label_A 1 2",
            "line 1: a.b__label_A has events but its name says label_A",
        ),
        (
            "c.d__label_B1-0-0 1 2\nc.d__label_B1-0-0.mp4 1 2",
            "line 2: c.d__label_B1-0-0 comes twice",
        ),
        (
            "c.d__label_B1-0-0 50 60",
            "line 1: an event starts at frame 50",
        ),
    ] {
        let message = xd(text).unwrap_err();
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn frame_counts_that_do_not_fit_are_refused_by_line() {
    let good = counts("\u{feff}video,frames\r\n\"a,b\",7\r\n\r\n c.mp4 , 8\r\n");
    assert_eq!(
        (good.get("a,b"), good.get("c"), good.get("d")),
        (Some(7), Some(8), None)
    );
    for (text, expected) in [
        ("video,frames\na,0\n", "line 2: \"0\" frames of a"),
        ("a,1\nb,-1\n", "line 2"),
        ("a,1.5\n", "line 1"),
        ("a,99999999999999\n", "line 1"),
        ("a\n", "line 1: 1 fields"),
        ("a,1,2\n", "line 1: 3 fields"),
        ("a,1\na.mp4,1\n", "line 2: video a comes twice"),
        (",1\n", "line 1: no video name"),
        ("name,count\na,1\n", "line 1"),
    ] {
        let message = FrameCounts::parse(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn a_manifest_joins_rows_and_knows_what_is_known() {
    let text = "video,label,start_frame,end_frame\n\
                a.mp4,anomaly,10,20\n\
                dir/b.c#1.mkv,NORMAL,,\n\
                a.mp4,1,15,30\n\
                a.mp4,0,40,50\n\
                whole.avi,Anomaly\n\
                \"d,e.mp4\",normal,0,48\n";
    let rows = manifest::parse(text).unwrap();
    assert_eq!(rows.len(), 6);
    assert_eq!(rows[3].interval, Some((40, 50)));
    assert_eq!(rows[5].line, 7);
    // The same without a header.
    let body = text.split_once('\n').unwrap().1;
    assert_eq!(manifest::parse(body).unwrap().len(), 6);
    let videos = manifest::group(&rows).unwrap();
    let facts: Vec<_> = videos
        .iter()
        .map(|v| (v.name(), v.anomaly, v.intervals.clone(), v.has_intervals))
        .collect();
    assert_eq!(
        facts,
        [
            ("a.mp4".into(), true, vec![(10, 30)], true),
            ("dir/b.c#1.mkv".into(), false, vec![], false),
            ("whole.avi".into(), true, vec![], false),
            ("d,e.mp4".to_owned(), false, vec![], true),
        ]
    );
    let lengths = counts("a,60\ndir/b.c#1.mkv,10\nwhole.avi,9\n\"d,e\",48\nextra,1\n");
    let set = manifest::dataset(text, &lengths).unwrap();
    assert_eq!(
        (set.videos().len(), set.frames(), set.positives()),
        (4, 127, 29)
    );
}

#[test]
fn manifests_that_do_not_fit_are_refused_by_line() {
    let lengths = counts("a,60\n");
    for (text, expected) in [
        ("", "no rows"),
        ("label,video\na,anomaly\n", "line 1: label \"video\""),
        (
            "a,abnormal,,\n",
            "line 1: label \"abnormal\" of a: write anomaly, normal, 1 or 0",
        ),
        ("a,,,\n", "line 1: label \"\""),
        ("a,anomaly,1\n", "line 1: 3 fields"),
        (
            "a,anomaly,1,\n",
            "line 1: a has only one of start_frame and end_frame",
        ),
        (
            "a,anomaly,5,5\n",
            "line 1: frames 5 to 5 of a: end_frame is exclusive",
        ),
        ("a,anomaly,-5,5\n", "line 1: start_frame \"-5\" of a"),
        ("a,anomaly,1,1e3\n", "line 1: end_frame \"1e3\" of a"),
        (",anomaly,1,2\n", "line 1: no video"),
        (
            "a,anomaly,1,61\n",
            "line 1: frames 1 to 61 of a, which has 60",
        ),
        (
            "a,anomaly,,\na,anomaly,1,2\n",
            "line 1: a label for the whole of a, which has 2 rows",
        ),
        (
            "a,anomaly,1,2\na,normal,,\n",
            "line 2: a label for the whole of a",
        ),
        (
            "a,anomaly,1,9\na,normal,8,12\n",
            "line 2: frames 8 to 12 of a are normal here",
        ),
        (
            "b,anomaly,1,9\n",
            "line 1: video b is not in the frame counts",
        ),
    ] {
        let message = manifest::dataset(text, &lengths).unwrap_err().to_string();
        assert!(message.contains(expected), "{text}: {message}");
    }
}
