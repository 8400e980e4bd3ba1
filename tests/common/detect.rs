//! A client of `Detect` and what it saw.

use headhunt::rpc::proto::{
    self, DetectRequest, DetectResponse, ScoreStage, detect_request::Message as Ask,
    detect_response::Message as Told, open::Source,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::{server::Client, within};

/// The first message of an upload.
pub fn open(profile: &str) -> DetectRequest {
    ask(Ask::Open(proto::Open {
        source: Some(Source::Upload(proto::UploadSource {
            name: "test".into(),
        })),
        profile: profile.into(),
        options: None,
        ..Default::default()
    }))
}

pub fn chunk(bytes: &[u8]) -> DetectRequest {
    ask(Ask::Chunk(bytes.to_vec().into()))
}

pub fn ask(message: Ask) -> DetectRequest {
    DetectRequest {
        message: Some(message),
    }
}

/// A `Detect` call whose requests the test sends one by one.
pub struct Call {
    pub requests: mpsc::Sender<DetectRequest>,
    pub responses: Streaming<DetectResponse>,
}

impl Call {
    pub async fn begin(client: &mut Client) -> Result<Call, Status> {
        let (requests, received) = mpsc::channel(4);
        let request = Request::new(ReceiverStream::new(received));
        let responses = within("headers", client.detect(request))
            .await?
            .into_inner();
        Ok(Call {
            requests,
            responses,
        })
    }

    pub async fn send(&self, request: DetectRequest) {
        within("send", self.requests.send(request)).await.unwrap();
    }

    /// The next message.
    pub async fn next(&mut self) -> Result<Option<Told>, Status> {
        let response = within("response", self.responses.message()).await?;
        Ok(response.map(|response| response.message.unwrap()))
    }

    /// Ends the requests and reads to the end.
    pub async fn finish(self) -> Result<Seen, Status> {
        let Call {
            requests,
            mut responses,
        } = self;
        drop(requests);
        read(&mut responses).await
    }
}

pub async fn read(responses: &mut Streaming<DetectResponse>) -> Result<Seen, Status> {
    let mut seen = Seen::default();
    while let Some(response) = within("response", responses.message()).await? {
        seen.messages.push(response.message.unwrap());
    }
    Ok(seen)
}

/// Uploads `bytes` in chunks of `size` and reads the responses meanwhile.
pub async fn detect(
    client: &mut Client,
    open: DetectRequest,
    bytes: &[u8],
    size: usize,
) -> Result<Seen, Status> {
    let requests: Vec<_> = std::iter::once(open)
        .chain(bytes.chunks(size).map(chunk))
        .collect();
    send_all(client, requests).await
}

/// Sends these requests, ends the request stream and reads to the end.
pub async fn send_all(client: &mut Client, requests: Vec<DetectRequest>) -> Result<Seen, Status> {
    let call = client.detect(tokio_stream::iter(requests));
    let mut responses = within("headers", call).await?.into_inner();
    read(&mut responses).await
}

/// The messages of a detection that ended well.
#[derive(Debug, Default)]
pub struct Seen {
    pub messages: Vec<Told>,
}

impl Seen {
    pub fn opened(&self) -> &proto::Opened {
        match &self.messages[0] {
            Told::Opened(opened) => opened,
            other => panic!("first message is {other:?}"),
        }
    }

    pub fn summary(&self) -> &proto::Summary {
        match self.messages.last() {
            Some(Told::Summary(summary)) => summary,
            other => panic!("last message is {other:?}"),
        }
    }

    pub fn scores(&self, stage: ScoreStage) -> Vec<&proto::FrameScores> {
        self.messages
            .iter()
            .filter_map(|message| match message {
                Told::FrameScores(scores) if scores.stage() == stage => Some(scores),
                _ => None,
            })
            .collect()
    }

    pub fn ended_events(&self) -> Vec<&proto::EventEnded> {
        self.messages
            .iter()
            .filter_map(|message| match message {
                Told::EventEnded(ended) => Some(ended),
                _ => None,
            })
            .collect()
    }

    /// `frames` frames, each with exactly one final score, in order, and the frame around it.
    pub fn check_frames(&self, frames: u64) {
        assert_eq!(self.opened().session_id.len(), 32);
        let finals = self.scores(ScoreStage::Final);
        let indices: Vec<u64> = finals
            .iter()
            .flat_map(|scores| scores.frames.iter().map(|frame| frame.index))
            .collect();
        assert_eq!(indices, (0..frames).collect::<Vec<_>>());
        let numbers: Vec<u64> = finals.iter().map(|scores| scores.segment).collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
        let mut last = None;
        for frame in finals.iter().flat_map(|scores| &scores.frames) {
            let pts = frame.pts.unwrap();
            let pts = (pts.seconds, pts.nanos);
            assert!(last < Some(pts), "{last:?} then {pts:?}");
            last = Some(pts);
            assert!((0.0..=1.0).contains(&frame.probability));
            assert!((0.0..=1.0).contains(&frame.smoothed));
        }
        let summary = self.summary();
        assert_eq!(summary.frames, frames);
        assert_eq!(summary.segments, finals.len() as u64);
        assert_eq!(summary.events, self.ended_events().len() as u64);
    }
}
