//! `cilbench data check`: whether a data set is whole, image by image; `cilbench bench data`: how fast it is read.

use std::sync::Mutex;
use std::time::Instant;

use cilbench::data::{self, Dataset, Loader, Split, View, epoch_order};
use cilbench::scenario::{self, Opened, Scenario, ScenarioOptions, ScenarioSpec, TaskStream, overlap};
use cilbench::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use crate::args::{BenchDataArgs, CheckArgs, DataArgs};
use crate::hub::hub;
use crate::list::table;

/// Problems of one kind that are printed; the rest is counted.
const SHOWN: usize = 50;

fn open(args: &DataArgs) -> Result<(ScenarioSpec, Opened)> {
    let spec = scenario::find(&args.scenario)?;
    let opened = scenario::open_dataset(&spec, args.data_root.as_deref(), args.split.as_deref(), &hub())?;
    Ok((spec, opened))
}

pub(crate) fn check(args: &CheckArgs) -> Result<()> {
    let began = Instant::now();
    let (spec, Opened { dataset, split, .. }) = open(&args.data)?;
    let entry = data::find(&spec.dataset)?;
    let options = ScenarioOptions { class_order: args.class_order.as_deref().map(str::parse).transpose()?, ..ScenarioOptions::default() };
    let stream = TaskStream::new(&spec, &options, dataset.clone(), split.clone())?;
    let info = stream.info();
    println!("scenario {}: data set {}, split {split}, class order {}", info.name, info.dataset, info.class_order);
    let mut out = table(&["task", "classes", "training", "test"]);
    let [mut train, mut test] = [0, 0];
    for (i, (a, b)) in info.images.iter().enumerate() {
        let name = info.domains.get(i).map_or(format!("{}", i + 1), |d| format!("{} {d}", i + 1));
        out.add_row([name, info.tasks[i].len().to_string(), a.to_string(), b.to_string()]);
        (train, test) = (train + a, test + b);
    }
    let classes: std::collections::BTreeSet<usize> = info.tasks.iter().flatten().copied().collect();
    out.add_row(["all".to_owned(), classes.len().to_string(), train.to_string(), test.to_string()]);
    println!("{out}");
    stream.notes().iter().for_each(|note| println!("note: {note}"));
    println!("data id {} at {} px ({:.1} s)", info.data_id, info.transforms.image_size, began.elapsed().as_secs_f64());

    let mut problems = 0;
    let found = dataset.samples(Split::Train).len() + dataset.samples(Split::Test).len();
    match entry.miscounted(&split, &*dataset) {
        Some(what) => {
            problems += 1;
            println!("counts: {what}");
        }
        None if entry.about(&split).is_some_and(|about| about.images.is_some()) => println!("counts: as expected"),
        None => {}
    }
    let same = overlap(&*dataset).len();
    if same > 0 {
        println!("note: {same} test images equal a training image, pixel by pixel");
    }
    let missing = dataset.missing()?;
    problems += report("not there", &missing);
    if !args.fast {
        // What is not there is reported already.
        let unreadable = if missing.is_empty() { undecodable(&*dataset) } else { Vec::new() };
        problems += report("cannot be read", &unreadable);
        match missing.is_empty() {
            true => println!("decoded {} images", found - unreadable.len()),
            false => println!("no image was decoded: first put there what is missing"),
        }
    }
    match problems {
        0 => {
            println!("whole");
            Ok(())
        }
        n => Err(Error::Protocol(format!("data set {}: {n} problem(s), see above", info.dataset))),
    }
}

fn report(what: &str, all: &[String]) -> usize {
    all.iter().take(SHOWN).for_each(|one| println!("{what}: {one}"));
    if all.len() > SHOWN {
        println!("{what}: … and {} more", all.len() - SHOWN);
    }
    all.len()
}

/// What is wrong with the images that cannot be decoded, in canonical order.
fn undecodable(dataset: &dyn Dataset) -> Vec<String> {
    let count = |s: Split| dataset.samples(s).len();
    let bar = ProgressBar::new((count(Split::Train) + count(Split::Test)) as u64);
    let style = ProgressStyle::with_template("  {bar:30} {pos}/{len} images, {elapsed} (left {eta})");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let found = Mutex::new(Vec::new());
    for (side, split) in [Split::Train, Split::Test].into_iter().enumerate() {
        (0..count(split)).into_par_iter().for_each(|i| {
            if let Err(error) = dataset.image(split, i) {
                found.lock().unwrap_or_else(|e| e.into_inner()).push((side, i, error.to_string()));
            }
            bar.inc(1);
        });
    }
    bar.finish_and_clear();
    let mut found = found.into_inner().unwrap_or_else(|e| e.into_inner());
    found.sort_unstable();
    found.into_iter().map(|(_, _, text)| text).collect()
}

pub(crate) fn bench(args: &BenchDataArgs) -> Result<()> {
    let began = Instant::now();
    let (spec, Opened { dataset, split, .. }) = open(&args.data)?;
    let options = ScenarioOptions { image_size: args.image_size, ..ScenarioOptions::default() };
    let mut stream = TaskStream::new(&spec, &options, dataset, split)?;
    let opened = began.elapsed().as_secs_f64();
    let transforms = stream.info().transforms.clone();
    let view = if args.test { View::Test } else { View::Train };
    let (mut images, mut seconds) = (0, 0.0);
    while let Some(task) = stream.next_task()? {
        let order = epoch_order(0, task.info.index, 0, task.train.len());
        let began = Instant::now();
        for batch in Loader::new(&task.train, order, args.batch_size, 0, &transforms, view, (0, task.info.index, 0)) {
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
    let peak = cilbench::results::Machine::peak_memory().map_or("unknown".to_owned(), |m| format!("{:.0} MB", m as f64 / 1e6));
    let speed = format!("{:.0}", images as f64 / seconds);
    let threads = rayon::current_num_threads().to_string();
    out.add_row([threads, images.to_string(), format!("{} px", transforms.image_size), speed, format!("{opened:.2} s"), peak]);
    println!("{out}");
    Ok(())
}
