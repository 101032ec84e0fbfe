//! `command.json`: what a run folder was started with, so that the run can go on or be used again.

use std::path::{Path, PathBuf};

use cilbench::method::MethodEntry;
use cilbench::scenario::ClassOrder;
use cilbench::{Error, Result};

use crate::args::{
    BackboneArgs, DataSourceArgs, Experiment, PluginUse, RunArgs, ScenarioArgs, SettingArgs,
};
use crate::plugins;

const NAME: &str = "command.json";

/// Reads the options that a run folder was started with.
pub(crate) fn read(folder: &Path) -> Result<RunArgs> {
    let file = folder.join(NAME);
    let text = std::fs::read_to_string(&file).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Error::usage(format!(
            "{}: this is no run folder: there is no {NAME} in it",
            folder.display()
        )),
        _ => Error::io(&file)(e),
    })?;
    serde_json::from_str(&text)
        .map_err(|e| Error::file(&file, format!("cannot be understood: {e}")))
}

/// Writes the options into the run folder, with paths that hold from every folder.
pub(crate) fn write(folder: &Path, args: &RunArgs, entry: &MethodEntry) -> Result<()> {
    let file = folder.join(NAME);
    let text = serde_json::to_string_pretty(&with_absolute_paths(args, entry)?)
        .map_err(|e| Error::file(&file, format!("cannot be written as JSON: {e}")))?;
    // The file is renamed into place: a process that is killed here leaves no half of it.
    let part = folder.join("command.json.tmp");
    std::fs::write(&part, text)
        .and_then(|()| std::fs::rename(&part, &file))
        .map_err(Error::io(&file))
}

fn with_absolute_paths(args: &RunArgs, entry: &MethodEntry) -> Result<RunArgs> {
    let absolute = |path: &Option<PathBuf>| {
        path.as_ref().map(|p| std::path::absolute(p).unwrap_or_else(|_| p.clone()))
    };
    let experiment = &args.experiment;
    let (scenario, backbone) = (&experiment.scenario, &experiment.backbone);
    // A scenario file may be named from another folder when the run is resumed.
    let scenario_name = match scenario.scenario.ends_with(".toml") {
        true => std::path::absolute(&scenario.scenario)
            .map_or(scenario.scenario.clone(), |p| p.display().to_string()),
        false => scenario.scenario.clone(),
    };
    // The same holds for a file of class names.
    let class_order = scenario.class_order.as_deref().map(|text| match text.parse() {
        Ok(ClassOrder::File(file)) => {
            std::path::absolute(&file).map_or(text.to_owned(), |p| p.display().to_string())
        }
        _ => text.to_owned(),
    });
    let source = DataSourceArgs {
        data_root: absolute(&scenario.source.data_root),
        ..scenario.source.clone()
    };
    let experiment = Experiment {
        settings: SettingArgs {
            config: absolute(&experiment.settings.config),
            ..experiment.settings.clone()
        },
        plugins: PluginUse {
            plugins: plugins::place_of(entry)?.into_iter().collect(),
            ..experiment.plugins.clone()
        },
        scenario: ScenarioArgs { scenario: scenario_name, class_order, source, ..scenario.clone() },
        backbone: BackboneArgs { weights: absolute(&backbone.weights), ..backbone.clone() },
        ..experiment.clone()
    };
    Ok(RunArgs { experiment, ..args.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 0.1.0 wrote it, before options were grouped.
    const OLD: &str = r#"{
        "method": "lora", "scenario": "split-fashion-mnist-5", "backbone": null, "weights": "/w.safetensors", "weights_key": "teacher",
        "data_root": null, "split": null, "class_order": "seed:3", "image_size": 32, "train_per_class": 6,
        "test_per_class": 5, "epochs": 2, "batch_size": null, "seed": 18446744073709551615, "config": null,
        "set": ["rank=4"], "heads": null, "mean": [0.5, 0.5, 0.5], "std": null, "device": "cpu", "dtype": "F64",
        "out": "/out", "seeds": [], "class_orders": [],
        "activations": {"micro_batch": 3, "checkpoint_blocks": false}, "checkpoint_minutes": 10.0,
        "checkpoint_steps": null, "keep": 2, "isolate": true, "plugins": ["/p.so"], "plugin_timeout": 7.5,
        "audit": true, "dry_run": false
    }"#;

    #[test]
    fn a_file_from_before_options_were_grouped_is_read_and_written_with_the_same_keys() {
        let args: RunArgs = serde_json::from_str(OLD).expect("read");
        assert_eq!(args.experiment.method, "lora");
        assert_eq!(args.experiment.activations.micro_batch, Some(3));
        assert_eq!((args.sweep.seed, args.checkpoints.keep, args.audit), (u64::MAX, 2, true));
        let written = serde_json::to_value(&args).expect("written");
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(OLD).expect("JSON"));
    }

    #[test]
    fn what_the_first_version_did_not_write_has_its_default() {
        let mut old: serde_json::Value = serde_json::from_str(OLD).expect("JSON");
        let keys = old.as_object_mut().expect("an object");
        ["weights_key", "split", "activations", "isolate", "plugins", "plugin_timeout"]
            .iter()
            .for_each(|key| drop(keys.remove(*key)));
        let args: RunArgs = serde_json::from_value(old).expect("read");
        assert!(!args.experiment.plugins.isolate && args.experiment.plugins.plugins.is_empty());
        keys_are_needed(OLD, "method");
    }

    fn keys_are_needed(text: &str, key: &str) {
        let mut value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        value.as_object_mut().expect("an object").remove(key);
        let error = serde_json::from_value::<RunArgs>(value).expect_err("must be refused");
        assert!(error.to_string().contains(key), "{error}");
    }
}
