//! A pass composed of differentiable operations, on any device and with every capability.

use candle_core::Tensor;

use super::{Pool, Vit};
use crate::Result;
use crate::backbone::layers::{activate, gate, weight};
use crate::backbone::{Features, Pass, Projection};
use crate::nn;

impl Vit {
    /// Features, one operation after the other.
    pub(in crate::backbone) fn composed(
        &self,
        images: &Tensor,
        mut pass: Pass,
    ) -> Result<Features> {
        let mut x = self.embed(images, pass.train_weights)?;
        // Tokens in front that become features; extra tokens are put behind them.
        let front = match self.layout.pool {
            Pool::Cls => 1,
            Pool::ClsAndDistilled => 2,
            Pool::Patches | Pool::Attention => 0,
        };
        let mut extra = 0;
        if let Some(tokens) = pass.extra_tokens {
            x = super::with_extra_after(front, &x, tokens)?;
            extra = tokens.dim(1)?;
        }
        let mut tokens = Vec::new();
        for index in 0..self.blocks.len() {
            let last = index + 1 == self.blocks.len();
            // After the last block only the tokens in front and the extra ones are used.
            let only = (last && front > 0).then_some(front + extra);
            x = self.block(&x, index, only, &mut pass)?;
            if front > 0 && (pass.cls_tokens || last) {
                tokens.push(x.narrow(1, 0, front)?);
            }
        }
        match self.layout.pool {
            Pool::Cls => self.features(&Tensor::cat(&tokens, 1)?, &x, extra, &pass),
            Pool::ClsAndDistilled => self.averaged(&tokens, &x, extra, &pass),
            Pool::Patches | Pool::Attention => self.pooled(&x, extra, &pass),
        }
    }

    /// Features of a distilled network: after every block, the mean of its two normalised tokens.
    fn averaged(
        &self,
        tokens: &[Tensor],
        last: &Tensor,
        extra: usize,
        pass: &Pass,
    ) -> Result<Features> {
        let train = pass.train_weights;
        let stacked = Tensor::stack(tokens, 1)?.contiguous()?;
        let blocks = self.norm.forward(&stacked, train)?.mean(2)?;
        let cls = blocks.narrow(1, blocks.dim(1)? - 1, 1)?.squeeze(1)?.contiguous()?;
        let extra = match extra {
            0 => None,
            n => Some(self.norm.forward(&last.narrow(1, 2, n)?.contiguous()?, train)?),
        };
        Ok(Features { cls, blocks: pass.cls_tokens.then_some(blocks), extra })
    }

    /// Features that are pooled from all patches after the last block.
    fn pooled(&self, x: &Tensor, extra: usize, pass: &Pass) -> Result<Features> {
        let train = pass.train_weights;
        let normed = match self.layout.norm {
            true => self.norm.forward(&x.contiguous()?, train)?,
            false => x.contiguous()?,
        };
        let front = extra + self.layout.front();
        let patches = normed.narrow(1, front, normed.dim(1)? - front)?.contiguous()?;
        let cls = match &self.attention_pool {
            Some(pool) => pool.forward(&patches, &self.info, self.activation, train)?,
            None => patches.mean(1)?,
        };
        let cls = match &self.fc_norm {
            Some(norm) => norm.forward(&cls.contiguous()?, train)?,
            None => cls,
        };
        let extra = (extra > 0).then(|| normed.narrow(1, 0, extra)).transpose()?;
        Ok(Features { cls, blocks: None, extra })
    }

    /// Patches with their positions, and the tokens before them: (batch, tokens, dim).
    fn embed(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let (size, p, batch) = (self.info.image_size, self.info.patch, images.dim(0)?);
        let images = match &self.normalisation {
            Some((mean, std)) => images.broadcast_sub(mean)?.broadcast_div(std)?,
            None => images.clone(),
        };
        let g = size / p;
        let patches =
            images.reshape((batch, 3, g, p, g, p))?.permute((0, 2, 4, 1, 3, 5))?.contiguous()?;
        let patches = self.patch.plain(&patches.reshape((batch, g * g, 3 * p * p))?, train)?;
        let cls = self.layout.cls.then_some(&self.cls_token);
        let mut placed = Vec::new();
        let mut free = Vec::new();
        for token in [cls, self.dist_token.as_ref(), self.registers.as_ref()].into_iter().flatten()
        {
            let (n, width) = (token.dim(1)?, self.info.dim);
            let token = weight(token, train).broadcast_as((batch, n, width))?.contiguous()?;
            // Positions are for the first tokens, up to some number of them.
            let here = placed.iter().map(|t: &Tensor| t.dim(1)).sum::<Result<usize, _>>()?;
            if here < self.layout.placed { placed.push(token) } else { free.push(token) }
        }
        let front = self.layout.placed;
        placed.push(patches);
        let x = Tensor::cat(&placed, 1)?.broadcast_add(&weight(&self.position, train))?;
        let x = match free.is_empty() {
            true => x,
            false => super::with_extra_after(front, &x, &Tensor::cat(&free, 1)?)?,
        };
        match &self.norm_pre {
            Some(norm) => norm.forward(&x.contiguous()?, train),
            None => Ok(x),
        }
    }

    /// The MLP, (…, dim) to (…, dim).
    fn mlp(&self, x: &Tensor, index: usize, pass: &Pass) -> Result<Tensor> {
        let block = &self.blocks[index];
        let hidden = block.fc1.forward(x, pass, index, Projection::Fc1)?;
        let hidden = match self.layout.gated {
            true => gate(&hidden)?,
            false => activate(&hidden, self.activation)?,
        };
        block.fc2.forward(&hidden, pass, index, Projection::Fc2)
    }

    /// A whole block on all tokens, or its output for the first `only` of them, (batch, only, dim).
    fn block(
        &self,
        x: &Tensor,
        index: usize,
        only: Option<usize>,
        pass: &mut Pass,
    ) -> Result<Tensor> {
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
            if let Some(pair) =
                pass.low_rank.map(|p| p.stacked_qkv(index, dim)).transpose()?.flatten()
            {
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
        let y = self.mlp(&block.norm2.forward(&x, train)?, index, pass)?;
        let adapted = pass.adapters.and_then(|a| a.get(&index)).map(|a| a.apply(&x)).transpose()?;
        let x = (x + scaled(y, &block.ls2)?)?;
        Ok(match adapted {
            Some(adapted) => (x + adapted)?,
            None => x,
        })
    }
}
