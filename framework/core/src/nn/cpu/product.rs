//! Matrix products of the `gemm` crate between strided parts of slices, on one thread.

use crate::nn::cpu::simd::Float;

/// A matrix inside a slice: where it begins and its strides.
#[derive(Clone, Copy)]
pub(crate) struct View {
    pub start: usize,
    pub row: usize,
    pub column: usize,
}

impl View {
    /// Rows of `width` elements, one after the other.
    pub fn rows(width: usize) -> Self {
        Self { start: 0, row: width, column: 1 }
    }

    /// The same beginning `offset` elements later.
    pub fn after(self, offset: usize) -> Self {
        Self { start: self.start + offset, ..self }
    }

    /// Transposed.
    pub fn t(self) -> Self {
        Self { start: self.start, row: self.column, column: self.row }
    }

    fn last(self, rows: usize, columns: usize) -> usize {
        self.start + (rows - 1) * self.row + (columns - 1) * self.column
    }
}

/// What becomes of the destination's old values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Old {
    /// They are overwritten.
    Dropped,
    /// The product is added to them.
    Kept,
}

/// dst (m, n) = scale · a (m, k) · b (k, n), or += that.
pub(crate) fn product<T: Float>(
    (m, n, k): (usize, usize, usize),
    dst: (&mut [T], View, Old),
    a: (&[T], View),
    b: (&[T], View),
    scale: f64,
) {
    if m == 0 || n == 0 || k == 0 {
        debug_assert!(k > 0 || dst.2 == Old::Kept, "a sum of nothing would have to clear the destination");
        return;
    }
    assert!(
        dst.1.last(m, n) < dst.0.len() && a.1.last(m, k) < a.0.len() && b.1.last(k, n) < b.0.len(),
        "a matrix reaches out of its slice"
    );
    // SAFETY: the assertion keeps every element that is read or written within the slices; dst is borrowed mutably, so it overlaps neither a nor b.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.0.as_mut_ptr().add(dst.1.start),
            dst.1.column as isize,
            dst.1.row as isize,
            dst.2 == Old::Kept,
            a.0.as_ptr().add(a.1.start),
            a.1.column as isize,
            a.1.row as isize,
            b.0.as_ptr().add(b.1.start),
            b.1.column as isize,
            b.1.row as isize,
            T::ONE,
            T::narrow(scale),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
