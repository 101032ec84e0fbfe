//! The methods that come with cilbench, one file each. Adding one is a new file and its `mod` line
//! here.
#![deny(missing_docs)]

mod aper;
mod der;
mod er;
mod finetune;
mod fixtures;
mod icarl;
mod inflora;
mod joint;
mod l2p;
mod linear_probe;
mod lora;
mod lora_ca;
mod lwf;
mod pm;
mod ranpac;
mod simplecil;
mod slda;
mod sr2_lora;

pub use aper::AperAdapter;
pub use der::DerPlusPlus;
pub use er::Er;
pub use finetune::Finetune;
pub use icarl::{Distillation, Icarl};
pub use inflora::{DualGpm, InfLora};
pub use joint::Joint;
pub use l2p::L2p;
pub use linear_probe::LinearProbe;
pub use lora::Lora;
pub use lora_ca::LoraCa;
pub use lwf::Lwf;
pub use pm::PerturbAndMerge;
pub use ranpac::RanPac;
pub use simplecil::SimpleCil;
pub use slda::Slda;
pub use sr2_lora::{Alignment, Sr2Lora};
