//! The options that several commands share, in groups: a command flattens the groups it needs.

mod data;
mod device;
mod finished;
mod global;
mod network;
mod run;
mod settings;

pub(crate) use data::{DataArgs, DataSourceArgs, ScenarioArgs};
pub(crate) use device::DeviceArgs;
pub(crate) use finished::FinishedArgs;
pub(crate) use global::GlobalArgs;
pub(crate) use network::{ActivationArgs, BackboneArgs, NetworkArgs, Size};
pub(crate) use run::{Experiment, PluginUse, RunArgs};
pub(crate) use settings::SettingArgs;
