//! Results: one run, one folder. `run.json` says exactly what was run and what came out.

mod checkpoint;
mod folder;
pub mod leaderboard;
mod lock;
mod record;
mod statistics;

pub use checkpoint::{Checkpoint, Running};
pub use folder::{RunFolder, difference};
pub use lock::Lock;
pub use record::{Costs, Identity, Machine, Receipt, Record, Status, TaskRecord};
pub use statistics::Statistics;
