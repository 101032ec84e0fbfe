//! Lists as data sets ship them: a path and a label on each line.

use std::path::Path;

use super::path::canonical;
use super::text::read_text;
use crate::{Error, Result};

/// One line of a list file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The path, with `/` between the parts, in its canonical spelling.
    pub path: String,
    /// The label.
    pub label: usize,
    /// The line, from 1.
    pub number: u32,
}

/// Parses the text of a list file: a path, white space, and a label from 0 to `classes` − 1 on each
/// line. A comma or a semicolon may stand for the white space, and a path may stand in quotes.
/// `file` is used in messages.
///
/// # Errors
/// Names file and line of what is not such a line; or the file that has none.
pub fn parse_list(text: &str, file: &Path, classes: usize) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let bad = |what: String| Error::file(file, format!("line {}: {what}", i + 1));
        let (path, label) = cells(line).ok_or_else(|| {
            bad(format!("expected a path and a label, as in dog/1.jpg 0, found '{line}'"))
        })?;
        let label = number(label, path, i == 0, classes).map_err(bad)?;
        if label >= classes {
            return Err(bad(out_of_range(label, classes, text)));
        }
        let path = match path.contains('\\') {
            true => canonical(&path.replace('\\', "/")).into_owned(),
            false => canonical(path).into_owned(),
        };
        lines.push(Line { path, label, number: i as u32 + 1 });
    }
    match lines.is_empty() {
        true => Err(Error::file(
            file,
            "the list is empty: it names no image; was its download cut off? Get it again",
        )),
        false => Ok(lines),
    }
}

/// Reads a list file: see [`parse_list`].
///
/// # Errors
/// As [`parse_list`]; or if the file cannot be read or is not UTF-8 text.
pub fn read_list(file: &Path, classes: usize) -> Result<Vec<Line>> {
    parse_list(&read_text(file)?, file, classes)
}

/// The path and the label of a line.
fn cells(line: &str) -> Option<(&str, &str)> {
    let (path, label) =
        line.trim_end().rsplit_once(|c: char| c.is_whitespace() || c == ',' || c == ';')?;
    let path = path.trim().trim_end_matches([',', ';']).trim_end();
    let quoted = path.strip_prefix('"').and_then(|p| p.strip_suffix('"'));
    let path = quoted.unwrap_or(path);
    (!path.is_empty()).then_some((path, label))
}

fn number(label: &str, path: &str, first: bool, classes: usize) -> Result<usize, String> {
    label.parse().map_err(|_| match first && !path.contains(['/', '.']) {
        true => format!("'{path} {label}' looks like a header: remove this line"),
        false => format!("'{label}' is no label: expected a number from 0 to {}", classes - 1),
    })
}

fn out_of_range(label: usize, classes: usize, text: &str) -> String {
    let none_is_zero = || text.lines().filter_map(cells).all(|(_, l)| l.parse() != Ok(0usize));
    let hint = match label == classes && none_is_zero() {
        true => "; no line has label 0: do the labels count from 1? Then take 1 off each",
        false => "",
    };
    format!(
        "label {label} is out of range: there are {classes} classes, 0 to {}{hint}",
        classes - 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_bad_lines_named() {
        let file = Path::new("clipart_train.txt");
        let lines = parse_list("clipart/a b/1.jpg 0\n\n./x//2.jpg\t2\n", file, 3).expect("list");
        assert_eq!(lines[0], Line { path: "clipart/a b/1.jpg".into(), label: 0, number: 1 });
        assert_eq!(lines[1], Line { path: "x/2.jpg".into(), label: 2, number: 3 });
        for (text, part) in [
            ("a 3", "label 3 is out of range"),
            (
                "a/1.jpg 1\nb/1.jpg 3",
                "line 2: label 3 is out of range: there are 3 classes, 0 to 2; no line has label 0",
            ),
            ("a/1.jpg 0\nb/1.jpg 3", "0 to 2"),
            ("\na x", "line 2: 'x' is no label"),
            ("path label\na/1.jpg 0", "line 1: 'path label' looks like a header"),
            ("a", "line 1: expected a path and a label"),
            ("\n \n", "the list is empty"),
        ] {
            let message = parse_list(text, file, 3).expect_err(text).to_string();
            assert!(
                message.contains(part) && message.starts_with("clipart_train.txt: "),
                "{message}"
            );
        }
        let both = parse_list("a/1.jpg 0\nb/1.jpg 3", file, 3).expect_err("range").to_string();
        assert!(!both.contains("count from 1"), "a label 0 is there: {both}");
    }

    #[test]
    fn separators_quotes_and_backslashes_of_other_programs_are_understood() {
        let file = Path::new("sketch_test.txt");
        for line in [
            "sketch/a b/1.jpg 2",
            "sketch/a b/1.jpg\t2",
            "sketch/a b/1.jpg,2",
            "sketch/a b/1.jpg; 2",
            "\"sketch/a b/1.jpg\" 2",
        ] {
            let lines = parse_list(line, file, 3).expect(line);
            assert_eq!((lines[0].path.as_str(), lines[0].label), ("sketch/a b/1.jpg", 2), "{line}");
        }
        assert_eq!(
            parse_list("sketch\\dog\\1.jpg 0", file, 1).expect("backslashes")[0].path,
            "sketch/dog/1.jpg"
        );
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("real_train.txt");
        std::fs::write(&file, b"\xef\xbb\xbfreal/dog/1.jpg 0\r\nreal/owl/2.jpg 1\r\n")
            .expect("file");
        let paths: Vec<_> = read_list(&file, 2).expect("BOM").into_iter().map(|l| l.path).collect();
        assert_eq!(paths, ["real/dog/1.jpg", "real/owl/2.jpg"]);
    }
}
