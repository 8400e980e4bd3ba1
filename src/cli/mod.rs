//! CLI: the command line, one file per subcommand.

use std::process::ExitCode;

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
