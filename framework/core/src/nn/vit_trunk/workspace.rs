//! Memory of the trunk that is used again from step to step, instead of being given back to the system and cleared anew each time.

use std::sync::{Arc, Mutex};

use super::Shape;
use crate::nn::cpu::aligned::Aligned;
use crate::nn::cpu::panels::Multiplied;
use crate::nn::cpu::simd::Float;

/// What one thread needs while it computes one image.
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
    /// Room for images of this shape.
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

/// Buffers of one type.
struct Pool<T> {
    scratch: Mutex<Vec<Scratch<T>>>,
    kept: Mutex<Vec<Vec<T>>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { scratch: Mutex::default(), kept: Mutex::default() }
    }
}

/// The buffers of a backbone, shared by all passes over it.
#[derive(Clone, Default)]
pub struct Workspace {
    f32: Arc<Pool<f32>>,
    f64: Arc<Pool<f64>>,
}

/// A type that a workspace has buffers of.
pub(super) trait Pooled: Multiplied {
    fn scratches(workspace: &Workspace) -> &Mutex<Vec<Scratch<Self>>>;
    fn kept(workspace: &Workspace) -> &Mutex<Vec<Vec<Self>>>;
}

macro_rules! pooled {
    ($t:ident) => {
        impl Pooled for $t {
            fn scratches(workspace: &Workspace) -> &Mutex<Vec<Scratch<Self>>> {
                &workspace.$t.scratch
            }
            fn kept(workspace: &Workspace) -> &Mutex<Vec<Vec<Self>>> {
                &workspace.$t.kept
            }
        }
    };
}
pooled!(f32);
pooled!(f64);

/// A lock whose holder cannot leave it half changed, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A scratch on loan: it goes back when dropped.
pub(super) struct Loan<'a, T: Pooled> {
    workspace: &'a Workspace,
    pub scratch: Scratch<T>,
}

impl<'a, T: Pooled> Loan<'a, T> {
    pub fn new(workspace: &'a Workspace, shape: Shape) -> Self {
        let mut scratch = lock(T::scratches(workspace)).pop().unwrap_or_default();
        scratch.fit(shape);
        Self { workspace, scratch }
    }
}

impl<T: Pooled> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        // A panic may have left it without its buffers.
        if !std::thread::panicking() {
            lock(T::scratches(self.workspace)).push(std::mem::take(&mut self.scratch));
        }
    }
}

/// The activations of some images, kept for the backward pass: one buffer each. They go back when dropped.
pub(super) struct Kept<T: Pooled> {
    workspace: Workspace,
    pub images: Vec<Vec<T>>,
}

impl<T: Pooled> Kept<T> {
    /// Buffers of `len` elements for `images` images; their old values are still in them. Buffers of another length are given up.
    pub fn new(workspace: &Workspace, images: usize, len: usize) -> Self {
        if images == 0 {
            return Self { workspace: workspace.clone(), images: Vec::new() };
        }
        let mut free = lock(T::kept(workspace));
        free.retain(|b| b.len() == len);
        let from = free.len().saturating_sub(images);
        let mut taken = free.split_off(from);
        drop(free);
        taken.resize_with(images, || vec![T::ZERO; len]);
        Self { workspace: workspace.clone(), images: taken }
    }
}

impl<T: Pooled> Drop for Kept<T> {
    fn drop(&mut self) {
        lock(T::kept(&self.workspace)).append(&mut self.images);
    }
}
