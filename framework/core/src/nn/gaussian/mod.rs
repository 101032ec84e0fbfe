//! Gaussians of class features: fitted to rows ([`fit`]), kept as a packed Cholesky factor
//! ([`packed`]), and sampled ([`sample`]) from standard normal numbers ([`normals`]).

mod fit;
mod normals;
pub(crate) mod packed;
mod sample;

pub use normals::Normals;
pub(crate) use sample::Kept;
pub use sample::{Features, Gaussian};
