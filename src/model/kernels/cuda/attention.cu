// softmax(q k^T / sqrt(D)) v in tiles: the scores of a tile of queries against a tile of keys live in
// registers only (FlashAttention-2, Dao 2023, arXiv 2307.08691), so nothing of size length x keys is
// ever written. Products run on the tensor cores (m16n8k16, bf16 in, f32 sums); maxima, exponentials and
// sums are f32; the weights of the softmax are rounded to bf16 before their product, as PyTorch does.
//
// q [batch, length, heads * D], k and v [batch, keys, kv_heads * D], out like q: bf16, rows `*_stride`
// numbers apart, clips `*_batch` numbers apart, every row starting at a multiple of 16 bytes. Query head
// h reads key/value head h / group. With `causal`, query i stands at position keys - length + i and sees
// the keys up to its own.

#include <cuda_bf16.h>
#include <stdint.h>

#include "softmax.cuh"

namespace {

__device__ __forceinline__ uint32_t shared_address(const void *p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes to shared memory in the background; zeros where there is nothing to read.
__device__ __forceinline__ void copy16(uint32_t to, const void *from, bool there) {
    const int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(bytes));
}

__device__ __forceinline__ void copies_begin() { asm volatile("cp.async.commit_group;\n"); }

__device__ __forceinline__ void copies_end() { asm volatile("cp.async.wait_group 0;\n"); }

__device__ __forceinline__ void load4(uint32_t (&r)[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

__device__ __forceinline__ void load4_transposed(uint32_t (&r)[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Byte offset of 16-byte chunk `chunk` of row `row` in a tile of D numbers a row. The chunks of a row are
// permuted so that the eight rows that one ldmatrix reads lie in different banks.
template <int D>
__device__ __forceinline__ uint32_t place(int row, int chunk) {
    return row * (D * 2) + ((chunk ^ (row & 7)) << 4);
}

template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(uint32_t tile, const __nv_bfloat16 *from, int64_t stride,
                                          int first, int rows) {
    constexpr int CHUNKS = D / 8;
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / THREADS; i++) {
        const int c = threadIdx.x + i * THREADS;
        const int row = c / CHUNKS, chunk = c % CHUNKS;
        const bool there = first + row < rows;
        const __nv_bfloat16 *source = from + (there ? (first + row) * stride + chunk * 8 : 0);
        copy16(tile + place<D>(row, chunk), source, there);
    }
}

struct Operands {
    const __nv_bfloat16 *q, *k, *v;
    __nv_bfloat16 *out;
    int64_t q_stride, k_stride, v_stride, q_batch, k_batch, v_batch;
    int length, keys, heads, group, causal;
    float scale;  // log2(e) / sqrt(D)
};

// One block: ROWS queries of one head against all keys that they see, COLS at a time.
template <int D, int ROWS, int COLS, int WARPS>
__device__ __forceinline__ void attend(const Operands &o) {
    constexpr int THREADS = WARPS * 32;
    constexpr int TILES = ROWS / (16 * WARPS);  // of 16 queries, per warp
    constexpr int STEPS = D / 16;
    constexpr int KEY_TILES = COLS / 8;
    constexpr int OUT_TILES = D / 8;
    constexpr int TILE_BYTES = COLS * D * 2;

    extern __shared__ __align__(128) unsigned char memory[];
    const uint32_t queries = shared_address(memory);
    const uint32_t keys = queries + ROWS * D * 2;
    const uint32_t values = keys + 2 * TILE_BYTES;

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    // The blocks with the most keys first.
    const int first = (gridDim.x - 1 - blockIdx.x) * ROWS;
    const int head = blockIdx.y, batch = blockIdx.z;
    const int kv_head = head / o.group;
    const __nv_bfloat16 *q = o.q + batch * o.q_batch + head * D;
    const __nv_bfloat16 *k = o.k + batch * o.k_batch + kv_head * D;
    const __nv_bfloat16 *v = o.v + batch * o.v_batch + kv_head * D;
    const int offset = o.keys - o.length;
    const int seen = o.causal ? min(o.keys, first + ROWS + offset) : o.keys;
    const int tiles = (seen + COLS - 1) / COLS;

    load_tile<D, ROWS, THREADS>(queries, q, o.q_stride, first, o.length);
    load_tile<D, COLS, THREADS>(keys, k, o.k_stride, 0, o.keys);
    load_tile<D, COLS, THREADS>(values, v, o.v_stride, 0, o.keys);
    copies_begin();

    float sums[TILES][OUT_TILES][4] = {};
    float largest[TILES][2], total[TILES][2];
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            largest[t][half] = -INFINITY;
            total[t][half] = 0.f;
        }

    const int warp_row = warp * TILES * 16;
    const int q_row = warp_row + (lane & 15), q_chunk = lane >> 4;
    const int k_row = (lane & 7) + ((lane >> 4) << 3), k_chunk = (lane >> 3) & 1;
    const int v_row = lane & 15, v_chunk = lane >> 4;

    for (int j = 0; j < tiles; j++) {
        copies_end();
        __syncthreads();
        if (j + 1 < tiles) {
            const uint32_t to = ((j + 1) & 1) * TILE_BYTES;
            load_tile<D, COLS, THREADS>(keys + to, k, o.k_stride, (j + 1) * COLS, o.keys);
            load_tile<D, COLS, THREADS>(values + to, v, o.v_stride, (j + 1) * COLS, o.keys);
            copies_begin();
        }
        const uint32_t k_tile = keys + (j & 1) * TILE_BYTES;
        const uint32_t v_tile = values + (j & 1) * TILE_BYTES;

        float scores[TILES][KEY_TILES][4] = {};
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            uint32_t a[TILES][4];
#pragma unroll
            for (int t = 0; t < TILES; t++)
                load4(a[t], queries + place<D>(q_row + t * 16, step * 2 + q_chunk));
#pragma unroll
            for (int n = 0; n < KEY_TILES / 2; n++) {
                uint32_t b[4];
                load4(b, k_tile + place<D>(n * 16 + k_row, step * 2 + k_chunk));
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    multiply(scores[t][2 * n], a[t], b[0], b[1]);
                    multiply(scores[t][2 * n + 1], a[t], b[2], b[3]);
                }
            }
        }

        // Only the last tile of keys and the tiles on the diagonal hold pairs that must not count.
        const int last = (j + 1) * COLS - 1;
        if (last >= o.keys || (o.causal && last > first + warp_row + offset)) {
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                const int row = first + warp_row + t * 16 + lane / 4 + offset;
#pragma unroll
                for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int column = j * COLS + n * 8 + (lane & 3) * 2 + (i & 1);
                        const int most = o.causal ? min(o.keys - 1, row + (i >> 1) * 8) : o.keys - 1;
                        if (column > most) scores[t][n][i] = -INFINITY;
                    }
            }
        }

        // The softmax as far as it is known: what was summed before is scaled to the new maximum.
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float most = largest[t][half];
#pragma unroll
                for (int n = 0; n < KEY_TILES; n++)
                    most = fmaxf(most, fmaxf(scores[t][n][half * 2], scores[t][n][half * 2 + 1]));
                most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
                most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
                // A row past the end of the queries may see nothing yet.
                const float base = most == -INFINITY ? 0.f : most * o.scale;
                const float keep = exp2_fast(largest[t][half] * o.scale - base);
                largest[t][half] = most;
                float sum = total[t][half] * keep;
#pragma unroll
                for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
                    for (int i = half * 2; i < half * 2 + 2; i++) {
                        const float p = exp2_fast(scores[t][n][i] * o.scale - base);
                        scores[t][n][i] = p;
                        sum += p;
                    }
                total[t][half] = sum;
#pragma unroll
                for (int n = 0; n < OUT_TILES; n++) {
                    sums[t][n][half * 2] *= keep;
                    sums[t][n][half * 2 + 1] *= keep;
                }
            }

#pragma unroll
        for (int step = 0; step < KEY_TILES / 2; step++) {
            uint32_t a[TILES][4];
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                const auto &low = scores[t][2 * step], &high = scores[t][2 * step + 1];
                a[t][0] = pack(low[0], low[1]);
                a[t][1] = pack(low[2], low[3]);
                a[t][2] = pack(high[0], high[1]);
                a[t][3] = pack(high[2], high[3]);
            }
#pragma unroll
            for (int n = 0; n < OUT_TILES / 2; n++) {
                uint32_t b[4];
                load4_transposed(b, v_tile + place<D>(step * 16 + v_row, n * 2 + v_chunk));
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    multiply(sums[t][2 * n], a[t], b[0], b[1]);
                    multiply(sums[t][2 * n + 1], a[t], b[2], b[3]);
                }
            }
        }
    }

    // Through the warp's own rows of the query tile, so that rows are written in whole.
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = total[t][half];
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            const float factor = sum > 0.f ? 1.f / sum : 0.f;
            const int row = warp_row + t * 16 + half * 8 + lane / 4;
#pragma unroll
            for (int n = 0; n < OUT_TILES; n++) {
                const uint32_t two = pack(sums[t][n][half * 2] * factor, sums[t][n][half * 2 + 1] * factor);
                *reinterpret_cast<uint32_t *>(memory + place<D>(row, n) + (lane & 3) * 4) = two;
            }
        }
    __syncwarp();
    __nv_bfloat16 *out = o.out + (batch * static_cast<int64_t>(o.length) * o.heads + head) * D;
#pragma unroll
    for (int i = 0; i < TILES * 16 * OUT_TILES / 32; i++) {
        const int c = lane + i * 32;
        const int row = warp_row + c / OUT_TILES, chunk = c % OUT_TILES;
        if (first + row < o.length) {
            const uint4 eight = *reinterpret_cast<const uint4 *>(memory + place<D>(row, chunk));
            const int64_t at = static_cast<int64_t>(first + row) * o.heads * D + chunk * 8;
            *reinterpret_cast<uint4 *>(out + at) = eight;
        }
    }
}

// Key/value head of each query head.
struct KvOf {
    unsigned char of[128];
};

__device__ __forceinline__ void widen(float (&to)[8], const uint4 &eight) {
    const uint32_t words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[2 * i] = __uint_as_float(words[i] << 16);
        to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

// One query a clip, which sees every key: the deepest layer needs the last token alone. A block takes one
// head of one clip; D / 8 lanes work on one key at a time.
template <int D, int THREADS>
__device__ __forceinline__ void attend_last(const Operands &o, const KvOf &kv_of) {
    constexpr int LANES = D / 8;
    constexpr int GROUPS = THREADS / LANES;
    constexpr int AHEAD = 4;
    const int group = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int head = blockIdx.x, batch = blockIdx.y;
    const int kv_head = kv_of.of[head];
    const __nv_bfloat16 *k = o.k + batch * o.k_batch + kv_head * D + lane * 8;
    const __nv_bfloat16 *v = o.v + batch * o.v_batch + kv_head * D + lane * 8;

    float q[8], sums[8] = {};
    widen(q, *reinterpret_cast<const uint4 *>(o.q + batch * o.q_batch + head * D + lane * 8));
    float largest = -INFINITY, total = 0.f;
    // Every lane goes round equally often: they shuffle with each other.
    for (int first = 0; first < o.keys; first += GROUPS * AHEAD) {
        uint4 key[AHEAD], value[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int64_t row = min(first + i * GROUPS + group, o.keys - 1);
            key[i] = *reinterpret_cast<const uint4 *>(k + row * o.k_stride);
            value[i] = *reinterpret_cast<const uint4 *>(v + row * o.v_stride);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            float one[8], score = 0.f;
            widen(one, key[i]);
#pragma unroll
            for (int n = 0; n < 8; n++) score += q[n] * one[n];
#pragma unroll
            for (int step = 1; step < LANES; step *= 2) score += __shfl_xor_sync(~0u, score, step);
            score *= o.scale;
            if (first + i * GROUPS + group >= o.keys) continue;
            const float most = fmaxf(largest, score);
            const float keep = exp2_fast(largest - most), p = exp2_fast(score - most);
            largest = most;
            total = total * keep + p;
            widen(one, value[i]);
#pragma unroll
            for (int n = 0; n < 8; n++) sums[n] = sums[n] * keep + p * one[n];
        }
    }

    __shared__ float group_sums[GROUPS][D];
    __shared__ float group_largest[GROUPS], group_total[GROUPS];
#pragma unroll
    for (int n = 0; n < 8; n++) group_sums[group][lane * 8 + n] = sums[n];
    if (lane == 0) {
        group_largest[group] = largest;
        group_total[group] = total;
    }
    __syncthreads();
    if (threadIdx.x < D) {
        float most = -INFINITY;
        for (int g = 0; g < GROUPS; g++) most = fmaxf(most, group_largest[g]);
        float sum = 0.f, all = 0.f;
        for (int g = 0; g < GROUPS; g++) {
            const float keep = exp2_fast(group_largest[g] - most);
            all += group_total[g] * keep;
            sum += group_sums[g][threadIdx.x] * keep;
        }
        const int64_t at = (static_cast<int64_t>(batch) * o.heads + head) * D + threadIdx.x;
        o.out[at] = __float2bfloat16_rn(sum / all);
    }
}

}  // namespace

#define ARGUMENTS                                                                                     \
    const __nv_bfloat16 *q, const __nv_bfloat16 *k, const __nv_bfloat16 *v, __nv_bfloat16 *out,          \
        int64_t q_stride, int64_t k_stride, int64_t v_stride, int64_t q_batch, int64_t k_batch,          \
        int64_t v_batch, int length, int keys, int heads, int group, int causal, float scale
#define OPERANDS                                                                                      \
    {q, k, v, out, q_stride, k_stride, v_stride, q_batch, k_batch, v_batch, length, keys, heads, group,  \
     causal, scale}

// attention_D_ROWS_COLS_WARPS: grid [ceil(length / ROWS), heads, batch], WARPS * 32 threads,
// (ROWS + 4 * COLS) * D * 2 bytes of shared memory.
#define ATTENTION(D, ROWS, COLS, WARPS, BLOCKS)                                                       \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS)                                     \
        attention_##D##_##ROWS##_##COLS##_##WARPS(ARGUMENTS) {                                           \
        const Operands operands = OPERANDS;                                                              \
        attend<D, ROWS, COLS, WARPS>(operands);                                                          \
    }

// attention_last_D: grid [heads, batch], 256 threads; length is 1, group is not read.
#define ATTENTION_LAST(D)                                                                             \
    extern "C" __global__ void __launch_bounds__(256) attention_last_##D(                  \
        ARGUMENTS, const __grid_constant__ KvOf kv_of) {                                                         \
        const Operands operands = OPERANDS;                                                              \
        attend_last<D, 256>(operands, kv_of);                                                            \
    }

ATTENTION(64, 128, 64, 4, 2)
ATTENTION(128, 64, 64, 4, 2)
ATTENTION_LAST(64)
ATTENTION_LAST(128)
