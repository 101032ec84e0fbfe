//! `cilbench parity`: finds where two implementations of one method part.

use cilbench::parity::{Options, Report, Side, compare};
use cilbench::{Error, Result};

use super::Execute;
use crate::args::{
    ActivationArgs, BackboneArgs, DeviceArgs, Experiment, GlobalArgs, PluginUse, ScenarioArgs,
    SettingArgs,
};
use crate::output::table;
use crate::prepare::Prepared;

#[derive(clap::Args)]
pub(crate) struct Parity {
    /// One implementation: see `cilbench list methods`
    a: String,
    /// The other implementation; name its plugin with --plugin
    b: String,
    /// Stop after so many tasks
    #[arg(long, value_name = "N")]
    tasks: Option<usize>,
    /// The seed of data order, augmentation and draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One hyper-parameter of both, key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// One hyper-parameter of the first alone
    #[arg(long, value_name = "KEY=VALUE")]
    set_a: Vec<String>,
    /// One hyper-parameter of the second alone
    #[arg(long, value_name = "KEY=VALUE")]
    set_b: Vec<String>,
    /// The largest relative error that passes
    #[arg(long, default_value_t = 1e-3, value_name = "ERROR")]
    tolerance: f64,
    #[command(flatten, next_help_heading = "Scenario and data")]
    scenario: ScenarioArgs,
    #[command(flatten, next_help_heading = "Backbone")]
    backbone: BackboneArgs,
    #[command(flatten, next_help_heading = "Device")]
    device: DeviceArgs,
}

impl Execute for Parity {
    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Error::usage(format!(
                "--tolerance {}: a relative error, as in 0.001",
                self.tolerance
            )));
        }
        if self.tasks == Some(0) {
            return Err(Error::usage("--tasks 0: at least one task"));
        }
        let a = Prepared::new(&self.experiment(&self.a, &self.set_a))?;
        let b = Prepared::new(&self.experiment(&self.b, &self.set_b))?;
        let side = |name: &str, prepared: &Prepared| -> Result<Side> {
            Ok(Side {
                name: name.to_owned(),
                player: prepared.build()?,
                access: prepared.entry().about.access,
            })
        };
        let placement = a.placement().clone();
        let options =
            Options { seed: self.seed, placement, tolerance: self.tolerance, until: self.tasks };
        let report =
            compare(side(&self.a, &a)?, side(&self.b, &b)?, &mut a.stream(None)?, &options)?;
        show(self, &report)
    }
}

impl Parity {
    /// The experiment of one of the two methods, whose settings win over those of both.
    fn experiment(&self, method: &str, set: &[String]) -> Experiment {
        let key = |setting: &str| setting.split('=').next().unwrap_or_default().trim().to_owned();
        let common =
            self.set.iter().filter(|setting| !set.iter().any(|one| key(one) == key(setting)));
        Experiment {
            method: method.to_owned(),
            settings: SettingArgs {
                set: common.chain(set).cloned().collect(),
                ..SettingArgs::default()
            },
            plugins: PluginUse::default(),
            scenario: self.scenario.clone(),
            backbone: self.backbone.clone(),
            device: self.device.clone(),
            activations: ActivationArgs::default(),
        }
    }
}

fn show(args: &Parity, report: &Report) -> Result<()> {
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
            println!(
                "\n{a} and {b} agree within {tolerance} over {} tasks, {} steps",
                report.accuracy.len(),
                report.steps
            );
            Ok(())
        }
        Some(parting) => Err(Error::Protocol(format!(
            "{a} and {b} part at {}: {} is {} (relative error {:.1e}, tolerance {tolerance})",
            parting.place, parting.quantity, parting.what, parting.error
        ))),
    }
}
