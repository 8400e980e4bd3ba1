//! A street as a fixed camera sees it: a textured background that never moves, traffic in two
//! lanes, people on the pavements, slow changes of light, sensor noise.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    anomaly::{Anomaly, ClipKind},
    background::background,
    canvas::{Canvas, Rgb},
};

/// Pixels per row.
pub const WIDTH: usize = 320;
/// Rows.
pub const HEIGHT: usize = 240;
/// Frames per second.
pub const FPS: u32 = 30;

/// Samples of sensor noise, walked through from another place in every frame.
const NOISE_SAMPLES: usize = 1 << 16;

/// Where things are, in pixels from the top.
#[derive(Clone, Copy)]
pub struct Street {
    /// Foot of the buildings.
    pub wall: f32,
    /// Upper edge of the road.
    pub road_top: f32,
    /// Lower edge of the road.
    pub road_bottom: f32,
    /// Which way the near lane drives: 1 to the right, -1 to the left; the far lane the other way.
    pub near_direction: f32,
}

impl Street {
    /// Line on which vehicles of `lane` stand: 0 is the far lane, 1 the near one.
    pub fn lane(&self, lane: usize) -> f32 {
        let height = self.road_bottom - self.road_top;
        self.road_top + height * if lane == 0 { 0.42 } else { 0.92 }
    }

    /// Size of things that stand at `y`: the camera looks down a little.
    pub fn scale(y: f32) -> f32 {
        0.45 + 0.75 * y / HEIGHT as f32
    }
}

/// A car, van or truck, seen from the side.
#[derive(Clone, Copy)]
pub struct Vehicle {
    pub length: f32,
    pub height: f32,
    pub colour: Rgb,
}

impl Vehicle {
    pub fn random(rng: &mut ChaCha8Rng) -> Self {
        let van = rng.random_bool(0.25);
        Vehicle {
            length: if van {
                rng.random_range(58.0..72.0)
            } else {
                rng.random_range(42.0..54.0)
            },
            height: if van {
                rng.random_range(25.0..30.0)
            } else {
                rng.random_range(15.0..19.0)
            },
            colour: paint(rng),
        }
    }

    /// Draws it with its wheels' centre line at (`x`, `y`), heading right if `direction` > 0.
    pub fn draw(&self, canvas: &mut Canvas, (x, y): (f32, f32), direction: f32, alpha: f32) {
        let s = Street::scale(y);
        let (half, height) = (self.length * s / 2.0, self.height * s);
        let dark = self.colour.map(|c| c * 0.55);
        canvas.ellipse(
            (x, y + 1.0),
            (half * 1.08, 3.5 * s),
            [18.0; 3],
            0.45 * alpha,
        );
        let body = y - height * 0.55;
        canvas.rect((x - half, body), (x + half, y - 1.0), self.colour, alpha);
        canvas.rect((x - half, y - 3.0 * s), (x + half, y - 1.0), dark, alpha);
        let (back, front) = (x - direction * half * 0.75, x + direction * half * 0.45);
        let (left, right) = (back.min(front), back.max(front));
        canvas.rect((left, y - height), (right, body + 0.5), dark, alpha);
        let glass = [62.0, 74.0, 88.0];
        canvas.rect(
            (left + 2.0, y - height + 1.5),
            (right - 2.0, body),
            glass,
            alpha,
        );
        for end in [-0.62, 0.62] {
            canvas.ellipse(
                (x + end * half, y - 1.5 * s),
                (4.4 * s, 4.4 * s),
                [22.0; 3],
                alpha,
            );
            canvas.ellipse(
                (x + end * half, y - 1.5 * s),
                (1.9 * s, 1.9 * s),
                [120.0; 3],
                alpha,
            );
        }
        let lamp = (x + direction * (half - 1.5), body + height * 0.18);
        canvas.ellipse(lamp, (1.6, 1.6), [235.0, 228.0, 190.0], alpha);
        let tail = (x - direction * (half - 1.0), body + height * 0.18);
        canvas.ellipse(tail, (1.3, 1.3), [190.0, 40.0, 36.0], alpha);
    }
}

fn paint(rng: &mut ChaCha8Rng) -> Rgb {
    let grey = rng.random_range(35.0..150.0);
    let mut colour = [grey; 3];
    if rng.random_bool(0.55) {
        for c in &mut colour {
            *c = rng.random_range(30.0..150.0);
        }
    }
    colour
}

/// Traffic that keeps its lane.
struct Drive {
    vehicle: Vehicle,
    lane: usize,
    direction: f32,
    /// Pixels per second.
    speed: f32,
    /// When its front enters the picture, seconds.
    enters: f32,
}

struct Walker {
    y: f32,
    x: f32,
    /// Pixels per second; negative: to the left.
    speed: f32,
    phase: f32,
    coat: Rgb,
    legs: Rgb,
}

/// Everything about one clip; [`frame`](Scene::frame) draws any of its frames.
pub struct Scene {
    seed: u64,
    frames: u64,
    background: Canvas,
    street: Street,
    drives: Vec<Drive>,
    walkers: Vec<Walker>,
    drift: (f32, f32, f32),
    warmth: f32,
    noise: Vec<f32>,
    anomaly: Option<Anomaly>,
}

impl Scene {
    /// The clip of this seed and kind, 10 to 20 s long.
    pub fn new(seed: u64, kind: ClipKind) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (kind as u64).wrapping_mul(0x00A5_A512_3477),
        );
        let frames = u64::from(rng.random_range(10 * FPS..=20 * FPS));
        let seconds = frames as f32 / FPS as f32;
        let wall = rng.random_range(62.0..92.0);
        let road_top = wall + rng.random_range(14.0..24.0);
        let street = Street {
            wall,
            road_top,
            road_bottom: road_top + rng.random_range(66.0..84.0),
            near_direction: if rng.random_bool(0.5) { 1.0 } else { -1.0 },
        };
        let background = background(&mut rng, street);
        let drives = traffic(&mut rng, street, seconds);
        let walkers = people(&mut rng, street);
        let sigma = rng.random_range(2.0..4.5);
        let noise = (0..NOISE_SAMPLES)
            .map(|_| {
                let sum: f32 = (0..4).map(|_| rng.random_range(-1.0..1.0f32)).sum();
                sum * sigma * 0.866
            })
            .collect();
        let drift = (
            rng.random_range(0.02..0.06),
            rng.random_range(15.0..50.0),
            rng.random_range(0.0..6.3),
        );
        let warmth = rng.random_range(-0.05..0.05);
        let anomaly = Anomaly::new(&mut rng, kind, street, frames);
        Scene {
            seed,
            frames,
            background,
            street,
            drives,
            walkers,
            drift,
            warmth,
            noise,
            anomaly,
        }
    }

    /// Frames of the clip.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Anomalous frames, ends exclusive, in order.
    pub fn intervals(&self) -> Vec<(u64, u64)> {
        self.anomaly.iter().map(Anomaly::interval).collect()
    }

    /// Frame `index` as RGB bytes, rows of `WIDTH * 3`.
    pub fn frame(&self, index: u64) -> Vec<u8> {
        let t = index as f32 / FPS as f32;
        let mut canvas = self.background.clone();

        let mut actors: Vec<(f32, usize)> = vec![];
        actors.extend(self.walkers.iter().enumerate().map(|(i, w)| (w.y, i)));
        let first_drive = self.walkers.len();
        let lanes = self.drives.iter().enumerate();
        actors.extend(lanes.map(|(i, d)| (self.street.lane(d.lane), first_drive + i)));
        actors.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut anomaly = self.anomaly.as_ref();
        for (y, i) in actors {
            // What is further down stands nearer and is drawn later.
            if let Some(standing) = anomaly.filter(|a| a.stands_at(t) < y) {
                standing.draw(&mut canvas, t);
                anomaly = None;
            }
            match i.checked_sub(first_drive) {
                None => self.walkers[i].draw(&mut canvas, t),
                Some(i) => self.drives[i].draw(&mut canvas, self.street, t),
            }
        }
        if let Some(nearest) = anomaly {
            nearest.draw(&mut canvas, t);
        }

        let (depth, period, phase) = self.drift;
        let gain = 1.0 + depth * (std::f32::consts::TAU * t / period + phase).sin();
        let channel = [gain * (1.0 + self.warmth), gain, gain * (1.0 - self.warmth)];
        let mut offset =
            ChaCha8Rng::seed_from_u64(self.seed ^ (index + 1).wrapping_mul(0xD134_2543_DE82_EF95));
        let mut at: usize = offset.random_range(0..NOISE_SAMPLES);
        let mut bytes = Vec::with_capacity(WIDTH * HEIGHT * 3);
        for pixel in &canvas.pixels {
            for (c, value) in pixel.iter().enumerate() {
                at = (at + 1) % NOISE_SAMPLES;
                let value = value * channel[c] + self.noise[at];
                bytes.push(value.round().clamp(0.0, 255.0) as u8);
            }
        }
        bytes
    }
}

impl Drive {
    fn draw(&self, canvas: &mut Canvas, street: Street, t: f32) {
        let way = self.speed * (t - self.enters) - self.vehicle.length;
        let x = if self.direction > 0.0 {
            way
        } else {
            WIDTH as f32 - way
        };
        if x > -80.0 && x < WIDTH as f32 + 80.0 {
            self.vehicle
                .draw(canvas, (x, street.lane(self.lane)), self.direction, 1.0);
        }
    }
}

impl Walker {
    fn draw(&self, canvas: &mut Canvas, t: f32) {
        // They turn round outside the picture and come back.
        let span = WIDTH as f32 + 60.0;
        let x = (self.x + self.speed * t).rem_euclid(span) - 30.0;
        let s = Street::scale(self.y) * 1.15;
        let y = self.y;
        let swing = (t * 5.5 + self.phase).sin() * 2.4 * s;
        canvas.ellipse((x, y + 0.5), (4.5 * s, 1.5 * s), [20.0; 3], 0.35);
        for (foot, knee) in [(swing, 0.9), (-swing, -0.9)] {
            let (left, right) = (x + knee * s + foot * 0.5 - s, x + knee * s + foot * 0.5 + s);
            canvas.rect((left, y - 9.0 * s), (right, y), self.legs, 1.0);
        }
        canvas.ellipse((x, y - 14.0 * s), (3.4 * s, 6.6 * s), self.coat, 1.0);
        canvas.ellipse(
            (x, y - 22.0 * s),
            (2.3 * s, 2.6 * s),
            [176.0, 136.0, 112.0],
            1.0,
        );
    }
}

fn traffic(rng: &mut ChaCha8Rng, street: Street, seconds: f32) -> Vec<Drive> {
    let mut drives = vec![];
    for lane in 0..2 {
        let direction = street.near_direction * if lane == 0 { -1.0 } else { 1.0 };
        let speed = rng.random_range(42.0..72.0);
        let mut enters = -8.0 + rng.random_range(0.0..2.0);
        while enters < seconds {
            drives.push(Drive {
                vehicle: Vehicle::random(rng),
                lane,
                direction,
                speed,
                enters,
            });
            enters += rng.random_range(2.2..5.5);
        }
    }
    drives
}

fn people(rng: &mut ChaCha8Rng, street: Street) -> Vec<Walker> {
    let count = rng.random_range(3..8);
    (0..count)
        .map(|_| {
            let y = if rng.random_bool(0.4) {
                rng.random_range(street.wall + 5.0..street.road_top - 2.0)
            } else {
                rng.random_range(street.road_bottom + 14.0..HEIGHT as f32 - 6.0)
            };
            let way = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
            Walker {
                y,
                x: rng.random_range(0.0..WIDTH as f32),
                speed: way * rng.random_range(9.0..19.0),
                phase: rng.random_range(0.0..6.3),
                coat: paint(rng),
                legs: [rng.random_range(25.0..75.0); 3],
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest mean difference of a channel over any 16×16 block.
    fn difference(a: &[u8], b: &[u8]) -> f32 {
        let mut worst = 0.0f32;
        for by in 0..HEIGHT / 16 {
            for bx in 0..WIDTH / 16 {
                let mut sum = 0.0;
                for y in by * 16..by * 16 + 16 {
                    let row = (y * WIDTH + bx * 16) * 3..(y * WIDTH + bx * 16 + 16) * 3;
                    let (a, b) = (&a[row.clone()], &b[row]);
                    sum += a
                        .iter()
                        .zip(b)
                        .map(|(a, b)| f32::from(a.abs_diff(*b)))
                        .sum::<f32>();
                }
                worst = worst.max(sum / (16.0 * 16.0 * 3.0));
            }
        }
        worst
    }

    #[test]
    fn an_anomaly_is_seen_within_its_interval_and_only_there() {
        for kind in [
            ClipKind::Flash,
            ClipKind::Smoke,
            ClipKind::FastMover,
            ClipKind::WrongWay,
        ] {
            for seed in 0..4 {
                let scene = Scene::new(seed, kind);
                let mut calm = Scene::new(seed, kind);
                calm.anomaly = None;
                let intervals = scene.intervals();
                let [(first, end)] = intervals[..] else {
                    panic!("{kind:?} {seed}: {intervals:?}");
                };
                assert!(first >= 48 && end > first + 48 && end <= scene.frames());
                for outside in [0, first - 1]
                    .into_iter()
                    .chain((end < scene.frames()).then_some(end))
                {
                    assert!(
                        scene.frame(outside) == calm.frame(outside),
                        "{kind:?} {seed} {outside}"
                    );
                }
                let inside: Vec<u64> = (first + 3..end).step_by(7).collect();
                let seen = inside
                    .iter()
                    .filter(|f| difference(&scene.frame(**f), &calm.frame(**f)) > 3.0)
                    .count();
                assert!(
                    seen as f32 >= 0.9 * inside.len() as f32,
                    "{kind:?} {seed}: seen in {seen} of {} frames",
                    inside.len()
                );
            }
        }
        assert!(Scene::new(0, ClipKind::Normal).intervals().is_empty());
    }

    #[test]
    fn a_clip_is_its_seed() {
        let (a, b) = (
            Scene::new(9, ClipKind::Smoke),
            Scene::new(9, ClipKind::Smoke),
        );
        assert_eq!(a.intervals(), b.intervals());
        assert!(a.frame(200) == b.frame(200));
        assert!(a.frame(200) != Scene::new(10, ClipKind::Smoke).frame(200));
        for seed in 0..50 {
            let frames = Scene::new(seed, ClipKind::Normal).frames();
            assert!((300..=600).contains(&frames), "{frames}");
        }
    }
}
