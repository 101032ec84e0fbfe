//! Symmetric eigenproblems in f64 on the host, by `faer`, each on the thread that asks.

use faer::diag::DiagMut;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::{Mat, MatMut, MatRef, Par, Spec};

/// The eigenvalues of a symmetric matrix (n, n), in ascending order, and its eigenvectors.
#[derive(Debug, Clone)]
pub struct SymmetricEigen {
    /// The n eigenvalues.
    pub values: Vec<f64>,
    /// (n, n): column i is the eigenvector of value i. The columns are orthonormal.
    pub vectors: Mat<f64>,
}

impl SymmetricEigen {
    /// Solves the eigenproblem of a matrix of which only the lower triangle counts, as in LAPACK's
    /// `syevd`; none if that is not finite.
    pub fn new(matrix: MatRef<f64>) -> Option<Self> {
        let mut vectors = Mat::zeros(matrix.nrows(), matrix.nrows());
        let values = solve(matrix, Some(vectors.as_mut()))?;
        Some(Self { values, vectors })
    }

    /// The eigenvalues alone, in ascending order, at less than half the cost.
    pub fn values(matrix: MatRef<f64>) -> Option<Vec<f64>> {
        solve(matrix, None)
    }
}

fn solve(matrix: MatRef<f64>, vectors: Option<MatMut<f64>>) -> Option<Vec<f64>> {
    let n = matrix.nrows();
    if (0..n).any(|i| (0..=i).any(|j| !matrix[(i, j)].is_finite())) {
        return None;
    }
    let params = Spec::default();
    let wanted = if vectors.is_some() { ComputeEigenvectors::Yes } else { ComputeEigenvectors::No };
    let scratch = self_adjoint_evd_scratch::<f64>(n, wanted, Par::Seq, params);
    let mut memory = MemBuffer::new(scratch);
    let mut values = vec![0.0; n];
    let diagonal = DiagMut::from_slice_mut(&mut values);
    let stack = MemStack::new(&mut memory);
    self_adjoint_evd(matrix, diagonal, vectors, Par::Seq, stack, params).ok()?;
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A symmetric matrix of numbers without a pattern.
    fn symmetric(n: usize) -> Mat<f64> {
        Mat::from_fn(n, n, |i, j| {
            ((i.max(j) * 7919 + i.min(j) * 104_729) % 2003) as f64 / 1000.0 - 1.0
        })
    }

    #[test]
    fn vectors_are_orthonormal_and_give_the_matrix_back() {
        for n in [1, 2, 12, 65, 200] {
            let matrix = symmetric(n);
            let SymmetricEigen { values, vectors } =
                SymmetricEigen::new(matrix.as_ref()).expect("finite");
            assert!(values.is_sorted(), "{n}");
            let scaled = Mat::from_fn(n, n, |i, j| vectors[(i, j)] * values[j]);
            let error = |found: Mat<f64>, expected: &Mat<f64>| (found - expected).norm_max();
            assert!(error(scaled * vectors.transpose(), &matrix) < 1e-12 * n as f64, "{n}");
            assert!(error(vectors.transpose() * &vectors, &Mat::identity(n, n)) < 1e-13 * n as f64);
            let alone = SymmetricEigen::values(matrix.as_ref()).expect("finite");
            let worst = values.iter().zip(&alone).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-12 * n as f64, "{n}: {worst}");
        }
    }

    #[test]
    fn the_upper_triangle_does_not_count() {
        let whole = symmetric(20);
        let lower = Mat::from_fn(20, 20, |i, j| if j <= i { whole[(i, j)] } else { f64::NAN });
        let solved = |m: &Mat<f64>| SymmetricEigen::new(m.as_ref()).expect("finite");
        let (a, b) = (solved(&whole), solved(&lower));
        assert!(a.values == b.values && a.vectors == b.vectors);
    }

    #[test]
    fn a_matrix_that_is_not_finite_has_none() {
        let mut matrix = symmetric(3);
        matrix[(2, 1)] = f64::NAN;
        assert!(SymmetricEigen::new(matrix.as_ref()).is_none());
        assert!(SymmetricEigen::values(matrix.as_ref()).is_none());
    }
}
