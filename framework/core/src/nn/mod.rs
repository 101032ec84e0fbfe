//! The numerical engine: differentiable operations, losses, Gaussians and spectra.
//!
//! # Three tiers
//!
//! An operation exists in up to three forms:
//!
//! 1. **CPU kernel** (`cpu`): loops over slices of f32 or f64, compiled for the widest vectors of
//!    the processor. They serve CPU tensors in f32 and f64.
//! 2. **Own gradient** (`ops::composed`): the value comes from candle's operations without a graph,
//!    the gradient from a formula. Frozen weights then cost no gradient work, and only the input is
//!    kept for the backward pass. This form serves frozen layers on other devices.
//! 3. **Composed**: plain candle operations with candle's own differentiation. This form serves
//!    everything that is trained on other devices, and cheap operations everywhere.
//!
//! The public function of an operation chooses the tier: it asks `has_cpu_kernel`. A vision
//! transformer makes one more choice in `backbone/vit`: a pass over frozen weights that fits
//! `vit_trunk` goes through it as one operation; any other pass is put together from `ops`.
//!
//! # Rooms
//!
//! - `cpu`: kernels and the memory, SIMD and matrix products that they share.
//! - `ops`: differentiable operations on tensors.
//! - `vit_trunk`: the frozen blocks of a vision transformer as one differentiable operation.
//! - `gaussian`: Gaussians of class features, fitted and sampled.
//! - `head_sgd`: SGD of one linear layer on stored features.
//!
//! Results have the same bits at any number of threads.

mod cpu;
mod gaussian;
mod head_sgd;
mod ops;
mod vit_trunk;

pub use cpu::cholesky::{Cholesky, solve_symmetric};
pub use cpu::eigen::SymmetricEigen;
#[doc(hidden)]
pub use cpu::speed::Product;
pub use gaussian::{Features, Gaussian, Normals};
pub use head_sgd::{LayerLoss, LayerSgd};
pub use ops::{
    attention, attention_cls, binary_cross_entropy, cross_entropy, distillation, eigenvalues,
    frozen_layer_norm, frozen_linear, gelu_erf, layer_norm, linear, mean_entropy, mse, normalised,
    relation, smooth_l1, spectra,
};
pub(crate) use vit_trunk::{
    AttentionPart, BlockWeights, EmbeddingWeights, LinearWeights, Trunk, TrunkPair, TrunkPass,
    Workspace,
};

thread_local! {
    static WITHOUT_CPU_KERNELS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether operations on this tensor use the kernels of [`cpu`].
pub(crate) fn has_cpu_kernel(x: &candle_core::Tensor) -> bool {
    x.device().is_cpu() && !WITHOUT_CPU_KERNELS.get()
}

/// Runs `f` with the CPU kernels switched off on this thread: CPU tensors take the way of tensors
/// on a GPU. Tests use it to check that way on a machine without a GPU.
#[doc(hidden)]
pub fn as_on_a_device<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            WITHOUT_CPU_KERNELS.set(self.0);
        }
    }
    let _restore = Restore(WITHOUT_CPU_KERNELS.replace(true));
    f()
}

/// The largest absolute difference of two f64 tensors of one shape, for tests.
#[cfg(test)]
fn largest_difference(a: &candle_core::Tensor, b: &candle_core::Tensor) -> f64 {
    let largest = (a - b).expect("sub").abs().expect("abs").max_all().expect("max");
    largest.to_scalar::<f64>().expect("scalar")
}
