//! Cholesky factorisation in blocks, in f64 on the host: nearly all of its work is matrix products on all threads, so that ten thousand unknowns take
//! seconds. The result has the same bits at any number of threads.

mod diagonal;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use self::diagonal::Diagonal;
use crate::nn::gaussian::packed::{Upper, packed_transpose};
use crate::{Error, Result};

/// Columns a block.
const BLOCK: usize = 128;
/// Rows a task of a thread.
const ROWS: usize = 192;

/// Who works.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    /// All of the pool.
    All,
    /// This one: others have work of their own.
    One,
}

impl Threads {
    fn parallelism(self) -> gemm::Parallelism {
        match self {
            Self::All => gemm::Parallelism::Rayon(0),
            Self::One => gemm::Parallelism::None,
        }
    }
}

/// L, lower triangular, with A = L·Lᵀ.
pub struct Cholesky {
    n: usize,
    /// (n, n), row-major; what lies above the diagonal means nothing.
    lower: Vec<f64>,
}

/// A matrix inside a buffer: its first element and its strides.
#[derive(Clone, Copy)]
struct Place {
    first: *mut f64,
    row: usize,
    column: usize,
}

impl Place {
    fn t(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }
}

/// dst (m, n) −= a (m, k)·b (k, n).
///
/// # Safety
/// All three lie within live buffers, and no element of dst is one of a or b.
unsafe fn subtract_product(threads: Threads, (m, n, k): (usize, usize, usize), dst: Place, a: Place, b: Place) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let (ds, as_, bs) = ((dst.column as isize, dst.row as isize), (a.column as isize, a.row as isize), (b.column as isize, b.row as isize));
    // SAFETY: the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.first,
            ds.0,
            ds.1,
            true,
            a.first,
            as_.0,
            as_.1,
            b.first,
            bs.0,
            bs.1,
            1.0,
            -1.0,
            false,
            false,
            false,
            threads.parallelism(),
        );
    }
}

/// Values of a matrix (rows, columns) in row-major order, all finite.
fn values(tensor: &Tensor) -> Result<(usize, usize, Vec<f64>)> {
    let (rows, columns) = tensor.dims2()?;
    let values = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    if values.iter().any(|v| !v.is_finite()) {
        return Err(Error::Diverged("a matrix to be solved with is not finite".into()));
    }
    Ok((rows, columns, values))
}

impl Cholesky {
    /// Factors A + ridge·I for a symmetric A (n, n); none if that is not positive definite. Only the lower triangle of A is read.
    ///
    /// # Errors
    /// [`Error::Diverged`] if A is not finite, [`Error::Protocol`] if it is not square.
    pub fn new(a: &Tensor, ridge: f64) -> Result<Option<Self>> {
        let (n, columns, mut lower) = values(a)?;
        if n != columns {
            return Err(Error::Protocol(format!("a matrix of {n}×{columns} has no Cholesky factor")));
        }
        (0..n).for_each(|i| lower[i * n + i] += ridge);
        Ok(factor(&mut lower, n, Threads::All).then_some(Self { n, lower }))
    }

    /// Lᵀ (n, n), upper triangular, f64 on the host.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn upper(&self) -> Result<Tensor> {
        let packed = Tensor::from_vec(packed_transpose::<f64>(&self.lower, self.n), ((),), &Device::Cpu)?;
        Upper::of_packed(&packed, self.n, &Device::Cpu)?.whole(self.n)
    }

    /// X (n, m), f64 on the host, with A·X = B for B (n, m).
    ///
    /// # Errors
    /// [`Error::Diverged`] if B is not finite, [`Error::Protocol`] if it has another number of rows.
    pub fn solve(&self, b: &Tensor) -> Result<Tensor> {
        let (rows, m, mut x) = values(b)?;
        let n = self.n;
        if rows != n {
            return Err(Error::Protocol(format!("a right-hand side of {rows} rows for {n} unknowns")));
        }
        let blocks: Vec<usize> = (0..n).step_by(BLOCK).collect();
        let lower = |row: usize, column: usize| Place { first: self.lower[row * n + column..].as_ptr().cast_mut(), row: n, column: 1 };
        for &k in &blocks {
            let width = BLOCK.min(n - k);
            let base = x.as_mut_ptr();
            // SAFETY: rows k.. of x are written, rows ..k and the factor read; the factor is never written through its pointer.
            unsafe {
                let at = |row: usize| Place { first: base.add(row * m), row: m, column: 1 };
                subtract_product(Threads::All, (width, m, k), at(k), lower(k, 0), at(0));
            }
            self.forward_block(&mut x, m, k, width);
        }
        for &k in blocks.iter().rev() {
            let width = BLOCK.min(n - k);
            let (end, base) = (k + width, x.as_mut_ptr());
            if end < n {
                // SAFETY: rows k..end of x are written, rows end.. and the factor read; the factor is never written through its pointer.
                unsafe {
                    let at = |row: usize| Place { first: base.add(row * m), row: m, column: 1 };
                    subtract_product(Threads::All, (width, m, n - end), at(k), lower(end, k).t(), at(end));
                }
            }
            self.backward_block(&mut x, m, k, width);
        }
        Ok(Tensor::from_vec(x, (n, m), &Device::Cpu)?)
    }

    /// Rows k.. of x: L_kk⁻¹·x.
    fn forward_block(&self, x: &mut [f64], m: usize, k: usize, width: usize) {
        for i in k..k + width {
            let (known, rest) = x.split_at_mut(i * m);
            let row = &mut rest[..m];
            for j in k..i {
                let l = self.lower[i * self.n + j];
                row.iter_mut().zip(&known[j * m..]).for_each(|(r, x)| *r -= l * x);
            }
            row.iter_mut().for_each(|r| *r /= self.lower[i * self.n + i]);
        }
    }

    /// Rows k.. of x: L_kk⁻ᵀ·x.
    fn backward_block(&self, x: &mut [f64], m: usize, k: usize, width: usize) {
        for i in (k..k + width).rev() {
            let (before, known) = x.split_at_mut((i + 1) * m);
            let row = &mut before[i * m..];
            for j in i + 1..k + width {
                let l = self.lower[j * self.n + i];
                row.iter_mut().zip(&known[(j - i - 1) * m..]).for_each(|(r, x)| *r -= l * x);
            }
            row.iter_mut().for_each(|r| *r /= self.lower[i * self.n + i]);
        }
    }
}

/// Puts L, lower triangular, in place of the lower triangle of A = L·Lᵀ (n, n), row-major; false if A is not positive definite. What lies above the diagonal
/// is not read and means nothing afterwards.
pub(crate) fn factor(lower: &mut [f64], n: usize, threads: Threads) -> bool {
    assert_eq!(lower.len(), n * n, "a square matrix");
    let (mut diagonal, mut room) = (Diagonal::default(), Vec::new());
    for k in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - k);
        let base = lower.as_mut_ptr();
        // SAFETY: offsets stay below n·n. The product writes columns k.. of rows k.., and reads columns ..k only.
        unsafe {
            let at = |row: usize, column: usize| Place { first: base.add(row * n + column), row: n, column: 1 };
            subtract_product(threads, (n - k, width, k), at(k, k), at(k, 0), at(k, 0).t());
        }
        let (block, below) = lower[k * n..].split_at_mut(width * n);
        if !diagonal.factor(block, (n, k), width) {
            return false;
        }
        match threads {
            Threads::All => below.par_chunks_mut(n * ROWS).for_each_init(Vec::new, |room, rows| diagonal.divide(rows, (n, k), room)),
            Threads::One => below.chunks_mut(n * ROWS).for_each(|rows| diagonal.divide(rows, (n, k), &mut room)),
        }
    }
    true
}

/// X (n, m) with A·X = B for a symmetric positive definite A (n, n) and B (n, m), in f64 on the host.
///
/// # Errors
/// [`Error::Diverged`] if A or B is not finite, or A not positive definite.
pub fn solve_symmetric(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let factor = Cholesky::new(a, 0.0)?;
    factor.ok_or_else(|| Error::Diverged("a matrix to be solved with is not positive definite".into()))?.solve(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).expect("sub").abs().expect("abs").max_all().expect("max").to_scalar::<f64>().expect("scalar")
    }

    /// (H·Hᵀ, B) with some unknowns and right-hand sides.
    fn system(n: usize, m: usize) -> (Tensor, Tensor) {
        let draw = |shape: (usize, usize)| Tensor::randn(0f64, 1.0, shape, &Device::Cpu).expect("randn");
        let half = draw((n, n + 3));
        (half.matmul(&half.t().expect("t")).expect("mm"), draw((n, m)))
    }

    #[test]
    fn systems_of_one_and_of_several_blocks_are_solved() {
        for (n, m) in [(1, 1), (5, 2), (BLOCK, 3), (BLOCK + 1, 1), (3 * BLOCK + 17, 7)] {
            let (a, b) = system(n, m);
            let ridged = (&a + Tensor::eye(n, DType::F64, &Device::Cpu).expect("eye")).expect("add");
            let x = Cholesky::new(&a, 1.0).expect("finite").expect("positive definite").solve(&b).expect("solved");
            assert!(worst(&ridged.matmul(&x).expect("mm"), &b) < 1e-8, "{n}×{m}");
            assert!(worst(&x, &solve_symmetric(&ridged, &b).expect("solved")) == 0.0);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (a, b) = system(2 * BLOCK + 40, 3);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            pool.install(|| {
                Cholesky::new(&a, 0.1).expect("finite").expect("factor").solve(&b).expect("x").to_vec2::<f64>().expect("values")
            })
        };
        assert_eq!(with(1), with(2));
        // Enough rows for several tasks; what lies above the diagonal is not read.
        let n = 4 * BLOCK + 40;
        let mut values = system(n, 1).0.flatten_all().expect("flat").to_vec1::<f64>().expect("values");
        values.iter_mut().enumerate().filter(|(i, _)| i % n > i / n).for_each(|(_, v)| *v = f64::NAN);
        let lower = |threads: Threads, pool: usize| {
            let (mut values, pool) = (values.clone(), rayon::ThreadPoolBuilder::new().num_threads(pool).build().expect("pool"));
            assert!(pool.install(|| factor(&mut values, n, threads)));
            packed_transpose::<f64>(&values, n)
        };
        let one = lower(Threads::One, 1);
        assert!(one.iter().all(|v| v.is_finite()) && one == lower(Threads::All, 1) && one == lower(Threads::All, 3));
    }

    #[test]
    fn a_matrix_that_is_nearly_singular_has_an_exact_factor() {
        let n = 3 * BLOCK;
        let half = Tensor::randn(0f64, 1.0, (n, n / 2), &Device::Cpu).expect("randn");
        let a = half.matmul(&half.t().expect("t")).expect("mm");
        let ridge = 1e-10 * n as f64;
        let upper = Cholesky::new(&a, ridge).expect("finite").expect("positive definite").upper().expect("upper");
        let product = upper.t().expect("t").matmul(&upper).expect("mm");
        let ridged = (&a + (Tensor::eye(n, DType::F64, &Device::Cpu).expect("eye") * ridge).expect("mul")).expect("add");
        let error = worst(&product, &ridged) / a.abs().expect("abs").max_all().expect("max").to_scalar::<f64>().expect("scalar");
        assert!(error < 1e-14, "{error}");
    }

    #[test]
    fn what_has_no_factor_is_said_so() {
        let bad = Tensor::new(&[[1.0f64, 2.0], [2.0, 1.0]], &Device::Cpu).expect("bad");
        assert!(Cholesky::new(&bad, 0.0).expect("finite").is_none());
        assert!(Cholesky::new(&bad, 1.5).expect("finite").is_some());
        let nan = Tensor::new(&[[f64::NAN]], &Device::Cpu).expect("nan");
        assert!(Cholesky::new(&nan, 0.0).is_err() && Cholesky::new(&bad.narrow(0, 0, 1).expect("row"), 0.0).is_err());
    }
}
