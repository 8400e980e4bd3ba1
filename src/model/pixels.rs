//! Pixels as the model was shown them in training: Pillow's bicubic resize to a square, then
//! ImageNet normalisation.
//!
//! [`resize_bicubic`] gives the same bytes as `PIL.Image.resize((side, side), BICUBIC)`. The crate
//! `fast_image_resize` 6.1 (`CatmullRom`) was compared first: on the test pattern it differs from
//! Pillow on 17 to 36% of the values, by up to 27 levels, which is no tolerance for a model's input.
//! It needed 1.5 ms for 1080p to 448 when this took 2.0 ms, and both 0.27 ms for 320×240 (one thread, AVX2).

mod bicubic;
#[cfg(any(test, feature = "cuda"))]
mod passes;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::{
    error::{Error, Result},
    limits::{FRAME_MAX_SIDE, RESIZE_TABLES_MAX},
    media::{RgbImage, RgbRows, rgb_bytes, spare::Scratch},
};

use bicubic::Axis;
#[cfg(feature = "cuda")]
pub(super) use passes::{Pass, passes, table};

/// Mean of each channel (R, G, B) that [`normalize`] takes off, on the scale 0..1 (ImageNet).
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];

/// Standard deviation of each channel (R, G, B) that [`normalize`] divides by (ImageNet).
pub const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Resizes a picture of any aspect to `side * side * 3` bytes (rows of RGB), bit-equal to Pillow's
/// `BICUBIC` (version 13): a = −0.5, antialiased where it shrinks, in two passes, rounded to u8 after
/// each; horizontally first unless the picture is tall, and then row by row as the picture gives
/// them. Runs on the calling thread alone.
///
/// # Errors
/// `InvalidArgument` where a size is zero or above [`FRAME_MAX_SIDE`], or where the rows are not
/// `width * height * 3` bytes; those of the picture.
pub fn resize_bicubic(rgb: &dyn RgbRows, side: u32) -> Result<Vec<u8>> {
    check(rgb.size(), (side, side))?;
    let mut pixels = vec![0; rgb_bytes((side, side))];
    resize_bicubic_into(rgb, side, &mut pixels)?;
    Ok(pixels)
}

/// As [`resize_bicubic`], into `pixels`, which must be `side * side * 3` bytes.
///
/// # Errors
/// As [`resize_bicubic`]; what is in `pixels` then is of no use.
pub fn resize_bicubic_into(rgb: &dyn RgbRows, side: u32, pixels: &mut [u8]) -> Result<()> {
    let size = rgb.size();
    check(size, (side, side))?;
    if pixels.len() != rgb_bytes((side, side)) {
        return Err(Error::internal(format!(
            "{side}x{side} RGB pixels do not go into {} bytes",
            pixels.len()
        )));
    }
    let (width, height, side) = (size.0 as usize, size.1 as usize, side as usize);

    // Like Pillow, a pass that would keep its size is left out.
    match (width == side, height == side) {
        (true, true) => {
            let mut rest = pixels;
            each(rgb, &mut |rows| {
                let (now, later) = std::mem::take(&mut rest).split_at_mut(rows.len());
                now.copy_from_slice(rows);
                rest = later;
            })?;
        }
        (true, false) => bicubic::vertical(&whole(rgb)?, side, &axis(height, side), pixels),
        (false, true) => narrowed(rgb, side, pixels)?,
        (false, false) => {
            let down = axis(height, side);
            if vertical_first(width, height, side) {
                let mut low = Scratch::new(side * width * 3);
                let low = low.get();
                bicubic::vertical(&whole(rgb)?, width, &down, low);
                let across = axis(width, side);
                let mut narrow = bicubic::Horizontal::new(&across, pixels);
                narrow.push(low);
                narrow.finish();
            } else {
                let mut narrow = Scratch::new(height * side * 3);
                let narrow = narrow.get();
                narrowed(rgb, side, narrow)?;
                bicubic::vertical(narrow, side, &down, pixels);
            }
        }
    }
    Ok(())
}

/// The rows in one piece.
fn whole(rgb: &dyn RgbRows) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(rgb_bytes(rgb.size()));
    each(rgb, &mut |rows| data.extend_from_slice(rows))?;
    Ok(data)
}

/// The rows resized to `width` pixels, as many as the picture has.
fn narrowed(rgb: &dyn RgbRows, width: usize, out: &mut [u8]) -> Result<()> {
    let across = axis(rgb.size().0 as usize, width);
    let mut narrow = bicubic::Horizontal::new(&across, out);
    each(rgb, &mut |rows| narrow.push(rows))?;
    narrow.finish();
    Ok(())
}

/// Takes the rows, which must be as many as the size says.
fn each(rgb: &dyn RgbRows, take: &mut dyn FnMut(&[u8])) -> Result<()> {
    let size = rgb.size();
    let (expected, mut given) = (rgb_bytes(size), 0usize);
    rgb.rows(&mut |rows| {
        let left = expected - given.min(expected);
        take(&rows[..rows.len().min(left)]);
        given += rows.len();
    })?;
    if given == expected {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a {}x{} RGB picture has {expected} bytes, but {given} were given",
        size.0, size.1
    )))
}

/// Resizes a picture to `width` by `height` pixels with the same kernel, horizontally first: for
/// people's eyes, where no model's input must be met to the bit.
///
/// # Errors
/// As [`resize_bicubic`].
pub fn resize_to(rgb: &RgbImage, width: u32, height: u32) -> Result<RgbImage> {
    check(rgb.size(), (width, height))?;
    let down = axis(rgb.height as usize, height as usize);
    let mut narrow = vec![0; rgb_bytes((width, rgb.height))];
    narrowed(rgb, width as usize, &mut narrow)?;
    let mut data = vec![0; rgb_bytes((width, height))];
    bicubic::vertical(&narrow, width as usize, &down, &mut data);
    Ok(RgbImage {
        width,
        height,
        data,
    })
}

/// The size of a picture of `width` by `height` pixels that is reduced, never enlarged, until its
/// larger side is at most `max_side`; each side at least 1.
pub fn fit(width: u32, height: u32, max_side: u32) -> (u32, u32) {
    let larger = u64::from(width.max(height)).max(1);
    let most = u64::from(max_side).min(larger);
    let side = |side: u32| {
        let rounded = (u64::from(side) * most + larger / 2) / larger;
        // At most `max_side`.
        u32::try_from(rounded).unwrap_or(max_side).max(1)
    };
    (side(width), side(height))
}

/// Refuses sizes that nothing is resized from or to.
fn check((width, height): (u32, u32), target: (u32, u32)) -> Result<()> {
    for (name, size) in [
        ("width", width),
        ("height", height),
        ("target side", target.0),
        ("target side", target.1),
    ] {
        if size == 0 || size > FRAME_MAX_SIDE {
            return Err(Error::invalid(format!(
                "cannot resize a {width}x{height} picture to {}x{}: the {name} must be 1 to \
                 {FRAME_MAX_SIDE} pixels",
                target.0, target.1
            )));
        }
    }
    Ok(())
}

/// Whether Pillow takes the vertical pass first: since version 13 it does where the height loses
/// more than twice as many pixels as the width. Pictures in landscape are never meant; on tall ones
/// older versions differ from it by the rounding between the passes.
fn vertical_first(width: usize, height: usize, side: usize) -> bool {
    height > side && height + side > 2 * width
}

/// Turns RGB bytes (rows of R G B) into the planes R, G, B of `(v / 255 − mean) / std`, each in
/// the same order of pixels: `[3, height, width]`. Every value equals PyTorch's in f32.
///
/// # Errors
/// `InvalidArgument` where `rgb` is empty or not a multiple of three bytes.
pub fn normalize(rgb: &[u8]) -> Result<Vec<f32>> {
    let mut planes = vec![0.0; rgb.len()];
    normalize_into(rgb, &mut planes)?;
    Ok(planes)
}

/// [`normalize`] into a slice of the same length, e.g. one picture of a batch.
///
/// # Errors
/// `InvalidArgument` where `rgb` is empty or not a multiple of three bytes, or the lengths differ.
pub fn normalize_into(rgb: &[u8], planes: &mut [f32]) -> Result<()> {
    if rgb.is_empty() || !rgb.len().is_multiple_of(3) || rgb.len() != planes.len() {
        return Err(Error::invalid(format!(
            "cannot normalise {} bytes of RGB into {} values: both must be 3 times the number of \
             pixels, which is at least 1",
            rgb.len(),
            planes.len()
        )));
    }
    let [r, g, b] = levels();
    let pixels = rgb.len() / 3;
    let (reds, rest) = planes.split_at_mut(pixels);
    let (greens, blues) = rest.split_at_mut(pixels);
    for (((pixel, red), green), blue) in rgb
        .as_chunks::<3>()
        .0
        .iter()
        .zip(reds)
        .zip(greens)
        .zip(blues)
    {
        *red = r[usize::from(pixel[0])];
        *green = g[usize::from(pixel[1])];
        *blue = b[usize::from(pixel[2])];
    }
    Ok(())
}

/// The normalised value of each of the 256 levels of each channel.
pub(super) fn levels() -> &'static [[f32; 256]; 3] {
    static LEVELS: OnceLock<[[f32; 256]; 3]> = OnceLock::new();
    LEVELS.get_or_init(|| {
        std::array::from_fn(|channel| {
            std::array::from_fn(|level| (level as f32 / 255.0 - MEAN[channel]) / STD[channel])
        })
    })
}

/// The table for shrinking or stretching `from` pixels to `to`, kept for the next frame: a stream
/// asks for the same two tables on every frame.
fn axis(from: usize, to: usize) -> Arc<Axis> {
    static TABLES: Mutex<Vec<Arc<Axis>>> = Mutex::new(Vec::new());
    // A panic cannot leave the list half-changed: at worst an entry is missing.
    let tables = || TABLES.lock().unwrap_or_else(PoisonError::into_inner);

    let mut kept = tables();
    if let Some(at) = kept.iter().position(|a| (a.from, a.to) == (from, to)) {
        let found = kept.remove(at);
        kept.push(found.clone());
        return found;
    }
    drop(kept);

    let made = Arc::new(Axis::new(from, to));
    let mut kept = tables();
    if kept.len() >= RESIZE_TABLES_MAX {
        kept.remove(0);
    }
    kept.push(made.clone());
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Kind, media::spare};

    #[test]
    fn tables_are_bounded_and_reused() {
        let first = axis(320, 448);
        assert!(Arc::ptr_eq(&first, &axis(320, 448)));
        for from in 1..3 * RESIZE_TABLES_MAX {
            axis(from, 14);
        }
        assert!(!Arc::ptr_eq(&first, &axis(320, 448)));
    }

    #[test]
    fn wrong_sizes_are_named() {
        let image = |width, height, bytes| RgbImage {
            width,
            height,
            data: vec![7; bytes],
        };
        for (picture, side, word) in [
            (image(0, 4, 0), 8, "width"),
            (image(4, 0, 0), 8, "height"),
            (image(4, 4, 48), 0, "target side"),
            (image(4, 4, 48), FRAME_MAX_SIDE + 1, "target side"),
            (image(FRAME_MAX_SIDE + 1, 1, 3), 8, "width"),
            (image(4, 4, 47), 8, "48 bytes"),
            (image(4, 4, 64), 8, "64 were given"),
        ] {
            let error = resize_bicubic(&picture, side).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.message().contains(word), "{error} lacks {word:?}");
        }
        assert!(normalize(&[]).is_err());
        assert!(normalize(&[1, 2, 3, 4]).is_err());
        assert!(normalize_into(&[1, 2, 3], &mut [0.0; 6]).is_err());
    }

    /// A picture whose rows come so many at a time.
    struct Pieces<'a>(&'a RgbImage, usize);

    impl RgbRows for Pieces<'_> {
        fn size(&self) -> (u32, u32) {
            self.0.size()
        }

        fn rows(&self, give: &mut dyn FnMut(&[u8])) -> Result<()> {
            let rows = self.0.data.chunks(self.1 * self.0.width as usize * 3);
            rows.for_each(give);
            Ok(())
        }
    }

    fn striped(width: u32, height: u32) -> RgbImage {
        RgbImage {
            width,
            height,
            data: (0..width * height * 3)
                .map(|i| (i * 37 % 251) as u8)
                .collect(),
        }
    }

    #[test]
    fn rows_may_come_in_any_pieces() {
        // Also where a pass is left out, and where the vertical one is first.
        for (width, height) in [(53, 47), (28, 47), (53, 28), (28, 28), (19, 90)] {
            let picture = striped(width, height);
            let whole = resize_bicubic(&picture, 28).unwrap();
            // What was there before is of no account.
            let mut used = vec![0xA5; whole.len()];
            resize_bicubic_into(&picture, 28, &mut used).unwrap();
            assert_eq!(used, whole, "{width}x{height}");
            for piece in [1, 5, 16, 17, 40] {
                let pieces = resize_bicubic(&Pieces(&picture, piece), 28).unwrap();
                assert_eq!(pieces, whole, "{width}x{height} by {piece}");
            }
        }
    }

    /// Widening, and a tall one: what lies between the passes is memory that was used before.
    #[test]
    fn used_memory_between_the_passes_is_of_no_account() {
        for (width, height, between) in [(320, 240, 448 * 240 * 3), (300, 900, 300 * 448 * 3)] {
            let picture = striped(width, height);
            let first = resize_bicubic(&picture, 448).unwrap();
            for level in [0, 0xA5] {
                spare::give_back(std::iter::repeat_n(level, between).collect());
                assert!(resize_bicubic(&picture, 448).unwrap() == first, "{level}");
            }
        }
    }

    #[test]
    fn pictures_for_people_keep_their_aspect_and_are_never_enlarged() {
        for (size, max, expected) in [
            ((1920, 1080), 640, (640, 360)),
            ((1080, 1920), 640, (360, 640)),
            ((640, 480), 640, (640, 480)),
            ((320, 240), 640, (320, 240)),
            ((8000, 2), 100, (100, 1)),
            ((1, 1), 1, (1, 1)),
            ((1000, 999), 3, (3, 3)),
        ] {
            assert_eq!(fit(size.0, size.1, max), expected);
        }
        // Left half black, right half white: the halves stay where they were.
        let row: Vec<u8> = [vec![0; 3 * 40], vec![255; 3 * 40]].concat();
        let picture = RgbImage {
            width: 80,
            height: 20,
            data: row.repeat(20),
        };
        let small = resize_to(&picture, 16, 4).unwrap();
        assert_eq!((small.width, small.height, small.data.len()), (16, 4, 192));
        for row in small.data.chunks(48) {
            assert!(row[..18].iter().all(|v| *v < 8) && row[30..].iter().all(|v| *v > 247));
        }
        assert_eq!(resize_to(&picture, 80, 20).unwrap().data, picture.data);
        assert!(resize_to(&picture, 0, 20).is_err());
    }

    #[test]
    fn normalised_planes_hold_their_channel() {
        let planes = normalize(&[255, 0, 0, 255, 128, 10]).unwrap();
        let of = |level: f32, channel: usize| (level / 255.0 - MEAN[channel]) / STD[channel];
        assert_eq!(
            planes,
            [
                of(255.0, 0),
                of(255.0, 0),
                of(0.0, 1),
                of(128.0, 1),
                of(0.0, 2),
                of(10.0, 2)
            ]
        );
    }
}
