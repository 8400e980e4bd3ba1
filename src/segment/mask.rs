//! Parts of the picture that nobody is to see: burnt-in clocks, neighbours' windows.
//!
//! A mask is a polygon in parts of the upright picture's width and height, filled by the even-odd
//! rule: a pixel is blackened if a ray from its centre crosses the outline an odd number of times.
//! Of several polygons each blackens its own pixels. Which pixels these are is worked out once per
//! picture size; after that a picture costs the writing of its black pixels.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    error::{Error, Result},
    limits::{FRAME_MAX_SIDE, MASK_POINTS_MAX, MASK_POINTS_MIN, MASK_POLYGONS_MAX},
    media::RgbImage,
};

#[cfg(test)]
mod tests;

/// Polygons to black out; none by default.
#[derive(Default)]
pub struct Masks {
    polygons: Vec<Vec<(f64, f64)>>,
    /// Of the last picture's size: a stream rarely changes it.
    spans: Mutex<Option<Arc<Spans>>>,
}

/// The black pixels of one picture size.
struct Spans {
    width: u32,
    height: u32,
    /// Row by row: the row, and its first and one past its last black pixel; none empty, none
    /// touching another. Sides are at most [`FRAME_MAX_SIDE`], so 16 bits hold them.
    runs: Vec<(u16, u16, u16)>,
}

impl Masks {
    /// Masks of these polygons; a point is (x, y), from the left and from the top, each 0 to 1. The
    /// last point is joined to the first.
    ///
    /// `InvalidArgument`, naming the field from `masks` on, for more polygons or points than the
    /// limits allow, fewer than three points, and a coordinate that is not 0 to 1.
    pub fn new(polygons: Vec<Vec<(f64, f64)>>) -> Result<Masks> {
        if polygons.len() > MASK_POLYGONS_MAX {
            return Err(Error::invalid(format!(
                "{} masks: give at most {MASK_POLYGONS_MAX}",
                polygons.len()
            ))
            .with_field("masks"));
        }
        for (i, points) in polygons.iter().enumerate() {
            if !(MASK_POINTS_MIN..=MASK_POINTS_MAX).contains(&points.len()) {
                return Err(Error::invalid(format!(
                    "mask {i} has {} points: give {MASK_POINTS_MIN} to {MASK_POINTS_MAX}",
                    points.len()
                ))
                .with_field(format!("masks[{i}].points")));
            }
            for (k, &(x, y)) in points.iter().enumerate() {
                for (name, value) in [("x", x), ("y", y)] {
                    // Written so that NaN is refused too.
                    if !(0.0..=1.0).contains(&value) {
                        return Err(Error::invalid(format!(
                            "point {k} of mask {i} has {name} = {value}: give 0 to 1, a part of \
                             the picture"
                        ))
                        .with_field(format!("masks[{i}].points[{k}].{name}")));
                    }
                }
            }
        }
        Ok(Masks {
            polygons,
            spans: Mutex::new(None),
        })
    }

    /// Whether there is nothing to black out.
    pub fn is_empty(&self) -> bool {
        self.polygons.is_empty()
    }

    /// The polygons.
    pub fn polygons(&self) -> &[Vec<(f64, f64)>] {
        &self.polygons
    }

    /// Blackens every pixel whose centre is in a mask.
    ///
    /// `InvalidArgument` for a picture without pixels, larger than [`FRAME_MAX_SIDE`] or of the
    /// wrong number of bytes: one that cannot be masked must not be shown.
    pub fn apply(&self, picture: &mut RgbImage) -> Result<()> {
        let (width, height) = (picture.width, picture.height);
        let row_bytes = width as usize * 3;
        let sizes = 1..=FRAME_MAX_SIDE;
        if !sizes.contains(&width)
            || !sizes.contains(&height)
            || picture.data.len() != row_bytes * height as usize
        {
            return Err(Error::invalid(format!(
                "cannot mask a {width}x{height} picture of {} bytes: sides are 1 to \
                 {FRAME_MAX_SIDE} pixels of 3 bytes",
                picture.data.len()
            )));
        }
        if self.is_empty() {
            return Ok(());
        }
        for &(row, from, to) in &self.spans(width, height).runs {
            let row = usize::from(row) * row_bytes;
            let black = row + usize::from(from) * 3..row + usize::from(to) * 3;
            if let Some(black) = picture.data.get_mut(black) {
                black.fill(0);
            }
        }
        Ok(())
    }

    fn spans(&self, width: u32, height: u32) -> Arc<Spans> {
        // A panic cannot leave the slot half-changed.
        let mut kept = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(spans) if (spans.width, spans.height) == (width, height) => spans.clone(),
            _ => {
                let spans = Arc::new(Spans::new(&self.polygons, width, height));
                *kept = Some(spans.clone());
                spans
            }
        }
    }
}

impl Clone for Masks {
    fn clone(&self) -> Self {
        Masks {
            polygons: self.polygons.clone(),
            spans: Mutex::new(None),
        }
    }
}

impl PartialEq for Masks {
    fn eq(&self, other: &Self) -> bool {
        self.polygons == other.polygons
    }
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Masks").field(&self.polygons).finish()
    }
}

impl Spans {
    fn new(polygons: &[Vec<(f64, f64)>], width: u32, height: u32) -> Spans {
        let (w, h) = (f64::from(width), f64::from(height));
        let scaled: Vec<Vec<(f64, f64)>> = polygons
            .iter()
            .map(|points| points.iter().map(|(x, y)| (x * w, y * h)).collect())
            .collect();
        let mut runs = Vec::new();
        let mut row_runs: Vec<(u16, u16)> = Vec::new();
        for row in 0..height as u16 {
            row_runs.clear();
            for points in &scaled {
                inside(points, f64::from(row) + 0.5, w, &mut row_runs);
            }
            row_runs.sort_unstable();
            let mut open: Option<(u16, u16)> = None;
            for &(from, to) in &row_runs {
                match &mut open {
                    Some((_, end)) if from <= *end => *end = to.max(*end),
                    _ => {
                        runs.extend(open.map(|(from, to)| (row, from, to)));
                        open = Some((from, to));
                    }
                }
            }
            runs.extend(open.map(|(from, to)| (row, from, to)));
        }
        Spans {
            width,
            height,
            runs,
        }
    }
}

/// Adds the pixels of one row, whose centres have this `y`, that are inside the polygon.
fn inside(points: &[(f64, f64)], y: f64, width: f64, runs: &mut Vec<(u16, u16)>) {
    let ends = points.iter().skip(1).chain(points.first());
    let mut crossings: Vec<f64> = points
        .iter()
        .zip(ends)
        // Half open, so that a corner on the row counts once where the outline passes through.
        .filter(|(a, b)| (a.1 <= y) != (b.1 <= y))
        .map(|(a, b)| a.0 + (y - a.1) * (b.0 - a.0) / (b.1 - a.1))
        .collect();
    crossings.sort_unstable_by(f64::total_cmp);
    // The first pixel whose centre is at or right of the crossing.
    let pixel = |x: f64| (x - 0.5).ceil().clamp(0.0, width) as u16;
    for pair in crossings.as_chunks::<2>().0 {
        let (from, to) = (pixel(pair[0]), pixel(pair[1]));
        if from < to {
            runs.push((from, to));
        }
    }
}
