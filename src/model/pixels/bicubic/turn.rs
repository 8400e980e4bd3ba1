//! Rows of bytes side by side: byte j of sixteen rows becomes sixteen bytes in a row, and back.

/// Rows that are turned at a time.
pub(super) const ROWS: usize = 16;

/// `columns[j][r]` becomes byte j of row r, for as many rows and bytes as there are. Rows are `stride`
/// bytes apart.
pub(super) fn to_columns(rows: &[u8], stride: usize, columns: &mut [[u8; ROWS]]) {
    let whole = rows.len() / stride >= ROWS;
    let done = if whole { squares(stride) } else { 0 };
    #[cfg(target_arch = "x86_64")]
    for at in (0..done).step_by(ROWS) {
        let square = std::array::from_fn(|r| simd::load(&rows[r * stride + at..]));
        for (column, turned) in columns[at..].iter_mut().zip(simd::turn(square)) {
            simd::store(turned, column);
        }
    }
    for (r, row) in rows.chunks_exact(stride).enumerate().take(ROWS) {
        for (byte, column) in row.iter().zip(&mut *columns).skip(done) {
            column[r] = *byte;
        }
    }
}

/// The way back.
pub(super) fn to_rows(columns: &[[u8; ROWS]], stride: usize, rows: &mut [u8]) {
    let whole = rows.len() / stride >= ROWS;
    let done = if whole { squares(stride) } else { 0 };
    #[cfg(target_arch = "x86_64")]
    for at in (0..done).step_by(ROWS) {
        let square = std::array::from_fn(|k| simd::load(&columns[at + k]));
        for (r, turned) in simd::turn(square).into_iter().enumerate() {
            simd::store(turned, &mut rows[r * stride + at..]);
        }
    }
    for (r, row) in rows.chunks_exact_mut(stride).enumerate().take(ROWS) {
        for (byte, column) in row.iter_mut().zip(columns).skip(done) {
            *byte = column[r];
        }
    }
}

/// Bytes of a row that make whole squares.
fn squares(stride: usize) -> usize {
    if cfg!(target_arch = "x86_64") {
        stride / ROWS * ROWS
    } else {
        0
    }
}

#[cfg(target_arch = "x86_64")]
mod simd {
    use std::arch::x86_64::*;

    use super::ROWS;

    #[inline(always)]
    pub(super) fn load(bytes: &[u8]) -> __m128i {
        let bytes = &bytes[..ROWS];
        // SAFETY: sixteen bytes, in any alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    pub(super) fn store(value: __m128i, bytes: &mut [u8]) {
        let bytes = &mut bytes[..ROWS];
        // SAFETY: sixteen bytes, in any alignment.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), value) }
    }

    /// Transposes a square: four rounds, each of which interleaves row i with row i + 8.
    #[inline(always)]
    pub(super) fn turn(mut square: [__m128i; ROWS]) -> [__m128i; ROWS] {
        for _ in 0..4 {
            square = std::array::from_fn(|i| {
                let (a, b) = (square[i / 2], square[i / 2 + ROWS / 2]);
                // SAFETY: x86-64 has SSE2.
                unsafe {
                    if i % 2 == 0 {
                        _mm_unpacklo_epi8(a, b)
                    } else {
                        _mm_unpackhi_epi8(a, b)
                    }
                }
            });
        }
        square
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_and_rows_again() {
        for stride in [1, 15, 16, 17, 48, 1344, 1345] {
            for rows in [1, 7, ROWS] {
                let bytes: Vec<u8> = (0..stride * rows)
                    .map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8)
                    .collect();
                let mut columns = vec![[0; ROWS]; stride];
                to_columns(&bytes, stride, &mut columns);
                for (j, column) in columns.iter().enumerate() {
                    for (r, byte) in column.iter().enumerate().take(rows) {
                        assert_eq!(*byte, bytes[r * stride + j], "{stride} x {rows}: {j}, {r}");
                    }
                }
                let mut back = vec![0; bytes.len()];
                to_rows(&columns, stride, &mut back);
                assert!(back == bytes, "{stride} x {rows}");
            }
        }
    }
}
