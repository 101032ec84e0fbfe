//! ImageNet-A: the archive's class folders, or `train/` and `test/` folders of them.
//!
//! Sample key: `<wnid>/<file>`, as in the archive.

use cilbench::Result;
use cilbench::data::{Dataset, DatasetEntry, Source, SplitAbout};

use crate::class_folders::{Layout, require_classes};

inventory::submit! {
    DatasetEntry {
        name: "imagenet-a",
        summary: "200 ImageNet classes, 7 500 natural images that classifiers get wrong",
        source: "Hendrycks et al.: Natural Adversarial Examples (CVPR 2021, arXiv 1907.07174); MIT",
        files: "the folders n01498041/ … of imagenet-a.tar from github.com/hendrycks/natural-adv-examples, in it or in its folder imagenet-a; or folders \
                train/ and test/ with such folders in them",
        aliases: &[],
        splits: &[
            SplitAbout { name: "random-80-20", summary: "drawn by a seed, random-80-20:<seed>: there is no official split", images: None },
            SplitAbout { name: "folder", summary: "whatever train/ and test/ hold", images: None },
        ],
        hub: None,
        open,
    }
}

fn open(entry: &DatasetEntry, source: &Source) -> Result<Box<dyn Dataset>> {
    let is_wnid = |name: &str| name.starts_with('n') && name.len() == 9;
    let layout = Layout::find(source.root(entry)?, &["", "imagenet-a", "imagenet_a"], is_wnid)?;
    let layout = layout.ok_or_else(|| {
        source.not_found(entry, "n01498041/ and train/ in it and in its folder imagenet-a")
    })?;
    let set = layout.open("imagenet-a", &source.split)?;
    require_classes(&set, 200, source)?;
    Ok(Box::new(set))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cilbench::data::Split;

    use super::*;

    fn make(root: &Path, side: impl Fn(usize) -> &'static str) {
        for class in 0..200 {
            for i in 0..5 {
                let folder = root.join(side(i)).join(format!("n{:08}", class * 7));
                std::fs::create_dir_all(&folder).expect("folder");
                std::fs::write(folder.join(format!("{i}.jpg")), b"x").expect("file");
            }
        }
    }

    #[test]
    fn the_random_split_is_the_same_of_an_archive_and_of_any_folders() {
        let (archive, folders) =
            (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        make(archive.path(), |_| "imagenet-a");
        make(folders.path(), |i| if i < 2 { "train" } else { "test" });
        let entry = cilbench::data::find("imagenet-a").expect("registered");
        let open = |root: &Path, split: Option<&str>| {
            entry
                .load(&Source::new(Some(root.into()), entry.split(split).expect("split")))
                .expect("open")
        };
        let (a, b) = (open(archive.path(), None), open(folders.path(), None));
        assert_eq!((a.samples(Split::Train).len(), a.samples(Split::Test).len()), (800, 200));
        assert_eq!(a.samples(Split::Test), b.samples(Split::Test));
        assert_ne!(
            a.samples(Split::Test),
            open(archive.path(), Some("random-80-20:1")).samples(Split::Test)
        );
        assert_eq!(open(folders.path(), Some("folder")).samples(Split::Train).len(), 400);
    }
}
