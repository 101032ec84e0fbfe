//! Upper triangular matrices, packed so that most of their zeros take no memory.

use candle_core::{DType, Device, Tensor, WithDType};

use crate::nn;
use crate::nn::cpu::simd::Float;
use crate::nn::cpu::storage::with_values;
use crate::{Error, Result};

/// Columns per block.
const COLUMNS: usize = 64;

/// Neighbouring columns of an upper triangular matrix, down to the last row that is not zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
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
pub(crate) fn blocks(dim: usize) -> impl Iterator<Item = Block> {
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
pub(crate) enum Upper {
    /// Its [`blocks`], for the CPU kernels.
    Packed(Tensor),
    /// The whole matrix, for devices on which one product with all of it is faster.
    Whole(Tensor),
}

impl Upper {
    /// Packs a matrix (dim, dim) where the CPU kernels can use it.
    pub fn of(whole: &Tensor) -> Result<Self> {
        let whole = whole.contiguous()?;
        match whole.dtype() {
            DType::F32 if nn::has_cpu_kernel(&whole) => Ok(Self::Packed(pack::<f32>(&whole)?)),
            DType::F64 if nn::has_cpu_kernel(&whole) => Ok(Self::Packed(pack::<f64>(&whole)?)),
            _ => Ok(Self::Whole(whole)),
        }
    }

    /// Takes the packed numbers of a matrix (dim, dim) on the host to this device.
    pub fn of_packed(packed: &Tensor, dim: usize, device: &Device) -> Result<Self> {
        if packed.dims() != [count(dim)] {
            let (shape, count) = (packed.dims(), count(dim));
            return Err(Error::Protocol(format!(
                "a packed upper triangle of {dim} dimensions has {count} numbers, this one has the shape {shape:?}"
            )));
        }
        let packed = packed.contiguous()?;
        if device.is_cpu()
            && nn::has_cpu_kernel(&packed)
            && matches!(packed.dtype(), DType::F32 | DType::F64)
        {
            return Ok(Self::Packed(packed));
        }
        Ok(Self::Whole(unpacked(&packed, dim)?.to_device(device)?))
    }

    /// The whole matrix (dim, dim).
    pub fn whole(&self, dim: usize) -> Result<Tensor> {
        match self {
            Self::Whole(whole) => Ok(whole.clone()),
            Self::Packed(packed) => unpacked(packed, dim),
        }
    }

    /// Its packed numbers, 1-d, on the host.
    pub fn packed(&self) -> Result<Tensor> {
        let whole = match self {
            Self::Packed(packed) => return Ok(packed.clone()),
            Self::Whole(whole) => whole.to_device(&Device::Cpu)?,
        };
        match whole.dtype() {
            DType::F32 => pack::<f32>(&whole),
            dtype => Ok(pack::<f64>(&whole.to_dtype(DType::F64)?)?.to_dtype(dtype)?),
        }
    }
}

fn unpacked(packed: &Tensor, dim: usize) -> Result<Tensor> {
    match packed.dtype() {
        DType::F32 => unpack::<f32>(packed, dim),
        dtype => Ok(unpack::<f64>(&packed.to_dtype(DType::F64)?, dim)?.to_dtype(dtype)?),
    }
}

fn pack<T: Float + WithDType>(whole: &Tensor) -> Result<Tensor> {
    let (dim, mut packed) = (whole.dim(0)?, Vec::new());
    with_values(whole, |whole: &[T]| {
        packed.reserve_exact(count(dim));
        for block in blocks(dim) {
            whole
                .chunks_exact(dim)
                .take(block.end)
                .for_each(|row| packed.extend_from_slice(&row[block.first..block.end]));
        }
    })?;
    Ok(Tensor::from_vec(packed, (count(dim),), &Device::Cpu)?)
}

fn unpack<T: Float + WithDType>(packed: &Tensor, dim: usize) -> Result<Tensor> {
    let mut whole = vec![T::ZERO; dim * dim];
    with_values(packed, |packed: &[T]| {
        for block in blocks(dim) {
            let rows = packed[block.start..].chunks_exact(block.width()).take(block.end);
            rows.zip(whole.chunks_exact_mut(dim))
                .for_each(|(from, to)| to[block.first..block.end].copy_from_slice(from));
        }
    })?;
    Ok(Tensor::from_vec(whole, (dim, dim), &Device::Cpu)?)
}

/// The packed transpose of the lower triangle of a matrix (n, n).
pub(crate) fn packed_transpose<T: Float>(lower: &[f64], n: usize) -> Vec<T> {
    let mut packed = vec![T::ZERO; count(n)];
    for block in blocks(n) {
        let (width, out) = (block.width(), &mut packed[block.start..]);
        // Going by squares keeps what is written in the cache.
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
    use super::*;
    use crate::nn::as_on_a_device;

    fn values(t: &Tensor) -> Vec<f64> {
        t.to_dtype(DType::F64)
            .expect("type")
            .flatten_all()
            .expect("flat")
            .to_vec1()
            .expect("values")
    }

    #[test]
    fn packing_keeps_the_upper_triangle() {
        // Numbers that every type holds exactly.
        let value = |row: usize, column: usize| (1 + (7 * row + 3 * column) % 200) as f64;
        for n in [1, COLUMNS, 2 * COLUMNS + 5] {
            let places = || (0..n * n).map(|i| (i / n, i % n));
            let lower: Vec<f64> =
                places().map(|(i, j)| if j <= i { value(i, j) } else { f64::NAN }).collect();
            let upper: Vec<f64> =
                places().map(|(i, j)| if i <= j { value(j, i) } else { 0.0 }).collect();
            for dtype in [DType::F64, DType::F32, DType::BF16] {
                let whole = Tensor::from_slice(&upper, (n, n), &Device::Cpu)
                    .expect("whole")
                    .to_dtype(dtype)
                    .expect("type");
                let here = Upper::of(&whole).expect("packed");
                let there = as_on_a_device(|| Upper::of(&whole).expect("whole"));
                assert!(
                    matches!(here, Upper::Packed(_)) == (dtype != DType::BF16)
                        && matches!(there, Upper::Whole(_))
                );
                for packed in [here.packed(), as_on_a_device(|| there.packed())] {
                    let packed = packed.expect("packed");
                    assert!(values(&packed) == packed_transpose::<f64>(&lower, n), "{n} {dtype:?}");
                    let unpacked = || Upper::of_packed(&packed, n, &Device::Cpu)?.whole(n);
                    for found in [unpacked(), as_on_a_device(unpacked)] {
                        let found = found.expect("whole");
                        assert!(
                            found.dims() == [n, n]
                                && found.dtype() == dtype
                                && values(&found) == upper,
                            "{n} {dtype:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn another_number_of_numbers_is_refused() {
        let packed = Tensor::zeros(7, DType::F32, &Device::Cpu).expect("zeros");
        assert!(
            Upper::of_packed(&packed, 3, &Device::Cpu)
                .expect_err("nine")
                .to_string()
                .contains("3 dimensions has 9 numbers")
        );
    }
}
