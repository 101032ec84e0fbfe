//! Tables, figures and pages from run folders: the leaderboard's exports and `cilbench report`.
#![deny(missing_docs)]

mod compare;
pub mod export;
pub mod figure;
#[cfg(test)]
mod fixture;
pub mod output;
mod page;
pub mod table;
mod tensorboard;

pub use compare::{Comparison, Paired, compare};
pub use page::{Report, report};
pub use tensorboard::tensorboard;
