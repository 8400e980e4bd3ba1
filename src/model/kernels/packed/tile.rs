//! One tile of a product: 12 rows by 32 columns, both operands packed pairs of bf16, sums in f32
//! registers.

use super::isa::Isa;

/// Rows of a tile: 12 × 32 f32 sums fill 24 of AVX-512's 32 registers.
pub const ROWS: usize = 12;
/// Columns of a tile.
pub const COLUMNS: usize = 32;

/// Two consecutive numbers of each of [`ROWS`] rows, as bf16; the first in the low half.
pub type RowPair = [u32; ROWS];

/// Two consecutive numbers of each of [`COLUMNS`] columns, as bf16; the first in the low half.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct ColumnPair(pub [u32; COLUMNS]);

/// `c = a b`, or `c + a b` where `add`: `a` and `b` of one length, `c` rows `stride` apart.
///
/// Returns without a result where `c` is too short or `isa` is not [`available`](Isa::available);
/// both are bugs of the caller, who checks sizes before the loop over tiles.
#[inline]
pub fn tile(isa: Isa, a: &[RowPair], b: &[ColumnPair], c: &mut [f32], stride: usize, add: bool) {
    debug_assert_eq!(a.len(), b.len());
    debug_assert!(isa.available());
    let Some(c) = c.get_mut(..(ROWS - 1) * stride + COLUMNS) else {
        debug_assert!(false, "a tile reaches outside its block");
        return;
    };
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `available` has found the CPU's features (checked where the variant is chosen);
        // `c` holds all rows of the tile, just checked.
        Isa::Avx512Bf16 => unsafe { x86::avx512bf16(a, b, c, stride, add) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 => unsafe { x86::avx512(a, b, c, stride, add) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { x86::avx2(a, b, c, stride, add) },
        _ => plain(a, b, c, stride, add),
    }
}

#[inline(always)]
fn low(pair: u32) -> f32 {
    f32::from_bits(pair << 16)
}

#[inline(always)]
fn high(pair: u32) -> f32 {
    f32::from_bits(pair & 0xffff_0000)
}

fn plain(a: &[RowPair], b: &[ColumnPair], c: &mut [f32], stride: usize, add: bool) {
    for (row, c) in c.chunks_mut(stride).enumerate().take(ROWS) {
        let mut sums = [0.0f32; COLUMNS];
        for (a, b) in a.iter().zip(b) {
            let (a0, a1) = (low(a[row]), high(a[row]));
            for (sum, &b) in sums.iter_mut().zip(&b.0) {
                *sum += a0 * low(b);
                *sum += a1 * high(b);
            }
        }
        for (c, sum) in c.iter_mut().zip(sums) {
            *c = if add { *c + sum } else { sum };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, mem::transmute};

    use super::{COLUMNS, ColumnPair, ROWS, RowPair};

    /// # Safety
    /// `c` holds [`ROWS`] rows of [`COLUMNS`], `stride` apart.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store512(sums: &[[__m512; 2]; ROWS], c: &mut [f32], stride: usize, add: bool) {
        for (row, sums) in sums.iter().enumerate() {
            for (half, &sum) in sums.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    let at = c.as_mut_ptr().add(row * stride + half * 16);
                    let sum = if add {
                        _mm512_add_ps(_mm512_loadu_ps(at), sum)
                    } else {
                        sum
                    };
                    _mm512_storeu_ps(at, sum);
                }
            }
        }
    }

    /// # Safety
    /// `c` holds [`ROWS`] rows of [`COLUMNS`], `stride` apart.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn avx512bf16(
        a: &[RowPair],
        b: &[ColumnPair],
        c: &mut [f32],
        stride: usize,
        add: bool,
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for (a, b) in a.iter().zip(b) {
            // SAFETY: a column pair is two aligned registers; both types are 64 plain bytes.
            let (b0, b1) = unsafe {
                let b = b.0.as_ptr();
                let (b0, b1) = (
                    _mm512_load_si512(b.cast()),
                    _mm512_load_si512(b.add(16).cast()),
                );
                (
                    transmute::<__m512i, __m512bh>(b0),
                    transmute::<__m512i, __m512bh>(b1),
                )
            };
            for (sums, &a) in sums.iter_mut().zip(a) {
                // SAFETY: both types are 64 plain bytes.
                let a = unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(a as i32)) };
                sums[0] = _mm512_dpbf16_ps(sums[0], a, b0);
                sums[1] = _mm512_dpbf16_ps(sums[1], a, b1);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { store512(&sums, c, stride, add) }
    }

    /// # Safety
    /// `c` holds [`ROWS`] rows of [`COLUMNS`], `stride` apart.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512(a: &[RowPair], b: &[ColumnPair], c: &mut [f32], stride: usize, add: bool) {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        let low = |v| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(v));
        let high = |v| _mm512_castsi512_ps(_mm512_and_si512(v, mask));
        for (a, b) in a.iter().zip(b) {
            // SAFETY: a column pair is two aligned registers.
            let (b0, b1) = unsafe {
                let b = b.0.as_ptr();
                (
                    _mm512_load_si512(b.cast()),
                    _mm512_load_si512(b.add(16).cast()),
                )
            };
            let b = [[low(b0), low(b1)], [high(b0), high(b1)]];
            for (sums, &a) in sums.iter_mut().zip(a) {
                let a = _mm512_set1_epi32(a as i32);
                for (a, b) in [low(a), high(a)].into_iter().zip(b) {
                    sums[0] = _mm512_fmadd_ps(a, b[0], sums[0]);
                    sums[1] = _mm512_fmadd_ps(a, b[1], sums[1]);
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { store512(&sums, c, stride, add) }
    }

    /// Rows and columns that AVX2's 16 registers hold the sums of.
    const SMALL_ROWS: usize = 4;
    const SMALL_COLUMNS: usize = 16;

    /// # Safety
    /// `c` holds [`ROWS`] rows of [`COLUMNS`], `stride` apart.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2(a: &[RowPair], b: &[ColumnPair], c: &mut [f32], stride: usize, add: bool) {
        let mask = _mm256_set1_epi32(0xffff_0000_u32 as i32);
        let low = |v| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v));
        let high = |v| _mm256_castsi256_ps(_mm256_and_si256(v, mask));
        for column in (0..COLUMNS).step_by(SMALL_COLUMNS) {
            for row in (0..ROWS).step_by(SMALL_ROWS) {
                let mut sums = [[_mm256_setzero_ps(); 2]; SMALL_ROWS];
                for (a, b) in a.iter().zip(b) {
                    // SAFETY: `column` and the 16 after it lie inside the column pair.
                    let (b0, b1) = unsafe {
                        let b = b.0.as_ptr().add(column);
                        (
                            _mm256_load_si256(b.cast()),
                            _mm256_load_si256(b.add(8).cast()),
                        )
                    };
                    let b = [[low(b0), low(b1)], [high(b0), high(b1)]];
                    for (sums, &a) in sums.iter_mut().zip(&a[row..row + SMALL_ROWS]) {
                        let a = _mm256_set1_epi32(a as i32);
                        for (a, b) in [low(a), high(a)].into_iter().zip(b) {
                            sums[0] = _mm256_fmadd_ps(a, b[0], sums[0]);
                            sums[1] = _mm256_fmadd_ps(a, b[1], sums[1]);
                        }
                    }
                }
                for (i, sums) in sums.iter().enumerate() {
                    for (half, &sum) in sums.iter().enumerate() {
                        // SAFETY: the caller's promise.
                        unsafe {
                            let at = (row + i) * stride + column + half * 8;
                            let at = c.as_mut_ptr().add(at);
                            let sum = if add {
                                _mm256_add_ps(_mm256_loadu_ps(at), sum)
                            } else {
                                sum
                            };
                            _mm256_storeu_ps(at, sum);
                        }
                    }
                }
            }
        }
    }
}
