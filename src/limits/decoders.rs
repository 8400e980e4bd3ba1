//! Of decoder processes and their fork server.

use std::time::Duration;

/// Frames that a decoder process gives ahead of its reader. What it decodes meanwhile is worth a wake-up
/// less for each of them; each may hold a picture in its memory.
pub const WORKER_FRAMES_AHEAD: u32 = 8;

/// The same for a file or an upload whose frames together stay within [`WORKER_FRAMES_AHEAD_BYTES`].
pub const WORKER_FRAMES_AHEAD_MAX: u32 = 32;

/// See [`WORKER_FRAMES_AHEAD_MAX`].
pub const WORKER_FRAMES_AHEAD_BYTES: usize = 16 << 20;

/// Frames decoded, and pictures made, within so long of the first of them are told together.
pub const WORKER_GATHER_TIME: Duration = Duration::from_millis(5);

/// Bytes of messages that wait for that at most, and one message.
pub const WORKER_GATHER_MAX_BYTES: usize = 16 << 10;

/// Pictures that a decoder process may be reducing, or have reduced and not yet given, for one stream.
/// Each has 602 kB of shared memory.
pub const WORKER_PICTURES_AHEAD: usize = 4;

/// Memory in which a decoder process puts them for its server, bytes: [`WORKER_PICTURES_AHEAD`] of up to
/// 1024 × 1024 pixels. Larger ones go another way.
pub const WORKER_REDUCED_BYTES: u64 = WORKER_PICTURES_AHEAD as u64 * (3 << 20);

/// Largest picture that is decoded into memory which the server sees, bytes as decoded. Larger ones are reduced in the
/// decoder process: what crosses is smaller then.
pub const WORKER_PICTURE_MAX_BYTES: usize = 1 << 20;

/// That memory, bytes: a segment of 640 × 480, what is decoded ahead of it and what the decoder refers to take 50 MB. It
/// is used as far as it is needed; pictures for which there is no room are reduced in the process.
pub const WORKER_PICTURES_BYTES: u64 = 128 << 20;

/// Its pages come so many bytes at a time.
pub const WORKER_PICTURES_STEP_BYTES: usize = 1 << 20;

/// Memory that a decoder process shares with its server, bytes.
pub const WORKER_SHARED_BYTES: u64 = WORKER_REDUCED_BYTES + WORKER_PICTURES_BYTES;

/// Shared memory of decoder processes that have ended which is kept for the next ones, each of at most
/// [`WORKER_SPARE_BYTES`].
pub const WORKER_SPARE_BOARDS: usize = 8;

/// See [`WORKER_SPARE_BOARDS`]: what a stream of 320 × 240 pixels uses, bytes.
pub const WORKER_SPARE_BYTES: u64 = 16 << 20;

/// Events of one frame at most: a gap before it, what was opened, itself, and the end.
pub const WORKER_EVENTS_PER_FRAME: u32 = 4;

/// Largest header of a message between a server and its decoder process, bytes: masks are the longest.
pub const WORKER_HEADER_MAX_BYTES: usize = 1 << 20;

/// The same of a message from the process.
pub const WORKER_ANSWER_MAX_BYTES: usize = 64 << 10;

/// Longest text of a decoder process that is passed on, bytes.
pub const WORKER_TEXT_MAX_BYTES: usize = 2000;

/// What is read at its end of what a decoder process printed, bytes: as much as a pipe holds.
pub const WORKER_LAST_WORDS_BYTES: usize = 64 << 10;

/// Log lines of a decoder process in [`WORKER_LOG_PERIOD`], of warnings and errors as many again; more are dropped.
pub const WORKER_LOG_LINES: u32 = 20;

/// See [`WORKER_LOG_LINES`].
pub const WORKER_LOG_PERIOD: Duration = Duration::from_secs(60);

/// Signs of life and log lines of a decoder process in a second; one that sends more is stopped. An orderly
/// one sends two and what [`WORKER_LOG_LINES`] lets through; a server that stood still finds some 300 in the socket.
pub const WORKER_IDLE_TALK: u32 = 1000;

/// Longest wait for a picture of a decoder process, where the stall time of its input is not shorter.
pub const WORKER_PICTURE_WAIT: Duration = Duration::from_secs(30);

/// Packets of a camera are written to its decoder process in pieces of so many bytes.
pub const WORKER_PACKETS_BYTES: usize = 64 << 10;

/// Longest time that a decoder process may read on in a file without a frame, or a word of the media: at
/// 100 MB/s that is 60 GB without video.
pub const WORKER_FILE_QUIET_MAX: Duration = Duration::from_secs(600);

/// A decoder process that takes nothing for so long is taken for hung.
pub const WORKER_WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// So is one that has not taken within so long what is written at once: a few MB of a camera at most.
pub const WORKER_WRITE_MAX: Duration = Duration::from_secs(10);

/// What a decoder process gets beyond the stall time of its input before it is taken for hung: a fault
/// that it finds itself has the better message.
pub const WORKER_GRACE: Duration = Duration::from_secs(2);

/// Between two signs of life of a decoder process that waits for input.
pub const WORKER_ALIVE_PERIOD: Duration = Duration::from_millis(500);

/// How long a decoder process that has hung up may take to end, so that its end can be named.
pub const WORKER_END_WAIT: Duration = Duration::from_secs(1);

/// Longest start of a decoder process: GStreamer looks at all of its plugins where it has no list of them.
pub const WORKER_START_MAX: Duration = Duration::from_secs(60);

/// A start that takes longer is told: the list of plugins cannot be written.
pub const WORKER_START_SLOW: Duration = Duration::from_secs(1);

/// Longest wait for a process of the fork server, which takes a millisecond.
pub const WORKER_FORK_MAX: Duration = Duration::from_secs(10);

/// How long there is no fork server after one was lost or could not be started; decoder processes are started one by one.
pub const FORK_SERVER_RETRY: Duration = Duration::from_secs(60);

/// CPU time that a decoder process may use without an event, seconds; then the kernel ends it.
pub const WORKER_CPU_SECONDS: u64 = 600;

/// Between two renewals of it while frames come.
pub const WORKER_CPU_RENEWAL: Duration = Duration::from_secs(10);

/// Files that a decoder process may have open.
pub const WORKER_FILES: u64 = 256;

/// Largest file that a decoder process may write where its spool is smaller, bytes.
pub const WORKER_FILE_BYTES: u64 = 64 << 20;

/// Address space of a decoder process by default, bytes. A frame of 8K takes 50 MB, and a decoder keeps
/// up to 17 of them for reference.
pub const WORKER_MEMORY_BYTES: u64 = 4 << 30;

/// Least address space with which a decoder process starts, bytes: libraries, threads' stacks.
pub const WORKER_MEMORY_MIN_BYTES: u64 = 1 << 30;
