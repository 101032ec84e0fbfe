//! A plain vision transformer (Dosovitskiy et al. 2021) and its variants, frozen until a method
//! unfreezes it.
//!
//! Sizes and variants are read off the tensors ([`layout`]); heads, ε, activation and normalisation
//! come from where they are stated ([`super::facts`]). After the last block only the tokens that
//! become features are used, so the last block computes queries, projection and MLP for them alone.

mod build;
mod composed;
mod fused;
mod layout;
mod pool;

use candle_core::{DType, Tensor, Var};

use super::layers::{Linear, Norm};
use super::{
    Activation, Backbone, BackboneEntry, BackboneInfo, Capability, Exported, Features, LowRank,
    Pass, Projection, Site, WeightsFile,
};
use crate::{Error, Result};
use fused::Fused;
use layout::{Layout, Pool};
use pool::AttentionPool;

inventory::submit! {
    BackboneEntry {
        name: "vit",
        summary: "any plain ViT from a file (--weights FILE): safetensors or a PyTorch checkpoint",
        build: |options, dtype, device| {
            let Some(path) = &options.weights else {
                let forms = "safetensors, or a PyTorch checkpoint (.pth, .pt, .bin)";
                return Err(Error::usage(format!("backbone 'vit' needs weights: --weights FILE ({forms})")));
            };
            Ok(Box::new(Vit::new("vit", &WeightsFile::read(path)?, options, dtype, device)?))
        },
    }
}

const PATCH_WEIGHT: &str = "patch_embed.proj.weight";

#[derive(Clone)]
struct Block {
    norm1: Norm,
    qkv: Linear,
    proj: Linear,
    ls1: Option<Tensor>,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
    ls2: Option<Tensor>,
}

impl Block {
    fn tensors_mut(&mut self, index: usize, qkv_bias: bool) -> Vec<(String, &mut Tensor)> {
        let Self { norm1, qkv, proj, ls1, norm2, fc1, fc2, ls2 } = self;
        let layers = [
            ("norm1", norm1.both()),
            ("norm2", norm2.both()),
            ("attn.qkv", qkv.both()),
            ("attn.proj", proj.both()),
            ("mlp.fc1", fc1.both()),
            ("mlp.fc2", fc2.both()),
        ];
        let mut all = Vec::new();
        for (name, [weight, bias]) in layers {
            all.push((format!("blocks.{index}.{name}.weight"), weight));
            if qkv_bias || name != "attn.qkv" {
                all.push((format!("blocks.{index}.{name}.bias"), bias));
            }
        }
        for (name, gamma) in [("ls1", ls1), ("ls2", ls2)] {
            all.extend(gamma.iter_mut().map(|g| (format!("blocks.{index}.{name}.gamma"), g)));
        }
        all
    }
}

/// A ViT.
#[derive(Clone)]
pub struct Vit {
    info: BackboneInfo,
    layout: Layout,
    /// Whether the weights are variables.
    unfrozen: bool,
    patch: Linear,
    /// Zero and unused in a network without one.
    cls_token: Tensor,
    dist_token: Option<Tensor>,
    registers: Option<Tensor>,
    position: Tensor,
    norm_pre: Option<Norm>,
    blocks: Vec<Block>,
    /// The norm after the last block; changes nothing in a network without one.
    norm: Norm,
    fc_norm: Option<Norm>,
    attention_pool: Option<AttentionPool>,
    activation: Activation,
    normalisation: Option<(Tensor, Tensor)>,
    fused: Fused,
}

impl Vit {
    /// The result of a pass of a plain network: `tokens` (batch, blocks, dim) are the CLS tokens
    /// after each block or after the last, `last` (batch, 1 + extra or more, dim) the first tokens
    /// after the last block.
    fn features(
        &self,
        tokens: &Tensor,
        last: &Tensor,
        extra: usize,
        pass: &Pass,
    ) -> Result<Features> {
        let tokens = self.norm.forward(&tokens.contiguous()?, pass.train_weights)?;
        let cls = tokens.narrow(1, tokens.dim(1)? - 1, 1)?.squeeze(1)?.contiguous()?;
        let extra = match extra {
            0 => None,
            n => Some(self.norm.forward(&last.narrow(1, 1, n)?.contiguous()?, pass.train_weights)?),
        };
        Ok(Features { cls, blocks: pass.cls_tokens.then_some(tokens), extra })
    }

    fn check_images(&self, images: &Tensor) -> Result<()> {
        let (size, (_, channels, height, width)) = (self.info.image_size, images.dims4()?);
        if (channels, height, width) != (3, size, size) {
            return Err(Error::usage(format!(
                "backbone '{}' takes images of 3×{size}×{size}, got {channels}×{height}×{width}",
                self.info.name
            )));
        }
        Ok(())
    }

    /// All weights by their names in a weights file; the patch embedding's is a matrix here. What
    /// the network does not have (a bias of zeros, say) is not among them.
    fn tensors_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let Layout { cls, patch_bias, qkv_bias, norm, .. } = self.layout;
        let mut all = vec![
            ("pos_embed".to_owned(), &mut self.position),
            (PATCH_WEIGHT.to_owned(), &mut self.patch.weight),
        ];
        let optional = [
            ("cls_token", cls.then_some(&mut self.cls_token)),
            ("dist_token", self.dist_token.as_mut()),
            ("reg_token", self.registers.as_mut()),
            ("patch_embed.proj.bias", patch_bias.then_some(&mut self.patch.bias)),
        ];
        all.extend(optional.into_iter().filter_map(|(name, t)| Some((name.to_owned(), t?))));
        let norms = [
            ("norm", norm.then_some(&mut self.norm)),
            ("norm_pre", self.norm_pre.as_mut()),
            ("fc_norm", self.fc_norm.as_mut()),
        ];
        for (name, norm) in norms {
            if let Some([weight, bias]) = norm.map(Norm::both) {
                all.push((format!("{name}.weight"), weight));
                all.push((format!("{name}.bias"), bias));
            }
        }
        all.extend(self.attention_pool.iter_mut().flat_map(AttentionPool::tensors_mut));
        for (i, block) in self.blocks.iter_mut().enumerate() {
            all.extend(block.tensors_mut(i, qkv_bias));
        }
        all
    }

    fn linear_mut(&mut self, site: Site) -> Result<(&mut Linear, usize, usize)> {
        let dim = self.info.dim;
        let (name, depth) = (self.info.name.clone(), self.blocks.len());
        let Some(block) = self.blocks.get_mut(site.block) else {
            return Err(Error::Unsupported(format!(
                "backbone '{name}' has {depth} blocks: there is no {site}"
            )));
        };
        Ok(match site.projection {
            Projection::Q => (&mut block.qkv, 0, dim),
            Projection::K => (&mut block.qkv, dim, dim),
            Projection::V => (&mut block.qkv, 2 * dim, dim),
            Projection::Proj => (&mut block.proj, 0, dim),
            Projection::Fc1 => {
                let rows = block.fc1.weight.dim(0)?;
                (&mut block.fc1, 0, rows)
            }
            Projection::Fc2 => (&mut block.fc2, 0, dim),
        })
    }
}

/// Embedded images (batch, tokens, dim) with extra tokens (batch, extra, dim) after the CLS token.
fn with_extra(x: &Tensor, extra: &Tensor) -> Result<Tensor> {
    with_extra_after(1, x, extra)
}

/// Embedded images with extra tokens after the first `front` ones.
fn with_extra_after(front: usize, x: &Tensor, extra: &Tensor) -> Result<Tensor> {
    let rest = x.narrow(1, front, x.dim(1)? - front)?;
    if front == 0 {
        return Ok(Tensor::cat(&[extra, &rest], 1)?);
    }
    Ok(Tensor::cat(&[&x.narrow(1, 0, front)?, extra, &rest], 1)?)
}

impl Backbone for Vit {
    fn info(&self) -> &BackboneInfo {
        &self.info
    }

    fn supports(&self, capability: Capability) -> bool {
        match capability {
            Capability::ClsTokens => matches!(self.layout.pool, Pool::Cls | Pool::ClsAndDistilled),
            Capability::LowRank
            | Capability::AttentionInputs
            | Capability::MlpAdapters
            | Capability::ExtraTokens
            | Capability::FullTraining => true,
        }
    }

    fn forward(&self, images: &Tensor, pass: Pass) -> Result<Features> {
        if pass.train_weights && !self.unfrozen {
            return Err(Error::Protocol(format!(
                "backbone '{}' was asked to train weights that are frozen: unfreeze it first",
                self.info.name
            )));
        }
        self.check_images(images)?;
        if pass.cls_tokens && !self.supports(Capability::ClsTokens) {
            return Err(Error::Unsupported(format!(
                "backbone '{}' pools its patches: it has no CLS token after every block",
                self.info.name
            )));
        }
        let plain = self.layout.is_plain() && self.activation == Activation::Gelu;
        if plain && self.fits_fused(images, &pass) {
            return self.fused(images, pass);
        }
        if self.fused.kept_images.is_some() && !plain {
            return Err(Error::Unsupported(
                "--micro-batch and --checkpoint-blocks bound the activations of plain ViTs; this \
                 network is a variant: leave them out and take a smaller batch_size"
                    .into(),
            ));
        }
        if self.fused.kept_images.is_some()
            && (pass.train_weights
                || pass.adapters.is_some()
                || pass.low_rank.is_some()
                || pass.extra_tokens.is_some())
        {
            return Err(Error::Unsupported(
                "--micro-batch and --checkpoint-blocks bound the activations of frozen weights with low-rank pairs beside q, k and v; this method trains something else: leave them out and take a smaller batch_size"
                    .into(),
            ));
        }
        self.composed(images, pass)
    }

    fn projection(&self, site: Site) -> Result<(usize, usize)> {
        let dim = self.info.dim;
        let Some(block) = self.blocks.get(site.block) else {
            return Err(Error::Unsupported(format!(
                "backbone '{}' has {} blocks: there is no {site}",
                self.info.name,
                self.blocks.len()
            )));
        };
        Ok(match site.projection {
            Projection::Fc1 => (block.fc1.weight.dim(0)?, dim),
            Projection::Fc2 => (dim, block.fc2.weight.dim(1)?),
            _ => (dim, dim),
        })
    }

    fn export(&self) -> Result<Exported> {
        let i = &self.info;
        let mut copy = self.clone();
        let tensors = copy.tensors_mut().into_iter().map(|(name, tensor)| {
            let tensor = build::as_in_a_file(&name, tensor, i.patch)?;
            Ok((name, tensor))
        });
        let triple = |v: [f64; 3]| format!("{},{},{}", v[0], v[1], v[2]);
        let mut metadata = vec![
            ("format", "pt".to_owned()),
            ("architecture", "vit".to_owned()),
            ("heads", i.heads.to_string()),
            ("image_size", i.image_size.to_string()),
            ("layer_norm_eps", self.norm.eps.to_string()),
            ("mean", triple(i.mean)),
            ("std", triple(i.std)),
            ("pretrained_on", i.pretrained_on.join(",")),
        ];
        if self.activation != Activation::Gelu {
            metadata.push(("activation", self.activation.to_string()));
        }
        let metadata = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Ok(Exported { tensors: tensors.collect::<Result<_>>()?, metadata })
    }

    fn unfreeze(&mut self) -> Result<Vec<(String, Var)>> {
        self.unfrozen = true;
        self.fused.forget();
        let all = self.tensors_mut().into_iter().map(|(name, tensor)| {
            let var = Var::from_tensor(tensor)?;
            *tensor = var.as_tensor().clone();
            Ok((name, var))
        });
        all.collect()
    }

    fn snapshot(&self) -> Result<Box<dyn Backbone>> {
        let mut copy = self.clone();
        if self.unfrozen {
            copy.unfrozen = false;
            for (_, tensor) in copy.tensors_mut() {
                *tensor = tensor.copy()?.detach();
            }
        }
        Ok(Box::new(copy))
    }

    fn keep_activations(&mut self, images: Option<usize>) -> Result<()> {
        if images.is_some() && !self.position.device().is_cpu() {
            return Err(Error::Unsupported(
                "--micro-batch and --checkpoint-blocks are for the CPU; on a GPU take a smaller batch_size".into(),
            ));
        }
        self.fused.kept_images = images;
        Ok(())
    }

    fn fold(&mut self, pairs: &LowRank) -> Result<()> {
        if self.unfrozen {
            return Err(Error::Protocol(format!(
                "backbone '{}' is unfrozen: low-rank pairs cannot be folded into it",
                self.info.name
            )));
        }
        // First, so that the old weights are not kept beside the new ones.
        self.fused.forget();
        for (site, pair) in pairs.iter() {
            let (linear, start, len) = self.linear_mut(site)?;
            let dtype = linear.weight.dtype();
            let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
            let delta = pair.b.detach().to_dtype(wide)?.matmul(&pair.a.detach().to_dtype(wide)?)?;
            let rows = linear.weight.dim(0)?;
            let delta = delta.pad_with_zeros(0, start, rows - start - len)?;
            linear.weight = (linear.weight.to_dtype(wide)? + delta)?.to_dtype(dtype)?.detach();
        }
        Ok(())
    }
}
