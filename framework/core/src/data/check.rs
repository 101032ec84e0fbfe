//! Looking at every image of a data set: which cannot be read, and which are there twice under
//! different names.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use rayon::prelude::*;

use super::{Dataset, RgbImage, Sample, Split, Used};

/// What was found in the images of a data set.
#[derive(Debug, Default)]
pub struct Checked {
    /// The number of images that were decoded.
    pub decoded: usize,
    /// What is wrong with those that cannot be, one line per image, in canonical order.
    pub unreadable: Vec<String>,
    /// How many images are the same, pixel by pixel, with an example each.
    pub notes: Vec<String>,
}

/// Decodes every image of a data set that `used` accepts, on all cores; `each` is called after
/// every image.
pub fn check_images(dataset: &dyn Dataset, used: &Used, each: &(dyn Fn() + Sync)) -> Checked {
    let mut checked = Checked::default();
    let mut seen: Vec<(u64, Split, usize)> = Vec::new();
    for split in [Split::Train, Split::Test] {
        let one = |index: usize| {
            let hash =
                dataset.image(split, index).map(|image| pixels(&image)).map_err(|e| e.to_string());
            each();
            (index, hash)
        };
        let indices = (0..dataset.samples(split).len()).into_par_iter().filter(|i| used(split, *i));
        for (index, outcome) in indices.map(one).collect::<Vec<_>>() {
            match outcome {
                Ok(hash) => seen.push((hash, split, index)),
                Err(what) => checked.unreadable.push(what),
            }
        }
    }
    checked.decoded = seen.len();
    checked.notes = twice(dataset, seen);
    checked
}

fn pixels(image: &RgbImage) -> u64 {
    let mut hasher = DefaultHasher::new();
    (image.width, image.height, &image.pixels).hash(&mut hasher);
    hasher.finish()
}

/// In what way two equal images differ, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Twice {
    /// They have two classes, so that one of the labels is wrong.
    Classes,
    /// One is for training, the other for testing.
    Splits,
    /// Both are of one class and split.
    Copy,
}

/// Notes on images with equal pixels.
fn twice(dataset: &dyn Dataset, mut seen: Vec<(u64, Split, usize)>) -> Vec<String> {
    seen.sort_unstable_by_key(|(hash, split, index)| (*hash, *split == Split::Test, *index));
    let sample =
        |(_, split, index): &(u64, Split, usize)| -> &Sample { &dataset.samples(*split)[*index] };
    let mut found: BTreeMap<Twice, (usize, String)> = BTreeMap::new();
    let mut groups: Vec<_> =
        seen.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1).collect();
    groups.sort_unstable_by_key(|group| (group[0].1 == Split::Test, group[0].2));
    for group in groups {
        for other in &group[1..] {
            let first = &group[0];
            let (classes, splits) =
                (sample(first).label != sample(other).label, first.1 != other.1);
            let kinds = [
                (Twice::Classes, classes),
                (Twice::Splits, splits),
                (Twice::Copy, !classes && !splits),
            ];
            for (kind, _) in kinds.into_iter().filter(|(_, is)| *is) {
                found.entry(kind).or_insert_with(|| (0, both(dataset, first, other))).0 += 1;
            }
        }
    }
    let note = |(kind, (count, example)): (Twice, (usize, String))| {
        let what = match kind {
            Twice::Classes => "equal an image of another class, pixel by pixel",
            Twice::Splits => "for testing equal a training image, pixel by pixel",
            Twice::Copy => "equal another of the same class and split, pixel by pixel",
        };
        format!("{count} image(s) {what} (the first: {example})")
    };
    found.into_iter().map(note).collect()
}

/// Where two equal images come from; images keyed by their pixels are one key.
fn both(dataset: &dyn Dataset, one: &(u64, Split, usize), other: &(u64, Split, usize)) -> String {
    let [a, b] = [one, other].map(|(_, split, index)| dataset.origin(*split, *index));
    if a == b { a } else { format!("{a} and {b}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Result};

    /// Images whose pixels are their key's first letter, and none for `!`.
    struct Letters([Vec<Sample>; 2], Vec<String>);

    impl Dataset for Letters {
        fn class_names(&self) -> &[String] {
            &self.1
        }
        fn domain_names(&self) -> &[String] {
            &self.1
        }
        fn samples(&self, split: Split) -> &[Sample] {
            &self.0[usize::from(split == Split::Test)]
        }
        fn image(&self, split: Split, index: usize) -> Result<RgbImage> {
            let key = &self.samples(split)[index].key;
            match key.as_bytes()[0] {
                b'!' => Err(Error::file(key, "damaged")),
                letter => Ok(RgbImage { width: 1, height: 1, pixels: vec![letter; 3] }),
            }
        }
    }

    fn letters(train: &[(&str, usize)], test: &[(&str, usize)]) -> Letters {
        let samples = |all: &[(&str, usize)]| {
            all.iter()
                .map(|(key, label)| Sample { key: (*key).into(), label: *label, domain: 0 })
                .collect()
        };
        Letters([samples(train), samples(test)], vec!["one".into(), "two".into()])
    }

    #[test]
    fn equal_pixels_are_counted_by_what_they_mean() {
        let set = letters(
            &[("a1", 0), ("a2", 0), ("b1", 1), ("c1", 0), ("!x", 0)],
            &[("a3", 0), ("b2", 0), ("d1", 1), ("!y", 1)],
        );
        let checked = check_images(&set, &|_, _| true, &|| {});
        assert_eq!(
            (checked.decoded, checked.unreadable.as_slice()),
            (7, ["!x: damaged".to_owned(), "!y: damaged".into()].as_slice())
        );
        assert_eq!(
            checked.notes,
            [
                "1 image(s) equal an image of another class, pixel by pixel (the first: b1 and b2)",
                "2 image(s) for testing equal a training image, pixel by pixel (the first: a1 and a3)",
                "1 image(s) equal another of the same class and split, pixel by pixel (the first: a1 and a2)",
            ]
        );
        let some = check_images(&set, &|split, _| split == Split::Train, &|| {});
        assert_eq!((some.decoded, some.unreadable.len()), (4, 1));
    }
}
