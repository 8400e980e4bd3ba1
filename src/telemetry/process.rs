//! What this process and its host say of themselves, read at each scrape.

use std::{fs, sync::OnceLock};

use metrics::{Unit, describe_gauge, gauge};

/// Version, revision and features of the binary; always 1.
pub const BUILD_INFO: &str = "headhunt_build_info";
/// Resident memory of the process.
pub const RESIDENT: &str = "headhunt_process_resident_memory_bytes";
/// Open files and sockets of the process.
pub const FILES: &str = "headhunt_process_open_fds";
/// Threads of the process.
pub const THREADS: &str = "headhunt_process_threads";
/// When the process began, Unix time.
pub const STARTED: &str = "headhunt_process_start_time_seconds";
/// Memory of the device that the model runs on, by `kind`: `used` or `total`.
pub const DEVICE_MEMORY: &str = "headhunt_device_memory_bytes";

/// What the build was made from, where whoever built it says so.
const REVISION: Option<&str> = option_env!("HEADHUNT_REVISION");

/// Set once the model has told of its own device's memory: then the host's is not shown as such.
static DEVICE_TOLD: OnceLock<()> = OnceLock::new();

/// Names what this file tells, for `/metrics`.
pub(super) fn describe() {
    describe_gauge!(
        BUILD_INFO,
        "Version, revision and features of the binary; always 1"
    );
    describe_gauge!(RESIDENT, Unit::Bytes, "Resident memory of the process");
    describe_gauge!(FILES, "Open files and sockets of the process");
    describe_gauge!(THREADS, "Threads of the process");
    describe_gauge!(STARTED, Unit::Seconds, "When the process began, Unix time");
    describe_gauge!(
        DEVICE_MEMORY,
        Unit::Bytes,
        "Memory of the device that the model runs on (on a CPU the host's, or its control group's limit), used and total"
    );
    gauge!(
        BUILD_INFO,
        "version" => env!("CARGO_PKG_VERSION"),
        "revision" => REVISION.unwrap_or("unknown"),
        "cuda" => if cfg!(feature = "cuda") { "true" } else { "false" },
    )
    .set(1.0);
    if let Ok(now) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        gauge!(STARTED).set(now.as_secs_f64());
    }
}

/// Memory of the device that the model runs on, bytes.
pub fn device_memory(used: u64, total: u64) {
    let _ = DEVICE_TOLD.set(());
    show_device_memory(used, total);
}

fn show_device_memory(used: u64, total: u64) {
    gauge!(DEVICE_MEMORY, "kind" => "used").set(used as f64);
    gauge!(DEVICE_MEMORY, "kind" => "total").set(total as f64);
}

/// Reads what has changed. Where there is no /proc these series are missing.
pub(super) fn refresh() {
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let field = |name: &str| first_number(&status, name);
        if let Some(kib) = field("VmRSS:") {
            gauge!(RESIDENT).set((kib * 1024) as f64);
        }
        if let Some(n) = field("Threads:") {
            gauge!(THREADS).set(n as f64);
        }
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        gauge!(FILES).set(files.count().saturating_sub(1) as f64);
    }
    if DEVICE_TOLD.get().is_none()
        && let Some((used, total)) = host_memory()
    {
        show_device_memory(used, total);
    }
}

/// Used and total memory that this process can have: its control group's where that has a limit.
fn host_memory() -> Option<(u64, u64)> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.current").zip(number("/sys/fs/cgroup/memory.max"));
    let group = group.map(|(current, total)| {
        // Files that were read and can be dropped at once fill a group up to its limit.
        let stat = fs::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
        let files = first_number(&stat, "inactive_file ").unwrap_or(0);
        (current.saturating_sub(files), total)
    });
    group.or_else(|| {
        let info = fs::read_to_string("/proc/meminfo").ok()?;
        let total = first_number(&info, "MemTotal:")? * 1024;
        let free = first_number(&info, "MemAvailable:")? * 1024;
        Some((total.saturating_sub(free), total))
    })
}

/// The number after `name` at the beginning of a line.
fn first_number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_names() {
        let text = "VmPeak:\t  900 kB\nVmRSS:\t  512 kB\nThreads:\t7\n";
        assert_eq!(first_number(text, "VmRSS:"), Some(512));
        assert_eq!(first_number(text, "Threads:"), Some(7));
        assert_eq!(first_number(text, "VmSwap:"), None);
        assert_eq!(first_number("VmRSS: many kB", "VmRSS:"), None);
        let (used, total) = host_memory().unwrap();
        assert!(0 < used && used <= total, "{used} of {total}");
    }
}
