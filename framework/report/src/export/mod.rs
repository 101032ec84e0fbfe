//! Exports of the leaderboard; the ending of the file's name says which.

mod csv;
mod html;
mod json;
mod latex;
mod markdown;

use std::path::Path;

use cilbench::results::leaderboard::Board;
use cilbench::{Error, Result};

pub(crate) use html::{STYLE, table_of};

use crate::output;
use crate::table::{Column, Table};

/// The option that names the file.
const OPTION: &str = "--export";

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values: every field of every row, or the chosen columns.
    Csv,
    /// A table in GitHub's Markdown.
    Markdown,
    /// A LaTeX table with booktabs.
    Latex,
    /// A page of its own.
    Html,
    /// Every field of every row, with all pairs that were tested.
    Json,
}

/// The formats by ending.
const ENDINGS: [(&str, Format); 5] = [
    ("csv", Format::Csv),
    ("md", Format::Markdown),
    ("tex", Format::Latex),
    ("html", Format::Html),
    ("json", Format::Json),
];

impl Format {
    /// The format of a file, by its ending.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the endings.
    pub fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
        let found = ENDINGS.iter().find(|(known, _)| *known == ending).map(|(_, format)| *format);
        found.ok_or_else(|| {
            let all: Vec<String> = ENDINGS.iter().map(|(known, _)| format!(".{known}")).collect();
            Error::usage(format!(
                "{OPTION} {}: the ending says the format, and it is none of {}; choose one of these",
                path.display(),
                all.join(", ")
            ))
        })
    }
}

/// Refuses a file that [`export`] would refuse, before anything is read.
///
/// # Errors
/// [`Error::Usage`] for an unknown ending, a folder, or a file that is not an earlier export.
pub fn check(path: &Path) -> Result<()> {
    if path.is_dir() {
        return output::check(OPTION, path);
    }
    Format::of(path)?;
    output::check(OPTION, path)
}

/// Writes boards to a file in the format of its ending. Without `columns` a CSV or JSON has every
/// field and a table has the usual columns.
///
/// # Errors
/// As of [`check`]; [`Error::Io`] if the file cannot be written.
pub fn export(path: &Path, boards: &[Board], columns: Option<&[Column]>) -> Result<()> {
    output::write(OPTION, path, &render(Format::of(path)?, boards, columns)?)
}

/// The bytes of an export.
///
/// # Errors
/// [`Error::Protocol`] if a row cannot be written in this format.
pub fn render(format: Format, boards: &[Board], columns: Option<&[Column]>) -> Result<Vec<u8>> {
    let gathered = boards.iter().flat_map(|b| &b.rows).any(|r| r.n_orders > 1);
    let usual = Column::usual(gathered);
    let tables =
        || boards.iter().map(|b| Table::of(b, columns.unwrap_or(&usual))).collect::<Vec<_>>();
    match format {
        Format::Csv => csv::csv(boards, columns),
        Format::Json => json::json(boards),
        Format::Markdown => Ok(markdown::markdown(&tables()).into_bytes()),
        Format::Latex => Ok(latex::latex(&tables()).into_bytes()),
        Format::Html => Ok(html::html(&tables()).into_bytes()),
    }
}

#[cfg(test)]
mod test;
