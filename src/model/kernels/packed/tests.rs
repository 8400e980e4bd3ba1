//! Each variant of the products against sums in f64 of the same numbers rounded to bf16.

use candle_core::{DType, Device, Tensor};
use half::bf16;

use super::*;
use crate::model::weights::StoredDtype;

/// Numbers between -1 and 1, the same for a seed.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn bytes_of(dtype: StoredDtype, numbers: &[f32]) -> Vec<u8> {
    let bytes = |&v: &f32| match dtype {
        StoredDtype::F32 => v.to_le_bytes().to_vec(),
        StoredDtype::F16 => half::f16::from_f32(v).to_le_bytes().to_vec(),
        StoredDtype::Bf16 => bf16::from_f32(v).to_le_bytes().to_vec(),
    };
    numbers.iter().flat_map(bytes).collect()
}

fn tensor(numbers: &[f32], shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::from_slice(numbers, shape, &Device::Cpu).unwrap()
}

fn rounded(v: f32) -> f64 {
    f64::from(bf16::from_f32(v).to_f32())
}

/// `x Wᵀ` of numbers rounded to bf16, exact in f64, and the sum of the products' sizes.
fn exact(x: &[f32], w: &[f32], depth: usize) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    for x in x.chunks_exact(depth) {
        for w in w.chunks_exact(depth) {
            let products = x.iter().zip(w).map(|(&x, &w)| rounded(x) * rounded(w));
            let (sum, size) =
                products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + f64::abs(p)));
            out.push((sum, size));
        }
    }
    out
}

/// Runs `check` with each variant, and says which ones this CPU cannot run.
fn each_isa(check: impl Fn(Isa)) {
    for isa in Isa::ALL {
        if isa.available() {
            println!("{isa}: run");
            check(isa);
        } else {
            println!("{isa}: skipped, not in this CPU");
        }
    }
}

/// Every result within `depth + 2` roundings of f32 (2⁻²⁴ each) of the sum of its products' sizes:
/// the bound for sums in any order, by whichever variant.
#[track_caller]
fn within_bound(got: &[f32], exact: &[(f64, f64)], depth: usize) {
    assert_eq!(got.len(), exact.len());
    for (&got, &(sum, size)) in got.iter().zip(exact) {
        let bound = (depth + 2) as f64 * 2f64.powi(-24) * size;
        let error = (f64::from(got) - sum).abs();
        assert!(error <= bound, "{got} against {sum}: {error:e} > {bound:e}");
    }
}

/// Rows, outputs, inputs: whole tiles, one more and one less, single ones, odd depths.
const SIZES: [(usize, usize, usize); 9] = [
    (12, 32, 2),
    (24, 128, 64),
    (1, 1, 1),
    (1, 300, 129),
    (11, 31, 7),
    (13, 33, 65),
    (40, 97, 33),
    (300, 130, 50),
    (530, 65, 63),
];

#[test]
fn every_variant_equals_the_exact_product() {
    each_isa(|isa| {
        for (rows, output, input) in SIZES {
            let (x, w) = (random(rows * input, 1), random(output * input, 2));
            let sums = exact(&x, &w, input);
            for dtype in [StoredDtype::F32, StoredDtype::Bf16] {
                let bytes = bytes_of(dtype, &w);
                let raw = RawTensor {
                    dtype,
                    bytes: &bytes,
                };
                let packed = Packed::with_isa(raw, output, input, isa).unwrap();
                let x = tensor(&x, (rows, input));
                let half = x.to_dtype(DType::BF16).unwrap();
                for x in [x, half] {
                    let y = packed.affine(&x, None, DType::F32).unwrap();
                    assert_eq!(y.dims(), [rows, output]);
                    let y: Vec<f32> = y.flatten_all().unwrap().to_vec1().unwrap();
                    within_bound(&y, &sums, input);
                }
            }
        }
    });
}

/// The result and what candle's own operations make of the exact product, whose error is below
/// `tolerance` of the largest number.
#[track_caller]
fn close(got: &Tensor, want: &Tensor, tolerance: f32) {
    let host = |t: &Tensor| -> Vec<f32> {
        let t = t.to_dtype(DType::F32).unwrap();
        t.flatten_all().unwrap().to_vec1().unwrap()
    };
    assert_eq!(got.dims(), want.dims());
    let (got, want) = (host(got), host(want));
    let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (got, want) in got.iter().zip(&want) {
        let error = (got - want).abs();
        assert!(error <= tolerance * largest, "{got} against {want}");
    }
}

/// A result that is rounded to bf16 is off by up to half of its last bit, 2⁻⁸ of it.
const HALF_BIT: f32 = 1.0 / 256.0 + 1e-5;

#[test]
fn what_follows_a_product_equals_plain_operations() {
    each_isa(|isa| {
        for (rows, output, input) in SIZES {
            let (x, w) = (random(rows * input, 3), random(output * input, 4));
            let sums = exact(&x, &w, input);
            let sums: Vec<f32> = sums.iter().map(|e| e.0 as f32).collect();
            let product = tensor(&sums, (rows, output));
            let bias = tensor(&random(output, 5), output);
            let scale = tensor(&random(output, 6), output);
            let residual = tensor(&random(rows * output, 7), (rows, output));
            let x = tensor(&x, (rows, input));
            let bytes = bytes_of(StoredDtype::Bf16, &w);
            let raw = RawTensor {
                dtype: StoredDtype::Bf16,
                bytes: &bytes,
            };
            let packed = Packed::with_isa(raw, output, input, isa).unwrap();

            let biased = product.broadcast_add(&bias).unwrap();
            let got = packed.affine(&x, Some(&bias), DType::F32).unwrap();
            close(&got, &biased, 1e-5);
            let got = packed.affine(&x, Some(&bias), DType::BF16).unwrap();
            assert_eq!(got.dtype(), DType::BF16);
            close(&got, &biased, HALF_BIT);
            let got = packed.gelu(&x, &bias).unwrap();
            close(&got, &biased.gelu_erf().unwrap(), HALF_BIT);
            let got = packed.add_to(residual.copy().unwrap(), &x).unwrap();
            close(&got, &(&residual + &product).unwrap(), 1e-5);
            let both = Tensor::stack(&[&scale, &bias], 0).unwrap();
            let got = packed.add_scaled_to(residual.copy().unwrap(), &x, &both);
            let want = biased.broadcast_mul(&scale).unwrap();
            close(&got.unwrap(), &(&residual + want).unwrap(), 1e-5);

            let up_weights = random(output * input, 8);
            let up_bytes = bytes_of(StoredDtype::Bf16, &up_weights);
            let up = RawTensor {
                dtype: StoredDtype::Bf16,
                bytes: &up_bytes,
            };
            let gate = PackedGate::with_isa(raw, up, (output, input), isa).unwrap();
            let x_host: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
            let ups = exact(&x_host, &up_weights, input);
            let ups: Vec<f32> = ups.iter().map(|e| e.0 as f32).collect();
            let want = (product.silu().unwrap() * tensor(&ups, (rows, output))).unwrap();
            close(&gate.forward(&x).unwrap(), &want, HALF_BIT);
        }
    });
}

#[test]
fn a_row_does_not_depend_on_its_neighbours_or_the_threads() {
    let (rows, output, input) = (530, 65, 63);
    let bytes = bytes_of(StoredDtype::Bf16, &random(output * input, 9));
    let raw = RawTensor {
        dtype: StoredDtype::Bf16,
        bytes: &bytes,
    };
    let packed = Packed::new(raw, output, input).unwrap();
    let x = tensor(&random(rows * input, 10), (rows, input));
    let run = |threads: usize, x: &Tensor| -> Vec<Vec<f32>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        let y = pool.install(|| packed.affine(x, None, DType::F32)).unwrap();
        y.to_vec2().unwrap()
    };
    let all = run(2, &x);
    assert_eq!(all, run(5, &x));
    for row in [0, 11, 12, 263, 529] {
        let alone = run(2, &x.narrow(0, row, 1).unwrap().contiguous().unwrap());
        assert_eq!(alone[0], all[row]);
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_nan_stays() {
    let bytes = bytes_of(StoredDtype::Bf16, &random(6, 1));
    let raw = RawTensor {
        dtype: StoredDtype::Bf16,
        bytes: &bytes,
    };
    assert!(Packed::new(raw, 2, 4).is_err());
    let packed = Packed::new(raw, 2, 3).unwrap();
    let x = tensor(&random(8, 2), (2, 4));
    assert!(packed.affine(&x, None, DType::F32).is_err());
    each_isa(|isa| {
        let packed = Packed::with_isa(raw, 2, 3, isa).unwrap();
        let x = tensor(&[f32::NAN, 0.0, 1.0, 1.0, 0.5, 1.0], (2, 3));
        for dtype in [DType::F32, DType::BF16] {
            let y = packed.affine(&x, None, dtype).unwrap();
            let y: Vec<Vec<f32>> = y.to_dtype(DType::F32).unwrap().to_vec2().unwrap();
            assert!(y[0].iter().all(|v| v.is_nan()) && y[1].iter().all(|v| v.is_finite()));
        }
    });
}
