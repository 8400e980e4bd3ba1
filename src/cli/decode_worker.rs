//! `headhunt decode-worker`: the decoder process of one stream of a server.

use crate::{
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
}

/// Serves the server that started it; see [`worker`].
pub fn run(args: Args) -> Result<()> {
    if args.check {
        let faults = worker::check_here(&std::env::temp_dir())?;
        if !faults.is_empty() {
            return Err(Error::precondition(format!(
                "a decoder process is not confined: {}",
                faults.join("; ")
            )));
        }
        println!("confined");
        return Ok(());
    }
    let _memory = memory::keep_pictures()?;
    worker::run(reduce::for_decoder())
}
