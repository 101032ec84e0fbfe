//! Buffers that the trunk uses again from step to step. New memory would have to be cleared by the
//! system each time.

use std::sync::{Arc, Mutex};

use super::Shape;
use crate::nn::cpu::aligned::Aligned;
use crate::nn::cpu::simd::Float;

/// The buffers that one thread needs while it computes one image.
#[derive(Default)]
pub(super) struct Scratch<T> {
    /// (tokens, dim) each.
    pub normed: Vec<T>,
    pub attended: Vec<T>,
    pub stream: Vec<T>,
    pub next: Vec<T>,
    /// (tokens, tokens) each.
    pub weights: Vec<T>,
    pub dweights: Vec<T>,
    /// (tokens, 3·dim).
    pub dqkv: Vec<T>,
    /// (tokens, hidden).
    pub hidden: Vec<T>,
    /// (tokens, ranks).
    pub low: Vec<T>,
    /// A panel of a weight that is not laid out in panels.
    pub panel: Aligned<T>,
    /// The activations of one block that a pass without gradients does not keep.
    pub block: Vec<T>,
}

impl<T: Float> Scratch<T> {
    /// Makes all buffers large enough for images of this shape.
    fn fit(&mut self, shape: Shape) {
        let (n, d) = (shape.tokens, shape.dim);
        for (buffer, len) in [
            (&mut self.normed, n * d),
            (&mut self.attended, n * d),
            (&mut self.stream, n * d),
            (&mut self.next, n * d),
            (&mut self.weights, n * n),
            (&mut self.dweights, n * n),
            (&mut self.dqkv, 3 * n * d),
            (&mut self.hidden, n * shape.hidden),
            (&mut self.low, n * shape.ranks),
            (&mut self.block, shape.kept_block()),
        ] {
            buffer.resize(len.max(buffer.len()), T::ZERO);
        }
    }
}

/// Free buffers.
struct Pool<T> {
    scratch: Mutex<Vec<Scratch<T>>>,
    kept: Mutex<Vec<Vec<T>>>,
}

/// The buffers of a backbone. Clones share them.
pub struct Workspace<T>(Arc<Pool<T>>);

impl<T> Default for Workspace<T> {
    fn default() -> Self {
        Self(Arc::new(Pool { scratch: Mutex::default(), kept: Mutex::default() }))
    }
}

impl<T> Clone for Workspace<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Locks a list that no holder can leave half changed, so that a panic of another thread does not
/// matter.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A scratch on loan: it goes back to its workspace when it is dropped.
pub(super) struct Loan<'a, T: Float> {
    workspace: &'a Workspace<T>,
    pub scratch: Scratch<T>,
}

impl<'a, T: Float> Loan<'a, T> {
    pub fn new(workspace: &'a Workspace<T>, shape: Shape) -> Self {
        let mut scratch = lock(&workspace.0.scratch).pop().unwrap_or_default();
        scratch.fit(shape);
        Self { workspace, scratch }
    }
}

impl<T: Float> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        // A panic may have left it without its buffers.
        if !std::thread::panicking() {
            lock(&self.workspace.0.scratch).push(std::mem::take(&mut self.scratch));
        }
    }
}

/// The activations of some images, kept for the backward pass in one buffer per image. The buffers
/// go back to their workspace when this is dropped.
pub(super) struct Kept<T> {
    workspace: Workspace<T>,
    pub images: Vec<Vec<T>>,
}

impl<T: Float> Kept<T> {
    /// Buffers of `len` elements for `images` images, with their old values still in them. Free
    /// buffers of another length are given up.
    pub fn new(workspace: &Workspace<T>, images: usize, len: usize) -> Self {
        if images == 0 {
            return Self { workspace: workspace.clone(), images: Vec::new() };
        }
        let mut free = lock(&workspace.0.kept);
        free.retain(|b| b.len() == len);
        let from = free.len().saturating_sub(images);
        let mut taken = free.split_off(from);
        drop(free);
        taken.resize_with(images, || vec![T::ZERO; len]);
        Self { workspace: workspace.clone(), images: taken }
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        lock(&self.workspace.0.kept).append(&mut self.images);
    }
}
