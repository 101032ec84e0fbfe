//! `cilbench parity`: where two implementations of one method part.

use cilbench::parity::{Options, Report, Side, compare};
use cilbench::{Error, Result};
use clap::Parser;

use crate::args::{Args, Command, ParityArgs, RunArgs};
use crate::list::table;
use crate::prepare::Prepared;

pub(crate) fn parity(args: &ParityArgs) -> Result<()> {
    if args.tolerance.is_nan() || args.tolerance < 0.0 {
        return Err(Error::usage(format!("--tolerance {}: a relative error, as in 0.001", args.tolerance)));
    }
    if args.tasks == Some(0) {
        return Err(Error::usage("--tasks 0: at least one task"));
    }
    let a = Prepared::new(&as_run(args, &args.a, &args.set_a)?)?;
    let b = Prepared::new(&as_run(args, &args.b, &args.set_b)?)?;
    let side = |name: &str, prepared: &Prepared| -> Result<Side> {
        Ok(Side { name: name.to_owned(), player: prepared.build()?, access: prepared.entry.about.access })
    };
    let options = Options { seed: args.seed, placement: a.placement.clone(), tolerance: args.tolerance, until: args.tasks };
    let report = compare(side(&args.a, &a)?, side(&args.b, &b)?, &mut a.scenario(None)?, &options)?;
    show(args, &report)
}

/// What `cilbench run` would be given for one of the two.
fn as_run(args: &ParityArgs, method: &str, own: &[String]) -> Result<RunArgs> {
    let mut words: Vec<String> =
        ["cilbench", "run", "--method", method, "--scenario", &args.scenario, "--device", &args.device].map(str::to_owned).to_vec();
    let mut add = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            words.push(format!("{flag}={value}"));
        }
    };
    let path = |p: &Option<std::path::PathBuf>| p.as_ref().map(|p| p.display().to_string());
    add("--backbone", args.backbone.clone());
    add("--weights", path(&args.weights));
    add("--data-root", path(&args.data_root));
    add("--image-size", args.image_size.map(|n| n.to_string()));
    add("--train-per-class", args.train_per_class.map(|n| n.to_string()));
    add("--test-per-class", args.test_per_class.map(|n| n.to_string()));
    add("--class-order", args.class_order.clone());
    add("--dtype", Some(args.dtype.dtype().1.to_owned()));
    // What is said of one of them wins over what is said of both.
    let key = |setting: &String| setting.split('=').next().unwrap_or_default().trim().to_owned();
    let common = args.set.iter().filter(|setting| !own.iter().any(|o| key(o) == key(setting)));
    common.chain(own).for_each(|setting| add("--set", Some(setting.clone())));
    match Args::try_parse_from(&words).map_err(|e| Error::usage(e.to_string()))?.command {
        Command::Run(run) => Ok(*run),
        _ => unreachable!("the words begin with run"),
    }
}

fn show(args: &ParityArgs, report: &Report) -> Result<()> {
    let (a, b) = (&args.a, &args.b);
    let mut out = table(&["quantity", "compared", "worst relative error", "where"]);
    for q in &report.quantities {
        let at = if q.worst > 0.0 { q.at.as_str() } else { "" };
        out.add_row([&q.name, &q.compared.to_string(), &format!("{:.1e}", q.worst), at]);
    }
    println!("{out}");
    for (task, (ours, theirs)) in report.accuracy.iter().enumerate() {
        println!("after task {}: accuracy {ours:.2} % of {a}, {theirs:.2} % of {b}", task + 1);
    }
    for note in &report.notes {
        println!("note: {note}");
    }
    let tolerance = args.tolerance;
    match &report.parting {
        None => {
            println!("\n{a} and {b} agree within {tolerance} over {} tasks, {} steps", report.accuracy.len(), report.steps);
            Ok(())
        }
        Some(parting) => Err(Error::Protocol(format!(
            "{a} and {b} part at {}: {} is {} (relative error {:.1e}, tolerance {tolerance})",
            parting.place, parting.quantity, parting.what, parting.error
        ))),
    }
}
