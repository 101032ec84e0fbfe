//! Random numbers: one portable seeded generator, split by purpose.
//!
//! Every stream is ChaCha12 seeded with the SHA-256 of `(seed, purpose, keys)`. Streams are
//! therefore independent of each other and of the order in which they are used: one more
//! augmentation does not change the initial weights, and a resumed run needs only its position, not
//! the state of a generator.

mod normals;

pub(crate) use normals::GROUP;
pub use normals::NormalStream;
use rand::SeedableRng;
pub use rand_chacha::ChaCha12Rng as Stream;
use sha2::{Digest, Sha256};

/// What a random stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The order of the training images in an epoch.
    DataOrder,
    /// Random crops and flips.
    Augmentation,
    /// Draws of the method: initial weights, sampled features.
    Draws,
    /// Which exemplars a memory keeps or hands out.
    Memory,
    /// Which images a measurement of the harness uses.
    Measurement,
    /// Which images of a data set without an official split are for training.
    Split,
}

/// The stream of `purpose` under the run seed `seed`, further split by `keys` (task, epoch, image,
/// …).
pub fn stream(seed: u64, purpose: Purpose, keys: &[&dyn std::fmt::Display]) -> Stream {
    Stream::from_seed(key(seed, purpose, keys))
}

/// The standard normal numbers of that stream.
pub fn normals(seed: u64, purpose: Purpose, keys: &[&dyn std::fmt::Display]) -> NormalStream {
    NormalStream::from_seed(key(seed, purpose, keys))
}

fn key(seed: u64, purpose: Purpose, keys: &[&dyn std::fmt::Display]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("cilbench/1/{seed}/{purpose:?}"));
    for key in keys {
        hash.update(format!("/{key}"));
    }
    hash.finalize().into()
}
