//! The thread on which the cameras of a server accept and answer.

use std::{
    fmt,
    sync::{Mutex, PoisonError, mpsc},
    time::Duration,
};

use gstreamer::glib;

use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits::CAMERA_CALL_SECONDS,
};

/// A GLib main loop on a thread of its own; ended when the last user drops it.
///
/// Each server has its own: gst-rtsp-server's thread waits for the pipeline of a client's media, and
/// where that does not start or end, the others must go on.
pub(super) struct MainLoop {
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    /// Hangs up when the thread has ended. In a lock because a receiver cannot be shared.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl MainLoop {
    /// Starts one.
    pub(super) fn start() -> Result<MainLoop> {
        let context = glib::MainContext::new();
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let (own, run) = (context.clone(), main_loop.clone());
        let (running, ended) = mpsc::sync_channel(0);
        std::thread::Builder::new()
            .name("cameras".to_owned())
            .spawn(move || {
                let _running: mpsc::SyncSender<()> = running;
                if let Err(e) = own.with_thread_default(|| run.run()) {
                    tracing::error!(error = %e, "the cameras' thread has no main context");
                }
            })
            .or_kind(Kind::ResourceExhausted, || {
                "cannot start the cameras' thread".to_owned()
            })?;
        Ok(MainLoop {
            context,
            main_loop,
            ended: Mutex::new(ended),
        })
    }

    pub(super) fn context(&self) -> &glib::MainContext {
        &self.context
    }

    /// Runs `task` on the thread and waits for what it gives.
    ///
    /// # Errors
    /// `DeadlineExceeded` if the thread does not come to it.
    pub(super) fn call<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (done, result) = mpsc::sync_channel(1);
        let mut task = Some(task);
        self.attach(move || {
            if let Some(task) = task.take() {
                // A caller that has stopped waiting has said so.
                let _ = done.send(task());
            }
        });
        result
            .recv_timeout(Duration::from_secs(CAMERA_CALL_SECONDS))
            .map_err(|_| {
                Error::deadline(format!(
                    "the cameras' thread did not answer within {CAMERA_CALL_SECONDS} s"
                ))
            })
    }

    /// Runs `task` once, on the thread: `invoke` would run it here as long as that has not begun.
    fn attach(&self, mut task: impl FnMut() + Send + 'static) {
        glib::source::idle_source_new(None, glib::Priority::DEFAULT, move || {
            task();
            glib::ControlFlow::Break
        })
        .attach(Some(&self.context));
    }
}

impl fmt::Debug for MainLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MainLoop")
    }
}

impl Drop for MainLoop {
    fn drop(&mut self) {
        // From within, since a loop that is told to quit before it runs would not.
        let quit = self.main_loop.clone();
        self.attach(move || quit.quit());
        let patience = Duration::from_secs(CAMERA_CALL_SECONDS);
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::error!(
                ?patience,
                "the cameras' thread does not end and is left behind"
            );
        }
    }
}
