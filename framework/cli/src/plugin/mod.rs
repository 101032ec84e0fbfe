//! Plugins on the command line: which are opened, and `cilbench plugin`.

mod check;
mod create;
mod load;

use cilbench::method;
use cilbench::plugin::process;
use cilbench::{Error, Result};

use crate::args::PluginCommand;
use crate::list::table;
pub(crate) use load::{Loader, absolute, in_config};

pub(crate) fn plugin(command: PluginCommand) -> Result<()> {
    match command {
        PluginCommand::List => list(),
        PluginCommand::Check { name } => check::check(&name),
        PluginCommand::New(args) => create::create(&args),
        PluginCommand::Serve { file } => process::serve(&file),
    }
}

/// The methods that came from plugins.
fn list() -> Result<()> {
    let mut out = table(&["method", "version", "plugin", "sha256", "from"]);
    let mut any = false;
    for entry in method::all() {
        let method::Origin::Plugin { plugin, place } = &entry.origin else { continue };
        any = true;
        out.add_row([entry.about.name, entry.about.version, &plugin.short(), &plugin.sha256, place]);
    }
    if !any {
        return Err(Error::usage("there is no plugin: name one with --plugin FILE, or a folder of them in CILBENCH_PLUGINS"));
    }
    println!("{out}");
    Ok(())
}
