//! Dual gradient projection memory (DualGPM, Liang and Li 2023; as used by InfLoRA, CVPR 2024): for
//! every block, a basis of the directions its inputs took in past tasks — or, once that is more
//! than half of them, of those they did not take.
//!
//! Only projectors matter, so singular vectors come from symmetric eigenproblems in f64: the
//! squared singular values, which the criteria compare, are the eigenvalues of M·Mᵀ.

use candle_core::{DType, Device, Tensor};
use nalgebra::{DMatrix, SymmetricEigen};
use rayon::prelude::*;

use cilbench::array::Array;
use cilbench::context::{Carry, Held, Loader, Stored};
use cilbench::method::{Recorded, RecordedQuantity};
use cilbench::state::Kind;
use cilbench::{Error, Result};

inventory::submit! { RecordedQuantity { name: "gpm_projector", read: projector } }
inventory::submit! { RecordedQuantity { name: "gpm_rank", read: ranks } }
inventory::submit! { RecordedQuantity { name: "gpm_retain", read: |of| of.state.array("gpm.retain")?.to_f64() } }

/// U·Uᵀ of a block's basis U, in the order of rows.
fn projector(of: &Recorded) -> Result<Vec<f64>> {
    let basis =
        of.state.array(&format!("gpm.basis.{}", of.suffix))?.to_dtype(DType::F64, &Device::Cpu)?;
    Ok(basis.matmul(&basis.t()?)?.flatten_all()?.to_vec1()?)
}

/// The rank of each block's basis.
fn ranks(of: &Recorded) -> Result<Vec<f64>> {
    let blocks = of.state.array("gpm.retain")?.len();
    (0..blocks)
        .map(|block| Ok(of.state.array(&format!("gpm.basis.{block}"))?.shape[1] as f64))
        .collect()
}

/// What a block's basis stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Directions to stay out of ("remove").
    Remove,
    /// Directions to stay in ("retain").
    Retain,
}

#[derive(Debug, Clone)]
struct Basis {
    /// (dim, rank), orthonormal columns.
    vectors: DMatrix<f64>,
    side: Side,
}

/// The vectors of a basis, (dim, rank) in double precision.
#[derive(Debug, Clone)]
struct Vectors(DMatrix<f64>);

impl Stored for Vectors {
    fn save(&self, name: &str) -> Result<Vec<(String, Array)>> {
        Ok(vec![(name.to_owned(), array(&self.0)?)])
    }

    fn load(name: &str, from: &Loader) -> Result<Option<Self>> {
        from.find(name).map(|a| Ok(Self(matrix(&a.to_tensor(&Device::Cpu)?)?))).transpose()
    }
}

/// One basis per block; none before the first task is over.
#[derive(Debug, Clone, Default)]
pub struct DualGpm {
    vectors: Vec<Held<Vectors>>,
    /// Of each block, 1 if its basis is to be stayed in.
    retain: Option<Held<Vec<i64>>>,
}

/// Left singular vectors and squared singular values of a matrix, the largest first.
fn left_singular(matrix: &DMatrix<f64>) -> Result<(DMatrix<f64>, Vec<f64>)> {
    let square = matrix * matrix.transpose();
    if square.iter().any(|v| !v.is_finite()) {
        return Err(Error::Diverged("the covariance of a block's inputs is not finite".into()));
    }
    let eigen = SymmetricEigen::new(square);
    let mut order: Vec<usize> = (0..matrix.nrows()).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
    let energies = order.iter().map(|i| eigen.eigenvalues[*i].max(0.0)).collect();
    Ok((eigen.eigenvectors.select_columns(&order), energies))
}

fn projected(vectors: &DMatrix<f64>, matrix: &DMatrix<f64>) -> DMatrix<f64> {
    vectors * (vectors.transpose() * matrix)
}

/// A tensor (dim, dim) as a matrix.
fn matrix(tensor: &Tensor) -> Result<DMatrix<f64>> {
    let (rows, columns) = tensor.dims2()?;
    Ok(DMatrix::from_row_slice(
        rows,
        columns,
        &tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?,
    ))
}

/// A matrix as an array of f64.
fn array(matrix: &DMatrix<f64>) -> Result<Array> {
    let values: Vec<f64> = matrix.transpose().iter().copied().collect();
    Array::from_tensor(&Tensor::from_vec(values, (matrix.nrows(), matrix.ncols()), &Device::Cpu)?)
}

impl DualGpm {
    /// Declares the bases of so many blocks: `gpm.basis.<block>` (dim, rank), `gpm.retain`
    /// (blocks).
    pub fn settle(&mut self, blocks: usize, carry: &mut Carry) -> Result<()> {
        for block in self.vectors.len()..blocks {
            self.vectors.push(carry.held(format!("gpm.basis.{block}"), Kind::Statistic)?);
        }
        if self.retain.is_none() {
            self.retain = Some(carry.held("gpm.retain", Kind::Buffer)?);
        }
        Ok(())
    }

    /// The bases as they are; none before the first task is over.
    fn bases(&self) -> Vec<Basis> {
        let retain = self.retain.as_ref().and_then(Held::find).unwrap_or_default();
        let one = |(held, retain): (&Held<Vectors>, &i64)| {
            let side = if *retain == 1 { Side::Retain } else { Side::Remove };
            held.find().map(|vectors| Basis { vectors: vectors.0.clone(), side })
        };
        self.vectors.iter().zip(retain.iter()).filter_map(one).collect()
    }

    /// The matrices A (rank, dim) of a task, one for each block, from the covariances M (dim, dim)
    /// of the blocks' inputs: the leading left singular vectors of M, of M − P·M ("remove") or of
    /// P·M ("retain"), divided by √3. The first non-zero entry of each row is positive.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a covariance is not finite.
    pub fn design(&self, covariances: &[Tensor], rank: usize) -> Result<Vec<Tensor>> {
        let bases = self.bases();
        let one = |(block, m): (usize, &Tensor)| {
            let m = matrix(m)?;
            let m = match bases.get(block) {
                None => m,
                Some(Basis { vectors, side: Side::Remove }) => &m - projected(vectors, &m),
                Some(Basis { vectors, side: Side::Retain }) => projected(vectors, &m),
            };
            let (vectors, _) = left_singular(&m)?;
            let mut rows = Vec::with_capacity(rank * m.nrows());
            for column in vectors.column_iter().take(rank) {
                let sign = column.iter().find(|v| v.abs() > 1e-9).map_or(1.0, |v| v.signum());
                rows.extend(column.iter().map(|v| sign * v / 3f64.sqrt()));
            }
            Ok(Tensor::from_vec(rows, (rank, m.nrows()), &Device::Cpu)?)
        };
        covariances.par_iter().enumerate().map(one).collect()
    }

    /// Takes in the covariances M (dim, dim) of a finished task: bases grow ("remove") or shrink
    /// ("retain") until the share `threshold` of the energy is kept.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a covariance is not finite.
    pub fn update(&mut self, covariances: &[Tensor], threshold: f64) -> Result<()> {
        let old = self.bases();
        let one = |(block, m): (usize, &Tensor)| match old.get(block) {
            None => basis_after_first_task(&matrix(m)?, threshold),
            Some(basis) => updated_basis(basis, &matrix(m)?, threshold),
        };
        let bases: Vec<Basis> =
            covariances.par_iter().enumerate().map(one).collect::<Result<_>>()?;
        let Some(retain) = self.retain.as_ref().filter(|_| self.vectors.len() == bases.len())
        else {
            return Err(Error::Protocol(format!(
                "the bases of {} blocks were never declared",
                bases.len()
            )));
        };
        retain.set(bases.iter().map(|b| i64::from(b.side == Side::Retain)).collect());
        self.vectors.iter().zip(bases).for_each(|(held, basis)| held.set(Vectors(basis.vectors)));
        Ok(())
    }
}

/// The basis of a block after the first task.
fn basis_after_first_task(m: &DMatrix<f64>, threshold: f64) -> Result<Basis> {
    let (vectors, energies) = left_singular(m)?;
    let total: f64 = energies.iter().sum();
    let mut kept = 0.0;
    let below = energies.iter().take_while(|e| {
        kept += **e / total;
        kept < threshold
    });
    let rank = below.count().max(1);
    let dim = m.nrows();
    let basis = Basis { vectors: vectors.columns(0, rank).into_owned(), side: Side::Remove };
    // The authors call a block that reaches half of its width "retain" as it is, and stop with an
    // assertion above half; there it is complemented.
    Ok(match (2 * rank).cmp(&dim) {
        std::cmp::Ordering::Less => basis,
        std::cmp::Ordering::Equal => Basis { side: Side::Retain, ..basis },
        std::cmp::Ordering::Greater => complement(&basis),
    })
}

/// The orthogonal complement, to stay in.
fn complement(basis: &Basis) -> Basis {
    let dim = basis.vectors.nrows();
    let rest = DMatrix::identity(dim, dim) - &basis.vectors * basis.vectors.transpose();
    let eigen = SymmetricEigen::new(rest);
    let mut order: Vec<usize> = (0..dim).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
    Basis {
        vectors: eigen.eigenvectors.select_columns(&order[..dim - basis.vectors.ncols()]),
        side: Side::Retain,
    }
}

/// The basis of a block after a later task.
fn updated_basis(basis: &Basis, m: &DMatrix<f64>, threshold: f64) -> Result<Basis> {
    let total = m.norm_squared();
    let inside = projected(&basis.vectors, m);
    let dim = m.nrows();
    match basis.side {
        Side::Remove => {
            let (vectors, energies) = left_singular(&(m - &inside))?;
            let mut kept = (total - energies.iter().sum::<f64>()) / total;
            let mut rank = 0;
            while rank < dim && kept < threshold {
                kept += energies[rank] / total;
                rank += 1;
            }
            let width = (basis.vectors.ncols() + rank).min(dim);
            let mut grown = basis.vectors.clone().resize_horizontally(width, 0.0);
            for (i, column) in (basis.vectors.ncols()..width).enumerate() {
                grown.set_column(column, &vectors.column(i));
            }
            let grown = Basis { vectors: grown, side: Side::Remove };
            Ok(if 2 * width > dim { complement(&grown) } else { grown })
        }
        Side::Retain => {
            let (vectors, energies) = left_singular(&inside)?;
            let mut left = energies.iter().sum::<f64>() / total;
            let mut rank = 0;
            while rank < basis.vectors.ncols() && left >= 1.0 - threshold {
                left -= energies[rank] / total;
                rank += 1;
            }
            if rank == 0 {
                return Ok(basis.clone());
            }
            let taken = vectors.columns(0, rank).into_owned();
            let (vectors, _) =
                left_singular(&(&basis.vectors - projected(&taken, &basis.vectors)))?;
            Ok(Basis {
                vectors: vectors.columns(0, basis.vectors.ncols() - rank).into_owned(),
                side: Side::Retain,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cilbench::context::{Carried, NoHost, Placement};

    fn covariance(n: usize, dim: usize) -> Tensor {
        let x = Tensor::randn(0f64, 1.0, (n, dim), &Device::Cpu).expect("x");
        let scale = Tensor::arange(1f64, dim as f64 + 1.0, &Device::Cpu).expect("scale");
        let x = x.broadcast_div(&scale).expect("scaled");
        x.t().expect("t").matmul(&x).expect("mm")
    }

    fn declared(carried: &Carried) -> DualGpm {
        let (mut gpm, mut host, placement) =
            (DualGpm::default(), NoHost, Placement::cpu(DType::F64));
        gpm.settle(1, &mut Carry::fresh(&mut host, carried, &placement)).expect("declared");
        gpm
    }

    #[test]
    fn designed_rows_are_orthogonal_and_outside_what_is_removed() {
        let mut gpm = declared(&Carried::new());
        gpm.update(&[covariance(40, 12)], 0.9).expect("update");
        let basis = gpm.bases()[0].clone();
        assert_eq!(basis.side, Side::Remove);
        let a = matrix(&gpm.design(&[covariance(40, 12)], 3).expect("design")[0]).expect("matrix");
        let gram = &a * a.transpose() * 3.0;
        assert!((gram - DMatrix::<f64>::identity(3, 3)).norm() < 1e-9);
        assert!((&a * &basis.vectors).norm() < 1e-9);
    }

    #[test]
    fn a_basis_above_half_turns_into_its_complement_and_survives_the_state() {
        let carried = Carried::new();
        let mut gpm = declared(&carried);
        gpm.update(&[covariance(40, 12)], 0.6).expect("first");
        let before = gpm.bases()[0].vectors.clone();
        gpm.update(&[covariance(40, 12)], 0.999_999).expect("second");
        let basis = gpm.bases()[0].clone();
        assert_eq!(basis.side, Side::Retain);
        assert!(2 * basis.vectors.ncols() <= 12);
        assert!(
            (basis.vectors.transpose() * before).norm() < 1e-7,
            "what was known is not to be used"
        );
        let (state, other, placement) =
            (carried.state().expect("state"), Carried::new(), Placement::cpu(DType::F64));
        let mut again = DualGpm::default();
        again.settle(1, &mut Carry::saved(&state, false, &other, &placement)).expect("restored");
        assert_eq!(again.bases()[0].vectors, basis.vectors);
        assert_eq!(again.bases()[0].side, Side::Retain);
    }
}
