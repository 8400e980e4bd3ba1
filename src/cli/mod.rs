//! CLI: the command line, one file per subcommand.

#[macro_use]
mod print;

mod ablate;
mod admin;
mod calibrate;
mod camera;
mod common;
mod config;
#[cfg(feature = "video")]
mod decode_worker;
#[cfg(feature = "video")]
mod demo;
mod detect;
mod evaluate;
mod extract;
mod health;
mod hunt;
mod labelled;
mod merge_scores;
mod model;
mod model_bench;
mod remote;
mod score;
mod serve;
mod token;

use std::process::ExitCode;

use clap::Parser;

use crate::error::{Kind, ResultExt as _};

/// Finds anomalies in video with a few attention heads of a frozen InternVL3.
#[derive(Debug, Parser)]
#[command(name = "headhunt", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serve detection over gRPC
    Serve(serve::Args),
    /// Check or print the settings that `serve` would use
    #[command(subcommand)]
    Config(config::Command),
    /// Score video files
    Detect(detect::Args),
    /// Write the features of all heads
    Extract(extract::Args),
    /// Rank heads on labelled features
    Hunt(hunt::Args),
    /// Make a profile from labelled clips: hunt, fit the scorer, calibrate the locator
    Calibrate(calibrate::Args),
    /// AUC, AP, events and false alarms of score files
    Evaluate(evaluate::Args),
    /// Score every video of a list into a file for `evaluate`; can be sharded and resumed
    Score(score::Args),
    /// Merge the files of all shards of a scoring run
    MergeScores(merge_scores::Args),
    /// The method's ablations on labelled clips, beside the paper's figures
    Ablate(ablate::Args),
    /// Administer a running server: labelled clips, jobs, profiles
    Admin(admin::Args),
    /// Ask a server whether it serves: exit code 0 if so, 1 if not
    Health(health::Args),
    /// Tokens for callers of a server
    #[command(subcommand)]
    Token(token::Command),
    /// Synthesize and inspect checkpoints
    Model(model::Args),
    /// Play a video file as an RTSP camera
    Camera(camera::Args),
    /// The whole job on synthetic clips and random weights; needs no download
    #[cfg(feature = "video")]
    Demo(demo::Args),
    /// Decode one stream for the server that starts it
    #[cfg(feature = "video")]
    #[command(hide = true)]
    DecodeWorker(decode_worker::Args),
}

/// Exit code where the device or a service that was asked for is not there.
const EXIT_UNAVAILABLE: u8 = 3;
/// Exit code after Ctrl-C, as shells have it.
const EXIT_CANCELLED: u8 = 130;

/// Runs the command that the process's arguments name. Exit code 0: done; 1: failed; 2: the
/// arguments were wrong; 3: the device that was asked for is not there; 130: stopped by a signal.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Config(command) => config::run(command),
        Command::Detect(args) => detect::run(args),
        Command::Extract(args) => extract::run(args),
        Command::Hunt(args) => hunt::run(args),
        Command::Calibrate(args) => calibrate::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Score(args) => score::run(args),
        Command::MergeScores(args) => merge_scores::run(args),
        Command::Ablate(args) => ablate::run(args),
        Command::Admin(args) => admin::run(args),
        Command::Health(args) => health::run(args),
        Command::Token(command) => token::run(command),
        Command::Model(args) => model::run(args),
        Command::Camera(args) => camera::run(args),
        #[cfg(feature = "video")]
        Command::Demo(args) => demo::run(args),
        #[cfg(feature = "video")]
        Command::DecodeWorker(args) => decode_worker::run(args),
    };
    let printed = || {
        print::end().or_kind(Kind::FailedPrecondition, || {
            "cannot write to the standard output".to_owned()
        })
    };
    match result.and_then(|()| printed()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            remark!("headhunt: {error:#}");
            match error.kind() {
                Kind::Unavailable => ExitCode::from(EXIT_UNAVAILABLE),
                Kind::Cancelled => ExitCode::from(EXIT_CANCELLED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
