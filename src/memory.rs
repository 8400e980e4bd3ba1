//! What a server asks of its allocator, so that its memory stays near what it uses for months.
//!
//! glibc gives threads that allocate at the same time arenas of their own, up to eight for each core,
//! and an arena gives memory back from its end alone. Streams come and go, each with a pipeline whose
//! threads take arenas as they find them: what one of them once needed stays, in pieces, in every one.
//! In use did not grow, resident did, by a MiB a minute with 13 cameras that break. So there are
//! [`ALLOCATOR_ARENAS`], and whole free pages inside of them go back every [`MEMORY_TRIM_PERIOD`].
//!
//! Rust's allocations and those of GStreamer's C code come from the same arenas, so both are bounded.

use std::sync::mpsc;

use crate::{
    error::{Kind, Result, ResultExt as _},
    limits::{ALLOCATOR_ARENAS, ALLOCATOR_REUSED_BYTES, MEMORY_TRIM_PERIOD},
};

/// Trims until it is dropped.
#[derive(Debug)]
pub struct Keeper {
    /// Hangs up.
    _running: mpsc::SyncSender<()>,
}

/// Bounds the arenas, and starts the thread that trims them. To be called before other threads have
/// taken arenas: those that exist stay.
///
/// `ResourceExhausted` where no thread can be started.
pub fn keep_small() -> Result<Keeper> {
    limit_arenas();
    let (running, ended) = mpsc::sync_channel::<()>(0);
    std::thread::Builder::new()
        .name("memory".into())
        .spawn(move || {
            while ended.recv_timeout(MEMORY_TRIM_PERIOD) == Err(mpsc::RecvTimeoutError::Timeout) {
                trim();
            }
        })
        .or_kind(Kind::ResourceExhausted, || {
            "cannot start the thread that gives memory back".into()
        })?;
    Ok(Keeper { _running: running })
}

/// For a decoder process, whose pictures come and go all the time at the same sizes: what was freed is used
/// again. Given back to the system each time, its pages would have to be cleared and mapped for the next one,
/// which takes longer than to resize a small picture. What [`keep_small`] trims goes back all the same.
///
/// Fails as [`keep_small`].
pub fn keep_pictures() -> Result<Keeper> {
    reuse_blocks();
    keep_small()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn reuse_blocks() {
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: a setting of the allocator, which locks itself.
        if unsafe { libc::mallopt(parameter, ALLOCATOR_REUSED_BYTES) } == 0 {
            tracing::warn!("the allocator gives every large block back");
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn reuse_blocks() {}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn limit_arenas() {
    // SAFETY: a setting of the allocator, which locks itself.
    if unsafe { libc::mallopt(libc::M_ARENA_MAX, ALLOCATOR_ARENAS) } == 0 {
        tracing::warn!("the allocator does not limit its arenas");
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: touches free memory alone, under the arenas' locks.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators have other rules.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn limit_arenas() {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    const BLOCK: usize = 64 << 10;
    const BLOCKS: usize = 4096;

    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages = statm.split_whitespace().nth(1).unwrap();
        pages.parse::<usize>().unwrap() * 4096
    }

    /// 256 MiB in blocks too small to be mapped one by one; one in 64 stays, so that none of the
    /// others is at an arena's end.
    #[test]
    fn free_pages_between_used_ones_go_back() {
        let blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|i| vec![i as u8 | 1; BLOCK]).collect();
        let kept: Vec<_> = blocks.into_iter().step_by(64).collect();
        let before = resident();
        trim();
        let after = resident();
        // Other tests run beside this one.
        assert!(before > after + BLOCK * BLOCKS / 2, "{before} {after}");
        assert!(kept.iter().all(|block| block[BLOCK - 1] & 1 == 1));
    }

    #[test]
    fn the_thread_ends_with_its_keeper() {
        let named = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
            tasks
                .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
                .filter(|name| name.trim() == "memory")
                .count()
        };
        let keeper = keep_small().unwrap();
        let wait_for = |wanted| {
            (0..500).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                named() == wanted
            })
        };
        assert!(wait_for(1));
        drop(keeper);
        assert!(wait_for(0));
    }
}
