//! What answers a method's calls in a run: draws from its own stream, passes over the current task, the memory.

use std::collections::BTreeMap;

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::memory::Memory;
use crate::array::{Array, Element};
use crate::context::{Host, Law, PlainBatch, Reply, Request};
use crate::data::{ImageSet, Loader, Transforms};
use crate::method::Access;
use crate::rng::{Purpose, stream};
use crate::{Error, Result};

/// The host of one task.
pub struct TaskHost<'a> {
    seed: u64,
    task: usize,
    access: Access,
    set: ImageSet,
    transforms: Transforms,
    memory: &'a mut Memory,
    /// How often each name was drawn in this task.
    draws: BTreeMap<String, u64>,
    passes: Vec<Loader>,
}

impl<'a> TaskHost<'a> {
    /// The host of task `task`, whose training images are `set`.
    pub fn new(seed: u64, task: usize, access: Access, set: &ImageSet, transforms: &Transforms, memory: &'a mut Memory) -> Self {
        Self { seed, task, access, set: set.clone(), transforms: transforms.clone(), memory, draws: BTreeMap::new(), passes: Vec::new() }
    }
}

impl TaskHost<'_> {
    /// How often each name was drawn in this task.
    pub fn draws(&self) -> &BTreeMap<String, u64> {
        &self.draws
    }

    /// Goes on from a checkpoint.
    pub fn continue_from(&mut self, draws: BTreeMap<String, u64>) {
        self.draws = draws;
    }

    /// The memory as plain data.
    pub fn memory(&self) -> super::MemoryImage {
        self.memory.save()
    }
}

impl Host for TaskHost<'_> {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        match request {
            Request::Draw { name, shape, law } => {
                let times = self.draws.entry(name.clone()).or_default();
                let keys: [&(dyn std::fmt::Display + Sync); 3] = [&self.task, &name, &*times];
                let drawn = draw(&shape, law, self.seed, keys).map(Reply::Array);
                *times += 1;
                drawn
            }
            Request::Given { .. } => Ok(Reply::Given(None)),
            Request::OpenPass { view, batch_size } => {
                if batch_size == 0 {
                    return Err(Error::Protocol("a pass with a batch size of 0".into()));
                }
                let pass = self.passes.len();
                // Random crops of a pass of the method's own must differ from those of the epochs.
                let augmentation = (self.seed, self.task, usize::MAX / 2 - pass);
                let order = (0..self.set.len()).collect();
                self.passes.push(Loader::new(&self.set, order, batch_size, 0, &self.transforms, view, augmentation));
                Ok(Reply::Pass(pass as u32))
            }
            Request::NextBatch { pass } => {
                let loader = self.passes.get_mut(pass as usize);
                let loader = loader.ok_or_else(|| Error::Protocol(format!("there is no pass {pass} in this task")))?;
                let Some(batch) = loader.next().transpose()? else { return Ok(Reply::Batch(None)) };
                let size = self.transforms.image_size;
                let images = Array::from_f32([batch.labels.len(), 3, size, size], &batch.images);
                Ok(Reply::Batch(Some(PlainBatch { images, labels: batch.labels, positions: batch.positions })))
            }
            Request::Probe { .. } => Ok(Reply::Done),
            Request::Memory(call) => {
                if self.access != Access::Memory {
                    return Err(Error::Protocol(
                        "the method asked for the memory, but its entry does not declare one (access = memory)".into(),
                    ));
                }
                self.memory.answer(call, self.task, &self.set, &self.transforms, self.seed)
            }
        }
    }
}

/// Normal numbers from one stream; a longer draw takes each further part from a stream of its own, on all threads.
const NORMALS: usize = 1 << 15;

/// Numbers of a distribution from the stream of these keys.
fn draw(shape: &[usize], law: Law, seed: u64, [a, b, c]: [&(dyn std::fmt::Display + Sync); 3]) -> Result<Array> {
    // Bytes of the widest element must be countable too.
    let n = shape
        .iter()
        .try_fold(1usize, |n, size| n.checked_mul(*size))
        .filter(|n| n.checked_mul(16).is_some_and(|b| isize::try_from(b).is_ok()));
    let n = n.ok_or_else(|| Error::Protocol(format!("a draw of shape {shape:?}: more numbers than there is memory")))?;
    // An allocation that fails would end the process, and not the call alone.
    let width = if law == Law::Normal { size_of::<f32>() } else { 2 * size_of::<i64>() };
    Vec::<u8>::new()
        .try_reserve_exact(n * width)
        .map_err(|_| Error::Protocol(format!("a draw of shape {shape:?}: more numbers than there is memory")))?;
    let rng = &mut stream(seed, Purpose::Draws, &[&a, &b, &c]);
    Ok(match law {
        Law::Uniform { low, high } => {
            let values: Vec<f32> = (0..n).map(|_| (low + (high - low) * rng.random::<f64>()) as f32).collect();
            Array::from_f32(shape, &values)
        }
        Law::Normal => {
            // Straight into the bytes of the answer.
            let size = size_of::<f32>();
            let mut bytes = vec![0; n * size];
            bytes.par_chunks_mut(NORMALS * size).enumerate().for_each(|(part, bytes)| {
                let mut rng = match part {
                    0 => stream(seed, Purpose::Draws, &[&a, &b, &c]),
                    _ => stream(seed, Purpose::Draws, &[&a, &b, &c, &format!("part {part}")]),
                };
                bytes.chunks_exact_mut(size).for_each(|place| {
                    let value = <StandardNormal as Distribution<f64>>::sample(&StandardNormal, &mut rng) as f32;
                    place.copy_from_slice(&value.to_le_bytes());
                });
            });
            Array { element: Element::F32, shape: shape.to_vec(), bytes }
        }
        Law::Permutation => {
            if shape.len() != 1 {
                return Err(Error::Protocol(format!("a permutation was drawn with shape {shape:?}; it has one dimension")));
            }
            let order: Vec<i64> = crate::data::shuffled(n, rng).into_iter().map(|i| i as i64).collect();
            Array::from_i64(&order)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_that_memory_cannot_hold_is_an_error() {
        for law in [Law::Normal, Law::Uniform { low: 0.0, high: 1.0 }, Law::Permutation] {
            let error = draw(&[1 << 50], law, 0, [&0, &"x", &0]).expect_err("a petabyte").to_string();
            assert!(error.contains("more numbers than there is memory"), "{error}");
        }
    }
}
