//! The methods that come with cilbench, one file each. Adding one is a new file and its `mod` line here.
#![deny(missing_docs)]

mod fixtures;
mod inflora;
mod lora;
mod lora_ca;
mod simplecil;
mod slda;
mod sr2_lora;

pub use inflora::InfLora;
pub use lora::Lora;
pub use lora_ca::LoraCa;
pub use simplecil::SimpleCil;
pub use slda::Slda;
pub use sr2_lora::{Alignment, Sr2Lora};
