//! `cilbench bench step`: the speed and the memory of a training step, on made-up images and, unless weights are given, a network of random weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use cilbench::backbone::Backbone;
use cilbench::config::{Layer, parse_setting};
use cilbench::context::Placement;
use cilbench::method::{self, Setup};
use cilbench::results::Machine;
use cilbench::run::{BenchAt, bench_steps};
use cilbench::scenario::{ScenarioOptions, ScenarioSpec, TaskStream};
use cilbench::toml::Table;
use cilbench::{Error, Result, device};

use super::made_up::MadeUp;
use super::{forward_flops, gigabytes, product_speed, vit};
use crate::args::BenchStepArgs;
use crate::list::table;

/// Classes a task.
const CLASSES: usize = 10;

pub(crate) fn step(args: &BenchStepArgs) -> Result<()> {
    for (flag, value) in [("--task", args.task), ("--batch-size", args.batch_size), ("--steps", args.steps)] {
        if value == 0 {
            return Err(Error::usage(format!("{flag} 0: at least 1")));
        }
    }
    if args.task > args.tasks {
        return Err(Error::usage(format!("--task {}: there are {} tasks (--tasks)", args.task, args.tasks)));
    }
    let entry = method::find(&args.method)?;
    let layers: Vec<Layer> = args
        .set
        .iter()
        .map(|s| Ok(Layer { origin: "--set".into(), table: Table::from_iter([parse_setting(s)?]) }))
        .collect::<Result<_>>()?;
    let config = entry.configure("made-up images", &layers)?;
    let device = device::open(&args.device)?;
    let (dtype, precision) = args.dtype.dtype();
    let mut backbone = vit(args.size, args.weights.as_deref(), args.image_size, (dtype, &device))?;
    backbone.keep_activations(args.activations.kept_images()?)?;
    let info = backbone.info().clone();
    let placement = Placement { device: device.clone(), dtype };
    let mut player = entry.build(&config, Setup { backbone: Box::new(backbone), placement: placement.clone() })?;
    let per_class = args.batch_size.div_ceil(CLASSES);
    let dataset = Arc::new(MadeUp::new(args.tasks * CLASSES, per_class, args.image_size));
    let spec = ScenarioSpec::even("bench", "made-up images", args.tasks);
    let options = ScenarioOptions { image_size: Some(args.image_size), ..ScenarioOptions::default() };
    let mut scenario = TaskStream::new(&spec, &options, dataset, "official".parse()?)?;
    let speed = product_speed(dtype, &device)?;
    device::reset_peak_memory(&device);
    let at = BenchAt { task: args.task - 1, batch: args.batch_size, steps: args.steps };
    let found = bench_steps(&mut *player, entry.about.access, &mut scenario, at, &placement)?;

    let rate = |seconds: Option<f64>| seconds.map(|s| args.batch_size as f64 / s);
    let (train, predict) = found.medians();
    let (train, predict) = (rate(train), rate(predict));
    let forward = forward_flops(&info);
    let of_floor = |rate: Option<f64>, passes: f64| rate.map(|r| r * passes * forward / speed);
    let (memory, device_memory) = (Machine::peak_memory(), device::peak_memory(&device));
    let mut out = table(&["what", "images/s", "of the floor"]);
    let show = |v: Option<f64>, unit: &str, digits: usize| v.map_or("–".to_owned(), |v| format!("{v:.digits$}{unit}"));
    for (what, rate, passes) in [("training step", train, 3.0), ("prediction", predict, 1.0)] {
        out.add_row([what.to_owned(), show(rate, "", 2), show(of_floor(rate, passes).map(|f| 100.0 * f), " %", 0)]);
    }
    let losses: Vec<String> = found.losses.iter().map(|(n, v)| format!("{n} {v:.4}")).collect();
    println!(
        "{} on a ViT of {} blocks of width {}, {} px, batch {}, task {} of {}, {precision}, {}, {} threads; {}",
        args.method,
        info.blocks,
        info.dim,
        args.image_size,
        args.batch_size,
        args.task,
        args.tasks,
        args.device,
        rayon::current_num_threads(),
        losses.join(", ")
    );
    println!("{out}");
    println!(
        "large matrix products: {:.0} GFLOP/s; peak memory {}; {}",
        speed / 1e9,
        gigabytes(memory),
        match (device::gpu_name(&device), device_memory) {
            (Some(gpu), memory) => format!("{gpu}, its tensors at their peak {}", gigabytes(memory)),
            (None, _) => Machine::here().processor,
        }
    );
    println!(
        "The floor of a step is three forward passes (forward, backward to the inputs, the old model) at the speed of large products."
    );
    if let Some(path) = &args.json {
        let record = serde_json::json!({
            "method": args.method, "config": config, "dim": info.dim, "blocks": info.blocks, "image_size": args.image_size, "batch_size": args.batch_size,
            "task": args.task, "tasks": args.tasks, "dtype": precision, "device": args.device, "threads": rayon::current_num_threads(),
            "train_images_per_second": train, "predict_images_per_second": predict, "train_seconds": found.train, "predict_seconds": found.predict,
            "train_of_floor": of_floor(train, 3.0), "predict_of_floor": of_floor(predict, 1.0), "product_flops": speed, "peak_memory": memory,
            "losses": found.losses.iter().cloned().collect::<BTreeMap<_, _>>(), "peak_device_memory": device_memory, "gpu": device::gpu_name(&device), "processor": Machine::here().processor,
            "micro_batch": args.activations.micro_batch, "checkpoint_blocks": args.activations.checkpoint_blocks,
        });
        let text = serde_json::to_string_pretty(&record).map_err(|e| Error::Protocol(e.to_string()))?;
        std::fs::write(path, text).map_err(Error::io(path))?;
    }
    Ok(())
}
