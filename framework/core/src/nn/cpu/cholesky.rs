//! Cholesky factorisation and solves in f64 on the host, by `faer`.
//!
//! `faer` is called on one thread at a time; large matrices are split into blocks of a fixed size
//! that the threads share. The result therefore has the same bits at any number of threads.

use candle_core::{DType, Device, Tensor};
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{
    LltRegularization, cholesky_in_place, cholesky_in_place_scratch,
};
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::triangular_solve::{
    solve_lower_triangular_in_place, solve_upper_triangular_in_place,
};
use faer::reborrow::ReborrowMut;
use faer::{Accum, Mat, MatMut, MatRef, Par, Spec};
use rayon::prelude::*;

use crate::nn::gaussian::packed::{Upper, packed_transpose};
use crate::{Error, Result};

/// Columns per block of a factorisation.
const BLOCK: usize = 128;
/// Rows per rayon task below a block of the diagonal.
const ROWS: usize = 512;
/// Right-hand sides per rayon task of a solve.
const COLUMNS: usize = 48;

/// Which threads work on a factorisation.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    /// All threads of the pool.
    All,
    /// The calling thread alone: the others have work of their own.
    One,
}

/// The Cholesky factor L, lower triangular, of A = L·Lᵀ.
pub struct Cholesky {
    n: usize,
    /// (n, n), row-major; what lies above the diagonal means nothing.
    lower: Vec<f64>,
}

/// Values of a matrix (rows, columns) in row-major order, all finite.
fn values(tensor: &Tensor) -> Result<(usize, usize, Vec<f64>)> {
    let (rows, columns) = tensor.dims2()?;
    let values =
        tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    if values.iter().any(|v| !v.is_finite()) {
        return Err(Error::Diverged("a matrix to be solved with is not finite".into()));
    }
    Ok((rows, columns, values))
}

impl Cholesky {
    /// Factors A + ridge·I for a symmetric A (n, n), of which only the lower triangle counts.
    /// Returns none if the sum is not positive definite.
    ///
    /// # Errors
    /// [`Error::Diverged`] if A is not finite, [`Error::Protocol`] if it is not square.
    pub fn new(a: &Tensor, ridge: f64) -> Result<Option<Self>> {
        let (n, columns, mut lower) = values(a)?;
        if n != columns {
            return Err(Error::Protocol(format!(
                "a matrix of {n}×{columns} has no Cholesky factor"
            )));
        }
        (0..n).for_each(|i| lower[i * n + i] += ridge);
        Ok(factor(&mut lower, n, Threads::All).then_some(Self { n, lower }))
    }

    /// Lᵀ (n, n), upper triangular, f64 on the host.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn upper(&self) -> Result<Tensor> {
        let packed =
            Tensor::from_vec(packed_transpose::<f64>(&self.lower, self.n), ((),), &Device::Cpu)?;
        Upper::of_packed(&packed, self.n, &Device::Cpu)?.whole(self.n)
    }

    /// X (n, m), f64 on the host, with A·X = B for B (n, m).
    ///
    /// # Errors
    /// [`Error::Diverged`] if B is not finite, [`Error::Protocol`] if it has another number of
    /// rows.
    pub fn solve(&self, b: &Tensor) -> Result<Tensor> {
        let (rows, m, mut x) = values(b)?;
        if rows != self.n {
            let n = self.n;
            return Err(Error::Protocol(format!(
                "a right-hand side of {rows} rows for {n} unknowns"
            )));
        }
        solve_in_place(&self.lower, self.n, &mut x, m);
        Ok(Tensor::from_vec(x, (rows, m), &Device::Cpu)?)
    }
}

/// Factors a block of the diagonal in place; false if it is not positive definite.
fn factor_diagonal(mut lower: MatMut<f64>) -> bool {
    let n = lower.nrows();
    let params = Spec::default();
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(n, Par::Seq, params));
    let (stack, exact) = (MemStack::new(&mut memory), LltRegularization::default());
    let done = cholesky_in_place(lower.rb_mut(), exact, Par::Seq, stack, params).is_ok();
    done && (0..n).all(|i| lower[(i, i)] > 0.0 && lower[(i, i)].is_finite())
}

/// Of full rows of n numbers: the columns before column k, and the `width` columns from there on.
fn split(rows: &mut [f64], n: usize, k: usize, width: usize) -> [MatMut<'_, f64>; 2] {
    let all = MatMut::from_row_major_slice_mut(rows, rows.len() / n, n);
    let (before, rest) = all.split_at_col_mut(k);
    [before, rest.subcols_mut(0, width)]
}

/// dst −= a·b on this thread, by the `gemm` crate, which is faster here than `faer`'s own product.
fn subtract_product(dst: MatMut<f64>, a: MatRef<f64>, b: MatRef<f64>) {
    let (m, n, k) = (dst.nrows(), dst.ncols(), a.ncols());
    assert!((a.nrows(), b.nrows(), b.ncols()) == (m, k, n), "shapes of a product");
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    // SAFETY: the views' shapes fit each other, and every element of a view may be read, of `dst`
    // also written. `dst` is borrowed mutably, so it overlaps neither `a` nor `b`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_ptr_mut(),
            dst.col_stride(),
            dst.row_stride(),
            true,
            a.as_ptr(),
            a.col_stride(),
            a.row_stride(),
            b.as_ptr(),
            b.col_stride(),
            b.row_stride(),
            1.0,
            -1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Puts L in place of the lower triangle of A = L·Lᵀ (n, n), row-major; false if A is not positive
/// definite. What lies above the diagonal is not read and means nothing afterwards.
pub(crate) fn factor(lower: &mut [f64], n: usize, threads: Threads) -> bool {
    assert_eq!(lower.len(), n * n, "a square matrix");
    for k in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - k);
        let (block, below) = lower[k * n..].split_at_mut(width * n);
        let [known, mut diagonal] = split(block, n, k, width);
        let (known, full) = (known.as_ref(), BlockStructure::Rectangular);
        // A_kk −= L_k·L_kᵀ, in the lower triangle alone.
        let (triangle, turned) = (BlockStructure::TriangularLower, known.transpose());
        let target = diagonal.rb_mut();
        triangular::matmul(target, triangle, Accum::Add, known, full, turned, full, -1.0, Par::Seq);
        if !factor_diagonal(diagonal.rb_mut()) {
            return false;
        }
        let diagonal = diagonal.as_ref();
        let divide = |rows: &mut [f64]| {
            // L_ik = (A_ik − L_i·L_kᵀ)·L_kk⁻ᵀ.
            let [left, mut here] = split(rows, n, k, width);
            subtract_product(here.rb_mut(), left.as_ref(), turned);
            solve_lower_triangular_in_place(diagonal, here.transpose_mut(), Par::Seq);
        };
        match threads {
            Threads::All => below.par_chunks_mut(n * ROWS).for_each(divide),
            Threads::One => below.chunks_mut(n * ROWS).for_each(divide),
        }
    }
    true
}

/// Puts X (n, m) with L·Lᵀ·X = B in place of B.
fn solve_in_place(lower: &[f64], n: usize, b: &mut [f64], m: usize) {
    let lower = MatRef::from_row_major_slice(lower, n, n);
    let source = MatRef::from_row_major_slice(b, n, m);
    let solve = |part: usize| {
        let first = part * COLUMNS;
        let mut x = source.subcols(first, COLUMNS.min(m - first)).to_owned();
        solve_lower_triangular_in_place(lower, x.as_mut(), Par::Seq);
        solve_upper_triangular_in_place(lower.transpose(), x.as_mut(), Par::Seq);
        x
    };
    let parts: Vec<Mat<f64>> = (0..m.div_ceil(COLUMNS)).into_par_iter().map(solve).collect();
    let mut out = MatMut::from_row_major_slice_mut(b, n, m);
    for (part, x) in parts.iter().enumerate() {
        out.rb_mut().subcols_mut(part * COLUMNS, x.ncols()).copy_from(x);
    }
}

/// X (n, m) with A·X = B for a symmetric positive definite A (n, n) and B (n, m), in f64 on the
/// host.
///
/// # Errors
/// [`Error::Diverged`] if A or B is not finite, or A not positive definite.
pub fn solve_symmetric(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let factor = Cholesky::new(a, 0.0)?;
    factor
        .ok_or_else(|| {
            Error::Diverged("a matrix to be solved with is not positive definite".into())
        })?
        .solve(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::largest_difference;

    /// (H·Hᵀ, B) with some unknowns and right-hand sides.
    fn system(n: usize, m: usize) -> (Tensor, Tensor) {
        let draw =
            |shape: (usize, usize)| Tensor::randn(0f64, 1.0, shape, &Device::Cpu).expect("randn");
        let half = draw((n, n + 3));
        (half.matmul(&half.t().expect("t")).expect("mm"), draw((n, m)))
    }

    #[test]
    fn systems_of_one_and_of_several_blocks_are_solved() {
        for (n, m) in [(1, 1), (5, 2), (BLOCK, 3), (BLOCK + 1, 1), (3 * BLOCK + 17, 7)] {
            let (a, b) = system(n, m);
            let ridged =
                (&a + Tensor::eye(n, DType::F64, &Device::Cpu).expect("eye")).expect("add");
            let x = Cholesky::new(&a, 1.0)
                .expect("finite")
                .expect("positive definite")
                .solve(&b)
                .expect("solved");
            assert!(largest_difference(&ridged.matmul(&x).expect("mm"), &b) < 1e-8, "{n}×{m}");
            assert!(largest_difference(&x, &solve_symmetric(&ridged, &b).expect("solved")) == 0.0);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (a, b) = system(2 * BLOCK + 40, 2 * COLUMNS + 3);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            pool.install(|| {
                Cholesky::new(&a, 0.1)
                    .expect("finite")
                    .expect("factor")
                    .solve(&b)
                    .expect("x")
                    .to_vec2::<f64>()
                    .expect("values")
            })
        };
        assert_eq!(with(1), with(2));
        // Enough rows for several tasks; what lies above the diagonal is not read.
        let n = 4 * BLOCK + 40;
        let mut values =
            system(n, 1).0.flatten_all().expect("flat").to_vec1::<f64>().expect("values");
        values
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| i % n > i / n)
            .for_each(|(_, v)| *v = f64::NAN);
        let lower = |threads: Threads, pool: usize| {
            let (mut values, pool) = (
                values.clone(),
                rayon::ThreadPoolBuilder::new().num_threads(pool).build().expect("pool"),
            );
            assert!(pool.install(|| factor(&mut values, n, threads)));
            packed_transpose::<f64>(&values, n)
        };
        let one = lower(Threads::One, 1);
        assert!(
            one.iter().all(|v| v.is_finite())
                && one == lower(Threads::All, 1)
                && one == lower(Threads::All, 3)
        );
    }

    #[test]
    fn a_matrix_that_is_nearly_singular_has_an_exact_factor() {
        let n = 3 * BLOCK;
        let half = Tensor::randn(0f64, 1.0, (n, n / 2), &Device::Cpu).expect("randn");
        let a = half.matmul(&half.t().expect("t")).expect("mm");
        let ridge = 1e-10 * n as f64;
        let upper = Cholesky::new(&a, ridge)
            .expect("finite")
            .expect("positive definite")
            .upper()
            .expect("upper");
        let product = upper.t().expect("t").matmul(&upper).expect("mm");
        let ridged = (&a
            + (Tensor::eye(n, DType::F64, &Device::Cpu).expect("eye") * ridge).expect("mul"))
        .expect("add");
        let error = largest_difference(&product, &ridged)
            / a.abs().expect("abs").max_all().expect("max").to_scalar::<f64>().expect("scalar");
        assert!(error < 1e-14, "{error}");
    }

    #[test]
    fn what_has_no_factor_is_said_so() {
        let bad = Tensor::new(&[[1.0f64, 2.0], [2.0, 1.0]], &Device::Cpu).expect("bad");
        assert!(Cholesky::new(&bad, 0.0).expect("finite").is_none());
        assert!(Cholesky::new(&bad, 1.5).expect("finite").is_some());
        let nan = Tensor::new(&[[f64::NAN]], &Device::Cpu).expect("nan");
        assert!(
            Cholesky::new(&nan, 0.0).is_err()
                && Cholesky::new(&bad.narrow(0, 0, 1).expect("row"), 0.0).is_err()
        );
    }
}
