//! The layers of a transformer block: without a graph for their weights, or with gradients of them.

use candle_core::{DType, Device, Tensor};

use super::{Pass, Projection, WeightsFile};
use crate::Result;
use crate::nn;

/// A linear layer, frozen or trained.
#[derive(Clone)]
pub(super) struct Linear {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Linear {
    pub fn load(file: &WeightsFile, name: &str, dtype: DType, device: &Device) -> Result<Self> {
        let tensor = |part: &str| file.tensor(&format!("{name}.{part}"), dtype, device);
        Ok(Self { weight: tensor("weight")?, bias: tensor("bias")? })
    }

    /// x·Wᵀ + b.
    pub fn plain(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if train { nn::linear(x, &self.weight, &self.bias) } else { nn::frozen_linear(x, &self.weight, Some(&self.bias)) }
    }

    /// x·Wᵀ + b, with the low-rank path of this place beside it.
    pub fn forward(&self, x: &Tensor, pass: &Pass, block: usize, projection: Projection) -> Result<Tensor> {
        let y = self.plain(x, pass.train_weights)?;
        match pass.low_rank.and_then(|p| p.get(block, projection)) {
            Some(pair) => Ok((y + pair.apply(x)?)?),
            None => Ok(y),
        }
    }

    /// Weight and bias, to be exchanged.
    pub fn both(&mut self) -> [&mut Tensor; 2] {
        [&mut self.weight, &mut self.bias]
    }

    /// The layer made of `len` of its outputs.
    pub fn rows(&self, start: usize, len: usize) -> Result<Self> {
        Ok(Self { weight: self.weight.narrow(0, start, len)?, bias: self.bias.narrow(0, start, len)? })
    }
}

/// A layer norm, frozen or trained.
#[derive(Clone)]
pub(super) struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub eps: f64,
}

impl Norm {
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if train {
            nn::layer_norm(x, &self.weight, &self.bias, self.eps)
        } else {
            nn::frozen_layer_norm(x, &self.weight, &self.bias, self.eps)
        }
    }
}

impl Norm {
    /// Weight and bias, to be exchanged.
    pub fn both(&mut self) -> [&mut Tensor; 2] {
        [&mut self.weight, &mut self.bias]
    }
}

/// A weight as it enters a pass: without a graph unless it is trained.
pub(super) fn weight(tensor: &Tensor, train: bool) -> Tensor {
    if train { tensor.clone() } else { tensor.detach() }
}
