//! What answers a method's calls in a run: draws from its own stream, passes over the current task,
//! the memory.

use std::collections::BTreeMap;

use rand::Rng;
use rayon::prelude::*;

use super::exemplars::Memory;
use crate::array::{Array, Element};
use crate::context::{Drawn, Host, Law, PlainBatch, Reply, Request, TaskCall};
use crate::data::{Augment, ImageSet, Loader, Transforms};
use crate::method::Access;
use crate::rng::{GROUP, Purpose, normals, stream};
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
    call: TaskCall,
}

impl<'a> TaskHost<'a> {
    /// The host of task `task`, whose training images are `set`.
    pub fn new(
        seed: u64,
        task: usize,
        access: Access,
        set: &ImageSet,
        transforms: &Transforms,
        memory: &'a mut Memory,
    ) -> Self {
        Self {
            seed,
            task,
            access,
            set: set.clone(),
            transforms: transforms.clone(),
            memory,
            draws: BTreeMap::new(),
            passes: Vec::new(),
            call: TaskCall::default(),
        }
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
    pub fn memory(&self) -> crate::context::MemoryImage {
        self.memory.save()
    }
}

impl TaskHost<'_> {
    /// What a pass of the method's own is augmented with.
    fn augment(&self, pass: usize) -> Augment {
        let (seed, task) = (self.seed, self.task);
        match self.call {
            TaskCall::Begin | TaskCall::End => Augment::Pass { seed, task, pass },
            TaskCall::Step(step) => Augment::StepPass { seed, task, step, pass },
        }
    }

    /// How often a name was drawn before, and counts it once more.
    fn times(&mut self, name: &str) -> u64 {
        let times = self.draws.entry(name.to_owned()).or_default();
        *times += 1;
        *times - 1
    }
}

impl Host for TaskHost<'_> {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        match request {
            Request::Draw { name, shape, law } => {
                let times = self.times(&name);
                draw(&shape, law, self.seed, &[&self.task, &name, &times]).map(Reply::Array)
            }
            Request::Given { .. } => Ok(Reply::Given(None)),
            Request::OpenPass { view, batch_size } => {
                if batch_size == 0 {
                    return Err(Error::Protocol("a pass with a batch size of 0".into()));
                }
                let pass = self.passes.len();
                let augment = self.augment(pass);
                let order = (0..self.set.len()).collect();
                self.passes.push(Loader::new(
                    &self.set,
                    order,
                    batch_size,
                    0,
                    &self.transforms,
                    view,
                    augment,
                ));
                Ok(Reply::Pass(pass as u32))
            }
            Request::NextBatch { pass } => {
                let loader = self.passes.get_mut(pass as usize);
                let loader = loader.ok_or_else(|| {
                    Error::Protocol(format!("there is no pass {pass} in this task"))
                })?;
                let Some(batch) = loader.next().transpose()? else { return Ok(Reply::Batch(None)) };
                let size = self.transforms.image_size;
                let images = Array::from_f32([batch.labels.len(), 3, size, size], &batch.images);
                Ok(Reply::Batch(Some(PlainBatch {
                    images,
                    labels: batch.labels,
                    positions: batch.positions,
                })))
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

    fn enter(&mut self, call: TaskCall) {
        self.call = call;
        self.passes.clear();
    }

    fn normals(&mut self, name: String, _: [usize; 2]) -> Result<Drawn> {
        let times = self.times(&name);
        Ok(Drawn::Stream(normals(self.seed, Purpose::Draws, &[&self.task, &name, &times])))
    }
}

/// Normal numbers a task of a thread.
const NORMALS: usize = 64 * GROUP;

/// Numbers of a distribution from the stream of these keys.
fn draw(shape: &[usize], law: Law, seed: u64, keys: &[&dyn std::fmt::Display]) -> Result<Array> {
    // Bytes of the widest element must be countable too.
    let n = shape
        .iter()
        .try_fold(1usize, |n, size| n.checked_mul(*size))
        .filter(|n| n.checked_mul(16).is_some_and(|b| isize::try_from(b).is_ok()));
    let n = n.ok_or_else(|| {
        Error::Protocol(format!("a draw of shape {shape:?}: more numbers than there is memory"))
    })?;
    // An allocation that fails would end the process, and not the call alone.
    let width = if law == Law::Normal { size_of::<f32>() } else { 2 * size_of::<i64>() };
    Vec::<u8>::new().try_reserve_exact(n * width).map_err(|_| {
        Error::Protocol(format!("a draw of shape {shape:?}: more numbers than there is memory"))
    })?;
    let rng = &mut stream(seed, Purpose::Draws, keys);
    Ok(match law {
        Law::Uniform { low, high } => {
            let values: Vec<f32> =
                (0..n).map(|_| (low + (high - low) * rng.random::<f64>()) as f32).collect();
            Array::from_f32(shape, &values)
        }
        Law::Normal => {
            // Straight into the bytes of the answer.
            let (size, numbers) = (size_of::<f32>(), normals(seed, Purpose::Draws, keys));
            let mut bytes = vec![0; n * size];
            bytes.par_chunks_mut(NORMALS * size).enumerate().for_each(|(part, bytes)| {
                let mut values = vec![0.0; bytes.len() / size];
                numbers.fill(part * NORMALS, &mut values);
                bytes
                    .chunks_exact_mut(size)
                    .zip(values)
                    .for_each(|(place, value)| place.copy_from_slice(&value.to_le_bytes()));
            });
            Array { element: Element::F32, shape: shape.to_vec(), bytes }
        }
        Law::Permutation => {
            if shape.len() != 1 {
                return Err(Error::Protocol(format!(
                    "a permutation was drawn with shape {shape:?}; it has one dimension"
                )));
            }
            let order: Vec<i64> =
                crate::data::shuffled(n, rng).into_iter().map(|i| i as i64).collect();
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
            let error =
                draw(&[1 << 50], law, 0, &[&0, &"x", &0]).expect_err("a petabyte").to_string();
            assert!(error.contains("more numbers than there is memory"), "{error}");
        }
    }

    #[test]
    fn numbers_that_are_made_later_are_those_that_are_drawn() {
        let (seed, keys): (u64, [&dyn std::fmt::Display; 3]) = (5, [&1, &"x", &2]);
        // More than a thread's part, and no whole group at the end.
        let n = NORMALS + GROUP + 3;
        let Array { bytes, shape, .. } = draw(&[n], Law::Normal, seed, &keys).expect("drawn");
        let mut later = vec![0.0; n];
        normals(seed, Purpose::Draws, &keys).fill(0, &mut later);
        assert_eq!(
            (shape, bytes),
            (vec![n], later.iter().flat_map(|v: &f32| v.to_le_bytes()).collect())
        );
        let mut other = vec![0.0; n];
        normals(seed, Purpose::Draws, &[&1, &"x", &3]).fill(0, &mut other);
        assert!(other != later, "another draw of the name");
    }
}
