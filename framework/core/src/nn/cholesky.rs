//! Cholesky factorisation in blocks, in f64 on the host: nearly all of its work is matrix products on all threads, so that ten thousand unknowns take
//! seconds. The result has the same bits at any number of threads.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::{Error, Result};

/// Columns a block.
const BLOCK: usize = 128;

/// L, lower triangular, with A = L·Lᵀ.
pub struct Cholesky {
    n: usize,
    /// (n, n), row-major; above the diagonal lies what A had there.
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

/// dst (m, n) −= a (m, k)·b (k, n) on all threads.
///
/// # Safety
/// All three lie within live buffers, and no element of dst is one of a or b.
unsafe fn subtract_product((m, n, k): (usize, usize, usize), dst: Place, a: Place, b: Place) {
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
            gemm::Parallelism::Rayon(0),
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
        for k in (0..n).step_by(BLOCK) {
            let width = BLOCK.min(n - k);
            let base = lower.as_mut_ptr();
            // SAFETY: offsets stay below n·n. The product writes columns k.. of rows k.., and reads columns ..k only.
            unsafe {
                let at = |row: usize, column: usize| Place { first: base.add(row * n + column), row: n, column: 1 };
                subtract_product((n - k, width, k), at(k, k), at(k, 0), at(k, 0).t());
            }
            if !factor_block(&mut lower, n, k, width) {
                return Ok(None);
            }
            let (above, below) = lower.split_at_mut((k + width) * n);
            let block = |i: usize, j: usize| above[(k + i) * n + k + j];
            // The rest of the block column: X·L_kkᵀ = A, row by row.
            below.par_chunks_mut(n).with_min_len(16).for_each(|row| {
                let row = &mut row[k..k + width];
                for j in 0..width {
                    let known: f64 = (0..j).map(|i| row[i] * block(j, i)).sum();
                    row[j] = (row[j] - known) / block(j, j);
                }
            });
        }
        Ok(Some(Self { n, lower }))
    }

    /// Lᵀ (n, n), upper triangular, f64 on the host.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn upper(&self) -> Result<Tensor> {
        let mut upper = vec![0.0; self.n * self.n];
        for (i, row) in self.lower.chunks_exact(self.n).enumerate() {
            for (j, value) in row[..=i].iter().enumerate() {
                upper[j * self.n + i] = *value;
            }
        }
        Ok(Tensor::from_vec(upper, (self.n, self.n), &Device::Cpu)?)
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
                subtract_product((width, m, k), at(k), lower(k, 0), at(0));
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
                    subtract_product((width, m, n - end), at(k), lower(end, k).t(), at(end));
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

/// Factors the block of `width` at the diagonal in place; false if it is not positive definite.
fn factor_block(lower: &mut [f64], n: usize, k: usize, width: usize) -> bool {
    for j in k..k + width {
        for i in j..k + width {
            let known: f64 = (k..j).map(|c| lower[i * n + c] * lower[j * n + c]).sum();
            let value = lower[i * n + j] - known;
            if i > j {
                lower[i * n + j] = value / lower[j * n + j];
            } else if value > 0.0 && value.is_finite() {
                lower[i * n + j] = value.sqrt();
            } else {
                return false;
            }
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
