use std::path::PathBuf;

use safetensors::SafeTensors;

use super::*;

/// All rows in one piece.
fn rows(convert: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<()>) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    convert(&mut |rows| all.extend_from_slice(rows))?;
    Ok(all)
}

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A packed component: samples of `depth` bits at `shift`, channel `c` of three.
fn packed(data: &[u8], width: usize, depth: u32, shift: u32, c: usize) -> Component<'_> {
    let bytes = if depth > 8 { 2 } else { 1 };
    Component {
        data: &data[c * bytes..],
        stride: width * 3 * bytes,
        step: 3 * bytes,
        depth,
        shift,
        w_sub: 0,
        h_sub: 0,
    }
}

fn compare(name: &str, matrix: Matrix, range: Range) {
    let bytes = golden(name);
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for (depth, shift) in [(8, 0), (10, 0), (10, 6), (12, 0), (16, 0)] {
        let ycc = tensors.tensor(&format!("ycc{depth}")).unwrap();
        let rgb = tensors.tensor(&format!("rgb{depth}")).unwrap();
        let n = ycc.shape()[0];
        let data: Vec<u8> = if depth == 8 {
            ycc.data().to_vec()
        } else {
            ycc.data()
                .chunks(2)
                .flat_map(|c| (u16::from_le_bytes([c[0], c[1]]) << shift).to_le_bytes())
                .collect()
        };
        let parts = [0, 1, 2].map(|c| packed(&data, n, depth, shift, c));
        let ours = rows(|give| yuv_to_rgb(n, 1, parts, matrix, range, give)).unwrap();
        let mut unequal = 0;
        for (i, (a, b)) in ours.iter().zip(rgb.data()).enumerate() {
            assert!(
                a.abs_diff(*b) <= 1,
                "{name}, {depth} bits, triple {}, channel {}: {a} for {b}",
                i / 3,
                i % 3
            );
            unequal += usize::from(a != b);
        }
        assert_eq!(ours.len(), rgb.data().len());
        // Only values on the edge between two levels may fall to the other side.
        assert!(
            unequal * 1000 <= ours.len(),
            "{name}, {depth} bits: {unequal} of {} differ",
            ours.len()
        );
    }
}

#[test]
fn bt601_limited_equals_the_formula() {
    compare(
        "colors_bt601_limited.safetensors",
        Matrix::Bt601,
        Range::Limited,
    );
}

#[test]
fn bt601_full_equals_the_formula() {
    compare("colors_bt601_full.safetensors", Matrix::Bt601, Range::Full);
}

#[test]
fn bt709_limited_equals_the_formula() {
    compare(
        "colors_bt709_limited.safetensors",
        Matrix::Bt709,
        Range::Limited,
    );
}

#[test]
fn bt709_full_equals_the_formula() {
    compare("colors_bt709_full.safetensors", Matrix::Bt709, Range::Full);
}

#[test]
fn bt2020_limited_equals_the_formula() {
    compare(
        "colors_bt2020_limited.safetensors",
        Matrix::Bt2020,
        Range::Limited,
    );
}

#[test]
fn bt2020_full_equals_the_formula() {
    compare(
        "colors_bt2020_full.safetensors",
        Matrix::Bt2020,
        Range::Full,
    );
}

fn plane(data: &[u8], stride: usize, w_sub: u32, h_sub: u32) -> Component<'_> {
    Component {
        data,
        stride,
        step: 1,
        depth: 8,
        shift: 0,
        w_sub,
        h_sub,
    }
}

#[test]
fn odd_sizes_repeat_chroma_over_the_pixels_it_covers() {
    // 5x3 in 4:2:0 with padded rows: 3x2 chroma samples.
    let luma = [128u8; 3 * 8];
    let mut cb = [0u8; 2 * 4];
    let mut cr = [0u8; 2 * 4];
    for row in 0..2 {
        for x in 0..3 {
            cb[row * 4 + x] = 128;
            cr[row * 4 + x] = u8::try_from(100 + 10 * (row * 3 + x)).unwrap();
        }
    }
    let parts = [
        plane(&luma, 8, 0, 0),
        plane(&cb, 4, 1, 1),
        plane(&cr, 4, 1, 1),
    ];
    let rgb = rows(|give| yuv_to_rgb(5, 3, parts, Matrix::Bt601, Range::Full, give)).unwrap();
    assert_eq!(rgb.len(), 45);
    for y in 0..3 {
        for x in 0..5 {
            let cr = f64::from(u8::try_from(100 + 10 * ((y / 2) * 3 + x / 2)).unwrap());
            let red = (128.0 + 1.402 * (cr - 128.0)).round().clamp(0.0, 255.0);
            assert_eq!(f64::from(rgb[(y * 5 + x) * 3]), red, "pixel {x},{y}");
        }
    }
}

#[test]
fn a_short_plane_is_an_error_not_a_panic() {
    let luma = [0u8; 11];
    let chroma = [0u8; 4];
    let parts = [
        plane(&luma, 4, 0, 0),
        plane(&chroma, 2, 1, 1),
        plane(&chroma, 2, 1, 1),
    ];
    assert!(rows(|give| yuv_to_rgb(4, 3, parts, Matrix::Bt601, Range::Full, give)).is_err());
}

#[test]
fn rgb_passes_unchanged_and_grey_is_spread() {
    let pixels: Vec<u8> = (0..=255).chain(0..=128).collect();
    let part = |c: usize| packed(&pixels, 128, 8, 0, c);
    let out =
        rows(|give| rgb_to_rgb(128, 1, [part(0), part(1), part(2)], Range::Full, give)).unwrap();
    assert_eq!(out, pixels[..384]);
    let grey = rows(|give| {
        rgb_to_rgb(
            3,
            1,
            [plane(&[16, 126, 235], 3, 0, 0); 3],
            Range::Limited,
            give,
        )
    })
    .unwrap();
    assert_eq!(grey, [0, 0, 0, 128, 128, 128, 255, 255, 255]);
}

#[test]
fn the_fast_rows_are_the_plain_ones_to_the_bit() {
    // Widths with and without a rest of sixteen, planar and interleaved chroma, every luma beside every chroma.
    for (width, step) in [
        (1, 1),
        (15, 1),
        (16, 1),
        (17, 2),
        (48, 2),
        (331, 1),
        (512, 2),
    ] {
        let (width, step, height): (usize, usize, usize) = (width, step, 130);
        let chromas = width.div_ceil(2);
        let mut value = 7u32;
        let mut byte = || {
            value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (value >> 24) as u8
        };
        let luma: Vec<u8> = (0..width * height).map(|_| byte()).collect();
        let chroma: Vec<u8> = (0..2 * chromas * height).map(|_| byte()).collect();
        let part = |data, stride, step, sub| Component {
            data,
            stride,
            step,
            depth: 8,
            shift: 0,
            w_sub: sub,
            h_sub: sub,
        };
        let second = if step == 1 { chromas * height } else { 1 };
        let parts = [
            part(&luma[..], width, 1, 0),
            part(&chroma[..], chromas * step, step, 1),
            part(&chroma[second..], chromas * step, step, 1),
        ];
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
            for range in [Range::Limited, Range::Full] {
                let plain =
                    rows(|give| yuv_rows(width, height, parts, matrix, range, None, give)).unwrap();
                let ours =
                    rows(|give| yuv_to_rgb(width, height, parts, matrix, range, give)).unwrap();
                assert_eq!(plain.len(), width * height * 3);
                assert!(
                    plain == ours,
                    "{width} wide, step {step}, {matrix:?} {range:?}"
                );
            }
        }
        let short = [
            part(&luma[..width * height - 1], width, 1, 0),
            parts[1],
            parts[2],
        ];
        assert!(
            rows(|give| yuv_to_rgb(width, height, short, Matrix::Bt601, Range::Full, give))
                .is_err()
        );
    }
}
