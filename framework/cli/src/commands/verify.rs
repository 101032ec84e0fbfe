//! `cilbench verify`: replays the authors' recorded trajectories on this machine.

use std::path::PathBuf;

use cilbench::verify::{FixtureEntry, Outcome, folder, replay};
use cilbench::{Error, Result};

use super::Execute;
use crate::args::{DeviceArgs, GlobalArgs};
use crate::output::table;
use crate::paths::require_exists;
use crate::plugins::PluginPolicy;

#[derive(clap::Args)]
pub(crate) struct Verify {
    /// A folder of fixtures [default: those built in]
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Execute for Verify {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::without_folder())
    }

    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        verify(self)
    }
}

fn verify(args: &Verify) -> Result<()> {
    let placement = args.device.placement()?;
    let mut outcomes = Vec::new();
    match &args.fixtures {
        Some(path) => {
            require_exists("--fixtures", path)?;
            for file in folder(path)? {
                let bytes = std::fs::read(&file).map_err(Error::io(&file))?;
                outcomes.push((file.display().to_string(), replay(&file, &bytes, &placement)));
            }
        }
        None => {
            let mut entries: Vec<_> =
                cilbench::inventory::iter::<FixtureEntry>.into_iter().collect();
            entries.sort_by_key(|e| e.file);
            for entry in entries {
                outcomes.push((
                    entry.file.to_owned(),
                    replay(&PathBuf::from(entry.file), entry.bytes, &placement),
                ));
            }
        }
    }
    report(&outcomes, &args.device)
}

fn report(outcomes: &[(String, Result<Outcome>)], device: &DeviceArgs) -> Result<()> {
    let mut out =
        table(&["fixture", "quantity", "tensors", "worst relative error", "tolerance", ""]);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, outcome) in outcomes {
        match outcome {
            Ok(Outcome::Compared(checks)) => {
                for (i, check) in checks.iter().enumerate() {
                    let verdict = if check.passed() {
                        "ok".to_owned()
                    } else {
                        format!("FAILED at {}", check.at)
                    };
                    let name = if i == 0 { name.as_str() } else { "" };
                    let (n, worst, tolerance) = (
                        check.tensors.to_string(),
                        format!("{:.1e}", check.worst),
                        format!("{:.0e}", check.tolerance),
                    );
                    out.add_row([name, &check.quantity, &n, &worst, &tolerance, &verdict]);
                }
            }
            Ok(Outcome::Skipped(why)) => {
                out.add_row([name, &format!("skipped: {why}")]);
            }
            Err(error) => {
                out.add_row([name, &format!("FAILED: {error}")]);
            }
        }
        match outcome {
            Ok(Outcome::Skipped(_)) => skipped += 1,
            Ok(outcome) if outcome.passed() => passed += 1,
            _ => failed += 1,
        }
    }
    println!(
        "{out}\n{passed} passed, {failed} failed, {skipped} skipped ({} on {})",
        device.precision(),
        device.device
    );
    if failed > 0 {
        return Err(Error::Protocol(format!(
            "{failed} of {} fixtures differ from the authors' numbers",
            outcomes.len()
        )));
    }
    if passed == 0 {
        return Err(Error::Protocol("no fixture was compared: nothing is proven".into()));
    }
    Ok(())
}
