//! `cilbench conformance`: checks whether a method keeps the rules.

use cilbench::conformance::cases;
use cilbench::{Error, Result, method};

use super::Execute;
use crate::args::GlobalArgs;
use crate::output::table;

#[derive(clap::Args)]
pub(crate) struct Conformance {
    /// The method
    method: String,
}

impl Execute for Conformance {
    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        check_rules(&self.method)
    }
}

/// Checks every rule and prints which of them the method keeps.
pub(super) fn check_rules(name: &str) -> Result<()> {
    let entry = method::find(name)?;
    let mut out = table(&["rule", "outcome"]);
    let (mut kept, mut broken) = (0, 0);
    for case in cases() {
        match (case.check)(entry) {
            Ok(()) => {
                kept += 1;
                out.add_row([case.rule, "kept"]);
            }
            Err(error) => {
                broken += 1;
                out.add_row([case.rule, &format!("BROKEN: {error}")]);
            }
        }
    }
    println!("{out}\n{name}: {kept} rules kept, {broken} broken");
    if broken > 0 {
        Err(Error::Protocol(format!("method '{name}' breaks {broken} rule(s)")))
    } else {
        Ok(())
    }
}
