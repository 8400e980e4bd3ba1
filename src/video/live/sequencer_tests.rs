use super::*;
use crate::{
    error::{Error, Result},
    media::{Picture, RgbImage},
    video::ledger::Loss,
};

/// Nobody looks at it.
struct Unseen;

impl Picture for Unseen {
    fn to_rgb(&self) -> Result<RgbImage> {
        Err(Error::internal("not looked at"))
    }

    fn size_bytes(&self) -> usize {
        0
    }
}

/// Frames of 40 ms, from a clock of the camera's that began long ago.
const BEGAN: Duration = Duration::from_secs(70_000);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Of the camera's clock, which arrived so long after its beginning.
fn at(clock: Duration, arrived: Duration) -> Decoded {
    Decoded {
        pts: (BEGAN + clock).as_nanos() as i64,
        picture: std::sync::Arc::new(Unseen),
        size: (640, 480),
        arrived: Some(arrived),
        loss: Loss::default(),
        jumped: false,
    }
}

struct Camera {
    sequencer: Sequencer,
    told: VecDeque<MediaEvent>,
}

impl Camera {
    /// With frames up to 400 ms, whose events are taken.
    fn that_runs() -> Self {
        let mut camera = Camera {
            sequencer: Sequencer::new(),
            told: VecDeque::new(),
        };
        for i in 0..10 {
            let frame = at(ms(40 * i), ms(40 * i));
            camera.shows(frame, i == 0);
        }
        camera.told.clear();
        camera
    }

    fn shows(&mut self, decoded: Decoded, first: bool) {
        let came = Came {
            codec: Codec::H265,
            first,
            received: None,
        };
        self.sequencer.picture(decoded, &came, &mut self.told);
    }

    /// In words, times in milliseconds.
    fn told(&mut self) -> Vec<String> {
        let words = |event| match event {
            MediaEvent::Opened(info) => format!("{} {}x{}", info.codec, info.width, info.height),
            MediaEvent::Source(SourceState::Connected) => "connected".into(),
            MediaEvent::Source(state) => format!("{state:?}"),
            MediaEvent::Frame(frame) => format!("frame {}", millis(frame.stamp.pts)),
            MediaEvent::Gap(gap) => gap_in_words(&gap),
        };
        self.told.drain(..).map(words).collect()
    }
}

fn millis(time: MediaTime) -> i64 {
    time.as_nanos() / 1_000_000
}

fn gap_in_words(gap: &Gap) -> String {
    let (from, to) = (millis(gap.from), millis(gap.to));
    format!("{:?} {from} to {to}, {}", gap.reason, gap.frames_lost)
}

#[test]
fn the_first_picture_opens_the_source_and_nothing_before_it_is_a_gap() {
    let mut sequencer = Sequencer::new();
    sequencer.interrupted(GapReason::ConnectionLost, "refused");
    let reached = MediaTime::from_nanos(5_000_000_000);
    assert!(sequencer.close(reached).is_none());
    assert!(!sequencer.has_shown());
    let mut camera = Camera {
        sequencer,
        told: VecDeque::new(),
    };
    camera.shows(at(ms(0), ms(3)), true);
    camera.shows(at(ms(40), ms(43)), false);
    assert_eq!(
        camera.told(),
        ["H265 640x480", "connected", "frame 0", "frame 40"].map(|w| w.replace("H265", "h265"))
    );
    assert!(camera.sequencer.has_shown());
}

#[test]
fn what_is_lost_between_two_connections_is_one_gap_for_the_first_reason() {
    let mut camera = Camera::that_runs();
    camera.sequencer.interrupted(GapReason::Stalled, "silence");
    camera
        .sequencer
        .interrupted(GapReason::ConnectionLost, "refused");
    camera.shows(at(ms(2000), ms(2000)), true);
    camera.shows(at(ms(2040), ms(2040)), false);
    assert_eq!(
        camera.told(),
        [
            "connected",
            "Stalled 400 to 2000, 40",
            "frame 2000",
            "frame 2040"
        ]
    );
}

#[test]
fn an_outage_that_nothing_follows_ends_where_the_camera_would_be() {
    let mut camera = Camera::that_runs();
    // On the camera's clock.
    let reached = MediaTime::from_nanos((BEGAN + ms(1400)).as_nanos() as i64);
    assert!(camera.sequencer.close(reached).is_none(), "there is none");
    camera
        .sequencer
        .interrupted(GapReason::ConnectionLost, "reset");
    let Some(MediaEvent::Gap(gap)) = camera.sequencer.close(reached) else {
        panic!("no gap");
    };
    assert_eq!(gap_in_words(&gap), "ConnectionLost 400 to 1400, 25");
    assert_eq!(gap.detail, "reset");
    // Never before the last frame's end.
    camera
        .sequencer
        .interrupted(GapReason::ConnectionLost, "reset");
    let early = MediaTime::from_nanos(BEGAN.as_nanos() as i64);
    let Some(MediaEvent::Gap(gap)) = camera.sequencer.close(early) else {
        panic!("no gap");
    };
    assert_eq!(gap_in_words(&gap), "ConnectionLost 400 to 400, 0");
}

#[test]
fn a_hole_is_a_gap_by_its_length_and_by_how_its_sides_arrived() {
    let step = LIVE_STEP_MILLIS;
    let hole = LIVE_HOLE_MILLIS;
    for (clock, arrived, gap) in [
        // A camera that slows down.
        (360 + 40 + hole, 360 + 40 + hole, None),
        // One that sent nothing.
        (
            360 + 80 + hole,
            360 + 80 + hole,
            Some("Stalled 400 to 1440, 26"),
        ),
        // Both arrived together.
        (
            360 + 80 + step,
            360 + 10,
            Some("TimestampJump 400 to 690, 7"),
        ),
        (360 + 40 + step, 360 + 10, None),
        // Three frames long.
        (360 + 160, 360, None),
    ] {
        let mut camera = Camera::that_runs();
        camera.shows(at(ms(clock), ms(arrived)), false);
        let frame = format!("frame {clock}");
        let expected: Vec<&str> = gap.into_iter().chain([frame.as_str()]).collect();
        assert_eq!(camera.told(), expected, "{clock} ms, arrived at {arrived}");
    }
}

#[test]
fn lost_frames_and_jumps_have_their_own_reasons_and_an_outage_is_told_first() {
    let lost = |decoded: Decoded| Decoded {
        loss: Loss {
            frames: 3,
            ..Loss::default()
        },
        ..decoded
    };
    let jumped = |decoded: Decoded| Decoded {
        jumped: true,
        ..decoded
    };
    let frame = || at(ms(600), ms(600));
    for (decoded, interrupted, expected) in [
        (lost(frame()), false, "DecodeError 400 to 600, 5"),
        (jumped(frame()), false, "TimestampJump 400 to 600, 5"),
        (jumped(lost(frame())), false, "TimestampJump 400 to 600, 5"),
        (jumped(lost(frame())), true, "ConnectionLost 400 to 600, 5"),
    ] {
        let mut camera = Camera::that_runs();
        if interrupted {
            camera
                .sequencer
                .interrupted(GapReason::ConnectionLost, "reset");
        }
        camera.shows(decoded, false);
        assert_eq!(camera.told(), [expected, "frame 600"]);
    }
}
