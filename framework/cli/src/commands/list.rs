//! `cilbench list`: lists the registered methods, scenarios, backbones or data sets.

use cilbench::method::MethodEntry;
use cilbench::plugin::Plugin;
use cilbench::{Result, backbone, data, method, scenario};
use clap::ValueEnum;

use super::Execute;
use crate::args::GlobalArgs;
use crate::output::table;

#[derive(clap::Args)]
pub(crate) struct List {
    /// What to list
    what: What,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Methods
    Methods,
    /// Scenarios
    Scenarios,
    /// Backbones
    Backbones,
    /// Data sets
    Datasets,
}

impl Execute for List {
    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        list(self.what)
    }
}

fn list(what: What) -> Result<()> {
    let mut out;
    match what {
        What::Methods => {
            out = table(&["method", "summary", "from"]);
            let from =
                |e: &MethodEntry| e.origin.plugin().map_or("built in".to_owned(), Plugin::short);
            out.add_rows(
                method::all()
                    .iter()
                    .map(|e| [e.about.name.to_owned(), e.about.summary.to_owned(), from(e)]),
            );
        }
        What::Scenarios => {
            out = table(&["scenario", "summary", "data set"]);
            out.add_rows(scenario::all()?.iter().map(|s| [&s.name, &s.summary, &s.dataset]));
        }
        What::Backbones => {
            out = table(&["backbone", "summary"]);
            out.add_rows(backbone::all().iter().map(|e| [e.name, e.summary]));
        }
        What::Datasets => {
            out = table(&["data set", "summary", "needs"]);
            out.add_rows(data::all().iter().map(|e| {
                [e.name, e.summary, if e.files.is_empty() { "nothing" } else { e.files }]
            }));
        }
    }
    println!("{out}");
    Ok(())
}
