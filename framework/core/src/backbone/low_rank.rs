//! Low-rank paths (LoRA) beside frozen projections: x·Wᵀ + x·Aᵀ·Bᵀ, no bias, scale 1.

use std::collections::BTreeMap;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Result;

/// A linear layer of a transformer block.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Projection {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// The attention's output.
    Proj,
    /// The MLP's first layer.
    Fc1,
    /// The MLP's second layer.
    Fc2,
}

impl std::fmt::Display for Projection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::Proj => "proj",
            Self::Fc1 => "fc1",
            Self::Fc2 => "fc2",
        })
    }
}

/// A projection of a certain block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// The block, from 0.
    pub block: usize,
    /// Which of its projections.
    pub projection: Projection,
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "blocks.{}.{}", self.block, self.projection)
    }
}

/// The two factors of a low-rank path.
#[derive(Debug, Clone)]
pub struct Pair {
    /// (rank, inputs).
    pub a: Tensor,
    /// (outputs, rank).
    pub b: Tensor,
}

impl Pair {
    /// x·Aᵀ·Bᵀ for `x` (…, inputs).
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, inputs) =
            (x.elem_count() / x.dim(candle_core::D::Minus1)?, x.dim(candle_core::D::Minus1)?);
        let mut shape = x.dims().to_vec();
        let y = x.reshape((rows, inputs))?.matmul(&self.a.t()?)?.matmul(&self.b.t()?)?;
        if let Some(last) = shape.last_mut() {
            *last = self.b.dim(0)?;
        }
        Ok(y.reshape(shape)?)
    }
}

/// A set of low-rank paths, at most one for each site.
#[derive(Debug, Clone, Default)]
pub struct LowRank {
    pairs: BTreeMap<Site, Pair>,
}

impl LowRank {
    /// No paths.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the path of a site.
    pub fn insert(&mut self, site: Site, pair: Pair) {
        self.pairs.insert(site, pair);
    }

    /// The path of a site.
    pub fn get(&self, block: usize, projection: Projection) -> Option<&Pair> {
        self.pairs.get(&Site { block, projection })
    }

    /// All paths, by block and projection.
    pub fn iter(&self) -> impl Iterator<Item = (Site, &Pair)> {
        self.pairs.iter().map(|(site, pair)| (*site, pair))
    }

    /// The paths of a block's q, k and v (of width `dim`) as one pair on the stacked projection: A
    /// (Σ ranks, dim), B (3·dim, Σ ranks). The gradient flows through to each pair.
    pub(crate) fn stacked_qkv(&self, block: usize, dim: usize) -> Result<Option<Pair>> {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for (row, projection) in
            [Projection::Q, Projection::K, Projection::V].into_iter().enumerate()
        {
            if let Some(pair) = self.get(block, projection) {
                a.push(pair.a.clone());
                b.push(pair.b.pad_with_zeros(0, row * dim, (2 - row) * dim)?);
            }
        }
        if a.is_empty() {
            return Ok(None);
        }
        Ok(Some(Pair { a: Tensor::cat(&a, 0)?, b: Tensor::cat(&b, 1)? }))
    }
}
