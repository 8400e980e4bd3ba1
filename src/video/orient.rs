//! Turning a picture upright. Pure.

use crate::media::RgbImage;

/// How the stored picture must be turned to stand upright.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orientation {
    /// Mirror left and right, before turning.
    flip: bool,
    /// Quarter turns clockwise.
    quarters: u8,
}

impl Orientation {
    /// From the value of GStreamer's `image-orientation` tag; `None` for an unknown one.
    ///
    /// The values are the eight EXIF orientations 1..8, in this order: `rotate-0`,
    /// `flip-rotate-0`, `rotate-180`, `flip-rotate-180`, `flip-rotate-270`, `rotate-90`,
    /// `flip-rotate-90`, `rotate-270`. `rotate-N` is N degrees clockwise; a flip is a horizontal
    /// mirroring before it.
    pub(crate) fn from_tag(tag: &str) -> Option<Self> {
        let (flip, rest) = match tag.strip_prefix("flip-") {
            Some(rest) => (true, rest),
            None => (false, tag),
        };
        let quarters = match rest {
            "rotate-0" => 0,
            "rotate-90" => 1,
            "rotate-180" => 2,
            "rotate-270" => 3,
            _ => return None,
        };
        Some(Orientation { flip, quarters })
    }

    /// Size after turning.
    pub(crate) fn size(self, width: u32, height: u32) -> (u32, u32) {
        if self.quarters % 2 == 1 {
            (height, width)
        } else {
            (width, height)
        }
    }

    /// Turns `image` upright.
    pub(crate) fn apply(self, image: RgbImage) -> RgbImage {
        if self == Orientation::default() {
            return image;
        }
        let (w, h) = (image.width as usize, image.height as usize);
        let (out_w, out_h) = self.size(image.width, image.height);
        let mut data = Vec::with_capacity(image.data.len());
        for y in 0..out_h as usize {
            for x in 0..out_w as usize {
                // Where the pixel of the turned picture stood before.
                let (sx, sy) = match self.quarters {
                    0 => (x, y),
                    1 => (y, h - 1 - x),
                    2 => (w - 1 - x, h - 1 - y),
                    _ => (w - 1 - y, x),
                };
                let sx = if self.flip { w - 1 - sx } else { sx };
                let at = (sy * w + sx) * 3;
                data.extend_from_slice(image.data.get(at..at + 3).unwrap_or(&[0; 3]));
            }
        }
        RgbImage {
            width: out_w,
            height: out_h,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3 wide, 2 high: a b c / d e f.
    fn picture() -> RgbImage {
        RgbImage {
            width: 3,
            height: 2,
            data: b"abcdef".iter().flat_map(|&c| [c, c, c]).collect(),
        }
    }

    fn turned(tag: &str) -> (u32, u32, String) {
        let out = Orientation::from_tag(tag).unwrap().apply(picture());
        let text = out.data.chunks(3).map(|p| char::from(p[0])).collect();
        (out.width, out.height, text)
    }

    #[test]
    fn all_eight_orientations() {
        // The eight EXIF orientations of abc/def.
        let expect = [
            ("rotate-0", 3, 2, "abcdef"),
            ("flip-rotate-0", 3, 2, "cbafed"),
            ("rotate-180", 3, 2, "fedcba"),
            ("flip-rotate-180", 3, 2, "defabc"),
            // Transposed.
            ("flip-rotate-270", 2, 3, "adbecf"),
            ("rotate-90", 2, 3, "daebfc"),
            // Transposed over the other diagonal.
            ("flip-rotate-90", 2, 3, "fcebda"),
            ("rotate-270", 2, 3, "cfbead"),
        ];
        for (tag, w, h, text) in expect {
            assert_eq!(turned(tag), (w, h, text.to_owned()), "{tag}");
        }
        assert_eq!(Orientation::from_tag("sideways"), None);
    }
}
