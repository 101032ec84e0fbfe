//! The layers of a transformer block: without a graph for their weights, or with gradients of them.

use candle_core::{D, Tensor};

use super::{Activation, Pass, Projection};
use crate::Result;
use crate::nn;

/// A linear layer, frozen or trained.
#[derive(Clone)]
pub(super) struct Linear {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Linear {
    /// x·Wᵀ + b.
    pub fn plain(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if train {
            nn::linear(x, &self.weight, &self.bias)
        } else {
            nn::frozen_linear(x, &self.weight, Some(&self.bias))
        }
    }

    /// x·Wᵀ + b, with the low-rank path of this place beside it.
    pub fn forward(
        &self,
        x: &Tensor,
        pass: &Pass,
        block: usize,
        projection: Projection,
    ) -> Result<Tensor> {
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
        Ok(Self {
            weight: self.weight.narrow(0, start, len)?,
            bias: self.bias.narrow(0, start, len)?,
        })
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

/// The function between an MLP's layers.
pub(super) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Gelu => nn::gelu_erf(x),
        Activation::GeluTanh => Ok(x.gelu()?),
        Activation::QuickGelu => Ok((x * candle_nn::ops::sigmoid(&(x * 1.702)?)?)?),
    }
}

/// silu(a) ∘ b of the two halves (a, b) of the last dimension (SwiGLU, Shazeer 2020).
pub(super) fn gate(x: &Tensor) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let part = |start: usize| x.narrow(D::Minus1, start, half)?.contiguous();
    Ok((part(0)?.silu()? * part(half)?)?)
}
