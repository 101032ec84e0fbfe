//! The frozen blocks of a vision transformer as one operation on the CPU. Each image goes through
//! all blocks, forward and backward, on one thread, whose cache holds what passes from one layer to
//! the next. If a batch has fewer images than there are threads, some threads are idle.
//!
//! The backward pass gives gradients for the input and for low-rank pairs (LoRA) beside q, k and v.
//! Activations are kept for as many images as the user allows, and computed again for the others;
//! the bits are the same either way. The sums over images are taken in a fixed order, so that the
//! bits are also the same at any number of threads.

mod block;
mod embed;
mod op;
mod weights;
mod workspace;

use std::sync::{Arc, Mutex};

use candle_core::{Tensor, WithDType};

pub use embed::EmbeddingWeights;
pub use weights::{BlockWeights, LinearWeights};
pub use workspace::Workspace;

use block::{PairPlace, Wanted};
use embed::Embedding;
use op::Operation;
use weights::Block;

use crate::nn::cpu::panels::Multiplied;
use crate::{Error, Result};

/// Sizes of one image in a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shape {
    tokens: usize,
    dim: usize,
    heads: usize,
    hidden: usize,
    /// The largest sum of ranks of the pairs of one block.
    ranks: usize,
}

impl Shape {
    /// The number of activations per block and image that the backward pass needs.
    fn kept_block(self) -> usize {
        self.tokens * (5 * self.dim + self.ranks + self.hidden)
    }
}

/// The frozen embedding and blocks of a vision transformer in f32 or f64, laid out for the CPU.
pub struct Trunk<T> {
    embedding: Embedding<T>,
    blocks: Vec<Block<T>>,
    dim: usize,
    heads: usize,
    hidden: usize,
    eps: f64,
    workspace: Workspace<T>,
}

/// The projection of a block that a low-rank pair stands beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionPart {
    /// The queries.
    Q,
    /// The keys.
    K,
    /// The values.
    V,
}

impl AttentionPart {
    /// The first of the part's dim columns in qkv (tokens, 3·dim).
    fn column(self, dim: usize) -> usize {
        match self {
            Self::Q => 0,
            Self::K => dim,
            Self::V => 2 * dim,
        }
    }
}

/// A low-rank pair beside q, k or v of a block.
#[derive(Clone, Debug)]
pub struct TrunkPair {
    /// The block, from 0, counted within the pass.
    pub block: usize,
    /// The projection that it is added to.
    pub part: AttentionPart,
    /// (rank, dim).
    pub a: Tensor,
    /// (dim, rank).
    pub b: Tensor,
}

/// What a pass over the trunk computes.
#[derive(Clone, Copy, Debug)]
pub struct TrunkPass<'a> {
    /// The first block.
    pub first: usize,
    /// The number of blocks.
    pub blocks: usize,
    /// How many tokens of the output are wanted, from the first on. The last block computes no
    /// others.
    pub keep: usize,
    /// Whether these tokens are wanted after every block and not only after the last.
    pub every_block: bool,
    /// The pairs, sorted by block.
    pub pairs: &'a [TrunkPair],
    /// The number of images whose activations may be kept; none stands for all images.
    pub kept_images: Option<usize>,
}

impl<T: Multiplied + WithDType> Trunk<T> {
    /// Lays the blocks out; `heads` attention heads and the norms' ε are the same in all of them.
    ///
    /// # Errors
    /// If there is no block, or the weights are not on the CPU in `T`.
    pub fn new(
        embedding: &EmbeddingWeights,
        blocks: &[BlockWeights],
        heads: usize,
        eps: f64,
        workspace: &Workspace<T>,
    ) -> Result<Self> {
        let Some(first) = blocks.first() else {
            return Err(Error::Protocol("a trunk without blocks".into()));
        };
        let (hidden, dim) = first.fc1.weight.dims2()?;
        Ok(Self {
            embedding: Embedding::new(embedding)?,
            blocks: blocks.iter().map(Block::new).collect::<Result<_>>()?,
            dim,
            heads,
            hidden,
            eps,
            workspace: workspace.clone(),
        })
    }

    /// Images (batch, 3, size, size) to tokens (batch, 1 + patches, dim), without a graph.
    ///
    /// # Errors
    /// If the images are of another type than the weights.
    pub fn embed(&self, images: &Tensor) -> Result<Tensor> {
        self.embedding.forward(images)
    }

    /// Takes x (batch, tokens, dim) through some blocks to (batch, 1 or blocks, keep, dim). The
    /// backward pass gives gradients for x and for the pairs.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(self: &Arc<Self>, x: &Tensor, pass: TrunkPass) -> Result<Tensor> {
        let (_, tokens, dim) = x.dims3()?;
        if dim != self.dim || pass.keep == 0 || pass.keep > tokens || pass.blocks == 0 {
            return Err(Error::Protocol(format!(
                "trunk: {:?}, {} tokens of them, {} blocks",
                x.dims(),
                pass.keep,
                pass.blocks
            )));
        }
        if !pass.pairs.is_sorted_by_key(|p| p.block) {
            return Err(Error::Protocol(
                "trunk: the pairs are not in the order of their blocks".into(),
            ));
        }
        let mut places = vec![Vec::new(); pass.blocks];
        let (mut offset, mut flat) = (0, (Vec::new(), Vec::new()));
        for pair in pass.pairs {
            let (rank, inputs) = pair.a.dims2()?;
            if inputs != dim || pair.b.dims2()? != (dim, rank) || pair.block >= pass.blocks {
                return Err(Error::Protocol(format!(
                    "trunk: a pair of {:?} and {:?} at block {}",
                    pair.a.dims(),
                    pair.b.dims(),
                    pair.block
                )));
            }
            let block: &mut Vec<PairPlace> = &mut places[pair.block];
            let low = block.iter().map(|p| p.rank).sum();
            block.push(PairPlace { column: pair.part.column(dim), rank, offset, low });
            offset += rank * dim;
            flat.0.push(pair.a.flatten_all()?);
            flat.1.push(pair.b.flatten_all()?);
        }
        let ranks = places
            .iter()
            .map(|b| b.iter().map(|p| p.rank).sum::<usize>())
            .max()
            .unwrap_or_default();
        let shape = Shape { tokens, dim, heads: self.heads, hidden: self.hidden, ranks };
        let stacked = |parts: Vec<Tensor>| {
            if parts.is_empty() {
                Tensor::zeros(1, x.dtype(), x.device())
            } else {
                Tensor::cat(&parts, 0)
            }
        };
        let (x, a, b) = (x.contiguous()?, stacked(flat.0)?, stacked(flat.1)?);
        let wanted = Wanted { x: x.track_op(), a: a.track_op(), b: b.track_op() };
        let op = Operation {
            trunk: self.clone(),
            shape,
            places,
            first: pass.first,
            keep: pass.keep,
            every_block: pass.every_block,
            kept_images: pass.kept_images.unwrap_or(usize::MAX),
            wanted,
            kept: Mutex::new(None),
        };
        Ok(x.apply_op3(&a, &b, op)?)
    }
}
