//! What commands print. Unlike the standard macros these panic nowhere: the reader of a pipe may leave at any time, and
//! hours of work are worth more than a line of progress.

use std::{
    fmt,
    io::{self, ErrorKind, Write as _},
    sync::{Mutex, PoisonError},
};

/// The first reason why standard output could not be written.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// A line to standard output; that it could not be written is told at the end, see [`end`].
macro_rules! say {
    ($($line:tt)*) => {
        $crate::cli::print::out(format_args!("{}\n", format_args!($($line)*)))
    };
}

/// A line to standard error, where that is read.
macro_rules! remark {
    ($($line:tt)*) => {
        $crate::cli::print::err(format_args!("{}\n", format_args!($($line)*)))
    };
}

/// To standard output, as it is.
pub(super) fn out(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let written = out.write_fmt(text).and_then(|()| out.flush());
    if let Err(error) = written {
        let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert(error);
    }
}

/// To standard error, as it is.
pub(super) fn err(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Whether all that was printed has been written.
///
/// Fails where a file or disk refused it; a reader that has left had enough.
pub(super) fn end() -> io::Result<()> {
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failed {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
