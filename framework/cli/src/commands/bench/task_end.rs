//! `cilbench bench task-end`: times the work between tasks, each part beside the time that its
//! matrix products alone would take.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cilbench::backbone::{Backbone, BackboneInfo};
use cilbench::candle_core::{DType, Device};
use cilbench::context::{
    Carried, Context, Drawn, Host, Law, Placement, PlainBatch, Reply, Request,
};
use cilbench::data::View;
use cilbench::method::{Access, Model, Setup};
use cilbench::parts::{AlignmentLoss, ClassifierAlignment, Heads, Learner, LoraConfig, Training};
use cilbench::results::Machine;
use cilbench::run::{Memory, TaskHost};
use cilbench::scenario::{Scenario, ScenarioOptions, ScenarioSpec, TaskInfo, TaskStream};
use cilbench::{Error, Result, device};
use cilbench_methods::DualGpm;

use super::made_up::MadeUp;
use super::{describe_processor, forward_flops, network, product_speed, require_positive};
use crate::args::{DeviceArgs, GlobalArgs, NetworkArgs};
use crate::commands::Execute;
use crate::output::{gigabytes, table, write_json};

#[derive(clap::Args)]
pub(crate) struct BenchTaskEnd {
    #[command(flatten)]
    network: NetworkArgs,
    /// Classes seen so far
    #[arg(long, default_value_t = 100, value_name = "N")]
    classes: usize,
    /// Training images per class
    #[arg(long, default_value_t = 500, value_name = "N")]
    images_per_class: usize,
    /// Images of the passes over the network that are timed
    #[arg(long, default_value_t = 128, value_name = "N")]
    images: usize,
    /// The method's batch size: classifier alignment draws 5 times as many features of every class
    #[arg(long, default_value_t = 128, value_name = "N")]
    batch_size: usize,
    #[command(flatten)]
    device: DeviceArgs,
    /// Also write what was measured as JSON
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,
}

impl Execute for BenchTaskEnd {
    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        require_positive(&[
            ("--classes", self.classes),
            ("--images-per-class", self.images_per_class),
            ("--images", self.images),
            ("--batch-size", self.batch_size),
        ])?;
        let placement = self.device.placement()?;
        let backbone = network(&self.network, &placement)?;
        let info = backbone.info().clone();
        let parts = measure(self, Box::new(backbone), &placement)?;
        let memory = Machine::peak_memory();
        show(self, &info, &parts);
        println!("peak memory {}; {}", gigabytes(memory), describe_processor(&placement.device));
        match &self.json {
            Some(path) => write_json(path, &record(self, &info, &parts, memory, &placement.device)),
            None => Ok(()),
        }
    }
}

/// Images per forward pass, as in a run.
const BATCH: usize = 64;

/// A host with the draws of a run, whose passes give images that are in memory already.
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

/// A part: its name, its seconds, and the seconds of its products at the speed of large ones; none
/// where it has no products.
struct Part(&'static str, f64, Option<f64>);

fn show(args: &BenchTaskEnd, info: &BackboneInfo, parts: &[Part]) {
    let mut out = table(&["what", "seconds", "of its products' speed"]);
    for Part(what, seconds, products) in parts {
        let share =
            products.map_or("no products".to_owned(), |p| format!("{:.0} %", 100.0 * p / seconds));
        out.add_row([(*what).to_owned(), format!("{seconds:.3}"), share]);
    }
    println!(
        "a ViT of {} blocks of width {}, {} px, {} classes seen, {} images per class, {} images per pass, batch {}, {}, {}, {} threads",
        info.blocks,
        info.dim,
        args.network.image_size,
        args.classes,
        args.images_per_class,
        args.images,
        args.batch_size,
        args.device.precision(),
        args.device.device,
        rayon::current_num_threads()
    );
    println!("{out}");
    println!(
        "Products of covariances and factors are counted in full, also where half of a matrix is zeros, or known by symmetry and left out."
    );
}

fn record(
    args: &BenchTaskEnd,
    info: &BackboneInfo,
    parts: &[Part],
    memory: Option<u64>,
    device: &Device,
) -> serde_json::Value {
    let row = |Part(what, s, p): &Part| serde_json::json!({ "what": what, "seconds": s, "product_seconds": p });
    serde_json::json!({
        "dim": info.dim,
        "blocks": info.blocks,
        "image_size": args.network.image_size,
        "classes": args.classes,
        "images_per_class": args.images_per_class,
        "images": args.images,
        "batch_size": args.batch_size,
        "dtype": args.device.precision(),
        "device": args.device.device,
        "threads": rayon::current_num_threads(),
        "peak_memory": memory,
        "peak_device_memory": device::peak_memory(device),
        "gpu": device::gpu_name(device),
        "processor": Machine::here().processor,
        "parts": parts.iter().map(row).collect::<Vec<_>>(),
    })
}

fn measure(
    args: &BenchTaskEnd,
    backbone: Box<dyn Backbone>,
    placement: &Placement,
) -> Result<Vec<Part>> {
    let (dtype, device) = (placement.dtype, &placement.device);
    let info = backbone.info().clone();
    let (dim, tokens) = (info.dim as f64, ((info.image_size / info.patch).pow(2) + 1) as f64);
    let speed = product_speed(dtype, device)?;
    // Covariances are factored in f64 on the host.
    let host_speed = product_speed(DType::F64, &Device::Cpu)?;
    let options =
        ScenarioOptions { image_size: Some(args.network.image_size), ..ScenarioOptions::default() };
    let dataset = Arc::new(MadeUp::new(1, 1, args.network.image_size));
    let mut scenario = TaskStream::new(
        &ScenarioSpec::even("bench", "made-up images", 1),
        &options,
        dataset,
        "official".parse()?,
    )?;
    let transforms = scenario.info().transforms.clone();
    let Some(first) = scenario.next_task()? else {
        return Err(Error::Protocol("the made-up scenario has no task".into()));
    };
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
    // Both triangles of a covariance are counted, although only one is computed.
    let products =
        2.0 * args.images_per_class as f64 * dim.powi(2) / speed + dim.powi(3) / 3.0 / host_speed;
    parts.push(Part("class statistics", seconds, Some(classes * products)));
    drop(features);

    let mut heads = Heads::new(info.dim);
    heads.grow(&task, &mut ctx.carry())?;
    let seconds = clock(&mut || classifier.align(&heads, ctx))?;
    // A drawn feature goes through its class's factor (counted in full, although half of it is
    // zeros), the head, and the head's gradient.
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
    // The first pass lays out the weights and makes the buffers.
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
    parts.push(Part(
        "bases after the first task (DualGPM)",
        clock(&mut || gpm.update(&covariances, 0.95))?,
        None,
    ));
    parts.push(Part(
        "bases after a later task (DualGPM)",
        clock(&mut || gpm.update(&covariances, 0.99))?,
        None,
    ));

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

/// Batches of noise images.
fn batches(args: &BenchTaskEnd, host: &mut dyn Host) -> Result<Vec<PlainBatch>> {
    let mut batches = Vec::new();
    for start in (0..args.images).step_by(BATCH) {
        let n = BATCH.min(args.images - start);
        let shape = vec![n, 3, args.network.image_size, args.network.image_size];
        let law = Law::Uniform { low: 0.0, high: 1.0 };
        let Reply::Array(images) =
            host.answer(Request::Draw { name: "bench.images".into(), shape, law })?
        else {
            return Err(Error::Protocol("a draw was answered with something else".into()));
        };
        batches.push(PlainBatch {
            images,
            labels: vec![0; n],
            positions: (start..start + n).collect(),
        });
    }
    Ok(batches)
}
