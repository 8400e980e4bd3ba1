//! What never moves in a scene: buildings, pavements, the road and its texture.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{
    canvas::Canvas,
    scene::{HEIGHT, Street, WIDTH},
};

/// Smooth random field of cells `size` pixels wide, values in 0..1.
struct Field {
    size: f32,
    columns: usize,
    cells: Vec<f32>,
}

impl Field {
    fn new(rng: &mut ChaCha8Rng, size: f32) -> Self {
        let columns = (WIDTH as f32 / size) as usize + 2;
        let rows = (HEIGHT as f32 / size) as usize + 2;
        Field {
            size,
            columns,
            cells: (0..columns * rows)
                .map(|_| rng.random_range(0.0..1.0))
                .collect(),
        }
    }

    fn at(&self, x: usize, y: usize) -> f32 {
        let (u, v) = (x as f32 / self.size, y as f32 / self.size);
        let (i, j) = (u as usize, v as usize);
        let ease = |f: f32| f * f * (3.0 - 2.0 * f);
        let (fu, fv) = (ease(u.fract()), ease(v.fract()));
        let cell =
            |i: usize, j: usize| self.cells.get(j * self.columns + i).copied().unwrap_or(0.5);
        let top = cell(i, j) + (cell(i + 1, j) - cell(i, j)) * fu;
        let bottom = cell(i, j + 1) + (cell(i + 1, j + 1) - cell(i, j + 1)) * fu;
        top + (bottom - top) * fv
    }
}

/// All of it.
pub fn background(rng: &mut ChaCha8Rng, street: Street) -> Canvas {
    let (w, h) = (WIDTH as f32, HEIGHT as f32);
    let sky = rng.random_range(128.0..158.0);
    let mut canvas = Canvas::new(WIDTH, HEIGHT, [sky * 0.92, sky * 0.97, sky]);
    buildings(rng, &mut canvas, street);

    let stone = rng.random_range(112.0..136.0);
    let pavement = [stone, stone * 0.97, stone * 0.92];
    canvas.rect((0.0, street.wall), (w, street.road_top), pavement, 1.0);
    canvas.rect(
        (0.0, street.road_bottom),
        (w, h),
        pavement.map(|c| c * 0.95),
        1.0,
    );
    let joint = pavement.map(|c| c * 0.82);
    let tile: f32 = rng.random_range(17.0..29.0);
    let mut y = street.road_bottom + 4.0;
    while y < h {
        canvas.rect((0.0, y), (w, y + 1.0), joint, 0.6);
        y += tile * 0.6;
    }
    let mut x = rng.random_range(0.0..tile);
    while x < w {
        canvas.rect((x, street.road_bottom + 4.0), (x + 1.0, h), joint, 0.6);
        canvas.rect(
            (x, street.wall),
            (x + 1.0, street.road_top - 3.0),
            joint,
            0.4,
        );
        x += tile;
    }

    let asphalt = rng.random_range(68.0..86.0);
    canvas.rect(
        (0.0, street.road_top),
        (w, street.road_bottom),
        [asphalt, asphalt, asphalt * 1.04],
        1.0,
    );
    for kerb in [street.road_top - 3.0, street.road_bottom] {
        canvas.rect((0.0, kerb), (w, kerb + 3.0), [168.0, 166.0, 160.0], 0.8);
    }
    let middle = (street.road_top + street.road_bottom) / 2.0;
    let mut x = rng.random_range(-20.0..0.0);
    while x < w {
        canvas.rect(
            (x, middle - 1.0),
            (x + 16.0, middle + 1.0),
            [205.0, 203.0, 190.0],
            0.75,
        );
        x += 32.0;
    }
    for _ in 0..rng.random_range(1..5) {
        let (x, r) = (rng.random_range(0.0..w), rng.random_range(7.0..15.0));
        let y = rng.random_range(street.road_bottom + 12.0..h);
        let green = rng.random_range(70.0..110.0);
        canvas.ellipse(
            (x, y),
            (r, r * 0.7),
            [green * 0.55, green, green * 0.5],
            1.0,
        );
        canvas.ellipse(
            (x - r * 0.2, y - r * 0.2),
            (r * 0.6, r * 0.4),
            [green * 0.7, green * 1.2, green * 0.6],
            0.7,
        );
    }

    let (coarse, fine) = (Field::new(rng, 40.0), Field::new(rng, 3.0));
    let light = rng.random_range(0.88..1.04);
    canvas.shade(|x, y| {
        let texture = 1.0 + 0.14 * (coarse.at(x, y) - 0.5) + 0.12 * (fine.at(x, y) - 0.5);
        let (dx, dy) = (x as f32 / w - 0.5, y as f32 / h - 0.5);
        light * texture * (1.0 - 0.35 * (dx * dx + dy * dy))
    });
    canvas
}

fn buildings(rng: &mut ChaCha8Rng, canvas: &mut Canvas, street: Street) {
    let w = WIDTH as f32;
    let mut x = -rng.random_range(0.0..40.0f32);
    while x < w {
        let width = rng.random_range(45.0..100.0);
        let top = if rng.random_bool(0.3) {
            rng.random_range(8.0..28.0)
        } else {
            -1.0
        };
        let tone: f32 = rng.random_range(80.0..122.0);
        let tint: [f32; 3] = [
            rng.random_range(0.9..1.15),
            1.0,
            rng.random_range(0.8..1.05),
        ];
        let facade = tint.map(|c| c * tone);
        canvas.rect((x, top), (x + width - 1.0, street.wall), facade, 1.0);
        let (across, down) = (rng.random_range(13.0..20.0), rng.random_range(15.0..22.0));
        let mut wy = top.max(0.0) + 6.0;
        while wy + 9.0 < street.wall - 6.0 {
            let mut wx = x + 6.0;
            while wx + 7.0 < x + width - 4.0 {
                let lit = rng.random_bool(0.06);
                let glass = if lit {
                    [158.0, 146.0, 104.0]
                } else {
                    facade.map(|c| c * 0.45)
                };
                canvas.rect((wx, wy), (wx + 7.0, wy + 9.0), glass, 0.9);
                wx += across;
            }
            wy += down;
        }
        x += width;
    }
}
