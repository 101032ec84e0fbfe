//! The frozen blocks of a vision transformer as one operation on the CPU: each image goes through all blocks, forward and backward, on one thread and
//! in its cache.
//!
//! Gradients are those of the input and of low-rank pairs (LoRA) beside q, k and v; frozen weights cost none. What the backward pass needs is kept for as
//! many images as the user allows and computed again for the others, with the same bits either way. The sums over images are taken in a fixed order, so
//! that the bits are the same at any number of threads.

mod block;
mod embed;
mod memory;
mod weights;

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Tensor};
use rayon::prelude::*;

pub use embed::EmbeddingWeights;
pub use memory::Workspace;
pub use weights::{BlockWeights, LinearWeights};

use block::{Activations, BlockPairs, BlockPass, PairPlace, Wanted};
use embed::Embedding;
use memory::{Kept, Loan, Pooled, Scratch};
use weights::{Block, Held, Reversed};

use super::rows::values;
use crate::{Error, Result};

/// Sums over images are taken within at most so many groups first, whatever the number of threads.
const GROUPS: usize = 64;

/// Sizes of one image in a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shape {
    tokens: usize,
    dim: usize,
    heads: usize,
    hidden: usize,
    /// The most ranks that a block's pairs have together.
    ranks: usize,
}

impl Shape {
    /// The activations of one block and image that the backward pass needs.
    fn kept_block(self) -> usize {
        self.tokens * (5 * self.dim + self.ranks + self.hidden)
    }
}

/// The weights in one type.
struct Weights<T> {
    embedding: Embedding<T>,
    blocks: Vec<Block<T>>,
}

enum AnyWeights {
    F32(Weights<f32>),
    F64(Weights<f64>),
}

impl<T: Typed> Weights<T> {
    fn new(embedding: &EmbeddingWeights, blocks: &[BlockWeights]) -> Result<Self> {
        Ok(Self { embedding: Embedding::new(embedding)?, blocks: blocks.iter().map(Block::new).collect::<Result<_>>()? })
    }
}

/// The frozen embedding and blocks of a vision transformer, laid out for the CPU.
pub struct Trunk {
    weights: AnyWeights,
    dim: usize,
    heads: usize,
    hidden: usize,
    eps: f64,
    workspace: Workspace,
}

/// A low-rank pair beside q, k or v of a block.
#[derive(Clone, Debug)]
pub struct TrunkPair {
    /// The block, from 0, counted within the pass.
    pub block: usize,
    /// 0 for q, 1 for k, 2 for v.
    pub part: usize,
    /// (rank, dim).
    pub a: Tensor,
    /// (dim, rank).
    pub b: Tensor,
}

/// What is asked of a pass over the trunk.
#[derive(Clone, Copy, Debug)]
pub struct TrunkPass<'a> {
    /// The first block.
    pub first: usize,
    /// The number of blocks.
    pub blocks: usize,
    /// How many tokens (the first ones) are wanted of the output; the last block computes no others.
    pub keep: usize,
    /// Whether these tokens are wanted after every block and not only after the last.
    pub every_block: bool,
    /// Pairs, by block and part.
    pub pairs: &'a [TrunkPair],
    /// Activations are kept for at most so many images; without a number for all of them.
    pub kept_images: Option<usize>,
}

impl Trunk {
    /// Lays the blocks out; `heads` attention heads and the norms' ε are the same in all of them.
    ///
    /// # Errors
    /// If the weights are not on the CPU in f32 or f64.
    pub fn new(embedding: &EmbeddingWeights, blocks: &[BlockWeights], heads: usize, eps: f64, workspace: &Workspace) -> Result<Self> {
        let Some(first) = blocks.first() else { return Err(Error::Protocol("a trunk without blocks".into())) };
        let (hidden, dim) = first.fc1.weight.dims2()?;
        let weights = match first.fc1.weight.dtype() {
            DType::F32 => AnyWeights::F32(Weights::new(embedding, blocks)?),
            DType::F64 => AnyWeights::F64(Weights::new(embedding, blocks)?),
            other => return Err(Error::Unsupported(format!("a backbone in {other:?} on the CPU: use f32 or f64"))),
        };
        Ok(Self { weights, dim, heads, hidden, eps, workspace: workspace.clone() })
    }

    /// Images (batch, 3, size, size) to tokens (batch, 1 + patches, dim), without a graph.
    ///
    /// # Errors
    /// If the images are of another type than the weights.
    pub fn embed(&self, images: &Tensor) -> Result<Tensor> {
        match &self.weights {
            AnyWeights::F32(weights) => weights.embedding.forward(images),
            AnyWeights::F64(weights) => weights.embedding.forward(images),
        }
    }

    /// x (batch, tokens, dim) through some blocks: (batch, 1 or blocks, keep, dim), with gradients of x and of the pairs.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(self: &Arc<Self>, x: &Tensor, pass: TrunkPass) -> Result<Tensor> {
        let (_, tokens, dim) = x.dims3()?;
        if dim != self.dim || pass.keep == 0 || pass.keep > tokens || pass.blocks == 0 {
            return Err(Error::Protocol(format!("trunk: {:?}, {} tokens of them, {} blocks", x.dims(), pass.keep, pass.blocks)));
        }
        let mut places = vec![Vec::new(); pass.blocks];
        let (mut offset, mut flat) = (0, (Vec::new(), Vec::new()));
        for pair in pass.pairs {
            let (rank, inputs) = pair.a.dims2()?;
            if inputs != dim || pair.b.dims2()? != (dim, rank) || pair.part > 2 || pair.block >= pass.blocks {
                return Err(Error::Protocol(format!(
                    "trunk: a pair of {:?} and {:?} at block {}",
                    pair.a.dims(),
                    pair.b.dims(),
                    pair.block
                )));
            }
            let block: &mut Vec<PairPlace> = &mut places[pair.block];
            let low = block.iter().map(|p| p.rank).sum();
            block.push(PairPlace { column: pair.part * dim, rank, offset, low });
            offset += rank * dim;
            flat.0.push(pair.a.flatten_all()?);
            flat.1.push(pair.b.flatten_all()?);
        }
        let ranks = places.iter().map(|b| b.iter().map(|p| p.rank).sum::<usize>()).max().unwrap_or_default();
        let shape = Shape { tokens, dim, heads: self.heads, hidden: self.hidden, ranks };
        let stacked = |parts: Vec<Tensor>| if parts.is_empty() { Tensor::zeros(1, x.dtype(), x.device()) } else { Tensor::cat(&parts, 0) };
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

/// Activations on their way from the forward to the backward pass.
enum AnyKept {
    F32(Kept<f32>),
    F64(Kept<f64>),
}

struct Operation {
    trunk: Arc<Trunk>,
    shape: Shape,
    /// The pairs of each block of the pass.
    places: Vec<Vec<PairPlace>>,
    first: usize,
    keep: usize,
    every_block: bool,
    kept_images: usize,
    wanted: Wanted,
    kept: Mutex<Option<AnyKept>>,
}

/// A type that the trunk's blocks exist in.
trait Typed: Pooled + candle_core::WithDType {
    fn blocks(trunk: &Trunk) -> Option<&[Block<Self>]>;
    fn pack(kept: Kept<Self>) -> AnyKept;
    fn unpack(any: AnyKept) -> Option<Kept<Self>>;
}

macro_rules! typed {
    ($t:ident, $variant:ident) => {
        impl Typed for $t {
            fn blocks(trunk: &Trunk) -> Option<&[Block<Self>]> {
                if let AnyWeights::$variant(weights) = &trunk.weights { Some(&weights.blocks) } else { None }
            }
            fn pack(kept: Kept<Self>) -> AnyKept {
                AnyKept::$variant(kept)
            }
            fn unpack(any: AnyKept) -> Option<Kept<Self>> {
                if let AnyKept::$variant(kept) = any { Some(kept) } else { None }
            }
        }
    };
}
typed!(f32, F32);
typed!(f64, F64);

impl Operation {
    fn gradients(&self) -> bool {
        self.wanted.x || self.wanted.a || self.wanted.b
    }

    fn depth(&self) -> usize {
        self.places.len()
    }

    /// The values of one image's output.
    fn outputs(&self) -> usize {
        self.keep * self.shape.dim * if self.every_block { self.depth() } else { 1 }
    }

    /// All blocks of the pass, with the pairs' values.
    fn passes<'a, T: Typed>(&'a self, a: &'a [T], b: &'a [T]) -> candle_core::Result<Vec<BlockPass<'a, T>>> {
        let blocks = T::blocks(&self.trunk).and_then(|b| b.get(self.first..self.first + self.depth()));
        let Some(blocks) = blocks else {
            candle_core::bail!("trunk: the input is of another type than the weights, or there are fewer blocks")
        };
        let depth = self.depth();
        let pass = |(i, (block, places)): (usize, (&'a Block<T>, &'a Vec<PairPlace>))| BlockPass {
            block,
            pairs: BlockPairs { places, a, b },
            shape: self.shape,
            queries: if i + 1 == depth { self.keep } else { self.shape.tokens },
            eps: self.trunk.eps,
        };
        Ok(blocks.iter().zip(&self.places).enumerate().map(pass).collect())
    }

    /// One image through all blocks. `kept` has room for the activations of all blocks, or of one that the next overwrites.
    fn image<T: Typed>(&self, passes: &[BlockPass<T>], x: &[T], kept: &mut [T], out: &mut [T], s: &mut Scratch<T>) {
        let (size, shape) = (self.shape.kept_block(), self.shape);
        let whole = kept.len() > size;
        let wide = self.keep * shape.dim;
        let mut next = std::mem::take(&mut s.next);
        next[..x.len()].copy_from_slice(x);
        for (i, pass) in passes.iter().enumerate() {
            let start = if whole { i * size } else { 0 };
            let mut activations = Activations::of(&mut kept[start..start + size], shape);
            activations.x.copy_from_slice(&next[..shape.tokens * shape.dim]);
            pass.forward(&mut activations, &mut next, s);
            if self.every_block {
                out[i * wide..(i + 1) * wide].copy_from_slice(&next[..wide]);
            }
        }
        if !self.every_block {
            out.copy_from_slice(&next[..wide]);
        }
        s.next = next;
    }

    fn forward<T: Typed>(&self, x: &[T], a: &[T], b: &[T]) -> candle_core::Result<Vec<T>> {
        let passes = self.passes(a, b)?;
        let (size, images) = (self.shape.tokens * self.shape.dim, x.len() / (self.shape.tokens * self.shape.dim));
        let mut out = vec![T::ZERO; images * self.outputs()];
        let keep = if self.gradients() { images.min(self.kept_images) } else { 0 };
        let mut kept = Kept::<T>::new(&self.trunk.workspace, keep, self.depth() * self.shape.kept_block());
        let rooms = kept.images.iter_mut().map(Some).chain(std::iter::repeat_with(|| None)).take(images);
        let jobs: Vec<_> = out.chunks_exact_mut(self.outputs()).zip(x.chunks_exact(size)).zip(rooms).collect();
        jobs.into_par_iter().for_each_init(
            || Loan::new(&self.trunk.workspace, self.shape),
            |loan, ((out, x), room)| {
                let s = &mut loan.scratch;
                match room {
                    Some(room) => self.image(&passes, x, room, out, s),
                    None => {
                        let mut room = std::mem::take(&mut s.block);
                        self.image(&passes, x, &mut room, out, s);
                        s.block = room;
                    }
                }
            },
        );
        if self.gradients() {
            *self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(T::pack(kept));
        }
        Ok(out)
    }

    /// The gradients of x, a and b from that of the output.
    fn backward<T: Typed>(&self, [x, a, b, grad]: [&[T]; 4]) -> candle_core::Result<[Vec<T>; 3]> {
        let passes = self.passes(a, b)?;
        let holds: Vec<_> = passes.iter().map(|p| [&p.block.qkv, &p.block.proj, &p.block.fc1, &p.block.fc2].map(|m| m.hold())).collect();
        let reversed = passes.iter().zip(&holds).map(|(p, [qkv, proj, fc1, fc2])| {
            Ok(Reversed {
                qkv: p.block.qkv.backward(qkv)?,
                proj: p.block.proj.backward(proj)?,
                fc1: p.block.fc1.backward(fc1)?,
                fc2: p.block.fc2.backward(fc2)?,
            })
        });
        let reversed: Vec<Reversed<T>> = reversed.collect::<Result<_>>().map_err(candle_core::Error::wrap)?;
        let size = self.shape.tokens * self.shape.dim;
        let images = x.len() / size;
        let group = images.div_ceil(GROUPS).max(1);
        let kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take().and_then(T::unpack);
        let mut kept = kept.unwrap_or_else(|| Kept::new(&self.trunk.workspace, 0, 0));
        let mut dx = vec![T::ZERO; if self.wanted.x { x.len() } else { 0 }];
        let mut rooms: Vec<Option<&mut Vec<T>>> = kept.images.iter_mut().map(Some).collect();
        rooms.resize_with(images, || None);
        let groups: Vec<_> = rooms.chunks_mut(group).enumerate().collect();
        let mut dxs: Vec<Option<&mut [T]>> = dx.chunks_mut(group * size).map(Some).collect();
        dxs.resize_with(groups.len(), || None);
        let sums: Vec<(Vec<T>, Vec<T>)> = groups
            .into_par_iter()
            .zip(dxs)
            .map_init(
                || (Loan::new(&self.trunk.workspace, self.shape), Vec::new()),
                |(loan, again), ((g, rooms), mut dx)| {
                    let room = |wanted: bool, like: &[T]| vec![T::ZERO; if wanted { like.len() } else { 0 }];
                    let (mut da, mut db) = (room(self.wanted.a, a), room(self.wanted.b, b));
                    for (i, room) in rooms.iter_mut().enumerate() {
                        let image = g * group + i;
                        let s = &mut loan.scratch;
                        let activations = match room {
                            Some(kept) => kept.as_mut_slice(),
                            None => {
                                again.resize(self.depth() * self.shape.kept_block(), T::ZERO);
                                let mut out = vec![T::ZERO; self.outputs()];
                                self.image(&passes, &x[image * size..(image + 1) * size], again, &mut out, s);
                                again.as_mut_slice()
                            }
                        };
                        let grad = &grad[image * self.outputs()..(image + 1) * self.outputs()];
                        self.image_backward(&passes, &reversed, activations, grad, (&mut da, &mut db), s);
                        if let Some(dx) = &mut dx {
                            dx[i * size..(i + 1) * size].copy_from_slice(&s.stream);
                        }
                    }
                    (da, db)
                },
            )
            .collect();
        let sum = |wanted: bool, like: &[T], part: fn(&(Vec<T>, Vec<T>)) -> &Vec<T>| {
            let mut total = vec![T::ZERO; if wanted { like.len() } else { 0 }];
            for group in &sums {
                total.iter_mut().zip(part(group)).for_each(|(t, v)| *t += *v);
            }
            total
        };
        let (da, db) = (sum(self.wanted.a, a, |s| &s.0), sum(self.wanted.b, b, |s| &s.1));
        Ok([dx, da, db])
    }

    /// One image backward through all blocks; leaves the gradient of x in the scratch's stream.
    fn image_backward<T: Typed>(
        &self,
        passes: &[BlockPass<T>],
        reversed: &[Reversed<T>],
        kept: &mut [T],
        grad: &[T],
        (da, db): (&mut [T], &mut [T]),
        s: &mut Scratch<T>,
    ) {
        let wide = self.keep * self.shape.dim;
        let mut stream = std::mem::take(&mut s.stream);
        stream.fill(T::ZERO);
        let sizes = self.shape.kept_block();
        for (i, pass) in passes.iter().enumerate().rev() {
            if self.every_block || i + 1 == passes.len() {
                let from = if self.every_block { i * wide } else { 0 };
                stream.iter_mut().zip(&grad[from..from + wide]).for_each(|(s, g)| *s += *g);
            }
            let kept = Activations::of(&mut kept[i * sizes..(i + 1) * sizes], self.shape);
            let wanted = Wanted { x: i > 0 || self.wanted.x, ..self.wanted };
            pass.backward(&reversed[i], &kept, &mut stream, (&mut *da, &mut *db), wanted, s);
        }
        s.stream = stream;
    }

    fn tensors<T: Typed>(&self, [x, a, b]: [&Tensor; 3], grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let grad = grad.detach().contiguous()?;
        let held = [x, a, b, &grad].map(Held::new);
        let mut slices = [&[] as &[T]; 4];
        for (slice, held) in slices.iter_mut().zip(&held) {
            *slice = held.values()?;
        }
        let [dx, da, db] = self.backward(slices)?;
        let tensor = |wanted: bool, values: Vec<T>, like: &Tensor| -> Result<Option<Tensor>> {
            Ok(if wanted { Some(Tensor::from_vec(values, like.shape(), like.device())?) } else { None })
        };
        Ok([tensor(self.wanted.x, dx, x)?, tensor(self.wanted.a, da, a)?, tensor(self.wanted.b, db, b)?])
    }
}

impl CustomOp3 for Operation {
    fn name(&self) -> &'static str {
        "trunk"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<(CpuStorage, candle_core::Shape)> {
        let (batch, _, dim) = lx.shape().dims3()?;
        let shape = (batch, if self.every_block { self.depth() } else { 1 }, self.keep, dim);
        super::rows::by_type!(self.name(), x, T => {
            let name = self.name();
            let out = self.forward::<T>(values(name, x, lx)?, values(name, a, la)?, values(name, b, lb)?)?;
            Ok((<T as super::float::Float>::wrap(out), candle_core::Shape::from(shape)))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let found = if x.dtype() == DType::F64 { self.tensors::<f64>([x, a, b], grad) } else { self.tensors::<f32>([x, a, b], grad) };
        let [dx, da, db] = found.map_err(candle_core::Error::wrap)?;
        Ok((dx, da, db))
    }
}
