//! ImageNet-R: the archive's class folders, the `train/` and `test/` folders of other code bases,
//! or the hub's parquet files.
//!
//! Sample key: `<wnid>/<file>`, as in the archive. The lists of the `coda` split are those of
//! CODA-Prompt (arXiv 2211.13218); their labels are not in the order of the wnids.

use std::collections::HashSet;
use std::io::Read;
use std::path::PathBuf;

use cilbench::data::{
    Dataset, DatasetEntry, FileSet, HubSource, Place, Sample, Source, SplitAbout, SplitId,
    images_below, parse_list,
};
use cilbench::{Error, Result};

use crate::class_folders::{Layout, require_classes};
use crate::unpack;

const CLASSES: usize = 200;

inventory::submit! {
    DatasetEntry {
        name: "imagenet-r",
        summary: "200 ImageNet classes as art, cartoons, sketches, toys and other renditions; 30 000 images",
        source: "Hendrycks et al.: The Many Faces of Robustness (ICCV 2021, arXiv 2006.16241); MIT",
        files: "the folders n01443537/ … of imagenet-r.tar from github.com/hendrycks/imagenet-r, in it or in its folder imagenet-r; or folders train/ \
                and test/ with such folders in them; or the parquet files of the Hugging Face data set axiong/imagenet-r",
        aliases: &[],
        splits: &[
            SplitAbout { name: "coda", summary: "the lists of CODA-Prompt (built in)", images: Some((24_000, 6_000)) },
            SplitAbout { name: "folder", summary: "whatever train/ and test/ hold, labels by wnid", images: None },
            SplitAbout { name: "random-80-20", summary: "drawn by a seed, random-80-20:<seed>; labels by wnid", images: None },
        ],
        hub: Some(HubSource { repo: "axiong/imagenet-r", files: ("data/", ".parquet") }),
        open,
    }
}

fn is_wnid(name: &str) -> bool {
    name.len() == 9 && name.starts_with('n') && name[1..].bytes().all(|b| b.is_ascii_digit())
}

fn open(entry: &DatasetEntry, source: &Source) -> Result<Box<dyn Dataset>> {
    let root = source.root(entry)?;
    let names = ["", "imagenet-r", "imagenet_r", "ImageNet-R"];
    let layout = match Layout::find(root, &names, is_wnid)? {
        Some(layout) => layout,
        None => match unpack::class_folders(root, "imagenet-r", "wnid")? {
            Some(folder) => Layout::Archive(folder),
            None => {
                return Err(source.not_found(entry, "n01443537/, train/n01443537/ and data/*.parquet in it and in its folder imagenet-r"));
            }
        },
    };
    match &source.split {
        SplitId::Fixed(name) if name == "coda" => Ok(Box::new(coda(&layout)?)),
        split => {
            let set = layout.open("imagenet-r", split)?;
            require_classes(&set, CLASSES, source)?;
            Ok(Box::new(set))
        }
    }
}

/// The built-in lists, with the names they go by in messages.
fn lists() -> Result<[(PathBuf, String); 2]> {
    let unzip = |name: &str, gz: &[u8]| -> Result<(PathBuf, String)> {
        let path = PathBuf::from(name);
        let mut text = String::new();
        flate2::read::GzDecoder::new(gz).read_to_string(&mut text).map_err(Error::io(&path))?;
        Ok((path, text))
    };
    Ok([
        unzip(
            "coda_train.txt (built in)",
            include_bytes!("../splits/imagenet-r-coda-train.txt.gz"),
        )?,
        unzip("coda_test.txt (built in)", include_bytes!("../splits/imagenet-r-coda-test.txt.gz"))?,
    ])
}

fn coda(layout: &Layout) -> Result<FileSet> {
    let folders = layout.folders();
    // In train/ and test/ folders of another split an image may be in either.
    let second: HashSet<String> = match folders.get(1) {
        Some(test) => images_below(test)?.images.into_iter().collect(),
        None => HashSet::new(),
    };
    let [train, test] = lists()?;
    let mut names = vec![String::new(); CLASSES];
    let mut read = |list: u16, (path, text): &(PathBuf, String)| -> Result<Vec<(Sample, Place)>> {
        let lines = parse_list(text, path, CLASSES)?;
        let place = |line: cilbench::data::Line| {
            names[line.label] = line.path.split('/').next().unwrap_or_default().to_owned();
            let folder = u16::from(second.contains(&line.path));
            (
                Sample { key: line.path, label: line.label, domain: 0 },
                Place { folder, list: Some(list), line: line.number },
            )
        };
        Ok(lines.into_iter().map(place).collect())
    };
    let (train_images, test_images) = (read(0, &train)?, read(1, &test)?);
    let set = FileSet::new(names, vec!["imagenet-r".into()], folders, vec![train.0, test.0]);
    Ok(set.with(train_images, test_images))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cilbench::data::Split;

    use super::*;

    #[test]
    fn the_coda_lists_have_the_published_counts_and_no_image_twice() {
        let set = coda(&Layout::Archive("nowhere".into())).expect("lists");
        let (train, test) = (set.samples(Split::Train), set.samples(Split::Test));
        assert_eq!((train.len(), test.len(), set.class_names().len()), (24_000, 6_000, 200));
        let keys: HashSet<&str> = train.iter().chain(test).map(|s| s.key.as_str()).collect();
        assert_eq!(keys.len(), 30_000);
        let labelled = |key: &str| train.iter().chain(test).find(|s| s.key == key).map(|s| s.label);
        assert_eq!(labelled("n02128757/sculpture_4.jpg"), Some(177));
        assert_eq!(labelled("n01910747/tattoo_75.jpg"), Some(153));
        let missing = set.missing(&|_, _| true).expect("missing");
        assert_eq!(missing.len(), 30_000);
        assert!(missing[0].contains("coda_train.txt (built in), line "), "{}", missing[0]);
    }

    /// The images of the first `n` lines of the test list, in an archive and in folders of another
    /// split.
    fn make(root: &Path, prefix: &[&str], n: usize) {
        let [_, (path, text)] = lists().expect("lists");
        for (i, line) in
            parse_list(&text, &path, CLASSES).expect("list").into_iter().take(n).enumerate()
        {
            let file = root.join(prefix[i % prefix.len()]).join(line.path);
            std::fs::create_dir_all(file.parent().expect("parent")).expect("folder");
            std::fs::write(file, b"x").expect("file");
        }
    }

    #[test]
    fn the_coda_split_finds_its_images_in_train_and_test_folders_too() {
        let root = tempfile::tempdir().expect("folder");
        make(root.path(), &["train", "test"], 40);
        let entry = cilbench::data::find("imagenet-r").expect("registered");
        let source = |split: &str| {
            Source::new(Some(root.path().into()), entry.split(Some(split)).expect("split"))
        };
        let set = entry.load(&source("coda")).expect("open");
        assert_eq!(set.missing(&|_, _| true).expect("missing").len(), 30_000 - 40);
        let message = entry.load(&source("folder")).err().expect("not 200 classes").to_string();
        assert!(message.contains("class folders with images, expected 200"), "{message}");
    }

    #[test]
    fn the_folder_split_of_an_archive_is_refused() {
        let root = tempfile::tempdir().expect("folder");
        make(root.path(), &["imagenet-r"], 3);
        let entry = cilbench::data::find("imagenet-r").expect("registered");
        let source =
            Source::new(Some(root.path().into()), entry.split(Some("folder")).expect("split"));
        assert!(
            entry
                .load(&source)
                .err()
                .expect("refused")
                .to_string()
                .contains("--split random-80-20")
        );
        assert!(
            entry
                .split(Some("cod"))
                .expect_err("unknown")
                .to_string()
                .contains("did you mean 'coda'")
        );
    }
}
