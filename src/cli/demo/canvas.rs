//! A small picture to draw on: floating point, edges blended by coverage so that slow motion
//! moves smoothly.

/// A colour, 0 to 255 per channel.
pub type Rgb = [f32; 3];

/// `height` rows of `width` RGB pixels.
#[derive(Clone)]
pub struct Canvas {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<Rgb>,
}

impl Canvas {
    pub fn new(width: usize, height: usize, colour: Rgb) -> Self {
        Canvas {
            width,
            height,
            pixels: vec![colour; width * height],
        }
    }

    /// Pixel columns or rows that `from..to` touches.
    fn span(from: f32, to: f32, limit: usize) -> std::ops::Range<usize> {
        let clamp = |v: f32| (v.max(0.0) as usize).min(limit);
        clamp(from.floor())..clamp(to.ceil())
    }

    fn blend(&mut self, x: usize, y: usize, colour: Rgb, alpha: f32) {
        if let Some(pixel) = self.pixels.get_mut(y * self.width + x) {
            for (p, c) in pixel.iter_mut().zip(colour) {
                *p += (c - *p) * alpha;
            }
        }
    }

    /// An axis-parallel rectangle between two corners.
    pub fn rect(&mut self, (x0, y0): (f32, f32), (x1, y1): (f32, f32), colour: Rgb, alpha: f32) {
        let cover = |at: usize, from: f32, to: f32| {
            (to.min(at as f32 + 1.0) - from.max(at as f32)).clamp(0.0, 1.0)
        };
        for y in Self::span(y0, y1, self.height) {
            for x in Self::span(x0, x1, self.width) {
                let amount = alpha * cover(x, x0, x1) * cover(y, y0, y1);
                self.blend(x, y, colour, amount);
            }
        }
    }

    /// An ellipse with an edge one pixel soft.
    pub fn ellipse(&mut self, (cx, cy): (f32, f32), (rx, ry): (f32, f32), colour: Rgb, alpha: f32) {
        let (rx, ry) = (rx.max(0.1), ry.max(0.1));
        for y in Self::span(cy - ry - 1.0, cy + ry + 1.0, self.height) {
            for x in Self::span(cx - rx - 1.0, cx + rx + 1.0, self.width) {
                let dx = (x as f32 + 0.5 - cx) / rx;
                let dy = (y as f32 + 0.5 - cy) / ry;
                let inside = (1.0 - dx.hypot(dy)) * rx.min(ry) + 0.5;
                self.blend(x, y, colour, alpha * inside.clamp(0.0, 1.0));
            }
        }
    }

    /// A round cloud that fades towards its edge.
    pub fn puff(&mut self, (cx, cy): (f32, f32), radius: f32, colour: Rgb, alpha: f32) {
        for y in Self::span(cy - radius, cy + radius, self.height) {
            for x in Self::span(cx - radius, cx + radius, self.width) {
                let d = (x as f32 + 0.5 - cx).hypot(y as f32 + 0.5 - cy) / radius;
                let inside = (1.0 - d * d).max(0.0);
                self.blend(x, y, colour, alpha * inside * inside);
            }
        }
    }

    /// Light from a point, added: `colour` at the centre, falling off over `radius`.
    pub fn glow(&mut self, (cx, cy): (f32, f32), radius: f32, colour: Rgb, strength: f32) {
        let reach = radius * 3.0;
        for y in Self::span(cy - reach, cy + reach, self.height) {
            for x in Self::span(cx - reach, cx + reach, self.width) {
                let (dx, dy) = (x as f32 + 0.5 - cx, y as f32 + 0.5 - cy);
                let light = strength * (-(dx * dx + dy * dy) / (2.0 * radius * radius)).exp();
                if let Some(pixel) = self.pixels.get_mut(y * self.width + x) {
                    for (p, c) in pixel.iter_mut().zip(colour) {
                        *p += c * light;
                    }
                }
            }
        }
    }

    /// Multiplies every channel by a factor of the pixel's place.
    pub fn shade(&mut self, factor: impl Fn(usize, usize) -> f32) {
        let width = self.width;
        for (i, pixel) in self.pixels.iter_mut().enumerate() {
            let f = factor(i % width, i / width);
            for p in pixel {
                *p *= f;
            }
        }
    }
}
