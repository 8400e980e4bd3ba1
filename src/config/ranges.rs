//! What values the settings may have, alone and together.

use std::{fmt, ops::RangeInclusive, time::Duration};

use super::{
    exposure,
    settings::{DeviceChoice, Scheme, Settings},
};
use crate::{
    error::{Error, Result},
    limits,
};

impl Settings {
    /// Refuses values out of their documented range, by their key.
    pub(super) fn check(&self) -> Result<()> {
        exposure::check(&self.server)?;
        let e = &self.engine;
        within(
            "engine.queue_capacity_segments",
            e.queue_capacity_segments,
            3..=limits::QUEUE_CAPACITY_MAX_SEGMENTS,
        )?;
        within(
            "model.threads",
            self.model.threads,
            0..=limits::MODEL_THREADS_MAX,
        )?;
        within(
            "engine.max_batch_segments",
            e.max_batch_segments,
            0..=limits::BATCH_CLIPS_MAX,
        )?;
        lasts("engine.batch_wait_s", e.batch_wait, 0.0..=10.0)?;
        lasts("engine.max_queue_wait_s", e.max_queue_wait, 1.0..=86_400.0)?;
        lasts(
            "engine.heartbeat_timeout_s",
            e.heartbeat_timeout,
            0.1..=86_400.0,
        )?;
        if self.model.resize_on_device && self.model.device == DeviceChoice::Cpu {
            return Err(Error::invalid(
                "model.resize_on_device is for a GPU, and model.device is \"cpu\"",
            )
            .with_field("model.resize_on_device"));
        }
        let v = &self.video;
        let most = u64::from(limits::FRAME_MAX_SIDE).pow(2);
        within("video.max_pixels", v.max_pixels, 1..=most)?;
        within(
            "video.max_side_pixels",
            v.max_side,
            1..=limits::FRAME_MAX_SIDE,
        )?;
        within(
            "video.decoder_memory_max_bytes",
            v.decoder_memory_max_bytes,
            limits::WORKER_MEMORY_MIN_BYTES..=1 << 40,
        )?;
        within(
            "video.spool_max_bytes",
            v.spool_max_bytes,
            1 << 20..=1 << 40,
        )?;
        lasts("video.stall_timeout_s", v.stall_timeout, 0.1..=3600.0)?;
        let s = &self.streams;
        within("streams.max_streams", s.max_streams, 1..=4096)?;
        lasts("streams.open_timeout_s", s.open_timeout, 0.1..=3600.0)?;
        within(
            "streams.upload_buffer_bytes",
            s.upload_buffer_bytes,
            64 << 10..=256 << 20,
        )?;
        within(
            "streams.response_queue_messages",
            s.response_queue_messages,
            1..=1024,
        )?;
        lasts(
            "streams.slow_reader_timeout_s",
            s.slow_reader_timeout,
            0.1..=3600.0,
        )?;
        let c = &self.cameras;
        lasts("cameras.connect_timeout_s", c.connect_timeout, 0.1..=300.0)?;
        lasts(
            "cameras.response_timeout_s",
            c.response_timeout,
            0.1..=300.0,
        )?;
        lasts("cameras.silence_timeout_s", c.silence_timeout, 0.5..=3600.0)?;
        lasts("cameras.picture_timeout_s", c.picture_timeout, 0.5..=3600.0)?;
        lasts("cameras.max_delay_s", c.max_delay, 0.1..=3600.0)?;
        within("cameras.capacity_share", c.capacity_share, 0.0..=1000.0)?;
        within("cameras.series_max", c.series_max, 0..=10_000)?;
        if self.sources.schemes.contains(&Scheme::File) && self.sources.file_roots.is_empty() {
            return Err(Error::invalid(
                "sources.schemes has \"file\", but sources.file_roots names no folder below which files may be read",
            )
            .with_field("sources.file_roots"));
        }
        let f = &self.feedback;
        within(
            "feedback.ring_minutes",
            f.ring_minutes,
            0.0..=limits::FEEDBACK_RING_MAX_MINUTES,
        )?;
        lasts(
            "feedback.keep_after_end_s",
            f.keep_after_end,
            0.0..=limits::FEEDBACK_KEEP_MAX_SECONDS,
        )?;
        within(
            "feedback.max_samples",
            f.max_samples,
            1..=limits::FEEDBACK_SAMPLES_MAX,
        )?;
        let h = &self.http2;
        lasts(
            "http2.keepalive_interval_s",
            h.keepalive_interval,
            0.1..=7200.0,
        )?;
        lasts(
            "http2.keepalive_timeout_s",
            h.keepalive_timeout,
            0.1..=7200.0,
        )?;
        let window = 65_535..=i32::MAX as u32;
        within(
            "http2.stream_window_bytes",
            h.stream_window_bytes,
            window.clone(),
        )?;
        within(
            "http2.connection_window_bytes",
            h.connection_window_bytes,
            window,
        )?;
        within(
            "http2.max_streams_per_connection",
            h.max_streams_per_connection,
            1..=65_536,
        )?;
        let t = &self.traces;
        collector(t.endpoint.as_deref())?;
        within("traces.sample_ratio", t.sample_ratio, 0.0..=1.0)?;
        within(
            "traces.queue_spans",
            t.queue_spans,
            limits::TRACE_QUEUE_MIN_SPANS..=limits::TRACE_QUEUE_MAX_SPANS,
        )?;
        lasts("traces.timeout_s", t.timeout, 0.1..=300.0)?;
        lasts("shutdown.grace_s", self.shutdown.grace, 0.0..=86_400.0)?;
        let p = &self.profiles;
        if p.file.is_some() && (p.dir.is_some() || p.active.is_some()) {
            return Err(Error::invalid(
                "profiles.file stands alone: leave profiles.dir and profiles.active empty, or it",
            )
            .with_field("profiles.file"));
        }
        let a = &self.admin;
        within("admin.quota_bytes", a.quota_bytes, 1..=1 << 50)?;
        within("admin.clip_max_bytes", a.clip_max_bytes, 1..=1 << 50)?;
        within("admin.jobs_kept", a.jobs_kept, 1..=limits::JOBS_KEPT_MAX)?;
        // A server that makes its first profile itself has none to name yet.
        if p.dir.is_some() && p.active.is_none() && a.dir.is_none() {
            return Err(Error::invalid(
                "profiles.dir needs profiles.active: name the profile that an empty request field selects",
            )
            .with_field("profiles.active"));
        }
        Ok(())
    }
}

/// Refuses what is no address of a collector, and one with a password in it.
fn collector(endpoint: Option<&str>) -> Result<()> {
    let Some(endpoint) = endpoint else {
        return Ok(());
    };
    let refused = |why: &str| {
        let message = format!("traces.endpoint {why}: give e.g. \"http://127.0.0.1:4317\"");
        Err(Error::invalid(message).with_field("traces.endpoint"))
    };
    let rest = (endpoint.strip_prefix("http://")).or_else(|| endpoint.strip_prefix("https://"));
    match rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default()) {
        None => refused("must begin with http:// or https://"),
        Some("") => refused("names no host"),
        Some(host) if host.contains('@') => {
            refused("must not have a user name or password, which belong into traces.headers_file")
        }
        Some(_) => Ok(()),
    }
}

fn within<T: PartialOrd + fmt::Display + Copy>(
    key: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (low, high) = (range.start(), range.end());
    Err(Error::invalid(format!("{key} is {value}; it must be {low} to {high}")).with_field(key))
}

pub(super) fn lasts(key: &str, value: Duration, range: RangeInclusive<f64>) -> Result<()> {
    within(key, value.as_secs_f64(), range)
}
