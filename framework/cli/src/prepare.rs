//! From options to everything an experiment needs, with every input checked before an image is
//! trained on.

use std::cell::RefCell;
use std::path::Path;

use cilbench::backbone::{self, BackboneEntry, BackboneInfo, BackboneOptions, BackboneSource};
use cilbench::context::Placement;
use cilbench::data;
use cilbench::method::{self, MethodEntry, Player, Setup};
use cilbench::results::Identity;
use cilbench::run::pretraining_warning;
use cilbench::scenario::{
    self, ClassOrder, Opened, Scenario, ScenarioOptions, ScenarioSpec, TaskStream,
};
use cilbench::toml::Table;
use cilbench::{Error, Result};

use crate::args::{ActivationArgs, DataArgs, DeviceArgs, Experiment, ScenarioArgs};
use crate::hub::hub;
use crate::paths::require_exists;
use crate::plugins;
use crate::settings::Settings;

/// Finds a scenario and opens its data set. Images may be missing in it.
pub(crate) fn open_data(args: &DataArgs) -> Result<(ScenarioSpec, Opened)> {
    let spec = scenario::find(&args.scenario)?;
    let source = &args.source;
    let opened = scenario::open_dataset(
        &spec,
        source.data_root.as_deref(),
        source.split.as_deref(),
        &hub(),
    )?;
    Ok((spec, opened))
}

/// A scenario with its data set opened.
pub(crate) struct OpenScenario {
    spec: ScenarioSpec,
    options: ScenarioOptions,
    pub opened: Opened,
}

impl OpenScenario {
    /// Opens the data set. `image_size` is in pixels.
    pub(crate) fn open(spec: ScenarioSpec, args: &ScenarioArgs, image_size: usize) -> Result<Self> {
        let source = &args.source;
        let opened = scenario::open_dataset(
            &spec,
            source.data_root.as_deref(),
            source.split.as_deref(),
            &hub(),
        )?;
        let options = ScenarioOptions {
            class_order: args.class_order()?,
            image_size: Some(image_size),
            train_per_class: args.train_per_class,
            test_per_class: args.test_per_class,
        };
        Ok(Self { spec, options, opened })
    }

    /// The stream of its tasks, in this class order or, for none, in that of its options.
    pub(crate) fn stream(&self, class_order: Option<ClassOrder>) -> Result<TaskStream> {
        let options = ScenarioOptions {
            class_order: class_order.or_else(|| self.options.class_order.clone()),
            ..self.options.clone()
        };
        TaskStream::new(
            &self.spec,
            &options,
            self.opened.dataset.clone(),
            self.opened.split.clone(),
        )
    }
}

/// What a method is built from.
struct Recipe {
    entry: &'static MethodEntry,
    config: Table,
    placement: Placement,
    backbone: &'static BackboneEntry,
    options: BackboneOptions,
    kept_images: Option<usize>,
}

impl Recipe {
    /// The method with nothing learned, on a backbone of its own, and the facts of the backbone.
    fn build(&self) -> Result<(Box<dyn Player>, BackboneInfo)> {
        let mut backbone =
            (self.backbone.build)(&self.options, self.placement.dtype, &self.placement.device)?;
        backbone.keep_activations(self.kept_images)?;
        let info = backbone.info().clone();
        let source =
            BackboneSource { entry: self.backbone.name.to_owned(), options: self.options.clone() };
        let setup = Setup { backbone, placement: self.placement.clone() };
        Ok((self.entry.build_on(&self.config, setup, Some(&source))?, info))
    }
}

/// An experiment that is ready to run, but for its seed and class order.
pub(crate) struct Prepared {
    recipe: Recipe,
    /// The method that was built to check its hyper-parameters. The first run takes it: reading and
    /// hashing weights, and starting a plugin's process, is not done twice.
    checked: RefCell<Option<Box<dyn Player>>>,
    pub info: BackboneInfo,
    pub warnings: Vec<String>,
    pub scenario: OpenScenario,
    device: DeviceArgs,
}

impl Prepared {
    /// Checks names, hyper-parameters, weights and data.
    pub(crate) fn new(args: &Experiment) -> Result<Self> {
        let settings = Settings::read(&args.settings)?;
        plugins::open_for(args, &settings.plugins)?;
        args.backbone.weights.as_deref().map_or(Ok(()), require_weights_file)?;
        let entry = method::find(&args.method)?;
        let spec = scenario::find(&args.scenario.scenario)?;
        let dataset = data::find(&spec.dataset)?;
        let config = entry.configure(&spec.dataset, &settings.layers)?;
        let placement = args.device.placement()?;
        args.scenario.class_order()?;
        let options = args.backbone.options(args.scenario.image_size.or(spec.image_size))?;
        let (backbone, options) = backbone::resolve(args.backbone.name(), options, &hub())?;
        let kept_images = kept_images(entry, &args.activations)?;
        let recipe = Recipe { entry, config, placement, backbone, options, kept_images };
        // Every hyper-parameter is checked here, before an image is read.
        let (player, info) = recipe.build()?;
        let scenario = OpenScenario::open(spec, &args.scenario, info.image_size)?;
        let stream = scenario.stream(None)?;
        scenario::require_whole(&stream)?;
        player.check(&stream.info().facts())?;
        let mut warnings: Vec<String> =
            pretraining_warning(&info.pretrained_on, dataset.name, dataset.aliases)
                .into_iter()
                .collect();
        info.notes.iter().for_each(|note| eprintln!("weights: {note}"));
        if !info.assumed.is_empty() {
            warnings.push(format!(
                "nothing states it, so it is assumed of the backbone: {}",
                info.assumed.join("; ")
            ));
        }
        warnings.extend(dataset.miscounted(&scenario.opened.split, &*scenario.opened.dataset));
        Ok(Self {
            recipe,
            checked: RefCell::new(Some(player)),
            info,
            warnings,
            scenario,
            device: args.device.clone(),
        })
    }

    /// The method's entry.
    pub(crate) fn entry(&self) -> &'static MethodEntry {
        self.recipe.entry
    }

    /// The method's hyper-parameters, all of them.
    pub(crate) fn config(&self) -> &Table {
        &self.recipe.config
    }

    /// The device and the floating-point type.
    pub(crate) fn placement(&self) -> &Placement {
        &self.recipe.placement
    }

    /// The stream of the scenario's tasks, in this class order or, for none, in its own.
    pub(crate) fn stream(&self, class_order: Option<ClassOrder>) -> Result<TaskStream> {
        self.scenario.stream(class_order)
    }

    /// The method with nothing learned, on a backbone of its own.
    pub(crate) fn build(&self) -> Result<Box<dyn Player>> {
        match self.checked.take() {
            Some(player) => Ok(player),
            None => Ok(self.recipe.build()?.0),
        }
    }

    /// What decides the numbers of the run with this scenario and seed.
    pub(crate) fn identity(&self, scenario: &dyn Scenario, seed: u64) -> Identity {
        let entry = self.recipe.entry;
        Identity {
            method: entry.about.name.to_owned(),
            method_version: entry.about.version.to_owned(),
            config: self.recipe.config.clone(),
            scenario: scenario.info().clone(),
            backbone: self.info.clone(),
            // The backbone's hash identifies the weights. Their path does not change a number.
            backbone_options: BackboneOptions { weights: None, ..self.recipe.options.clone() },
            seed,
            dtype: self.device.precision().to_owned(),
            device: self.device.device.clone(),
            plugin: entry.origin.plugin().cloned(),
        }
    }

    /// The first digits of a hash over everything that a sweep over seeds and class orders keeps.
    pub(crate) fn hash(&self) -> Result<String> {
        Ok(self.identity(&self.stream(Some(ClassOrder::Natural))?, 0).hash()[..4].to_owned())
    }
}

fn require_weights_file(path: &Path) -> Result<()> {
    require_exists("--weights", path)?;
    match path.is_dir() {
        true => Err(Error::usage(format!(
            "--weights {}: this is a folder; name the safetensors file in it",
            path.display()
        ))),
        false => Ok(()),
    }
}

/// The number of images of a batch whose activations are kept; none for all images.
fn kept_images(entry: &MethodEntry, args: &ActivationArgs) -> Result<Option<usize>> {
    let kept = args.kept_images()?;
    if kept.is_some() && entry.origin.plugin().is_some() {
        return Err(Error::usage(format!(
            "--micro-batch and --checkpoint-blocks do not reach into a plugin: leave them out for '{}', or take a smaller batch_size",
            entry.about.name
        )));
    }
    Ok(kept)
}
