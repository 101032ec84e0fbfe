//! `cilbench verify`: parity with the authors' code, on this machine.

use std::path::PathBuf;

use cilbench::context::Placement;
use cilbench::verify::{FixtureEntry, Outcome, folder, replay};
use cilbench::{Error, Result, device};

use crate::args::VerifyArgs;
use crate::list::table;
use crate::prepare::there_is;

pub(crate) fn verify(args: &VerifyArgs) -> Result<()> {
    let (dtype, precision) = args.dtype.dtype();
    let placement = Placement { device: device::open(&args.device)?, dtype };
    let mut outcomes = Vec::new();
    match &args.fixtures {
        Some(path) => {
            there_is("--fixtures", path)?;
            for file in folder(path)? {
                let bytes = std::fs::read(&file).map_err(Error::io(&file))?;
                outcomes.push((file.display().to_string(), replay(&file, &bytes, &placement)));
            }
        }
        None => {
            let mut entries: Vec<_> = cilbench::inventory::iter::<FixtureEntry>.into_iter().collect();
            entries.sort_by_key(|e| e.file);
            for entry in entries {
                outcomes.push((entry.file.to_owned(), replay(&PathBuf::from(entry.file), entry.bytes, &placement)));
            }
        }
    }
    report(&outcomes, precision, &args.device)
}

fn report(outcomes: &[(String, Result<Outcome>)], precision: &str, device: &str) -> Result<()> {
    let mut out = table(&["fixture", "quantity", "tensors", "worst relative error", "tolerance", ""]);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, outcome) in outcomes {
        match outcome {
            Ok(Outcome::Compared(checks)) => {
                for (i, check) in checks.iter().enumerate() {
                    let verdict = if check.passed() { "ok".to_owned() } else { format!("FAILED at {}", check.at) };
                    let name = if i == 0 { name.as_str() } else { "" };
                    let (n, worst, tolerance) =
                        (check.tensors.to_string(), format!("{:.1e}", check.worst), format!("{:.0e}", check.tolerance));
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
    println!("{out}\n{passed} passed, {failed} failed, {skipped} skipped ({precision} on {device})");
    if failed > 0 {
        return Err(Error::Protocol(format!("{failed} of {} fixtures differ from the authors' numbers", outcomes.len())));
    }
    if passed == 0 {
        return Err(Error::Protocol("no fixture was compared: nothing is proven".into()));
    }
    Ok(())
}
