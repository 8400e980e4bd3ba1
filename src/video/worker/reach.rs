//! Which files a decoder process can read, and what one of root loses.
//!
//! Decoders are libraries that are loaded when they are needed, so reading cannot be forbidden
//! altogether. Landlock (Linux 5.13, no privileges needed) leaves the system's libraries, the process's
//! own input and the folder of spools; not the server's keys, profiles, clips or memory. It holds for the threads
//! that are started later alone, so it comes before all others.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use gstreamer::glib;
use landlock::{
    AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, make_bitflags, path_beneath_rules,
};
use rustix::{
    fs::{FileType, fstat},
    process::Pid,
    thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities},
};

use crate::error::{Kind, Result, ResultExt as _};

/// What is judged by where a file lies. Writing is forbidden by seccomp once spools are open.
const READING: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

/// Of the system: libraries and what they and the loader look at.
const SYSTEM: &[&str] = &[
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/fonts",
    "/etc/localtime",
    // Where the home folder is asked for.
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
    "/dev/random",
];

/// Lists of folders of libraries that lie elsewhere.
const FOLDERS: &[&str] = &[
    "LD_LIBRARY_PATH",
    "GST_PLUGIN_PATH",
    "GST_PLUGIN_PATH_1_0",
    "GST_PLUGIN_SYSTEM_PATH",
    "GST_PLUGIN_SYSTEM_PATH_1_0",
];

/// GStreamer's list of plugins, if it lies elsewhere. It is written beside its name, to be renamed then.
const REGISTRIES: &[&str] = &["GST_REGISTRY", "GST_REGISTRY_1_0"];

/// The program that makes that list, if it lies elsewhere.
const SCANNERS: &[&str] = &["GST_PLUGIN_SCANNER", "GST_PLUGIN_SCANNER_1_0"];

/// Where the loader is told of further folders of libraries.
const LOADER_FOLDERS: &str = "/etc/ld.so.conf.d";

/// Of the process: another one's is another place.
const OWN: &str = "/proc/self";

/// The files that every decoder process may read, found and opened once: a fork server does it for all of its
/// processes, since it takes some milliseconds.
#[derive(Debug)]
pub(super) struct Readable(Vec<(PathFd, BitFlags<AccessFs>)>);

impl Readable {
    /// By this process's `environment` and the libraries that it has loaded.
    pub(super) fn find(environment: &[(String, String)]) -> Self {
        let opened = readable(environment).into_iter().filter_map(|path| {
            let rights = if path.is_dir() {
                READING
            } else {
                AccessFs::ReadFile.into()
            };
            // What is not there needs no rule.
            Some((PathFd::new(path).ok()?, rights))
        });
        Readable(opened.collect())
    }
}

/// Leaves this thread, and those that it starts, the files that decoding needs. False where that is not to be
/// had.
///
/// `FailedPrecondition` where it has and refuses.
pub(super) fn restrict(readable: Readable, spool_dir: Option<&Path>) -> Result<bool> {
    let own = spool_dir.into_iter().chain([Path::new(OWN)]);
    let rules = || -> std::result::Result<_, RulesetError> {
        let mut rules = Ruleset::default()
            .handle_access(READING)?
            .create()?
            .add_rules(path_beneath_rules(own, READING))?;
        for (file, rights) in readable.0 {
            rules = rules.add_rule(PathBeneath::new(file, rights))?;
        }
        // The input, which may lie anywhere, is known by its file.
        let input = rustix::stdio::stdin();
        let is_file = |mode| FileType::from_raw_mode(mode) == FileType::RegularFile;
        if fstat(input).is_ok_and(|stat| is_file(stat.st_mode)) {
            rules = rules.add_rule(PathBeneath::new(input, AccessFs::ReadFile))?;
        }
        rules.restrict_self()
    };
    let status = rules().or_kind(Kind::FailedPrecondition, || {
        "a decoder process cannot restrict what it reads".into()
    })?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

fn readable(environment: &[(String, String)]) -> BTreeSet<PathBuf> {
    let values = |names: &'static [&'static str]| {
        environment
            .iter()
            .filter(move |(name, _)| names.contains(&name.as_str()))
            .map(|(_, value)| value)
    };
    let mut paths: BTreeSet<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    for list in values(FOLDERS) {
        paths.extend(env::split_paths(list));
    }
    paths.extend(values(SCANNERS).map(PathBuf::from));
    let registries =
        values(REGISTRIES).filter_map(|file| Some(Path::new(file).parent()?.to_path_buf()));
    let own = glib::user_cache_dir().join("gstreamer-1.0");
    for folder in registries.chain([own]) {
        // GStreamer would make it later, when there can be no rule for it any more.
        let _ = fs::create_dir_all(&folder);
        paths.insert(folder);
    }
    paths.insert(glib::user_data_dir().join("gstreamer-1.0"));
    paths.extend(folders_of_the_loader());
    paths.extend(folders_of_libraries());
    paths.retain(|path| path.is_absolute());
    paths
}

/// Folders that the system's loader looks through.
fn folders_of_the_loader() -> BTreeSet<PathBuf> {
    let files = fs::read_dir(LOADER_FOLDERS).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .flat_map(|text| text.lines().map(PathBuf::from).collect::<Vec<_>>())
        .collect()
}

/// Folders of the libraries that this process has loaded, wherever the system has them; of the program itself
/// nothing more is read.
fn folders_of_libraries() -> BTreeSet<PathBuf> {
    let own = env::current_exe().unwrap_or_default();
    // Address, rights, offset, device, inode, file.
    fs::read_to_string("/proc/self/maps")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| Some(Path::new(line.get(line.find('/')?..)?)))
        .filter(|file| *file != own && is_library(file))
        .filter_map(Path::parent)
        .map(Path::to_path_buf)
        .collect()
}

fn is_library(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".so") || name.contains(".so.")
}

/// Whether files that decoding does not need can be read after all, those of the server's process among them.
pub(super) fn faults(server: Pid) -> Vec<&'static str> {
    let server = server.as_raw_pid();
    let environment = format!("/proc/{server}/environ");
    let memory = format!("/proc/{server}/mem");
    // On some systems it lies in a folder of libraries.
    let settings = fs::canonicalize("/etc/group").unwrap_or_default();
    let settings = settings.starts_with("/etc").then_some(settings);
    [
        ("read the server's environment", Some(environment.into())),
        ("read the server's memory", Some(memory.into())),
        ("read the system's settings", settings),
    ]
    .into_iter()
    .filter(|(_, path)| {
        path.as_ref()
            .is_some_and(|path| fs::File::open(path).is_ok())
    })
    .map(|(what, _)| what)
    .collect()
}

/// Takes the privileges of a root process from this thread, and from those that it starts, but for those to read and
/// write files: an input or a folder of spools may be another user's.
pub(super) fn drop_privileges() -> Result<()> {
    let cannot = || "a decoder process cannot drop its privileges".to_owned();
    let kept = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    let now = capabilities(None).or_kind(Kind::FailedPrecondition, cannot)?;
    if kept.contains(now.permitted) {
        return Ok(());
    }
    let then = CapabilitySets {
        effective: now.effective & kept,
        permitted: now.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, then).or_kind(Kind::FailedPrecondition, cannot)
}
