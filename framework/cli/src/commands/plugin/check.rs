//! `cilbench plugin check`: prints what a plugin is and whether its methods keep the rules. The
//! plugin is opened in another process, which it may crash.

use std::path::Path;

use cilbench::method::Origin;
use cilbench::plugin::{Kind, process};
use cilbench::{Error, Result};

use crate::args::GlobalArgs;
use crate::commands::Execute;
use crate::commands::conformance::check_rules;
use crate::output::table;
use crate::paths::require_exists;
use crate::plugins::{PluginPolicy, is_library, isolated, timeout};

#[derive(clap::Args)]
pub(crate) struct Check {
    /// The library, or the command in quotes
    #[arg(value_name = "FILE|COMMAND")]
    name: String,
}

impl Execute for Check {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::without_folder())
    }

    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        check(&self.name)
    }
}

fn check(name: &str) -> Result<()> {
    let entries = match is_library(name) {
        true => {
            require_exists("plugin", Path::new(name))?;
            isolated(Path::new(name))?.register()?
        }
        false => process::register(name, timeout())?,
    };
    let Some(Origin::Plugin { plugin, place }) = entries.first().map(|e| &e.origin) else {
        return Err(Error::Protocol(format!("{name}: there is no method in this plugin")));
    };
    let (spoken, named) = match plugin.kind {
        Kind::Binary => ("ABI version", "file"),
        Kind::Process => ("protocol version", "command"),
    };
    let mut out = table(&["plugin", &plugin.name]);
    let methods: Vec<&str> = entries.iter().map(|e| e.about.name).collect();
    out.add_row(["version", &plugin.version]);
    out.add_row([spoken, &plugin.protocol.to_string()]);
    out.add_row(["sha256", &plugin.sha256]);
    out.add_row([named, place]);
    out.add_row(["methods", &methods.join(", ")]);
    println!("{out}\n");
    let broken: Vec<&str> = methods
        .into_iter()
        .filter(|name| check_rules(name).inspect_err(|e| eprintln!("{e}")).is_err())
        .collect();
    match broken.is_empty() {
        true => Ok(()),
        false => Err(Error::Protocol(format!(
            "{name}: these methods break rules: {}",
            broken.join(", ")
        ))),
    }
}
