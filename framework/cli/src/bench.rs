//! `cilbench bench step`: the speed and the memory of a training step, on made-up images and, unless weights are given, a network of random weights.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use cilbench::backbone::{Backbone, BackboneInfo, BackboneOptions, Vit, WeightsFile};
use cilbench::candle_core::{DType, Device, Tensor};
use cilbench::config::{Layer, parse_setting};
use cilbench::data::{Dataset, RgbImage, Sample, Split};
use cilbench::method::{self, Setup};
use cilbench::results::Machine;
use cilbench::rng::{Purpose, stream};
use cilbench::run::bench_steps;
use cilbench::scenario::{ScenarioOptions, ScenarioSpec, TaskStream};
use cilbench::toml::Table;
use cilbench::{Error, Result, device, rng};
use rand::Rng;

use crate::args::{BenchStepArgs, Size};
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
    let options = BackboneOptions { image_size: Some(args.image_size), ..BackboneOptions::default() };
    let file = match &args.weights {
        Some(path) => WeightsFile::read(path)?,
        None => random_weights(args.size, args.image_size)?,
    };
    let mut backbone = Vit::new("vit", &file, &options, dtype, &device)?;
    drop(file);
    backbone.keep_activations(args.activations.kept_images()?)?;
    let info = backbone.info().clone();
    let mut method = entry.build(&config, Setup { backbone: Box::new(backbone), device: device.clone(), dtype })?;
    let per_class = args.batch_size.div_ceil(CLASSES);
    let dataset = Arc::new(MadeUp::new(args.tasks * CLASSES, per_class, args.image_size));
    let spec = ScenarioSpec::even("bench", "made-up images", args.tasks);
    let options = ScenarioOptions { image_size: Some(args.image_size), ..ScenarioOptions::default() };
    let mut scenario = TaskStream::new(&spec, &options, dataset, "official".parse()?)?;
    let speed = product_speed(dtype, &device)?;
    device::reset_peak_memory(&device);
    let places = (entry.about.access, args.task - 1, args.batch_size, args.steps);
    let found = bench_steps(&mut *method, &mut scenario, places, (dtype, &device))?;

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

/// Floating-point operations of a forward pass of one image, with the last block's queries, projection and MLP for the CLS token alone.
fn forward_flops(info: &BackboneInfo) -> f64 {
    let (d, n, blocks) = (info.dim as f64, ((info.image_size / info.patch).pow(2) + 1) as f64, info.blocks as f64);
    let patches = (n - 1.0) * d * 3.0 * (info.patch as f64).powi(2);
    let block = 12.0 * d * d * n + 2.0 * n * n * d;
    let last = 2.0 * d * d * n + 10.0 * d * d + 2.0 * n * d;
    2.0 * (patches + (blocks - 1.0) * block + last)
}

/// Bytes for people.
fn gigabytes(bytes: Option<u64>) -> String {
    bytes.map_or("not known".to_owned(), |b| format!("{:.2} GB", b as f64 / 1e9))
}

/// Operations a second of a large product (1576×768×3072; on a GPU, which does that in no time, 4096×4096×4096), the best of six.
fn product_speed(dtype: DType, device: &Device) -> Result<f64> {
    let (m, k, n) = if device.is_cpu() { (1576, 768, 3072) } else { (4096, 4096, 4096) };
    let (a, b) = (Tensor::ones((m, k), dtype, device)?, Tensor::ones((k, n), dtype, device)?);
    let mut best = f64::INFINITY;
    for _ in 0..6 {
        device.synchronize()?;
        let began = Instant::now();
        a.matmul(&b)?;
        device.synchronize()?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(2.0 * (m * k * n) as f64 / best)
}

/// A ViT of 16-pixel patches, normal weights of standard deviation 0.02.
fn random_weights(size: Size, image_size: usize) -> Result<WeightsFile> {
    let (dim, heads) = match size {
        Size::Tiny => (192, 3),
        Size::Small => (384, 6),
        Size::Base => (768, 12),
    };
    let tokens = (image_size / 16).pow(2) + 1;
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("cls_token".into(), vec![1, 1, dim]),
        ("pos_embed".into(), vec![1, tokens, dim]),
        ("patch_embed.proj.weight".into(), vec![dim, 3, 16, 16]),
        ("patch_embed.proj.bias".into(), vec![dim]),
        ("norm.weight".into(), vec![dim]),
        ("norm.bias".into(), vec![dim]),
    ];
    for block in 0..12 {
        let mut add = |name: &str, shape: Vec<usize>| shapes.push((format!("blocks.{block}.{name}"), shape));
        for norm in ["norm1", "norm2"] {
            add(&format!("{norm}.weight"), vec![dim]);
            add(&format!("{norm}.bias"), vec![dim]);
        }
        for (name, out, input) in
            [("attn.qkv", 3 * dim, dim), ("attn.proj", dim, dim), ("mlp.fc1", 4 * dim, dim), ("mlp.fc2", dim, 4 * dim)]
        {
            add(&format!("{name}.weight"), vec![out, input]);
            add(&format!("{name}.bias"), vec![out]);
        }
    }
    let mut tensors = BTreeMap::new();
    for (name, shape) in shapes {
        let n = shape.iter().product::<usize>();
        let mut numbers = stream(0, Purpose::Measurement, &[&name]);
        let values: Vec<f32> = match (name.contains("norm"), name.ends_with("weight")) {
            (true, true) => vec![1.0; n],
            (_, false) if name.ends_with("bias") => vec![0.0; n],
            _ => (0..n).map(|_| 0.02 * normal(&mut numbers)).collect(),
        };
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    Ok(WeightsFile::from_tensors("random weights", "random".into(), HashMap::from([("heads".into(), heads.to_string())]), tensors))
}

/// Nearly normal: the sum of twelve uniform numbers.
fn normal(rng: &mut rng::Stream) -> f32 {
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}

/// Images of noise.
struct MadeUp {
    classes: Vec<String>,
    domains: Vec<String>,
    samples: Vec<Sample>,
    size: usize,
}

impl MadeUp {
    fn new(classes: usize, per_class: usize, size: usize) -> Self {
        let samples = (0..per_class * classes).map(|i| Sample { key: format!("{i:06}"), label: i % classes, domain: 0 }).collect();
        Self { classes: (0..classes).map(|i| format!("class {i}")).collect(), domains: vec!["noise".into()], samples, size }
    }
}

impl Dataset for MadeUp {
    fn class_names(&self) -> &[String] {
        &self.classes
    }
    fn domain_names(&self) -> &[String] {
        &self.domains
    }
    fn samples(&self, _: Split) -> &[Sample] {
        &self.samples
    }
    fn image(&self, _: Split, index: usize) -> Result<RgbImage> {
        let mut rng = stream(0, Purpose::Measurement, &[&"image", &index]);
        let pixels = (0..3 * self.size * self.size).map(|_| rng.random()).collect();
        Ok(RgbImage { width: self.size as u32, height: self.size as u32, pixels })
    }
}
