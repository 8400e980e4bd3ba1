//! `headhunt hunt`: ranks the heads of extracted features.

use std::{
    io::IsTerminal,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    common::{check_output, check_report},
    print,
};
use crate::{
    error::Result,
    files::write_output,
    hunt::{self, HuntOptions, HuntResult, file},
    pipeline::report,
};

/// Finds the expert heads: those that best and most steadily tell anomalous from normal samples.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Labelled features (safetensors), as `headhunt extract --manifest` writes them
    #[arg(long, value_name = "FILE")]
    pub features: PathBuf,
    /// How many expert heads to choose
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub top_k: usize,
    /// Weight of a head's standard deviation over prompts
    #[arg(
        long,
        value_name = "L",
        default_value_t = 0.5,
        allow_negative_numbers = true
    )]
    pub lambda: f64,
    /// Where the scores go (JSON)
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Where to put a page with pictures (HTML, self-contained)
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Hunts, writes the files and prints the expert heads.
///
/// # Errors
/// Those of reading, hunting and writing.
pub fn run(args: Args) -> Result<()> {
    check_output("--out", &args.out)?;
    if let Some(report) = &args.report {
        check_report(report, &args.out)?;
    }
    let labelled = file::read_features(&args.features)?;
    let options = HuntOptions {
        top_k: args.top_k,
        lambda: args.lambda,
    };
    let progress = Progress::new();
    let result = hunt::hunt(
        &labelled.features,
        &labelled.labels,
        labelled.sample_names.as_deref(),
        &options,
        &|done, total| progress.show(done, total),
    )?;
    progress.finish();
    file::write_result(&args.out, &result, &options)?;
    if let Some(path) = &args.report {
        let page = report::of_features(&labelled, &result, &options).html()?;
        write_output(path, |out| out.write_all(page.as_bytes()))?;
    }
    print::out(format_args!("{}", summary(&labelled, &result)));
    say!("wrote {}", args.out.display());
    if let Some(path) = &args.report {
        say!("wrote {}", path.display());
    }
    Ok(())
}

/// A bar on a terminal, a line per tenth elsewhere; both on standard error.
struct Progress {
    bar: Option<ProgressBar>,
    tenths: AtomicUsize,
}

impl Progress {
    fn new() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
            ProgressBar::new(0)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_message("measuring heads")
        });
        Progress {
            bar,
            tenths: AtomicUsize::new(0),
        }
    }

    fn show(&self, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            // Calls from several threads overtake each other.
            bar.set_position(bar.position().max(done as u64));
            return;
        }
        let tenth = done * 10 / total.max(1);
        if self.tenths.fetch_max(tenth, Ordering::Relaxed) < tenth {
            remark!("measuring heads: {done} of {total}");
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The table of expert heads and the notes.
fn summary(labelled: &file::LabelledFeatures, result: &HuntResult) -> String {
    use std::fmt::Write;
    let anomalous = labelled.labels.iter().filter(|&&l| l).count();
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{} samples ({anomalous} anomalous), {} prompts, {} layers of {} heads",
        labelled.labels.len(),
        result.prompts,
        result.layers,
        result.heads
    );
    let _ = writeln!(
        text,
        "{:>4} {:>5} {:>5} {:>8} {:>8} {:>8}",
        "rank", "layer", "head", "rss", "mean", "std"
    );
    for (rank, id) in result.expert_heads.iter().enumerate() {
        let at = id.layer * result.heads + id.head;
        let _ = writeln!(
            text,
            "{:>4} {:>5} {:>5} {:>8.4} {:>8.4} {:>8.4}",
            rank + 1,
            id.layer,
            id.head,
            result.rss[at],
            result.mean[at],
            result.std[at]
        );
    }
    for note in &result.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hunt::{Features, file::LabelledFeatures};

    #[test]
    fn writes_nested_json_and_a_page_with_escaped_texts() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let labelled = LabelledFeatures {
            features: Features {
                prompts: 2,
                samples: 8,
                layers: 3,
                heads: 2,
                head_dim: 4,
                data: (0..2 * 8 * 3 * 2 * 4)
                    .map(|i| (i as f32 * 1.37).sin())
                    .collect(),
            },
            labels: (0..8).map(|i| i % 3 == 0).collect(),
            sample_names: None,
            prompts: Some(vec!["<b>what?</b>".into(), "why?".into()]),
        };
        file::write_features(&path("f.safetensors"), &labelled).unwrap();
        run(Args {
            features: path("f.safetensors"),
            top_k: 2,
            lambda: 0.25,
            out: path("hunt.json"),
            report: Some(path("hunt.html")),
        })
        .unwrap();
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path("hunt.json")).unwrap()).unwrap();
        let options = HuntOptions {
            top_k: 2,
            lambda: 0.25,
        };
        let want = hunt::hunt(
            &labelled.features,
            &labelled.labels,
            None,
            &options,
            &|_, _| (),
        );
        let want = want.unwrap();
        let best = want.expert_heads[0];
        assert_eq!(json["heads"][0], serde_json::json!([best.layer, best.head]));
        assert_eq!(
            json["options"],
            serde_json::json!({"top_k": 2, "lambda": 0.25})
        );
        for name in ["lda", "kl", "mmd", "nmi", "saliency"] {
            let flat: Vec<f64> = (0..12)
                .map(|i| json[name][i / 6][i / 2 % 3][i % 2].as_f64().unwrap())
                .collect();
            if name == "lda" {
                assert_eq!(flat, want.lda);
            }
        }
        for (name, values) in [("rss", &want.rss), ("mean", &want.mean), ("std", &want.std)] {
            let flat: Vec<f64> = (0..6)
                .map(|i| json[name][i / 2][i % 2].as_f64().unwrap())
                .collect();
            assert_eq!(&flat, values, "{name}");
        }
        let page = std::fs::read_to_string(path("hunt.html")).unwrap();
        assert!(page.contains("&lt;b&gt;what?&lt;/b&gt;") && !page.contains("<b>what"));
        // One frame per expert head, no script, nothing from the network.
        assert_eq!(page.matches("class=\"chosen\"").count(), 2);
        assert!(!page.contains("<script") && !page.contains("http"));
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }
}
