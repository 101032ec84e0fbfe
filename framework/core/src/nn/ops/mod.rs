//! Differentiable operations on tensors.
//!
//! Each public function chooses its tier: where [`crate::nn::has_cpu_kernel`] holds, it calls the
//! kernels of [`crate::nn::cpu`]; elsewhere it calls [`composed`] or composes candle operations.

mod attention;
mod composed;
mod gelu;
mod layer_norm;
mod linear;
pub(crate) mod loss;
mod spectrum;

pub use attention::{attention, attention_cls};
pub use gelu::gelu_erf;
pub use layer_norm::{frozen_layer_norm, layer_norm};
pub use linear::{frozen_linear, linear};
pub use loss::{
    binary_cross_entropy, cross_entropy, distillation, mean_entropy, mse, normalised, smooth_l1,
};
pub use spectrum::{eigenvalues, relation, spectra};
