//! Plugins: a third party's methods in a program that was built without them.

pub mod abi;
mod answering;
mod asking;
mod binary;
#[cfg(test)]
mod boundary_test;
mod codes;
pub mod export;
mod flat;
mod kept;
mod load;
mod loopback;
pub mod messages;
pub mod process;
mod remote;
mod serve;
mod sized;
mod weights;

pub use load::{Opened, open};
pub use loopback::loopback;
pub use remote::{Connect, Link, register_offer};
pub use serve::{Instance, build};

pub use crate::method::{Plugin, PluginKind as Kind};
