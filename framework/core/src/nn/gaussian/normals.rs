//! Standard normal numbers for samples, computed where they are needed.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::Result;
use crate::nn::cpu::simd::Float;
use crate::nn::cpu::storage::with_values;
use crate::rng::{GROUP, NormalStream};

/// Numbers per rayon task.
const PART: usize = 64 * GROUP;

/// A matrix (n, dim) of standard normal numbers, in memory or computed when it is read.
#[derive(Debug, Clone)]
pub struct Normals(Numbers);

#[derive(Debug, Clone)]
enum Numbers {
    Stream(NormalStream, [usize; 2]),
    /// Contiguous.
    Tensor(Tensor, (usize, usize)),
}

impl Normals {
    /// Takes the first n·dim numbers of a sequence, row by row.
    pub fn of_stream(stream: NormalStream, shape: [usize; 2]) -> Self {
        Self(Numbers::Stream(stream, shape))
    }

    /// Takes the numbers of a tensor (n, dim).
    ///
    /// # Errors
    /// If the tensor is not a matrix.
    pub fn of(normals: &Tensor) -> Result<Self> {
        Ok(Self(Numbers::Tensor(normals.contiguous()?, normals.dims2()?)))
    }

    /// Whether they are in memory already.
    pub(crate) fn given(&self) -> bool {
        matches!(self.0, Numbers::Tensor(..))
    }

    pub(crate) fn shape(&self) -> (usize, usize) {
        match &self.0 {
            Numbers::Stream(_, [rows, width]) => (*rows, *width),
            Numbers::Tensor(_, shape) => *shape,
        }
    }

    /// As a tensor (n, dim).
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn tensor(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        match &self.0 {
            Numbers::Stream(stream, [rows, width]) => {
                let mut values = vec![0.0; rows * width];
                values
                    .par_chunks_mut(PART)
                    .enumerate()
                    .for_each(|(part, values)| stream.fill(part * PART, values));
                Ok(Tensor::from_vec(values, (*rows, *width), device)?.to_dtype(dtype)?)
            }
            Numbers::Tensor(t, _) => Ok(t.to_dtype(dtype)?.to_device(device)?),
        }
    }

    /// Reads the numbers from `start` on.
    pub(crate) fn read<T: Float>(&self, start: usize, out: &mut [T]) -> Result<()> {
        match &self.0 {
            Numbers::Stream(stream, _) => {
                let mut room = [0.0; GROUP];
                for (i, out) in out.chunks_mut(GROUP).enumerate() {
                    let room = &mut room[..out.len()];
                    stream.fill(start + i * GROUP, room);
                    out.iter_mut().zip(room).for_each(|(o, v)| *o = T::narrow(f64::from(*v)));
                }
                Ok(())
            }
            Numbers::Tensor(t, _) => {
                with_values(t, |values| out.copy_from_slice(&values[start..start + out.len()]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_s_numbers_are_the_same_read_in_parts_and_as_a_tensor() {
        let normals = Normals::of_stream(NormalStream::from_seed([1; 32]), [50, 33]);
        let tensor = normals.tensor(DType::F32, &Device::Cpu).expect("tensor");
        let all = tensor.flatten_all().expect("flat").to_vec1::<f32>().expect("values");
        let drawn = Normals::of(&tensor.to_dtype(DType::F64).expect("type")).expect("matrix");
        assert_eq!((normals.shape(), drawn.shape()), ((50, 33), (50, 33)));
        for (start, n) in [(0, 1650), (5 * 33, 10 * 33), (1649, 1)] {
            let (mut narrow, mut wide, mut given) = (vec![0f32; n], vec![0f64; n], vec![0f64; n]);
            normals.read(start, &mut narrow).expect("f32");
            normals.read(start, &mut wide).expect("f64");
            drawn.read(start, &mut given).expect("drawn");
            assert_eq!(narrow, all[start..start + n]);
            assert!(wide == given && wide.iter().zip(&narrow).all(|(a, b)| *a == f64::from(*b)));
        }
    }
}
