//! The loader: decodes and transforms batches on all cores, ahead of the training step, in an order
//! that no thread count changes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use rand::Rng;
use rand_chacha::ChaCha12Rng;
use rayon::prelude::*;

use super::{Dataset, Split, Transforms, View};
use crate::rng::{Purpose, stream};
use crate::{Error, Result};

/// Batches waiting to be used.
const PREFETCH: usize = 2;

/// The images of one task's training or test set.
#[derive(Clone)]
pub struct ImageSet {
    /// Where they come from.
    pub dataset: Arc<dyn Dataset>,
    /// From which of its lists.
    pub split: Split,
    /// Their indices in that list, in canonical order.
    pub indices: Arc<Vec<usize>>,
    /// Their classes, as the model sees them.
    pub labels: Arc<Vec<i64>>,
}

impl ImageSet {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The images of this set and then those of `other`.
    ///
    /// # Errors
    /// [`Error::Protocol`] if they are not of one data set and split.
    pub fn with(&self, other: &Self) -> Result<Self> {
        if !Arc::ptr_eq(&self.dataset, &other.dataset) || self.split != other.split {
            return Err(Error::Protocol(
                "two tasks are of different data sets: their images cannot be served as one set"
                    .into(),
            ));
        }
        Ok(Self {
            dataset: self.dataset.clone(),
            split: self.split,
            indices: Arc::new([self.indices.as_slice(), &other.indices].concat()),
            labels: Arc::new([self.labels.as_slice(), &other.labels].concat()),
        })
    }

    /// The sample key of an image.
    pub fn key(&self, position: usize) -> &str {
        &self.dataset.samples(self.split)[self.indices[position]].key
    }

    /// Reads and transforms images at these positions, on all cores.
    ///
    /// # Errors
    /// Names the image that cannot be read.
    pub fn load(
        &self,
        positions: &[usize],
        transforms: &Transforms,
        view: View,
        augment: Augment,
    ) -> Result<LoadedBatch> {
        let values = transforms.values();
        let mut images = vec![0.0; positions.len() * values];
        let one = |(position, out): (&usize, &mut [f32])| {
            let image = self.dataset.image(self.split, self.indices[*position])?;
            let mut rng = augment.stream(self.indices[*position]);
            transforms
                .apply(&image, view, &mut rng, out)
                .map_err(|e| Error::Protocol(format!("image {}: {e}", self.key(*position))))
        };
        positions.par_iter().zip(images.par_chunks_mut(values.max(1))).try_for_each(one)?;
        Ok(LoadedBatch {
            images,
            labels: positions.iter().map(|p| self.labels[*p]).collect(),
            positions: positions.to_vec(),
        })
    }
}

/// Which random crops and flips images get: each variant has random numbers of its own, and one
/// image of one variant always gets the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Augment {
    /// The view has nothing random in it.
    Never,
    /// An epoch of a task's training.
    Epoch {
        /// The run's seed.
        seed: u64,
        /// The task, from 0.
        task: usize,
        /// The epoch, from 0.
        epoch: usize,
    },
    /// A pass of a method's own, as a task begins or ends.
    Pass {
        /// The run's seed.
        seed: u64,
        /// The task, from 0.
        task: usize,
        /// The pass within that call, from 0.
        pass: usize,
    },
    /// A pass of a method's own within a training step.
    StepPass {
        /// The run's seed.
        seed: u64,
        /// The task, from 0.
        task: usize,
        /// The step within the task, from 0.
        step: usize,
        /// The pass within that step, from 0.
        pass: usize,
    },
    /// A read of the memory of exemplars.
    Recall {
        /// The run's seed.
        seed: u64,
        /// The task from which the exemplar came, from 0.
        task: usize,
        /// The read, from 1.
        read: usize,
    },
}

impl Augment {
    /// The random numbers of an image. The keys of passes and reads lie far above every epoch.
    fn stream(self, image: usize) -> ChaCha12Rng {
        let (seed, task, epoch) = match self {
            Self::Never => (0, 0, 0),
            Self::Epoch { seed, task, epoch } => (seed, task, epoch),
            Self::Pass { seed, task, pass } => (seed, task, usize::MAX / 2 - pass),
            Self::StepPass { seed, task, step, pass } => {
                (seed, task, usize::MAX / 4 - (step << 16) - pass)
            }
            Self::Recall { seed, task, read } => (seed, task, usize::MAX - read),
        };
        stream(seed, Purpose::Augmentation, &[&task, &epoch, &image])
    }
}

/// A batch of transformed images.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedBatch {
    /// (batch, 3, S, S) in \[0, 1\].
    pub images: Vec<f32>,
    /// Classes, as the model sees them.
    pub labels: Vec<i64>,
    /// Positions in the set.
    pub positions: Vec<usize>,
}

/// Serves a set's images batch by batch from a thread of its own. Dropping it ends the thread.
pub struct Loader {
    receiver: Receiver<Result<LoadedBatch>>,
}

impl Loader {
    /// Serves the images at the positions `order`, `batch_size` at a time, beginning with batch
    /// `first`.
    pub fn new(
        set: &ImageSet,
        order: Vec<usize>,
        batch_size: usize,
        first: usize,
        transforms: &Transforms,
        view: View,
        augment: Augment,
    ) -> Self {
        let (sender, receiver) = sync_channel(PREFETCH);
        let (set, transforms) = (set.clone(), transforms.clone());
        std::thread::spawn(move || {
            for positions in order.chunks(batch_size.max(1)).skip(first) {
                // A panic must not look like the end of the images.
                let batch =
                    crate::error::catching(|| set.load(positions, &transforms, view, augment));
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        });
        Self { receiver }
    }
}

impl Iterator for Loader {
    type Item = Result<LoadedBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.receiver.recv().ok()
    }
}

/// A random permutation of `0..n`: the order of the training images in an epoch.
pub fn epoch_order(seed: u64, task: usize, epoch: usize, n: usize) -> Vec<usize> {
    let mut rng = stream(seed, Purpose::DataOrder, &[&task, &epoch]);
    shuffled(n, &mut rng)
}

/// A random permutation of `0..n` (Fisher and Yates).
pub(crate) fn shuffled(n: usize, rng: &mut crate::rng::Stream) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, rng.random_range(0..=i as u64) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{RgbImage, Sample};

    struct Numbers(Vec<Sample>, Vec<String>);

    impl Dataset for Numbers {
        fn class_names(&self) -> &[String] {
            &self.1
        }
        fn domain_names(&self) -> &[String] {
            &self.1
        }
        fn samples(&self, _: Split) -> &[Sample] {
            &self.0
        }
        fn image(&self, _: Split, index: usize) -> Result<RgbImage> {
            if index == 13 {
                return Err(Error::file("numbers.bin", "row 13 is unlucky"));
            }
            Ok(RgbImage {
                width: 9,
                height: 9,
                pixels: (0..243).map(|i| (i * (index + 1)) as u8).collect(),
            })
        }
    }

    fn set(n: usize) -> ImageSet {
        let samples =
            (0..n).map(|i| Sample { key: format!("{i:03}"), label: 0, domain: 0 }).collect();
        ImageSet {
            dataset: Arc::new(Numbers(samples, vec!["one".into()])),
            split: Split::Train,
            indices: Arc::new((0..n).collect()),
            labels: Arc::new(vec![0; n]),
        }
    }

    fn batches(threads: usize, first: usize) -> Vec<LoadedBatch> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
        let transforms = Transforms::new(8);
        let order = epoch_order(1, 0, 0, 12);
        pool.install(|| {
            order
                .chunks(5)
                .skip(first)
                .map(|p| {
                    set(12)
                        .load(
                            p,
                            &transforms,
                            View::Train,
                            Augment::Epoch { seed: 1, task: 0, epoch: 0 },
                        )
                        .expect("load")
                })
                .collect()
        })
    }

    #[test]
    fn neither_threads_nor_where_it_begins_change_a_batch() {
        let whole = batches(1, 0);
        assert_eq!(whole, batches(2, 0));
        assert_eq!(whole[1..], batches(2, 1));
        let loader = Loader::new(
            &set(12),
            epoch_order(1, 0, 0, 12),
            5,
            0,
            &Transforms::new(8),
            View::Train,
            Augment::Epoch { seed: 1, task: 0, epoch: 0 },
        );
        assert_eq!(whole, loader.collect::<Result<Vec<_>>>().expect("load"));
        assert_eq!(whole.iter().map(|b| b.labels.len()).collect::<Vec<_>>(), [5, 5, 2]);
    }

    #[test]
    fn an_unreadable_image_ends_the_pass_with_its_name() {
        let mut loader = Loader::new(
            &set(20),
            (0..20).collect(),
            10,
            0,
            &Transforms::new(8),
            View::Test,
            Augment::Never,
        );
        assert!(loader.next().expect("first").is_ok());
        assert!(
            loader.next().expect("second").expect_err("unlucky").to_string().contains("row 13")
        );
        assert!(loader.next().is_none());
    }
}
