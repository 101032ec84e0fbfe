//! Manifests: a user's own list of images.

use std::collections::HashMap;
use std::path::Path;

use super::columns::{Columns, Row};
use super::labels::numbered;
use super::path::Root;
use super::text::read_text;
use crate::data::{FileSet, Place, Sample, Split, SplitId};
use crate::{Error, Result};

/// A data set from a manifest: `path,label[,domain],split`, one image per line.
///
/// Cells are separated by commas, semicolons, tabs, or blanks (where a path with a blank stands in
/// quotes). A first line that names these columns may give them in another order. Labels are
/// numbers from 0, or names, which are then numbered in alphabetical order. The split is `train` or
/// `test`, and may be left out where `split` is random. Paths are relative to `root`; an absolute
/// path below `root` and a path with `.` or `..` in it mean the same as the plain one.
///
/// # Errors
/// Names file and line of what is wrong.
pub fn read_manifest(file: &Path, root: &Path, split: &SplitId) -> Result<FileSet> {
    let text = read_text(file)?;
    let random = matches!(split, SplitId::Random(_));
    let folder = Root::new(root);
    let rows = rows(&text, file, random, &folder)
        .map_err(|(line, what)| Error::file(file, format!("line {line}: {what}")))?;
    if rows.is_empty() {
        return Err(Error::file(
            file,
            "it names no image; expected lines path,label[,domain],split",
        ));
    }
    let one = |what: String| Error::file(file, what);
    refuse_both_forms(&rows, &folder).map_err(one)?;
    let labels = numbered(rows.iter().map(|r| (r.label.as_str(), r.line)), "class").map_err(one)?;
    let domains =
        numbered(rows.iter().map(|r| (r.domain.as_str(), r.line)), "domain").map_err(one)?;
    let set = FileSet::new(
        labels.names,
        domains.names,
        vec![root.to_path_buf()],
        vec![file.to_path_buf()],
    )
    .hinting(labels.hint);
    let images =
        rows.into_iter().zip(labels.numbers).zip(domains.numbers).map(|((row, label), domain)| {
            (
                row.split,
                (
                    Sample { key: row.path, label, domain },
                    Place { folder: 0, list: Some(0), line: row.line },
                ),
            )
        });
    Ok(set.with_split(images.collect::<Vec<(Split, _)>>(), split))
}

/// What separates the cells of a line.
#[derive(Clone, Copy, PartialEq)]
enum Separator {
    Comma,
    Semicolon,
    Tab,
    Blank,
}

impl Separator {
    const ALL: [Self; 4] = [Self::Tab, Self::Comma, Self::Semicolon, Self::Blank];

    /// The separator that a file's ending promises.
    fn promised(file: &Path) -> Self {
        let ending = file.extension().map(|e| e.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("csv") => Self::Comma,
            Some("tsv" | "tab") => Self::Tab,
            _ => Self::Blank,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
            Self::Blank => b' ',
        }
    }

    fn reader(self, text: &str) -> csv::Reader<&[u8]> {
        let mut builder = csv::ReaderBuilder::new();
        builder
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .delimiter(self.byte())
            .from_reader(text.as_bytes())
    }

    /// The cells of a record; several blanks are one.
    fn cells(self, record: &csv::StringRecord) -> Vec<&str> {
        record.iter().filter(|c| self != Self::Blank || !c.is_empty()).collect()
    }
}

/// A line, and what is wrong with it.
type At = (u32, String);

/// The separator, the columns, and whether the first line is a header.
type Form = (Separator, Columns, bool);

/// The rows of a manifest, or the line and what is wrong with it.
fn rows(text: &str, file: &Path, random: bool, root: &Root) -> Result<Vec<Row>, At> {
    let Some((separator, columns, header)) =
        columns(text, Separator::promised(file), random, root)?
    else {
        return Ok(Vec::new());
    };
    let mut reader = separator.reader(text);
    let (mut rows, mut record, mut first) = (Vec::new(), csv::StringRecord::new(), true);
    while reader.read_record(&mut record).map_err(|e| (0, format!("cannot be parsed: {e}")))? {
        let line = record.position().map_or(0, |p| p.line() as u32);
        let cells = separator.cells(&record);
        if cells.iter().all(|c| c.is_empty()) {
            continue;
        }
        if !std::mem::take(&mut first) || !header {
            rows.push(columns.row(&cells, line, root).map_err(|what| (line, what))?);
        }
    }
    Ok(rows)
}

/// The separator, the columns, and whether the first line is a header: what the file's ending
/// promises, if the first line can be read so, else the separator with which it can. `None` for a
/// list without lines.
fn columns(text: &str, promised: Separator, random: bool, root: &Root) -> Result<Option<Form>, At> {
    let others = Separator::ALL.into_iter().filter(|s| *s != promised);
    let mut worst: Option<(usize, u32, String)> = None;
    for separator in std::iter::once(promised).chain(others) {
        let Some((record, line)) = first_record(text, separator) else { return Ok(None) };
        let cells = separator.cells(&record);
        let blanks = separator == Separator::Blank;
        let found = Columns::of(&cells, random, blanks).and_then(|(columns, header)| {
            let glued = |c: &&str| blanks && (c.ends_with([',', ';']) || c.contains('\t'));
            match cells.iter().find(|c| glued(c)) {
                Some(cell) => {
                    Err(format!("'{cell}': separate the cells either by blanks or by commas"))
                }
                None if header => Ok((columns, true)),
                None => columns.row(&cells, line, root).map(|_| (columns, false)),
            }
        });
        match found {
            Ok((columns, header)) => return Ok(Some((separator, columns, header))),
            // The reading with the most cells is what was meant.
            Err(what) if worst.as_ref().is_none_or(|(count, ..)| cells.len() > *count) => {
                worst = Some((cells.len(), line, what))
            }
            Err(_) => {}
        }
    }
    worst.map_or(Ok(None), |(_, line, what)| Err((line, what)))
}

/// The first line that is not blank, and its number.
fn first_record(text: &str, separator: Separator) -> Option<(csv::StringRecord, u32)> {
    let mut reader = separator.reader(text);
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).ok()? {
        if record.iter().any(|c| !c.is_empty()) {
            let line = record.position().map_or(0, |p| p.line() as u32);
            return Some((record, line));
        }
    }
    None
}

/// An error if a file outside of the root is named by an absolute path on one line and by `..` on
/// another.
fn refuse_both_forms(rows: &[Row], root: &Root) -> Result<(), String> {
    let absolute: HashMap<&str, u32> = rows
        .iter()
        .filter(|r| r.path.starts_with('/'))
        .map(|r| (r.path.as_str(), r.line))
        .collect();
    if absolute.is_empty() {
        return Ok(());
    }
    for row in rows.iter().filter(|r| r.path.starts_with("../")) {
        if let Some(line) = absolute.get(root.absolute(&row.path).as_str()) {
            return Err(format!(
                "lines {line} and {} name the same file, {}; take one of them off the list",
                row.line, row.path
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    fn manifest(name: &str, text: &str, split: &str) -> Result<FileSet> {
        let root = tempfile::tempdir().expect("folder");
        let file = root.path().join(name);
        std::fs::write(&file, text.replace("ROOT", &root.path().display().to_string()))
            .expect("file");
        read_manifest(&file, root.path(), &split.parse().expect("split"))
    }

    fn keys(set: &FileSet) -> Vec<&str> {
        [Split::Train, Split::Test]
            .into_iter()
            .flat_map(|s| set.samples(s))
            .map(|s| s.key.as_str())
            .collect()
    }

    #[test]
    fn manifests_of_every_form_are_read() {
        let a = manifest("m.csv", "a.jpg,cat,train\nb.jpg,dog,test\n", "manifest")
            .expect("three columns");
        assert_eq!(a.class_names(), ["cat", "dog"]);
        assert_eq!((a.samples(Split::Train)[0].label, a.samples(Split::Test)[0].label), (0, 1));
        let b = manifest("m.txt", "x/a.jpg 1 photo train\nx/b.jpg 0 sketch test\n", "manifest")
            .expect("four columns");
        assert_eq!(
            (b.class_names().len(), b.domain_names()),
            (2, ["photo".to_owned(), "sketch".to_owned()].as_slice())
        );
        let c =
            manifest("m.csv", "split,label,path\ntrain,0,a.jpg\ntest,0,\"b,c.jpg\"\n", "manifest")
                .expect("header");
        assert_eq!(c.samples(Split::Test)[0].key, "b,c.jpg");
        let d = manifest(
            "m.csv",
            "path,label\n0.jpg,0\n1.jpg,0\n2.jpg,0\n3.jpg,0\n4.jpg,0\n",
            "random-80-20:1",
        )
        .expect("random");
        assert_eq!((d.samples(Split::Train).len(), d.samples(Split::Test).len()), (4, 1));
    }

    #[test]
    fn every_separator_is_recognised_by_what_the_first_line_says() {
        for (name, text) in [
            ("m.csv", "p q/a.jpg,cat,train\nb.jpg,dog,test\n"),
            ("m.csv", "p q/a.jpg;cat;train\nb.jpg;dog;test\n"),
            ("m.csv", "p q/a.jpg\tcat\ttrain\nb.jpg\tdog\ttest\n"),
            ("m.tsv", "p q/a.jpg\tcat\ttrain\nb.jpg\tdog\ttest\n"),
            ("m.txt", "p q/a.jpg\tcat\ttrain\nb.jpg\tdog\ttest\n"),
            ("m.txt", "p q/a.jpg,cat,train\nb.jpg,dog,test\n"),
            ("m.txt", "p q/a.jpg, cat, train\nb.jpg, dog, test\n"),
            ("m.txt", "\"p q/a.jpg\" cat train\nb.jpg  dog   test\n"),
            ("m.lst", "\n\n\"p q/a.jpg\" cat Train\nb.jpg dog TEST\n"),
            (
                "m.csv",
                "\u{feff}path,label,split\r\np q/a.jpg,cat,training\r\nb.jpg,dog,testing\r\n",
            ),
            ("m.csv", "p q\\a.jpg,cat,train\n.\\b.jpg,dog,test\n"),
        ] {
            let set = manifest(name, text, "listed").unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(
                (keys(&set), set.class_names()),
                (vec!["p q/a.jpg", "b.jpg"], ["cat".to_owned(), "dog".to_owned()].as_slice()),
                "{text}"
            );
        }
    }

    #[test]
    fn one_file_has_one_key_however_it_is_spelled() {
        let plain = manifest("m.csv", "x/a.jpg,0,train\nb.jpg,0,test\n", "listed").expect("plain");
        for text in [
            "./x/a.jpg,0,train\n.//b.jpg,0,test\n",
            "ROOT/x/a.jpg,0,train\nROOT/./b.jpg,0,test\n",
            "y/../x/a.jpg,0,train\n/../ROOT/b.jpg,0,test\n",
        ] {
            assert_eq!(
                keys(&manifest("m.csv", text, "listed").expect(text)),
                keys(&plain),
                "{text}"
            );
        }
        let both = manifest("m.csv", "ROOT/../x.jpg,0,train\n../x.jpg,0,test\n", "listed")
            .err()
            .expect("one file")
            .to_string();
        assert!(both.contains("lines 1 and 2 name the same file"), "{both}");
    }

    #[test]
    fn what_is_wrong_in_a_manifest_is_named() {
        for (name, text, part) in [
            ("m.csv", "a.jpg,0,train\nb.jpg,1,valid\n", "line 2: split 'valid'"),
            ("m.csv", "a.jpg,0,train\nb.jpg,1\n", "line 2: 2 columns"),
            ("m.csv", "path,label\na.jpg,0\n", "line 1: there is no column 'split'"),
            ("m.csv", "path,lable,label,split\n", "did you mean 'label'"),
            ("m.csv", "a.jpg,-1,train\n", "line 1: label -1"),
            ("m.csv", "", "names no image"),
            (
                "m.csv",
                "filename,class,set\na.jpg,cat,train\n",
                "line 1: this header has other names: rename filename to path, class to label, set to split",
            ),
            (
                "m.csv",
                "img_path;category;split\na.jpg;0;train\n",
                "rename img_path to path, category to label",
            ),
            (
                "m.txt",
                "image label_id fold\na.jpg 0 train\n",
                "rename image to path, label_id to label, fold to split",
            ),
            ("m.csv", ",path,label,split\n0,a.jpg,cat,train\n", "column 1 has no name"),
            ("m.csv", "path,label,label,split\n", "two columns are called 'label'"),
            (
                "m.txt",
                "my cat/1.jpg 0 train\n",
                "looks like a path; a path with a blank in it stands in quotes",
            ),
            (
                "m.txt",
                "a.jpg 0 train\nmy cat/1.jpg 0 train\n",
                "line 2: 4 columns, where the first line has 3; a path with a blank",
            ),
            (
                "m.csv",
                "a.jpg,0,train\n\"b.jpg,0,train\nc.jpg,0,test\n",
                "line 2: a quote is opened and not closed",
            ),
            ("m.csv", "0,a.jpg,train\n", "'a.jpg' stands where the label should"),
            ("m.csv", "a.jpg,0,train\n./,0,test\n", "line 2: './' names a folder"),
            ("m.csv", "a.jpg,4,train\nb.jpg,04,test\n", "line 2: class '04' is '4' on line 1"),
        ] {
            let message = manifest(name, text, "manifest").err().expect(text).to_string();
            assert!(message.contains(part) && message.contains(name), "{message}");
        }
        let random = manifest("m.csv", "filename,class\na.jpg,cat\n", "random-80-20")
            .err()
            .expect("a foreign header")
            .to_string();
        assert!(random.contains("rename filename to path, class to label"), "{random}");
    }

    #[test]
    fn labels_that_count_from_1_are_asked_about_where_they_do_harm() {
        let set =
            manifest("m.csv", "a.jpg,1,train\nb.jpg,2,test\n", "listed").expect("as they are");
        assert_eq!(set.class_names().len(), 3);
        assert!(set.empty_class_hint().expect("hint").contains("do they count from 1?"));
    }
}
