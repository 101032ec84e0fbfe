//! `cilbench bench task-end`: what is done between tasks, each part beside the time that its matrix products alone would take.

use std::sync::Arc;
use std::time::Instant;

use cilbench::backbone::Backbone;
use cilbench::candle_core::{DType, Device};
use cilbench::context::{Carried, Context, Drawn, Host, Law, Placement, PlainBatch, Reply, Request};
use cilbench::data::View;
use cilbench::method::{Access, Model, Setup};
use cilbench::parts::{AlignmentLoss, ClassifierAlignment, Heads, Learner, LoraConfig, Training};
use cilbench::results::Machine;
use cilbench::run::{Memory, TaskHost};
use cilbench::scenario::{Scenario, ScenarioOptions, ScenarioSpec, TaskInfo, TaskStream};
use cilbench::{Error, Result, device};
use cilbench_methods::DualGpm;

use super::made_up::MadeUp;
use super::{forward_flops, gigabytes, product_speed, vit};
use crate::args::BenchTaskEndArgs;
use crate::list::table;

/// Images a forward pass, as in a run.
const BATCH: usize = 64;

/// A host with the draws of a run, whose passes give images that are already there.
struct Ready<'a> {
    draws: TaskHost<'a>,
    batches: Vec<PlainBatch>,
    next: usize,
}

impl Host for Ready<'_> {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        match request {
            Request::OpenPass { .. } => {
                self.next = 0;
                Ok(Reply::Pass(0))
            }
            Request::NextBatch { .. } => {
                self.next += 1;
                Ok(Reply::Batch(self.batches.get(self.next - 1).cloned()))
            }
            other => self.draws.answer(other),
        }
    }

    fn normals(&mut self, name: String, shape: [usize; 2]) -> Result<Drawn> {
        self.draws.normals(name, shape)
    }
}

/// A part: its name, its seconds, and those of its products at the speed of large ones; none where it has no products.
struct Part(&'static str, f64, Option<f64>);

pub(crate) fn task_end(args: &BenchTaskEndArgs) -> Result<()> {
    for (flag, value) in [
        ("--classes", args.classes),
        ("--images-per-class", args.images_per_class),
        ("--images", args.images),
        ("--batch-size", args.batch_size),
    ] {
        if value == 0 {
            return Err(Error::usage(format!("{flag} 0: at least 1")));
        }
    }
    let device = device::open(&args.device)?;
    let (dtype, precision) = args.dtype.dtype();
    let backbone = vit(args.size, args.weights.as_deref(), args.image_size, (dtype, &device))?;
    let info = backbone.info().clone();
    let parts = measure(args, Box::new(backbone), &Placement { device: device.clone(), dtype })?;

    let mut out = table(&["what", "seconds", "of its products' speed"]);
    for Part(what, seconds, products) in &parts {
        let share = products.map_or("no products".to_owned(), |p| format!("{:.0} %", 100.0 * p / seconds));
        out.add_row([(*what).to_owned(), format!("{seconds:.3}"), share]);
    }
    println!(
        "a ViT of {} blocks of width {}, {} px, {} classes seen, {} images a class, {} images a pass, batch {}, {precision}, {}, {} threads",
        info.blocks,
        info.dim,
        args.image_size,
        args.classes,
        args.images_per_class,
        args.images,
        args.batch_size,
        args.device,
        rayon::current_num_threads()
    );
    println!("{out}");
    println!(
        "products of covariances and factors are counted in full, also where half of a matrix is zeros or known by symmetry and left out"
    );
    let memory = Machine::peak_memory();
    let place = match device::gpu_name(&device) {
        Some(gpu) => format!("{gpu}, its tensors at their peak {}", gigabytes(device::peak_memory(&device))),
        None => Machine::here().processor,
    };
    println!("peak memory {}; {place}", gigabytes(memory));
    if let Some(path) = &args.json {
        let rows: Vec<_> =
            parts.iter().map(|Part(what, s, p)| serde_json::json!({ "what": what, "seconds": s, "product_seconds": p })).collect();
        let record = serde_json::json!({
            "dim": info.dim, "blocks": info.blocks, "image_size": args.image_size, "classes": args.classes, "images_per_class": args.images_per_class,
            "images": args.images, "batch_size": args.batch_size, "dtype": precision, "device": args.device, "threads": rayon::current_num_threads(),
            "peak_memory": memory, "peak_device_memory": device::peak_memory(&device), "gpu": device::gpu_name(&device),
            "processor": Machine::here().processor, "parts": rows,
        });
        let text = serde_json::to_string_pretty(&record).map_err(|e| Error::Protocol(e.to_string()))?;
        std::fs::write(path, text).map_err(Error::io(path))?;
    }
    Ok(())
}

fn measure(args: &BenchTaskEndArgs, backbone: Box<dyn Backbone>, placement: &Placement) -> Result<Vec<Part>> {
    let (dtype, device) = (placement.dtype, &placement.device);
    let info = backbone.info().clone();
    let (dim, tokens) = (info.dim as f64, ((info.image_size / info.patch).pow(2) + 1) as f64);
    let speed = product_speed(dtype, device)?;
    // Covariances are factored in f64 on the host.
    let host_speed = product_speed(DType::F64, &Device::Cpu)?;
    let options = ScenarioOptions { image_size: Some(args.image_size), ..ScenarioOptions::default() };
    let dataset = Arc::new(MadeUp::new(1, 1, args.image_size));
    let mut scenario = TaskStream::new(&ScenarioSpec::even("bench", "made-up images", 1), &options, dataset, "official".parse()?)?;
    let transforms = scenario.info().transforms.clone();
    let Some(first) = scenario.next_task()? else { return Err(Error::Protocol("the made-up scenario has no task".into())) };
    let mut memory = Memory::default();
    let draws = TaskHost::new(0, 0, Access::Stream, &first.train, &transforms, &mut memory);
    let mut host = Ready { draws, batches: Vec::new(), next: 0 };
    host.batches = batches(args, &mut host)?;
    let carried = Carried::new();
    let ctx = &mut Context::new(&mut host, &carried, placement);
    let clock = |work: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
        device.synchronize()?;
        let began = Instant::now();
        work()?;
        device.synchronize()?;
        Ok(began.elapsed().as_secs_f64())
    };
    let mut parts = Vec::new();

    let classes = args.classes as f64;
    let task = TaskInfo { classes: (0..args.classes).collect(), ..first.info };
    let rows = args.classes * args.images_per_class;
    let features = ctx.draw("bench.features", &[rows, info.dim], Law::Normal)?;
    let labels: Vec<i64> = (0..rows).map(|i| (i % args.classes) as i64).collect();
    let training = Training { batch_size: args.batch_size, ..Training::default() };
    let mut classifier = ClassifierAlignment::new(AlignmentLoss::EntropyNormalised, &training);
    classifier.settle(&task, &mut ctx.carry())?;
    let seconds = clock(&mut || classifier.fit(&task, &features, &labels))?;
    // Both triangles of a covariance are counted, of which one is computed.
    let products = 2.0 * args.images_per_class as f64 * dim.powi(2) / speed + dim.powi(3) / 3.0 / host_speed;
    parts.push(Part("class statistics", seconds, Some(classes * products)));
    drop(features);

    let mut heads = Heads::new(info.dim);
    heads.grow(&task, &mut ctx.carry())?;
    let seconds = clock(&mut || classifier.align(&heads, ctx))?;
    // A drawn feature goes through its class's factor (counted whole; half of it is zeros), the head, and the head's gradient.
    let drawn = (ClassifierAlignment::EPOCHS * classifier.samples_per_class()) as f64 * classes;
    let products = drawn * (2.0 * dim.powi(2) + 4.0 * dim * classes);
    parts.push(Part("classifier alignment", seconds, Some(products / speed)));

    drop((classifier, heads));
    let lora = LoraConfig::default();
    let rank = lora.rank;
    let setup = Setup { backbone, placement: placement.clone() };
    let mut learner = Learner::lora("bench", training, lora, setup)?;
    learner.grow(&task, &mut ctx.carry())?;
    let images = args.images as f64;
    let forward = forward_flops(&info) / speed;
    let mut covariances = Vec::new();
    // Once to lay out the weights and to make the buffers.
    learner.input_covariances(View::Test, ctx)?;
    let seconds = clock(&mut || {
        covariances = learner.input_covariances(View::Test, ctx)?;
        Ok(())
    })?;
    let products = forward + info.blocks as f64 * 2.0 * tokens * dim.powi(2) / speed;
    parts.push(Part("input covariances (InfLoRA)", seconds, Some(images * products)));

    let mut gpm = DualGpm::default();
    gpm.settle(info.blocks, &mut ctx.carry())?;
    let seconds = clock(&mut || gpm.design(&covariances, rank).map(drop))?;
    parts.push(Part("design of A (InfLoRA)", seconds, None));
    parts.push(Part("bases after the first task (DualGPM)", clock(&mut || gpm.update(&covariances, 0.95))?, None));
    parts.push(Part("bases after a later task (DualGPM)", clock(&mut || gpm.update(&covariances, 0.99))?, None));

    let mut score = || {
        ctx.pass(View::Test, BATCH, |batch| {
            learner.predict(&batch.images)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
            Ok(())
        })
    };
    score()?;
    parts.push(Part("scoring", clock(&mut score)?, Some(images * forward)));
    Ok(parts)
}

/// Images of noise, in batches.
fn batches(args: &BenchTaskEndArgs, host: &mut dyn Host) -> Result<Vec<PlainBatch>> {
    let mut batches = Vec::new();
    for start in (0..args.images).step_by(BATCH) {
        let n = BATCH.min(args.images - start);
        let shape = vec![n, 3, args.image_size, args.image_size];
        let law = Law::Uniform { low: 0.0, high: 1.0 };
        let Reply::Array(images) = host.answer(Request::Draw { name: "bench.images".into(), shape, law })? else {
            return Err(Error::Protocol("a draw was answered with something else".into()));
        };
        batches.push(PlainBatch { images, labels: vec![0; n], positions: (start..start + n).collect() });
    }
    Ok(batches)
}
