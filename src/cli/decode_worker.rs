//! `headhunt decode-worker`: the decoder process of one stream of a server.

use crate::{error::Result, memory, pipeline::reduce, video::worker};

/// Serves the server that started it; see [`worker`].
pub fn run() -> Result<()> {
    let _memory = memory::keep_small()?;
    worker::run(reduce::for_decoder())
}
