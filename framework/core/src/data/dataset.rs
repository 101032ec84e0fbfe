//! What a data set is to the harness: two lists of samples and a way to read an image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fingerprint::{ContentHash, FileHashes};
use super::{RgbImage, Scale, SplitId};
use crate::{Error, Result};

/// Which of a data set's two lists a sample belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Images to learn from.
    Train,
    /// Images to score on.
    Test,
}

/// One labelled image of a data set, without its pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The sample key: the same in every storage layout of the data set (see the data set's
    /// documentation).
    pub key: String,
    /// The class, `0..classes`, in the data set's natural order.
    pub label: usize,
    /// The domain, `0..domains`; 0 where a data set has only one.
    pub domain: usize,
}

/// A data set: its samples and how to read an image.
pub trait Dataset: Send + Sync {
    /// The names of the classes in natural order; their number is the number of classes.
    fn class_names(&self) -> &[String];

    /// The names of the domains; one for most data sets.
    fn domain_names(&self) -> &[String];

    /// The samples of a split, **in canonical order** (sorted by key, then by label).
    fn samples(&self, split: Split) -> &[Sample];

    /// Reads the image of sample `index` of `samples(split)`.
    ///
    /// # Errors
    /// Names the file (and the row or list line) that cannot be read or decoded.
    fn image(&self, split: Split, index: usize) -> Result<RgbImage>;

    /// Whether the sample keys are paths: then one key in both splits, or twice in one, is a leak,
    /// and the scenario refuses it.
    fn keyed_by_path(&self) -> bool {
        false
    }

    /// Where a sample comes from, for messages: its file, and the list and line that name it.
    fn origin(&self, split: Split, index: usize) -> String {
        self.samples(split)[index].key.clone()
    }

    /// What the data set's lists name and the disk does not hold, one line per image; found by
    /// listing folders, without opening a file. Only images that `used` accepts are looked for.
    ///
    /// # Errors
    /// If a folder that is there cannot be listed.
    fn missing(&self, _used: &Used) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// The hash of what a sample's image holds: of its file's bytes where the key is a path, else
    /// of its decoded pixels.
    ///
    /// # Errors
    /// As [`Dataset::image`].
    fn content(&self, split: Split, index: usize) -> Result<ContentHash> {
        Ok(ContentHash::of(&self.image(split, index)?.pixels))
    }

    /// The hashes of the files that were read so far, where images are files.
    fn file_hashes(&self) -> Option<&FileHashes> {
        None
    }

    /// What the user should know of the data set: what was left out of its folders, and which names
    /// look alike.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// What may be wrong with the data set's labels if a class has no image.
    fn empty_class_hint(&self) -> Option<&str> {
        None
    }

    /// How grey images of 16 bits are read.
    fn scale(&self) -> Scale {
        Scale::default()
    }
}

/// Whether an image of a split, by its index, is used.
pub type Used<'a> = dyn Fn(Split, usize) -> bool + Sync + 'a;

/// What is known of one way to split a data set.
#[derive(Debug, Clone, Copy)]
pub struct SplitAbout {
    /// Its name: `official`, `coda`, `folder`, `random-80-20`.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// The number of (training, test) images, where it is fixed.
    pub images: Option<(usize, usize)>,
}

/// Where a data set is on the Hugging Face hub.
#[derive(Debug, Clone, Copy)]
pub struct HubSource {
    /// The data set repository, `uoft-cs/cifar100`.
    pub repo: &'static str,
    /// Files to take: those whose name begins and ends like this.
    pub files: (&'static str, &'static str),
}

/// How a data set is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The folder that holds it: what the user gave as `--data-root`, or where it was downloaded
    /// to; `None` if there is neither.
    pub root: Option<PathBuf>,
    /// The split.
    pub split: SplitId,
    /// The list of its images, for data sets that are nothing but a list.
    pub manifest: Option<PathBuf>,
    /// How the user named the root, for messages.
    pub root_from: RootFrom,
    /// How grey images of 16 bits are read.
    pub scale: Scale,
}

/// How the user named a data set's folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RootFrom {
    /// With `--data-root`.
    #[default]
    Flag,
    /// With `data_root` in the scenario's file.
    Key,
}

impl RootFrom {
    /// The name of the flag or the key.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flag => "--data-root",
            Self::Key => "data_root of the scenario's file:",
        }
    }
}

impl Source {
    /// A data set in this folder, or wherever it needs none, with this split.
    pub fn new(root: Option<PathBuf>, split: SplitId) -> Self {
        Self {
            root,
            split,
            manifest: None,
            root_from: RootFrom::default(),
            scale: Scale::default(),
        }
    }

    /// The data root, or an error that says what belongs there.
    ///
    /// # Errors
    /// [`Error::Usage`] if none was given or it is no folder.
    pub fn root(&self, entry: &DatasetEntry) -> Result<&Path> {
        let Some(root) = &self.root else {
            let download = match entry.hub {
                Some(_) => format!(", or download it with `cilbench data fetch {}`", entry.name),
                None => String::new(),
            };
            return Err(Error::usage(format!(
                "data set {} is not embedded: say where it is with --data-root DIR{download}. It needs {}",
                entry.name, entry.files
            )));
        };
        let named = format!("{} {}", self.root_from.name(), root.display());
        match std::fs::metadata(root) {
            Ok(found) if found.is_dir() => Ok(root),
            Ok(_) => Err(Error::usage(format!(
                "{named}: this is a file, not a folder. It needs {}",
                entry.files
            ))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::usage(format!(
                "{named}: there is no such folder. It needs {}",
                entry.files
            ))),
            Err(e) => Err(Error::io(root)(e)),
        }
    }

    /// The error for a data root that holds something else: `tried` is what was looked for.
    pub fn not_found(&self, entry: &DatasetEntry, tried: &str) -> Error {
        let root = self.root.as_deref().unwrap_or(Path::new("")).display();
        Error::usage(format!(
            "data set {} was not found in {root}; looked for {tried}. It needs {}",
            entry.name, entry.files
        ))
    }
}

/// The registry entry of a data set.
pub struct DatasetEntry {
    /// The name used in scenarios, `cifar100`.
    pub name: &'static str,
    /// One line on what it holds.
    pub summary: &'static str,
    /// The paper or page to cite, with the licence where one is stated.
    pub source: &'static str,
    /// Which files it needs in `--data-root` and where to get them; empty when it is embedded in
    /// the binary.
    pub files: &'static str,
    /// Names of other data sets that hold the same images, as weights files name them in
    /// `pretrained_on`.
    pub aliases: &'static [&'static str],
    /// The ways to split it, the default first.
    pub splits: &'static [SplitAbout],
    /// Where to download it.
    pub hub: Option<HubSource>,
    /// Opens the data set.
    pub open: fn(&DatasetEntry, &Source) -> Result<Box<dyn Dataset>>,
}

inventory::collect!(DatasetEntry);

impl DatasetEntry {
    /// The split of this name, `random-80-20:7` meaning seed 7; the default split for `None`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a split that this data set does not have.
    pub fn split(&self, text: Option<&str>) -> Result<SplitId> {
        let id: SplitId = text.unwrap_or(self.splits[0].name).parse()?;
        match self.splits.iter().any(|s| s.name == id.name()) {
            true => Ok(id),
            false => Err(Error::unknown(
                &format!("split of data set {}", self.name),
                id.name(),
                self.splits.iter().map(|s| s.name),
            )),
        }
    }

    /// What is known of a split.
    pub fn about(&self, split: &SplitId) -> Option<&SplitAbout> {
        self.splits.iter().find(|s| s.name == split.name())
    }

    /// What is wrong with the number of images of a split, where that number is known.
    pub fn miscounted(&self, split: &SplitId, dataset: &dyn Dataset) -> Option<String> {
        let found = (dataset.samples(Split::Train).len(), dataset.samples(Split::Test).len());
        let expected = self.about(split)?.images.filter(|expected| *expected != found)?;
        Some(format!(
            "data set {}: {} training and {} test images, expected {} and {}",
            self.name, found.0, found.1, expected.0, expected.1
        ))
    }

    /// Opens the data set.
    ///
    /// # Errors
    /// If it is not there or not what it should be.
    pub fn load(&self, source: &Source) -> Result<Arc<dyn Dataset>> {
        Ok((self.open)(self, source)?.into())
    }
}
