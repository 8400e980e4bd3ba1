//! What a pass costs by arithmetic, to say how much of a machine it uses.

use candle_core::{DType, Tensor};
use serde::Serialize;

use super::{config::ModelConfig, device::Place, linear::failed};
use crate::error::Result;

/// Floating-point operations of one segment's pass with one prompt; a multiplication and an addition
/// count as two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Work {
    /// Products with the vision tower's weights.
    pub vision_products: f64,
    /// Its attention.
    pub vision_attention: f64,
    /// The projector.
    pub projector: f64,
    /// Products with the language model's weights.
    pub language_products: f64,
    /// Its attention; of pairs that the causal mask leaves out, none count.
    pub language_attention: f64,
}

impl Work {
    /// Of a segment of `frames` frames and a prompt of `tokens` tokens, theirs included, down to `depth`
    /// layers, of the deepest of which only keys, values and the last token's queries are computed.
    pub fn of_segment(config: &ModelConfig, frames: usize, tokens: usize, depth: usize) -> Self {
        let (vision, text) = (&config.vision, &config.text);
        let f = |n: usize| n as f64;
        let (width, mlp) = (f(vision.hidden), f(vision.mlp));
        let places = f(vision.patches() + 1);
        let patches = f(frames * vision.patches()) * width * f(3 * vision.patch * vision.patch);
        let blocks = f(frames) * places * (4.0 * width * width + 2.0 * width * mlp);
        let pairs = f(frames) * places * places * width;
        let visual = f(frames * config.tokens_per_frame());
        let hidden = f(text.hidden);
        let queries = f(text.heads * text.head_dim);
        let keys = f(text.kv_heads * text.head_dim);
        let whole =
            2.0 * hidden * queries + 2.0 * hidden * keys + 3.0 * hidden * f(text.intermediate);
        let (layers, last) = (f(depth.saturating_sub(1)), f(depth.min(1)));
        let tokens = f(tokens);
        let seen = tokens * (tokens + 1.0) / 2.0;
        Work {
            vision_products: 2.0 * (patches + f(vision.layers) * blocks),
            vision_attention: 2.0 * f(vision.layers) * 2.0 * pairs,
            projector: 2.0 * visual * (4.0 * width * hidden + hidden * hidden),
            language_products: 2.0
                * (layers * tokens * whole
                    + last * (2.0 * tokens * hidden * keys + hidden * queries)),
            language_attention: 2.0 * 2.0 * queries * (layers * seen + last * tokens),
        }
    }

    /// All of it.
    pub fn total(&self) -> f64 {
        self.vision_products
            + self.vision_attention
            + self.projector
            + self.language_products
            + self.language_attention
    }
}

/// Side of the square matrices that [`matmul_peak`] multiplies.
const PEAK_SIDE: usize = 8192;
/// Products that it times at once.
const PEAK_PRODUCTS: u32 = 20;

/// Operations per second of a large bf16 product on a GPU, the most that a pass could reach there;
/// `None` on the CPU.
pub fn matmul_peak(place: &Place) -> Result<Option<f64>> {
    if place.device.is_cpu() {
        return Ok(None);
    }
    let run = || {
        let side = (PEAK_SIDE, PEAK_SIDE);
        let random = || Tensor::randn(0f32, 1.0, side, &place.device)?.to_dtype(DType::BF16);
        let (a, b) = (random()?, random()?);
        for _ in 0..3 {
            a.matmul(&b)?;
        }
        place.device.synchronize()?;
        let started = std::time::Instant::now();
        for _ in 0..PEAK_PRODUCTS {
            a.matmul(&b)?;
        }
        place.device.synchronize()?;
        Ok(started.elapsed().as_secs_f64())
    };
    let seconds = run().map_err(failed("measuring products"))?;
    let side = PEAK_SIDE as f64;
    Ok(Some(
        2.0 * side * side * side * f64::from(PEAK_PRODUCTS) / seconds,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_1b_shape_costs_what_was_counted_by_hand() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/configs/1b/hf.json"
        );
        let (config, _) = ModelConfig::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        let work = Work::of_segment(&config, 16, 4272, 24);
        let tera = |flop: f64, expected: f64| {
            let found = flop / 1e12;
            assert!(
                (found - expected).abs() < 5e-4,
                "{found} against {expected}"
            );
        };
        // 24 blocks of 16 * 1025 rows with 12 * 1024² numbers of weights, and the patches.
        tera(work.vision_products, 9.925);
        tera(work.vision_attention, 1.6525);
        // 23 layers whole; of the last, keys and values, and one query.
        tera(work.language_products, 2.9318);
        tera(work.language_attention, 0.7524);
        tera(work.total(), 15.2984);
        let partial = Work::of_segment(&config, 16, 4272, 18);
        assert!(partial.language_products < 0.75 * work.language_products);
        assert_eq!(partial.vision_products, work.vision_products);
    }
}
