//! How results are printed and written.

use std::path::Path;

use cilbench::{Error, Result};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// A plain table that fits the terminal.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// Writes `value` as indented JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::file(path, format!("cannot be written as JSON: {e}")))?;
    std::fs::write(path, text).map_err(Error::io(path))
}

/// A number of bytes in gigabytes; "not known" for none.
pub(crate) fn gigabytes(bytes: Option<u64>) -> String {
    bytes.map_or("not known".to_owned(), |b| format!("{:.2} GB", b as f64 / 1e9))
}
