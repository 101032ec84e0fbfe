//! `fashion-mnist-small`: the first 200 training and 100 test images of each class of Fashion-MNIST, embedded in the binary.
//!
//! Sample key: SHA-256 of the 28·28·3 RGB bytes. Made by `benchmarks/data/make_fashion_mnist.py`.

use std::io::Read;

use cilbench::data::{Dataset, DatasetEntry, RgbImage, Sample, Split};
use cilbench::{Error, Result};

use crate::cifar100::{Decoded, in_canonical_order};

inventory::submit! {
    DatasetEntry {
        name: "fashion-mnist-small",
        summary: "10 kinds of clothing, 28×28 grey, 200 training and 100 test images a class; embedded",
        source: "Xiao, Rasul, Vollgraf: Fashion-MNIST (arXiv 1708.07747); MIT, Zalando SE",
        files: "",
        aliases: &["fashion-mnist"],
        open: |_| Ok(Box::new(FashionMnist::open()?)),
    }
}

const CLASSES: [&str; 10] = ["t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"];

struct FashionMnist {
    classes: Vec<String>,
    domains: Vec<String>,
    train: Decoded,
    test: Decoded,
}

impl FashionMnist {
    fn open() -> Result<Self> {
        Ok(Self {
            classes: CLASSES.map(str::to_owned).to_vec(),
            domains: vec!["fashion-mnist".into()],
            train: split(
                include_bytes!("../data/fashion-mnist-train-images-idx3.gz"),
                include_bytes!("../data/fashion-mnist-train-labels-idx1.gz"),
            )?,
            test: split(
                include_bytes!("../data/fashion-mnist-t10k-images-idx3.gz"),
                include_bytes!("../data/fashion-mnist-t10k-labels-idx1.gz"),
            )?,
        })
    }

    fn of(&self, split: Split) -> &Decoded {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }
}

/// The values of a gzipped IDX file of bytes, and its dimensions.
fn idx(gz: &[u8]) -> Result<(Vec<usize>, Vec<u8>)> {
    let bad = |what: String| Error::file("fashion-mnist (embedded)", what);
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(gz).read_to_end(&mut bytes).map_err(|e| bad(e.to_string()))?;
    let [0, 0, 8, count, rest @ ..] = bytes.as_slice() else { return Err(bad("not an IDX file of bytes".into())) };
    let header = 4 * usize::from(*count);
    if rest.len() < header {
        return Err(bad("the IDX header is truncated".into()));
    }
    let dims: Vec<usize> = rest[..header].chunks(4).map(|d| d.iter().fold(0, |n, b| 256 * n + usize::from(*b))).collect();
    if rest.len() - header != dims.iter().product::<usize>() {
        return Err(bad("the IDX file's length does not fit its header".into()));
    }
    Ok((dims, rest[header..].to_vec()))
}

fn split(images: &[u8], labels: &[u8]) -> Result<Decoded> {
    let ((dims, pixels), (_, labels)) = (idx(images)?, idx(labels)?);
    let [n, height, width] = dims[..] else { return Err(Error::file("fashion-mnist (embedded)", "the images are not three-dimensional")) };
    if labels.len() != n || labels.iter().any(|l| usize::from(*l) >= CLASSES.len()) {
        return Err(Error::file("fashion-mnist (embedded)", "images and labels do not fit together"));
    }
    let image = |i: usize| RgbImage::from_grey(width as u32, height as u32, &pixels[i * width * height..(i + 1) * width * height]);
    Ok(in_canonical_order((0..n).map(|i| (image(i), usize::from(labels[i]))).collect()))
}

impl Dataset for FashionMnist {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_subset_is_whole() {
        let data = FashionMnist::open().expect("open");
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
    fn damaged_idx_is_refused() {
        assert!(idx(b"not gzip").is_err());
    }
}
