//! `headhunt merge-scores`: the files of all shards to one.

use std::path::PathBuf;

use crate::{cli::common::check_output, error::Result, pipeline::scoring::merge};

/// Arguments of `headhunt merge-scores`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File to write: every video of the list in its order; must not be there yet
    #[arg(long, value_name = "ALL.jsonl")]
    out: PathBuf,
    /// The files that `headhunt score --shard i/n` wrote, of all shards, in any order; each with its
    /// .meta.json beside it
    #[arg(required = true, value_name = "PART.jsonl")]
    parts: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    check_output("--out", &args.out)?;
    let videos = merge(&args.parts, &args.out)?;
    say!("videos     {videos}");
    say!("scores     {}", args.out.display());
    Ok(())
}
