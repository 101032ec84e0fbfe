//! `cilbench run`: runs a method over a scenario, into one run folder for each seed and class
//! order.

mod dry_run;
mod report;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use cilbench::results::{Identity, Lock, Record, RunFolder};
use cilbench::run::{RunPlan, execute};
use cilbench::scenario::ClassOrder;
use cilbench::{Error, Result};

use super::Execute;
use crate::args::{GlobalArgs, RunArgs};
use crate::command_file;
use crate::plugins::PluginPolicy;
use crate::prepare::Prepared;
use crate::progress::Display;
use crate::signals;

pub(crate) struct Run {
    args: RunArgs,
    resume: Option<PathBuf>,
}

#[derive(clap::Args)]
struct ResumeArgs {
    /// Continue the run in this folder as it was started; no other option of a run is allowed
    #[arg(long, value_name = "DIR", help_heading = "Run folder")]
    resume: Option<PathBuf>,
}

// Not derived: `--resume` must conflict with every option of a run, including future ones.
impl clap::Args for Run {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = RunArgs::augment_args(command);
        let options: Vec<clap::Id> =
            command.get_arguments().map(|arg| arg.get_id().clone()).collect();
        ResumeArgs::augment_args(command)
            .mut_arg("resume", |resume| resume.conflicts_with_all(options))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Run {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let ResumeArgs { resume } = ResumeArgs::from_arg_matches(matches)?;
        Ok(Self { args: RunArgs::from_arg_matches(matches)?, resume })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Execute for Run {
    fn plugins(&self) -> Result<PluginPolicy> {
        match &self.resume {
            Some(folder) => Ok(PluginPolicy::of_run(&command_file::read(folder)?)),
            None => Ok(PluginPolicy::of_run(&self.args)),
        }
    }

    fn execute(&self, global: &GlobalArgs) -> Result<()> {
        let mut args = match &self.resume {
            Some(folder) => RunArgs { out: Some(folder.clone()), ..command_file::read(folder)? },
            None => self.args.clone(),
        };
        let plugins = &mut args.experiment.plugins;
        if self.resume.is_none() {
            plugins.plugins = global.plugin.clone();
        }
        // More time for plugins than at the beginning stays with the run.
        plugins.plugin_timeout = global.plugin_timeout.or(plugins.plugin_timeout);
        run(&args)
    }
}

/// The seeds and class orders of a run, one run for each pair.
struct Sweep {
    seeds: Vec<u64>,
    /// None is the scenario's own order, or that of `--class-order`.
    orders: Vec<Option<ClassOrder>>,
}

impl Sweep {
    fn of(args: &RunArgs) -> Result<Self> {
        let sweep = &args.sweep;
        let orders: Vec<Option<ClassOrder>> = match sweep.class_orders.as_slice() {
            [] => vec![None],
            list => list.iter().map(|o| o.parse().map(Some)).collect::<Result<_>>()?,
        };
        let seeds = if sweep.seeds.is_empty() { vec![sweep.seed] } else { sweep.seeds.clone() };
        // The same run twice is no second sample.
        if let Some(seed) = first_repeated(&seeds) {
            return Err(Error::usage(format!("--seeds names {seed} twice: leave one out")));
        }
        if let Some(order) = first_repeated(&orders) {
            let order = order.as_ref().map_or(String::new(), |o| o.to_string());
            return Err(Error::usage(format!("--class-orders names {order} twice: leave one out")));
        }
        Ok(Self { seeds, orders })
    }

    /// The number of runs.
    fn runs(&self) -> usize {
        self.seeds.len() * self.orders.len()
    }
}

/// The first value that equals one before it.
fn first_repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    (1..values.len()).find(|i| values[..*i].contains(&values[*i])).map(|i| &values[i])
}

fn run(args: &RunArgs) -> Result<()> {
    let checkpoints = &args.checkpoints;
    if checkpoints.keep == 0 {
        return Err(Error::usage("--keep 0: at least one checkpoint is kept"));
    }
    let minutes = checkpoints.checkpoint_minutes;
    if checkpoints.checkpoint_steps == Some(0) || minutes.is_nan() || minutes <= 0.0 {
        return Err(Error::usage("--checkpoint-minutes and --checkpoint-steps must be positive"));
    }
    let sweep = Sweep::of(args)?;
    let prepared = Prepared::new(&args.experiment)?;
    if args.dry_run {
        return dry_run::show(&prepared, args, &sweep);
    }
    let stop = signals::watch(checkpoints.max_time.map(Duration::from_secs))?;
    let mut records = Vec::new();
    for order in &sweep.orders {
        for seed in &sweep.seeds {
            records.push(run_single(
                &prepared,
                &single(args, *seed, order.as_ref()),
                order.clone(),
                sweep.runs() > 1,
                stop,
            )?);
        }
    }
    match records.as_slice() {
        [record] => report::suggest_next(record),
        _ => report::summarise_all(&records),
    }
    Ok(())
}

/// The options of one run of a sweep.
fn single(args: &RunArgs, seed: u64, order: Option<&ClassOrder>) -> RunArgs {
    let mut single = args.clone();
    single.sweep.seed = seed;
    single.sweep.seeds.clear();
    single.sweep.class_orders.clear();
    if let Some(order) = order {
        single.experiment.scenario.class_order = Some(order.to_string());
    }
    single
}

/// Runs one seed and one class order, into one folder.
fn run_single(
    prepared: &Prepared,
    args: &RunArgs,
    order: Option<ClassOrder>,
    several: bool,
    stop: &AtomicBool,
) -> Result<Record> {
    let mut scenario = prepared.stream(order)?;
    let identity = prepared.identity(&scenario, args.sweep.seed);
    let out = run_folder(prepared, args, &identity, several)?;
    let (mut folder, finished) = RunFolder::open(&out, &identity)?;
    let (method, id, backbone) =
        (&identity.method, &identity.scenario.data_id, &identity.backbone.name);
    eprintln!(
        "{method} on {} (data id {id}), backbone {backbone}, seed {}, into {}",
        identity.scenario.name,
        identity.seed,
        out.display()
    );
    scenario.notes().iter().for_each(|note| eprintln!("note: {note}"));
    prepared.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
    if let Some(record) = finished {
        eprintln!("this very run is finished already; its result:");
        let altered = RunFolder::alterations(&out, &record);
        if !altered.is_empty() {
            eprintln!("warning: changed since it was written: {}", altered.join(", "));
        }
        report::summarise(&record, &out);
        return Ok(record);
    }
    command_file::write(&out, args, prepared.entry())?;
    let build = || prepared.build();
    let plan = RunPlan {
        build: &build,
        seed: identity.seed,
        access: prepared.entry().about.access,
        placement: prepared.placement(),
        stop,
        keep: args.checkpoints.keep,
        every: Duration::from_secs_f64(args.checkpoints.checkpoint_minutes * 60.0),
        every_steps: args.checkpoints.checkpoint_steps,
        audit: args.audit,
        until: None,
    };
    let data_source = prepared.scenario.opened.source.clone();
    let record = Record { data_source, ..Record::new(identity, prepared.warnings.clone()) };
    let record = execute(&plan, &mut scenario, &mut folder, record, &mut Display::new())
        .map_err(|error| in_folder(error, &out))?;
    report::summarise(&record, &out);
    Ok(record)
}

/// The folder of a run. It is the one of `--out`, or a folder below it if there are several runs.
fn run_folder(
    prepared: &Prepared,
    args: &RunArgs,
    identity: &Identity,
    several: bool,
) -> Result<PathBuf> {
    Ok(match &args.out {
        Some(out) if several => out.join(order_and_seed(identity)),
        Some(out) => out.clone(),
        None => folder_below(Path::new("runs"), prepared, identity)?,
    })
}

/// The folder of a run below the folder of all runs.
pub(crate) fn folder_below(
    runs: &Path,
    prepared: &Prepared,
    identity: &Identity,
) -> Result<PathBuf> {
    let configuration = runs.join(&identity.scenario.name).join(folder_name(prepared, identity)?);
    Ok(configuration.join(order_and_seed(identity)))
}

fn order_and_seed(identity: &Identity) -> String {
    let order = identity.scenario.class_order.to_string().replace(':', "");
    format!("order-{order}/seed-{}", identity.seed)
}

/// One run, which waits so long for the lock of the process that had it before.
pub(crate) fn run_waiting(args: &RunArgs, wait: Duration) -> Result<()> {
    let began = Instant::now();
    if let Some(folder) = &args.out {
        while began.elapsed() < wait && Lock::look(folder).is_err() {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    run(args)
}

/// The method, its configuration as a leaderboard shows it, and the first digits of a hash over
/// everything else that a sweep leaves unchanged.
fn folder_name(prepared: &Prepared, identity: &Identity) -> Result<String> {
    Ok(format!("{}-{}-{}", identity.method, identity.configuration(), prepared.hash()?))
}

/// The same error, with the folder in which the finished part of the run is kept.
fn in_folder(error: Error, folder: &Path) -> Error {
    let place = format!(" (see {})", folder.display());
    match error {
        Error::Interrupted(text) => Error::Interrupted(text + &place),
        Error::Diverged(text) => Error::Diverged(text + &place),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{ArgAction, CommandFactory, Parser};

    use crate::commands::Args;

    /// `--resume` continues the run as it was started: an option beside it would be ignored.
    #[test]
    fn every_option_of_a_run_is_refused_beside_resume() {
        let mut command = Args::command();
        command.build();
        let run = command.find_subcommand("run").expect("the command run");
        let mut seen = 0;
        for arg in run
            .get_arguments()
            .filter(|a| !a.is_global_set() && !["resume", "help"].contains(&a.get_id().as_str()))
        {
            let name = format!("--{}", arg.get_long().expect("an option"));
            let value = match (arg.get_id().as_str(), arg.get_action()) {
                (_, ArgAction::SetTrue) => None,
                ("dtype", _) => Some("f64"),
                ("max_time", _) => Some("1h"),
                _ => Some("1"),
            };
            let words = ["cilbench", "run", "--resume", "folder", &name].into_iter().chain(value);
            let kind = Args::try_parse_from(words).err().map(|error| error.kind());
            assert_eq!(kind, Some(ErrorKind::ArgumentConflict), "{name} beside --resume");
            seen += 1;
        }
        assert!(seen > 30, "{seen} options");
        for global in [
            &["--threads", "2"][..],
            &["--offline"],
            &["--plugin", "x.so"],
            &["--plugin-timeout", "5"],
        ] {
            let words = ["cilbench", "run", "--resume", "folder"].iter().chain(global);
            assert!(Args::try_parse_from(words).is_ok(), "{global:?} beside --resume");
        }
    }
}
