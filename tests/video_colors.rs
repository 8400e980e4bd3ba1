//! Colours along the whole path: known patches are encoded in every matrix, range and sampling and
//! must come out as the RGB they stand for; and turned pictures come out upright.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod video_support;

use std::path::{Path, PathBuf};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use headhunt::media::RgbImage;
use video_support::*;

/// Red, green, blue, grey: top left, top right, bottom left, bottom right. None is at the edge of
/// any gamut, so nothing clips.
const PATCHES: [[f64; 3]; 4] = [
    [200.0, 40.0, 50.0],
    [50.0, 180.0, 60.0],
    [40.0, 70.0, 210.0],
    [128.0, 128.0, 128.0],
];

/// Kr and Kb.
const BT601: (f64, f64) = (0.299, 0.114);
const BT709: (f64, f64) = (0.2126, 0.0722);
const BT2020: (f64, f64) = (0.2627, 0.0593);

struct Encoding {
    width: u32,
    height: u32,
    format: gst_video::VideoFormat,
    /// GStreamer's notation; empty to say nothing.
    colorimetry: &'static str,
    weights: (f64, f64),
    full: bool,
    encoder: &'static str,
    muxer: &'static str,
}

/// Y', Cb, Cr of a patch at `depth` bits.
fn ycc(rgb: [f64; 3], (kr, kb): (f64, f64), full: bool, depth: u32) -> [u16; 3] {
    let [r, g, b] = rgb.map(|v| v / 255.0);
    let y = kr * r + (1.0 - kr - kb) * g + kb * b;
    let pb = (b - y) / (2.0 * (1.0 - kb));
    let pr = (r - y) / (2.0 * (1.0 - kr));
    let scale = f64::from(1u32 << (depth - 8));
    let top = f64::from((1u32 << depth) - 1);
    let values = if full {
        [y * top, pb * top + 128.0 * scale, pr * top + 128.0 * scale]
    } else {
        [
            (219.0 * y + 16.0) * scale,
            (224.0 * pb + 128.0) * scale,
            (224.0 * pr + 128.0) * scale,
        ]
    };
    values.map(|v| v.round() as u16)
}

impl Encoding {
    fn make(&self) -> PathBuf {
        gst::init().unwrap();
        let path = fresh_path();
        let pipeline = gst::parse::launch(&format!(
            "appsrc name=in format=time ! {} ! {} ! filesink name=out",
            self.encoder, self.muxer
        ))
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
        let out = pipeline.by_name("out").unwrap();
        out.set_property("location", path.to_str().unwrap());
        let src = pipeline.by_name("in").unwrap();
        let src = src.downcast::<gst_app::AppSrc>().unwrap();
        let mut info = gst_video::VideoInfo::builder(self.format, self.width, self.height)
            .fps(gst::Fraction::new(25, 1));
        let colorimetry: gst_video::VideoColorimetry;
        if !self.colorimetry.is_empty() {
            colorimetry = self.colorimetry.parse().unwrap();
            info = info.colorimetry(&colorimetry);
        }
        let info = info.build().unwrap();
        let mut caps = info.to_caps().unwrap();
        if self.colorimetry.is_empty() {
            caps.make_mut()
                .structure_mut(0)
                .unwrap()
                .remove_field("colorimetry");
        }
        src.set_caps(Some(&caps));
        if let Some(stamp) = pipeline.by_name("stamp") {
            restamp(&stamp, 25);
        }
        pipeline.set_state(gst::State::Playing).unwrap();
        for n in 0..5 {
            let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
            {
                let buffer = buffer.get_mut().unwrap();
                buffer.set_pts(gst::ClockTime::from_mseconds(40 * n));
                buffer.set_duration(gst::ClockTime::from_mseconds(40));
                self.paint(buffer, &info);
            }
            src.push_buffer(buffer).unwrap();
        }
        src.end_of_stream().unwrap();
        finish(&pipeline);
        path
    }

    fn paint(&self, buffer: &mut gst::BufferRef, info: &gst_video::VideoInfo) {
        let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info).unwrap();
        let layout = info.format_info();
        for c in 0..layout.n_components() as usize {
            let depth = layout.depth()[c];
            let plane = layout.plane()[c];
            let stride = frame.plane_stride()[plane as usize] as usize;
            let step = layout.pixel_stride()[c] as usize;
            let offset = layout.poffset()[c] as usize;
            let width = (info.width() as usize).div_ceil(1 << layout.w_sub()[c]);
            let height = (info.height() as usize).div_ceil(1 << layout.h_sub()[c]);
            let data = frame.plane_data_mut(plane).unwrap();
            for y in 0..height {
                for x in 0..width {
                    let patch = usize::from(x >= width / 2) + 2 * usize::from(y >= height / 2);
                    let value = ycc(PATCHES[patch], self.weights, self.full, depth)[c];
                    let at = y * stride + x * step + offset;
                    if depth > 8 {
                        data[at..at + 2].copy_from_slice(&value.to_le_bytes());
                    } else {
                        data[at] = value as u8;
                    }
                }
            }
        }
    }
}

/// The middle of each quarter.
fn quarters(image: &RgbImage) -> [[u8; 3]; 4] {
    let (w, h) = (image.width as usize, image.height as usize);
    [(1, 1), (3, 1), (1, 3), (3, 3)].map(|(x, y)| {
        let at = ((y * h / 4) * w + x * w / 4) * 3;
        [image.data[at], image.data[at + 1], image.data[at + 2]]
    })
}

fn assert_patches(what: &str, path: &Path, expected: &[[f64; 3]; 4]) {
    let decoded = decode(path).unwrap_or_else(|e| panic!("{what}: {e:#}"));
    assert_eq!(decoded.stamps.len(), 5, "{what}");
    let got = quarters(&decoded.last.unwrap());
    for (got, expected) in got.iter().zip(expected) {
        for (g, e) in got.iter().zip(expected) {
            // Rounding to the code values and the codec; a wrong matrix is off by 8 at least, a
            // wrong range by 10.
            assert!(
                (f64::from(*g) - e).abs() <= 4.0,
                "{what}: {got:?} for {expected:?}"
            );
        }
    }
}

const X264: &str = "x264enc pass=quant quantizer=4 speed-preset=ultrafast ! h264parse";
const X265: &str = "x265enc speed-preset=ultrafast option-string=\"crf=4\" ! h265parse";
const MPEG4: &str = "avenc_mpeg4 bitrate=20000000 ! identity name=stamp";

fn encoding(format: gst_video::VideoFormat) -> Encoding {
    Encoding {
        width: 320,
        height: 240,
        format,
        colorimetry: "bt709",
        weights: BT709,
        full: false,
        encoder: X264,
        muxer: "mp4mux",
    }
}

#[test]
fn every_matrix_and_range_comes_out_right() {
    // GStreamer's notation: range:matrix:transfer:primaries.
    let cases = [
        ("2:4:16:3", BT601, false),
        ("1:4:16:3", BT601, true),
        ("2:3:5:1", BT709, false),
        ("1:3:5:1", BT709, true),
        ("2:6:5:7", BT2020, false),
        ("1:6:5:7", BT2020, true),
    ];
    for (colorimetry, weights, full) in cases {
        for muxer in ["mp4mux", "mpegtsmux"] {
            let clip = Encoding {
                colorimetry,
                weights,
                full,
                muxer,
                ..encoding(gst_video::VideoFormat::I420)
            };
            assert_patches(&format!("{colorimetry} in {muxer}"), &clip.make(), &PATCHES);
        }
    }
}

#[test]
fn every_sampling_and_depth_comes_out_right() {
    use gst_video::VideoFormat as F;
    for (format, encoder) in [
        (F::I420, X264),
        (F::Yv12, X264),
        (F::Nv12, X264),
        (F::Y42b, X264),
        (F::Y444, X264),
        (F::I42010le, X264),
        (F::I42210le, X264),
        (F::Y44410le, X264),
        (F::I42010le, X265),
        (F::Y44410le, X265),
        (F::I42012le, X265),
    ] {
        let clip = Encoding {
            encoder,
            ..encoding(format)
        };
        assert_patches(&format!("{format} by {encoder}"), &clip.make(), &PATCHES);
    }
}

#[test]
fn unspecified_colors_go_by_the_lines() {
    // GStreamer itself would change over at 576 lines.
    for (height, weights) in [(240, BT601), (600, BT601), (720, BT709)] {
        let clip = Encoding {
            height,
            weights,
            colorimetry: "",
            encoder: MPEG4,
            muxer: "avimux",
            ..encoding(gst_video::VideoFormat::I420)
        };
        assert_patches(&format!("{height} lines"), &clip.make(), &PATCHES);
    }
}

#[test]
fn motion_jpeg_is_full_range_bt601_at_any_size() {
    for height in [240, 720] {
        for format in [gst_video::VideoFormat::I420, gst_video::VideoFormat::Y42b] {
            let clip = Encoding {
                height,
                weights: BT601,
                full: true,
                colorimetry: "",
                encoder: "jpegenc quality=98",
                muxer: "avimux",
                ..encoding(format)
            };
            assert_patches(&format!("{format}, {height} lines"), &clip.make(), &PATCHES);
        }
    }
    let grey = Encoding {
        weights: BT601,
        full: true,
        colorimetry: "",
        encoder: "jpegenc quality=98",
        muxer: "avimux",
        ..encoding(gst_video::VideoFormat::Gray8)
    };
    let lumas = PATCHES.map(|p| [f64::from(ycc(p, BT601, true, 8)[0]); 3]);
    assert_patches("grey", &grey.make(), &lumas);
}

#[test]
fn a_turned_picture_comes_out_upright() {
    let file = std::fs::read(encoding(gst_video::VideoFormat::I420).make()).unwrap();
    let at = file.windows(4).position(|w| w == b"tkhd").unwrap() - 4;
    assert_eq!(file[at + 8], 0, "a version 0 track header");
    let [a, b, c, d] = PATCHES;
    const ONE: i32 = 0x1_0000;
    // The 2x2 part of the display matrix, and where the quarters stand after it.
    let cases = [
        ([ONE, 0, 0, ONE], (320, 240), [a, b, c, d]),
        ([0, ONE, -ONE, 0], (240, 320), [c, a, d, b]),
        ([-ONE, 0, 0, -ONE], (320, 240), [d, c, b, a]),
        ([0, -ONE, ONE, 0], (240, 320), [b, d, a, c]),
    ];
    for ([m11, m12, m21, m22], size, expected) in cases {
        let mut turned = file.clone();
        for (i, v) in [m11, m12, 0, m21, m22, 0].into_iter().enumerate() {
            let at = at + 48 + 4 * i;
            turned[at..at + 4].copy_from_slice(&v.to_be_bytes());
        }
        let path = write_file(&turned);
        let info = decode(&path).unwrap().info.unwrap();
        let what = format!("{m11} {m12} {m21} {m22}");
        assert_eq!((info.width, info.height), size, "{what}");
        assert_patches(&what, &path, &expected);
    }
}
