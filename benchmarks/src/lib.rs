//! The data sets, scenarios and the embedded backbone that come with cilbench: one file a data set, one TOML file a scenario.
#![deny(missing_docs)]

use cilbench::scenario::ScenarioEntry;

mod cifar100;
mod fashion_mnist;
mod vit_nano;

/// Registers scenario files of `benchmarks/scenarios/`.
macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {$(
        inventory::submit! {
            ScenarioEntry { file: concat!($name, ".toml"), toml: include_str!(concat!("../scenarios/", $name, ".toml")) }
        }
    )*};
}

scenarios!["cifar100-5", "cifar100-10", "cifar100-20", "cifar100-50", "split-fashion-mnist-5"];
