//! What a decoder process cannot do, from before the first byte of media on.
//!
//! Limits of the kernel (address space, files, size of a file, CPU time without progress, no core) and
//! seccomp filters, which need no privileges. What is forbidden fails with EPERM: no sockets, no
//! other programs or processes, no signals to others, no debugging, no new namespaces or mounts, no
//! changes to the file system; and, once an upload has its spool, no file opened for writing. Which
//! files may be read is for [`reach`](super::reach).
//!
//! To install a filter the kernel runs it for each call that there is, which takes a millisecond for a long one.
//! So the long one is what a fork server can do without too: its processes inherit it.

use std::{collections::BTreeMap, path::Path};

use rustix::{
    process::{Pid, Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule,
};

use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits::{WORKER_CPU_SECONDS, WORKER_FILE_BYTES, WORKER_FILES},
};

/// Calls that neither a decoder needs nor a fork server once it has loaded GStreamer.
const FORBIDDEN: &[libc::c_long] = &[
    // Other machines and processes.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    libc::SYS_sendmmsg,
    libc::SYS_setpriority,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_ioprio_set,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Memory that no limit of address space counts.
    libc::SYS_memfd_create,
    // The system.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_personality,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_kexec_file_load,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    // The file system.
    libc::SYS_utimensat,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
];

/// Calls that no decoder needs, but a fork server, and a process that confines itself.
const FORBIDDEN_TO_DECODERS: &[libc::c_long] = &[
    libc::SYS_kill,
    libc::SYS_pidfd_open,
    libc::SYS_sendmsg,
    libc::SYS_capset,
];

/// Older names of what stands in [`FORBIDDEN`].
#[cfg(target_arch = "x86_64")]
const FORBIDDEN_OLD: &[libc::c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_mknod,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
];
#[cfg(not(target_arch = "x86_64"))]
const FORBIDDEN_OLD: &[libc::c_long] = &[libc::SYS_renameat];

/// The same calls by the numbers of x86-64's other interface (x32), which some kernels have: this bit, and
/// for some calls a number of their own.
#[cfg(target_arch = "x86_64")]
const X32: libc::c_long = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const X32_OWN: &[libc::c_long] = &[
    514, // ioctl
    518, // sendmsg
    520, // execve
    521, // ptrace
    524, // rt_sigqueueinfo
    527, // mq_notify
    528, // kexec_load
    533, // move_pages
    536, // rt_tgsigqueueinfo
    538, // sendmmsg
    539, // process_vm_readv
    540, // process_vm_writev
    545, // execveat
];

/// `TIOCSTI` and `TIOCLINUX`, and `FIOSETOWN`, `SIOCSPGRP` and `FIOASYNC`; their types differ between C
/// libraries.
const TYPING: [u64; 5] = [0x5412, 0x541c, 0x8901, 0x8902, 0x5452];

/// `F_SETOWN`, `F_SETSIG` and `F_SETOWN_EX`.
const OWNING: [u64; 3] = [8, 10, 15];

/// Calls that libraries try and do without where the kernel does not know them. Their arguments are
/// behind pointers, so no filter can judge them.
const UNKNOWN: &[libc::c_long] = &[libc::SYS_clone3, libc::SYS_openat2];

/// Sets the limits. `spool_max_bytes` is the largest file that may be written.
pub(super) fn limit(memory_max_bytes: u64, spool_max_bytes: u64) -> Result<()> {
    for (resource, most) in [
        (Resource::As, memory_max_bytes),
        (Resource::Nofile, WORKER_FILES),
        (Resource::Fsize, spool_max_bytes.max(WORKER_FILE_BYTES)),
        (Resource::Core, 0),
    ] {
        let hard = getrlimit(resource)
            .maximum
            .map_or(most, |hard| hard.min(most));
        let limit = Rlimit {
            current: Some(hard),
            maximum: Some(hard),
        };
        setrlimit(resource, limit).or_kind(Kind::FailedPrecondition, || {
            format!("a decoder process cannot limit its {resource:?}")
        })?;
    }
    // Where the server may not start threads without end, a decoder that does must leave it some.
    if let Some(most) = getrlimit(Resource::Nproc).maximum {
        let limit = Rlimit {
            current: Some(most / 4 * 3),
            maximum: Some(most / 4 * 3),
        };
        let _ = setrlimit(Resource::Nproc, limit);
    }
    renew_cpu();
    // Where memory runs out, a stream is to go before the server; some systems do not let it ask.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    Ok(())
}

/// It got on: from now on it has its CPU time anew.
pub(super) fn renew_cpu() {
    let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    let most = u64::try_from(used)
        .unwrap_or(0)
        .saturating_add(WORKER_CPU_SECONDS);
    let hard = getrlimit(Resource::Cpu).maximum;
    let limit = Rlimit {
        current: Some(hard.map_or(most, |hard| hard.min(most))),
        maximum: hard,
    };
    // Lowering what is allowed is always possible.
    let _ = setrlimit(Resource::Cpu, limit);
}

/// Takes away what neither decoding needs nor forking, from every thread and for ever: in a fork server for all
/// its processes.
pub(super) fn forbid_to_all() -> Result<()> {
    let calls = [FORBIDDEN, FORBIDDEN_OLD].concat();
    let mut rules = whole(calls);
    // The limits of others. Its own are hard, but for the CPU's, which is for hangs: one that is taken over can
    // lift that.
    let other = SeccompCondition::new(0, Width::Dword, Op::Ne, 0).map_err(unusable)?;
    let rule = SeccompRule::new(vec![other]).map_err(unusable)?;
    rules.insert(libc::SYS_prlimit64, vec![rule]);
    // Sockets that are no connection: whoever listens somewhere could be written to.
    let addressed = SeccompCondition::new(4, Width::Qword, Op::Ne, 0).map_err(unusable)?;
    let rule = SeccompRule::new(vec![addressed]).map_err(unusable)?;
    rules.insert(libc::SYS_sendto, vec![rule]);
    // Signals that the kernel sends to whom a file is said to belong.
    let mut owned = Vec::new();
    for command in OWNING {
        let same = SeccompCondition::new(1, Width::Dword, Op::Eq, command).map_err(unusable)?;
        owned.push(SeccompRule::new(vec![same]).map_err(unusable)?);
    }
    rules.insert(libc::SYS_fcntl, owned);
    // Keys pressed by a program on the terminal of whoever started the server.
    let mut typed = Vec::new();
    for request in TYPING {
        let same = SeccompCondition::new(1, Width::Dword, Op::Eq, request).map_err(unusable)?;
        typed.push(SeccompRule::new(vec![same]).map_err(unusable)?);
    }
    rules.insert(libc::SYS_ioctl, typed);
    #[cfg(target_arch = "x86_64")]
    {
        let later = [
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_creat,
            libc::SYS_unlink,
            libc::SYS_unlinkat,
            libc::SYS_clone,
            libc::SYS_tgkill,
        ];
        let later = later.iter().chain(FORBIDDEN_TO_DECODERS);
        let numbers: Vec<i64> = rules.keys().chain(later).copied().collect();
        for number in numbers.iter().chain(X32_OWN) {
            rules.insert(number | X32, Vec::new());
        }
    }
    apply(rules, libc::EPERM)?;
    apply(whole(UNKNOWN.to_vec()), libc::ENOSYS)
}

/// Takes away the rest of what decoding does not need.
pub(super) fn forbid() -> Result<()> {
    let mut rules = whole(FORBIDDEN_TO_DECODERS.to_vec());
    // Threads alone; what is no thread is a process.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![rule(0, Width::Qword, thread, 0)?]);
    // Signals to itself alone: an abort is one.
    let own = u64::from(std::process::id());
    let other = SeccompCondition::new(0, Width::Dword, Op::Ne, own).map_err(unusable)?;
    let rule = SeccompRule::new(vec![other]).map_err(unusable)?;
    rules.insert(libc::SYS_tgkill, vec![rule]);
    apply(rules, libc::EPERM)
}

/// From now on no file is opened for writing.
pub(super) fn forbid_writing() -> Result<()> {
    let flags = [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC];
    let writing = |argument: u8| -> Result<Vec<SeccompRule>> {
        flags
            .iter()
            .map(|flag| {
                let bits = u64::from(flag.unsigned_abs());
                rule(argument, Width::Dword, bits, bits)
            })
            .collect()
    };
    #[allow(unused_mut)]
    let mut rules = BTreeMap::from([
        (libc::SYS_openat, writing(2)?),
        // A spool on a file system without unnamed files has lost its name by now.
        (libc::SYS_unlinkat, Vec::new()),
    ]);
    #[cfg(target_arch = "x86_64")]
    {
        rules.insert(libc::SYS_open, writing(1)?);
        rules.insert(libc::SYS_creat, Vec::new());
        rules.insert(libc::SYS_unlink, Vec::new());
    }
    apply(rules, libc::EPERM)
}

/// Calls whatever their arguments.
fn whole(calls: Vec<libc::c_long>) -> BTreeMap<i64, Vec<SeccompRule>> {
    calls.into_iter().map(|call| (call, Vec::new())).collect()
}

/// Matches where the bits of `mask` in an argument are `value`.
fn rule(argument: u8, width: Width, mask: u64, value: u64) -> Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, width, Op::MaskedEq(mask), value);
    SeccompRule::new(vec![condition.map_err(unusable)?]).map_err(unusable)
}

fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<()> {
    let architecture = std::env::consts::ARCH.try_into().map_err(unusable)?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        architecture,
    )
    .map_err(unusable)?;
    let program = BpfProgram::try_from(filter).map_err(unusable)?;
    seccompiler::apply_filter_all_threads(&program).or_kind(Kind::FailedPrecondition, || {
        "a decoder process cannot confine itself with seccomp".into()
    })
}

fn unusable(e: seccompiler::BackendError) -> Error {
    Error::internal("the decoder process's seccomp filter is not valid").with_source(e)
}

/// What the process was not to be able to do and can. `others` are processes that it must not reach.
pub(super) fn faults(spool_dir: &Path, others: &[Pid]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut forbidden = |what: &str, possible: bool| {
        if possible {
            faults.push(format!("it can {what}"));
        }
    };
    forbidden(
        "open a TCP socket",
        std::net::TcpListener::bind("127.0.0.1:0").is_ok(),
    );
    forbidden(
        "open a UDP socket",
        std::net::UdpSocket::bind("127.0.0.1:0").is_ok(),
    );
    let file = spool_dir.join(format!("headhunt-check-{}", std::process::id()));
    let written = std::fs::File::create(&file).is_ok();
    forbidden("write files", written);
    if written {
        let removed = std::fs::remove_file(&file).is_ok();
        forbidden("remove files", removed);
    }
    forbidden(
        "run programs",
        std::process::Command::new("/proc/self/exe")
            .arg("--version")
            .stdout(std::process::Stdio::null())
            .status()
            .is_ok(),
    );
    forbidden(
        "send signals",
        others
            .iter()
            .any(|other| rustix::process::test_kill_process(*other).is_ok()),
    );
    forbidden(
        "use memory without a limit",
        getrlimit(Resource::As).current.is_none(),
    );
    forbidden("leave a core", getrlimit(Resource::Core).current != Some(0));
    faults
}
