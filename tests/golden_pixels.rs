//! Our bicubic against Pillow's: `tests/golden/preprocess.safetensors`, made by
//! `tests/golden/make.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use headhunt::{media::RgbImage, model::pixels::resize_bicubic};
use proptest::prelude::*;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

fn golden() -> Vec<u8> {
    std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/preprocess.safetensors"
    ))
    .unwrap()
}

/// `{side}_{height}x{width}` of a tensor's name.
fn sizes(name: &str) -> (u32, u32, u32) {
    let mut numbers = name
        .split(['_', 'x'])
        .filter_map(|part| part.parse::<u32>().ok());
    let mut next = || numbers.next().unwrap();
    (next(), next(), next())
}

/// Noise, hard edges and gradients in 16 × 16 tiles; the same integers as in `make.py`.
fn pattern(height: u32, width: u32) -> RgbImage {
    let mut data = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for c in 0..3u32 {
                let mut noise = x.wrapping_mul(73_856_093)
                    ^ y.wrapping_mul(19_349_663)
                    ^ c.wrapping_mul(83_492_791);
                noise = (noise ^ (noise >> 13)).wrapping_mul(0x5bd1_e995);
                let value = match (x / 16 + y / 16) % 3 {
                    0 => noise >> 15,
                    1 => (x / 5 + y / 7) % 2 * 255,
                    _ => x * 3 + y * 2 + c * 85,
                };
                data.push((value & 255) as u8);
            }
        }
    }
    RgbImage {
        width,
        height,
        data,
    }
}

#[test]
fn equals_pillow_on_noise() {
    let bytes = golden();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut seen = 0;
    for (name, want) in tensors.tensors() {
        let Some(base) = name.strip_suffix("_u8") else {
            continue;
        };
        let (side, height, width) = sizes(base);
        let source = tensors.tensor(&format!("{height}x{width}_in")).unwrap();
        let image = RgbImage {
            width,
            height,
            data: source.data().to_vec(),
        };
        let got = resize_bicubic(&image, side).unwrap();
        let want = want.data();
        assert_eq!(got.len(), want.len());
        let worst = got.iter().zip(want).map(|(a, b)| a.abs_diff(*b)).max();
        let exact = got.iter().zip(want).filter(|(a, b)| a == b).count();
        println!("{base}: worst {worst:?}, {exact} of {} exact", want.len());
        // The tolerance is 1 level and 99.9%; this is what the integer arithmetic reaches.
        assert_eq!((worst, exact), (Some(0), want.len()), "{base}");
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn equals_pillow_on_every_ratio() {
    let bytes = golden();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut seen = 0;
    for (name, rows) in tensors.tensors() {
        let Some(base) = name.strip_suffix("_rows") else {
            continue;
        };
        let (side, height, width) = sizes(base);
        let got = resize_bicubic(&pattern(height, width), side).unwrap();
        let mut picked = vec![0, side / 2, side - 1];
        picked.dedup();
        let stride = side as usize * 3;
        for (&row, want) in picked.iter().zip(rows.data().chunks_exact(stride)) {
            let at = row as usize * stride;
            assert_eq!(got[at..at + stride], *want, "{base}, row {row}");
        }
        // The rows show where it differs, the checksum that nothing does.
        let sha = tensors.tensor(&format!("{base}_sha256")).unwrap();
        assert_eq!(*Sha256::digest(&got), *sha.data(), "{base}");
        seen += 1;
    }
    assert_eq!(seen, 23);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_constant_picture_stays_constant(
        width in 1u32..300, height in 1u32..300, side in 1u32..120, colour: [u8; 3],
    ) {
        let data = colour.repeat((width * height) as usize);
        let got = resize_bicubic(&RgbImage { width, height, data }, side).unwrap();
        prop_assert_eq!(got, colour.repeat((side * side) as usize));
    }

    #[test]
    fn any_size_gives_a_square_and_channels_stay_apart(
        width in 1u32..200, height in 1u32..200, side in 1u32..120, seed: u8,
    ) {
        let mut image = pattern(height, width);
        for pixel in image.data.chunks_exact_mut(3) {
            pixel[0] = pixel[0].wrapping_add(seed);
            pixel[2] = 255 - pixel[0];
        }
        let before = resize_bicubic(&image, side).unwrap();
        prop_assert_eq!(before.len(), (side * side * 3) as usize);
        for pixel in image.data.chunks_exact_mut(3) {
            pixel[1] = pixel[1].wrapping_mul(31);
        }
        let after = resize_bicubic(&image, side).unwrap();
        for (a, b) in before.chunks_exact(3).zip(after.chunks_exact(3)) {
            prop_assert_eq!((a[0], a[2]), (b[0], b[2]));
        }
    }

    #[test]
    fn mirrored_in_is_mirrored_out(width in 1u32..200, height in 1u32..60, side in 1u32..90) {
        // The kernel is even, so only the rounding of a weight's last bit may differ.
        let image = pattern(height, width);
        let mirror = |data: &[u8], width: u32| -> Vec<u8> {
            data.chunks_exact(width as usize * 3)
                .flat_map(|row| row.chunks_exact(3).rev().flatten().copied())
                .collect()
        };
        let mirrored = RgbImage { data: mirror(&image.data, width), ..image.clone() };
        let straight = resize_bicubic(&image, side).unwrap();
        let back = mirror(&resize_bicubic(&mirrored, side).unwrap(), side);
        let worst = straight.iter().zip(&back).map(|(a, b)| a.abs_diff(*b)).max();
        prop_assert!(worst <= Some(1), "{:?}", worst);
    }
}
