//! `cilbench plugin list`: lists the plugins that were opened.

use cilbench::{Error, Result, method};

use crate::args::GlobalArgs;
use crate::commands::Execute;
use crate::output::table;

#[derive(clap::Args)]
pub(crate) struct List {}

impl Execute for List {
    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        list()
    }
}

fn list() -> Result<()> {
    let mut out = table(&["method", "version", "plugin", "sha256", "from"]);
    let mut any = false;
    for entry in method::all() {
        let method::Origin::Plugin { plugin, place } = &entry.origin else { continue };
        any = true;
        out.add_row([
            entry.about.name,
            entry.about.version,
            &plugin.short(),
            &plugin.sha256,
            place,
        ]);
    }
    if !any {
        return Err(Error::usage(
            "there is no plugin: name one with --plugin FILE, or a folder of them in CILBENCH_PLUGINS",
        ));
    }
    println!("{out}");
    Ok(())
}
