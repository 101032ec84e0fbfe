//! The protocol engine: drives tasks, epochs and batches, answers the method's calls, scores, and records.

mod drive;
mod engine;
mod evaluate;
mod host;
mod memory;

pub use drive::{Feed, Step, train_task};
pub use engine::{Event, Progress, RunPlan, execute, pretraining_warning};
pub use host::TaskHost;
pub use memory::Memory;
