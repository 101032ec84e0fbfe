//! Bottlenecks beside the MLP of a block (AdaptFormer, Chen et al., NeurIPS 2022): x + MLP(norm(x))
//! + s·up(relu(down(x))).

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::Result;
use crate::nn;

/// The bottleneck of one block.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// (width, dim).
    pub down: Tensor,
    /// (width).
    pub down_bias: Tensor,
    /// (dim, width).
    pub up: Tensor,
    /// (dim).
    pub up_bias: Tensor,
    /// s.
    pub scale: f64,
}

impl Adapter {
    /// s·up(relu(down(x))) for x (…, dim), with gradients of all four.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = nn::linear(x, &self.down, &self.down_bias)?.relu()?;
        Ok((nn::linear(&hidden, &self.up, &self.up_bias)? * self.scale)?)
    }
}

/// A set of bottlenecks, at most one for each block, by block.
pub type Adapters = BTreeMap<usize, Adapter>;
