//! What a decoder process says to people: log lines, causes of errors, what its libraries print. It may have
//! been taken over by what it decodes, so its words are cut, are kept to one line, and come at a bounded rate.

use std::{
    fmt::{self, Write as _},
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::pipe::{PipeFlags, pipe_with};
use tracing::{Event, Subscriber, field::Field, field::Visit, level_filters::LevelFilter};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt as _};

use super::wire::Level;
use crate::limits::{
    WORKER_LAST_WORDS_BYTES, WORKER_LOG_LINES, WORKER_LOG_PERIOD, WORKER_TEXT_MAX_BYTES,
};

/// The text on one line, cut where it is too long.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(WORKER_TEXT_MAX_BYTES));
    for c in text.trim().chars() {
        if out.len() + c.len_utf8() > WORKER_TEXT_MAX_BYTES {
            out.push('…');
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

/// Counts what may come so often in a period and no oftener.
#[derive(Debug)]
pub(super) struct Rate {
    most: u32,
    period: Duration,
    since: Instant,
    count: u32,
}

impl Rate {
    pub(super) fn new(most: u32, period: Duration) -> Self {
        Rate {
            most,
            period,
            since: Instant::now(),
            count: 0,
        }
    }

    /// One more; whether it may come.
    pub(super) fn one(&mut self) -> bool {
        if self.since.elapsed() >= self.period {
            self.since = Instant::now();
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.count <= self.most
    }
}

/// Lines for a log, at a bounded rate; grave ones are counted by themselves.
#[derive(Debug)]
pub(super) struct Lines {
    grave: Rate,
    others: Rate,
}

impl Default for Lines {
    fn default() -> Self {
        let rate = || Rate::new(WORKER_LOG_LINES, WORKER_LOG_PERIOD);
        Lines {
            grave: rate(),
            others: rate(),
        }
    }
}

impl Lines {
    /// One more; whether it may come.
    pub(super) fn one(&mut self, level: Level) -> bool {
        match level {
            Level::Error | Level::Warn => self.grave.one(),
            Level::Info | Level::Debug | Level::Trace => self.others.one(),
        }
    }
}

impl Level {
    /// The finest one that this process logs; none where it logs nothing.
    pub(super) fn finest() -> Option<Level> {
        LevelFilter::current().into_level().map(Level::from)
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::TRACE => Level::Trace,
        }
    }
}

impl From<Level> for tracing::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => tracing::Level::ERROR,
            Level::Warn => tracing::Level::WARN,
            Level::Info => tracing::Level::INFO,
            Level::Debug => tracing::Level::DEBUG,
            Level::Trace => tracing::Level::TRACE,
        }
    }
}

/// Writes a process's line to this one's log.
pub(super) fn log(level: Level, text: &str) {
    let said = plain(text);
    match level {
        Level::Error => tracing::error!("decoder process: {said}"),
        Level::Warn => tracing::warn!("decoder process: {said}"),
        Level::Info => tracing::info!("decoder process: {said}"),
        Level::Debug => tracing::debug!("decoder process: {said}"),
        Level::Trace => tracing::trace!("decoder process: {said}"),
    }
}

/// In the process: has its log lines of this level and graver ones told by `tell`.
pub(super) fn forward(finest: Level, tell: impl Fn(Level, String) + Send + Sync + 'static) {
    let lines = Forward {
        finest: LevelFilter::from_level(finest.into()),
        tell: Arc::new(tell),
    };
    // There is one already in a process that is started by hand.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines));
}

struct Forward {
    finest: LevelFilter,
    tell: Arc<dyn Fn(Level, String) + Send + Sync>,
}

impl<S: Subscriber> Layer<S> for Forward {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= self.finest
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.finest)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = line.message + &line.fields;
        (self.tell)((*event.metadata().level()).into(), plain(&text));
    }
}

/// An event as text.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

/// The last of what a process prints on its standard error. What does not fit into the pipe between two looks is lost.
pub(super) struct LastWords {
    pipe: OwnedFd,
    said: Mutex<Vec<u8>>,
}

impl LastWords {
    /// And where the process is to print it.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let said = Mutex::default();
        Ok((LastWords { pipe: ours, said }, theirs))
    }

    /// Makes room in the pipe.
    pub(super) fn listen(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut piece = [0; 4096];
        // As much as a pipe holds, lest one that goes on speaking is listened to for ever.
        for _ in 0..WORKER_LAST_WORDS_BYTES / piece.len() {
            match rustix::io::read(&self.pipe, &mut piece) {
                Ok(n @ 1..) => said.extend_from_slice(piece.get(..n).unwrap_or_default()),
                _ => break,
            }
        }
        let beyond = said.len().saturating_sub(WORKER_TEXT_MAX_BYTES);
        said.drain(..beyond);
    }

    /// The last of it, if it said anything.
    pub(super) fn take(&self) -> Option<String> {
        self.listen();
        let said = std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner));
        Some(plain(&String::from_utf8_lossy(&said))).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_to_one_line_of_bounded_length() {
        assert_eq!(plain(" a\nb\u{1b}[31m "), "a b [31m");
        assert_eq!(plain("größer"), "größer");
        let long = plain(&"ä".repeat(WORKER_TEXT_MAX_BYTES));
        assert!(long.len() <= WORKER_TEXT_MAX_BYTES + '…'.len_utf8());
        assert!(long.ends_with("ä…"));
    }

    #[test]
    fn what_comes_too_often_is_not_let_through() {
        let mut rate = Rate::new(2, Duration::from_secs(3600));
        assert_eq!([rate.one(), rate.one(), rate.one()], [true, true, false]);
        let mut rate = Rate::new(1, Duration::ZERO);
        assert!(rate.one() && rate.one());
    }

    #[test]
    fn last_words_are_the_last_and_nobody_waits_for_them() {
        let (words, theirs) = LastWords::new().unwrap();
        assert_eq!(words.take(), None);
        while rustix::io::write(&theirs, &[b'x'; 4096]).is_ok() {}
        words.listen();
        rustix::io::write(&theirs, b"free(): invalid pointer\n").unwrap();
        let last = words.take().unwrap();
        assert!(last.starts_with("xx") && last.ends_with("xfree(): invalid pointer"));
        assert!(last.len() < WORKER_TEXT_MAX_BYTES);
        drop(theirs);
        assert_eq!(words.take(), None);
    }

    #[test]
    fn lines_of_a_process_have_their_fields() {
        let (tell, told) = std::sync::mpsc::channel();
        let tell = std::sync::Mutex::new(tell);
        let lines = Forward {
            finest: LevelFilter::INFO,
            tell: Arc::new(move |level, text| {
                tell.lock().unwrap().send((level, text)).unwrap();
            }),
        };
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("too fine");
            tracing::warn!(bytes = 7, "the spool is full");
        });
        let lines: Vec<_> = told.try_iter().collect();
        assert_eq!(
            lines,
            [(Level::Warn, "the spool is full bytes=7".to_owned())]
        );
    }
}
