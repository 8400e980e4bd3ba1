//! `headhunt model`: synthesize, inspect and time checkpoints.

use std::{io::IsTerminal, path::PathBuf, time::Duration};

use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    cli::{model_bench, print},
    error::{Error, Kind, Result, ResultExt},
    head::HeadId,
    limits::SHARD_MAX_BYTES,
    model::{
        inspect::{InspectOptions, inspect_with},
        synthesize::{Dtype, Layout, Preset, Synthesis},
    },
};

/// Arguments of `headhunt model`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a whole checkpoint directory with random weights
    Synthesize {
        /// Shape: tiny and demo are small, the others have the published InternVL3 numbers
        #[arg(long, value_parser = ["tiny", "demo", "1b", "2b", "8b", "14b", "38b"])]
        preset: String,
        /// Seed of the weights
        #[arg(long, value_name = "N", default_value_t = 0)]
        seed: u64,
        /// Names and packing of tensors and config
        #[arg(long, value_enum, default_value_t = LayoutArg::Hf)]
        layout: LayoutArg,
        /// Number format of the tensors
        #[arg(long, value_enum, default_value_t = DtypeArg::F32)]
        dtype: DtypeArg,
        /// Directory to create; it must not exist or be empty
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Measure how many segments a second this machine scores with a model
    Bench(Box<model_bench::Args>),
    /// Tell what a checkpoint is, what it takes to run, and what stands in the way
    Inspect {
        /// Checkpoint directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Also tell what these heads alone take, as layer:head,…
        #[arg(long, value_name = "L:H", value_delimiter = ',')]
        heads: Vec<String>,
        /// Read every tensor and refuse NaN and infinity
        #[arg(long)]
        verify: bool,
        /// Leave out the fingerprint, which reads every tensor
        #[arg(long)]
        no_fingerprint: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutArg {
    /// transformers' InternVLForConditionalGeneration
    Hf,
    /// InternVLChatModel, as first published
    Original,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DtypeArg {
    /// 32-bit floats
    F32,
    /// bfloat16
    Bf16,
}

/// Runs `headhunt model`.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Synthesize {
            preset,
            seed,
            layout,
            dtype,
            out,
        } => {
            let preset: Preset = preset.parse()?;
            let layout = match layout {
                LayoutArg::Hf => Layout::Hf,
                LayoutArg::Original => Layout::Original,
            };
            let dtype = match dtype {
                DtypeArg::F32 => Dtype::F32,
                DtypeArg::Bf16 => Dtype::Bf16,
            };
            let bar = std::io::stderr().is_terminal().then(progress_bar);
            Synthesis {
                preset,
                seed,
                layout,
                dtype,
                shard_max_bytes: SHARD_MAX_BYTES,
                progress: &mut |written, total| {
                    if let Some(bar) = &bar {
                        bar.set_length(total);
                        bar.set_position(written);
                    }
                },
            }
            .write(&out)?;
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            say!(
                "wrote {} ({layout} layout, {}, seed {seed}, random weights) to {}",
                preset.as_str(),
                dtype.as_str(),
                out.display()
            );
            Ok(())
        }
        Command::Bench(args) => model_bench::run(*args),
        Command::Inspect {
            dir,
            heads,
            verify,
            no_fingerprint,
            json,
        } => {
            let options = InspectOptions {
                heads: heads.iter().map(|text| head(text)).collect::<Result<_>>()?,
                verify,
                fingerprint: !no_fingerprint,
                cache: None,
            };
            let found = inspect_with(&dir, &options)?;
            if json {
                let text = serde_json::to_string_pretty(&found)
                    .or_kind(Kind::Internal, || "cannot write JSON".into())?;
                say!("{text}");
            } else {
                print::out(format_args!("{found}"));
            }
            match found.refused.first() {
                None => Ok(()),
                Some(first) => Err(Error::precondition(format!(
                    "{} would not run: {first}",
                    dir.display()
                ))),
            }
        }
    }
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) =
        ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn head(text: &str) -> Result<HeadId> {
    text.split_once(':')
        .and_then(|(layer, head)| {
            Some(HeadId {
                layer: layer.trim().parse().ok()?,
                head: head.trim().parse().ok()?,
            })
        })
        .ok_or_else(|| Error::invalid(format!("{text:?} is no head; write layer:head, as in 18:4")))
}
