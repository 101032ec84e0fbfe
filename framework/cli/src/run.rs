//! `cilbench run`: a method over a scenario, into a run folder; over several seeds and class orders, into several.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cilbench::method::Access;
use cilbench::results::{Identity, Record, RunFolder, Statistics, Status, leaderboard};
use cilbench::run::{BenchAt, RunPlan, bench_steps, execute};
use cilbench::scenario::{ClassOrder, Scenario};
use cilbench::state::Kind;
use cilbench::{Error, Result};

use crate::args::RunArgs;
use crate::list::table;
use crate::prepare::{Prepared, started_with, write_command};
use crate::progress::Display;

static STOP: AtomicBool = AtomicBool::new(false);

pub(crate) fn run(args: &RunArgs) -> Result<()> {
    let resumed;
    let args = match &args.resume {
        Some(folder) => {
            let begun = started_with(folder)?;
            // More time for plugins than at the beginning stays with the run.
            let plugin_timeout = args.plugin_timeout.or(begun.plugin_timeout);
            resumed = RunArgs { out: Some(folder.clone()), plugin_timeout, ..begun };
            &resumed
        }
        None => args,
    };
    if args.keep == 0 {
        return Err(Error::usage("--keep 0: at least one checkpoint is kept"));
    }
    if args.checkpoint_steps == Some(0) || args.checkpoint_minutes.is_nan() || args.checkpoint_minutes <= 0.0 {
        return Err(Error::usage("--checkpoint-minutes and --checkpoint-steps must be positive"));
    }
    let orders: Vec<Option<ClassOrder>> = match args.class_orders.as_slice() {
        [] => vec![None],
        list => list.iter().map(|o| o.parse().map(Some)).collect::<Result<_>>()?,
    };
    let seeds = if args.seeds.is_empty() { vec![args.seed] } else { args.seeds.clone() };
    // Twice the same run is no second sample.
    if let Some(seed) = repeated(&seeds) {
        return Err(Error::usage(format!("--seeds names {seed} twice: leave one out")));
    }
    if let Some(order) = repeated(&orders) {
        let order = order.as_ref().map_or(String::new(), |o| o.to_string());
        return Err(Error::usage(format!("--class-orders names {order} twice: leave one out")));
    }
    let prepared = Prepared::new(args)?;
    if args.dry_run {
        return dry_run(&prepared, args, &seeds, &orders);
    }
    // A second Ctrl-C while the first is being honoured changes nothing.
    ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed)).map_err(|e| Error::Protocol(format!("Ctrl-C cannot be caught: {e}")))?;
    let mut records = Vec::new();
    for order in &orders {
        for seed in &seeds {
            let single = RunArgs {
                seed: *seed,
                class_order: order.as_ref().map(|o| o.to_string()).or(args.class_order.clone()),
                seeds: vec![],
                class_orders: vec![],
                ..args.clone()
            };
            records.push(one(&prepared, &single, order.clone(), orders.len() * seeds.len() > 1)?);
        }
    }
    if let [record] = records.as_slice() {
        if record.identity.scenario.name == "split-fashion-mnist-5" {
            match record.identity.method == "sr2-lora" {
                true => println!("\nTry next:\n  cilbench run --method lora        the same without protection against forgetting"),
                false => println!("\nTry next:\n  cilbench run        SR²-LoRA, to compare with"),
            }
            println!("  cilbench leaderboard        the runs in ./runs, ranked");
            println!("  cilbench run --scenario cifar100-10 --data-root DIR --weights FILE        a real data set and backbone");
        }
    } else {
        summarise_all(&records);
    }
    Ok(())
}

/// The first value that was there before.
fn repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    (1..values.len()).find(|i| values[..*i].contains(&values[*i])).map(|i| &values[i])
}

/// One seed, one class order, one folder.
fn one(prepared: &Prepared, args: &RunArgs, order: Option<ClassOrder>, several: bool) -> Result<Record> {
    let mut scenario = prepared.scenario(order)?;
    let identity = prepared.identity(&scenario, args.seed);
    let out = place(prepared, args, &identity, several)?;
    let (mut folder, finished) = RunFolder::open(&out, &identity)?;
    let (method, id, backbone) = (&identity.method, &identity.scenario.data_id, &identity.backbone.name);
    eprintln!("{method} on {} (data id {id}), backbone {backbone}, seed {}, into {}", identity.scenario.name, args.seed, out.display());
    scenario.notes().iter().for_each(|note| eprintln!("note: {note}"));
    prepared.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
    if let Some(record) = finished {
        eprintln!("this very run is finished already; its result:");
        let altered = RunFolder::alterations(&out, &record);
        if !altered.is_empty() {
            eprintln!("warning: changed since it was written: {}", altered.join(", "));
        }
        summarise(&record, &out);
        return Ok(record);
    }
    write_command(&out, args, prepared.entry)?;
    let build = || prepared.build();
    let plan = RunPlan {
        build: &build,
        seed: args.seed,
        access: prepared.entry.about.access,
        placement: &prepared.placement,
        stop: &STOP,
        keep: args.keep,
        every: Duration::from_secs_f64(args.checkpoint_minutes * 60.0),
        every_steps: args.checkpoint_steps,
        audit: args.audit,
        until: None,
    };
    let record = Record { data_source: prepared.opened.source.clone(), ..Record::new(identity, prepared.warnings.clone()) };
    let record = execute(&plan, &mut scenario, &mut folder, record, &mut Display::new()).map_err(|error| in_folder(error, &out))?;
    summarise(&record, &out);
    Ok(record)
}

/// The folder of a run.
fn place(prepared: &Prepared, args: &RunArgs, identity: &Identity, several: bool) -> Result<PathBuf> {
    let single = format!("order-{}/seed-{}", identity.scenario.class_order.to_string().replace(':', ""), identity.seed);
    Ok(match &args.out {
        Some(out) if several => out.join(single),
        Some(out) => out.clone(),
        None => PathBuf::from("runs").join(&identity.scenario.name).join(folder_name(prepared, identity)?).join(single),
    })
}

/// The method, its configuration as a leaderboard shows it, and the beginning of a hash over all else that a sweep leaves alone.
fn folder_name(prepared: &Prepared, identity: &Identity) -> Result<String> {
    Ok(format!("{}-{}-{}", identity.method, identity.configuration(), prepared.hash()?))
}

/// What the folders of these runs hold already, and where they are.
fn folders(prepared: &Prepared, args: &RunArgs, seeds: &[u64], orders: &[Option<ClassOrder>]) -> Result<String> {
    let mut lines = Vec::new();
    for order in orders {
        let scenario = prepared.scenario(order.clone())?;
        for seed in seeds {
            let identity = prepared.identity(&scenario, *seed);
            let folder = place(prepared, args, &identity, seeds.len() * orders.len() > 1)?;
            let state = match RunFolder::look(&folder, &identity)? {
                None => "new".to_owned(),
                Some(record) if record.status == Status::Finished => "finished already; its result would be shown".to_owned(),
                Some(record) => format!("begun, {} of {} tasks are done; it would go on", record.tasks.len(), scenario.info().tasks.len()),
            };
            lines.push(format!("{}: {state}", folder.display()));
        }
    }
    Ok(lines.join("\n"))
}

/// The same error, saying where what was finished is kept.
fn in_folder(error: Error, folder: &Path) -> Error {
    let place = format!(" (see {})", folder.display());
    match error {
        Error::Interrupted(text) => Error::Interrupted(text + &place),
        Error::Diverged(text) => Error::Diverged(text + &place),
        other => other,
    }
}

pub(crate) fn summarise(record: &Record, folder: &Path) {
    let tasks = record.tasks.len();
    let mut header = vec!["after task".to_owned()];
    header.extend((1..=tasks).map(|i| format!("{i}")));
    header.extend(["all".to_owned(), "drift".to_owned()]);
    if tasks <= 10 {
        let mut out = table(&header.iter().map(String::as_str).collect::<Vec<_>>());
        for (t, task) in record.tasks.iter().enumerate() {
            let mut row = vec![format!("{}", t + 1)];
            row.extend((0..tasks).map(|i| task.scores.by_task.get(i).map_or(String::new(), |a| format!("{a:.1}"))));
            row.extend([format!("{:.2}", task.scores.accuracy), task.relation_drift.map_or(String::new(), |d| format!("{d:.3}"))]);
            out.add_row(row);
        }
        println!("\naccuracy (%) on each task's test images, {}\n{out}\n", record.identity.method);
    }
    let s = &record.summary;
    let mut out = table(&["last", "avg", "forgetting", "bwt", "relation drift", "images/s", "trained", "carried"]);
    let drift = record.relation_drift.map_or("–".to_owned(), |d| format!("{d:.4}"));
    let carried = format!("{:.2} MB", record.costs.carried_bytes as f64 / 1e6);
    let [last, avg, forgetting, bwt] = [s.last, s.avg, s.forgetting, s.bwt].map(|v| format!("{v:.2}"));
    let speed = format!("{:.0}", record.costs.images_per_second);
    out.add_row([last, avg, forgetting, bwt, drift, speed, record.costs.trained_parameters.to_string(), carried]);
    println!("{out}");
    if record.audited {
        println!("audited: after each task the method was rebuilt from its counted state alone, and scored the same");
    }
    record.warnings.iter().for_each(|w| println!("warning: {w}"));
    println!("written to {}", folder.display());
}

/// Mean and spread over several runs.
fn summarise_all(records: &[Record]) {
    let mut out = table(&["over all runs", "n", "mean", "std", "95 % interval"]);
    for name in leaderboard::METRICS {
        let values: Vec<f64> = records.iter().map(|r| leaderboard::metric(r, name)).collect();
        if let Some(s) = Statistics::of(&values) {
            let show = |v: Option<f64>| v.map_or("–".to_owned(), |v| format!("{v:.2}"));
            let interval = s.ci95.map_or("–".to_owned(), |ci| format!("{:.2} … {:.2}", s.mean - ci, s.mean + ci));
            out.add_row([name.to_owned(), s.n.to_string(), show(Some(s.mean)), show(s.std), interval]);
        }
    }
    println!("\n{out}");
}

/// `--dry-run`: everything is checked and counted, a few steps of a throw-away method are timed, nothing is written.
fn dry_run(prepared: &Prepared, args: &RunArgs, seeds: &[u64], orders: &[Option<ClassOrder>]) -> Result<()> {
    let (folders, runs) = (folders(prepared, args, seeds, orders)?, seeds.len() * orders.len());
    let mut scenario = prepared.scenario(None)?;
    let (info, notes) = (scenario.info().clone(), scenario.notes().to_vec());
    let mut method = prepared.build()?;
    let Some(task) = scenario.next_task()? else { return Err(Error::usage("the scenario has no task")) };
    let plan = method.plan(&task.info)?;
    // A method that sees all images goes over those of all tasks so far.
    let all = prepared.entry.about.access == Access::All;
    let first = |t: usize| if all { 0 } else { t };
    let shown = (0..info.images.len()).map(|t| info.images[first(t)..=t].iter().map(|(train, _)| train).sum::<usize>());
    let (steps, trained) = shown.fold((0, 0), |(s, n), train| (s + plan.total_steps(train), n + plan.epochs * train));
    let scored: usize = (1..=info.images.len()).map(|t| info.images[..t].iter().map(|(_, test)| test).sum::<usize>()).sum();
    // One step warms up, three are timed; in later tasks a method may do more a step than in the first.
    let batch = plan.batch_size.min(task.train.len());
    let at = BenchAt { task: 0, batch, steps: 3 };
    let access = prepared.entry.about.access;
    let timed = bench_steps(&mut *method, access, &mut prepared.scenario(None)?, at, &prepared.placement)?.medians();
    let state = method.state()?;
    let per_class = state.carried_bytes() as f64 / task.info.classes.len() as f64;
    let classes = info.classes();
    let carried = per_class * classes as f64;
    let mut out = table(&["what", "would be run"]);
    let mut row = |name: &str, value: String| drop_row(&mut out, name, value);
    row("method", format!("{} (version {})", args.method, prepared.entry.about.version));
    row("scenario", format!("{}: {} tasks, {classes} classes, data id {}", info.name, info.tasks.len(), info.data_id));
    let (train, test) = info.images.iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    row("images", format!("{train} training, {test} test, {} px", info.transforms.image_size));
    let b = &prepared.info;
    row(
        "backbone",
        format!("{}: {:.1} M frozen parameters, dim {}, {} blocks, {} heads", b.name, b.parameters as f64 / 1e6, b.dim, b.blocks, b.heads),
    );
    row("normalisation", format!("mean {:?}, std {:?}", b.mean, b.std));
    row("training", format!("{} epochs of batches of {}: {steps} steps, {trained} images", plan.epochs, plan.batch_size));
    let parameters: Vec<String> = prepared.config.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    row("hyper-parameters", parameters.join("\n"));
    row("trained parameters", format!("{} in the first task", state.elements(Kind::Trained)));
    let time = match timed {
        (Some(train), Some(predict)) => {
            let total = (trained as f64 * train + scored as f64 * predict) / batch as f64 * runs as f64;
            let time = if total < 5400.0 { format!("{:.1} min", total / 60.0) } else { format!("{:.1} h", total / 3600.0) };
            format!(
                "about {time} for {runs} run(s), from {train:.3} s a step of the first task on this machine;\nwithout what the method does at the ends of tasks (`cilbench bench task-end`)"
            )
        }
        _ => "not estimated: the method has no training steps".to_owned(),
    };
    row("time", time);
    let peak = cilbench::results::Machine::peak_memory()
        .map_or("unknown".to_owned(), |m| format!("at least {:.2} GB (seen in these steps)", m as f64 / 1e9));
    row("memory", peak);
    row(
        "disk",
        format!(
            "at least {:.1} MB: {} checkpoints and the predictions",
            (carried * args.keep as f64 + scored as f64 * 110.0) / 1e6,
            args.keep
        ),
    );
    row("folder", folders);
    println!("{out}");
    notes.iter().for_each(|note| println!("note: {note}"));
    prepared.warnings.iter().for_each(|w| println!("warning: {w}"));
    println!("nothing was written");
    Ok(())
}

fn drop_row(out: &mut comfy_table::Table, name: &str, value: String) {
    out.add_row([name.to_owned(), value]);
}
