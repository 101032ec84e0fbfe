//! `cilbench bench data`: measures how fast images are read, decoded and transformed.

use std::time::Instant;

use cilbench::Result;
use cilbench::data::{Augment, Loader, View, epoch_order};
use cilbench::results::Machine;
use cilbench::scenario::{Opened, Scenario, ScenarioOptions, TaskStream};

use crate::args::{DataArgs, GlobalArgs};
use crate::commands::Execute;
use crate::output::table;
use crate::prepare::open_data;

#[derive(clap::Args)]
pub(crate) struct BenchData {
    #[command(flatten)]
    data: DataArgs,
    /// The side of the images, in pixels [default: 224]
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    /// Images per batch
    #[arg(long, default_value_t = 64, value_name = "N")]
    batch_size: usize,
    /// Stop after so many images
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// Use the test transform instead of the training one
    #[arg(long)]
    test: bool,
}

impl Execute for BenchData {
    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        bench(self)
    }
}

fn bench(args: &BenchData) -> Result<()> {
    let began = Instant::now();
    let (spec, Opened { dataset, split, .. }) = open_data(&args.data)?;
    let options = ScenarioOptions { image_size: args.image_size, ..ScenarioOptions::default() };
    let mut stream = TaskStream::new(&spec, &options, dataset, split)?;
    let opened = began.elapsed().as_secs_f64();
    let transforms = stream.info().transforms.clone();
    let view = if args.test { View::Test } else { View::Train };
    let (mut images, mut seconds) = (0, 0.0);
    while let Some(task) = stream.next_task()? {
        let order = epoch_order(0, task.info.index, 0, task.train.len());
        let began = Instant::now();
        for batch in Loader::new(
            &task.train,
            order,
            args.batch_size,
            0,
            &transforms,
            view,
            Augment::Epoch { seed: 0, task: task.info.index, epoch: 0 },
        ) {
            images += batch?.labels.len();
            if args.images.is_some_and(|n| images >= n) {
                break;
            }
        }
        seconds += began.elapsed().as_secs_f64();
        if args.images.is_some_and(|n| images >= n) {
            break;
        }
    }
    let mut out = table(&["threads", "images", "size", "images/s", "opening", "peak memory"]);
    let peak = Machine::peak_memory()
        .map_or("unknown".to_owned(), |m| format!("{:.0} MB", m as f64 / 1e6));
    let speed = format!("{:.0}", images as f64 / seconds);
    let threads = rayon::current_num_threads().to_string();
    out.add_row([
        threads,
        images.to_string(),
        format!("{} px", transforms.image_size),
        speed,
        format!("{opened:.2} s"),
        peak,
    ]);
    println!("{out}");
    Ok(())
}
