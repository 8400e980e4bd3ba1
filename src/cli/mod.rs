//! CLI: the command line, one file per subcommand.

pub mod hunt;

use std::process::ExitCode;

use clap::Parser;

/// Finds anomalies in video with a few attention heads of a frozen multimodal model.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Rank heads on labelled features
    Hunt(hunt::Args),
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Hunt(args) => hunt::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
