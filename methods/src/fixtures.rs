//! Recorded trajectories of the authors' own code, built in so that `cilbench verify` works
//! anywhere (see `methods/fixtures/README.md`).

use cilbench::verify::FixtureEntry;

macro_rules! fixtures {
    ($($file:literal),* $(,)?) => {$(
        inventory::submit! { FixtureEntry { file: $file, bytes: include_bytes!(concat!("../fixtures/", $file)) } }
    )*};
}

fixtures![
    "inflora_adam.safetensors",
    "inflora_retain.safetensors",
    "lora-ca_adam.safetensors",
    "sr2-lora_adam.safetensors",
    "sr2-lora_features_adam.safetensors",
    "sr2-lora_sgd.safetensors"
];
