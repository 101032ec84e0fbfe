//! The protocol engine: drives tasks, epochs and batches, answers the method's calls, scores, and records.

mod bench;
mod drift;
mod drive;
mod engine;
mod evaluate;
mod host;
mod memory;

pub use bench::{StepSeconds, bench_steps};
pub(crate) use drive::to_tensors;
pub use drive::{Feed, Start, Step, train_task};
pub use engine::{Event, Progress, RunPlan, execute, pretraining_warning};
pub use evaluate::evaluate;
pub use host::TaskHost;
pub(crate) use memory::payload_rows;
pub use memory::{Memory, MemoryImage};
