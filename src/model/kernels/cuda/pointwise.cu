// Norms, activations, residuals and the rotary embedding, fused so that each tensor is read and written
// once, 16 bytes a thread. Tensors are bf16 and row-major; sums and functions are f32, and each result
// is rounded once, after the residual and after the norm, as the same steps in PyTorch round.
//
// Every width is a multiple of 8, every row starts at a multiple of 16 bytes.

#include <cuda_bf16.h>
#include <stdint.h>

namespace {

// Of one row, per thread: 16 * 8 * 256 threads = 16,384 numbers at most.
constexpr int CHUNKS_MAX = 8;
constexpr int NORM_THREADS_MAX = 256;

struct Eight {
    float of[8];
};

__device__ __forceinline__ Eight widen(const uint4 &packed) {
    const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
    Eight eight;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        eight.of[2 * i] = __uint_as_float(words[i] << 16);
        eight.of[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
    return eight;
}

__device__ __forceinline__ uint4 round(const Eight &eight) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const __nv_bfloat162 two = __floats2bfloat162_rn(eight.of[2 * i], eight.of[2 * i + 1]);
        words[i] = *reinterpret_cast<const uint32_t *>(&two);
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// The sum over the block, in every thread.
__device__ __forceinline__ float block_sum(float x) {
    __shared__ float parts[NORM_THREADS_MAX / 32];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    const int warps = blockDim.x / 32;
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.f;
    for (int i = 0; i < warps; i++) sum += parts[i];
    // The next call writes the same places.
    __syncthreads();
    return sum;
}

enum class Residual { None, Scaled };
enum class Norm { Layer, Rms };

// One block a row. With a residual, x becomes x + scale * (y + shift) first; `scale_shift` [2, width].
template <Residual RESIDUAL, Norm NORM>
__device__ __forceinline__ void norm(uint4 *x, const uint4 *y, const uint4 *scale_shift, const uint4 *weight,
                                     const uint4 *bias, uint4 *out, int chunks, float eps) {
    const int64_t row = static_cast<int64_t>(blockIdx.x) * chunks;
    const float width = chunks * 8;
    Eight kept[CHUNKS_MAX];
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < CHUNKS_MAX; i++) {
        const int c = threadIdx.x + i * blockDim.x;
        if (c >= chunks) break;
        kept[i] = widen(x[row + c]);
        if constexpr (RESIDUAL == Residual::Scaled) {
            const Eight other = widen(y[row + c]);
            const Eight scale = widen(scale_shift[c]), shift = widen(scale_shift[chunks + c]);
#pragma unroll
            for (int n = 0; n < 8; n++) kept[i].of[n] += scale.of[n] * (other.of[n] + shift.of[n]);
            const uint4 rounded = round(kept[i]);
            x[row + c] = rounded;
            kept[i] = widen(rounded);
        }
#pragma unroll
        for (int n = 0; n < 8; n++) sum += NORM == Norm::Rms ? kept[i].of[n] * kept[i].of[n] : kept[i].of[n];
    }
    sum = block_sum(sum);
    const float mean = NORM == Norm::Rms ? 0.f : sum / width;
    if constexpr (NORM == Norm::Layer) {
        sum = 0.f;
#pragma unroll
        for (int i = 0; i < CHUNKS_MAX; i++) {
            if (threadIdx.x + i * blockDim.x >= chunks) break;
#pragma unroll
            for (int n = 0; n < 8; n++) {
                const float apart = kept[i].of[n] - mean;
                sum += apart * apart;
            }
        }
        sum = block_sum(sum);
    }
    const float factor = rsqrtf(sum / width + eps);
#pragma unroll
    for (int i = 0; i < CHUNKS_MAX; i++) {
        const int c = threadIdx.x + i * blockDim.x;
        if (c >= chunks) break;
        const Eight w = widen(weight[c]);
        Eight result;
        if constexpr (NORM == Norm::Layer) {
            const Eight b = widen(bias[c]);
#pragma unroll
            for (int n = 0; n < 8; n++) result.of[n] = (kept[i].of[n] - mean) * factor * w.of[n] + b.of[n];
        } else {
#pragma unroll
            for (int n = 0; n < 8; n++) result.of[n] = kept[i].of[n] * factor * w.of[n];
        }
        out[row + c] = round(result);
    }
}

// For each chunk of a tensor of `count` chunks: x = f(x, y, chunk number).
template <typename F>
__device__ __forceinline__ void each(uint4 *x, int64_t count, F f) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
        Eight eight = widen(x[i]);
        f(eight, i);
        x[i] = round(eight);
    }
}

}  // namespace

// Norms: grid [rows], threads a multiple of 32 and at least chunks / 8; out [rows, chunks * 8].
extern "C" __global__ void __launch_bounds__(256)
    rms_norm(const uint4 *x, const uint4 *weight, uint4 *out, int chunks, float eps) {
    norm<Residual::None, Norm::Rms>(const_cast<uint4 *>(x), nullptr, nullptr, weight, nullptr, out, chunks, eps);
}

extern "C" __global__ void __launch_bounds__(256)
    layer_norm(const uint4 *x, const uint4 *weight, const uint4 *bias, uint4 *out, int chunks, float eps) {
    norm<Residual::None, Norm::Layer>(const_cast<uint4 *>(x), nullptr, nullptr, weight, bias, out, chunks, eps);
}

extern "C" __global__ void __launch_bounds__(256)
    add_scaled_rms_norm(uint4 *x, const uint4 *y, const uint4 *scale_shift, const uint4 *weight, uint4 *out,
                        int chunks, float eps) {
    norm<Residual::Scaled, Norm::Rms>(x, y, scale_shift, weight, nullptr, out, chunks, eps);
}

extern "C" __global__ void __launch_bounds__(256)
    add_scaled_layer_norm(uint4 *x, const uint4 *y, const uint4 *scale_shift, const uint4 *weight,
                          const uint4 *bias, uint4 *out, int chunks, float eps) {
    norm<Residual::Scaled, Norm::Layer>(x, y, scale_shift, weight, bias, out, chunks, eps);
}

// x = x + scale * (y + shift); `chunks` of a row, `count` of the tensor.
extern "C" __global__ void __launch_bounds__(256)
    add_scaled(uint4 *x, const uint4 *y, const uint4 *scale_shift, int chunks, int64_t count) {
    each(x, count, [&](Eight &eight, int64_t i) {
        const int c = i % chunks;
        const Eight other = widen(y[i]), scale = widen(scale_shift[c]), shift = widen(scale_shift[chunks + c]);
#pragma unroll
        for (int n = 0; n < 8; n++) eight.of[n] += scale.of[n] * (other.of[n] + shift.of[n]);
    });
}

// x = gelu(x + bias), the exact one.
extern "C" __global__ void __launch_bounds__(256)
    gelu_bias(uint4 *x, const uint4 *bias, int chunks, int64_t count) {
    each(x, count, [&](Eight &eight, int64_t i) {
        const Eight shift = widen(bias[i % chunks]);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float of = eight.of[n] + shift.of[n];
            eight.of[n] = 0.5f * of * (1.f + erff(of * 0.70710678118654752f));
        }
    });
}

// x = x + bias.
extern "C" __global__ void __launch_bounds__(256)
    add_bias(uint4 *x, const uint4 *bias, int chunks, int64_t count) {
    each(x, count, [&](Eight &eight, int64_t i) {
        const Eight shift = widen(bias[i % chunks]);
#pragma unroll
        for (int n = 0; n < 8; n++) eight.of[n] += shift.of[n];
    });
}

// gate = silu(gate) * up.
extern "C" __global__ void __launch_bounds__(256) silu_mul(uint4 *gate, const uint4 *up, int64_t count) {
    each(gate, count, [&](Eight &eight, int64_t i) {
        const Eight other = widen(up[i]);
#pragma unroll
        for (int n = 0; n < 8; n++) eight.of[n] = __fdividef(eight.of[n], 1.f + __expf(-eight.of[n])) * other.of[n];
    });
}

// The pairs (i, i + half) of each head turn by the angle of their row's position: cosines and sines
// f32 [length, half], half a multiple of 8. Of each row of x, `row_chunks` chunks long and at position
// row % length, the heads in the first `row_pairs` pairs of chunks turn.
extern "C" __global__ void __launch_bounds__(256)
    rotary(uint4 *x, const float4 *cosines, const float4 *sines, int length, int half_chunks, int row_chunks,
           int row_pairs, int64_t pairs) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= pairs) return;
    const int64_t row = i / row_pairs;
    const int pair = i % row_pairs;
    const int head = pair / half_chunks, chunk = pair % half_chunks;
    uint4 *low = x + row * row_chunks + head * 2 * half_chunks + chunk;
    uint4 *high = low + half_chunks;
    const int64_t angle = (row % length) * half_chunks * 2 + chunk * 2;
    Eight a = widen(*low), b = widen(*high);
#pragma unroll
    for (int part = 0; part < 2; part++) {
        const float4 c4 = cosines[angle + part], s4 = sines[angle + part];
        const float c[4] = {c4.x, c4.y, c4.z, c4.w}, s[4] = {s4.x, s4.y, s4.z, s4.w};
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const float first = a.of[part * 4 + n], second = b.of[part * 4 + n];
            a.of[part * 4 + n] = first * c[n] - second * s[n];
            b.of[part * 4 + n] = second * c[n] + first * s[n];
        }
    }
    *low = round(a);
    *high = round(b);
}

// Pictures of side * side RGB bytes to the patches that the tower takes, normalised: out [pictures *
// grid * grid, stride] bf16, a row in the order (channel, y, x) of its patch, zeros behind it.
// `levels` f32 [3, 256]: the normalised value of each level of each channel.
extern "C" __global__ void __launch_bounds__(256)
    patches(const uint8_t *pictures, const float *levels, __nv_bfloat16 *out, int grid, int patch, int stride,
            int64_t count) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int64_t row = i / stride;
    const int at = i % stride;
    const int area = patch * patch;
    const int channel = at / area;
    if (channel >= 3) {
        out[i] = __float2bfloat16_rn(0.f);
        return;
    }
    const int y = at % area / patch, x = at % patch;
    const int64_t picture = row / (grid * grid);
    const int of = row % (grid * grid);
    const int side = grid * patch;
    const int64_t line = picture * side + (of / grid) * patch + y;
    const uint8_t level = pictures[(line * side + (of % grid) * patch + x) * 3 + channel];
    out[i] = __float2bfloat16_rn(levels[channel * 256 + level]);
}
