//! Images: data sets, decoding, transforms, and the loader that serves them ahead of the training
//! step.

mod check;
mod dataset;
mod decoded;
mod files;
pub mod fingerprint;
mod guard;
mod image;
mod lists;
mod loader;
mod scan;
mod split;
mod transform;

pub use check::{Checked, check_images};
pub use dataset::{
    Dataset, DatasetEntry, HubSource, RootFrom, Sample, Source, Split, SplitAbout, Used,
};
pub use decoded::{Decoded, InMemory};
pub use files::{FileSet, Place};
pub use guard::guarded;
pub use image::{DECODER_VERSION, Header, MAX_PIXELS, RgbImage, Scale, decode, decode_as, header};
pub use lists::{Line, parse_list, read_list, read_manifest, read_names, read_text};
pub(crate) use loader::shuffled;
pub use loader::{Augment, ImageSet, LoadedBatch, Loader, epoch_order};
pub use scan::{LeftOut, Scan, folders_in, images_below};
pub use split::{RANDOM, SplitId, random_split};
pub use transform::{CropBox, Transforms, View};

use crate::Result;
use crate::registry::{Named, Registry};

/// All registered data sets, by name.
pub fn all() -> Vec<&'static DatasetEntry> {
    DATASETS.all()
}

/// The data set of this name.
///
/// # Errors
/// [`Error::Usage`](crate::Error::Usage) with the nearest known name.
pub fn find(name: &str) -> Result<&'static DatasetEntry> {
    DATASETS.find(name)
}

static DATASETS: Registry<DatasetEntry> = Registry::new("data set");

impl Named for DatasetEntry {
    fn name(&self) -> &str {
        self.name
    }
}
