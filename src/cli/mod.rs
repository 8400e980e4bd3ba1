//! CLI: the command line, one file per subcommand.

use std::process::ExitCode;

use clap::Parser;

pub mod demo;
pub mod model;

#[derive(Debug, Parser)]
#[command(name = "headhunt", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Synthesize and inspect checkpoints
    Model(model::Args),
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let Command::Model(args) = Cli::parse().command;
    match model::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("headhunt: {error:#}");
            ExitCode::FAILURE
        }
    }
}
