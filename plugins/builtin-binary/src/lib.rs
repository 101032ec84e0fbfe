//! Built-in methods once more, as a binary plugin. Each must give the bits of the one that is
//! linked in.

use cilbench_methods::{DerPlusPlus, InfLora, Lora, PerturbAndMerge, Sr2Lora};

cilbench::export_method!(
    Lora as "lora-binary",
    Sr2Lora as "sr2-lora-binary",
    InfLora as "inflora-binary",
    PerturbAndMerge as "pm-binary",
    DerPlusPlus as "der++-binary",
);

// A library has an allocator of its own. Batches and activations are large and short-lived, which
// the system's allocator handles slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
