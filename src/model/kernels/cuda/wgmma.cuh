// The matrix instructions of Hopper (wgmma): a group of four warps multiplies 64 rows by 16 columns of A with 16
// rows of B, bf16 to f32. The sums of thread t of the group lie as those of mma.m16n8k16 in warp t / 32, eight
// columns after the other. B, and A where it is not in registers, are read from shared memory through descriptors.

#pragma once

#include <stdint.h>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define SUMS4(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define SUMS8(c, i) SUMS4(c, i), SUMS4(c, i + 4)

namespace hopper {

__device__ __forceinline__ void begin() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }

__device__ __forceinline__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }

// Until at most PENDING of the groups that were committed last are still under way.
template <int PENDING>
__device__ __forceinline__ void wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(PENDING) : "memory");
}

// A matrix in shared memory in rows of 128 bytes, permuted as the tensor copy engine does it (128-byte swizzle):
// groups of eight rows follow each other at 1,024 bytes. `apart`: bytes between blocks of 64 numbers along the
// rows, for a B that is read by columns.
__device__ __forceinline__ uint64_t describe(uint32_t at, uint32_t apart) {
    return static_cast<uint64_t>((at & 0x3ffff) >> 4) | static_cast<uint64_t>(apart >> 4) << 16 |
           static_cast<uint64_t>(1024 >> 4) << 32 | 1ull << 62;
}

// c = a b, plus c where `keep` is not 0. In the forms with A in registers B is read by columns if TRANSPOSED.
__device__ __forceinline__ void multiply_64(float (&c)[32], uint64_t a, uint64_t b, int keep) {
    asm volatile("{\n.reg .pred keep;\n"
                 "setp.ne.b32 keep, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
                 "}, %32, %33, keep, 1, 1, 0, 0;\n}\n"
                 : SUMS8(c, 0), SUMS8(c, 8), SUMS8(c, 16), SUMS8(c, 24)
                 : "l"(a), "l"(b), "r"(keep));
}

__device__ __forceinline__ void multiply_128(float (&c)[64], uint64_t a, uint64_t b, int keep) {
    asm volatile("{\n.reg .pred keep;\n"
                 "setp.ne.b32 keep, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, %64, %65, keep, 1, 1, 0, 0;\n}\n"
                 : SUMS8(c, 0), SUMS8(c, 8), SUMS8(c, 16), SUMS8(c, 24),
                   SUMS8(c, 32), SUMS8(c, 40), SUMS8(c, 48), SUMS8(c, 56)
                 : "l"(a), "l"(b), "r"(keep));
}

template <int TRANSPOSED>
__device__ __forceinline__ void multiply_64(float (&c)[32], const uint32_t (&a)[4], uint64_t b, int keep) {
    asm volatile("{\n.reg .pred keep;\n"
                 "setp.ne.b32 keep, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
                 "}, {%32, %33, %34, %35}, %36, keep, 1, 1, %38;\n}\n"
                 : SUMS8(c, 0), SUMS8(c, 8), SUMS8(c, 16), SUMS8(c, 24)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(TRANSPOSED));
}

template <int TRANSPOSED>
__device__ __forceinline__ void multiply_128(float (&c)[64], const uint32_t (&a)[4], uint64_t b, int keep) {
    asm volatile("{\n.reg .pred keep;\n"
                 "setp.ne.b32 keep, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, {%64, %65, %66, %67}, %68, keep, 1, 1, %70;\n}\n"
                 : SUMS8(c, 0), SUMS8(c, 8), SUMS8(c, 16), SUMS8(c, 24),
                   SUMS8(c, 32), SUMS8(c, 40), SUMS8(c, 48), SUMS8(c, 56)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(TRANSPOSED));
}
}  // namespace hopper

#undef SUMS4
#undef SUMS8

#endif
