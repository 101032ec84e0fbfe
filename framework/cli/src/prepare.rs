//! From arguments to everything a run needs, with every input checked before an image is trained on.

use std::collections::BTreeSet;
use std::path::Path;

use cilbench::backbone::{self, Backbone, BackboneEntry, BackboneInfo, BackboneOptions, BackboneSource};
use cilbench::config::{Layer, parse_setting, read_file};
use cilbench::context::Placement;
use cilbench::data;
use cilbench::method::{self, MethodEntry, Player, Setup};
use cilbench::results::Identity;
use cilbench::run::pretraining_warning;
use cilbench::scenario::{self, ClassOrder, Opened, Scenario, ScenarioOptions, ScenarioSpec, TaskStream};
use cilbench::toml::{Table, Value};
use cilbench::{Error, Result, device};

use crate::args::RunArgs;
use crate::hub::hub;
use crate::plugin::{self, Loader};

/// A run, ready to go, but for its seed and class order.
pub(crate) struct Prepared {
    pub entry: &'static MethodEntry,
    pub spec: ScenarioSpec,
    pub config: Table,
    pub placement: Placement,
    pub info: BackboneInfo,
    pub warnings: Vec<String>,
    device_name: String,
    precision: &'static str,
    backbone_entry: &'static BackboneEntry,
    backbone_options: BackboneOptions,
    options: ScenarioOptions,
    kept_images: Option<usize>,
    pub opened: Opened,
}

impl Prepared {
    /// Checks names, hyper-parameters, weights and data.
    pub(crate) fn new(args: &RunArgs) -> Result<Self> {
        let layers = layers(args)?;
        args.weights.as_deref().map_or(Ok(()), |path| there_is("--weights", path))?;
        if let Some(folder) = args.weights.as_deref().filter(|path| path.is_dir()) {
            return Err(Error::usage(format!("--weights {}: this is a folder; name the safetensors file in it", folder.display())));
        }
        let entry = method::find(&args.method)?;
        let spec = scenario::find(&args.scenario)?;
        let dataset = data::find(&spec.dataset)?;
        let config = entry.configure(&spec.dataset, &layers)?;
        let device = device::open(&args.device)?;
        let (dtype, precision) = args.dtype.dtype();
        let class_order = args.class_order.as_deref().map(str::parse).transpose()?;
        let fallback = if args.weights.is_some() { "vit" } else { "vit-nano" };
        let backbone_name = args.backbone.clone().unwrap_or_else(|| fallback.to_owned());
        let backbone_options = BackboneOptions {
            weights: args.weights.clone(),
            image_size: args.image_size.or(spec.image_size),
            heads: args.heads,
            mean: triple("--mean", args.mean.as_deref())?,
            std: triple("--std", args.std.as_deref())?,
            weights_key: args.weights_key.clone(),
            ..BackboneOptions::default()
        };
        let hub = hub();
        let (backbone_entry, backbone_options) = backbone::resolve(&backbone_name, backbone_options, &hub)?;
        let kept_images = args.activations.kept_images()?;
        if kept_images.is_some() && entry.origin.plugin().is_some() {
            let name = entry.about.name;
            return Err(Error::usage(format!(
                "--micro-batch and --checkpoint-blocks do not reach into a plugin: leave them out for '{name}', or take a smaller batch_size"
            )));
        }
        let mut backbone = (backbone_entry.build)(&backbone_options, dtype, &device)?;
        backbone.keep_activations(kept_images)?;
        let info = backbone.info().clone();
        // Every hyper-parameter is checked here, before an image is read.
        let source = BackboneSource { entry: backbone_entry.name.to_owned(), options: backbone_options.clone() };
        let placement = Placement { device, dtype };
        let method = entry.build_on(&config, Setup { backbone, placement: placement.clone() }, Some(&source))?;
        let options = ScenarioOptions {
            class_order,
            image_size: Some(info.image_size),
            train_per_class: args.train_per_class,
            test_per_class: args.test_per_class,
        };
        let mut warnings: Vec<String> = pretraining_warning(&info.pretrained_on, dataset.name, dataset.aliases).into_iter().collect();
        info.notes.iter().for_each(|note| eprintln!("weights: {note}"));
        if !info.assumed.is_empty() {
            let what = info.assumed.join("; ");
            warnings.push(format!("nothing states it, so it is assumed of the backbone: {what}"));
        }
        let opened = scenario::open_dataset(&spec, args.data_root.as_deref(), args.split.as_deref(), &hub)?;
        warnings.extend(dataset.miscounted(&opened.split, &*opened.dataset));
        let device_name = args.device.clone();
        let prepared = Self {
            entry,
            spec,
            config,
            placement,
            info,
            warnings,
            device_name,
            precision,
            backbone_entry,
            backbone_options,
            options,
            kept_images,
            opened,
        };
        let stream = prepared.scenario(None)?;
        scenario::require_whole(&stream)?;
        method.check(&stream.info().facts())?;
        Ok(prepared)
    }

    /// The scenario, in this class order or in its own.
    pub(crate) fn scenario(&self, class_order: Option<ClassOrder>) -> Result<TaskStream> {
        let options = ScenarioOptions { class_order: class_order.or(self.options.class_order.clone()), ..self.options.clone() };
        TaskStream::new(&self.spec, &options, self.opened.dataset.clone(), self.opened.split.clone())
    }

    /// The backbone, with its own weights.
    fn backbone(&self) -> Result<Box<dyn Backbone>> {
        let mut backbone = (self.backbone_entry.build)(&self.backbone_options, self.placement.dtype, &self.placement.device)?;
        backbone.keep_activations(self.kept_images)?;
        Ok(backbone)
    }

    /// The method with nothing learned, on a backbone of its own.
    pub(crate) fn build(&self) -> Result<Box<dyn Player>> {
        let source = BackboneSource { entry: self.backbone_entry.name.to_owned(), options: self.backbone_options.clone() };
        let setup = Setup { backbone: self.backbone()?, placement: self.placement.clone() };
        self.entry.build_on(&self.config, setup, Some(&source))
    }

    /// What decides the numbers of the run with this scenario and seed.
    pub(crate) fn identity(&self, scenario: &dyn Scenario, seed: u64) -> Identity {
        Identity {
            method: self.entry.about.name.to_owned(),
            method_version: self.entry.about.version.to_owned(),
            config: self.config.clone(),
            scenario: scenario.info().clone(),
            backbone: self.info.clone(),
            // The file's hash says which weights; where they lie does not change a number.
            backbone_options: BackboneOptions { weights: None, ..self.backbone_options.clone() },
            seed,
            dtype: self.precision.to_owned(),
            device: self.device_name.clone(),
            plugin: self.entry.origin.plugin().cloned(),
        }
    }

    /// The first digits of a hash over all that a sweep over seeds and class orders leaves alone.
    pub(crate) fn hash(&self) -> Result<String> {
        Ok(self.identity(&self.scenario(Some(ClassOrder::Natural))?, 0).hash()[..4].to_owned())
    }
}

/// Refuses a path of the command line that leads to nothing.
pub(crate) fn there_is(flag: &str, path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let from = if path.is_absolute() { "" } else { " from this folder on" };
    Err(Error::usage(format!("{flag} {}: there is no such file or folder{from}; check the path", path.display())))
}

/// The arguments a run folder was started with.
pub(crate) fn started_with(folder: &Path) -> Result<RunArgs> {
    let file = folder.join("command.json");
    let text = std::fs::read_to_string(&file).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            Error::usage(format!("{}: this is no run folder: there is no command.json in it", folder.display()))
        }
        _ => Error::io(&file)(e),
    })?;
    serde_json::from_str(&text).map_err(|e| Error::file(&file, format!("cannot be understood: {e}")))
}

/// Writes down what a run folder was started with.
pub(crate) fn write_command(folder: &Path, args: &RunArgs, entry: &MethodEntry) -> Result<()> {
    let absolute = |p: &Option<std::path::PathBuf>| p.as_ref().map(|p| std::path::absolute(p).unwrap_or_else(|_| p.clone()));
    // A scenario file may be named from another folder when the run is resumed.
    let scenario = match args.scenario.ends_with(".toml") {
        true => std::path::absolute(&args.scenario).map_or(args.scenario.clone(), |p| p.display().to_string()),
        false => args.scenario.clone(),
    };
    // So may a file of class names.
    let order = args.class_order.as_deref().map(|text| match text.parse() {
        Ok(ClassOrder::File(file)) => std::path::absolute(&file).map_or(text.to_owned(), |p| p.display().to_string()),
        _ => text.to_owned(),
    });
    let args = RunArgs {
        weights: absolute(&args.weights),
        class_order: order,
        data_root: absolute(&args.data_root),
        config: absolute(&args.config),
        plugins: plugin::absolute(entry)?.into_iter().collect(),
        scenario,
        ..args.clone()
    };
    let file = folder.join("command.json");
    let text = serde_json::to_string_pretty(&args).map_err(|e| Error::Protocol(format!("command.json cannot be written: {e}")))?;
    let part = folder.join("command.json.tmp");
    std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, &file)).map_err(Error::io(&file))
}

/// The user's settings: the file, then `--set`, then the flags that stand for a key. Plugins that the file, or the run's beginning, names are opened.
fn layers(args: &RunArgs) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    let loader = Loader { isolate: args.isolate };
    if let Some(path) = &args.config {
        there_is("--config", path)?;
        let mut table = read_file(path)?;
        plugin::in_config(path, &mut table)?.iter().try_for_each(|name| loader.open(name))?;
        layers.push(Layer { origin: path.display().to_string(), table });
    }
    if method::find(&args.method).is_err() {
        args.plugins.iter().try_for_each(|name| loader.open(name))?;
    }
    let mut given = BTreeSet::new();
    for setting in &args.set {
        let (key, value) = parse_setting(setting)?;
        if !given.insert(key.clone()) {
            return Err(Error::usage(format!("--set {setting}: there is another --set for {key}; leave one out")));
        }
        layers.push(Layer { origin: "--set".into(), table: Table::from_iter([(key, value)]) });
    }
    for (flag, key, value) in [("--epochs", "epochs", args.epochs), ("--batch-size", "batch_size", args.batch_size)] {
        if let Some(value) = value {
            if given.contains(key) {
                return Err(Error::usage(format!("{flag} {value}: there is a --set for {key} too; leave one out")));
            }
            layers.push(Layer { origin: flag.into(), table: Table::from_iter([(key.to_owned(), Value::Integer(value))]) });
        }
    }
    Ok(layers)
}

fn triple(flag: &str, values: Option<&[f64]>) -> Result<Option<[f64; 3]>> {
    let Some(values) = values else { return Ok(None) };
    let bad = |_| Error::usage(format!("{flag}: expected three numbers, as in 0.5,0.5,0.5, got {}", values.len()));
    <[f64; 3]>::try_from(values).map(Some).map_err(bad)
}
