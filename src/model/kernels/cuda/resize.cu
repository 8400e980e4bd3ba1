// Pillow's antialiased bicubic along one axis, in its own integers: the same levels as on the CPU, to the bit.

#include <stdint.h>

namespace {

// Of a weight; as in src/model/pixels/bicubic.rs.
constexpr int FRACTION_BITS = 22;

} // namespace

// `in` u8 [outer, from, inner] to `out` u8 [outer, to, inner], `count` levels. `table`: the first source of each
// of the `to` targets, then `taps` weights of each; a first source and `taps` more never lie beyond `from`.
extern "C" __global__ void __launch_bounds__(256)
    resample(const uint8_t *in, uint8_t *out, const int32_t *table, int taps, int from, int to, int inner,
             int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int target = i / inner % to;
    const int outer = i / inner / to;
    const uint8_t *source = in + (static_cast<int64_t>(outer) * from + table[target]) * inner + i % inner;
    const int32_t *weights = table + to + target * taps;
    int32_t sum = 1 << (FRACTION_BITS - 1);
    for (int k = 0; k < taps; ++k) sum += static_cast<int32_t>(source[static_cast<int64_t>(k) * inner]) * weights[k];
    sum >>= FRACTION_BITS;
    out[i] = static_cast<uint8_t>(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}
