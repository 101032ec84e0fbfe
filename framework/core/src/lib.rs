#![doc = include_str!("lib.md")]
#![deny(missing_docs)]

pub mod array;
pub mod backbone;
pub mod cache;
pub mod config;
pub mod conformance;
pub mod context;
pub mod data;
pub mod device;
mod error;
pub mod hub;
pub mod method;
pub mod metrics;
pub mod nn;
pub mod optim;
pub mod parity;
pub mod parts;
pub mod pickle;
pub mod plugin;
mod registry;
pub mod results;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod state;
pub mod verify;

pub use error::{Error, Result, catching};
pub use registry::Named;
pub use {candle_core, inventory, schemars, serde, toml};

/// The bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(bytes))
}
