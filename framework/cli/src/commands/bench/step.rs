//! `cilbench bench step`: measures the speed and the memory of a training step on made-up images.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cilbench::backbone::{Backbone, BackboneInfo};
use cilbench::method::{self, Setup};
use cilbench::results::Machine;
use cilbench::run::{BenchAt, StepSeconds, bench_steps};
use cilbench::scenario::{ScenarioOptions, ScenarioSpec, TaskStream};
use cilbench::toml::Table;
use cilbench::{Error, Result, device};

use super::made_up::MadeUp;
use super::{describe_processor, forward_flops, network, product_speed, require_positive};
use crate::args::{ActivationArgs, DeviceArgs, GlobalArgs, NetworkArgs};
use crate::commands::Execute;
use crate::output::{gigabytes, table, write_json};
use crate::settings::single_settings;

#[derive(clap::Args)]
pub(crate) struct BenchStep {
    /// The method: see `cilbench list methods`
    #[arg(long, default_value = "sr2-lora")]
    method: String,
    #[command(flatten)]
    network: NetworkArgs,
    /// Images per step
    #[arg(long, default_value_t = 32, value_name = "N")]
    batch_size: usize,
    /// The task that is timed, from 1; those before it are begun and ended
    #[arg(long, default_value_t = 2, value_name = "N")]
    task: usize,
    /// Tasks of 10 classes
    #[arg(long, default_value_t = 10, value_name = "N")]
    tasks: usize,
    /// Timed steps
    #[arg(long, default_value_t = 5, value_name = "N")]
    steps: usize,
    #[command(flatten)]
    activations: ActivationArgs,
    /// One hyper-parameter, key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Also write what was measured as JSON
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,
}

impl Execute for BenchStep {
    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        require_positive(&[
            ("--task", self.task),
            ("--batch-size", self.batch_size),
            ("--steps", self.steps),
        ])?;
        if self.task > self.tasks {
            return Err(Error::usage(format!(
                "--task {}: there are {} tasks (--tasks)",
                self.task, self.tasks
            )));
        }
        let measured = measure(self)?;
        show(self, &measured);
        match &self.json {
            Some(path) => write_json(path, &record(self, &measured)),
            None => Ok(()),
        }
    }
}

/// Classes per task.
const CLASSES: usize = 10;

/// What was measured.
struct Measured {
    config: Table,
    network: BackboneInfo,
    /// Operations per second of a large product.
    speed: f64,
    found: StepSeconds,
    /// Images per second of training steps and of predictions; none where nothing was timed.
    train: Option<f64>,
    predict: Option<f64>,
    peak_memory: Option<u64>,
    peak_device_memory: Option<u64>,
    gpu: Option<String>,
    /// The processor or the GPU, in words.
    processor: String,
}

impl Measured {
    /// The share of the speed at which `passes` forward passes per image would be large products
    /// alone.
    fn of_floor(&self, rate: Option<f64>, passes: f64) -> Option<f64> {
        rate.map(|r| r * passes * forward_flops(&self.network) / self.speed)
    }
}

fn measure(args: &BenchStep) -> Result<Measured> {
    let entry = method::find(&args.method)?;
    let (layers, _) = single_settings(&args.set)?;
    let config = entry.configure("made-up images", &layers)?;
    let placement = args.device.placement()?;
    let device = &placement.device;
    let mut backbone = network(&args.network, &placement)?;
    backbone.keep_activations(args.activations.kept_images()?)?;
    let info = backbone.info().clone();
    let mut player = entry
        .build(&config, Setup { backbone: Box::new(backbone), placement: placement.clone() })?;
    let (per_class, side) = (args.batch_size.div_ceil(CLASSES), args.network.image_size);
    let dataset = Arc::new(MadeUp::new(args.tasks * CLASSES, per_class, side));
    let spec = ScenarioSpec::even("bench", "made-up images", args.tasks);
    let options = ScenarioOptions { image_size: Some(side), ..ScenarioOptions::default() };
    let mut scenario = TaskStream::new(&spec, &options, dataset, "official".parse()?)?;
    let speed = product_speed(placement.dtype, device)?;
    device::reset_peak_memory(device);
    let at = BenchAt { task: args.task - 1, batch: args.batch_size, steps: args.steps };
    let found = bench_steps(&mut *player, entry.about.access, &mut scenario, at, &placement)?;
    let (train, predict) = found.medians();
    let rate = |seconds: Option<f64>| seconds.map(|s| args.batch_size as f64 / s);
    Ok(Measured {
        config,
        network: info,
        speed,
        found,
        train: rate(train),
        predict: rate(predict),
        peak_memory: Machine::peak_memory(),
        peak_device_memory: device::peak_memory(device),
        gpu: device::gpu_name(device),
        processor: describe_processor(device),
    })
}

fn show(args: &BenchStep, measured: &Measured) {
    let mut out = table(&["what", "images/s", "of the floor"]);
    let text = |v: Option<f64>, unit: &str, digits: usize| {
        v.map_or("–".to_owned(), |v| format!("{v:.digits$}{unit}"))
    };
    for (what, rate, passes) in
        [("training step", measured.train, 3.0), ("prediction", measured.predict, 1.0)]
    {
        let share = measured.of_floor(rate, passes).map(|f| 100.0 * f);
        out.add_row([what.to_owned(), text(rate, "", 2), text(share, " %", 0)]);
    }
    let losses: Vec<String> =
        measured.found.losses.iter().map(|(n, v)| format!("{n} {v:.4}")).collect();
    println!(
        "{} on a ViT of {} blocks of width {}, {} px, batch {}, task {} of {}, {}, {}, {} threads; {}",
        args.method,
        measured.network.blocks,
        measured.network.dim,
        args.network.image_size,
        args.batch_size,
        args.task,
        args.tasks,
        args.device.precision(),
        args.device.device,
        rayon::current_num_threads(),
        losses.join(", ")
    );
    println!("{out}");
    println!(
        "large matrix products: {:.0} GFLOP/s; peak memory {}; {}",
        measured.speed / 1e9,
        gigabytes(measured.peak_memory),
        measured.processor
    );
    println!(
        "The floor of a step is three forward passes (forward, backward to the inputs, the old model) at the speed of large products."
    );
}

fn record(args: &BenchStep, measured: &Measured) -> serde_json::Value {
    let Measured { network, found, train, predict, .. } = measured;
    serde_json::json!({
        "method": args.method,
        "config": measured.config,
        "dim": network.dim,
        "blocks": network.blocks,
        "image_size": args.network.image_size,
        "batch_size": args.batch_size,
        "task": args.task,
        "tasks": args.tasks,
        "dtype": args.device.precision(),
        "device": args.device.device,
        "threads": rayon::current_num_threads(),
        "train_images_per_second": train,
        "predict_images_per_second": predict,
        "train_seconds": found.train,
        "predict_seconds": found.predict,
        "train_of_floor": measured.of_floor(*train, 3.0),
        "predict_of_floor": measured.of_floor(*predict, 1.0),
        "product_flops": measured.speed,
        "peak_memory": measured.peak_memory,
        "losses": found.losses.iter().cloned().collect::<BTreeMap<_, _>>(),
        "peak_device_memory": measured.peak_device_memory,
        "gpu": measured.gpu,
        "processor": Machine::here().processor,
        "micro_batch": args.activations.micro_batch,
        "checkpoint_blocks": args.activations.checkpoint_blocks,
    })
}
