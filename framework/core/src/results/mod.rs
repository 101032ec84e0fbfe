//! Results: one run, one folder. `run.json` says exactly what was run and what came out.

mod checkpoint;
mod find;
mod folder;
pub mod leaderboard;
mod lock;
mod predictions;
mod record;
pub mod significance;
mod statistics;

pub use checkpoint::{Checkpoint, Running};
pub use find::{Found, find_runs};
pub use folder::{RunFolder, difference};
pub use lock::Lock;
pub use record::{Costs, Identity, JOBS, Machine, Receipt, Record, Status, TaskRecord};
pub use statistics::Statistics;
