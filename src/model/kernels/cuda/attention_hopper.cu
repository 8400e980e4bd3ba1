// The attention of attention.cu for Hopper (compute capability 9.0): the same function, tiles and rounding, but
// products by wgmma, and tiles brought by the tensor copy engine. One group of four warps only asks for tiles of
// keys and values, two ahead; two groups compute, 64 queries each, and the softmax of a tile runs beside the
// product of the one before with its values (FlashAttention-3, Shah et al. 2024, arXiv 2407.08608).
//
// The tensors come as maps [batch, rows, width] with boxes of 64 numbers by a tile's rows, 128-byte swizzle; what
// lies past the last row reads as zeros.

#include <cuda_bf16.h>
#include <stdint.h>

#include "softmax.cuh"
#include "wgmma.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

namespace {

// As the driver makes it (CUtensorMap).
struct alignas(64) Map {
    unsigned char opaque[128];
};

constexpr int ROWS = 128;     // queries of a block
constexpr int GROUP = 128;    // threads that compute 64 of them
constexpr int STAGES = 2;     // tiles of keys, and of values, under way
constexpr int THREADS = 3 * GROUP;

__device__ __forceinline__ void make_barrier(uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals));
}

__device__ __forceinline__ void expect(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void await(uint32_t barrier, int phase) {
    asm volatile("{\n.reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra through;\n"
                 "bra again;\n"
                 "through:\n}\n" ::"r"(barrier),
                 "r"(phase)
                 : "memory");
}

__device__ __forceinline__ void fetch(uint32_t to, const Map &from, uint32_t barrier, int column, int row, int batch) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
                 "[%2];\n" ::"r"(to),
                 "l"(&from), "r"(barrier), "r"(column), "r"(row), "r"(batch)
                 : "memory");
}

template <int N>
__device__ __forceinline__ void scores_of(float (&c)[N / 2], uint64_t a, uint64_t b, int keep) {
    if constexpr (N == 64) {
        hopper::multiply_64(c, a, b, keep);
    } else {
        hopper::multiply_128(c, a, b, keep);
    }
}

template <int N>
__device__ __forceinline__ void add_values(float (&c)[N / 2], const uint32_t (&a)[4], uint64_t b) {
    if constexpr (N == 64) {
        hopper::multiply_64<1>(c, a, b, 1);
    } else {
        hopper::multiply_128<1>(c, a, b, 1);
    }
}

struct Shape {
    int length, keys, heads, group, causal;
    float scale;  // log2(e) / sqrt(D)
};

template <int D, int COLS>
__device__ __forceinline__ void attend(const Map &q_map, const Map &k_map, const Map &v_map, __nv_bfloat16 *out,
                                       const Shape o) {
    constexpr int BLOCKS = D / 64;  // of 64 numbers of a row
    constexpr int TILE_BYTES = COLS * D * 2;
    constexpr int QUERY_BYTES = ROWS * D * 2;

    extern __shared__ unsigned char raw[];
    __shared__ __align__(8) uint64_t barriers[1 + 4 * STAGES];
    // The swizzle counts rows from multiples of 1,024 bytes.
    unsigned char *memory = raw + ((1024 - (static_cast<uint32_t>(__cvta_generic_to_shared(raw)) & 1023)) & 1023);
    const uint32_t queries = static_cast<uint32_t>(__cvta_generic_to_shared(memory));
    const uint32_t keys = queries + QUERY_BYTES;
    const uint32_t values = keys + STAGES * TILE_BYTES;
    const uint32_t q_full = static_cast<uint32_t>(__cvta_generic_to_shared(barriers));
    const auto k_full = [&](int stage) { return q_full + 8 * (1 + stage); };
    const auto v_full = [&](int stage) { return q_full + 8 * (1 + STAGES + stage); };
    const auto k_empty = [&](int stage) { return q_full + 8 * (1 + 2 * STAGES + stage); };
    const auto v_empty = [&](int stage) { return q_full + 8 * (1 + 3 * STAGES + stage); };

    // The blocks with the most keys first.
    const int first = (gridDim.x - 1 - blockIdx.x) * ROWS;
    const int head = blockIdx.y, batch = blockIdx.z;
    const int offset = o.keys - o.length;
    const int seen = o.causal ? min(o.keys, first + ROWS + offset) : o.keys;
    const int tiles = (seen + COLS - 1) / COLS;

    if (threadIdx.x == 0) {
        make_barrier(q_full, 1);
        for (int stage = 0; stage < STAGES; stage++) {
            make_barrier(k_full(stage), 1);
            make_barrier(v_full(stage), 1);
            make_barrier(k_empty(stage), 2 * GROUP / 32);
            make_barrier(v_empty(stage), 2 * GROUP / 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
    }
    __syncthreads();

    const int group = threadIdx.x / GROUP;
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;\n");
        if (threadIdx.x == 0) {
            const int kv_column = head / o.group * D;
            expect(q_full, QUERY_BYTES);
            for (int b = 0; b < BLOCKS; b++)
                fetch(queries + b * ROWS * 128, q_map, q_full, head * D + b * 64, first, batch);
            // From the last tile to the first: the diagonal comes first.
            for (int i = 0; i < tiles; i++) {
                const int stage = i % STAGES, row = (tiles - 1 - i) * COLS, before = (i / STAGES - 1) & 1;
                if (i >= STAGES) await(k_empty(stage), before);
                expect(k_full(stage), TILE_BYTES);
                for (int b = 0; b < BLOCKS; b++)
                    fetch(keys + stage * TILE_BYTES + b * COLS * 128, k_map, k_full(stage), kv_column + b * 64, row,
                          batch);
                if (i >= STAGES) await(v_empty(stage), before);
                expect(v_full(stage), TILE_BYTES);
                for (int b = 0; b < BLOCKS; b++)
                    fetch(values + stage * TILE_BYTES + b * COLS * 128, v_map, v_full(stage), kv_column + b * 64, row,
                          batch);
            }
        }
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;\n");

    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const int group_row = (group - 1) * 64;
    const int own_row = first + group_row + warp * 16 + lane / 4;
    float scores[COLS / 2], sums[D / 2] = {};
    uint32_t weights[COLS / 16][4];
    float largest[2] = {-INFINITY, -INFINITY}, total[2] = {0.f, 0.f}, keep[2];

    const auto multiply_keys = [&](int i) {
        const uint32_t tile = keys + i % STAGES * TILE_BYTES;
#pragma unroll
        for (int step = 0; step < D / 16; step++) {
            const uint32_t part = step % 4 * 32;
            const uint64_t a = hopper::describe(queries + (step / 4 * ROWS + group_row) * 128 + part, 16);
            const uint64_t b = hopper::describe(tile + step / 4 * COLS * 128 + part, 16);
            scores_of<COLS>(scores, a, b, step > 0);
        }
        hopper::commit();
    };
    const auto multiply_values = [&](int i) {
        const uint32_t tile = values + i % STAGES * TILE_BYTES;
#pragma unroll
        for (int step = 0; step < COLS / 16; step++)
            add_values<D>(sums, weights[step], hopper::describe(tile + step * 16 * 128, COLS * 128));
        hopper::commit();
    };
    // Scores to weights of the softmax so far; `keep`: what earlier sums are to be multiplied by.
    const auto soften = [&](int i) {
        const int column = (tiles - 1 - i) * COLS;
        if (column + COLS > o.keys || (o.causal && column + COLS - 1 > first + group_row + offset)) {
#pragma unroll
            for (int n = 0; n < COLS / 2; n++) {
                const int at = column + n / 4 * 8 + (lane & 3) * 2 + (n & 1);
                const int most = o.causal ? min(o.keys - 1, own_row + (n >> 1 & 1) * 8 + offset) : o.keys - 1;
                if (at > most) scores[n] = -INFINITY;
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = largest[half];
#pragma unroll
            for (int n = 0; n < COLS / 8; n++)
                most = fmaxf(most, fmaxf(scores[n * 4 + half * 2], scores[n * 4 + half * 2 + 1]));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
            // A row may see nothing of the first tiles.
            const float base = most == -INFINITY ? 0.f : most * o.scale;
            keep[half] = exp2_fast(largest[half] * o.scale - base);
            largest[half] = most;
            float sum = 0.f;
#pragma unroll
            for (int n = 0; n < COLS / 8; n++)
#pragma unroll
                for (int j = half * 2; j < half * 2 + 2; j++) {
                    const float p = exp2_fast(scores[n * 4 + j] * o.scale - base);
                    scores[n * 4 + j] = p;
                    sum += p;
                }
            total[half] = total[half] * keep[half] + sum;
        }
    };
    const auto round_weights = [&] {
#pragma unroll
        for (int step = 0; step < COLS / 16; step++)
#pragma unroll
            for (int r = 0; r < 4; r++)
                weights[step][r] = pack(scores[step * 8 + r * 2], scores[step * 8 + r * 2 + 1]);
    };

    await(q_full, 0);
    await(k_full(0), 0);
    hopper::begin();
    multiply_keys(0);
    hopper::wait<0>();
    if (lane == 0) arrive(k_empty(0));
    soften(0);
    round_weights();
    for (int i = 1; i < tiles; i++) {
        await(k_full(i % STAGES), i / STAGES & 1);
        hopper::begin();
        multiply_keys(i);
        await(v_full((i - 1) % STAGES), (i - 1) / STAGES & 1);
        multiply_values(i - 1);
        hopper::wait<1>();
        if (lane == 0) arrive(k_empty(i % STAGES));
        soften(i);
        hopper::wait<0>();
        if (lane == 0) arrive(v_empty((i - 1) % STAGES));
#pragma unroll
        for (int n = 0; n < D / 2; n++) sums[n] *= keep[n >> 1 & 1];
        round_weights();
    }
    await(v_full((tiles - 1) % STAGES), (tiles - 1) / STAGES & 1);
    hopper::begin();
    multiply_values(tiles - 1);
    hopper::wait<0>();

    // Through the group's own queries, which nobody reads any more, so that rows are written in whole.
    asm volatile("bar.sync %0, %1;\n" ::"r"(group), "n"(GROUP) : "memory");
    const auto place = [&](int row, int chunk) {
        return (chunk / 8 * ROWS + row) * 128 + ((chunk % 8 ^ (row & 7)) << 4);
    };
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = total[half];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        const float factor = sum > 0.f ? 1.f / sum : 0.f;
        const int row = group_row + warp * 16 + half * 8 + lane / 4;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const uint32_t two = pack(sums[n * 4 + half * 2] * factor, sums[n * 4 + half * 2 + 1] * factor);
            *reinterpret_cast<uint32_t *>(memory + place(row, n) + (lane & 3) * 4) = two;
        }
    }
    __syncwarp();
    __nv_bfloat16 *to = out + (batch * static_cast<int64_t>(o.length) * o.heads + head) * D;
#pragma unroll
    for (int i = 0; i < 16 * (D / 8) / 32; i++) {
        const int c = lane + i * 32;
        const int row = group_row + warp * 16 + c / (D / 8), chunk = c % (D / 8);
        if (first + row < o.length) {
            const uint4 eight = *reinterpret_cast<const uint4 *>(memory + place(row, chunk));
            const int64_t at = static_cast<int64_t>(first + row) * o.heads * D + chunk * 8;
            *reinterpret_cast<uint4 *>(to + at) = eight;
        }
    }
}

}  // namespace

// hopper_D_COLS: grid [ceil(length / 128), heads, batch], 384 threads,
// 1024 + (128 + 4 * COLS) * D * 2 bytes of shared memory.
#define ATTENTION(D, COLS)                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) hopper_##D##_##COLS(                            \
        const __grid_constant__ Map q, const __grid_constant__ Map k, const __grid_constant__ Map v,         \
        __nv_bfloat16 *out, int length, int keys, int heads, int group, int causal, float scale) {          \
        attend<D, COLS>(q, k, v, out, {length, keys, heads, group, causal, scale});                          \
    }

ATTENTION(64, 128)
ATTENTION(128, 128)

#endif
