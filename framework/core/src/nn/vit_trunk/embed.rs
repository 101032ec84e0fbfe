//! The frozen embedding of images: patches go through a linear layer, the CLS token comes first,
//! and positions are added. Each image is embedded on one thread.

use candle_core::{Tensor, WithDType};
use rayon::prelude::*;

use super::block::forward;
use super::weights::{Held, LinearWeights, Matrix, copied};
use crate::Result;
use crate::nn::cpu::panels::{Base, Columns, Multiplied};

/// The frozen weights of the embedding.
#[derive(Clone, Copy)]
pub struct EmbeddingWeights<'a> {
    /// (dim, 3·patch·patch).
    pub patch: LinearWeights<'a>,
    /// (1, 1, dim).
    pub cls_token: &'a Tensor,
    /// (1, tokens, dim).
    pub position: &'a Tensor,
    /// The mean and the standard deviation (1, 3, 1, 1) by which images are normalised, if they
    /// are.
    pub normalisation: Option<[&'a Tensor; 2]>,
}

pub(super) struct Embedding<T> {
    patch: Matrix<T>,
    /// The CLS token and the biases of the patches, with their positions added: (tokens, dim).
    base: Vec<T>,
    /// The mean and the standard deviation of each channel.
    normalisation: Option<[Vec<T>; 2]>,
}

impl<T: Multiplied + WithDType> Embedding<T> {
    pub fn new(w: &EmbeddingWeights) -> Result<Self> {
        let (_, tokens, dim) = w.position.dims3()?;
        let first = w.cls_token.detach().reshape((1, dim))?;
        let others = w.patch.bias.detach().reshape((1, dim))?.broadcast_as((tokens - 1, dim))?;
        let base = Tensor::cat(&[&first, &others.contiguous()?], 0)?
            .add(&w.position.detach().reshape((tokens, dim))?)?;
        let channels = |[mean, std]: [&Tensor; 2]| -> Result<[Vec<T>; 2]> {
            Ok([copied(mean)?, copied(std)?])
        };
        Ok(Self {
            patch: Matrix::new(w.patch)?,
            base: copied(&base)?,
            normalisation: w.normalisation.map(channels).transpose()?,
        })
    }

    /// Images (batch, 3, size, size) to tokens (batch, 1 + patches, dim), without a graph.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let images = images.detach().contiguous()?;
        let (batch, channels, size, _) = images.dims4()?;
        let (dim, inputs) = (self.patch.outputs, self.patch.inputs);
        let side = ((inputs / channels) as f64).sqrt().round() as usize;
        let (grid, tokens) = (size / side, self.base.len() / dim);
        let held = Held::new(&images);
        let mut out = vec![T::ZERO; batch * self.base.len()];
        let pixels = held.values::<T>()?.par_chunks_exact(channels * size * size);
        out.par_chunks_exact_mut(self.base.len()).zip(pixels).for_each_init(
            || vec![T::ZERO; grid * grid * inputs],
            |patches, (out, image)| {
                for (row, line) in image.chunks_exact(size).enumerate() {
                    let (channel, y) = (row / size, row % size);
                    let inside = channel * side * side + (y % side) * side;
                    for (x, piece) in line.chunks_exact(side).enumerate() {
                        let to = &mut patches[((y / side) * grid + x) * inputs + inside..][..side];
                        match &self.normalisation {
                            None => to.copy_from_slice(piece),
                            Some([mean, std]) => to
                                .iter_mut()
                                .zip(piece)
                                .for_each(|(t, v)| *t = (*v - mean[channel]) / std[channel]),
                        }
                    }
                }
                out.copy_from_slice(&self.base);
                let columns = Columns { first: 0, count: dim };
                forward(
                    &self.patch,
                    patches,
                    grid * grid,
                    columns,
                    &mut out[dim..],
                    Base::Destination,
                );
            },
        );
        Ok(Tensor::from_vec(out, (batch, tokens, dim), images.device())?)
    }
}
