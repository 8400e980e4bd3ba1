//! `headhunt config`: the settings of `serve`, looked at without serving.

use super::serve::{self, Layers};
use crate::{
    clock::SystemClock,
    config::{Environment, Settings},
    error::{Error, Result},
    model::hub,
    profile::{Profile, ProfileStore},
    rpc::{self, Security},
    telemetry::logging,
};

/// What to do with the settings.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check file, environment and flags, and the files of secrets that they name, as `serve` would
    ///
    /// Says too what `serve` would not find on this machine: model, profile, folders, what confines decoders.
    Check {
        #[command(flatten)]
        layers: Layers,
        /// Fail where `serve` would not start on this machine
        #[arg(long)]
        strict: bool,
    },
    /// Print the effective settings as TOML, each with where it came from
    Print(Layers),
}

/// Runs the command. Fails as `serve` would.
pub fn run(command: Command) -> Result<()> {
    let environment = Environment::of_process();
    match command {
        Command::Check { layers, strict } => {
            let file = layers.config.as_deref();
            let settings = Settings::load_from(file, &environment, &layers.overrides())?;
            logging::check(&settings.log.level)?;
            environment.hub()?;
            Security::open(&settings.server, SystemClock::shared())?;
            rpc::check_traces(&settings.traces)?;
            let mut missing = missing(&settings, &environment);
            // The last one is told by whoever prints errors.
            let fails = if strict { missing.pop() } else { None };
            for error in &missing {
                remark!("serve would not start here: {error:#}");
            }
            if let Some(error) = fails {
                return Err(error.context("serve would not start here"));
            }
            say!("the settings can be used");
            Ok(())
        }
        Command::Print(layers) => {
            let file = layers.config.as_deref();
            let text = Settings::print(file, &environment, &layers.overrides())?;
            super::print::out(format_args!("{text}"));
            Ok(())
        }
    }
}

/// What `serve` would be without on this machine, before it loads the model. Changes nothing.
fn missing(settings: &Settings, environment: &Environment) -> Vec<Error> {
    let mut missing = Vec::new();
    #[cfg(feature = "video")]
    missing.extend(serve::video_limits(settings, environment).err());
    #[cfg(not(feature = "video"))]
    let _ = environment;
    missing.extend(model(settings).err());
    missing.extend(profile(settings).err());
    missing
}

fn model(settings: &Settings) -> Result<()> {
    match &settings.model.path {
        Some(model) => hub::check(model),
        None => Err(serve::no_model()),
    }
    .map_err(|e| e.with_field("model.path"))
}

fn profile(settings: &Settings) -> Result<()> {
    let places = &settings.profiles;
    if let Some(file) = &places.file {
        return Profile::load(file).map(|_| ());
    }
    // A server that calibrates may begin without any, and makes their folder.
    let may_be_none = settings.admin.dir.is_some();
    match &places.dir {
        Some(dir) if dir.is_dir() || !may_be_none => {
            let store = ProfileStore::read_only(dir, places.active.as_deref())?;
            match store.active() {
                Some(_) => store.get("", "").map(|_| ()),
                None => Ok(()),
            }
        }
        None if !may_be_none => Err(serve::no_profile()),
        _ => Ok(()),
    }
}
