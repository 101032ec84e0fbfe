//! `cilbench conformance`: whether a method keeps the rules.

use cilbench::conformance::cases;
use cilbench::{Error, Result, method};

use crate::list::table;

pub(crate) fn conformance(name: &str) -> Result<()> {
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
    if broken > 0 { Err(Error::Protocol(format!("method '{name}' breaks {broken} rule(s)"))) } else { Ok(()) }
}
