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
pub use serve::{Instance, build, catching};

use serde::{Deserialize, Serialize};

/// How a plugin is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A dynamic library, opened by this process or by a child of it.
    Binary,
    /// A program of its own.
    Process,
}

/// Which plugin a method came from: part of a run's identity. Where the file lies is not, as it changes no number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// How it is run.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of the ABI (of a binary) or of the message protocol (of a process) that it speaks.
    pub protocol: u32,
    /// SHA-256 of its file.
    pub sha256: String,
}

impl Plugin {
    /// Kind, name, version and the version of the ABI or protocol.
    pub fn short(&self) -> String {
        let (kind, spoken) = match self.kind {
            Kind::Binary => ("binary plugin", "ABI"),
            Kind::Process => ("process plugin", "protocol"),
        };
        format!("{kind} {} {}, {spoken} {}", self.name, self.version, self.protocol)
    }
}

impl std::fmt::Display for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (sha256 {})", self.short(), self.sha256)
    }
}
