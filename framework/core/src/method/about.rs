//! What is known of a method without building it.

use serde::{Deserialize, Serialize};

use crate::scenario::Access;

/// What is known of a method without building it. Fill in what differs from [`About::DEFAULT`].
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// The name on the command line.
    pub name: &'static str,
    /// The version of its arithmetic. It is raised whenever results change by more than rounding.
    pub version: &'static str,
    /// One line.
    pub summary: &'static str,
    /// The paper, as BibTeX.
    pub paper: &'static str,
    /// What it may see of past images.
    pub access: Access,
    /// What it trains, in words.
    pub trains: &'static str,
    /// Presets: a TOML file with one table per data set, its keys those of the configuration. A
    /// table has the name that `cilbench list datasets` shows; `include_str!` reads the file.
    pub presets: &'static str,
    /// How the conformance suite tries it.
    pub trial: Trial,
}

impl About {
    /// Version 1, access to the stream alone, all texts empty.
    pub const DEFAULT: Self = Self {
        name: "",
        version: "1",
        summary: "",
        paper: "",
        access: Access::Stream,
        trains: "",
        presets: "",
        trial: Trial { settings: "", backbone: TrialBackbone::Vit },
    };
}

/// How the conformance suite and other small trials build a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// TOML: settings that make it small, on top of its defaults.
    pub settings: &'static str,
    /// The backbone that it is built on.
    pub backbone: TrialBackbone,
}

/// A tiny backbone with random weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialBackbone {
    /// A plain ViT.
    Vit,
}

/// How a plugin is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A dynamic library, opened by this process or by a child of it.
    Binary,
    /// A program of its own.
    Process,
}

/// Which plugin a method came from. This is part of a run's identity. The path of its file is not,
/// since it changes no number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// How it is run.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of the ABI (of a binary) or of the message protocol (of a process) it speaks.
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
