//! Spectra of inter-layer relation matrices: the eigenvalues of small symmetric matrices, with
//! their exact gradient.
//!
//! The gradient of an eigenvalue λ_i with respect to the matrix is v_i·v_iᵀ. It has no division by
//! the gaps between eigenvalues, so it stays finite where they repeat. The eigenproblems are solved
//! on the host in f64. For tensors on a GPU, batch·L·L numbers go to the host and back.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Shape, Tensor, bail};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use rayon::prelude::*;

use crate::Result;
use crate::nn::cpu::eigen::SymmetricEigen;
use crate::nn::cpu::simd::Float;
use crate::nn::cpu::storage::{by_type, values};

/// Inter-layer relation matrices F·Fᵀ, (batch, blocks, blocks), of CLS tokens (batch, blocks, dim).
///
/// # Errors
/// If the tokens have another shape.
pub fn relation(tokens: &Tensor) -> Result<Tensor> {
    let tokens = tokens.contiguous()?;
    Ok(tokens.matmul(&tokens.transpose(1, 2)?.contiguous()?)?)
}

/// The eigenvalues (batch, n) of symmetric matrices (batch, n, n), in ascending order. For a Gram
/// matrix they are its singular values.
///
/// # Errors
/// If a matrix is not finite.
pub fn eigenvalues(matrices: &Tensor) -> Result<Tensor> {
    let (device, matrices) =
        (matrices.device().clone(), matrices.to_device(&Device::Cpu)?.contiguous()?);
    Ok(matrices.apply_op1(Eigenvalues)?.to_device(&device)?)
}

struct Eigenvalues;

/// Σ_i g_i·v_i·v_iᵀ from (matrices, g).
struct Backward;

/// A row-major matrix (n, n) in f64.
fn widened<T: Float>(matrix: &[T], n: usize) -> Mat<f64> {
    Mat::from_fn(n, n, |i, j| matrix[i * n + j].wide())
}

/// Σ_j g_j·v_j·v_jᵀ, row-major; none if the matrix is not finite.
fn gradient<T: Float>(matrix: &[T], g: &[T]) -> Option<Vec<T>> {
    let n = g.len();
    let vectors = SymmetricEigen::new(widened(matrix, n).as_ref())?.vectors;
    let scaled = Mat::from_fn(n, n, |i, j| vectors[(i, j)] * g[j].wide());
    let mut sum = Mat::<f64>::zeros(n, n);
    matmul(sum.as_mut(), Accum::Replace, scaled.as_ref(), vectors.transpose(), 1.0, Par::Seq);
    Some((0..n * n).map(|k| T::narrow(sum[(k / n, k % n)])).collect())
}

fn dims(layout: &Layout) -> candle_core::Result<(usize, usize)> {
    let (batch, n, m) = layout.shape().dims3()?;
    if n != m {
        bail!("eigenvalues: the matrices are {n}×{m}, not square");
    }
    Ok((batch, n))
}

impl CustomOp1 for Eigenvalues {
    fn name(&self) -> &'static str {
        "eigenvalues"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, n) = dims(lx)?;
        by_type!(self.name(), x, T => {
            let x: &[T] = values(self.name(), x, lx)?;
            let solved: Option<Vec<Vec<f64>>> = x.par_chunks(n * n).map(|m| SymmetricEigen::values(widened(m, n).as_ref())).collect();
            let Some(solved) = solved else { bail!("eigenvalues: a matrix is not finite") };
            Ok((T::wrap(solved.into_iter().flatten().map(T::narrow).collect()), Shape::from((batch, n))))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(x.detach().apply_op2(&grad.detach().contiguous()?, Backward)?))
    }
}

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        "eigenvalues-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        grad: &CpuStorage,
        lg: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, n) = dims(lx)?;
        by_type!(self.name(), x, T => {
            let (x, grad): (&[T], &[T]) = (values(self.name(), x, lx)?, values(self.name(), grad, lg)?);
            let solved: Option<Vec<Vec<T>>> = x.par_chunks(n * n).zip(grad.par_chunks(n)).map(|(m, g)| gradient(m, g)).collect();
            let Some(solved) = solved else { bail!("eigenvalues: a matrix is not finite") };
            Ok((T::wrap(solved.concat()), lx.shape().clone()))
        })
    }
}

/// The spectra, in f64 on the host, of the relation matrices of CLS tokens (batch, blocks, dim):
/// batch·blocks values.
///
/// # Errors
/// If a token is not finite.
pub fn spectra(tokens: &Tensor) -> Result<Vec<f64>> {
    Ok(eigenvalues(&relation(&tokens.to_dtype(DType::F64)?)?)?.flatten_all()?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    fn matrix(values: &[f64], n: usize) -> Tensor {
        Tensor::from_slice(values, (1, n, n), &Device::Cpu).expect("matrix")
    }

    fn gradient(values: &[f64], n: usize, loss: impl Fn(&Tensor) -> Tensor) -> Vec<f64> {
        let x = Var::from_tensor(&matrix(values, n)).expect("var");
        let loss = loss(&eigenvalues(&x).expect("eigenvalues"));
        loss.backward()
            .expect("bwd")
            .get(&x)
            .expect("dx")
            .flatten_all()
            .expect("flat")
            .to_vec1()
            .expect("values")
    }

    #[test]
    fn gradient_equals_finite_differences() {
        let n = 4;
        let f = Tensor::randn(0f64, 1.0, (1, n, 6), &Device::Cpu).expect("f");
        let gram: Vec<f64> =
            relation(&f).expect("gram").flatten_all().expect("flat").to_vec1().expect("values");
        let weights = Tensor::new(&[[0.3f64, -1.0, 2.0, 0.7]], &Device::Cpu).expect("weights");
        let loss =
            |l: &Tensor| (l.sqr().expect("sqr") * &weights).expect("mul").sum_all().expect("sum");
        let exact = gradient(&gram, n, loss);
        for i in 0..n {
            for j in 0..=i {
                // Both entries of a symmetric pair move together.
                let moved = |d: f64| {
                    let mut m = gram.clone();
                    m[i * n + j] += d;
                    if i != j {
                        m[j * n + i] += d;
                    }
                    loss(&eigenvalues(&matrix(&m, n)).expect("eigenvalues"))
                        .to_scalar::<f64>()
                        .expect("scalar")
                };
                let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let ours =
                    if i == j { exact[i * n + j] } else { exact[i * n + j] + exact[j * n + i] };
                assert!(
                    (numeric - ours).abs() < 1e-5 * (1.0 + numeric.abs()),
                    "{i},{j}: {numeric} {ours}"
                );
            }
        }
    }

    #[test]
    fn repeated_eigenvalues_give_a_finite_gradient_right_for_symmetric_losses() {
        let identity = [2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 5.0];
        // Σ λ² = ‖M‖², whose gradient is 2·M, symmetric within the group of the two equal
        // eigenvalues.
        let exact = gradient(&identity, 3, |l| l.sqr().expect("sqr").sum_all().expect("sum"));
        for (ours, entry) in exact.iter().zip(identity) {
            assert!((ours - 2.0 * entry).abs() < 1e-12);
        }
        let uneven =
            gradient(&identity, 3, |l| l.narrow(1, 0, 1).expect("first").sum_all().expect("sum"));
        assert!(uneven.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn not_a_number_is_an_error_and_not_a_hang() {
        assert!(
            eigenvalues(&matrix(&[f64::NAN, 0.0, 0.0, 1.0], 2))
                .expect_err("must fail")
                .to_string()
                .contains("not finite")
        );
    }
}
