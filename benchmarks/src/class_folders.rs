//! Data sets in class folders, `<class>/<file>`, as an archive holds them or in the `train/` and
//! `test/` folders that code bases make of it.

use std::path::{Path, PathBuf};

use cilbench::data::{FileSet, LeftOut, Place, Sample, Source, Split, SplitId, images_below};
use cilbench::{Error, Result};

use crate::sides::side_folders;

/// Where the class folders of a data set are.
pub(crate) enum Layout {
    /// `<class>/<file>` below one folder.
    Archive(PathBuf),
    /// `train/<class>/<file>` and `test/<class>/<file>`.
    Split([PathBuf; 2]),
}

impl Layout {
    /// The layout below the first of `names` in `root` (the empty name is the root itself) that has
    /// one: folders `train` and `test`, or a folder that `is_class` accepts.
    pub(crate) fn find(
        root: &Path,
        names: &[&str],
        is_class: impl Fn(&str) -> bool,
    ) -> Result<Option<Self>> {
        for folder in names.iter().map(|n| root.join(n)).filter(|f| f.is_dir()) {
            if let Some(folders) = side_folders(&folder)? {
                return Ok(Some(Self::Split(folders)));
            }
            if cilbench::data::folders_in(&folder)?.iter().any(|name| is_class(name)) {
                return Ok(Some(Self::Archive(folder)));
            }
        }
        Ok(None)
    }

    /// The folders below which class folders lie.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        match self {
            Self::Archive(folder) => vec![folder.clone()],
            Self::Split(folders) => folders.to_vec(),
        }
    }

    /// The set of all images, `<class>/<file>` its sample keys, classes in the order of their
    /// folders' names; split by folder or at random.
    pub(crate) fn open(&self, name: &str, split: &SplitId) -> Result<FileSet> {
        let folders = self.folders();
        if let (Self::Archive(folder), SplitId::Fixed(_)) = (self, split) {
            return Err(Error::usage(format!(
                "data set {name}, split {split}: there are no folders train and test in {}; choose --split random-80-20",
                folder.display()
            )));
        }
        let (mut found, mut left_out, mut notes) = (Vec::new(), LeftOut::default(), Vec::new());
        for (i, folder) in folders.iter().enumerate() {
            let scan = images_below(folder)?;
            left_out.merge(scan.left_out, &folder.display().to_string());
            let (inside, outside): (Vec<String>, Vec<String>) =
                scan.images.into_iter().partition(|key| key.contains('/'));
            if let Some(first) = outside.first() {
                notes.push(format!(
                    "left out: {} image(s) in no class's folder (the first: {})",
                    outside.len(),
                    folder.join(first).display()
                ));
            }
            found.extend(inside.into_iter().map(|key| (i as u16, key)));
        }
        notes.extend(left_out.notes());
        let class = |key: &str| key.split('/').next().unwrap_or_default().to_owned();
        let mut classes: Vec<String> = found.iter().map(|(_, key)| class(key)).collect();
        classes.sort_unstable();
        classes.dedup();
        let images = found.into_iter().map(|(folder, key)| {
            let label = classes.binary_search(&class(&key)).unwrap_or_default();
            (
                if folder == 0 { Split::Train } else { Split::Test },
                (Sample { key, label, domain: 0 }, Place::found(folder)),
            )
        });
        let images: Vec<_> = images.collect();
        Ok(FileSet::new(classes, vec![name.to_owned()], folders, Vec::new())
            .with_split(images, split)
            .noting(notes))
    }
}

/// A number that a data set's classes must have.
pub(crate) fn require_classes(set: &FileSet, expected: usize, source: &Source) -> Result<()> {
    use cilbench::data::Dataset;
    let found = set.class_names().len();
    if found == expected {
        return Ok(());
    }
    let root = source.root.clone().unwrap_or_default();
    Err(Error::file(
        root,
        format!("{found} class folders with images, expected {expected}; unpack the archive again"),
    ))
}
