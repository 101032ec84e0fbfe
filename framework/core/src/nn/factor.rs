//! Upper triangular matrices without most of their zeros.

use candle_core::{DType, Device, Tensor, WithDType};

use super::float::Float;
use super::gaussian::with_values;
use crate::{Error, Result};

/// Columns a block.
const COLUMNS: usize = 64;

/// Some columns of a matrix, down to the last row that is not zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// The first column, and the one after the last, which is the number of rows too.
    pub first: usize,
    pub end: usize,
    /// Where it begins among the packed numbers.
    pub start: usize,
}

impl Block {
    pub fn width(self) -> usize {
        self.end - self.first
    }
}

/// The blocks of a matrix (dim, dim), one after the other, each row by row.
pub(super) fn blocks(dim: usize) -> impl Iterator<Item = Block> {
    let mut start = 0;
    (0..dim).step_by(COLUMNS).map(move |first| {
        let block = Block { first, end: dim.min(first + COLUMNS), start };
        start += block.end * block.width();
        block
    })
}

/// How many numbers the blocks have.
fn count(dim: usize) -> usize {
    blocks(dim).map(|b| b.end * b.width()).sum()
}

/// An upper triangular matrix (dim, dim), packed or not.
#[derive(Debug, Clone)]
pub(super) enum Upper {
    /// Its [`blocks`], for the CPU's own products.
    Packed(Tensor),
    /// For devices on which one product with all of it is faster.
    Whole(Tensor),
}

impl Upper {
    /// Of a matrix (dim, dim).
    pub fn of(whole: &Tensor) -> Result<Self> {
        let whole = whole.contiguous()?;
        match whole.dtype() {
            DType::F32 if super::own(&whole) => pack::<f32>(&whole),
            DType::F64 if super::own(&whole) => pack::<f64>(&whole),
            _ => Ok(Self::Whole(whole)),
        }
    }

    /// Of the packed numbers of a matrix (dim, dim), wherever they are.
    pub fn of_packed(packed: &Tensor, dim: usize) -> Result<Self> {
        if packed.dims() != [count(dim)] {
            let shape = packed.dims();
            return Err(Error::Protocol(format!(
                "a packed upper triangle of {dim} dimensions has {} numbers, this one has the shape {shape:?}",
                count(dim)
            )));
        }
        let packed = Self::Packed(packed.contiguous()?);
        match &packed {
            Self::Packed(t) if super::own(t) && matches!(t.dtype(), DType::F32 | DType::F64) => Ok(packed),
            _ => Ok(Self::Whole(packed.whole(dim)?)),
        }
    }

    /// All of it (dim, dim).
    pub fn whole(&self, dim: usize) -> Result<Tensor> {
        match self {
            Self::Whole(whole) => Ok(whole.clone()),
            Self::Packed(packed) => on_host(packed, |host| match host.dtype() {
                DType::F32 => unpack::<f32>(host, dim),
                _ => unpack::<f64>(&host.to_dtype(DType::F64)?, dim),
            }),
        }
    }

    /// Its packed numbers, 1-d.
    pub fn packed(&self) -> Result<Tensor> {
        match self {
            Self::Packed(packed) => Ok(packed.clone()),
            Self::Whole(whole) => on_host(whole, |host| {
                let packed = match host.dtype() {
                    DType::F32 => pack::<f32>(host)?,
                    _ => pack::<f64>(&host.to_dtype(DType::F64)?)?,
                };
                packed.packed()
            }),
        }
    }
}

/// What `f` makes of the tensor on the host, of the tensor's type and on its device.
fn on_host(tensor: &Tensor, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    Ok(f(&tensor.to_device(&Device::Cpu)?)?.to_dtype(tensor.dtype())?.to_device(tensor.device())?)
}

fn pack<T: Float + WithDType>(whole: &Tensor) -> Result<Upper> {
    let (dim, mut packed) = (whole.dim(0)?, Vec::new());
    with_values(whole, |whole: &[T]| {
        packed.reserve_exact(count(dim));
        for block in blocks(dim) {
            whole.chunks_exact(dim).take(block.end).for_each(|row| packed.extend_from_slice(&row[block.first..block.end]));
        }
    })?;
    Ok(Upper::Packed(Tensor::from_vec(packed, (count(dim),), &Device::Cpu)?))
}

fn unpack<T: Float + WithDType>(packed: &Tensor, dim: usize) -> Result<Tensor> {
    let mut whole = vec![T::ZERO; dim * dim];
    with_values(packed, |packed: &[T]| {
        for block in blocks(dim) {
            let rows = packed[block.start..].chunks_exact(block.width()).take(block.end);
            rows.zip(whole.chunks_exact_mut(dim)).for_each(|(from, to)| to[block.first..block.end].copy_from_slice(from));
        }
    })?;
    Ok(Tensor::from_vec(whole, (dim, dim), &Device::Cpu)?)
}

/// The packed transpose of the lower triangle of a matrix (n, n).
pub(super) fn packed_transpose<T: Float>(lower: &[f64], n: usize) -> Vec<T> {
    let mut packed = vec![T::ZERO; count(n)];
    for block in blocks(n) {
        let (width, out) = (block.width(), &mut packed[block.start..]);
        // In squares, so that what is written stays in the cache.
        for left in (0..block.end).step_by(COLUMNS) {
            for row in block.first.max(left)..block.end {
                let known = &lower[row * n + left..][..COLUMNS.min(row + 1 - left)];
                let column = out[left * width + row - block.first..].iter_mut().step_by(width);
                column.zip(known).for_each(|(o, v)| *o = T::narrow(*v));
            }
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::super::as_on_a_device;
    use super::*;

    #[test]
    fn packing_keeps_the_upper_triangle() {
        for n in [1, COLUMNS, 2 * COLUMNS + 5] {
            let lower: Vec<f64> = (0..n * n).map(|i| if i % n <= i / n { 1.0 + i as f64 } else { f64::NAN }).collect();
            let upper: Vec<f64> = (0..n * n).map(|i| if i / n <= i % n { 1.0 + (i % n * n + i / n) as f64 } else { 0.0 }).collect();
            let whole = Tensor::from_vec(upper.clone(), (n, n), &Device::Cpu).expect("whole");
            for dtype in [DType::F64, DType::F32] {
                let whole = whole.to_dtype(dtype).expect("type");
                let here = Upper::of(&whole).expect("packed");
                let there = as_on_a_device(|| Upper::of(&whole).expect("whole"));
                assert!(matches!((&here, &there), (Upper::Packed(_), Upper::Whole(_))));
                let packed = [here.packed().expect("packed"), as_on_a_device(|| there.packed()).expect("packed")];
                for packed in packed {
                    assert_eq!(
                        packed.to_dtype(DType::F64).expect("type").to_vec1::<f64>().expect("values"),
                        packed_transpose::<f64>(&lower, n)
                    );
                    for upper in [Upper::of_packed(&packed, n), as_on_a_device(|| Upper::of_packed(&packed, n))] {
                        let found = upper.expect("upper").whole(n).expect("whole");
                        assert_eq!((found.dims(), found.dtype()), (&[n, n][..], dtype));
                        assert_eq!(
                            found.to_dtype(DType::F64).expect("type").flatten_all().expect("flat").to_vec1::<f64>().expect("values"),
                            upper_of(&whole)
                        );
                    }
                }
            }
        }
    }

    fn upper_of(whole: &Tensor) -> Vec<f64> {
        whole.to_dtype(DType::F64).expect("type").flatten_all().expect("flat").to_vec1().expect("values")
    }

    #[test]
    fn another_number_of_numbers_is_refused() {
        let packed = Tensor::zeros(7, DType::F32, &Device::Cpu).expect("zeros");
        assert!(Upper::of_packed(&packed, 3).expect_err("nine").to_string().contains("3 dimensions has 9 numbers"));
    }
}
