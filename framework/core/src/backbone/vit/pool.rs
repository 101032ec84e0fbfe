//! Attention pooling (SigLIP): a learned query attends to all patches, then an MLP.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::build::Loader;
use crate::Result;
use crate::backbone::layers::{Linear, Norm, activate, weight};
use crate::backbone::names::Mapped;
use crate::backbone::{Activation, BackboneInfo};
use crate::nn;

/// The layers of the pool.
#[derive(Clone)]
pub(super) struct AttentionPool {
    /// The learned query, (1, 1, dim).
    latent: Tensor,
    q: Linear,
    /// Keys and values, stacked.
    kv: Linear,
    proj: Linear,
    norm: Norm,
    fc1: Linear,
    fc2: Linear,
}

/// The tensors of the pool of a network of this width; the MLP's is read off its own.
pub(super) fn expected(list: &mut BTreeMap<String, Vec<usize>>, dim: usize, mapped: &Mapped) {
    let rows = mapped.shape("attn_pool.mlp.fc1.weight").and_then(|s| s.first().copied());
    let hidden = rows.unwrap_or(4 * dim);
    let layers = [
        ("q", dim, dim),
        ("kv", 2 * dim, dim),
        ("proj", dim, dim),
        ("mlp.fc1", hidden, dim),
        ("mlp.fc2", dim, hidden),
    ];
    for (name, rows, columns) in layers {
        list.insert(format!("attn_pool.{name}.weight"), vec![rows, columns]);
        list.insert(format!("attn_pool.{name}.bias"), vec![rows]);
    }
    list.insert("attn_pool.latent".into(), vec![1, 1, dim]);
    list.insert("attn_pool.norm.weight".into(), vec![dim]);
    list.insert("attn_pool.norm.bias".into(), vec![dim]);
}

impl AttentionPool {
    pub fn load(loader: &Loader) -> Result<Self> {
        Ok(Self {
            latent: loader.tensor("attn_pool.latent")?,
            q: loader.linear("attn_pool.q")?,
            kv: loader.linear("attn_pool.kv")?,
            proj: loader.linear("attn_pool.proj")?,
            norm: loader.norm("attn_pool.norm")?,
            fc1: loader.linear("attn_pool.mlp.fc1")?,
            fc2: loader.linear("attn_pool.mlp.fc2")?,
        })
    }

    /// All tensors by name.
    pub fn tensors_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let Self { latent, q, kv, proj, norm, fc1, fc2 } = self;
        let mut all = vec![("attn_pool.latent".to_owned(), latent)];
        let layers = [("q", q), ("kv", kv), ("proj", proj), ("mlp.fc1", fc1), ("mlp.fc2", fc2)];
        let both = layers.into_iter().map(|(name, layer)| (name, layer.both()));
        for (name, [weight, bias]) in both.chain([("norm", norm.both())]) {
            all.push((format!("attn_pool.{name}.weight"), weight));
            all.push((format!("attn_pool.{name}.bias"), bias));
        }
        all
    }

    /// Pools patches (batch, tokens, dim) to (batch, dim).
    pub fn forward(
        &self,
        x: &Tensor,
        info: &BackboneInfo,
        activation: Activation,
        train: bool,
    ) -> Result<Tensor> {
        let (batch, _, dim) = x.dims3()?;
        let latent = weight(&self.latent, train).broadcast_as((batch, 1, dim))?.contiguous()?;
        let q = self.q.plain(&latent, train)?;
        let kv = self.kv.plain(x, train)?;
        let (k, v) = (kv.narrow(2, 0, dim)?.contiguous()?, kv.narrow(2, dim, dim)?.contiguous()?);
        let y = self.proj.plain(&nn::attention_cls(&q, &k, &v, info.heads)?, train)?;
        let hidden = activate(&self.fc1.plain(&self.norm.forward(&y, train)?, train)?, activation)?;
        Ok((y + self.fc2.plain(&hidden, train)?)?.squeeze(1)?)
    }
}
