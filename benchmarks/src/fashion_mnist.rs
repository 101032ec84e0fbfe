//! Fashion-MNIST: in full from its IDX files, and `fashion-mnist-small`, the first 200 training and
//! 100 test images of each class, embedded.
//!
//! Sample key: SHA-256 of the 28·28·3 RGB bytes. The subset is made by
//! `benchmarks/data/make_fashion_mnist.py`.

use std::path::{Path, PathBuf};

use cilbench::data::{
    Dataset, DatasetEntry, Decoded, HubSource, InMemory, Source, SplitAbout, decode,
};
use cilbench::{Error, Result};
use rayon::prelude::*;

use crate::{idx, parquet};

const SOURCE: &str = "Xiao, Rasul, Vollgraf: Fashion-MNIST (arXiv 1708.07747); MIT, Zalando SE";

inventory::submit! {
    DatasetEntry {
        name: "fashion-mnist-small",
        summary: "10 kinds of clothing, 28×28 grey, 200 training and 100 test images per class; embedded",
        source: SOURCE,
        files: "",
        aliases: &["fashion-mnist"],
        splits: &[SplitAbout { name: "official", summary: "the first images of each class of the official split", images: Some((2_000, 1_000)) }],
        hub: None,
        open: |_, source| match &source.root {
            Some(root) => Err(Error::usage(format!(
                "{}: fashion-mnist-small is in the program and reads no folder: leave --data-root out, or take the data set fashion-mnist",
                root.display()
            ))),
            None => Ok(Box::new(embedded()?)),
        },
    }
}

inventory::submit! {
    DatasetEntry {
        name: "fashion-mnist",
        summary: "10 kinds of clothing, 28×28 grey, 6000 training and 1000 test images per class",
        source: SOURCE,
        files: "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, with or without .gz, from \
                github.com/zalandoresearch/fashion-mnist; or the parquet files of the Hugging Face data set zalando-datasets/fashion_mnist",
        aliases: &[],
        splits: &[SplitAbout { name: "official", summary: "as distributed", images: Some((60_000, 10_000)) }],
        hub: Some(HubSource { repo: "zalando-datasets/fashion_mnist", files: ("fashion_mnist/", ".parquet") }),
        open: full,
    }
}

const CLASSES: [&str; 10] = [
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
];

fn dataset(train: Decoded, test: Decoded) -> InMemory {
    InMemory::new("fashion-mnist", CLASSES.map(str::to_owned).to_vec(), train, test)
}

fn embedded() -> Result<InMemory> {
    let file = Path::new("fashion-mnist (embedded)");
    let split = |images, labels| idx::images((file, images), (file, labels), CLASSES.len());
    let train = split(
        include_bytes!("../data/fashion-mnist-train-images-idx3.gz"),
        include_bytes!("../data/fashion-mnist-train-labels-idx1.gz"),
    )?;
    let test = split(
        include_bytes!("../data/fashion-mnist-t10k-images-idx3.gz"),
        include_bytes!("../data/fashion-mnist-t10k-labels-idx1.gz"),
    )?;
    Ok(dataset(train, test))
}

fn full(entry: &DatasetEntry, source: &Source) -> Result<Box<dyn Dataset>> {
    let root = source.root(entry)?;
    for place in ["", "fashion-mnist", "fashion_mnist", "FashionMNIST/raw"].map(|p| root.join(p)) {
        if find(&place, "train-images-idx3-ubyte").is_some() {
            let split = |stem: &str| from_idx(&place, stem);
            return Ok(Box::new(dataset(split("train")?, split("t10k")?)));
        }
        if !parquet::files(&place, "train-")?.is_empty() {
            let split = |stem: &str| from_parquet(&place, stem);
            return Ok(Box::new(dataset(split("train-")?, split("test-")?)));
        }
    }
    Err(source
        .not_found(entry, "train-images-idx3-ubyte(.gz) and train-*.parquet in it, and in its folders fashion-mnist, FashionMNIST/raw"))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    [folder.join(name), folder.join(format!("{name}.gz"))].into_iter().find(|p| p.is_file())
}

fn from_idx(folder: &Path, stem: &str) -> Result<Decoded> {
    let file = |name: String| -> Result<(PathBuf, Vec<u8>)> {
        let path = find(folder, &name).ok_or_else(|| {
            Error::file(folder.join(&name), "there is no such file, nor one with .gz; download it")
        })?;
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        Ok((path, bytes))
    };
    let (images, labels) =
        (file(format!("{stem}-images-idx3-ubyte"))?, file(format!("{stem}-labels-idx1-ubyte"))?);
    idx::images((&images.0, &images.1), (&labels.0, &labels.1), CLASSES.len())
}

fn from_parquet(folder: &Path, stem: &str) -> Result<Decoded> {
    let files = parquet::files(folder, stem)?;
    if files.is_empty() {
        return Err(Error::file(
            folder,
            format!("there is no {stem}*.parquet beside the other parquet files; download it"),
        ));
    }
    let mut images = Vec::new();
    for file in files {
        let mut encoded = Vec::new();
        parquet::rows(&file, &["image"], &mut |row| {
            let label = row.label("label", CLASSES.len())?;
            encoded.push((row.number, row.bytes, label));
            Ok(())
        })?;
        let one = |(number, bytes, label): (usize, Vec<u8>, usize)| {
            Ok((
                decode(&bytes).map_err(|what| {
                    Error::file(&file, format!("row {number}: {what}; download it again"))
                })?,
                label,
            ))
        };
        images.extend(encoded.into_par_iter().map(one).collect::<Result<Vec<_>>>()?);
    }
    Ok(Decoded::new(images))
}

#[cfg(test)]
mod tests {
    use cilbench::data::Split;

    use super::*;

    #[test]
    fn the_embedded_subset_is_whole() {
        let data = embedded().expect("open");
        for (split, per_class) in [(Split::Train, 200), (Split::Test, 100)] {
            let samples = data.samples(split);
            for class in 0..10 {
                assert_eq!(samples.iter().filter(|s| s.label == class).count(), per_class);
            }
            assert!(samples.windows(2).all(|w| w[0].key <= w[1].key), "canonical order");
            let image = data.image(split, 5).expect("image");
            assert_eq!((image.width, image.height, image.pixels.len()), (28, 28, 28 * 28 * 3));
        }
    }

    #[test]
    fn idx_files_are_read_in_torchvision_s_layout_and_others() {
        let root = tempfile::tempdir().expect("folder");
        let raw = root.path().join("FashionMNIST/raw");
        std::fs::create_dir_all(&raw).expect("folder");
        let gz: [(&str, &[u8]); 4] = [
            (
                "train-images-idx3-ubyte.gz",
                include_bytes!("../data/fashion-mnist-train-images-idx3.gz"),
            ),
            (
                "train-labels-idx1-ubyte.gz",
                include_bytes!("../data/fashion-mnist-train-labels-idx1.gz"),
            ),
            (
                "t10k-images-idx3-ubyte.gz",
                include_bytes!("../data/fashion-mnist-t10k-images-idx3.gz"),
            ),
            (
                "t10k-labels-idx1-ubyte.gz",
                include_bytes!("../data/fashion-mnist-t10k-labels-idx1.gz"),
            ),
        ];
        gz.iter().for_each(|(name, bytes)| std::fs::write(raw.join(name), bytes).expect("file"));
        let entry = cilbench::data::find("fashion-mnist").expect("registered");
        let source =
            Source::new(Some(root.path().to_path_buf()), entry.split(None).expect("split"));
        let data = entry.load(&source).expect("open");
        assert_eq!(data.samples(Split::Train), embedded().expect("embedded").samples(Split::Train));
        std::fs::remove_file(raw.join("t10k-labels-idx1-ubyte.gz")).expect("remove");
        assert!(
            entry
                .load(&source)
                .err()
                .expect("must fail")
                .to_string()
                .contains("t10k-labels-idx1-ubyte: there is no such file")
        );
    }
}
