//! The kernels on a CUDA GPU against their twins on the CPU, and a whole model on both. Where this build or
//! this machine has no GPU each test says so and does nothing else.
#![allow(clippy::unwrap_used, missing_docs)]

use candle_core::{DType, Device, Tensor};
use headhunt::{
    engine::probe::{Clip, HeadProbe},
    head::{HeadFeatures, HeadId, HeadSelection},
    media::{RgbImage, SharedImage, rgb_bytes},
    model::{
        DeviceSpec, InternVl, LoadOptions, Precision,
        device::Place,
        kernels::{self, Heads, Norm},
        pixels::resize_bicubic,
        prompt::DEFAULT_PROMPTS,
        synthesize::{Dtype, Layout, Preset, Synthesis},
    },
};

fn gpu() -> Option<Place> {
    match Place::open(DeviceSpec::Cuda(0), Precision::Auto) {
        Ok(place) => Some(place),
        Err(e) => {
            println!("skipped: no device ({e:#})");
            None
        }
    }
}

/// Numbers between −`scale` and `scale`, rounded to bf16, on the CPU in f32.
fn random(shape: &[usize], scale: f32, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let data: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
        })
        .collect();
    let t = Tensor::from_vec(data, shape, &Device::Cpu).unwrap();
    t.to_dtype(DType::BF16)
        .unwrap()
        .to_dtype(DType::F32)
        .unwrap()
}

/// The same numbers on the GPU, in bf16.
fn up(x: &Tensor, place: &Place) -> Tensor {
    let x = x.to_device(&place.device).unwrap();
    x.to_dtype(DType::BF16).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    let x = x
        .to_dtype(DType::F32)
        .unwrap()
        .to_device(&Device::Cpu)
        .unwrap();
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// ‖a − b‖ / ‖b‖.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().chain(b).all(|v| v.is_finite()));
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
    let size: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (difference / size).sqrt()
}

/// One rounding to bf16 is at most 2^-9 of a number; a rounding of the residual before a norm adds one.
const ROUNDED: f64 = 4e-3;

#[track_caller]
fn close(gpu: &Tensor, cpu: &Tensor, what: &str) {
    assert_eq!(gpu.dims(), cpu.dims());
    let apart = apart(&numbers(gpu), &numbers(cpu));
    assert!(apart <= ROUNDED, "{what}: {apart:.2e} apart");
}

#[test]
fn pointwise_kernels_equal_their_twins() {
    let Some(place) = gpu() else { return };
    let up = |x: &Tensor| up(x, &place);
    for (rows, width) in [
        (77, 896),
        (1025, 1024),
        (33, 3200),
        (5, 12_800),
        (4272, 3584),
        (3, 8),
    ] {
        let (x, y) = (
            random(&[rows, width], 4.0, 1),
            random(&[rows, width], 2.0, 2),
        );
        let (w, b) = (random(&[width], 2.0, 3), random(&[width], 1.0, 4));
        let both = Tensor::stack(&[&w, &b], 0).unwrap();
        let (gx, gy, gw, gb, gboth) = (up(&x), up(&y), up(&w), up(&b), up(&both));
        let (f32, bf16) = (DType::F32, DType::BF16);
        let size = format!("{rows} x {width}");

        let norm = kernels::layer_norm(&gx, &gw, &gb, 1e-6, bf16).unwrap();
        close(
            &norm,
            &kernels::layer_norm(&x, &w, &b, 1e-6, f32).unwrap(),
            &format!("LayerNorm {size}"),
        );
        let norm = kernels::rms_norm(&gx, &gw, 1e-6, bf16).unwrap();
        close(
            &norm,
            &kernels::rms_norm(&x, &w, 1e-6, f32).unwrap(),
            &format!("RMSNorm {size}"),
        );
        let copy = |x: &Tensor| x.copy().unwrap();
        let sum = kernels::add_bias(copy(&gx), &gb).unwrap();
        close(&sum, &kernels::add_bias(copy(&x), &b).unwrap(), "bias");
        let gelu = kernels::gelu_bias(copy(&gx), &gb).unwrap();
        close(&gelu, &kernels::gelu_bias(copy(&x), &b).unwrap(), "GELU");
        let gated = kernels::silu_mul(copy(&gx), &gy).unwrap();
        close(&gated, &kernels::silu_mul(copy(&x), &y).unwrap(), "SwiGLU");
        let scaled = kernels::add_scaled(copy(&gx), &gy, &gboth).unwrap();
        close(
            &scaled,
            &kernels::add_scaled(copy(&x), &y, &both).unwrap(),
            "layer scale",
        );
        for bias in [None, Some((&b, &gb))] {
            let on_gpu = Norm {
                weight: &gw,
                bias: bias.map(|b| b.1),
                eps: 1e-6,
            };
            let on_cpu = Norm {
                weight: &w,
                bias: bias.map(|b| b.0),
                eps: 1e-6,
            };
            let (gsum, gnorm) =
                kernels::add_scaled_norm(copy(&gx), &gy, &gboth, on_gpu, bf16).unwrap();
            let (sum, norm) = kernels::add_scaled_norm(copy(&x), &y, &both, on_cpu, f32).unwrap();
            close(&gsum, &sum, "layer scale before a norm");
            close(&gnorm, &norm, "norm behind a layer scale");
        }
    }
}

#[test]
fn the_rotary_kernel_equals_its_twin() {
    let Some(place) = gpu() else { return };
    for (batch, length, heads, half) in [(2, 333, 14, 32), (1, 100, 28, 64)] {
        let width = heads * 2 * half;
        let x = random(&[batch, length, width + 64], 3.0, 5);
        let angles = random(&[length + 2, half], 3.0, 6)
            .narrow(0, 2, length)
            .unwrap();
        let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
        let to = |t: &Tensor| t.to_device(&place.device).unwrap();
        let start = x.narrow(2, 0, width).unwrap().contiguous().unwrap();
        let turned = kernels::rotary(start.copy().unwrap(), &cos, &sin, DType::F32).unwrap();
        let whole = kernels::rotary(up(&start, &place), &to(&cos), &to(&sin), DType::BF16).unwrap();
        close(&whole, &turned, "rotary");
        // The same with more behind each row, which stays as it was.
        let part = kernels::rotary_start(up(&x, &place), width, &to(&cos), &to(&sin)).unwrap();
        close(
            &part.narrow(2, 0, width).unwrap(),
            &turned,
            "rotary of a part",
        );
        let rest = numbers(&part.narrow(2, width, 64).unwrap());
        assert_eq!(rest, numbers(&x.narrow(2, width, 64).unwrap()));
    }
}

#[test]
fn products_equal_their_twins() {
    let Some(place) = gpu() else { return };
    for (rows, input, output) in [
        (1, 896, 128),
        (333, 592, 1024),
        (1025, 1024, 4096),
        (64, 4864, 896),
    ] {
        let (x, w) = (
            random(&[rows, input], 1.0, 7),
            random(&[output, input], 0.1, 8),
        );
        let (b, y) = (random(&[output], 3.0, 9), random(&[rows, output], 3.0, 10));
        let (gx, gw) = (up(&x, &place), up(&w, &place));
        for bias in [None, Some((&b, up(&b, &place)))] {
            let on_gpu = kernels::product(&gx, &gw, bias.as_ref().map(|b| &b.1)).unwrap();
            let on_cpu = kernels::product(&x, &w, bias.as_ref().map(|b| b.0)).unwrap();
            close(&on_gpu, &on_cpu, "product");
        }
        let on_gpu = kernels::add_product(up(&y, &place), &gx, &gw).unwrap();
        let on_cpu = kernels::add_product(y.copy().unwrap(), &x, &w).unwrap();
        close(&on_gpu, &on_cpu, "product onto a residual");
    }
}

#[test]
fn attention_kernels_equal_their_twins() {
    let Some(place) = gpu() else { return };
    let shapes = [
        // batch, queries, keys, heads, key/value heads, size, causal
        (2, 1025, 1025, 4, 4, 64, false),
        (1, 77, 77, 14, 2, 64, true),
        (2, 130, 700, 8, 2, 128, true),
        (1, 300, 301, 6, 3, 128, false),
        (3, 1, 513, 14, 2, 64, true),
        (2, 1, 1, 8, 2, 128, true),
        (1, 1300, 1300, 4, 1, 128, true),
        (2, 129, 1281, 4, 4, 64, true),
    ];
    for (batch, length, keys, count, kv, dim, causal) in shapes {
        let q = random(&[batch, length, count * dim], 2.0, 11);
        // Keys and values next to each other, as one product leaves them.
        let both = random(&[batch, keys, 2 * kv * dim], 2.0, 12);
        let gboth = up(&both, &place);
        let part = |of: &Tensor, n: usize| of.narrow(2, n * kv * dim, kv * dim).unwrap();
        let mut heads = Heads {
            causal,
            ..Heads::grouped(count, kv, dim)
        };
        if length == 1 {
            heads.kv_of.reverse();
        }
        let attend =
            |q: &Tensor, of: &Tensor| kernels::attention(q, &part(of, 0), &part(of, 1), &heads);
        let on_gpu = attend(&up(&q, &place), &gboth).unwrap();
        let what = format!("attention {batch} x {length} x {keys}, {count} heads of {dim}");
        close(&on_gpu, &attend(&q, &both).unwrap(), &what);
    }
}

/// Bytes to normalised patches on the GPU, against the CPU's pixels: the same numbers, rounded to bf16.
#[cfg(feature = "cuda")]
#[test]
fn pictures_are_cut_up_as_on_the_cpu() {
    use headhunt::model::pixels::normalize;

    let Some(place) = gpu() else { return };
    let (grid, patch) = (4, 14);
    let side = grid * patch;
    // More turns than there are buffers, of different sizes.
    let own = (side as u32, side as u32);
    let sizes = |count: usize, size: (u32, u32)| vec![size; count];
    // Smaller ones are resized: two of a size between others, one side kept, wide, tall so that the vertical
    // pass is first, a single column.
    let mixed = [
        own,
        (40, 30),
        (40, 30),
        own,
        (56, 30),
        (30, 56),
        (104, 30),
        (21, 149),
        (3, 100),
    ];
    for sizes in [
        sizes(3, own),
        sizes(1, own),
        sizes(16, own),
        mixed.to_vec(),
        sizes(2, own),
        sizes(16, (40, 30)),
        sizes(5, own),
    ] {
        let count = sizes.len();
        let pictures: Vec<SharedImage> = sizes
            .iter()
            .enumerate()
            .map(|(n, size)| picture(*size, n))
            .collect();
        let given: Vec<&SharedImage> = pictures.iter().collect();
        let patches = kernels::cuda::patches(&place.device, &given, (grid, patch)).unwrap();
        assert_eq!(patches.dims(), [count * grid * grid, 592]);
        let planes: Vec<f32> = pictures
            .iter()
            .flat_map(|picture| normalize(&resized(picture, side as u32).data).unwrap())
            .collect();
        let expected = Tensor::from_vec(
            planes,
            &[count, 3, grid, patch, grid, patch][..],
            &Device::Cpu,
        )
        .and_then(|x| x.permute(vec![0, 2, 4, 1, 3, 5])?.contiguous())
        .and_then(|x| {
            x.reshape((count * grid * grid, 588))?
                .pad_with_zeros(1, 0, 4)
        })
        .and_then(|x| x.to_dtype(DType::BF16))
        .unwrap();
        assert_eq!(numbers(&patches), numbers(&expected));
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn picture((width, height): (u32, u32), seed: usize) -> SharedImage {
    SharedImage {
        width,
        height,
        data: (0..rgb_bytes((width, height)))
            .map(|i| ((i / 5 + 31 * seed).wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect(),
    }
}

/// As decoding does it.
fn resized(picture: &SharedImage, side: u32) -> SharedImage {
    let rgb = RgbImage {
        width: picture.width,
        height: picture.height,
        data: picture.data.to_vec(),
    };
    SharedImage::square(side, resize_bicubic(&rgb, side).unwrap())
}

fn clip(side: u32, frames: usize, seed: usize) -> Clip {
    Clip {
        frames: (0..frames)
            .map(|number| picture((side, side), number + 7 * seed))
            .collect(),
    }
}

/// The true 1B shape, three of its decoder layers, two clips of two frames, two prompts.
#[test]
fn a_model_on_the_gpu_equals_it_on_the_cpu() {
    if gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    Synthesis {
        preset: "1b".parse::<Preset>().unwrap(),
        seed: 5,
        layout: Layout::Hf,
        dtype: Dtype::Bf16,
        shard_max_bytes: 4 << 30,
        progress: &mut |_, _| {},
    }
    .write(dir.path())
    .unwrap();
    let load = |device| {
        let options = LoadOptions {
            device,
            resident_layers: Some(3),
            resize_on_device: device != DeviceSpec::Cpu,
            ..LoadOptions::default()
        };
        InternVl::load(dir.path(), &options).unwrap()
    };
    let side = 448;
    let clips = [clip(side, 2, 0), clip(side, 2, 1)];
    let prompts = [DEFAULT_PROMPTS[0].to_owned(), DEFAULT_PROMPTS[1].to_owned()];
    let heads = HeadSelection::Only(
        (0..3)
            .flat_map(|layer| (0..14).map(move |head| HeadId { layer, head }))
            .collect(),
    );
    let run = |model: &InternVl, clips: &[Clip]| model.probe(clips, &prompts, &heads).unwrap();
    let cpu = run(&load(DeviceSpec::Cpu), &clips);
    let model = load(DeviceSpec::Cuda(0));
    let gpu = run(&model, &clips);
    let mut least: f64 = 1.0;
    for (a, b) in gpu.iter().zip(&cpu) {
        for (a, b) in a.data.chunks(64).zip(b.data.chunks(64)) {
            least = least.min(cosine(a, b));
        }
    }
    println!("least cosine of a head, bf16 on the GPU to f32 on the CPU: {least:.6}");
    assert!(least >= 0.995, "least cosine {least}");
    // A batch equals its singles, as far as other tiles of the same products round alike.
    let alike = |a: &HeadFeatures, b: &HeadFeatures| apart(&a.data, &b.data);
    for (clip, batched) in clips.iter().zip(&gpu) {
        let single = run(&model, std::slice::from_ref(clip));
        let apart = alike(batched, &single[0]);
        assert!(apart < 5e-3, "a batch is {apart:.1e} from its single");
    }
    // And the same again is the same to the bit.
    assert_eq!(run(&model, &clips), gpu);
    // So are pictures that the GPU resizes.
    let small = |seed| Clip {
        frames: vec![picture((320, 240), seed), picture((200, 400), seed + 1)],
    };
    let resized = |clip: &Clip| Clip {
        frames: clip.frames.iter().map(|p| resized(p, side)).collect(),
    };
    let clips = [small(3), small(9)];
    assert_eq!(
        run(&model, &clips),
        run(&model, &clips.each_ref().map(resized))
    );
}
