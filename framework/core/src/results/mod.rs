//! Results: one run, one folder. `run.json` says exactly what was run and what came out.

mod folder;
mod record;

pub use folder::RunFolder;
pub use record::{Costs, Identity, Machine, Record, Status, TaskRecord};
