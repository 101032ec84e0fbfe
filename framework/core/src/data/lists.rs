//! Lists of images: `path label` lines as data sets ship them, and manifests of the user's own.

use std::collections::BTreeMap;
use std::path::Path;

use super::{FileSet, Place, Sample, Split, SplitId};
use crate::{Error, Result};

/// One line of a list file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The path, with `/` between the parts.
    pub path: String,
    /// The label.
    pub label: usize,
    /// The line, from 1.
    pub number: u32,
}

/// Parses the text of a list file: a path, white space, a label from 0 to `classes` − 1, on each line. `file` is used in messages.
///
/// # Errors
/// Names file and line of what is not such a line.
pub fn parse_list(text: &str, file: &Path, classes: usize) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let bad = |what: String| Error::file(file, format!("line {}: {what}", i + 1));
        let (path, label) = line
            .trim_end()
            .rsplit_once(char::is_whitespace)
            .ok_or_else(|| bad(format!("expected a path and a label, as in dog/1.jpg 0, found '{line}'")))?;
        let label: usize = label.parse().map_err(|_| bad(format!("'{label}' is no label: expected a number from 0 to {}", classes - 1)))?;
        if label >= classes {
            return Err(bad(format!("label {label} is out of range: there are {classes} classes, 0 to {}", classes - 1)));
        }
        lines.push(Line { path: path.trim().trim_start_matches("./").to_owned(), label, number: i as u32 + 1 });
    }
    Ok(lines)
}

/// Reads a list file: see [`parse_list`].
///
/// # Errors
/// As [`parse_list`]; or if the file cannot be read.
pub fn read_list(file: &Path, classes: usize) -> Result<Vec<Line>> {
    parse_list(&std::fs::read_to_string(file).map_err(Error::io(file))?, file, classes)
}

/// A data set from a manifest: `path,label[,domain],split` with commas (a `.csv` file) or white space, one image a line. A first line that names these
/// columns may give them in another order. Labels are numbers from 0, or names, then numbered in alphabetical order; the split is `train` or `test`,
/// and may be left out where `split` is random. Paths are relative to `root`.
///
/// # Errors
/// Names file and line of what is wrong.
pub fn read_manifest(file: &Path, root: &Path, split: &SplitId) -> Result<FileSet> {
    let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
    let random = matches!(split, SplitId::Random(_));
    let comma = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .delimiter(if comma { b',' } else { b' ' })
        .from_reader(text.as_bytes());
    let mut columns: Option<Columns> = None;
    let mut rows: Vec<(Row, u32)> = Vec::new();
    let mut record = csv::StringRecord::new();
    loop {
        let more = reader.read_record(&mut record).map_err(|e| Error::file(file, format!("cannot be parsed: {e}")))?;
        if !more {
            break;
        }
        let line = record.position().map_or(0, |p| p.line() as u32);
        let cells: Vec<&str> = if comma { record.iter().collect() } else { record.iter().filter(|c| !c.is_empty()).collect() };
        if cells.iter().all(|c| c.is_empty()) {
            continue;
        }
        let bad = |what: String| Error::file(file, format!("line {line}: {what}"));
        let Some(columns) = &columns else {
            let (found, is_header) = Columns::of(&cells, random).map_err(bad)?;
            if !is_header {
                rows.push((found.row(&cells).map_err(bad)?, line));
            }
            columns = Some(found);
            continue;
        };
        rows.push((columns.row(&cells).map_err(bad)?, line));
    }
    if rows.is_empty() {
        return Err(Error::file(file, "it names no image; expected lines path,label[,domain],split"));
    }
    let (labels, classes) = numbered(rows.iter().map(|(r, _)| r.label.as_str()), "class");
    let (domains, domain_names) = numbered(rows.iter().map(|(r, _)| r.domain.as_str()), "domain");
    let set = FileSet::new(classes, domain_names, vec![root.to_path_buf()], vec![file.to_path_buf()]);
    let images = rows.into_iter().zip(labels).zip(domains).map(|(((row, line), label), domain)| {
        (row.split, (Sample { key: row.path, label, domain }, Place { folder: 0, list: Some(0), line }))
    });
    Ok(set.with_split(images.collect(), split))
}

struct Row {
    path: String,
    label: String,
    domain: String,
    split: Split,
}

/// Which cell of a line is what.
struct Columns {
    count: usize,
    path: usize,
    label: usize,
    domain: Option<usize>,
    split: Option<usize>,
}

impl Columns {
    /// The columns of a manifest by its first line, and whether that line is a header.
    fn of(cells: &[&str], random: bool) -> Result<(Self, bool), String> {
        let find = |name: &str| cells.iter().position(|c| c.eq_ignore_ascii_case(name));
        let count = cells.len();
        if let (Some(path), Some(label)) = (find("path"), find("label")) {
            let known = ["path", "label", "domain", "split"];
            if let Some(odd) = cells.iter().find(|c| !known.iter().any(|k| k.eq_ignore_ascii_case(c))) {
                return Err(Error::unknown("column", odd, known).to_string());
            }
            let split = find("split");
            if split.is_none() && !random {
                return Err("there is no column 'split' (train or test); add it, or choose split = \"random-80-20\"".into());
            }
            return Ok((Self { count, path, label, domain: find("domain"), split }, true));
        }
        let (domain, split) = match (count, random) {
            (2, true) => (None, None),
            (3, _) => (None, Some(2)),
            (4, _) => (Some(2), Some(3)),
            (n, true) => return Err(format!("{n} columns; expected path,label or path,label[,domain],split")),
            (n, false) => return Err(format!("{n} columns; expected path,label[,domain],split")),
        };
        Ok((Self { count, path: 0, label: 1, domain, split }, false))
    }

    fn row(&self, cells: &[&str]) -> Result<Row, String> {
        if cells.len() != self.count {
            return Err(format!("{} columns, where the first line has {}", cells.len(), self.count));
        }
        let split = match self.split.map(|i| cells[i].to_lowercase()).as_deref() {
            None | Some("train") => Split::Train,
            Some("test") => Split::Test,
            Some(other) => return Err(format!("split '{other}': expected train or test")),
        };
        let [path, label] = [self.path, self.label].map(|i| cells[i].to_owned());
        if path.is_empty() || label.is_empty() {
            return Err("the path or the label is empty".into());
        }
        if label.parse::<i64>().is_ok_and(|n| n < 0) {
            return Err(format!("label {label} is out of range: labels are numbered from 0"));
        }
        Ok(Row { path, label, domain: self.domain.map_or(String::new(), |i| cells[i].to_owned()), split })
    }
}

/// Numbers for texts and the names of the numbers: the texts themselves if all are numbers, else their alphabetical order.
fn numbered<'a>(texts: impl Iterator<Item = &'a str> + Clone, what: &str) -> (Vec<usize>, Vec<String>) {
    let numbers: Option<Vec<usize>> = texts.clone().map(|t| t.parse().ok()).collect();
    if let Some(numbers) = numbers {
        let count = numbers.iter().max().map_or(0, |m| m + 1);
        return (numbers, (0..count).map(|i| format!("{what} {i}")).collect());
    }
    let mut order: BTreeMap<&str, usize> = texts.clone().map(|t| (t, 0)).collect();
    order.values_mut().enumerate().for_each(|(i, n)| *n = i);
    (texts.map(|t| order[t]).collect(), order.keys().map(|k| if k.is_empty() { what.to_owned() } else { (*k).to_owned() }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    fn manifest(name: &str, text: &str, split: &str) -> Result<FileSet> {
        let root = tempfile::tempdir().expect("folder");
        let file = root.path().join(name);
        std::fs::write(&file, text).expect("file");
        read_manifest(&file, root.path(), &split.parse().expect("split"))
    }

    #[test]
    fn lists_are_read_and_bad_lines_named() {
        let file = Path::new("clipart_train.txt");
        let lines = parse_list("clipart/a b/1.jpg 0\n\n./x/2.jpg 2\n", file, 3).expect("list");
        assert_eq!(lines[0], Line { path: "clipart/a b/1.jpg".into(), label: 0, number: 1 });
        assert_eq!(lines[1], Line { path: "x/2.jpg".into(), label: 2, number: 3 });
        for (text, part) in [("a 3", "label 3 is out of range"), ("\na x", "line 2: 'x' is no label"), ("a", "expected a path and a label")]
        {
            let message = parse_list(text, file, 3).expect_err(text).to_string();
            assert!(message.contains(part) && message.contains("clipart_train.txt: line"), "{message}");
        }
    }

    #[test]
    fn manifests_of_every_form_are_read() {
        let a = manifest("m.csv", "a.jpg,cat,train\nb.jpg,dog,test\n", "manifest").expect("three columns");
        assert_eq!(a.class_names(), ["cat", "dog"]);
        assert_eq!((a.samples(Split::Train)[0].label, a.samples(Split::Test)[0].label), (0, 1));
        let b = manifest("m.txt", "x/a.jpg 1 photo train\nx/b.jpg 0 sketch test\n", "manifest").expect("four columns");
        assert_eq!((b.class_names().len(), b.domain_names()), (2, ["photo".to_owned(), "sketch".to_owned()].as_slice()));
        let c = manifest("m.csv", "split,label,path\ntrain,0,a.jpg\ntest,0,\"b,c.jpg\"\n", "manifest").expect("header");
        assert_eq!(c.samples(Split::Test)[0].key, "b,c.jpg");
        let d = manifest("m.csv", "path,label\n0.jpg,0\n1.jpg,0\n2.jpg,0\n3.jpg,0\n4.jpg,0\n", "random-80-20:1").expect("random");
        assert_eq!((d.samples(Split::Train).len(), d.samples(Split::Test).len()), (4, 1));
    }

    #[test]
    fn what_is_wrong_in_a_manifest_is_named() {
        for (text, part) in [
            ("a.jpg,0,train\nb.jpg,1,valid\n", "line 2: split 'valid'"),
            ("a.jpg,0,train\nb.jpg,1\n", "line 2: 2 columns"),
            ("path,label\na.jpg,0\n", "no column 'split'"),
            ("path,lable,label,split\n", "did you mean 'label'"),
            ("a.jpg,-1,train\n", "line 1: label -1"),
            ("", "names no image"),
        ] {
            let message = manifest("m.csv", text, "manifest").err().expect(text).to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
