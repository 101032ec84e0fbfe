//! Matrix products of the `gemm` crate between strided parts of slices, on one thread.

use crate::nn::cpu::simd::Float;

/// Where a matrix lies inside a slice: its first element, and the distances from one row to the
/// next and from one column to the next.
#[derive(Clone, Copy)]
pub(crate) struct View {
    pub start: usize,
    pub row: usize,
    pub column: usize,
}

impl View {
    /// Contiguous rows of `width` elements.
    pub fn rows(width: usize) -> Self {
        Self { start: 0, row: width, column: 1 }
    }

    /// The same, beginning `offset` elements later.
    pub fn after(self, offset: usize) -> Self {
        Self { start: self.start + offset, ..self }
    }

    /// The transposed matrix.
    pub fn t(self) -> Self {
        Self { start: self.start, row: self.column, column: self.row }
    }

    /// The matrix among these values, to be read.
    pub fn of<T>(self, values: &[T]) -> Operand<'_, T> {
        Operand { values, view: self }
    }

    /// The matrix among these values, to be replaced by a product.
    pub fn replaced<T>(self, values: &mut [T]) -> Destination<'_, T> {
        Destination { values, view: self, accumulate: Accumulate::Replace }
    }

    /// The matrix among these values, to which a product is to be added.
    pub fn added_to<T>(self, values: &mut [T]) -> Destination<'_, T> {
        Destination { values, view: self, accumulate: Accumulate::Add }
    }

    fn last(self, rows: usize, columns: usize) -> usize {
        self.start + (rows - 1) * self.row + (columns - 1) * self.column
    }
}

/// What happens to the old values of a destination.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accumulate {
    /// The product takes their place.
    Replace,
    /// The product is added to them.
    Add,
}

/// A matrix that a product reads.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a, T> {
    values: &'a [T],
    view: View,
}

/// A matrix that a product writes.
pub(crate) struct Destination<'a, T> {
    values: &'a mut [T],
    view: View,
    accumulate: Accumulate,
}

/// dst (m, n) = scale · a (m, k) · b (k, n), or dst += that product.
pub(crate) fn product<T: Float>(
    (m, n, k): (usize, usize, usize),
    dst: Destination<T>,
    a: Operand<T>,
    b: Operand<T>,
    scale: f64,
) {
    let add = dst.accumulate == Accumulate::Add;
    if m == 0 || n == 0 || k == 0 {
        debug_assert!(k > 0 || add, "an empty sum would have to clear the destination");
        return;
    }
    assert!(
        dst.view.last(m, n) < dst.values.len()
            && a.view.last(m, k) < a.values.len()
            && b.view.last(k, n) < b.values.len(),
        "a matrix reaches out of its slice"
    );
    // SAFETY: the assertion keeps every element that is read or written within the slices. `dst` is
    // borrowed mutably, so it overlaps neither `a` nor `b`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.values.as_mut_ptr().add(dst.view.start),
            dst.view.column as isize,
            dst.view.row as isize,
            add,
            a.values.as_ptr().add(a.view.start),
            a.view.column as isize,
            a.view.row as isize,
            b.values.as_ptr().add(b.view.start),
            b.view.column as isize,
            b.view.row as isize,
            T::ONE,
            T::narrow(scale),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
