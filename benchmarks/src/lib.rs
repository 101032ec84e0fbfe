//! The data sets, scenarios and the embedded backbone that come with cilbench: one file per data
//! set, one TOML file per scenario.
#![deny(missing_docs)]

use cilbench::scenario::ScenarioEntry;

mod cifar100;
mod class_folders;
mod cub200;
mod domainnet;
mod fashion_mnist;
mod folder;
#[cfg(test)]
mod fuzz;
mod idx;
mod imagenet_a;
mod imagenet_r;
mod parquet;
#[cfg(test)]
#[path = "../tests/parquet_file/mod.rs"]
mod parquet_file;
mod sides;
mod unpack;
mod vit_nano;

/// Registers scenario files of `benchmarks/scenarios/`.
macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {$(
        inventory::submit! {
            ScenarioEntry { file: concat!($name, ".toml"), toml: include_str!(concat!("../scenarios/", $name, ".toml")) }
        }
    )*};
}

scenarios![
    "cifar100-5",
    "cifar100-10",
    "cifar100-20",
    "cifar100-50",
    "cifar100-b50-inc10",
    "cub200-5",
    "cub200-10",
    "cub200-20",
    "dn4il-dil",
    "domainnet-5",
    "domainnet-dil",
    "imagenet-a-10",
    "imagenet-a-20",
    "imagenet-r-5",
    "imagenet-r-10",
    "imagenet-r-20",
    "imagenet-r-50",
    "split-fashion-mnist-5",
];
