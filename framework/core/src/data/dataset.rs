//! What a data set is to the harness: two lists of samples and a way to read an image.

use std::path::Path;

use super::RgbImage;
use crate::Result;

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
    /// The sample key: the same in every storage layout of the data set (see the data set's documentation).
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
    /// Names the file (and the row in it) that cannot be read or decoded.
    fn image(&self, split: Split, index: usize) -> Result<RgbImage>;
}

/// The registry entry of a data set.
pub struct DatasetEntry {
    /// The name used in scenarios, `cifar100`.
    pub name: &'static str,
    /// One line on what it holds.
    pub summary: &'static str,
    /// The paper or page to cite, with the licence where one is stated.
    pub source: &'static str,
    /// Which files it needs in `--data-root` and where to get them; empty when it is embedded in the binary.
    pub files: &'static str,
    /// Names of other data sets that hold the same images, as weights files name them in `pretrained_on`.
    pub aliases: &'static [&'static str],
    /// Opens the data set. `root` is what the user gave as `--data-root`, and is `None` if they gave nothing.
    pub open: fn(root: Option<&Path>) -> Result<Box<dyn Dataset>>,
}

inventory::collect!(DatasetEntry);
