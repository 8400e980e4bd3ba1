//! `headhunt config`: the settings of `serve`, looked at without serving.

use super::serve::Layers;
use crate::{
    clock::SystemClock,
    config::{Environment, Settings},
    error::Result,
    rpc::{self, Security},
    telemetry::logging,
};

/// What to do with the settings.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check file, environment and flags, and the files that they name, as `serve` would
    Check(Layers),
    /// Print the effective settings as TOML, each with where it came from
    Print(Layers),
}

/// Runs the command. Fails as `serve` would.
pub fn run(command: Command) -> Result<()> {
    let environment = Environment::of_process();
    match command {
        Command::Check(layers) => {
            let file = layers.config.as_deref();
            let settings = Settings::load_from(file, &environment, &layers.overrides())?;
            logging::check(&settings.log.level)?;
            environment.hub()?;
            Security::open(&settings.server, SystemClock::shared())?;
            rpc::check_traces(&settings.traces)?;
            println!("the settings can be used");
            Ok(())
        }
        Command::Print(layers) => {
            let file = layers.config.as_deref();
            print!(
                "{}",
                Settings::print(file, &environment, &layers.overrides())?
            );
            Ok(())
        }
    }
}
