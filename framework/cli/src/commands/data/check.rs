//! `cilbench data check`: checks that a data set is complete and undamaged, image by image.

use std::time::Instant;

use cilbench::data::{self, Dataset, Split, check_images};
use cilbench::scenario::{Opened, Scenario, ScenarioInfo, ScenarioOptions, TaskStream, overlap};
use cilbench::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::{DataArgs, GlobalArgs};
use crate::commands::Execute;
use crate::output::table;
use crate::prepare::open_data;

/// The largest number of problems of one kind that are printed. The others are counted.
const SHOWN: usize = 50;

#[derive(clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    data: DataArgs,
    /// The class order: natural, seed:<n>, or a file with one class name per line
    #[arg(long)]
    class_order: Option<String>,
    /// Only count and list; decode no image
    #[arg(long)]
    fast: bool,
}

impl Execute for Check {
    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        check(self)
    }
}

fn check(args: &Check) -> Result<()> {
    let began = Instant::now();
    let (spec, Opened { dataset, split, .. }) = open_data(&args.data)?;
    let entry = data::find(&spec.dataset)?;
    let options = ScenarioOptions {
        class_order: args.class_order.as_deref().map(str::parse).transpose()?,
        ..ScenarioOptions::default()
    };
    let stream = TaskStream::new(&spec, &options, dataset.clone(), split.clone())?;
    let info = stream.info();
    println!(
        "scenario {}: data set {}, split {split}, class order {}",
        info.name, info.dataset, info.class_order
    );
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
    println!(
        "data id {} at {} px ({:.1} s)",
        info.data_id,
        info.transforms.image_size,
        began.elapsed().as_secs_f64()
    );

    let mut problems = 0;
    match entry.miscounted(&split, &*dataset) {
        Some(what) => {
            problems += 1;
            println!("counts: {what}");
        }
        None if entry.about(&split).is_some_and(|about| about.images.is_some()) => {
            println!("counts: as expected")
        }
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
        println!(
            "note: {} listed image(s) that no task uses are not there, the first {first}",
            unused.len()
        );
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

/// Decodes all images that are there, prints what was found, and returns the number of problems.
fn check_all(dataset: &dyn Dataset, stream: &TaskStream, whole: bool, all_there: bool) -> usize {
    if !whole {
        println!("no image was decoded: first put there what is missing");
        return 0;
    }
    let used = |split: Split, index: usize| all_there || stream.uses(split, index);
    let count = |s: Split| dataset.samples(s).len();
    let bar = ProgressBar::new((count(Split::Train) + count(Split::Test)) as u64);
    let style =
        ProgressStyle::with_template("  {bar:30} {pos}/{len} images, {elapsed} (left {eta})");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let checked = check_images(dataset, &used, &|| bar.inc(1));
    bar.finish_and_clear();
    let problems = report("cannot be read", &checked.unreadable);
    checked.notes.iter().for_each(|note| println!("note: {note}"));
    println!("decoded {} images", checked.decoded);
    problems
}

/// Prints the names of each task's classes, as many as one line holds.
fn print_names(info: &ScenarioInfo, names: &[String]) {
    const WIDTH: usize = 100;
    let tasks = if info.domains.is_empty() { &info.tasks[..] } else { &info.tasks[..1] };
    for (i, classes) in tasks.iter().enumerate() {
        let mut line = if info.domains.is_empty() {
            format!("task {}: ", i + 1)
        } else {
            "classes: ".to_owned()
        };
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
