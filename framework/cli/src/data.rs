//! `cilbench data check`: whether a data set is whole, image by image; `cilbench bench data`: how fast it is read.

use std::time::Instant;

use cilbench::data::{self, Augment, Dataset, Loader, Split, View, check_images, epoch_order};
use cilbench::scenario::{self, Opened, Scenario, ScenarioInfo, ScenarioOptions, ScenarioSpec, TaskStream, overlap};
use cilbench::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};

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
    print_names(info, dataset.class_names());
    stream.notes().iter().for_each(|note| println!("note: {note}"));
    println!("data id {} at {} px ({:.1} s)", info.data_id, info.transforms.image_size, began.elapsed().as_secs_f64());

    let mut problems = 0;
    match entry.miscounted(&split, &*dataset) {
        Some(what) => {
            problems += 1;
            println!("counts: {what}");
        }
        None if entry.about(&split).is_some_and(|about| about.images.is_some()) => println!("counts: as expected"),
        None => {}
    }
    let same = overlap(&*dataset).len();
    if same > 0 && args.fast {
        println!("note: {same} test images equal a training image, pixel by pixel");
    }
    let missing = stream.missing()?;
    problems += report("not there", &missing);
    let unused = dataset.missing(&|split, index| !stream.uses(split, index))?;
    if let Some(first) = unused.first() {
        println!("note: {} listed image(s) that no task uses are not there, the first {first}", unused.len());
    }
    if !args.fast {
        problems += check_all(&*dataset, &stream, missing.is_empty(), unused.is_empty());
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

/// Decodes all images that are there, says what was found, and gives the number of problems.
fn check_all(dataset: &dyn Dataset, stream: &TaskStream, whole: bool, all_there: bool) -> usize {
    if !whole {
        println!("no image was decoded: first put there what is missing");
        return 0;
    }
    let used = |split: Split, index: usize| all_there || stream.uses(split, index);
    let count = |s: Split| dataset.samples(s).len();
    let bar = ProgressBar::new((count(Split::Train) + count(Split::Test)) as u64);
    let style = ProgressStyle::with_template("  {bar:30} {pos}/{len} images, {elapsed} (left {eta})");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let checked = check_images(dataset, &used, &|| bar.inc(1));
    bar.finish_and_clear();
    let problems = report("cannot be read", &checked.unreadable);
    checked.notes.iter().for_each(|note| println!("note: {note}"));
    println!("decoded {} images", checked.decoded);
    problems
}

/// The names of each task's classes, as many as stand on a line.
fn print_names(info: &ScenarioInfo, names: &[String]) {
    const WIDTH: usize = 100;
    let tasks = if info.domains.is_empty() { &info.tasks[..] } else { &info.tasks[..1] };
    for (i, classes) in tasks.iter().enumerate() {
        let mut line = if info.domains.is_empty() { format!("task {}: ", i + 1) } else { "classes: ".to_owned() };
        for (n, class) in classes.iter().enumerate() {
            let name = &names[*class];
            if n > 0 && line.chars().count() + name.chars().count() > WIDTH {
                line += &format!(", … {} more", classes.len() - n);
                break;
            }
            line += if n > 0 { ", " } else { "" };
            line += name;
        }
        println!("{line}");
    }
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
    let peak = cilbench::results::Machine::peak_memory().map_or("unknown".to_owned(), |m| format!("{:.0} MB", m as f64 / 1e6));
    let speed = format!("{:.0}", images as f64 / seconds);
    let threads = rayon::current_num_threads().to_string();
    out.add_row([threads, images.to_string(), format!("{} px", transforms.image_size), speed, format!("{opened:.2} s"), peak]);
    println!("{out}");
    Ok(())
}
