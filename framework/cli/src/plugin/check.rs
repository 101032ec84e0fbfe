//! `cilbench plugin check`: what a plugin is, and whether its methods keep the rules, in processes that it may end.

use std::path::Path;

use cilbench::method::Origin;
use cilbench::plugin::{Kind, process};
use cilbench::{Error, Result};

use super::load::{is_library, isolated, limit};
use crate::conformance::conformance;
use crate::list::table;
use crate::prepare::there_is;

pub(super) fn check(name: &str) -> Result<()> {
    let entries = match is_library(name) {
        true => {
            there_is("plugin", Path::new(name))?;
            isolated(Path::new(name))?.register()?
        }
        false => process::register(name, limit())?,
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
    let broken: Vec<&str> = methods.into_iter().filter(|name| conformance(name).inspect_err(|e| eprintln!("{e}")).is_err()).collect();
    match broken.is_empty() {
        true => Ok(()),
        false => Err(Error::Protocol(format!("{name}: these methods break rules: {}", broken.join(", ")))),
    }
}
