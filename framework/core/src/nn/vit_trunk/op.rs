//! The operation in candle's graph: it takes images in parallel through all blocks of a pass,
//! forward and backward.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp3, Layout, Tensor, WithDType};
use rayon::prelude::*;

use super::block::{Activations, BlockPairs, BlockPass, PairPlace, Wanted};
use super::weights::{Block, Held, Reversed};
use super::workspace::{Kept, Loan, Scratch};
use super::{Shape, Trunk};
use crate::Result;
use crate::nn::cpu::panels::Multiplied;
use crate::nn::cpu::simd::Float;
use crate::nn::cpu::storage::values;

/// Gradients are summed within at most so many groups of images first. The number does not depend
/// on that of threads, so the bits do not either.
const GROUPS: usize = 32;

/// One pass over some blocks, with what its backward pass needs.
pub(super) struct Operation<T: Float> {
    pub trunk: Arc<Trunk<T>>,
    pub shape: Shape,
    /// The pairs of each block of the pass.
    pub places: Vec<Vec<PairPlace>>,
    /// The first block of the pass.
    pub first: usize,
    /// How many tokens of the output are wanted, from the first on.
    pub keep: usize,
    pub every_block: bool,
    pub kept_images: usize,
    pub wanted: Wanted,
    /// Activations on their way from the forward to the backward pass.
    pub kept: Mutex<Option<Kept<T>>>,
}

impl<T: Multiplied + WithDType> Operation<T> {
    fn gradients(&self) -> bool {
        self.wanted.x || self.wanted.a || self.wanted.b
    }

    fn depth(&self) -> usize {
        self.places.len()
    }

    /// The number of values of one image's output.
    fn outputs(&self) -> usize {
        self.keep * self.shape.dim * if self.every_block { self.depth() } else { 1 }
    }

    /// All blocks of the pass, with the pairs' values.
    fn passes<'a>(&'a self, a: &'a [T], b: &'a [T]) -> candle_core::Result<Vec<BlockPass<'a, T>>> {
        let (all, first) = (&self.trunk.blocks, self.first);
        let Some(blocks) = all.get(first..first + self.depth()) else {
            candle_core::bail!("trunk: blocks {first} to {} of {}", first + self.depth(), all.len())
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

    /// Takes one image through all blocks. `kept` has room for the activations of all blocks, or of
    /// one block, which the next one overwrites.
    fn image(
        &self,
        passes: &[BlockPass<T>],
        x: &[T],
        kept: &mut [T],
        out: &mut [T],
        s: &mut Scratch<T>,
    ) {
        let (size, shape) = (self.shape.kept_block(), self.shape);
        let whole = kept.len() >= passes.len() * size;
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

    fn forward(&self, x: &[T], a: &[T], b: &[T]) -> candle_core::Result<Vec<T>> {
        let passes = self.passes(a, b)?;
        let (size, images) =
            (self.shape.tokens * self.shape.dim, x.len() / (self.shape.tokens * self.shape.dim));
        let mut out = vec![T::ZERO; images * self.outputs()];
        let keep = if self.gradients() { images.min(self.kept_images) } else { 0 };
        let mut kept =
            Kept::new(&self.trunk.workspace, keep, self.depth() * self.shape.kept_block());
        let rooms =
            kept.images.iter_mut().map(Some).chain(std::iter::repeat_with(|| None)).take(images);
        let jobs: Vec<_> =
            out.chunks_exact_mut(self.outputs()).zip(x.chunks_exact(size)).zip(rooms).collect();
        jobs.into_par_iter().for_each_init(
            || Loan::new(&self.trunk.workspace, self.shape),
            |loan, ((out, x), room)| {
                let s = &mut loan.scratch;
                match room {
                    Some(room) => self.image(&passes, x, room, out, s),
                    None => {
                        let mut room = std::mem::take(&mut s.block);
                        self.image(&passes, x, &mut room[..self.shape.kept_block()], out, s);
                        s.block = room;
                    }
                }
            },
        );
        if self.gradients() {
            *self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(kept);
        }
        Ok(out)
    }

    /// Computes the gradients of x, a and b from the gradient of the output.
    fn backward(&self, [x, a, b, grad]: [&[T]; 4]) -> candle_core::Result<[Vec<T>; 3]> {
        let passes = self.passes(a, b)?;
        let holds: Vec<_> = passes
            .iter()
            .map(|p| [&p.block.qkv, &p.block.proj, &p.block.fc1, &p.block.fc2].map(|m| m.hold()))
            .collect();
        let reversed = passes.iter().zip(&holds).map(|(p, [qkv, proj, fc1, fc2])| {
            Ok(Reversed {
                qkv: p.block.qkv.backward(qkv)?,
                proj: p.block.proj.backward(proj)?,
                fc1: p.block.fc1.backward(fc1)?,
                fc2: p.block.fc2.backward(fc2)?,
            })
        });
        let reversed: Vec<Reversed<T>> =
            reversed.collect::<Result<_>>().map_err(candle_core::Error::wrap)?;
        let size = self.shape.tokens * self.shape.dim;
        let images = x.len() / size;
        let group = images.div_ceil(GROUPS).max(1);
        let kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let mut kept = kept.unwrap_or_else(|| Kept::new(&self.trunk.workspace, 0, 0));
        let mut dx = vec![T::ZERO; if self.wanted.x { x.len() } else { 0 }];
        let mut rooms: Vec<Option<&mut Vec<T>>> = kept.images.iter_mut().map(Some).collect();
        rooms.resize_with(images, || None);
        let groups: Vec<_> = rooms.chunks_mut(group).enumerate().collect();
        let mut dxs: Vec<Option<&mut [T]>> = dx.chunks_mut(group * size).map(Some).collect();
        dxs.resize_with(groups.len(), || None);
        let room = |wanted: bool, like: &[T]| vec![T::ZERO; if wanted { like.len() } else { 0 }];
        let sums: Vec<[Vec<T>; 2]> = groups
            .into_par_iter()
            .zip(dxs)
            .map_init(
                || (Loan::new(&self.trunk.workspace, self.shape), None),
                |(loan, again), ((g, rooms), mut dx)| {
                    let [mut da, mut db] = [room(self.wanted.a, a), room(self.wanted.b, b)];
                    for (i, room) in rooms.iter_mut().enumerate() {
                        let image = g * group + i;
                        let s = &mut loan.scratch;
                        let activations = match room {
                            Some(kept) => kept.as_mut_slice(),
                            None => {
                                let len = self.depth() * self.shape.kept_block();
                                let again = again.get_or_insert_with(|| {
                                    Kept::new(&self.trunk.workspace, 1, len)
                                });
                                let mut out = vec![T::ZERO; self.outputs()];
                                self.image(
                                    &passes,
                                    &x[image * size..(image + 1) * size],
                                    &mut again.images[0],
                                    &mut out,
                                    s,
                                );
                                again.images[0].as_mut_slice()
                            }
                        };
                        let grad = &grad[image * self.outputs()..(image + 1) * self.outputs()];
                        self.image_backward(
                            &passes,
                            &reversed,
                            activations,
                            grad,
                            (&mut da, &mut db),
                            s,
                        );
                        if let Some(dx) = &mut dx {
                            dx[i * size..(i + 1) * size].copy_from_slice(&s.stream[..size]);
                        }
                    }
                    [da, db]
                },
            )
            .collect();
        let mut totals = [room(self.wanted.a, a), room(self.wanted.b, b)];
        for group in &sums {
            for (total, part) in totals.iter_mut().zip(group) {
                total.iter_mut().zip(part).for_each(|(t, v)| *t += *v);
            }
        }
        let [da, db] = totals;
        Ok([dx, da, db])
    }

    /// The first block that the backward pass has to reach.
    fn lowest(&self) -> usize {
        if self.wanted.x {
            0
        } else {
            self.places.iter().position(|p| !p.is_empty()).unwrap_or_default()
        }
    }

    /// Takes one image backward through the blocks down to the lowest. The gradient of x, if it is
    /// wanted, stays in the scratch's stream.
    fn image_backward(
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
        let (sizes, lowest) = (self.shape.kept_block(), self.lowest());
        for (i, pass) in passes.iter().enumerate().skip(lowest).rev() {
            if self.every_block || i + 1 == passes.len() {
                let from = if self.every_block { i * wide } else { 0 };
                stream.iter_mut().zip(&grad[from..from + wide]).for_each(|(s, g)| *s += *g);
            }
            let kept = Activations::of(&mut kept[i * sizes..(i + 1) * sizes], self.shape);
            let wanted = Wanted { x: i > lowest || self.wanted.x, ..self.wanted };
            pass.backward(&reversed[i], &kept, &mut stream, (&mut *da, &mut *db), wanted, s);
        }
        s.stream = stream;
    }

    fn tensors(&self, [x, a, b]: [&Tensor; 3], grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let grad = grad.detach().contiguous()?;
        let held = [x, a, b, &grad].map(Held::new);
        let mut slices = [&[] as &[T]; 4];
        for (slice, held) in slices.iter_mut().zip(&held) {
            *slice = held.values()?;
        }
        let [dx, da, db] = self.backward(slices)?;
        let tensor = |wanted: bool, values: Vec<T>, like: &Tensor| -> Result<Option<Tensor>> {
            Ok(if wanted {
                Some(Tensor::from_vec(values, like.shape(), like.device())?)
            } else {
                None
            })
        };
        Ok([
            tensor(self.wanted.x, dx, x)?,
            tensor(self.wanted.a, da, a)?,
            tensor(self.wanted.b, db, b)?,
        ])
    }
}

impl<T: Multiplied + WithDType> CustomOp3 for Operation<T> {
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
        let name = self.name();
        let out = self.forward(values(name, x, lx)?, values(name, a, la)?, values(name, b, lb)?)?;
        Ok((T::wrap(out), candle_core::Shape::from(shape)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, da, db] = self.tensors([x, a, b], grad).map_err(candle_core::Error::wrap)?;
        Ok((dx, da, db))
    }
}
