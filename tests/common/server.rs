//! A real server on port 0.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use headhunt::{
    clock::SystemClock,
    config::{Environment, Overrides, Settings},
    engine::{Engine, EngineConfig, EngineHandle},
    feedback::Feedback,
    profile::{Edge, LocatorParams, ModelBinding, Profile, ProfileStore, SCHEMA, ScorerParams},
    rpc::{
        self, OpenMedia, Parts, Profiles, Security,
        proto::{self, detection_service_client::DetectionServiceClient},
    },
    segment::SegmentRule,
    telemetry::traces::Exporter,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::{
    PATIENCE, eventually,
    media::RawMedia,
    probe::{BrightnessProbe, Control, HEAD_DIM, HEADS, fingerprint},
    within,
};

pub type Client = DetectionServiceClient<Channel>;

pub struct TestServer {
    pub address: SocketAddr,
    pub probe: Arc<Control>,
    pub engine: EngineHandle,
    pub profiles: Arc<Profiles>,
    /// Where the settings ask for it.
    pub feedback: Option<Arc<Feedback>>,
    pub shutdown: CancellationToken,
    /// Where the settings ask for it.
    pub sending: Option<Exporter>,
    served: Option<JoinHandle<headhunt::error::Result<()>>>,
    owner: std::sync::Mutex<Option<Engine>>,
}

/// A profile that calls bright segments anomalous: p is 0.998 at brightness 1 and 0.002 at 0.
pub fn profile(name: &str) -> Profile {
    let n = HEADS.len() * HEAD_DIM;
    Profile {
        schema: SCHEMA,
        name: name.into(),
        created_unix_s: 1_700_000_000,
        model: ModelBinding {
            name: "brightness".into(),
            fingerprint: fingerprint(3),
            head_dim: HEAD_DIM,
            device: "cpu".into(),
            dtype: "f32".into(),
        },
        segment: SegmentRule::Frames(48),
        frames_per_segment: 16,
        heads: HEADS.to_vec(),
        hunt_prompts: vec!["Is it bright?".into()],
        scoring_prompts: vec!["Is it bright?".into()],
        scorer: ScorerParams {
            weights: vec![12.0 / n as f64; n],
            intercept: -6.0,
        }
        .into(),
        locator: LocatorParams {
            sigma: 0.5,
            threshold: 0.5,
            edge: Edge::Renormalize,
            event_bridge_s: None,
        },
        notes: serde_json::Map::new(),
    }
}

fn profiles() -> Vec<Profile> {
    let mut other = profile("other-model");
    other.model.fingerprint = "0".repeat(64);
    let mut long = profile("long");
    long.segment = SegmentRule::Frames(1000);
    let mut live = profile("live");
    live.segment = SegmentRule::Seconds(1.6);
    vec![profile("cam"), other, long, live]
}

/// Settings for tests: the defaults with these lines over them.
pub fn settings(toml: &str) -> Settings {
    Settings::from_layers(
        Some((toml, "test")),
        &Environment::default(),
        &Overrides::default(),
    )
    .unwrap()
}

impl TestServer {
    /// With the default settings and these lines over them.
    pub async fn start(toml: &str) -> TestServer {
        Self::with(toml, Arc::new(RawMedia)).await
    }

    pub async fn with(toml: &str, media: Arc<dyn OpenMedia>) -> TestServer {
        let probe = Arc::new(Control::default());
        let model = BrightnessProbe::new(probe.clone());
        Self::with_model(toml, media, probe, model, "cam").await
    }

    /// With the profiles of a directory, where `cam` is the configured choice.
    pub async fn in_directory(
        toml: &str,
        media: Arc<dyn OpenMedia>,
        directory: &Path,
    ) -> TestServer {
        let probe = Arc::new(Control::default());
        let model = BrightnessProbe::new(probe.clone());
        Self::assemble(toml, media, probe, model, "cam", Some(directory)).await
    }

    /// With a model and an active profile; an empty one is none, and no profile at all. Where the
    /// settings have a directory of profiles, those of the tests are put there at the first start.
    pub async fn with_model(
        toml: &str,
        media: Arc<dyn OpenMedia>,
        probe: Arc<Control>,
        model: BrightnessProbe,
        active: &str,
    ) -> TestServer {
        let directory = settings(toml).profiles.dir;
        if let Some(directory) = directory.as_deref().filter(|_| !active.is_empty()) {
            for profile in profiles() {
                let file = directory.join(format!("{}.json", profile.name));
                if !file.exists() {
                    profile.save(file).unwrap();
                }
            }
        }
        Self::assemble(toml, media, probe, model, active, directory.as_deref()).await
    }

    async fn assemble(
        toml: &str,
        media: Arc<dyn OpenMedia>,
        probe: Arc<Control>,
        model: BrightnessProbe,
        active: &str,
        directory: Option<&Path>,
    ) -> TestServer {
        let settings = settings(toml);
        let owner = Engine::start(
            Box::new(model),
            EngineConfig {
                queue_capacity: settings.engine.queue_capacity_segments,
                max_queue_wait: settings.engine.max_queue_wait,
                stall_after: settings.engine.heartbeat_timeout,
                join_timeout: Duration::from_secs(5),
                ..EngineConfig::default()
            },
        )
        .unwrap();
        let engine = owner.handle();
        let found = profiles()
            .into_iter()
            .filter(|_| !active.is_empty())
            .map(|p| (p.name.clone(), Ok(Arc::new(p))))
            .chain([(
                "damaged".to_owned(),
                Err(headhunt::error::Error::data_loss(
                    "/srv/damaged.json: bad checksum",
                )),
            )])
            .collect();
        let choice = Some(active).filter(|active| !active.is_empty());
        let profiles = match directory {
            Some(directory) => {
                let store = ProfileStore::open_or_read(directory, choice).unwrap();
                within("profiles", Profiles::open(store, &engine)).await
            }
            None => within("profiles", Profiles::check(active, found, &engine)).await,
        };
        let profiles = Arc::new(profiles.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let feedback = rpc::open_feedback(&settings.feedback, SystemClock::shared()).unwrap();
        let (traces, sending) = rpc::open_traces(&settings.traces).unwrap();
        let served = {
            let shutdown = shutdown.clone();
            let parts = Parts {
                engine: engine.clone(),
                profiles: profiles.clone(),
                media,
                feedback: feedback.clone(),
                security: Security::open(&settings.server, SystemClock::shared()).unwrap(),
                traces,
            };
            tokio::spawn(async move { rpc::serve(&settings, parts, listener, shutdown).await })
        };
        TestServer {
            address,
            probe,
            engine,
            profiles,
            feedback,
            shutdown,
            sending,
            served: Some(served),
            owner: std::sync::Mutex::new(Some(owner)),
        }
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    pub async fn channel(&self) -> Channel {
        within("connect", self.endpoint().connect()).await.unwrap()
    }

    pub async fn client(&self) -> Client {
        DetectionServiceClient::new(self.channel().await)
    }

    pub async fn info(&self) -> proto::GetInfoResponse {
        let mut client = self.client().await;
        within("GetInfo", client.get_info(proto::GetInfoRequest {}))
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn load(&self) -> proto::Load {
        self.info().await.load.unwrap()
    }

    /// Nothing runs, nothing waits.
    pub async fn is_idle(&self) -> bool {
        let load = self.load().await;
        load.streams == 0 && load.queued_segments == 0
    }

    /// Waits until nothing runs and nothing waits, then sends a good upload: whatever came before
    /// left the server as it was.
    pub async fn is_as_it_was(&self) {
        eventually("idle server", || self.is_idle()).await;
        let mut client = self.client().await;
        let video = super::media::flash(2, 2, 7);
        let seen = super::detect::detect(&mut client, super::detect::open(""), &video, 100)
            .await
            .unwrap();
        seen.check_frames(6 * 48 + 7);
        eventually("idle server", || self.is_idle()).await;
    }

    /// Shuts down and waits for the server's end.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        self.probe.let_go();
        let served = self.served.take().unwrap();
        within("shutdown", served).await.unwrap().unwrap();
        if let Some(sending) = self.sending.take() {
            sending.flush(PATIENCE).await;
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.probe.let_go();
        // Joins the model's thread.
        drop(self.owner.lock().unwrap().take());
    }
}
