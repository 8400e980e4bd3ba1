//! Simulated cameras, each in a process of its own, and what goes wrong with them.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    camera_support::{Fault, FaultProxy},
    site::{Process, camera},
};

/// A simulator is asked so often, ...
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// ... has so long to answer, ...
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// ... and is started anew when it did not so many times in a row.
const PROBES_MISSED: u32 = 2;

/// A simulated camera: what a fault does to one must not reach another.
pub struct Simulator {
    clip: PathBuf,
    address: SocketAddr,
    process: Process,
}

impl Simulator {
    /// On a free port.
    pub fn start(clip: &Path) -> Simulator {
        let (process, address) = spawn(clip, 0);
        Simulator {
            clip: clip.to_owned(),
            address,
            process,
        }
    }

    /// Kills it and starts it again on its port.
    fn restart(&mut self) {
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
        let (process, address) = spawn(&self.clip, self.address.port());
        assert_eq!(address, self.address);
        self.process = process;
    }
}

fn spawn(clip: &Path, port: u16) -> (Process, SocketAddr) {
    let (process, url) = camera(clip, port);
    let address = url.trim_start_matches("rtsp://").split('/').next();
    let address = address.and_then(|address| address.parse().ok());
    (
        process,
        address.unwrap_or_else(|| panic!("a simulator on port {port} says {url:?}")),
    )
}

/// A time in which a camera was at fault.
#[derive(Clone)]
pub struct Window {
    pub from: Instant,
    pub to: Instant,
    pub what: String,
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasted = (self.to - self.from).as_secs_f64();
        write!(f, "{} for {lasted:.1} s", self.what)
    }
}

/// A camera, and what is done to it.
pub struct Rig {
    simulator: Mutex<Simulator>,
    /// Of one with faults.
    pub proxy: Option<FaultProxy>,
    /// So far.
    pub windows: Mutex<Vec<Window>>,
}

impl Rig {
    pub fn new(simulator: Simulator, faulty: bool) -> Arc<Rig> {
        let proxy = faulty.then(|| FaultProxy::start(simulator.address));
        Arc::new(Rig {
            simulator: Mutex::new(simulator),
            proxy,
            windows: Mutex::default(),
        })
    }

    /// Where it is watched.
    pub fn url(&self) -> String {
        match &self.proxy {
            Some(proxy) => proxy.url("/camera"),
            None => format!("rtsp://{}/camera", self.simulator.lock().unwrap().address),
        }
    }

    fn note(&self, from: Instant, what: String) {
        let to = Instant::now();
        self.windows.lock().unwrap().push(Window { from, to, what });
    }
}

/// Faults at random until the end; the stream is given time to heal between them, and to be scored
/// for a while after that.
pub async fn break_it(camera: Arc<Rig>, seed: u64, until: Instant) {
    let mut rng = StdRng::seed_from_u64(seed);
    let proxy = camera.proxy.as_ref().unwrap();
    loop {
        sleep(Duration::from_secs_f64(rng.random_range(15.0..30.0))).await;
        let lasts = Duration::from_secs_f64(rng.random_range(0.5..8.0));
        if Instant::now() + lasts > until {
            return;
        }
        let from = Instant::now();
        let faults = [
            Fault::Refuse,
            Fault::HalfOpen,
            Fault::Silence,
            Fault::SlowDrip(500),
            Fault::Answer(503),
            Fault::TimestampStep(3600),
            Fault::TimestampStep(-3600),
            Fault::TimestampRestart,
            Fault::LoseInterleaved {
                probability: 0.1,
                seed,
            },
            Fault::BitFlip {
                probability: 0.1,
                seed,
            },
            Fault::Garbage { packets: 20, seed },
        ];
        let strikes = [Fault::Reset, Fault::Eos, Fault::Bye];
        let n = rng.random_range(0..faults.len() + strikes.len());
        let fault = faults.iter().chain(&strikes).nth(n).unwrap().clone();
        let what = format!("{fault:?}");
        if n < faults.len() {
            proxy.set(fault);
        } else {
            proxy.strike(fault);
        }
        sleep(lasts).await;
        proxy.clear();
        camera.note(from, what);
    }
}

/// Asks the simulator itself whether it lives, until the task is aborted, and starts one anew that
/// hangs, which is no fault of the server that is tested here. Counts restarts in `hung`.
pub async fn watch_over(camera: Arc<Rig>, name: String, hung: Arc<Mutex<u32>>) {
    let address = camera.simulator.lock().unwrap().address;
    let mut alive = Instant::now();
    let mut missed = 0;
    loop {
        sleep(PROBE_EVERY).await;
        if matches!(timeout(PROBE_PATIENCE, answers(address)).await, Ok(Ok(()))) {
            alive = Instant::now();
            missed = 0;
            continue;
        }
        missed += 1;
        if missed < PROBES_MISSED {
            continue;
        }
        println!("soak: {name}: its simulator hangs and is started anew");
        let own = camera.clone();
        let restarted =
            tokio::task::spawn_blocking(move || own.simulator.lock().unwrap().restart());
        restarted.await.unwrap();
        camera.note(alive, "a simulator that hung".to_owned());
        *hung.lock().unwrap() += 1;
        (alive, missed) = (Instant::now(), 0);
    }
}

/// Any answer to OPTIONS.
async fn answers(camera: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(camera).await?;
    let request = format!("OPTIONS rtsp://{camera}/camera RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.read_exact(&mut [0; 8]).await?;
    Ok(())
}
