//! `headhunt decode-worker`: the decoder process of one stream of a server.

use crate::{
    config::Environment,
    error::{Error, Result},
    memory,
    pipeline::reduce,
    video::worker,
};

/// Arguments of `headhunt decode-worker`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Say whether such a process can be confined here, and end
    #[arg(long)]
    check: bool,
    /// Load what such a process needs, and fork one whenever the server asks
    #[arg(long, hide = true, conflicts_with = "check")]
    fork_server: bool,
}

/// Serves the server that started it; see [`worker`].
pub fn run(args: Args) -> Result<()> {
    let environment = Environment::of_process().for_decoders();
    if args.check {
        let checked = worker::check_here(&std::env::temp_dir(), &environment)?;
        if !checked.faults.is_empty() {
            return Err(Error::precondition(format!(
                "a decoder process is not confined: {}",
                checked.faults
            )));
        }
        say!(
            "confined{}",
            if checked.files_confined {
                ""
            } else {
                ", but it can read every file that this user can: Landlock is not to be had here"
            }
        );
        return Ok(());
    }
    let ground = if args.fork_server {
        match worker::serve_forks(&environment)? {
            worker::Turn::Over => return Ok(()),
            worker::Turn::Forked(ground) => ground,
        }
    } else {
        worker::Ground::find(&environment)
    };
    let stream = worker::take(ground)?;
    let _memory = memory::keep_pictures()?;
    stream.serve(reduce::for_decoder())
}
