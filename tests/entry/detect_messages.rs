//! What a client sends, message by message and not necessarily a message, to a real server with the tests'
//! model and decoder. The first byte names the call, then comes for each message its length (two bytes, little
//! end first; cut where the input ends) and its bytes, which go out as they are.

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use prost::bytes::{Buf as _, BufMut as _, Bytes};
use tokio::runtime::Runtime;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

#[path = "../common/mod.rs"]
mod common;

use common::{
    admin,
    probe::{BrightnessProbe, Control},
    server::TestServer,
};

/// Longest that a call may take; the server's own waits are shorter.
const CALL_MAX: Duration = Duration::from_secs(8);

/// Waits of the server that a client can bring about, short; file and web sources are named in the
/// configuration so that their addresses are looked at, though this decoder opens none.
const SETTINGS: &str = "streams.open_timeout_s = 2\nstreams.slow_reader_timeout_s = 2\n\
    sources.schemes = ['rtsp', 'rtsps', 'file', 'http', 'https']\nsources.file_roots = ['/tmp']\n\
    admin.quota_bytes = 16777216\nadmin.clip_max_bytes = 1048576\n";

/// Calls of AdminService, `A` and on.
const ADMIN: [&str; 18] = [
    "UploadClip",
    "ImportClips",
    "ListClips",
    "GetClip",
    "RelabelClip",
    "DeleteClip",
    "HuntHeads",
    "Calibrate",
    "Evaluate",
    "ListJobs",
    "FollowJob",
    "CancelJob",
    "GetReport",
    "ListProfiles",
    "GetProfile",
    "ActivateProfile",
    "RollBackProfile",
    "DeleteProfile",
];

struct Place {
    runtime: Runtime,
    server: TestServer,
    channel: Channel,
    _folder: tempfile::TempDir,
}

static PLACE: LazyLock<Mutex<Place>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (server, channel) = runtime.block_on(async {
        let feedback = format!("feedback.dir = '{}'\n", folder.path().join("f").display());
        let toml = format!("{SETTINGS}{feedback}");
        let probe = Arc::new(Control::default());
        let model = BrightnessProbe::whole(probe.clone());
        let (server, _) = admin::start_with(folder.path(), &toml, probe, model, "cam").await;
        let channel = server.channel().await;
        (server, channel)
    });
    Mutex::new(Place {
        runtime,
        server,
        channel,
        _folder: folder,
    })
});

pub fn run(bytes: &[u8]) -> Result<(), String> {
    let Some((call, rest)) = bytes.split_first() else {
        return Err("nothing".into());
    };
    let admin = |n: u8| ADMIN.get(usize::from(n.wrapping_sub(b'A')));
    let path = match (call, admin(*call)) {
        (b'd', _) => "/headhunt.v1.DetectionService/Detect".to_owned(),
        (b'w', _) => "/headhunt.v1.DetectionService/Watch".to_owned(),
        (b'f', _) => "/headhunt.v1.DetectionService/ReportFeedback".to_owned(),
        (_, Some(name)) => format!("/headhunt.v1.AdminService/{name}"),
        _ => return Err("no such call".into()),
    };
    let place = PLACE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    place.runtime.block_on(async {
        let call = exchange(place.channel.clone(), &path, messages(rest));
        match tokio::time::timeout(CALL_MAX, call).await {
            Ok(answered) => answered.map_err(|status| told(&status)),
            Err(_) => panic!("{path} was not answered within {CALL_MAX:?}"),
        }
    })
}

/// Whatever came before left the server as it was: nothing runs, and a good upload gets its answer.
#[allow(dead_code)] // for the corpus
pub fn ends_well() {
    let place = PLACE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    place.runtime.block_on(place.server.is_as_it_was());
}

/// The message of a refusal; what is the server's own fault is none.
fn told(status: &Status) -> String {
    let code = status.code();
    assert!(
        !matches!(code, tonic::Code::Internal | tonic::Code::Unknown)
            // tonic's own words for bytes that are no message of ours.
            || status.message().contains("decode")
            || status.message() == "Missing request message.",
        "{status}"
    );
    format!("{code:?}: {}", status.message())
}

/// All messages of the input.
fn messages(mut rest: &[u8]) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (message, others) = after.split_at(length);
        messages.push(Bytes::copy_from_slice(message));
        rest = others;
    }
    messages
}

async fn exchange(channel: Channel, path: &str, messages: Vec<Bytes>) -> Result<(), Status> {
    let mut client = Grpc::new(channel);
    let ready = client.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = path.parse::<PathAndQuery>().unwrap();
    let request = Request::new(tokio_stream::iter(messages));
    let mut answers = client.streaming(request, path, Raw).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

/// Bytes as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = usize;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let length = buffer.remaining();
        buffer.advance(length);
        Ok(Some(length))
    }
}
