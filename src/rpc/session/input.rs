//! Where a detection's frames come from, and what its client may say while they come.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{
    super::{
        admission::Claim,
        open::{self, Input},
        profiles::Ready,
        proto::DetectRequest,
        source::OpenMedia,
        upload,
        uri::UriSource,
    },
    Shared, Work,
};
use crate::{
    access::Quota,
    engine::Lane,
    error::{Error, Result},
    media::MediaSource,
    pipeline::prepare::OpenSource,
    segment::SegmentRule,
    telemetry::server,
};

/// Where frames come from, and who may speak to it.
pub(super) struct Source {
    pub open: OpenSource,
    pub lane: Lane,
    /// For live sources: how old a segment may be.
    pub max_delay: Option<Duration>,
    pub control: Control,
}

impl Source {
    /// From what was asked for. A live one claims its part of the model.
    pub(super) fn of(
        work: &mut Work,
        shared: &Shared,
        input: Input,
        profile: &Ready,
        requests: Option<Streaming<DetectRequest>>,
    ) -> Result<Source> {
        let media = shared.media.clone();
        let (cancel, stop) = (work.cancel.clone(), work.stop.clone());
        match (input, requests) {
            (Input::Upload(name), Some(requests)) => {
                tracing::info!(upload = ?name, profile = profile.name(), "opened");
                let (sender, chunks) = upload::upload(shared.upload_buffer_bytes);
                let quota = Quota::of(work.caller.as_deref());
                Ok(Source {
                    open: Box::new(move || media.open_upload(Box::new(chunks), cancel)),
                    lane: Lane::Upload,
                    max_delay: None,
                    control: Control::Upload(requests, sender, quota),
                })
            }
            (Input::Upload(_), None) => {
                Err(Error::internal("an upload without a stream of chunks"))
            }
            (Input::Uri(source), requests) => {
                tracing::info!(uri = source.shown(), profile = profile.name(), "opened");
                let live = source.is_live();
                if live {
                    work.claim = Some(claim(shared, profile)?);
                }
                Ok(Source {
                    lane: if live { Lane::Live } else { Lane::Upload },
                    max_delay: live.then_some(shared.cameras.max_delay),
                    control: Control::Uri(requests),
                    open: Box::new(move || open_uri(media.as_ref(), *source, stop, cancel)),
                })
            }
        }
    }
}

/// What the client may still say.
pub(super) enum Control {
    Upload(Streaming<DetectRequest>, upload::UploadSender, Quota),
    Uri(Option<Streaming<DetectRequest>>),
}

/// Room for a live stream with this profile, if the model can keep up with it.
fn claim(shared: &Shared, profile: &Ready) -> Result<Claim> {
    let rule = profile.profile().segment;
    let SegmentRule::Seconds(seconds) = rule else {
        return Err(Error::precondition(format!(
            "the profile {} cuts video by frames, but the frame rate of a camera cannot be believed: calibrate one by time (headhunt calibrate --segment-seconds)",
            profile.name()
        )));
    };
    let measured = shared.engine.load().segments_per_second;
    let most = if measured > 0.0 {
        measured * shared.cameras.capacity_share
    } else {
        // Not known before the first pass: a wrong guess would refuse everybody.
        f64::INFINITY
    };
    shared.admission.claim(1.0 / seconds, most)
}

fn open_uri(
    media: &dyn OpenMedia,
    source: UriSource,
    stop: CancellationToken,
    cancel: CancellationToken,
) -> Result<Box<dyn MediaSource>> {
    media.open_uri(source, stop, cancel)
}

/// Listens to the client. Returns only with an error: after its last word it waits for the
/// detection's end.
pub(super) async fn listen(control: Control, stop: &CancellationToken) -> Error {
    match control {
        Control::Upload(requests, sender, quota) => feed(requests, sender, quota).await,
        Control::Uri(None) => std::future::pending().await,
        Control::Uri(Some(mut requests)) => loop {
            match requests.message().await {
                Ok(Some(request)) => match open::after_uri(request) {
                    Ok(()) => stop.cancel(),
                    Err(error) => return error,
                },
                // A half-close does not end a URI source.
                Ok(None) => return std::future::pending().await,
                Err(status) => return open::read_failed(&status),
            }
        },
    }
}

/// Hands the upload's chunks over. Returns only with an error: after the upload's end it waits for
/// the detection's.
async fn feed(
    mut requests: Streaming<DetectRequest>,
    upload: upload::UploadSender,
    mut quota: Quota,
) -> Error {
    loop {
        let request = match requests.message().await {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(status) => return open::read_failed(&status),
        };
        let bytes = match open::chunk(request) {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        server::upload_received(bytes.len());
        if let Err(error) = quota.take(bytes.len()) {
            return error;
        }
        if !upload.send(bytes).await {
            // The decoder is through, well or not; the job knows which.
            return std::future::pending().await;
        }
    }
    upload.finish().await;
    std::future::pending().await
}
