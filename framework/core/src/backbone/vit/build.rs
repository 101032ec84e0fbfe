//! A ViT from the tensors of a file.

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

use super::fused::Fused;
use super::layout::{self, Layout, Pool};
use super::pool::AttentionPool;
use super::{Block, PATCH_WEIGHT, Vit};
use crate::Result;
use crate::backbone::facts::{self, Known, Sizes};
use crate::backbone::layers::{Linear, Norm};
use crate::backbone::names::{self, Mapped};
use crate::backbone::{BackboneInfo, BackboneOptions, WeightsFile, position};

/// Gives tensors in the type and on the device of the network.
pub(super) struct Loader<'a> {
    file: &'a WeightsFile,
    mapped: &'a Mapped,
    dtype: DType,
    device: &'a Device,
    eps: f64,
}

impl Loader<'_> {
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let tensor = self.mapped.tensors.get(name);
        let tensor = tensor.ok_or_else(|| self.file.error(format!("missing: {name}")))?;
        Ok(tensor.to_dtype(self.dtype)?.to_device(self.device)?)
    }

    fn optional(&self, name: &str) -> Result<Option<Tensor>> {
        self.mapped.tensors.contains_key(name).then(|| self.tensor(name)).transpose()
    }

    /// A linear layer; a bias that the network does not have is zero.
    pub fn linear(&self, name: &str) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"))?;
        let bias = match self.optional(&format!("{name}.bias"))? {
            Some(bias) => bias,
            None => Tensor::zeros(weight.dim(0)?, self.dtype, self.device)?,
        };
        Ok(Linear { weight, bias })
    }

    pub fn norm(&self, name: &str) -> Result<Norm> {
        let part = |part: &str| self.tensor(&format!("{name}.{part}"));
        Ok(Norm { weight: part("weight")?, bias: part("bias")?, eps: self.eps })
    }

    fn block(&self, index: usize, layer_scale: bool) -> Result<Block> {
        let name = |part: &str| format!("blocks.{index}.{part}");
        let scale = |part: &str| layer_scale.then(|| self.tensor(&name(part))).transpose();
        Ok(Block {
            norm1: self.norm(&name("norm1"))?,
            qkv: self.linear(&name("attn.qkv"))?,
            proj: self.linear(&name("attn.proj"))?,
            ls1: scale("ls1.gamma")?,
            norm2: self.norm(&name("norm2"))?,
            fc1: self.linear(&name("mlp.fc1"))?,
            fc2: self.linear(&name("mlp.fc2"))?,
            ls2: scale("ls2.gamma")?,
        })
    }
}

impl Vit {
    /// Builds the network of `file`, whatever names its tensors have.
    ///
    /// # Errors
    /// Lists missing, unknown and mis-shaped tensors; [`Error::Usage`](crate::Error::Usage) for an
    /// image size or a number of heads that does not fit.
    pub fn new(
        name: &str,
        file: &WeightsFile,
        options: &BackboneOptions,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let mapped = names::map(file, options.weights_key.as_deref())?;
        let layout = Layout::read(file, &mapped)?;
        let stated = file.parsed("image_size")?;
        let image_size = layout::image_size(&layout, options.image_size.or(stated))?;
        let sizes = Sizes {
            dim: layout.dim,
            depth: layout.depth,
            gated: layout.gated,
            norm_pre: layout.norm_pre,
        };
        let known = facts::gather(file, options, sizes)?;
        let load = Loader { file, mapped: &mapped, dtype, device, eps: known.eps };
        let blocks = (0..layout.depth).map(|i| load.block(i, layout.layer_scale));
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let dim = layout.dim;
        let patch = load.linear("patch_embed.proj")?;
        let patch = Linear { weight: patch.weight.flatten_from(1)?, ..patch };
        let old =
            mapped.tensors.get("pos_embed").ok_or_else(|| file.error("missing: pos_embed"))?;
        let position = position::resize(
            &old.to_dtype(DType::F64)?,
            layout.placed,
            layout.grid,
            image_size / layout.patch,
        )?;
        let none = || Tensor::zeros((1, 1, dim), dtype, device);
        let identity = || -> Result<Norm> {
            let weight = Tensor::ones(dim, dtype, device)?;
            Ok(Norm { bias: weight.zeros_like()?, weight, eps: known.eps })
        };
        let norm_if = |there: bool, name: &str| there.then(|| load.norm(name)).transpose();
        let pool = layout.pool == Pool::Attention;
        Ok(Self {
            unfrozen: false,
            info: info(name, file, &mapped, &layout, &known, image_size)?,
            patch,
            cls_token: load.optional("cls_token")?.map_or_else(none, Ok)?,
            dist_token: load.optional("dist_token")?,
            registers: load.optional("reg_token")?.filter(|_| layout.registers > 0),
            position: position.to_dtype(dtype)?.to_device(device)?,
            norm_pre: norm_if(layout.norm_pre, "norm_pre")?,
            blocks,
            norm: norm_if(layout.norm, "norm")?.map_or_else(identity, Ok)?,
            fc_norm: norm_if(layout.fc_norm, "fc_norm")?,
            attention_pool: pool.then(|| AttentionPool::load(&load)).transpose()?,
            activation: known.activation,
            normalisation: normalisation(&known, dtype, device)?,
            fused: Fused::default(),
            layout,
        })
    }
}

/// Mean and standard deviation per channel, (1, 3, 1, 1), unless they change nothing.
fn normalisation(known: &Known, dtype: DType, device: &Device) -> Result<Option<(Tensor, Tensor)>> {
    if known.mean == [0.0; 3] && known.std == [1.0; 3] {
        return Ok(None);
    }
    let channel = |v: [f64; 3]| -> Result<Tensor> {
        Ok(Tensor::new(&v, device)?.to_dtype(dtype)?.reshape((1, 3, 1, 1))?)
    };
    Ok(Some((channel(known.mean)?, channel(known.std)?)))
}

fn info(
    name: &str,
    file: &WeightsFile,
    mapped: &Mapped,
    layout: &Layout,
    known: &Known,
    image_size: usize,
) -> Result<BackboneInfo> {
    let pretrained_on = file.metadata("pretrained_on").unwrap_or_default();
    let pretrained_on = pretrained_on.split(',').map(|s| s.trim().to_owned());
    let notes = mapped.notes.iter().chain(&known.notes).cloned().collect();
    Ok(BackboneInfo {
        name: name.to_owned(),
        weights_hash: file.hash.clone(),
        weight_id: weight_id(mapped, layout, known)?,
        dim: layout.dim,
        blocks: layout.depth,
        heads: known.heads,
        patch: layout.patch,
        image_size,
        mean: known.mean,
        std: known.std,
        pretrained_on: pretrained_on.filter(|s| !s.is_empty()).collect(),
        parameters: mapped.tensors.values().map(Tensor::elem_count).sum(),
        assumed: known.assumed.clone(),
        notes,
    })
}

/// SHA-256 of what computes: all tensors in f32 by name, then heads, ε and activation. Files that
/// differ in names, format or precision of equal values have the same.
fn weight_id(mapped: &Mapped, layout: &Layout, known: &Known) -> Result<String> {
    let mut hash = Sha256::new();
    for (name, tensor) in &mapped.tensors {
        hash.update(format!("{name} {:?}\n", tensor.dims()));
        for value in tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?.chunks(1 << 14) {
            let bytes: Vec<u8> = value.iter().flat_map(|v| v.to_le_bytes()).collect();
            hash.update(&bytes);
        }
    }
    let activation = if layout.gated { "silu".to_owned() } else { known.activation.to_string() };
    hash.update(format!("heads {} eps {:e} activation {activation}\n", known.heads, known.eps));
    Ok(crate::hex(&hash.finalize()))
}

/// The name of the patch embedding's weight, a matrix in the network and (dim, 3, patch, patch) in
/// a file.
pub(super) fn as_in_a_file(name: &str, tensor: &Tensor, patch: usize) -> Result<Tensor> {
    if name != PATCH_WEIGHT {
        return Ok(tensor.detach());
    }
    Ok(tensor.detach().reshape((tensor.dim(0)?, 3, patch, patch))?)
}
