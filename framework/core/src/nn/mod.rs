//! Training operations: frozen-aware linear layers, norms, attention, losses, spectra.
//!
//! Everything a frozen backbone needs has its own backward pass, which computes gradients to activations only: frozen weights cost no
//! gradient work. Linear layers and norms come in a trained form too. On the CPU the operations run on all threads, and give the same bits at any number of them.

mod activation;
mod aligned;
mod attached;
mod attention;
mod cholesky;
mod factor;
mod float;
mod gaussian;
mod layer_loss;
mod layer_sgd;
mod linear;
mod logits;
mod loss;
mod measure;
mod moments;
mod norm;
mod normals;
mod panels;
mod product;
mod rows;
mod spectrum;
mod trunk;

pub use activation::gelu_erf;
pub use attention::{attention, attention_cls};
pub use cholesky::{Cholesky, solve_symmetric};
pub use gaussian::{Features, Gaussian};
pub use layer_loss::LayerLoss;
pub use layer_sgd::LayerSgd;
pub use linear::{frozen_linear, linear};
pub use logits::normalised;
pub use loss::{binary_cross_entropy, cross_entropy, distillation, mean_entropy, mse, smooth_l1};
#[doc(hidden)]
pub use measure::Product;
pub use norm::{frozen_layer_norm, layer_norm};
pub use normals::Normals;
pub use spectrum::{eigenvalues, relation, spectra};
pub(crate) use trunk::{BlockWeights, EmbeddingWeights, LinearWeights, Trunk, TrunkPair, TrunkPass, Workspace};

thread_local! {
    static AS_ON_A_DEVICE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether the CPU's own operations are to be used for this tensor.
pub(crate) fn own(x: &candle_core::Tensor) -> bool {
    x.device().is_cpu() && !AS_ON_A_DEVICE.get()
}

/// Runs `f` with this thread's CPU tensors going the way of tensors on a GPU, through candle's operations alone: for tests of that way without a GPU.
#[doc(hidden)]
pub fn as_on_a_device<T>(f: impl FnOnce() -> T) -> T {
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            AS_ON_A_DEVICE.set(self.0);
        }
    }
    let _back = Back(AS_ON_A_DEVICE.replace(true));
    f()
}
