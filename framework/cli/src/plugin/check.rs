//! `cilbench plugin check`: what a library is, and whether its methods keep the rules, in processes that it may end.

use std::path::Path;

use cilbench::{Error, Result};

use super::load::isolated;
use crate::conformance::conformance;
use crate::list::table;

pub(super) fn check(file: &Path) -> Result<()> {
    let opened = isolated(file)?;
    let entries = opened.register()?;
    let (plugin, mut out) = (&opened.plugin, table(&["plugin", &opened.plugin.name]));
    let methods: Vec<&str> = entries.iter().map(|e| e.about.name).collect();
    out.add_row(["version", &plugin.version]);
    out.add_row(["ABI version", &plugin.protocol.to_string()]);
    out.add_row(["sha256", &plugin.sha256]);
    out.add_row(["file", &opened.path.display().to_string()]);
    out.add_row(["methods", &methods.join(", ")]);
    println!("{out}\n");
    let broken: Vec<&str> = methods.into_iter().filter(|name| conformance(name).inspect_err(|e| eprintln!("{e}")).is_err()).collect();
    match broken.is_empty() {
        true => Ok(()),
        false => Err(Error::Protocol(format!("{}: these methods break rules: {}", file.display(), broken.join(", ")))),
    }
}
