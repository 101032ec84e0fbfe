//! Which cell of a manifest's line is what.

use super::path::Root;
use crate::Error;
use crate::data::Split;

/// A line of a manifest.
pub(super) struct Row {
    pub path: String,
    pub label: String,
    pub domain: String,
    pub split: Split,
    pub line: u32,
}

/// What the columns are called here, and what other programs call them.
const NAMES: [(&str, &[&str]); 4] = [
    (
        "path",
        &[
            "file",
            "filename",
            "file_name",
            "filepath",
            "file_path",
            "fname",
            "image",
            "img",
            "image_path",
            "img_path",
            "image_name",
            "image_id",
        ],
    ),
    (
        "label",
        &[
            "class",
            "class_id",
            "class_name",
            "classname",
            "category",
            "category_id",
            "label_id",
            "label_name",
            "labels",
            "target",
            "y",
        ],
    ),
    ("domain", &["style", "source", "environment", "domain_id", "domain_name"]),
    (
        "split",
        &["set", "subset", "partition", "phase", "mode", "usage", "fold", "is_train", "train_test"],
    ),
];

/// The columns of a manifest.
pub(super) struct Columns {
    count: usize,
    path: usize,
    label: usize,
    domain: Option<usize>,
    split: Option<usize>,
    /// Whether the cells are separated by blanks, so that a blank in a path makes two cells of it.
    blanks: bool,
}

impl Columns {
    /// The columns by a manifest's first line, and whether that line is a header.
    pub(super) fn of(cells: &[&str], random: bool, blanks: bool) -> Result<(Self, bool), String> {
        match is_header(cells) {
            true => Ok((Self::named(cells, random, blanks)?, true)),
            false => Ok((Self::counted(cells.len(), random, blanks)?, false)),
        }
    }

    fn named(cells: &[&str], random: bool, blanks: bool) -> Result<Self, String> {
        let renames: Vec<String> =
            cells.iter().filter_map(|c| Some(format!("{c} to {}", meant(c)?))).collect();
        if !renames.is_empty() {
            return Err(format!("this header has other names: rename {}", renames.join(", ")));
        }
        let known = NAMES.map(|(name, _)| name);
        for (i, cell) in cells.iter().enumerate() {
            if cell.is_empty() {
                return Err(format!(
                    "column {} has no name; if it is a row number (pandas: index=False leaves it out), remove it",
                    i + 1
                ));
            }
            if !known.iter().any(|k| k.eq_ignore_ascii_case(cell)) {
                return Err(Error::unknown("column", cell, known).to_string());
            }
            if cells[..i].iter().any(|c| c.eq_ignore_ascii_case(cell)) {
                return Err(format!("two columns are called '{cell}'; remove one"));
            }
        }
        let find = |name: &str| cells.iter().position(|c| c.eq_ignore_ascii_case(name));
        let need =
            |name: &str| find(name).ok_or_else(|| format!("there is no column '{name}'; add it"));
        let split = find("split");
        if split.is_none() && !random {
            return Err("there is no column 'split' (train or test); add it, or choose split = \"random-80-20\"".into());
        }
        Ok(Self {
            count: cells.len(),
            path: need("path")?,
            label: need("label")?,
            domain: find("domain"),
            split,
            blanks,
        })
    }

    fn counted(count: usize, random: bool, blanks: bool) -> Result<Self, String> {
        let (domain, split) = match (count, random) {
            (2, true) => (None, None),
            (3, _) => (None, Some(2)),
            (4, _) => (Some(2), Some(3)),
            (n, true) => {
                return Err(format!(
                    "{n} columns; expected path,label or path,label[,domain],split"
                ));
            }
            (n, false) => return Err(format!("{n} columns; expected path,label[,domain],split")),
        };
        Ok(Self { count, path: 0, label: 1, domain, split, blanks })
    }

    /// The row of these cells.
    pub(super) fn row(&self, cells: &[&str], line: u32, root: &Root) -> Result<Row, String> {
        let quotes = match self.blanks {
            true => "; a path with a blank in it stands in quotes, as in \"my cat/1.jpg\" 0 train",
            false => "",
        };
        if let Some(cell) = cells.iter().find(|c| c.contains('\n')) {
            let begin: String = cell.chars().take(30).collect();
            return Err(format!(
                "a quote is opened and not closed on the same line: \"{}…",
                begin.replace('\n', " ")
            ));
        }
        if cells.len() != self.count {
            return Err(format!(
                "{} columns, where the first line has {}{quotes}",
                cells.len(),
                self.count
            ));
        }
        let [path, label] = [cells[self.path], cells[self.label]];
        if path.is_empty() || label.is_empty() {
            return Err("the path or the label is empty".into());
        }
        if is_path(label) || (self.blanks && label.contains('/')) {
            return Err(format!(
                "'{label}' stands where the label should, and looks like a path{quotes}"
            ));
        }
        if label.parse::<i128>().is_ok_and(|n| n < 0) {
            return Err(format!("label {label} is out of range: labels are numbered from 0"));
        }
        let split = self.split.map_or(Ok(Split::Train), |i| side(cells[i]))?;
        let key = root.key(path);
        if key.is_empty() {
            return Err(format!("'{path}' names a folder, not an image"));
        }
        let domain = self.domain.map_or(String::new(), |i| cells[i].to_owned());
        Ok(Row { path: key, label: label.to_owned(), domain, split, line })
    }
}

fn side(cell: &str) -> Result<Split, String> {
    match cell.to_lowercase().as_str() {
        "train" | "training" => Ok(Split::Train),
        "test" | "testing" => Ok(Split::Test),
        "val" | "valid" | "validation" => Err(format!(
            "split '{cell}': expected train or test; an image for validation belongs to one of them: say to which"
        )),
        _ => Err(format!("split '{cell}': expected train or test")),
    }
}

/// Whether a first line names columns: by two of their names, ours or others'.
fn is_header(cells: &[&str]) -> bool {
    let plain =
        |c: &&str| NAMES.iter().any(|(name, _)| name.eq_ignore_ascii_case(c)) || meant(c).is_some();
    cells.iter().filter(|c| plain(c)).count() >= 2
}

/// What a column of another program is called here.
fn meant(cell: &str) -> Option<&'static str> {
    let cell = cell.trim_start_matches('#').trim().to_lowercase().replace(['-', ' '], "_");
    let other =
        |(name, others): &(&'static str, &[&str])| others.contains(&cell.as_str()).then_some(*name);
    NAMES.iter().find_map(other)
}

/// Whether a text ends as the name of an image file does.
fn is_path(text: &str) -> bool {
    let ending = text.rsplit_once('.').map(|(_, ending)| ending.to_lowercase());
    ending.is_some_and(|e| crate::data::scan::is_read(&e))
}
