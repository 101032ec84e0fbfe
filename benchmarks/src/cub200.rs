//! CUB-200-2011, as distributed or in `train/` and `test/` folders.
//!
//! Sample key: the path in `images.txt`, `<class>/<file>`.

use std::collections::HashMap;
use std::path::Path;

use cilbench::data::{
    Dataset, DatasetEntry, FileSet, Place, Sample, Source, Split, SplitAbout, SplitId, read_text,
};
use cilbench::{Error, Result};

use crate::class_folders::{Layout, require_classes};

const CLASSES: usize = 200;

/// What to do about files that are not the archive's.
const AGAIN: &str = "unpack CUB_200_2011.tgz again";

inventory::submit! {
    DatasetEntry {
        name: "cub200",
        summary: "200 kinds of birds, 11 788 images",
        source: "Wah et al.: The Caltech-UCSD Birds-200-2011 Dataset (CNS-TR-2011-001)",
        files: "the folder CUB_200_2011 of CUB_200_2011.tgz from data.caltech.edu/records/65de6-vp158, unpacked; or folders train/<class>/ and test/<class>/",
        aliases: &["cub", "cub-200-2011"],
        splits: &[
            SplitAbout { name: "official", summary: "train_test_split.txt", images: Some((5_994, 5_794)) },
            SplitAbout { name: "folder", summary: "whatever train/ and test/ hold, labels by folder name", images: None },
        ],
        hub: None,
        open,
    }
}

fn open(entry: &DatasetEntry, source: &Source) -> Result<Box<dyn Dataset>> {
    let root = source.root(entry)?;
    let set = match &source.split {
        SplitId::Fixed(name) if name == "official" => {
            let places = ["", "CUB_200_2011", "cub200/CUB_200_2011"].map(|p| root.join(p));
            let found = places.iter().find(|p| p.join("images.txt").is_file());
            let folder = found.ok_or_else(|| {
                source.not_found(entry, "images.txt in it and in its folder CUB_200_2011 (--split folder takes train/ and test/)")
            })?;
            official(folder)?
        }
        split => match Layout::find(root, &["", "cub", "cub200"], |_| false)? {
            Some(layout) => layout.open("cub200", split)?,
            None => return Err(source.not_found(entry, "folders train and test")),
        },
    };
    require_classes(&set, CLASSES, source)?;
    Ok(Box::new(set))
}

/// The `number value` lines of a file.
fn numbered(path: &Path) -> Result<Vec<(u32, String)>> {
    let text = read_text(path)?;
    let parse = |(i, line): (usize, &str)| {
        let parts = line
            .trim()
            .split_once(' ')
            .and_then(|(n, v)| Some((n.parse().ok()?, v.trim().to_owned())));
        parts.ok_or_else(|| {
            Error::file(
                path,
                format!("line {}: expected a number and a value, found '{line}'; {AGAIN}", i + 1),
            )
        })
    };
    text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).map(parse).collect()
}

fn official(folder: &Path) -> Result<FileSet> {
    let [names, images, labels, sides] =
        ["classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt"]
            .map(|name| folder.join(name));
    let classes: Vec<String> = numbered(&names)?.into_iter().map(|(_, name)| name).collect();
    let label_of: HashMap<u32, String> = numbered(&labels)?.into_iter().collect();
    let side_of: HashMap<u32, String> = numbered(&sides)?.into_iter().collect();
    let mut all = Vec::new();
    for (line, (id, key)) in numbered(&images)?.into_iter().enumerate() {
        let lookup = |of: &HashMap<u32, String>, path: &Path| {
            of.get(&id).cloned().ok_or_else(|| {
                Error::file(path, format!("there is no line for image {id}; {AGAIN}"))
            })
        };
        let label = lookup(&label_of, &labels)?;
        let class = label.parse::<usize>().ok().filter(|c| (1..=classes.len()).contains(c));
        let class = class.ok_or_else(|| {
            Error::file(
                &labels,
                format!(
                    "image {id}: class {label} is out of range, 1 to {}; {AGAIN}",
                    classes.len()
                ),
            )
        })?;
        let split = match lookup(&side_of, &sides)?.as_str() {
            "1" => Split::Train,
            "0" => Split::Test,
            other => {
                return Err(Error::file(
                    &sides,
                    format!("image {id}: '{other}' is neither 1 (training) nor 0 (test); {AGAIN}"),
                ));
            }
        };
        all.push((
            split,
            (
                Sample { key, label: class - 1, domain: 0 },
                Place { folder: 0, list: Some(0), line: line as u32 + 1 },
            ),
        ));
    }
    let set =
        FileSet::new(classes, vec!["cub200".into()], vec![folder.join("images")], vec![images]);
    Ok(set.with_split(all, &SplitId::Fixed("official".into())))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn the_official_files_are_read() {
        let root = tempfile::tempdir().expect("folder");
        let folder = root.path().join("CUB_200_2011");
        std::fs::create_dir_all(folder.join("images")).expect("folder");
        let mut texts: [String; 4] = Default::default();
        for class in 1..=200 {
            writeln!(texts[0], "{class} {class:03}.Bird").expect("text");
            for i in 0..2 {
                let id = 2 * (class - 1) + i + 1;
                writeln!(texts[1], "{id} {class:03}.Bird/{i}.jpg").expect("text");
                writeln!(texts[2], "{id} {class}").expect("text");
                writeln!(texts[3], "{id} {i}").expect("text");
            }
        }
        let files = ["classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt"];
        files
            .iter()
            .zip(&texts)
            .for_each(|(f, t)| std::fs::write(folder.join(f), t).expect("file"));
        let entry = cilbench::data::find("cub200").expect("registered");
        let source = Source::new(Some(root.path().into()), entry.split(None).expect("split"));
        let set = entry.load(&source).expect("open");
        assert_eq!((set.samples(Split::Train).len(), set.samples(Split::Test).len()), (200, 200));
        assert_eq!(
            (set.samples(Split::Train)[4].key.as_str(), set.samples(Split::Train)[4].label),
            ("005.Bird/1.jpg", 4)
        );
        assert!(set.missing(&|_, _| true).expect("missing")[0].contains("images.txt, line 2"));
        std::fs::write(folder.join("image_class_labels.txt"), "1 201\n").expect("file");
        assert!(
            entry
                .load(&source)
                .err()
                .expect("must fail")
                .to_string()
                .contains("image 1: class 201 is out of range")
        );
    }
}
