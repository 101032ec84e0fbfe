//! A pass composed of differentiable operations, on any device and with every capability.

use candle_core::Tensor;

use super::Vit;
use crate::Result;
use crate::backbone::layers::weight;
use crate::backbone::{Features, Pass, Projection};
use crate::nn;

impl Vit {
    /// Features, one operation after the other.
    pub(in crate::backbone) fn composed(&self, images: &Tensor, mut pass: Pass) -> Result<Features> {
        let mut x = self.embed(images, pass.train_weights)?;
        let extra = match pass.extra_tokens {
            Some(extra) => {
                x = super::with_extra(&x, extra)?;
                extra.dim(1)?
            }
            None => 0,
        };
        let mut tokens = Vec::new();
        for index in 0..self.blocks.len() {
            let last = index + 1 == self.blocks.len();
            // After the last block only the CLS token and the extra tokens are used.
            x = self.block(&x, index, last.then_some(1 + extra), &mut pass)?;
            if pass.cls_tokens || last {
                tokens.push(x.narrow(1, 0, 1)?);
            }
        }
        self.features(&Tensor::cat(&tokens, 1)?, &x, extra, &pass)
    }

    /// Patches and CLS token with their positions: (batch, tokens, dim).
    fn embed(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let (size, p, batch) = (self.info.image_size, self.info.patch, images.dim(0)?);
        let images = match &self.normalisation {
            Some((mean, std)) => images.broadcast_sub(mean)?.broadcast_div(std)?,
            None => images.clone(),
        };
        let g = size / p;
        let patches = images.reshape((batch, 3, g, p, g, p))?.permute((0, 2, 4, 1, 3, 5))?.contiguous()?;
        let patches = self.patch.plain(&patches.reshape((batch, g * g, 3 * p * p))?, train)?;
        let cls = weight(&self.cls_token, train).broadcast_as((batch, 1, self.info.dim))?;
        Ok(Tensor::cat(&[&cls.contiguous()?, &patches], 1)?.broadcast_add(&weight(&self.position, train))?)
    }

    /// A whole block on all tokens, or its output for the first `only` of them, (batch, only, dim).
    fn block(&self, x: &Tensor, index: usize, only: Option<usize>, pass: &mut Pass) -> Result<Tensor> {
        let block = &self.blocks[index];
        let (dim, heads) = (self.info.dim, self.info.heads);
        let train = pass.train_weights;
        let normed = block.norm1.forward(x, train)?;
        if let Some(tap) = &mut pass.attention_inputs {
            tap(index, &normed)?;
        }
        let pass = &*pass;
        let (residual, attended) = if let Some(only) = only {
            let first = normed.narrow(1, 0, only)?.contiguous()?;
            let q = block.qkv.rows(0, dim)?.forward(&first, pass, index, Projection::Q)?;
            let k = block.qkv.rows(dim, dim)?.forward(&normed, pass, index, Projection::K)?;
            let v = block.qkv.rows(2 * dim, dim)?.forward(&normed, pass, index, Projection::V)?;
            (x.narrow(1, 0, only)?.contiguous()?, nn::attention_cls(&q, &k, &v, heads)?)
        } else {
            let mut qkv = block.qkv.plain(&normed, train)?;
            if let Some(pair) = pass.low_rank.map(|p| p.stacked_qkv(index, dim)).transpose()?.flatten() {
                qkv = (qkv + pair.apply(&normed)?)?;
            }
            (x.clone(), nn::attention(&qkv, heads)?)
        };
        let scaled = |y: Tensor, scale: &Option<Tensor>| -> Result<Tensor> {
            Ok(match scale {
                Some(gamma) => y.broadcast_mul(&weight(gamma, train))?,
                None => y,
            })
        };
        let y = block.proj.forward(&attended, pass, index, Projection::Proj)?;
        let x = (residual + scaled(y, &block.ls1)?)?;
        let y = nn::gelu_erf(&block.fc1.forward(&block.norm2.forward(&x, train)?, pass, index, Projection::Fc1)?)?;
        let y = block.fc2.forward(&y, pass, index, Projection::Fc2)?;
        let adapted = pass.adapters.and_then(|a| a.get(&index)).map(|a| a.apply(&x)).transpose()?;
        let x = (x + scaled(y, &block.ls2)?)?;
        Ok(match adapted {
            Some(adapted) => (x + adapted)?,
            None => x,
        })
    }
}
