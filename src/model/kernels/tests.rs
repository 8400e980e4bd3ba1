//! Each kernel against the same formula in candle's own operations.

use candle_core::{DType, Device, Result, Tensor};

use super::*;

fn random(shape: &[usize], seed: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let data: Vec<f32> = (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 8.0
        })
        .collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let a: Vec<f32> = a.flatten_all().unwrap().to_vec1().unwrap();
    let b: Vec<f32> = b.flatten_all().unwrap().to_vec1().unwrap();
    assert!(a.iter().chain(&b).all(|v| v.is_finite()));
    a.iter()
        .zip(&b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[track_caller]
fn close(a: Result<Tensor>, b: Result<Tensor>, tolerance: f32) {
    let d = largest_difference(&a.unwrap(), &b.unwrap());
    assert!(d <= tolerance, "largest difference {d}");
}

#[test]
fn pointwise_kernels_equal_plain_operations() {
    // 37 is no multiple of the vector lanes; 700 rows make several tasks.
    let (rows, width) = (700, 37);
    let x = random(&[rows, width], 1);
    let y = random(&[rows, width], 2);
    let (w, b) = (random(&[width], 3), random(&[width], 4));
    let copy = || x.copy().unwrap();
    close(add_bias(copy(), &b), x.broadcast_add(&b), 0.0);
    close(
        gelu_bias(copy(), &b),
        x.broadcast_add(&b)
            .and_then(|x| x.to_dtype(DType::F64)?.gelu_erf()?.to_dtype(DType::F32)),
        2e-6,
    );
    close(silu_mul(copy(), &y), x.silu().and_then(|x| x * &y), 4e-6);
    close(add(copy(), &y), &x + &y, 0.0);
    close(
        add_scaled(copy(), &y, &Tensor::stack(&[&w, &b], 0).unwrap()),
        y.broadcast_add(&b).and_then(|y| &x + y.broadcast_mul(&w)?),
        1e-5,
    );
    close(
        layer_norm(&x, &w, &b, 1e-6, DType::F32),
        candle_nn::ops::layer_norm_slow(&x, &w, &b, 1e-6),
        1e-5,
    );
    close(
        rms_norm(&x, &w, 1e-6, DType::F32),
        candle_nn::ops::rms_norm_slow(&x, &w, 1e-6),
        1e-5,
    );
}

#[test]
fn pointwise_kernels_keep_nan() {
    let bad = || Tensor::new(&[[f32::NAN, 1.0]], &Device::Cpu).unwrap();
    let one = Tensor::new(&[1.0f32, 1.0], &Device::Cpu).unwrap();
    for out in [
        gelu_bias(bad(), &one).unwrap(),
        silu_mul(bad(), &bad()).unwrap(),
        rms_norm(&bad(), &one, 1e-6, DType::F32).unwrap(),
    ] {
        let out: Vec<Vec<f32>> = out.to_vec2().unwrap();
        assert!(out[0][0].is_nan());
    }
    let q = Tensor::new(&[[[f32::NAN, 1.0], [1.0, 2.0]]], &Device::Cpu).unwrap();
    let out = attention(&q, &q, &q, &Heads::full(1, 2)).unwrap();
    let out: Vec<f32> = out.flatten_all().unwrap().to_vec1().unwrap();
    assert!(out.iter().all(|v| v.is_nan()));
}

#[test]
fn rotary_equals_the_plain_turn() {
    let (batch, length, heads, half) = (2, 5, 3, 8);
    let x = random(&[batch, length, heads * 2 * half], 5);
    let (cos, sin) = (random(&[length, half], 6), random(&[length, half], 7));
    let plain = x
        .reshape((batch, length, heads, 2 * half))
        .and_then(|x| x.transpose(1, 2)?.contiguous())
        .and_then(|x| candle_nn::rotary_emb::rope_slow(&x, &cos, &sin))
        .and_then(|x| x.transpose(1, 2)?.contiguous()?.flatten_from(2));
    close(
        rotary(x.copy().unwrap(), &cos, &sin, DType::F32),
        plain,
        1e-5,
    );
}

#[test]
fn tiled_attention_equals_plain_attention() {
    // Lengths around the tile sizes; keys beyond the queries are an earlier prefix.
    for (length, keys) in [
        (1, 1),
        (1, 700),
        (129, 129),
        (200, 1100),
        (300, 513),
        (600, 700),
    ] {
        for causal in [false, true] {
            let heads = Heads {
                causal,
                ..Heads::grouped(6, 2, 16)
            };
            let q = random(&[2, length, 6 * 16], 8);
            let k = random(&[2, keys, 2 * 16], 9);
            let v = random(&[2, keys, 2 * 16], 10);
            close(
                attention(&q, &k, &v, &heads),
                attention_plain(&q, &k, &v, &heads),
                2e-5,
            );
        }
    }
}

#[test]
fn attention_serves_heads_in_any_order() {
    let heads = Heads {
        kv_of: vec![1, 0, 1],
        ..Heads::grouped(4, 2, 8)
    };
    let q = random(&[1, 1, 3 * 8], 11);
    let k = random(&[1, 40, 2 * 8], 12);
    let v = random(&[1, 40, 2 * 8], 13);
    close(
        attention(&q, &k, &v, &heads),
        attention_plain(&q, &k, &v, &heads),
        1e-5,
    );
    let too_far = Heads {
        kv_of: vec![2, 0, 1],
        ..heads
    };
    assert!(attention(&q, &k, &v, &too_far).is_err());
}

/// Queries, keys and values rounded to bf16, the attention's result in f32 by plain operations, and
/// each variant of the attention in bf16 beside it.
#[test]
fn attention_in_bf16_equals_plain_attention() {
    use super::{attention::Rounded, packed::Isa};
    for isa in Isa::ALL {
        if !isa.available() {
            println!("{isa}: skipped, not in this CPU");
            continue;
        }
        println!("{isa}: run");
        for (length, keys, dim) in [
            (1, 1, 16),
            (1, 700, 16),
            (25, 33, 5),
            (129, 129, 64),
            (100, 1100, 40),
            (120, 613, 64),
            (300, 513, 16),
        ] {
            for causal in [false, true] {
                let heads = Heads {
                    causal,
                    ..Heads::grouped(6, 2, dim)
                };
                let half = |t: Tensor| (t / 2.0).unwrap().to_dtype(DType::BF16).unwrap();
                let q = half(random(&[2, length, 6 * dim], 14));
                let k = half(random(&[2, keys, 2 * dim], 15));
                let v = half(random(&[2, keys, 2 * dim], 16));
                let got = q.apply_op3_no_bwd(&k, &v, &Rounded::with_isa(&heads, isa));
                let full = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
                let want = attention_plain(&full(&q), &full(&k), &full(&v), &heads);
                // Values reach 2, of which rounding the result may drop 2⁻⁸; as much again
                // is more than the roundings of the weights make, which average out.
                let got = got.unwrap();
                assert_eq!(got.dtype(), DType::BF16);
                close(Ok(full(&got)), want, 2.0 * 2.0 / 256.0);
            }
        }
    }
}

#[test]
fn results_in_bf16_are_those_in_f32_rounded() {
    let (rows, width) = (700, 36);
    let x = random(&[rows, width], 17);
    let (w, b) = (random(&[width], 18), random(&[width], 19));
    let same = |half: Result<Tensor>, full: Result<Tensor>| {
        let (half, full) = (half.unwrap(), full.unwrap());
        assert_eq!(half.dtype(), DType::BF16);
        let full = full.to_dtype(DType::BF16).unwrap();
        let full = full.to_dtype(DType::F32);
        close(half.to_dtype(DType::F32), full, 0.0);
    };
    let norm = |dtype| layer_norm(&x, &w, &b, 1e-6, dtype);
    same(norm(DType::BF16), norm(DType::F32));
    let norm = |dtype| rms_norm(&x, &w, 1e-6, dtype);
    same(norm(DType::BF16), norm(DType::F32));
    let (cos, sin) = (random(&[350, 6], 20), random(&[350, 6], 21));
    let turned = |dtype| rotary(x.copy()?.reshape((2, 350, width))?, &cos, &sin, dtype);
    same(turned(DType::BF16), turned(DType::F32));
    assert!(layer_norm(&x, &w, &b, 1e-6, DType::F16).is_err());
}
