//! The protocol and its driver: tasks, epochs and batches, the answers to a method's calls,
//! scoring, and the record of a run.

mod bench;
mod drift;
mod engine;
mod evaluate;
mod exemplars;
mod protocol;
mod session;
mod task_host;

pub use bench::{BenchAt, StepSeconds, bench_steps};
pub use engine::{Event, Progress, RunPlan, execute, pretraining_warning};
pub use evaluate::{TEST_BATCH, evaluate};
pub use exemplars::Memory;
pub(crate) use exemplars::payload_rows;
pub(crate) use protocol::to_tensors;
pub use protocol::{Batches, Course, Feed, Position, Shown, Step, TaskDrive};
pub use session::EpochFeed;
pub use task_host::TaskHost;
