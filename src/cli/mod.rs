//! CLI: the command line, one file per subcommand.

use std::process::ExitCode;

use clap::Parser;

pub mod evaluate;

#[derive(clap::Parser)]
#[command(name = "headhunt", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Evaluate(evaluate::Args),
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Evaluate(args) => evaluate::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("headhunt: {error:#}");
            ExitCode::FAILURE
        }
    }
}
