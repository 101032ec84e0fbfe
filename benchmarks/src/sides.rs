//! The folders of training and of test images, as people name them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cilbench::data::{Split, folders_in};
use cilbench::{Error, Result};

const TRAIN: [&str; 2] = ["train", "training"];
const TEST: [&str; 5] = ["test", "testing", "val", "valid", "validation"];

/// The split whose images a folder of this name holds, in capitals or not.
pub(crate) fn side(name: &str) -> Option<Split> {
    let name = name.to_lowercase();
    let is = |names: &[&str]| names.contains(&name.as_str());
    match (is(&TRAIN), is(&TEST)) {
        (true, _) => Some(Split::Train),
        (_, true) => Some(Split::Test),
        _ => None,
    }
}

/// Whether a folder's name reads like one of the two and is none: `train_images`, `eval`.
pub(crate) fn nearly_side(name: &str) -> bool {
    let name = name.to_lowercase();
    side(&name).is_none()
        && ["train", "trn", "test", "tst", "eval", "holdout"].iter().any(|part| name.contains(part))
}

/// The one name of each side among folders, with an example of what lies below it.
#[derive(Default)]
pub(crate) struct Sides {
    found: BTreeMap<bool, BTreeMap<String, PathBuf>>,
}

impl Sides {
    /// Adds a folder of this name, which `example` is or lies below.
    pub(crate) fn add(&mut self, name: &str, example: impl FnOnce() -> PathBuf) {
        if let Some(split) = side(name) {
            let names = self.found.entry(split == Split::Test).or_default();
            if !names.contains_key(name) {
                names.insert(name.to_owned(), example());
            }
        }
    }

    /// The name of the folders of training and of test images, where there are any.
    ///
    /// # Errors
    /// If there are two names for one of them.
    pub(crate) fn names(&self) -> Result<[Option<&str>; 2]> {
        let mut names = [None, None];
        for (test, found) in &self.found {
            let mut each = found.iter();
            let first = each.next();
            if let (Some((one, here)), Some((other, there))) = (first, each.next()) {
                let what = if *test { "test" } else { "training" };
                return Err(Error::file(
                    here,
                    format!(
                        "folders {one} and {other} ({}) are both there, and either may hold the {what} images; move one of them out of the \
                         data root, or its images into the other",
                        there.display()
                    ),
                ));
            }
            names[usize::from(*test)] = first.map(|(name, _)| name.as_str());
        }
        Ok(names)
    }
}

/// The folders of training and of test images in a folder, if both are there.
///
/// # Errors
/// If there are two names for one of them, or the folder cannot be read.
pub(crate) fn side_folders(folder: &Path) -> Result<Option<[PathBuf; 2]>> {
    let mut sides = Sides::default();
    for name in folders_in(folder)? {
        sides.add(&name, || folder.join(&name));
    }
    Ok(match sides.names()? {
        [Some(train), Some(test)] => Some([folder.join(train), folder.join(test)]),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_name_is_known_and_two_for_one_side_are_refused() {
        for (name, expected) in [
            ("TRAIN", Some(Split::Train)),
            ("Training", Some(Split::Train)),
            ("Valid", Some(Split::Test)),
            ("tests", None),
        ] {
            assert_eq!(side(name), expected, "{name}");
        }
        assert!(
            nearly_side("train_images")
                && nearly_side("Eval")
                && !nearly_side("cat")
                && !nearly_side("val")
        );
        let of = |names: &[&str]| {
            let root = tempfile::tempdir().expect("folder");
            names.iter().for_each(|n| std::fs::create_dir(root.path().join(n)).expect("folder"));
            side_folders(root.path()).map(|found| found.is_some()).map_err(|e| e.to_string())
        };
        assert_eq!(of(&["Train", "Val", "other"]), Ok(true));
        assert_eq!(of(&["train"]), Ok(false));
        assert!(of(&["train", "test", "val"]).expect_err("two").contains("folders test and val"));
        assert!(of(&["train", "Train", "test"]).expect_err("two").contains("training images"));
    }
}
