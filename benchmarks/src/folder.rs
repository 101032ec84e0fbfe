//! Data sets of the user's own: folders of images, and lists of them.
//!
//! Sample key: the path below the data root.

use std::collections::BTreeSet;
use std::path::Path;

use cilbench::data::{
    Dataset, DatasetEntry, FileSet, LeftOut, Place, Sample, Scan, Source, Split, SplitAbout,
    SplitId, images_below, read_manifest,
};
use cilbench::{Error, Result};

use crate::sides::{Sides, nearly_side, side};

inventory::submit! {
    DatasetEntry {
        name: "folder",
        summary: "your own folders of images: train/<class>/, <domain>/train/<class>/, <class>/ or <domain>/<class>/",
        source: "the user",
        files: "folders train/<class>/ and test/<class>/ of images; or <domain>/train/<class>/ and <domain>/test/<class>/; or, with split = \
                \"random-80-20\", <class>/ or <domain>/<class>/. Images are JPEG, PNG, TIFF, WebP, GIF (the first frame) or BMP; a rotation \
                in EXIF data is ignored, as torchvision does",
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
        return Err(Error::usage(format!(
            "data set manifest: no list is named. It needs {}",
            entry.files
        )));
    };
    let named = format!("manifest of the scenario's file: {}", list.display());
    match std::fs::metadata(list) {
        Ok(found) if found.is_dir() => {
            return Err(Error::usage(format!("{named}: this is a folder; name a list in it")));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::usage(format!("{named}: there is no such file")));
        }
        _ => {}
    }
    let beside = list.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let root = if source.root.is_some() { source.root(entry)? } else { beside };
    Ok(Box::new(read_manifest(list, root, &source.split)?.scaled(source.scale)))
}

fn folder(entry: &DatasetEntry, source: &Source) -> Result<Box<dyn Dataset>> {
    let root = source.root(entry)?;
    let Scan { images: paths, left_out } = images_below(root)?;
    if paths.is_empty() {
        let notes: String = left_out.notes().iter().map(|note| format!("; {note}")).collect();
        let error = source
            .not_found(entry, "images (.jpg, .jpeg, .jfif, .png, .tif, .tiff, .webp, .bmp, .gif)");
        return Err(Error::usage(format!("{error}{notes}")));
    }
    let parts: Vec<Parts> = paths.iter().map(|path| Parts::of(path)).collect();
    let mut notes = left_out.notes();
    let layout = Layout::of(&paths, &parts, source, &mut notes)?;
    let names = |pick: &dyn Fn(&Parts<'_>) -> Option<String>| -> Vec<String> {
        parts.iter().filter_map(pick).collect::<BTreeSet<_>>().into_iter().collect()
    };
    let classes = names(&|p| layout.names(p).1);
    let mut domains = names(&|p| layout.names(p).0);
    if domains.is_empty() {
        domains.push("folder".into());
    }
    layout.refuse_lost(&parts, &left_out, root)?;
    let index = |all: &[String], name: Option<String>| {
        name.and_then(|n| all.binary_search(&n).ok()).unwrap_or(0)
    };
    let images = paths
        .iter()
        .zip(&parts)
        .map(|(path, p)| {
            let (domain, class) = layout.names(p);
            let sample = Sample {
                key: path.clone(),
                label: index(&classes, class),
                domain: index(&domains, domain),
            };
            (p.split.unwrap_or(Split::Train), (sample, Place::found(0)))
        })
        .collect();
    let set = FileSet::new(classes, domains, vec![root.to_path_buf()], Vec::new())
        .with_split(images, &source.split);
    Ok(Box::new(set.noting(notes).scaled(source.scale)))
}

/// What the folders of a path say: `[domain/][train|test/]class[/below]/file`.
struct Parts<'a> {
    domain: Option<&'a str>,
    side: Option<&'a str>,
    split: Option<Split>,
    class: Option<&'a str>,
    below: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(path: &'a str) -> Self {
        let mut folders: Vec<&str> = path.split('/').collect();
        folders.pop();
        let at = folders.iter().take(2).position(|f| side(f).is_some());
        match at {
            Some(i) => Self {
                domain: (i == 1).then(|| folders[0]),
                side: Some(folders[i]),
                split: side(folders[i]),
                class: folders.get(i + 1).copied(),
                below: None,
            },
            None => Self {
                domain: None,
                side: None,
                split: None,
                class: folders.first().copied(),
                below: folders.get(1).copied(),
            },
        }
    }
}

/// How the folders of a data root are to be read.
struct Layout {
    /// Whether there are folders of training and test images.
    sided: bool,
    /// Without such folders: whether two levels mean domain and class.
    two_levels: bool,
}

impl Layout {
    /// The layout of these images, or what contradicts it.
    fn of(
        paths: &[String],
        parts: &[Parts<'_>],
        source: &Source,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let root = source.root.as_deref().unwrap_or(Path::new(""));
        let at = |i: usize, what: &str| Err(Error::file(root.join(&paths[i]), what));
        let sided = parts.iter().any(|p| p.split.is_some());
        match sided {
            true => sides(root, paths, parts, source, notes)?,
            false if !matches!(source.split, SplitId::Random(_)) => {
                return Err(no_sides(root, source, parts));
            }
            false => {}
        }
        if let Some(odd) = parts.iter().position(|p| p.class.is_none()) {
            return at(
                odd,
                "this image lies in no folder of a class; move it into one, or out of the data root",
            );
        }
        if let (Some(outside), true) = (
            parts.iter().position(|p| p.domain.is_none()),
            parts.iter().any(|p| p.domain.is_some()),
        ) {
            return at(
                outside,
                "this image lies in no domain's folder, as others do; move it into one, or out of the data root",
            );
        }
        let deep = parts.iter().filter(|p| p.below.is_some()).count();
        let flat = parts.len() - deep;
        let stray = parts.iter().position(|p| p.below.is_none()).unwrap_or(0);
        if !sided && deep > 0 && flat > 0 {
            if flat * 10 < deep {
                return at(
                    stray,
                    "this image lies beside folders, and nearly all others in such folders: are they domains with classes in \
                                  them? Then move it into a class, or out of the data root",
                );
            }
            let example = parts.iter().position(|p| p.below.is_some()).unwrap_or(0);
            notes.push(format!(
                "the folders of the first level are the classes; {deep} images lie deeper, as {}",
                paths[example]
            ));
        }
        Ok(Self { sided, two_levels: !sided && flat == 0 })
    }

    /// The names of an image's domain and class.
    fn names(&self, p: &Parts<'_>) -> (Option<String>, Option<String>) {
        let (domain, class) =
            if self.two_levels { (p.class, p.below) } else { (p.domain, p.class) };
        (domain.map(str::to_owned), class.map(str::to_owned))
    }

    /// An error if a class, or its training or test images, would vanish because none of them can
    /// be read.
    fn refuse_lost(&self, parts: &[Parts<'_>], left_out: &LeftOut, root: &Path) -> Result<()> {
        let key =
            |p: &Parts<'_>| self.names(p).1.map(|class| (class, p.split == Some(Split::Test)));
        let there: BTreeSet<(String, bool)> = parts.iter().filter_map(key).collect();
        for (_, example) in left_out.lost() {
            let lost = Parts::of(example);
            let Some((class, test)) = key(&lost).filter(|_| lost.split.is_some() == self.sided)
            else {
                continue;
            };
            if !there.contains(&(class.clone(), test)) {
                let side = lost.split.map_or(String::new(), |s| {
                    format!("{} ", if s == Split::Train { "training" } else { "test" })
                });
                let what = format!(
                    "class '{class}' has no {side}image that can be read, only such as this one; convert them to PNG or JPEG, or \
                                    remove the folder"
                );
                return Err(Error::file(root.join(example), what));
            }
        }
        Ok(())
    }
}

/// Checks the folders of training and test images: one name for each, and all images below them.
fn sides(
    root: &Path,
    paths: &[String],
    parts: &[Parts<'_>],
    source: &Source,
    notes: &mut Vec<String>,
) -> Result<()> {
    let mut sides = Sides::default();
    for (path, side) in paths.iter().zip(parts).filter_map(|(path, p)| Some((path, p.side?))) {
        sides.add(side, || root.join(path));
    }
    let names = sides.names()?;
    if let Some(odd) = parts.iter().position(|p| p.split.is_none()) {
        let what = "this image is neither below train nor below test, as others are; move it there, or out of the data root";
        return Err(Error::file(root.join(&paths[odd]), what));
    }
    if matches!(source.split, SplitId::Random(_)) {
        notes.push(
            "the images of the folders for training and for testing are mixed and split at random"
                .into(),
        );
        return Ok(());
    }
    match names {
        [Some(_), Some(test)] => {
            if !test.eq_ignore_ascii_case("test") {
                notes.push(format!("the test images are those below {test}"));
            }
            Ok(())
        }
        [one, other] => {
            let (there, lacking) = if one.is_some() { (one, "test") } else { (other, "train") };
            let there = there.unwrap_or_default();
            Err(Error::usage(format!(
                "{} {}: there are images below {there} and none below a folder {lacking}; add it, or choose split = \"random-80-20\"",
                source.root_from.name(),
                root.display()
            )))
        }
    }
}

/// The error for a data root without folders of training and test images, with what may have been
/// meant.
fn no_sides(root: &Path, source: &Source, parts: &[Parts<'_>]) -> Error {
    let named = format!("{} {}", source.root_from.name(), root.display());
    let own = root.file_name().and_then(|n| n.to_str()).filter(|n| side(n).is_some());
    if let (Some(own), Some(parent)) = (own, root.parent()) {
        return Error::usage(format!(
            "{named}: there are no folders train and test in it, and it is called {own}: is {} meant?",
            parent.display()
        ));
    }
    let alike: BTreeSet<&str> = parts
        .iter()
        .flat_map(|p| [p.class, p.below])
        .flatten()
        .filter(|n| nearly_side(n))
        .collect();
    if !alike.is_empty() {
        let alike = alike.into_iter().take(4).collect::<Vec<_>>().join(", ");
        return Error::usage(format!(
            "{named}: there are no folders train and test in it; if {alike} hold such images, rename them train and test"
        ));
    }
    Error::usage(format!(
        "{named}: there are no folders train and test in it; make them, or choose split = \"random-80-20\""
    ))
}

#[cfg(test)]
mod tests {
    use cilbench::data::Scale;
    use cilbench::scenario::{ClassOrder, ScenarioSpec};

    use super::*;

    fn open(files: &[&str], split: &str) -> Result<std::sync::Arc<dyn Dataset>> {
        let root = tempfile::tempdir().expect("folder");
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, b"x").expect("file");
        }
        let entry = cilbench::data::find("folder").expect("registered");
        entry.load(&Source::new(Some(root.path().into()), entry.split(Some(split)).expect("split")))
    }

    #[test]
    fn every_layout_is_understood() {
        let a = open(
            &["train/cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg", "test/dog/deep/2.jpg"],
            "folder",
        )
        .expect("train and test");
        assert_eq!(
            (a.class_names(), a.domain_names()),
            (["cat".to_owned(), "dog".into()].as_slice(), ["folder".to_owned()].as_slice())
        );
        assert_eq!(a.samples(Split::Test)[1].key, "test/dog/deep/2.jpg");
        let b = open(
            &[
                "photo/train/cat/1.jpg",
                "photo/test/cat/2.jpg",
                "art/train/cat/1.jpg",
                "art/test/cat/2.jpg",
            ],
            "folder",
        )
        .expect("domains");
        assert_eq!(b.domain_names(), ["art", "photo"]);
        assert_eq!(b.samples(Split::Train).iter().map(|s| s.domain).collect::<Vec<_>>(), [0, 1]);
        let c = open(&["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"], "random-80-20")
            .expect("classes");
        assert_eq!((c.class_names().len(), c.samples(Split::Train).len()), (2, 2));
        let d = open(
            &["photo/cat/1.jpg", "photo/cat/2.jpg", "art/cat/1.jpg", "art/cat/2.jpg"],
            "random-80-20:3",
        )
        .expect("domains and classes");
        assert_eq!(
            (d.class_names().len(), d.domain_names().len(), d.samples(Split::Test).len()),
            (1, 2, 2)
        );
    }

    #[test]
    fn other_names_of_train_and_test_are_understood() {
        for (train, test) in
            [("Train", "Test"), ("training", "val"), ("TRAIN", "validation"), ("train", "testing")]
        {
            let files = [format!("{train}/cat/1.jpg"), format!("{test}/cat/2.jpg")];
            let set =
                open(&[&files[0], &files[1]], "folder").unwrap_or_else(|e| panic!("{train}: {e}"));
            let [a, b] = [Split::Train, Split::Test].map(|s| set.samples(s)[0].key.clone());
            assert_eq!([a, b], files, "{train} and {test}");
            assert_eq!(
                set.notes().iter().any(|n| n.contains("the test images are those below")),
                test.to_lowercase() != "test"
            );
        }
        let message = |files: &[&str]| open(files, "folder").err().expect("must fail").to_string();
        assert!(
            message(&["train/cat/1.jpg", "test/cat/2.jpg", "val/cat/3.jpg"])
                .contains("folders test and val")
        );
        assert!(
            message(&["a/train/cat/1.jpg", "b/Train/cat/1.jpg", "a/test/cat/2.jpg"])
                .contains("hold the training images")
        );
        assert!(
            message(&["train/cat/1.jpg", "train/dog/1.jpg"])
                .contains("none below a folder test; add it")
        );
        assert!(
            message(&["train_images/cat/1.jpg", "eval/cat/1.jpg"])
                .contains("if eval, train_images hold such images, rename them")
        );
    }

    #[test]
    fn what_is_left_out_is_said_and_a_class_that_loses_all_is_an_error() {
        let whole = ["train/cat/1.jpg", "train/dog/1.tif", "test/cat/2.jfif", "test/dog/2.png"];
        let with = |more: &[&str]| open(&[&whole[..], more].concat(), "folder");
        let set = with(&[
            "train/cat/3.heic",
            "train/cat/.4.jpg",
            "__MACOSX/train/owl/1.jpg",
            "readme.md",
        ])
        .expect("open");
        assert_eq!(
            (
                set.class_names().len(),
                set.samples(Split::Train).len(),
                set.samples(Split::Test).len()
            ),
            (2, 2, 2)
        );
        for part in ["1 .heic image ", "1 hidden", "__MACOSX", "1 .md file "] {
            assert!(
                set.notes().iter().any(|n| n.contains(part)),
                "'{part}' is not in {:?}",
                set.notes()
            );
        }
        for (lost, part) in [
            ("train/owl/1.avif", "class 'owl' has no training image"),
            ("test/cow/.9.png", "class 'cow' has no test image"),
        ] {
            let message = with(&[lost]).err().expect(part).to_string();
            assert!(message.contains(part) && message.contains(lost), "{message}");
        }
        let message =
            open(&["cat/1.jpg", "owl/1.psd"], "random-80-20").err().expect("owl").to_string();
        assert!(
            message.contains("owl/1.psd: class 'owl' has no image that can be read"),
            "{message}"
        );
        let message = open(&["train/cat/1.heic"], "folder").err().expect("none").to_string();
        assert!(
            message.contains("looked for images") && message.contains("1 .heic image"),
            "{message}"
        );
    }

    #[test]
    fn mixed_layouts_are_refused_or_noted() {
        let message =
            |files: &[&str], split: &str| open(files, split).err().expect("must fail").to_string();
        let outside = message(
            &["photo/train/cat/1.jpg", "photo/test/cat/2.jpg", "train/cat/3.jpg"],
            "folder",
        );
        assert!(
            outside.contains("train/cat/3.jpg: this image lies in no domain's folder"),
            "{outside}"
        );
        let mut files: Vec<String> = (0..12).map(|i| format!("art/cat/{i}.jpg")).collect();
        files.push("art/stray.jpg".into());
        let stray = message(&files.iter().map(String::as_str).collect::<Vec<_>>(), "random-80-20");
        assert!(stray.contains("art/stray.jpg: this image lies beside folders"), "{stray}");
        let deep = open(&["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/more/2.jpg"], "random-80-20")
            .expect("classes");
        assert!(
            deep.class_names().len() == 2
                && deep.notes().iter().any(|n| n.contains("dog/more/2.jpg")),
            "{:?}",
            deep.notes()
        );
    }

    #[test]
    fn grey_of_16_bits_is_said_and_scaled_if_the_scenario_says_so() {
        let root = tempfile::tempdir().expect("folder");
        for (path, value) in [("train/x/1.png", 40_000u16), ("test/x/2.png", 300)] {
            let file = root.path().join(path);
            std::fs::create_dir_all(file.parent().expect("parent")).expect("folder");
            let deep = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(2, 2, vec![value; 4])
                .expect("grey");
            deep.save(file).expect("save");
        }
        let entry = cilbench::data::find("folder").expect("registered");
        let open = |scale| {
            let source = Source {
                scale,
                ..Source::new(Some(root.path().into()), entry.split(None).expect("split"))
            };
            let set = entry.load(&source).expect("open");
            let first = |split| set.image(split, 0).expect("image").pixels[0];
            (first(Split::Train), first(Split::Test), set.notes().concat())
        };
        let (train, test, note) = open(Scale::EightBit);
        assert_eq!((train, test), (255, 255));
        assert!(
            note.contains("1 of 1 images looked at are grey with 16 bits")
                && note.contains("scale = \"16-bit\""),
            "{note}"
        );
        assert_eq!(open(Scale::SixteenBit), (156, 1, String::new()));
        // The rule belongs to what a data id says.
        let text = |scale: &str| format!("dataset = 'folder'\ntasks = 1\n{scale}");
        let transforms = |scale: &str| {
            let spec = ScenarioSpec::parse(&text(scale), "x.toml").expect("spec");
            spec.transforms(32).expect("transforms")
        };
        assert_eq!(transforms("scale = '8-bit'"), transforms(""));
        assert_ne!(transforms("scale = '16-bit'"), transforms(""));
        let message = ScenarioSpec::parse(&text("scale = '12-bit'"), "x.toml")
            .expect_err("unknown")
            .to_string();
        assert!(message.contains("8-bit") && message.contains("16-bit"), "{message}");
    }

    #[test]
    fn scenarios_of_one_s_own_are_found_by_path_and_do_not_pass_for_built_in_ones() {
        let root = tempfile::tempdir().expect("folder");
        let file = root.path().join("cifar100-10.TOML");
        std::fs::write(
            &file,
            "\u{feff}dataset = 'folder'\ntasks = 3\ndata_root = 'x'\nclass_order = 'mine.txt'\n",
        )
        .expect("file");
        let spec = cilbench::scenario::find(&file.display().to_string()).expect("a path");
        assert_eq!(
            (spec.name.as_str(), spec.data_root),
            ("cifar100-10.toml", Some(root.path().join("x")))
        );
        assert_eq!(spec.class_order, ClassOrder::File(root.path().join("mine.txt")));
        assert_eq!(cilbench::scenario::find("cifar100-10").expect("built in").name, "cifar100-10");
        let plain = root.path().join("mine");
        std::fs::copy(&file, &plain).expect("copy");
        assert_eq!(
            cilbench::scenario::find(&plain.display().to_string()).expect("a path").name,
            "mine"
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let message =
            |files: &[&str], split: &str| open(files, split).err().expect("must fail").to_string();
        assert!(message(&["cat/1.jpg"], "folder").contains("random-80-20"));
        assert!(
            message(&["train/cat/1.jpg", "dev/cat/1.jpg"], "folder")
                .contains("dev/cat/1.jpg: this image is neither below train")
        );
        assert!(
            message(&["train/1.jpg", "test/cat/1.jpg"], "folder")
                .contains("train/1.jpg: this image lies in no folder of a class")
        );
        assert!(message(&["train/cat/readme.md"], "folder").contains("looked for images"));
    }
}
