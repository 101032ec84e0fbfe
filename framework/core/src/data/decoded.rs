//! Small data sets, held decoded in memory and keyed by their pixels.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{Dataset, RgbImage, Sample, Split};
use crate::Result;

/// The images of one split in memory with their samples, in canonical order.
pub struct Decoded {
    samples: Vec<Sample>,
    images: Vec<RgbImage>,
}

impl Decoded {
    /// Sorts images by key (SHA-256 of their pixels, row by row, RGB interleaved), then by label.
    pub fn new(images: Vec<(RgbImage, usize)>) -> Self {
        let mut all: Vec<(Sample, RgbImage)> = images
            .into_par_iter()
            .map(|(image, label)| {
                (
                    Sample { key: crate::hex(&Sha256::digest(&image.pixels)), label, domain: 0 },
                    image,
                )
            })
            .collect();
        all.sort_by(|(a, _), (b, _)| (&a.key, a.label).cmp(&(&b.key, b.label)));
        let (samples, images) = all.into_iter().unzip();
        Self { samples, images }
    }

    /// Its samples.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }
}

/// A data set in memory. Sample key: SHA-256 of the decoded bytes.
pub struct InMemory {
    classes: Vec<String>,
    domains: Vec<String>,
    train: Decoded,
    test: Decoded,
}

impl InMemory {
    /// A data set of one domain.
    pub fn new(name: &str, classes: Vec<String>, train: Decoded, test: Decoded) -> Self {
        Self { classes, domains: vec![name.to_owned()], train, test }
    }

    fn of(&self, split: Split) -> &Decoded {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }
}

impl Dataset for InMemory {
    fn class_names(&self) -> &[String] {
        &self.classes
    }

    fn domain_names(&self) -> &[String] {
        &self.domains
    }

    fn samples(&self, split: Split) -> &[Sample] {
        &self.of(split).samples
    }

    fn image(&self, split: Split, index: usize) -> Result<RgbImage> {
        Ok(self.of(split).images[index].clone())
    }
}
