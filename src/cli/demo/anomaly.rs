//! What must not happen in the street, each with the frames in which it can be seen.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    canvas::{Canvas, Rgb},
    scene::{FPS, HEIGHT, Street, Vehicle, WIDTH},
};

/// What a clip shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClipKind {
    /// Traffic and people, nothing else.
    Normal,
    /// An explosion: flashes, a fireball, flicker.
    Flash,
    /// Smoke that grows until the end of the clip.
    Smoke,
    /// A vehicle that races across lanes and pavement, several times.
    FastMover,
    /// A vehicle against the traffic, with hazard lights and high beam.
    WrongWay,
}

impl ClipKind {
    /// Name for file names and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            ClipKind::Normal => "normal",
            ClipKind::Flash => "flash",
            ClipKind::Smoke => "smoke",
            ClipKind::FastMover => "fast-mover",
            ClipKind::WrongWay => "wrong-way",
        }
    }
}

/// One anomaly of a clip.
pub struct Anomaly {
    first: u64,
    end: u64,
    what: What,
}

enum What {
    Flash {
        at: (f32, f32),
        bursts: Vec<f32>,
        size: f32,
        flicker: f32,
    },
    Smoke {
        puffs: Vec<Puff>,
    },
    Fast {
        vehicle: Vehicle,
        passes: Vec<Pass>,
    },
    Wrong {
        vehicle: Vehicle,
        pass: Pass,
    },
}

struct Puff {
    born: f32,
    from: (f32, f32),
    drift: (f32, f32),
    radius: f32,
    growth: f32,
    grey: f32,
}

/// One crossing of the picture.
struct Pass {
    starts: f32,
    /// Pixels per second.
    speed: f32,
    direction: f32,
    y: f32,
    /// How far it swerves, pixels, and how often per crossing.
    swerve: (f32, f32),
}

/// A crossing begins and ends with the vehicle's middle this far outside the picture, pixels.
const MARGIN: f32 = 24.0;

impl Pass {
    fn lasts(&self) -> f32 {
        (WIDTH as f32 + 2.0 * MARGIN) / self.speed
    }

    /// Place at `t` seconds since the anomaly began, while the crossing lasts.
    fn at(&self, t: f32) -> Option<(f32, f32)> {
        let done = (t - self.starts) / self.lasts();
        if !(0.0..=1.0).contains(&done) {
            return None;
        }
        let way = done * (WIDTH as f32 + 2.0 * MARGIN) - MARGIN;
        let x = if self.direction > 0.0 {
            way
        } else {
            WIDTH as f32 - way
        };
        let (depth, turns) = self.swerve;
        let y = self.y + depth * (std::f32::consts::TAU * turns * done).sin();
        Some((x, y.min(HEIGHT as f32 - 4.0)))
    }
}

fn frame_of(seconds: f32) -> u64 {
    (seconds * FPS as f32).round() as u64
}

impl Anomaly {
    pub(super) fn new(
        rng: &mut ChaCha8Rng,
        kind: ClipKind,
        street: Street,
        frames: u64,
    ) -> Option<Self> {
        // Some seconds of normal life come before it.
        let clip = frames as f32 / FPS as f32;
        let starts: f32 = rng.random_range(0.25..0.45) * clip;
        let (what, lasts) = match kind {
            ClipKind::Normal => return None,
            ClipKind::Flash => flash(rng, street),
            ClipKind::Smoke => (smoke(rng, street, clip - starts), clip - starts),
            ClipKind::FastMover => fast(rng, street),
            ClipKind::WrongWay => wrong(rng, street),
        };
        let first = frame_of(starts);
        Some(Anomaly {
            first,
            end: (first + frame_of(lasts)).min(frames),
            what,
        })
    }

    /// Anomalous frames, end exclusive.
    pub fn interval(&self) -> (u64, u64) {
        (self.first, self.end)
    }

    fn since(&self, t: f32) -> f32 {
        t - self.first as f32 / FPS as f32
    }

    fn shows(&self, t: f32) -> bool {
        let frame = frame_of(t);
        (self.first..self.end).contains(&frame)
    }

    /// Line on which it stands, for the order of drawing; light and smoke lie over everything.
    pub(super) fn stands_at(&self, t: f32) -> f32 {
        let since = self.since(t);
        let standing = match &self.what {
            What::Fast { passes, .. } => passes.iter().find_map(|pass| pass.at(since)),
            What::Wrong { pass, .. } => pass.at(since),
            What::Flash { .. } | What::Smoke { .. } => None,
        };
        standing.map_or(f32::INFINITY, |(_, y)| y)
    }

    pub(super) fn draw(&self, canvas: &mut Canvas, t: f32) {
        if !self.shows(t) {
            return;
        }
        let t = self.since(t);
        match &self.what {
            What::Flash {
                at,
                bursts,
                size,
                flicker,
            } => draw_flash(canvas, t, *at, bursts, *size, *flicker),
            What::Smoke { puffs } => {
                for puff in puffs {
                    puff.draw(canvas, t);
                }
            }
            What::Fast { vehicle, passes } => {
                // A shutter that stays open: the vehicle is smeared along its way.
                const SHUTTER: [f32; 4] = [0.0, 0.006, 0.012, 0.018];
                for pass in passes {
                    for (i, delay) in SHUTTER.iter().enumerate() {
                        if let Some(place) = pass.at(t + delay) {
                            let alpha = 1.0 / (i + 1) as f32;
                            vehicle.draw(canvas, place, pass.direction, alpha);
                            if i == 0 {
                                beam(canvas, vehicle, place, pass.direction, 1.0);
                            }
                        }
                    }
                }
            }
            What::Wrong { vehicle, pass } => {
                if let Some(place) = pass.at(t) {
                    vehicle.draw(canvas, place, pass.direction, 1.0);
                    beam(canvas, vehicle, place, pass.direction, 1.0);
                    if (t * 2.6).fract() < 0.5 {
                        let half = vehicle.length * Street::scale(place.1) / 2.0;
                        for end in [-half, half] {
                            let lamp = (place.0 + end, place.1 - 6.0);
                            canvas.glow(lamp, 13.0, [255.0, 150.0, 30.0], 1.0);
                        }
                    }
                }
            }
        }
    }
}

/// High beam: the lamps themselves dazzle, and the light falls far ahead.
fn beam(canvas: &mut Canvas, vehicle: &Vehicle, (x, y): (f32, f32), direction: f32, strength: f32) {
    let half = vehicle.length * Street::scale(y) / 2.0;
    let front = (x + direction * (half + 2.0), y - 6.0);
    canvas.glow(front, 9.0, [255.0, 250.0, 225.0], strength);
    let ahead = (x + direction * (half + 30.0), y - 5.0);
    canvas.glow(ahead, 24.0, [190.0, 184.0, 160.0], 0.8 * strength);
}

fn flash(rng: &mut ChaCha8Rng, street: Street) -> (What, f32) {
    let lasts = rng.random_range(3.2..5.2);
    let mut bursts = vec![0.0];
    let mut next: f32 = rng.random_range(0.5..1.1);
    while next < lasts - 0.6 {
        bursts.push(next);
        next += rng.random_range(0.5..1.3);
    }
    let what = What::Flash {
        at: (
            rng.random_range(40.0..WIDTH as f32 - 40.0),
            rng.random_range(street.road_top..street.road_bottom + 18.0),
        ),
        bursts,
        size: rng.random_range(17.0..30.0),
        flicker: rng.random_range(0.0..6.3),
    };
    (what, lasts)
}

fn draw_flash(
    canvas: &mut Canvas,
    t: f32,
    (x, y): (f32, f32),
    bursts: &[f32],
    size: f32,
    flicker: f32,
) {
    let light: f32 = bursts
        .iter()
        .filter(|b| t >= **b)
        .map(|b| (-(t - b) / 0.4).exp())
        .sum();
    let wave = 0.8 + 0.2 * (t * 31.0 + flicker).sin() * (t * 17.0).cos();
    let radius = size * (0.6 + 0.5 * light.min(1.4)) * (1.0 - (-t * 8.0).exp() * 0.5);
    canvas.glow((x, y - radius), 105.0, [170.0, 138.0, 92.0], 0.85 * light);
    canvas.glow(
        (x, y - radius),
        radius * 1.7,
        [150.0, 84.0, 26.0],
        0.8 * wave,
    );
    for (part, colour) in FIRE {
        let sway = (t * 23.0 * part + flicker).sin() * radius * 0.18;
        let centre = (x + sway, y - radius * (1.5 - 0.5 * part));
        let reach = radius * part * wave;
        canvas.puff(centre, reach * 1.6, colour, 0.95);
    }
    // The flash itself also lifts the whole picture: the sensor is blinded for a moment.
    let lift = 1.0 + 0.35 * light.min(1.5);
    canvas.shade(|_, _| lift);
}

const FIRE: [(f32, Rgb); 3] = [
    (1.0, [214.0, 82.0, 22.0]),
    (0.7, [250.0, 160.0, 44.0]),
    (0.4, [255.0, 240.0, 190.0]),
];

fn smoke(rng: &mut ChaCha8Rng, street: Street, lasts: f32) -> What {
    let source = (
        rng.random_range(40.0..WIDTH as f32 - 40.0),
        rng.random_range(street.wall + 6.0..street.road_bottom + 16.0),
    );
    let wind = rng.random_range(-16.0..16.0);
    let tone: f32 = rng.random_range(196.0..222.0);
    let mut puffs = vec![];
    let mut born = 0.0;
    let mut own = ChaCha8Rng::from_rng(rng);
    while born < lasts {
        puffs.push(Puff {
            born,
            from: (
                source.0 + own.random_range(-8.0..8.0),
                source.1 + own.random_range(-4.0..4.0),
            ),
            drift: (
                wind + own.random_range(-7.0..7.0),
                -own.random_range(8.0..24.0f32),
            ),
            radius: own.random_range(12.0..20.0),
            growth: own.random_range(10.0..16.0),
            grey: tone + own.random_range(-18.0..18.0),
        });
        born += 0.09;
    }
    What::Smoke { puffs }
}

impl Puff {
    fn draw(&self, canvas: &mut Canvas, t: f32) {
        let age = t - self.born;
        if age <= 0.0 {
            return;
        }
        let centre = (
            self.from.0 + self.drift.0 * age,
            self.from.1 + self.drift.1 * age,
        );
        let alpha = 0.6 * (age * 4.0).min(1.0) * (-age / 5.0).exp();
        canvas.puff(
            centre,
            self.radius + self.growth * age,
            [self.grey; 3],
            alpha,
        );
    }
}

fn fast(rng: &mut ChaCha8Rng, street: Street) -> (What, f32) {
    let mut vehicle = Vehicle::random(rng);
    vehicle.length *= 1.25;
    vehicle.height *= 1.3;
    let mut passes = vec![];
    let mut direction = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
    let mut starts = 0.0;
    for _ in 0..rng.random_range(3..6) {
        let pass = Pass {
            starts,
            speed: rng.random_range(250.0..380.0),
            direction,
            y: rng.random_range(street.lane(0) + 8.0..street.road_bottom + 30.0),
            swerve: (rng.random_range(8.0..26.0), rng.random_range(0.5..1.3)),
        };
        starts += pass.lasts() + rng.random_range(0.0..0.15);
        direction = -direction;
        passes.push(pass);
    }
    let lasts = passes.last().map_or(0.0, |pass| pass.starts + pass.lasts());
    (What::Fast { vehicle, passes }, lasts)
}

fn wrong(rng: &mut ChaCha8Rng, street: Street) -> (What, f32) {
    let mut vehicle = Vehicle::random(rng);
    vehicle.length *= 1.1;
    let pass = Pass {
        starts: 0.0,
        speed: rng.random_range(72.0..105.0),
        direction: -street.near_direction,
        y: street.lane(1) - rng.random_range(2.0..14.0),
        swerve: (rng.random_range(5.0..13.0), rng.random_range(1.0..2.5)),
    };
    let lasts = pass.lasts();
    (What::Wrong { vehicle, pass }, lasts)
}
