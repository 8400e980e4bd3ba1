//! `headhunt admin`: labelled clips, jobs and profiles of a running server.

mod clips;
mod connection;
mod follow;
mod jobs;
mod profiles;
mod upload;

use clap::Subcommand;

use super::remote::Remote;
use crate::error::{Kind, Result, ResultExt};
use connection::Connection;

/// Administer a running server
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Labelled clips
    #[command(subcommand)]
    Clips(clips::Clips),
    /// Rank attention heads over labelled clips
    Hunt(jobs::Hunt),
    /// Make a new version of a profile from labelled clips
    Calibrate(jobs::Calibrate),
    /// Score labelled clips with a profile: frame AUC and AP
    Evaluate(jobs::Evaluate),
    /// Jobs, those of former runs of the server too
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    /// Profiles and their versions
    #[command(subcommand)]
    Profiles(profiles::Profiles),
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_kind(Kind::Internal, || "cannot start the runtime".into())?;
    runtime.block_on(async {
        let mut connection = Connection::new(&args.remote, args.json)?;
        match args.command {
            Command::Clips(command) => command.run(&mut connection).await,
            Command::Hunt(command) => command.run(&mut connection).await,
            Command::Calibrate(command) => command.run(&mut connection).await,
            Command::Evaluate(command) => command.run(&mut connection).await,
            Command::Jobs(command) => command.run(&mut connection).await,
            Command::Profiles(command) => command.run(&mut connection).await,
        }
    })
}
