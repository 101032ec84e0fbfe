//! Plugins: a third party's methods in a program that was built without them.

pub mod abi;
mod binary;
#[cfg(test)]
mod boundary_test;
pub mod export;
mod flat;
mod load;
mod loopback;
pub mod messages;
pub mod process;
mod remote;
mod serve;
mod weights;

pub use load::{Opened, open};
pub use loopback::loopback;
pub use remote::{Connect, Link, register_offer};
pub use serve::{Instance, build};

pub use crate::method::{Plugin, PluginKind as Kind};
