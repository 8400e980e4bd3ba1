//! The threads that the model computes on: its own, so that hunting's and the decoders' work does not
//! queue behind a pass, and a pass does not take every core from them.

use std::thread::available_parallelism;

use crate::{
    error::{Error, Kind, Result, ResultExt},
    limits::MODEL_THREADS_MAX,
};

/// A thread pool of the model.
pub struct Pool(rayon::ThreadPool);

/// How many threads suit this machine: its cores, and from four on one less, which decoding and
/// calls share.
pub fn threads() -> usize {
    let cores = available_parallelism().map_or(1, usize::from);
    let threads = if cores < 4 { cores } else { cores - 1 };
    threads.min(MODEL_THREADS_MAX)
}

impl Pool {
    /// A pool of `threads`, or where that is 0 of [`threads`].
    ///
    /// Fails with `InvalidArgument` for more than [`MODEL_THREADS_MAX`].
    pub fn new(count: usize) -> Result<Self> {
        if count > MODEL_THREADS_MAX {
            return Err(Error::invalid(format!(
                "{count} threads were asked for; the model takes 1 to {MODEL_THREADS_MAX}, or 0 for \
                 what suits the machine"
            )));
        }
        let count = if count == 0 { threads() } else { count };
        rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|number| format!("model-{number}"))
            .build()
            .map(Pool)
            .or_kind(Kind::ResourceExhausted, || {
                format!("cannot start {count} threads for the model")
            })
    }

    /// Runs `work` on the pool: what it splits goes to the pool's threads.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.0.install(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_on_as_many_threads_as_were_asked_for() {
        for count in [1, 3] {
            let pool = Pool::new(count).unwrap();
            let (inside, name) = pool.run(|| {
                let name = std::thread::current().name().map(str::to_owned);
                (rayon::current_num_threads(), name)
            });
            assert_eq!(inside, count);
            assert!(name.unwrap().starts_with("model-"));
        }
        let suited = Pool::new(0).unwrap().run(rayon::current_num_threads);
        assert_eq!(suited, threads());
        let error = Pool::new(MODEL_THREADS_MAX + 1).err().unwrap();
        assert_eq!(error.kind(), Kind::InvalidArgument);
    }
}
