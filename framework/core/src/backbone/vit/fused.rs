//! Passes over frozen weights on the CPU, by the operation of `nn::vit_trunk`, which takes each
//! image through all blocks on one thread.

use std::sync::{Arc, OnceLock};

use candle_core::{DType, Tensor};

use super::{Block, Vit};
use crate::backbone::layers::Linear;
use crate::backbone::{Features, Pass, Projection};
use crate::nn::{
    self, AttentionPart, BlockWeights, EmbeddingWeights, LinearWeights, Trunk, TrunkPair,
    TrunkPass, Workspace,
};
use crate::{Error, Result};

/// The frozen trunk in the backbone's type. This is the one place where it is chosen.
#[derive(Clone)]
enum AnyTrunk {
    F32(Arc<Trunk<f32>>),
    F64(Arc<Trunk<f64>>),
}

impl AnyTrunk {
    fn embed(&self, images: &Tensor) -> Result<Tensor> {
        match self {
            Self::F32(trunk) => trunk.embed(images),
            Self::F64(trunk) => trunk.embed(images),
        }
    }

    fn forward(&self, x: &Tensor, pass: TrunkPass) -> Result<Tensor> {
        match self {
            Self::F32(trunk) => trunk.forward(x, pass),
            Self::F64(trunk) => trunk.forward(x, pass),
        }
    }
}

/// The frozen trunk, laid out at the first pass, and its buffers.
#[derive(Clone, Default)]
pub(super) struct Fused {
    trunk: OnceLock<AnyTrunk>,
    workspace_f32: Workspace<f32>,
    workspace_f64: Workspace<f64>,
    /// The number of images whose activations may be kept for the backward pass.
    pub kept_images: Option<usize>,
}

impl Fused {
    /// Drops the layout of the weights, for they have changed.
    pub fn forget(&mut self) {
        self.trunk = OnceLock::new();
    }
}

fn linear<'a>(layer: &'a Linear, scale: Option<&'a Tensor>) -> LinearWeights<'a> {
    LinearWeights { weight: &layer.weight, bias: &layer.bias, scale }
}

fn block(b: &Block) -> BlockWeights<'_> {
    BlockWeights {
        norm1: [&b.norm1.weight, &b.norm1.bias],
        qkv: linear(&b.qkv, None),
        proj: linear(&b.proj, b.ls1.as_ref()),
        norm2: [&b.norm2.weight, &b.norm2.bias],
        fc1: linear(&b.fc1, None),
        fc2: linear(&b.fc2, b.ls2.as_ref()),
    }
}

impl Vit {
    /// Whether the fused operation can do this pass: all weights are frozen and on the CPU,
    /// low-rank pairs stand beside q, k and v only, and there are no adapters.
    pub(super) fn fits_fused(&self, images: &Tensor, pass: &Pass) -> bool {
        let attention = |p: Projection| matches!(p, Projection::Q | Projection::K | Projection::V);
        nn::has_cpu_kernel(images)
            && matches!(images.dtype(), DType::F32 | DType::F64)
            && !images.track_op()
            && !pass.train_weights
            && pass.adapters.is_none_or(|a| a.is_empty())
            && pass.low_rank.is_none_or(|l| l.iter().all(|(site, _)| attention(site.projection)))
    }

    fn trunk(&self) -> Result<AnyTrunk> {
        if let Some(trunk) = self.fused.trunk.get() {
            return Ok(trunk.clone());
        }
        let embedding = EmbeddingWeights {
            patch: linear(&self.patch, None),
            cls_token: &self.cls_token,
            position: &self.position,
            normalisation: self.normalisation.as_ref().map(|(mean, std)| [mean, std]),
        };
        let blocks: Vec<_> = self.blocks.iter().map(block).collect();
        let (heads, eps, fused) = (self.info.heads, self.norm.eps, &self.fused);
        let trunk = match self.cls_token.dtype() {
            DType::F32 => AnyTrunk::F32(
                Trunk::new(&embedding, &blocks, heads, eps, &fused.workspace_f32)?.into(),
            ),
            DType::F64 => AnyTrunk::F64(
                Trunk::new(&embedding, &blocks, heads, eps, &fused.workspace_f64)?.into(),
            ),
            other => {
                return Err(Error::Unsupported(format!(
                    "a backbone in {other:?} on the CPU: use f32 or f64"
                )));
            }
        };
        // Unfrozen weights may change at any time, so their layout serves one pass only.
        Ok(if self.unfrozen { trunk } else { self.fused.trunk.get_or_init(|| trunk).clone() })
    }

    /// Computes features by the fused operation.
    pub(in crate::backbone) fn fused(&self, images: &Tensor, mut pass: Pass) -> Result<Features> {
        let (trunk, depth) = (self.trunk()?, self.blocks.len());
        let mut x = trunk.embed(images)?;
        let extra = pass.extra_tokens.map_or(Ok(0), |t| t.dim(1))?;
        if let Some(tokens) = pass.extra_tokens {
            x = super::with_extra(&x, tokens)?;
        }
        let mut pairs = Vec::new();
        for (site, pair) in pass.low_rank.iter().flat_map(|l| l.iter()) {
            let part = match site.projection {
                Projection::Q => AttentionPart::Q,
                Projection::K => AttentionPart::K,
                _ => AttentionPart::V,
            };
            pairs.push(TrunkPair { block: site.block, part, a: pair.a.clone(), b: pair.b.clone() });
        }
        let (all, kept_images) = (pass.cls_tokens, self.fused.kept_images);
        let Some(tap) = &mut pass.attention_inputs else {
            let whole = TrunkPass {
                first: 0,
                blocks: depth,
                keep: 1 + extra,
                every_block: all,
                pairs: &pairs,
                kept_images,
            };
            let out = trunk.forward(&x, whole)?;
            let cls = out.narrow(2, 0, 1)?.squeeze(2)?;
            return self.features(
                &cls,
                &out.narrow(1, out.dim(1)? - 1, 1)?.squeeze(1)?,
                extra,
                &pass,
            );
        };
        // The caller wants to see the inputs of each attention, so the blocks run one by one.
        let mut tokens = Vec::new();
        for first in 0..depth {
            tap(first, &self.blocks[first].norm1.forward(&x, false)?)?;
            let last = first + 1 == depth;
            let here: Vec<_> = pairs
                .iter()
                .filter(|p| p.block == first)
                .map(|p| TrunkPair { block: 0, ..p.clone() })
                .collect();
            let keep = if last { 1 + extra } else { x.dim(1)? };
            x = trunk
                .forward(
                    &x,
                    TrunkPass {
                        first,
                        blocks: 1,
                        keep,
                        every_block: false,
                        pairs: &here,
                        kept_images,
                    },
                )?
                .squeeze(1)?;
            if all || last {
                tokens.push(x.narrow(1, 0, 1)?);
            }
        }
        self.features(&Tensor::cat(&tokens, 1)?, &x, extra, &pass)
    }
}
