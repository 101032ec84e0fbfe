//! Data sets of image files, keyed by path. Only lists are held in memory; an image is read when it
//! is asked for.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::fingerprint::{ContentHash, FileHashes};
use super::{
    Dataset, RgbImage, Sample, Scale, Split, SplitId, Used, decode_as, header, random_split,
};
use crate::{Error, Result};

/// Where an image file is, and which line of which list names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The folder below which its path lies: an index into the folders of the set.
    pub folder: u16,
    /// The list that names it: an index into the lists of the set; `None` if it was found by
    /// listing folders.
    pub list: Option<u16>,
    /// The line in that list, from 1.
    pub line: u32,
}

impl Place {
    /// A file found by listing a folder.
    pub fn found(folder: u16) -> Self {
        Self { folder, list: None, line: 0 }
    }
}

/// A data set of image files. Sample key: the path below its folder, with `/` between the parts.
pub struct FileSet {
    classes: Vec<String>,
    domains: Vec<String>,
    folders: Vec<PathBuf>,
    lists: Vec<PathBuf>,
    train: Listed,
    test: Listed,
    notes: Vec<String>,
    hint: Option<String>,
    scale: Scale,
    hashes: FileHashes,
}

/// Classes whose first image is looked at, to say whether a set's images are deeper than 8 bits.
const LOOKED_AT: usize = 64;

#[derive(Default)]
struct Listed {
    samples: Vec<Sample>,
    places: Vec<Place>,
}

impl Listed {
    fn new(mut images: Vec<(Sample, Place)>) -> Self {
        images.par_sort_unstable_by(|(a, p), (b, q)| {
            (&a.key, a.label, p.line).cmp(&(&b.key, b.label, q.line))
        });
        let (samples, places) = images.into_iter().unzip();
        Self { samples, places }
    }
}

impl FileSet {
    /// A set without images, of these classes and domains, below these folders and named by these
    /// lists (see [`Place`]).
    pub fn new(
        classes: Vec<String>,
        domains: Vec<String>,
        folders: Vec<PathBuf>,
        lists: Vec<PathBuf>,
    ) -> Self {
        let (train, test) = (Listed::default(), Listed::default());
        let (notes, hint, scale, hashes) =
            (Vec::new(), None, Scale::default(), FileHashes::default());
        Self { classes, domains, folders, lists, train, test, notes, hint, scale, hashes }
    }

    /// The same set with these notes for the user.
    pub fn noting(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.notes.extend(notes);
        self
    }

    /// The same set with what may be wrong where a class has no image (see
    /// [`Dataset::empty_class_hint`]).
    pub fn hinting(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// The same set, its grey images of 16 bits read by this rule. If it has such images and they
    /// are cut off, a note says so.
    pub fn scaled(mut self, scale: Scale) -> Self {
        self.scale = scale;
        let mut first: BTreeMap<usize, usize> = BTreeMap::new();
        for (i, sample) in self.train.samples.iter().enumerate() {
            first.entry(sample.label).or_insert(i);
        }
        let looked_at: Vec<usize> = first.into_values().take(LOOKED_AT).collect();
        let deep = |i: &&usize| header(&self.path(Split::Train, **i)).is_ok_and(|h| h.deep_grey);
        let deep: Vec<usize> = looked_at.par_iter().filter(deep).copied().collect();
        if let (Some(example), Scale::EightBit) = (deep.first(), scale) {
            self.notes.push(format!(
                "{} of {} images looked at are grey with 16 bits, as {}: values above 255 are cut off and become white, as in Pillow; \
                 scale = \"16-bit\" in the scenario's file keeps their upper 8 bits instead",
                deep.len(),
                looked_at.len(),
                self.path(Split::Train, *example).display()
            ));
        }
        self
    }

    /// The same set with these training and test images.
    pub fn with(self, train: Vec<(Sample, Place)>, test: Vec<(Sample, Place)>) -> Self {
        Self { train: Listed::new(train), test: Listed::new(test), ..self }
    }

    /// The same set with these images, split at random by `seed` within each class and domain.
    pub fn with_random_split(self, images: Vec<(Sample, Place)>, seed: u64) -> Self {
        let all = Listed::new(images);
        let mut groups: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for (i, s) in all.samples.iter().enumerate() {
            groups.entry((s.label, s.domain)).or_default().push(i);
        }
        let mut of = vec![Split::Test; all.samples.len()];
        for ((class, domain), members) in groups {
            let split = random_split(members.len(), seed, class, domain);
            members.into_iter().zip(split).for_each(|(i, s)| of[i] = s);
        }
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for ((sample, place), split) in all.samples.into_iter().zip(all.places).zip(of) {
            match split {
                Split::Train => train.push((sample, place)),
                Split::Test => test.push((sample, place)),
            }
        }
        self.with(train, test)
    }

    /// The same set with these (split, image) pairs: by those splits, or at random where `split`
    /// says so.
    pub fn with_split(self, images: Vec<(Split, (Sample, Place))>, split: &SplitId) -> Self {
        if let SplitId::Random(seed) = split {
            return self
                .with_random_split(images.into_iter().map(|(_, image)| image).collect(), *seed);
        }
        let (train, test): (Vec<_>, Vec<_>) =
            images.into_iter().partition(|(s, _)| *s == Split::Train);
        let plain = |list: Vec<(Split, (Sample, Place))>| {
            list.into_iter().map(|(_, image)| image).collect()
        };
        self.with(plain(train), plain(test))
    }

    fn of(&self, split: Split) -> &Listed {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }

    fn path(&self, split: Split, index: usize) -> PathBuf {
        let listed = self.of(split);
        let (folder, key) =
            (&self.folders[usize::from(listed.places[index].folder)], &listed.samples[index].key);
        if folder.as_os_str() == "." { PathBuf::from(key) } else { folder.join(key) }
    }

    /// " (named by LIST, line N)", or nothing.
    fn named_by(&self, place: Place) -> String {
        let list = place.list.and_then(|l| self.lists.get(usize::from(l)));
        list.map_or(String::new(), |l| format!(" (named by {}, line {})", l.display(), place.line))
    }
}

impl Dataset for FileSet {
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
        let path = self.path(split, index);
        let place = self.of(split).places[index];
        let bytes = self.hashes.read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::file(&path, format!("there is no such file{}", self.named_by(place)))
            }
            _ => Error::io(&path)(e),
        })?;
        let remedy = if place.list.is_some() { "take it off the list" } else { "remove it" };
        decode_as(&bytes, self.scale).map_err(|what| {
            Error::file(
                &path,
                format!("{what}{}; replace the file, or {remedy}", self.named_by(place)),
            )
        })
    }

    fn content(&self, split: Split, index: usize) -> Result<ContentHash> {
        self.hashes.of(&self.path(split, index))
    }

    fn file_hashes(&self) -> Option<&FileHashes> {
        Some(&self.hashes)
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn empty_class_hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    fn scale(&self) -> Scale {
        self.scale
    }

    fn keyed_by_path(&self) -> bool {
        true
    }

    fn origin(&self, split: Split, index: usize) -> String {
        format!(
            "{}{}",
            self.path(split, index).display(),
            self.named_by(self.of(split).places[index])
        )
    }

    fn missing(&self, used: &Used) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for split in [Split::Train, Split::Test] {
            let listed = self.of(split);
            // Only what a list names can be missing. In canonical order the files of one folder
            // stand together.
            let named: Vec<usize> = (0..listed.samples.len())
                .filter(|i| listed.places[*i].list.is_some() && used(split, *i))
                .collect();
            let parent = |i: &usize| {
                (
                    listed.places[*i].folder,
                    listed.samples[*i].key.rsplit_once('/').map_or("", |(p, _)| p),
                )
            };
            let runs: Vec<&[usize]> = named.chunk_by(|a, b| parent(a) == parent(b)).collect();
            let missing: Vec<Vec<String>> = runs
                .par_iter()
                .map(|run| {
                    let (folder, below) = parent(&run[0]);
                    let there = names(&self.folders[usize::from(folder)].join(below))?;
                    let name = |i: &usize| {
                        OsString::from(
                            listed.samples[*i].key.rsplit('/').next().unwrap_or_default(),
                        )
                    };
                    Ok(run
                        .iter()
                        .filter(|i| !there.contains(&name(i)))
                        .map(|i| self.origin(split, *i))
                        .collect())
                })
                .collect::<Result<_>>()?;
            all.extend(missing.into_iter().flatten());
        }
        Ok(all)
    }
}

/// The names in a folder; none if it is not there.
fn names(folder: &Path) -> Result<HashSet<OsString>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|e| Ok(e.map_err(Error::io(folder))?.file_name())).collect(),
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(HashSet::new())
        }
        Err(e) => Err(Error::io(folder)(e)),
    }
}
