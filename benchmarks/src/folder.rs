//! Data sets of the user's own: folders of images, and lists of them.
//!
//! Sample key: the path below the data root.

use std::path::Path;

use cilbench::data::{Dataset, DatasetEntry, FileSet, Place, Sample, Source, Split, SplitAbout, SplitId, images_below, read_manifest};
use cilbench::{Error, Result};

inventory::submit! {
    DatasetEntry {
        name: "folder",
        summary: "your own folders of images: train/<class>/, <domain>/train/<class>/, <class>/ or <domain>/<class>/",
        source: "the user",
        files: "folders train/<class>/ and test/<class>/ of images; or <domain>/train/<class>/ and <domain>/test/<class>/; or, with split = \
                \"random-80-20\", <class>/ or <domain>/<class>/",
        aliases: &[],
        splits: &[
            SplitAbout { name: "folder", summary: "train/ and test/ folders", images: None },
            SplitAbout { name: "random-80-20", summary: "drawn by a seed, random-80-20:<seed>, in memory: no file is moved", images: None },
        ],
        hub: None,
        open: folder,
    }
}

inventory::submit! {
    DatasetEntry {
        name: "manifest",
        summary: "your own list of images: path,label[,domain],split in a CSV or text file",
        source: "the user",
        files: "a scenario file with manifest = \"list.csv\", lines of path,label[,domain],split with paths relative to the data root (by default the \
                list's folder)",
        aliases: &[],
        splits: &[
            SplitAbout { name: "listed", summary: "the list's column split: train or test", images: None },
            SplitAbout { name: "random-80-20", summary: "drawn by a seed, random-80-20:<seed>; the column split is not needed", images: None },
        ],
        hub: None,
        open: manifest,
    }
}

fn manifest(entry: &DatasetEntry, source: &Source) -> Result<Box<dyn Dataset>> {
    let Some(list) = &source.manifest else {
        return Err(Error::usage(format!("data set manifest: no list is named. It needs {}", entry.files)));
    };
    let beside = list.parent().unwrap_or(Path::new(""));
    let root = if source.root.is_some() { source.root(entry)? } else { beside };
    Ok(Box::new(read_manifest(list, root, &source.split)?))
}

fn folder(entry: &DatasetEntry, source: &Source) -> Result<Box<dyn Dataset>> {
    let root = source.root(entry)?;
    let paths = images_below(root)?;
    let parts: Vec<Parts> = paths.iter().map(|path| Parts::of(path)).collect();
    let sided = parts.iter().filter(|p| p.split.is_some()).count();
    let random = matches!(source.split, SplitId::Random(_));
    if paths.is_empty() {
        return Err(source.not_found(entry, "images (.jpg, .jpeg, .png, .webp, .bmp, .gif)"));
    }
    if sided == 0 && !random {
        let what = "there are no folders train and test in it; make them, or choose split = \"random-80-20\"";
        return Err(Error::usage(format!("--data-root {}: {what}", root.display())));
    }
    if let Some(odd) = (sided > 0).then(|| parts.iter().position(|p| p.split.is_none())).flatten() {
        return Err(Error::file(
            root.join(&paths[odd]),
            "this image is neither below train nor below test, as others are; move it out of the data root",
        ));
    }
    if let Some(odd) = parts.iter().position(|p| p.class.is_none()) {
        return Err(Error::file(root.join(&paths[odd]), "this image lies in no folder of a class"));
    }
    // Without train and test folders, two levels everywhere mean domain and class.
    let two_levels = sided == 0 && parts.iter().all(|p| p.below.is_some());
    let name_of = |p: &Parts<'_>| -> (Option<String>, Option<String>) {
        let (domain, class) = if two_levels { (p.class, p.below) } else { (p.domain, p.class) };
        (domain.map(str::to_owned), class.map(str::to_owned))
    };
    let names = |pick: &dyn Fn(&Parts<'_>) -> Option<String>| {
        let mut all: Vec<String> = parts.iter().filter_map(pick).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    let classes = names(&|p| name_of(p).1);
    let mut domains = names(&|p| name_of(p).0);
    if domains.is_empty() {
        domains.push("folder".into());
    }
    let index = |all: &[String], name: Option<String>| name.and_then(|n| all.binary_search(&n).ok()).unwrap_or(0);
    let images = paths
        .iter()
        .zip(&parts)
        .map(|(path, p)| {
            let (domain, class) = name_of(p);
            let sample = Sample { key: path.clone(), label: index(&classes, class), domain: index(&domains, domain) };
            (p.split.unwrap_or(Split::Train), (sample, Place::found(0)))
        })
        .collect();
    Ok(Box::new(FileSet::new(classes, domains, vec![root.to_path_buf()], Vec::new()).with_split(images, &source.split)))
}

/// What the folders of a path say: `[domain/][train|test/]class[/below]/file`.
struct Parts<'a> {
    domain: Option<&'a str>,
    split: Option<Split>,
    class: Option<&'a str>,
    below: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(path: &'a str) -> Self {
        let mut folders: Vec<&str> = path.split('/').collect();
        folders.pop();
        let side = |name: &str| match name {
            "train" => Some(Split::Train),
            "test" => Some(Split::Test),
            _ => None,
        };
        let at = folders.iter().take(2).position(|f| side(f).is_some());
        match at {
            Some(i) => {
                Self { domain: (i == 1).then(|| folders[0]), split: side(folders[i]), class: folders.get(i + 1).copied(), below: None }
            }
            None => Self { domain: None, split: None, class: folders.first().copied(), below: folders.get(1).copied() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(files: &[&str], split: &str) -> Result<std::sync::Arc<dyn Dataset>> {
        let root = tempfile::tempdir().expect("folder");
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, b"x").expect("file");
        }
        let entry = cilbench::data::find("folder").expect("registered");
        entry.load(&Source { root: Some(root.path().into()), split: entry.split(Some(split)).expect("split"), manifest: None })
    }

    #[test]
    fn every_layout_is_understood() {
        let a = open(&["train/cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg", "test/dog/deep/2.jpg"], "folder").expect("train and test");
        assert_eq!((a.class_names(), a.domain_names()), (["cat".to_owned(), "dog".into()].as_slice(), ["folder".to_owned()].as_slice()));
        assert_eq!(a.samples(Split::Test)[1].key, "test/dog/deep/2.jpg");
        let b = open(&["photo/train/cat/1.jpg", "photo/test/cat/2.jpg", "art/train/cat/1.jpg", "art/test/cat/2.jpg"], "folder")
            .expect("domains");
        assert_eq!(b.domain_names(), ["art", "photo"]);
        assert_eq!(b.samples(Split::Train).iter().map(|s| s.domain).collect::<Vec<_>>(), [0, 1]);
        let c = open(&["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"], "random-80-20").expect("classes");
        assert_eq!((c.class_names().len(), c.samples(Split::Train).len()), (2, 2));
        let d =
            open(&["photo/cat/1.jpg", "photo/cat/2.jpg", "art/cat/1.jpg", "art/cat/2.jpg"], "random-80-20:3").expect("domains and classes");
        assert_eq!((d.class_names().len(), d.domain_names().len(), d.samples(Split::Test).len()), (1, 2, 2));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let message = |files: &[&str], split: &str| open(files, split).err().expect("must fail").to_string();
        assert!(message(&["cat/1.jpg"], "folder").contains("random-80-20"));
        assert!(message(&["train/cat/1.jpg", "val/cat/1.jpg"], "folder").contains("val/cat/1.jpg: this image is neither below train"));
        assert!(message(&["train/1.jpg", "test/cat/1.jpg"], "folder").contains("train/1.jpg: this image lies in no folder of a class"));
        assert!(message(&["train/cat/readme.md"], "folder").contains("looked for images"));
    }
}
