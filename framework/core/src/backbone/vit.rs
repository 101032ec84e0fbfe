//! A plain vision transformer (Dosovitskiy et al. 2021) from a timm-named safetensors file, frozen until a method unfreezes it.
//!
//! Sizes are read off the tensors. The number of heads, the image size, the normalisation and what it was pre-trained on come from the
//! file's metadata or from options; the default head width is 64, and without a stated normalisation images go in as they are, in
//! \[0, 1\], as in the code of SR²-LoRA, InfLoRA and CODA-Prompt. After the last block only the CLS token (and extra tokens) are used, so
//! the last block computes queries, projection and MLP for them alone.

mod composed;
mod fused;

use candle_core::{DType, Device, Tensor, Var};

use super::layers::{Linear, Norm};
use super::{
    Backbone, BackboneEntry, BackboneInfo, BackboneOptions, Capability, Exported, Features, LowRank, Pass, Projection, Site, WeightsFile,
    position,
};
use crate::{Error, Result};
use fused::Fused;

inventory::submit! {
    BackboneEntry {
        name: "vit",
        summary: "any plain ViT from a timm-named safetensors file (--weights FILE)",
        build: |options, dtype, device| {
            let Some(path) = &options.weights else {
                return Err(Error::usage("backbone 'vit' needs a weights file: --weights FILE (.safetensors with timm's tensor names)"));
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

/// A plain ViT.
#[derive(Clone)]
pub struct Vit {
    info: BackboneInfo,
    /// Whether the weights are variables.
    unfrozen: bool,
    patch: Linear,
    cls_token: Tensor,
    position: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    normalisation: Option<(Tensor, Tensor)>,
    fused: Fused,
}

impl Vit {
    /// Builds the network from the tensors of `file`.
    ///
    /// # Errors
    /// Lists missing, extra and mis-shaped tensors; [`Error::Usage`] for an image size or a number of heads that does not fit.
    pub fn new(name: &str, file: &WeightsFile, options: &BackboneOptions, dtype: DType, device: &Device) -> Result<Self> {
        let shape =
            |n: &str| file.shape(n).map(<[usize]>::to_vec).ok_or_else(|| file.error(format!("missing: {n}; is this a timm-named ViT?")));
        let four = shape("patch_embed.proj.weight")?;
        let [dim, channels, patch, patch_width] = four[..] else {
            return Err(file.error(format!("wrong shape: patch_embed.proj.weight is {four:?}, expected [dim, 3, patch, patch]")));
        };
        let three = shape("pos_embed")?;
        let tokens = three.get(1).copied().unwrap_or_default();
        let old_grid = (tokens.saturating_sub(1) as f64).sqrt().round() as usize;
        if patch == 0 || dim == 0 || channels != 3 || patch != patch_width || old_grid * old_grid + 1 != tokens {
            return Err(file.error(format!(
                "wrong shape: patch_embed.proj.weight {four:?} and pos_embed {three:?} do not make a square grid of square RGB patches with one CLS token"
            )));
        }
        let depth = (0..).take_while(|i| file.shape(&format!("blocks.{i}.norm1.weight")).is_some()).count();
        let hidden = shape("blocks.0.mlp.fc1.weight")?.first().copied().unwrap_or_default();
        if hidden == 0 {
            return Err(file.error("wrong shape: blocks.0.mlp.fc1.weight has no rows"));
        }
        let layer_scale = file.shape("blocks.0.ls1.gamma").is_some();
        file.check(&expected(dim, patch, tokens, depth, hidden, layer_scale), |n| n.starts_with("head."))?;

        let image_size = match options.image_size {
            Some(size) => size,
            None => file.parsed("image_size")?.unwrap_or(old_grid * patch),
        };
        if image_size == 0 || image_size % patch != 0 {
            let near = [(image_size / patch).max(1) * patch, (image_size / patch + 1) * patch];
            return Err(Error::usage(format!(
                "image size {image_size} is no multiple of the backbone's patch size, {patch}: use {}{}",
                near[0],
                if near[0] == near[1] { String::new() } else { format!(" or {}", near[1]) }
            )));
        }
        let stated: Option<usize> = file.parsed("heads")?;
        let heads = options.heads.or(stated).unwrap_or(dim / 64);
        if heads == 0 || dim % heads != 0 {
            return Err(Error::usage(format!(
                "{heads} attention heads do not divide the backbone's width {dim}: say how many it has with --heads N"
            )));
        }
        let mean = options.mean.or(file.triple("mean")?).unwrap_or([0.0; 3]);
        let std = options.std.or(file.triple("std")?).unwrap_or([1.0; 3]);
        if let Some(bad) = std.iter().find(|s| **s <= 0.0) {
            return Err(Error::usage(format!("the normalisation's standard deviation must be positive, got {bad}")));
        }
        let eps = file.parsed("layer_norm_eps")?.unwrap_or(1e-6);
        let pretrained_on = file.metadata("pretrained_on").unwrap_or_default();
        let pretrained_on = pretrained_on.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect();

        let tensor = |n: &str| file.tensor(n, dtype, device);
        let norm =
            |n: &str| -> Result<Norm> { Ok(Norm { weight: tensor(&format!("{n}.weight"))?, bias: tensor(&format!("{n}.bias"))?, eps }) };
        let blocks = (0..depth).map(|i| {
            let linear = |n: &str| Linear::load(file, &format!("blocks.{i}.{n}"), dtype, device);
            let scale = |n: &str| layer_scale.then(|| tensor(&format!("blocks.{i}.{n}.gamma"))).transpose();
            Ok(Block {
                norm1: norm(&format!("blocks.{i}.norm1"))?,
                qkv: linear("attn.qkv")?,
                proj: linear("attn.proj")?,
                ls1: scale("ls1")?,
                norm2: norm(&format!("blocks.{i}.norm2"))?,
                fc1: linear("mlp.fc1")?,
                fc2: linear("mlp.fc2")?,
                ls2: scale("ls2")?,
            })
        });
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let patch_weight = tensor("patch_embed.proj.weight")?.reshape((dim, 3 * patch * patch))?;
        let channel = |v: [f64; 3]| -> Result<Tensor> { Ok(Tensor::new(&v, device)?.to_dtype(dtype)?.reshape((1, 3, 1, 1))?) };
        let plain = mean == [0.0; 3] && std == [1.0; 3];
        let position = position::resize(&file.tensor("pos_embed", DType::F64, &Device::Cpu)?, old_grid, image_size / patch)?;
        let parameters =
            file.names().filter(|n| !n.starts_with("head.")).filter_map(|n| file.shape(n)).map(|s| s.iter().product::<usize>()).sum();
        Ok(Self {
            unfrozen: false,
            info: BackboneInfo {
                name: name.to_owned(),
                weights_hash: file.hash.clone(),
                dim,
                blocks: depth,
                heads,
                patch,
                image_size,
                mean,
                std,
                pretrained_on,
                parameters,
            },
            patch: Linear { weight: patch_weight, bias: tensor("patch_embed.proj.bias")? },
            cls_token: tensor("cls_token")?,
            position: position.to_dtype(dtype)?.to_device(device)?,
            blocks,
            norm: norm("norm")?,
            normalisation: if plain { None } else { Some((channel(mean)?, channel(std)?)) },
            fused: Fused::default(),
        })
    }

    /// The result of a pass: `tokens` (batch, blocks, dim) are the CLS tokens after each block or after the last, `last` (batch, 1 + extra or more, dim) the
    /// first tokens after the last block.
    fn features(&self, tokens: &Tensor, last: &Tensor, extra: usize, pass: &Pass) -> Result<Features> {
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

    /// All weights by their names in a weights file; the patch embedding's is a matrix here.
    fn tensors_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let mut all = vec![
            ("cls_token".to_owned(), &mut self.cls_token),
            ("pos_embed".to_owned(), &mut self.position),
            (PATCH_WEIGHT.to_owned(), &mut self.patch.weight),
            ("patch_embed.proj.bias".to_owned(), &mut self.patch.bias),
            ("norm.weight".to_owned(), &mut self.norm.weight),
            ("norm.bias".to_owned(), &mut self.norm.bias),
        ];
        for (i, block) in self.blocks.iter_mut().enumerate() {
            let Block { norm1, qkv, proj, ls1, norm2, fc1, fc2, ls2 } = block;
            let layers = [("norm1", norm1.both()), ("norm2", norm2.both()), ("attn.qkv", qkv.both()), ("attn.proj", proj.both())];
            for (name, [weight, bias]) in layers.into_iter().chain([("mlp.fc1", fc1.both()), ("mlp.fc2", fc2.both())]) {
                all.push((format!("blocks.{i}.{name}.weight"), weight));
                all.push((format!("blocks.{i}.{name}.bias"), bias));
            }
            for (name, gamma) in [("ls1", ls1), ("ls2", ls2)] {
                all.extend(gamma.iter_mut().map(|g| (format!("blocks.{i}.{name}.gamma"), g)));
            }
        }
        all
    }

    fn linear_mut(&mut self, site: Site) -> Result<(&mut Linear, usize, usize)> {
        let dim = self.info.dim;
        let (name, depth) = (self.info.name.clone(), self.blocks.len());
        let Some(block) = self.blocks.get_mut(site.block) else {
            return Err(Error::Unsupported(format!("backbone '{name}' has {depth} blocks: there is no {site}")));
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
    let (cls, patches) = (x.narrow(1, 0, 1)?, x.narrow(1, 1, x.dim(1)? - 1)?);
    Ok(Tensor::cat(&[&cls, extra, &patches], 1)?)
}

/// Every tensor of a plain ViT of these sizes.
fn expected(dim: usize, patch: usize, tokens: usize, depth: usize, hidden: usize, layer_scale: bool) -> Vec<(String, Vec<usize>)> {
    let mut list = vec![
        ("cls_token".to_owned(), vec![1, 1, dim]),
        ("pos_embed".to_owned(), vec![1, tokens, dim]),
        ("patch_embed.proj.weight".to_owned(), vec![dim, 3, patch, patch]),
        ("patch_embed.proj.bias".to_owned(), vec![dim]),
        ("norm.weight".to_owned(), vec![dim]),
        ("norm.bias".to_owned(), vec![dim]),
    ];
    for i in 0..depth {
        let mut both = |name: &str, rows: usize, columns: Option<usize>| {
            list.push((format!("blocks.{i}.{name}.weight"), [Some(rows), columns].into_iter().flatten().collect()));
            list.push((format!("blocks.{i}.{name}.bias"), vec![rows]));
        };
        both("norm1", dim, None);
        both("norm2", dim, None);
        both("attn.qkv", 3 * dim, Some(dim));
        both("attn.proj", dim, Some(dim));
        both("mlp.fc1", hidden, Some(dim));
        both("mlp.fc2", dim, Some(hidden));
        if layer_scale {
            list.push((format!("blocks.{i}.ls1.gamma"), vec![dim]));
            list.push((format!("blocks.{i}.ls2.gamma"), vec![dim]));
        }
    }
    list
}

impl Backbone for Vit {
    fn info(&self) -> &BackboneInfo {
        &self.info
    }

    fn supports(&self, capability: Capability) -> bool {
        matches!(
            capability,
            Capability::ClsTokens
                | Capability::LowRank
                | Capability::AttentionInputs
                | Capability::MlpAdapters
                | Capability::ExtraTokens
                | Capability::FullTraining
        )
    }

    fn forward(&self, images: &Tensor, pass: Pass) -> Result<Features> {
        if pass.train_weights && !self.unfrozen {
            return Err(Error::Protocol(format!(
                "backbone '{}' was asked to train weights that are frozen: unfreeze it first",
                self.info.name
            )));
        }
        self.check_images(images)?;
        if self.fits_fused(images, &pass) {
            return self.fused(images, pass);
        }
        if self.fused.kept_images.is_some()
            && (pass.train_weights || pass.adapters.is_some() || pass.low_rank.is_some() || pass.extra_tokens.is_some())
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
            return Err(Error::Unsupported(format!("backbone '{}' has {} blocks: there is no {site}", self.info.name, self.blocks.len())));
        };
        let hidden = block.fc1.weight.dim(0)?;
        Ok(match site.projection {
            Projection::Fc1 => (hidden, dim),
            Projection::Fc2 => (dim, hidden),
            _ => (dim, dim),
        })
    }

    fn export(&self) -> Result<Exported> {
        let (dim, p, i) = (self.info.dim, self.info.patch, &self.info);
        let mut out: Vec<_> = self.clone().tensors_mut().into_iter().map(|(name, tensor)| (name, tensor.detach())).collect();
        for (_, tensor) in out.iter_mut().filter(|(name, _)| name == PATCH_WEIGHT) {
            *tensor = tensor.reshape((dim, 3, p, p))?;
        }
        let triple = |v: [f64; 3]| format!("{},{},{}", v[0], v[1], v[2]);
        let metadata = [
            ("format", "pt".to_owned()),
            ("architecture", "vit".to_owned()),
            ("heads", i.heads.to_string()),
            ("image_size", i.image_size.to_string()),
            ("layer_norm_eps", self.norm.eps.to_string()),
            ("mean", triple(i.mean)),
            ("std", triple(i.std)),
            ("pretrained_on", i.pretrained_on.join(",")),
        ];
        Ok(Exported { tensors: out, metadata: metadata.map(|(k, v)| (k.to_owned(), v)).to_vec() })
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
        if images.is_some() && !self.cls_token.device().is_cpu() {
            return Err(Error::Unsupported(
                "--micro-batch and --checkpoint-blocks are for the CPU; on a GPU take a smaller batch_size".into(),
            ));
        }
        self.fused.kept_images = images;
        Ok(())
    }

    fn fold(&mut self, pairs: &LowRank) -> Result<()> {
        if self.unfrozen {
            return Err(Error::Protocol(format!("backbone '{}' is unfrozen: low-rank pairs cannot be folded into it", self.info.name)));
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
