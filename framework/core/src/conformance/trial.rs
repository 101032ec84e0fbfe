//! A small real run: a random tiny ViT, made-up images that differ by class, a run folder that goes
//! away.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use toml::{Table, Value};

use crate::backbone::{BackboneOptions, Vit, WeightsFile};
use crate::config::Layer;
use crate::context::Placement;
use crate::data::{Dataset, RgbImage, Sample, Split};
use crate::method::{MethodEntry, Player, Setup, TrialBackbone};
use crate::plugin::loopback;
use crate::results::{Identity, Record, RunFolder};
use crate::rng::{Purpose, stream};
use crate::run::{Event, Progress, RunPlan, execute};
use crate::scenario::{ClassOrder, Scenario, ScenarioOptions, ScenarioSpec, TaskStream};
use crate::{Error, Result};

const CLASSES: usize = 4;
const SIZE: usize = 16;
const DIM: usize = 16;
const DEPTH: usize = 2;

/// A run of a certain shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial {
    pub tasks: usize,
    /// Training images a class.
    pub images: usize,
    pub batch: usize,
    pub audit: bool,
    /// Stop after so many training steps, then resume.
    pub stop_after: Option<usize>,
}

impl Default for Trial {
    fn default() -> Self {
        Self { tasks: 2, images: 4, batch: 4, audit: false, stop_after: None }
    }
}

/// What must be equal between runs that ought to be: hash of the state and accuracies after each
/// task.
pub(crate) struct Outcome {
    pub tasks: Vec<(String, Vec<f64>)>,
    pub stored_images: usize,
}

struct Quiet<'a> {
    left: Option<usize>,
    stop: &'a AtomicBool,
}

impl Progress for Quiet<'_> {
    fn show(&mut self, event: Event) {
        if let (Event::Step(_), Some(left)) = (&event, &mut self.left) {
            *left = left.saturating_sub(1);
            self.stop.store(*left == 0, Ordering::Relaxed);
        }
    }
}

impl Trial {
    /// The method's configuration: its defaults, made small where they have the usual names.
    fn config(&self, entry: &MethodEntry) -> Result<Table> {
        let small = [("epochs", 2), ("batch_size", self.batch as i64), ("rank", 2)];
        let known = entry.fields();
        let small = small.iter().filter(|(key, _)| known.iter().any(|f| f.key == *key));
        let usual = small.map(|(k, v)| ((*k).to_owned(), Value::Integer(*v)));
        let usual = Layer { origin: "conformance".into(), table: Table::from_iter(usual) };
        let name = entry.about.name;
        let table = toml::from_str(entry.about.trial.settings).map_err(|e| {
            Error::Protocol(format!(
                "the trial settings of method '{name}' are not valid TOML: {e}"
            ))
        })?;
        entry.configure("", &[usual, Layer { origin: format!("trial settings of {name}"), table }])
    }

    fn setup(entry: &MethodEntry) -> Result<Setup> {
        let backbone = match entry.about.trial.backbone {
            TrialBackbone::Vit => Box::new(backbone(DType::F32)?),
        };
        Ok(Setup { backbone, placement: Placement::cpu(DType::F32) })
    }

    pub(crate) fn player(&self, entry: &MethodEntry) -> Result<Box<dyn Player>> {
        entry.build(&self.config(entry)?, Self::setup(entry)?)
    }

    /// The method as a plugin's would be: every call of it a message, in bytes.
    pub(crate) fn player_behind_messages(&self, entry: &MethodEntry) -> Result<Box<dyn Player>> {
        loopback(entry, &self.config(entry)?, Self::setup(entry)?)
    }

    pub(crate) fn scenario(&self) -> Result<TaskStream> {
        let spec = ScenarioSpec {
            class_order: ClassOrder::Seed(1993),
            ..ScenarioSpec::even("conformance", "made-up images", self.tasks)
        };
        let options = ScenarioOptions { image_size: Some(SIZE), ..ScenarioOptions::default() };
        TaskStream::new(&spec, &options, Arc::new(MadeUp::new(self.images)), "official".parse()?)
    }

    /// Runs it, stopped and resumed if so wished.
    pub(crate) fn run(&self, entry: &MethodEntry) -> Result<Outcome> {
        let place = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
        let stop = AtomicBool::new(false);
        let (build, placement) = (|| self.player(entry), Placement::cpu(DType::F32));
        let plan = RunPlan {
            build: &build,
            seed: 0,
            access: entry.about.access,
            placement: &placement,
            stop: &stop,
            keep: 1,
            every: Duration::MAX,
            every_steps: None,
            audit: self.audit,
            until: None,
        };
        let mut left = self.stop_after;
        loop {
            stop.store(false, Ordering::Relaxed);
            let mut scenario = self.scenario()?;
            let identity = self.identity(entry, &scenario)?;
            let (mut folder, _) = RunFolder::open(place.path(), &identity)?;
            let record = Record::new(identity, Vec::new());
            match execute(
                &plan,
                &mut scenario,
                &mut folder,
                record,
                &mut Quiet { left: left.take(), stop: &stop },
            ) {
                Ok(record) => {
                    let tasks = record
                        .tasks
                        .iter()
                        .map(|t| (t.state_hash.clone(), t.scores.by_task.clone()))
                        .collect();
                    return Ok(Outcome { tasks, stored_images: record.costs.stored_images });
                }
                // Only what was asked for: a method may say so by itself, again and again.
                Err(Error::Interrupted(_)) if stop.load(Ordering::Relaxed) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn identity(&self, entry: &MethodEntry, scenario: &dyn Scenario) -> Result<Identity> {
        use crate::backbone::Backbone;
        Ok(Identity {
            method: entry.about.name.to_owned(),
            method_version: entry.about.version.to_owned(),
            config: self.config(entry)?,
            scenario: scenario.info().clone(),
            backbone: backbone(DType::F32)?.info().clone(),
            backbone_options: BackboneOptions::default(),
            seed: 0,
            dtype: "f32".into(),
            device: "cpu".into(),
            plugin: entry.origin.plugin().cloned(),
        })
    }
}

/// A ViT of random weights: always the same ones.
pub(crate) fn backbone(dtype: DType) -> Result<Vit> {
    let mut tensors = BTreeMap::new();
    let mut put = |name: String, shape: &[usize], centre: f64, spread: f64| -> Result<()> {
        let mut rng = stream(0, Purpose::Draws, &[&"conformance", &name]);
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| (centre + spread * (2.0 * rng.random::<f64>() - 1.0)) as f32)
            .collect();
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
        Ok(())
    };
    put("cls_token".into(), &[1, 1, DIM], 0.0, 0.5)?;
    put("pos_embed".into(), &[1, 5, DIM], 0.0, 0.5)?;
    put("patch_embed.proj.weight".into(), &[DIM, 3, 8, 8], 0.0, 0.3)?;
    put("patch_embed.proj.bias".into(), &[DIM], 0.0, 0.1)?;
    for norm in (0..DEPTH)
        .flat_map(|i| [format!("blocks.{i}.norm1"), format!("blocks.{i}.norm2")])
        .chain(["norm".to_owned()])
    {
        put(format!("{norm}.weight"), &[DIM], 1.0, 0.1)?;
        put(format!("{norm}.bias"), &[DIM], 0.0, 0.1)?;
    }
    for i in 0..DEPTH {
        for (name, rows, columns) in [
            ("attn.qkv", 3 * DIM, DIM),
            ("attn.proj", DIM, DIM),
            ("mlp.fc1", 2 * DIM, DIM),
            ("mlp.fc2", DIM, 2 * DIM),
        ] {
            put(format!("blocks.{i}.{name}.weight"), &[rows, columns], 0.0, 0.4)?;
            put(format!("blocks.{i}.{name}.bias"), &[rows], 0.0, 0.1)?;
        }
    }
    let file =
        WeightsFile::from_tensors("conformance", "conformance".into(), HashMap::new(), tensors);
    let options = BackboneOptions { heads: Some(2), ..BackboneOptions::default() };
    Vit::new("conformance", &file, &options, dtype, &Device::Cpu)
}

/// Images whose pixels depend on class and number.
struct MadeUp {
    classes: Vec<String>,
    train: Vec<Sample>,
    test: Vec<Sample>,
}

impl MadeUp {
    fn new(images: usize) -> Self {
        let list = |split: &str, n: usize| {
            let sample = |class: usize, i: usize| Sample {
                key: format!("{split}/{class}/{i:03}"),
                label: class,
                domain: 0,
            };
            (0..CLASSES)
                .flat_map(|c| (0..n).map(move |i| (c, i)))
                .map(|(c, i)| sample(c, i))
                .collect()
        };
        Self {
            classes: (0..CLASSES).map(|c| format!("class {c}")).collect(),
            train: list("train", images),
            test: list("test", 3),
        }
    }
}

impl Dataset for MadeUp {
    fn class_names(&self) -> &[String] {
        &self.classes
    }

    fn domain_names(&self) -> &[String] {
        &self.classes[..1]
    }

    fn samples(&self, split: Split) -> &[Sample] {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }

    fn image(&self, split: Split, index: usize) -> Result<RgbImage> {
        let sample = &self.samples(split)[index];
        let (mut own, mut class) = (
            stream(1, Purpose::Draws, &[&sample.key]),
            stream(1, Purpose::Draws, &[&sample.label]),
        );
        let pixels = (0..SIZE * SIZE * 3)
            .map(|_| ((class.random::<u8>() / 2) as u16 + (own.random::<u8>() / 2) as u16) as u8)
            .collect();
        Ok(RgbImage { width: SIZE as u32, height: SIZE as u32, pixels })
    }
}
