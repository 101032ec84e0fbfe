//! `cilbench run --dry-run`: every input is checked and counted, a few steps of a throw-away method
//! are timed, and nothing is written.

use cilbench::method::{Access, Plan};
use cilbench::results::{Machine, RunFolder, Status};
use cilbench::run::{BenchAt, bench_steps};
use cilbench::scenario::{Scenario, ScenarioInfo};
use cilbench::state::{Kind, State};
use cilbench::{Error, Result};

use super::{Sweep, run_folder};
use crate::args::RunArgs;
use crate::output::table;
use crate::prepare::Prepared;

/// How many images and steps a run takes.
struct Amount {
    /// Training steps over all tasks.
    steps: usize,
    /// Training images over all tasks and epochs.
    trained: usize,
    /// Test images over all tasks: after each task, those of all tasks so far.
    scored: usize,
}

impl Amount {
    fn of(info: &ScenarioInfo, plan: &Plan, access: Access) -> Self {
        // A method that sees all images trains on those of all tasks so far.
        let first = |t: usize| if access == Access::All { 0 } else { t };
        let shown = (0..info.images.len())
            .map(|t| info.images[first(t)..=t].iter().map(|(train, _)| train).sum::<usize>());
        let (steps, trained) = shown
            .fold((0, 0), |(s, n), train| (s + plan.total_steps(train), n + plan.epochs * train));
        let scored = (1..=info.images.len())
            .map(|t| info.images[..t].iter().map(|(_, test)| test).sum::<usize>())
            .sum();
        Self { steps, trained, scored }
    }
}

/// What a few steps of the first task showed.
struct Measured {
    plan: Plan,
    /// Images per timed step.
    batch: usize,
    /// The median seconds of a training step and of a prediction.
    seconds: (Option<f64>, Option<f64>),
    /// The state after those steps.
    state: State,
    /// Classes of the first task.
    classes: usize,
}

pub(super) fn show(prepared: &Prepared, args: &RunArgs, sweep: &Sweep) -> Result<()> {
    let folders = folder_lines(prepared, args, sweep)?;
    let stream = prepared.stream(None)?;
    let info = stream.info();
    let measured = measure(prepared)?;
    let amount = Amount::of(info, &measured.plan, prepared.entry().about.access);
    let classes = info.classes();
    let carried = measured.state.carried_bytes() as f64 / measured.classes as f64 * classes as f64;
    let (train, test) = info.images.iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    let parameters: Vec<String> =
        prepared.config().iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let b = &prepared.info;
    let backbone = format!(
        "{}: {:.1} M frozen parameters, dim {}, {} blocks, {} heads",
        b.name,
        b.parameters as f64 / 1e6,
        b.dim,
        b.blocks,
        b.heads
    );
    let plan = &measured.plan;
    let steps = amount.steps;
    let disk = (carried * args.checkpoints.keep as f64 + amount.scored as f64 * 110.0) / 1e6;
    let mut out = table(&["what", "would be run"]);
    out.add_rows([
        [
            "method",
            &format!("{} (version {})", args.experiment.method, prepared.entry().about.version),
        ],
        [
            "scenario",
            &format!(
                "{}: {} tasks, {classes} classes, data id {}",
                info.name,
                info.tasks.len(),
                info.data_id
            ),
        ],
        ["images", &format!("{train} training, {test} test, {} px", info.transforms.image_size)],
        ["backbone", &backbone],
        ["normalisation", &format!("mean {:?}, std {:?}", b.mean, b.std)],
        [
            "training",
            &format!(
                "{} epochs of batches of {}: {steps} steps, {} images",
                plan.epochs, plan.batch_size, amount.trained
            ),
        ],
        ["hyper-parameters", &parameters.join("\n")],
        [
            "trained parameters",
            &format!("{} in the first task", measured.state.elements(Kind::Trained)),
        ],
        ["time", &time(&amount, &measured, sweep.runs())],
        ["memory", &memory()],
        [
            "disk",
            &format!(
                "at least {disk:.1} MB: {} checkpoints and the predictions",
                args.checkpoints.keep
            ),
        ],
        ["folder", &folders],
    ]);
    println!("{out}");
    stream.notes().iter().for_each(|note| println!("note: {note}"));
    prepared.warnings.iter().for_each(|w| println!("warning: {w}"));
    println!("nothing was written");
    Ok(())
}

/// Times a few steps of the first task. In later tasks a method may do more per step than in the
/// first.
fn measure(prepared: &Prepared) -> Result<Measured> {
    let mut scenario = prepared.stream(None)?;
    let mut player = prepared.build()?;
    let Some(task) = scenario.next_task()? else {
        return Err(Error::usage("the scenario has no task"));
    };
    let plan = player.plan(&task.info)?;
    let batch = plan.batch_size.min(task.train.len());
    let at = BenchAt { task: 0, batch, steps: 3 };
    let access = prepared.entry().about.access;
    let seconds =
        bench_steps(&mut *player, access, &mut prepared.stream(None)?, at, prepared.placement())?
            .medians();
    Ok(Measured { plan, batch, seconds, state: player.state()?, classes: task.info.classes.len() })
}

/// How long the runs take, in words.
fn time(amount: &Amount, measured: &Measured, runs: usize) -> String {
    let (Some(train), Some(predict)) = measured.seconds else {
        return "not estimated: the method has no training steps".to_owned();
    };
    let total = (amount.trained as f64 * train + amount.scored as f64 * predict)
        / measured.batch as f64
        * runs as f64;
    let time = if total < 5400.0 {
        format!("{:.1} min", total / 60.0)
    } else {
        format!("{:.1} h", total / 3600.0)
    };
    format!(
        "about {time} for {runs} run(s), from {train:.3} s per step of the first task on this machine;\n\
         without what the method does at the ends of tasks (`cilbench bench task-end`)"
    )
}

fn memory() -> String {
    Machine::peak_memory().map_or("unknown".to_owned(), |m| {
        format!("at least {:.2} GB (seen in these steps)", m as f64 / 1e9)
    })
}

/// One line for each run folder: where it is, and what it holds already.
fn folder_lines(prepared: &Prepared, args: &RunArgs, sweep: &Sweep) -> Result<String> {
    let mut lines = Vec::new();
    for order in &sweep.orders {
        let scenario = prepared.stream(order.clone())?;
        for seed in &sweep.seeds {
            let identity = prepared.identity(&scenario, *seed);
            let folder = run_folder(prepared, args, &identity, sweep.runs() > 1)?;
            let state = match RunFolder::look(&folder, &identity)? {
                None => "new".to_owned(),
                Some(record) if record.status == Status::Finished => {
                    "finished already; its result would be shown".to_owned()
                }
                Some(record) => format!(
                    "begun, {} of {} tasks are done; it would go on",
                    record.tasks.len(),
                    scenario.info().tasks.len()
                ),
            };
            lines.push(format!("{}: {state}", folder.display()));
        }
    }
    Ok(lines.join("\n"))
}
