//! Which parser and decoder a codec gets: an allow-list, so that no other plugin ever sees foreign
//! bytes. Also the frame sizes in the headers of codecs that have no parser.

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::{
    error::{Error, Kind, Result},
    limits::DECODER_THREADS,
};

const GOOD: &str = "gstreamer1.0-plugins-good";
const BAD: &str = "gstreamer1.0-plugins-bad";
const LIBAV: &str = "gstreamer1.0-libav";

/// Width and height in the bytes of an encoded frame, if it tells.
type FindSize = fn(&[u8]) -> Option<(u32, u32)>;

/// A codec that is decoded.
#[derive(Debug)]
pub(crate) struct Codec {
    pub(crate) name: &'static str,
    /// Element and Debian package; tells the frame size before a picture is decoded.
    parser: Option<(&'static str, &'static str)>,
    /// Best first.
    decoders: &'static [DecoderElement],
    /// Finds the frame size where there is no parser.
    pub(crate) header_size: Option<FindSize>,
    /// Pictures come out in the order they went in, so a decoding time is a presentation time.
    pub(crate) in_order: bool,
    /// Unspecified colours are those of JFIF: BT.601, full range.
    pub(crate) jfif: bool,
}

/// An element that decodes.
#[derive(Debug)]
pub(crate) struct DecoderElement {
    name: &'static str,
    package: &'static str,
    /// Its output names only colours that the stream names. Others fill in guesses, so what
    /// reaches their input is asked instead.
    pub(crate) honest_colors: bool,
}

const fn libav(name: &'static str) -> DecoderElement {
    DecoderElement {
        name,
        package: LIBAV,
        honest_colors: true,
    }
}

const fn other(name: &'static str, package: &'static str) -> DecoderElement {
    DecoderElement {
        name,
        package,
        honest_colors: false,
    }
}

const fn codec(
    name: &'static str,
    parser: Option<(&'static str, &'static str)>,
    decoders: &'static [DecoderElement],
) -> Codec {
    Codec {
        name,
        parser,
        decoders,
        header_size: None,
        in_order: false,
        jfif: false,
    }
}

static H264: Codec = codec("h264", Some(("h264parse", BAD)), &[libav("avdec_h264")]);
static H265: Codec = codec("h265", Some(("h265parse", BAD)), &[libav("avdec_h265")]);
static MPEG4: Codec = codec(
    "mpeg4",
    Some(("mpeg4videoparse", BAD)),
    &[libav("avdec_mpeg4")],
);
/// MPEG-4 part 2 under a private name in AVI; the parser does not take these.
static DIVX: Codec = codec("mpeg4", None, &[libav("avdec_mpeg4")]);
static MSMPEG4: Codec = Codec {
    in_order: true,
    ..codec("msmpeg4v3", None, &[libav("avdec_msmpeg4")])
};
static MJPEG: Codec = Codec {
    header_size: Some(jpeg_size),
    in_order: true,
    jfif: true,
    ..codec(
        "mjpeg",
        None,
        &[libav("avdec_mjpeg"), other("jpegdec", GOOD)],
    )
};
static VP8: Codec = Codec {
    header_size: Some(vp8_size),
    in_order: true,
    ..codec("vp8", None, &[libav("avdec_vp8"), other("vp8dec", GOOD)])
};
static VP9: Codec = Codec {
    in_order: true,
    ..codec(
        "vp9",
        Some(("vp9parse", BAD)),
        &[libav("avdec_vp9"), other("vp9dec", GOOD)],
    )
};
static AV1: Codec = Codec {
    in_order: true,
    ..codec(
        "av1",
        Some(("av1parse", BAD)),
        &[
            other("dav1ddec", "gstreamer1.0-plugins-rs"),
            other("av1dec", BAD),
        ],
    )
};

impl Codec {
    /// The codec of a demuxer's caps.
    ///
    /// # Errors
    /// `InvalidArgument` naming what is not supported.
    pub(crate) fn of(caps: &gst::StructureRef) -> Result<&'static Codec> {
        let number = |field| caps.get::<i32>(field).unwrap_or_default();
        Ok(match caps.name().as_str() {
            "video/x-h264" => &H264,
            "video/x-h265" => &H265,
            "video/mpeg" if number("mpegversion") == 4 => &MPEG4,
            "video/x-divx" if (4..=5).contains(&number("divxversion")) => &DIVX,
            "video/x-xvid" | "video/x-3ivx" => &DIVX,
            "video/x-divx" if number("divxversion") == 3 => &MSMPEG4,
            "video/x-msmpeg" if number("msmpegversion") == 43 => &MSMPEG4,
            "image/jpeg" => &MJPEG,
            "video/x-vp8" => &VP8,
            "video/x-vp9" => &VP9,
            "video/x-av1" => &AV1,
            other => {
                let version = ["mpegversion", "divxversion", "msmpegversion", "wmvversion"]
                    .into_iter()
                    .find_map(|f| Some(format!(" version {}", caps.get::<i32>(f).ok()?)));
                return Err(Error::invalid(format!(
                    "the video codec {other}{} is not supported (H.264, H.265, MPEG-4 part 2, MJPEG, VP8, VP9, AV1 are)",
                    version.unwrap_or_default()
                )));
            }
        })
    }

    /// A new parser, if this codec has one.
    pub(crate) fn make_parser(&self) -> Result<Option<gst::Element>> {
        self.parser
            .map(|(name, package)| make(name, package))
            .transpose()
    }

    /// A new decoder: the best one that is installed.
    ///
    /// # Errors
    /// `FailedPrecondition` naming the codec and the package.
    pub(crate) fn make_decoder(&self) -> Result<(gst::Element, &'static DecoderElement)> {
        for choice in self.decoders {
            let Ok(element) = gst::ElementFactory::make(choice.name).build() else {
                continue;
            };
            for (property, value) in [
                ("max-threads", DECODER_THREADS.to_string()),
                ("threads", DECODER_THREADS.to_string()),
                ("n-threads", DECODER_THREADS.to_string()),
                // Damage is survived however long it lasts.
                ("max-errors", "-1".to_owned()),
                ("output-corrupt", "false".to_owned()),
                ("qos", "false".to_owned()),
            ] {
                if element.find_property(property).is_some() {
                    element.set_property_from_str(property, &value);
                }
            }
            return Ok((element, choice));
        }
        let names: Vec<&str> = self.decoders.iter().map(|d| d.name).collect();
        let packages: Vec<&str> = self.decoders.iter().map(|d| d.package).collect();
        Err(Error::precondition(format!(
            "no decoder for {} is installed: GStreamer lacks {} (Debian: {})",
            self.name,
            names.join(" and "),
            packages.join(" or ")
        )))
    }
}

/// An element by its name; `FailedPrecondition` with the Debian package if it is not installed.
pub(crate) fn make(name: &str, package: &str) -> Result<gst::Element> {
    gst::ElementFactory::make(name).build().map_err(|e| {
        Error::new(
            Kind::FailedPrecondition,
            format!("the GStreamer element {name} is not installed (Debian: {package})"),
        )
        .with_source(e)
    })
}

/// Size in a VP8 key frame (RFC 6386, section 9.1).
fn vp8_size(frame: &[u8]) -> Option<(u32, u32)> {
    let key_frame = frame.first()? & 1 == 0;
    if !key_frame || frame.get(3..6)? != [0x9d, 0x01, 0x2a] {
        return None;
    }
    let side = |at: usize| -> Option<u32> {
        let bytes = frame.get(at..at + 2)?;
        Some(u32::from(u16::from_le_bytes([bytes[0], bytes[1]]) & 0x3fff))
    };
    Some((side(6)?, side(8)?))
}

/// Size in a JPEG's frame header (ITU-T T.81, annex B).
fn jpeg_size(image: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2usize;
    if image.get(..2)? != [0xff, 0xd8] {
        return None;
    }
    loop {
        let marker = *image.get(at + 1)?;
        if *image.get(at)? != 0xff {
            return None;
        }
        match marker {
            // Fill byte.
            0xff => at += 1,
            // Markers without a segment.
            0x01 | 0xd0..=0xd8 => at += 2,
            // Frame headers: SOF0..15 without DHT, JPG and DAC.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                let side = |from: usize| -> Option<u32> {
                    let bytes = image.get(from..from + 2)?;
                    Some(u32::from(u16::from_be_bytes([bytes[0], bytes[1]])))
                };
                return Some((side(at + 7)?, side(at + 5)?));
            }
            // The picture data begins or it ends: no frame header.
            0xd9 | 0xda => return None,
            _ => {
                let length = image.get(at + 2..at + 4)?;
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_sizes_are_read_from_headers() {
        let mut vp8 = vec![0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x41, 0xf0, 0x80];
        assert_eq!(vp8_size(&vp8), Some((320, 240)));
        vp8[0] |= 1;
        assert_eq!(vp8_size(&vp8), None);
        let jpeg = [
            &[
                0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xff, 0xc0, 0, 17, 8,
            ][..],
            &[0x20, 0x08, 0x00, 0x40, 3],
        ]
        .concat();
        assert_eq!(jpeg_size(&jpeg), Some((64, 8200)));
        for cut in 0..jpeg.len() - 1 {
            assert_eq!(jpeg_size(&jpeg[..cut]), None);
        }
        assert_eq!(jpeg_size(&[0xff, 0xd8, 0xff, 0xda, 0, 2]), None);
    }

    #[test]
    fn unknown_codecs_are_named() {
        gst::init().unwrap();
        let caps = gst::Structure::builder("video/x-wmv")
            .field("wmvversion", 3i32)
            .build();
        let e = Codec::of(&caps).unwrap_err();
        assert!(e.message().contains("video/x-wmv version 3"), "{e}");
    }

    #[test]
    fn a_missing_decoder_is_named_with_its_package() {
        gst::init().unwrap();
        static NONE: Codec = codec("h999", None, &[libav("avdec_h999")]);
        let e = NONE.make_decoder().unwrap_err();
        assert_eq!(e.kind(), Kind::FailedPrecondition);
        assert!(e.message().contains("h999"), "{e}");
        assert!(e.message().contains("avdec_h999"), "{e}");
        assert!(e.message().contains("gstreamer1.0-libav"), "{e}");
    }
}
