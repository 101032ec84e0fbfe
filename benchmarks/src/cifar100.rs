//! CIFAR-100 from the hub's parquet files.
//!
//! Sample key: SHA-256 of the 32·32·3 decoded bytes, row by row, RGB interleaved. All images are decoded when the data set is opened and held in
//! memory (184 MB).

use std::path::{Path, PathBuf};

use cilbench::data::{Dataset, DatasetEntry, RgbImage, Sample, Split, decode};
use cilbench::{Error, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Row, RowAccessor};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

inventory::submit! {
    DatasetEntry {
        name: "cifar100",
        summary: "100 classes of 32×32 colour images, 500 training and 100 test images a class",
        source: "Krizhevsky: Learning Multiple Layers of Features from Tiny Images (2009)",
        files: "train-00000-of-00001.parquet and test-00000-of-00001.parquet, as in the Hugging Face data set uoft-cs/cifar100, \
                in --data-root or in its cifar100/ folder",
        aliases: &["cifar-100"],
        open: |root| Ok(Box::new(Cifar100::open(root)?)),
    }
}

/// Images in memory with their samples, in canonical order.
pub(crate) struct Decoded {
    pub(crate) samples: Vec<Sample>,
    pub(crate) images: Vec<RgbImage>,
}

/// Sorts images by key (SHA-256 of their pixels), then by label.
pub(crate) fn in_canonical_order(images: Vec<(RgbImage, usize)>) -> Decoded {
    let mut all: Vec<(Sample, RgbImage)> = images
        .into_par_iter()
        .map(|(image, label)| (Sample { key: cilbench::hex(&Sha256::digest(&image.pixels)), label, domain: 0 }, image))
        .collect();
    all.sort_by(|(a, _), (b, _)| (&a.key, a.label).cmp(&(&b.key, b.label)));
    let (samples, images) = all.into_iter().unzip();
    Decoded { samples, images }
}

struct Cifar100 {
    classes: Vec<String>,
    domains: Vec<String>,
    train: Decoded,
    test: Decoded,
}

impl Cifar100 {
    fn open(root: Option<&Path>) -> Result<Self> {
        let Some(root) = root else {
            return Err(Error::usage(format!(
                "data set cifar100 is not embedded: say where it is with --data-root DIR. {}",
                where_to_get()
            )));
        };
        let (train, test) = (find(root, "train")?, find(root, "test")?);
        Ok(Self {
            classes: include_str!("cifar100_classes.txt").lines().map(str::to_owned).collect(),
            domains: vec!["cifar100".into()],
            train: read(&train, 50_000)?,
            test: read(&test, 10_000)?,
        })
    }

    fn of(&self, split: Split) -> &Decoded {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }
}

fn where_to_get() -> &'static str {
    "It needs train-00000-of-00001.parquet and test-00000-of-00001.parquet of the Hugging Face data set uoft-cs/cifar100 (folder cifar100)"
}

fn find(root: &Path, split: &str) -> Result<PathBuf> {
    if !root.is_dir() {
        return Err(Error::usage(format!("--data-root {}: there is no such folder. {}", root.display(), where_to_get())));
    }
    let name = format!("{split}-00000-of-00001.parquet");
    let places = ["", "cifar100", "data"].map(|folder| root.join(folder).join(&name));
    places.iter().find(|p| p.is_file()).cloned().ok_or_else(|| {
        let tried: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        Error::usage(format!("data set cifar100 was not found; looked for {}. {}", tried.join(", "), where_to_get()))
    })
}

/// Reads a parquet file of `expected` rows (img{bytes}, fine_label).
fn read(path: &Path, expected: usize) -> Result<Decoded> {
    let short = |e: &dyn std::fmt::Display| e.to_string().chars().take(200).collect::<String>();
    let damaged =
        |e: &dyn std::fmt::Display| Error::file(path, format!("not a whole parquet file of CIFAR-100 ({}); download it again", short(e)));
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let reader = SerializedFileReader::new(file).map_err(|e| damaged(&e))?;
    let mut rows = Vec::new();
    for (number, row) in reader.get_row_iter(None).map_err(|e| damaged(&e))?.enumerate() {
        let row = row.map_err(|e| Error::file(path, format!("row {number} cannot be read ({}); download the file again", short(&e))))?;
        rows.push(fields(&row).map_err(|what| Error::file(path, format!("row {number}: {what}")))?);
    }
    if rows.len() != expected {
        return Err(Error::file(path, format!("{} rows, expected {expected}; download the file again", rows.len())));
    }
    let decode = |(number, (bytes, label)): (usize, (Vec<u8>, usize))| {
        let image = decode(&bytes).map_err(|what| Error::file(path, format!("row {number}: {what}")))?;
        if (image.width, image.height) != (32, 32) {
            return Err(Error::file(path, format!("row {number}: the image is {}×{}, expected 32×32", image.width, image.height)));
        }
        Ok((image, label))
    };
    Ok(in_canonical_order(rows.into_par_iter().enumerate().map(decode).collect::<Result<_>>()?))
}

/// The encoded image and the label of a row.
fn fields(row: &Row) -> Result<(Vec<u8>, usize), String> {
    let index = |row: &Row, name: &str| {
        row.get_column_iter().position(|(n, _)| n == name).ok_or_else(|| format!("there is no column '{name}'; is this CIFAR-100?"))
    };
    let image = row.get_group(index(row, "img")?).map_err(|e| e.to_string())?;
    let bytes = image.get_bytes(index(image, "bytes")?).map_err(|e| e.to_string())?.data().to_vec();
    let label = row.get_long(index(row, "fine_label")?).map_err(|e| e.to_string())?;
    if !(0..100).contains(&label) {
        return Err(format!("fine_label {label} is not a class of CIFAR-100 (0 to 99)"));
    }
    Ok((bytes, label as usize))
}

impl Dataset for Cifar100 {
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
    use std::sync::Arc;

    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    fn png(value: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_pixel(32, 32, image::Rgb([value, 0, 1])).write_to(&mut bytes, image::ImageFormat::Png).expect("png");
        bytes.into_inner()
    }

    /// A parquet file with the hub's columns.
    fn write(path: &Path, images: &[Vec<u8>], labels: &[i64]) {
        let schema =
            "message schema { optional group img { optional binary bytes; optional binary path (UTF8); } optional int64 fine_label; }";
        let schema = Arc::new(parse_message_type(schema).expect("schema"));
        let file = std::fs::File::create(path).expect("file");
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::builder().build())).expect("writer");
        let mut group = writer.next_row_group().expect("group");
        let bytes: Vec<ByteArray> = images.iter().map(|b| b.clone().into()).collect();
        let levels = vec![2i16; images.len()];
        let names: Vec<ByteArray> = (0..images.len()).map(|i| format!("{i}.png").into_bytes().into()).collect();
        for values in [&bytes, &names] {
            let mut column = group.next_column().expect("column").expect("column");
            column.typed::<ByteArrayType>().write_batch(values, Some(&levels), None).expect("bytes");
            column.close().expect("close");
        }
        let mut column = group.next_column().expect("column").expect("column");
        column.typed::<Int64Type>().write_batch(labels, Some(&vec![1i16; labels.len()]), None).expect("labels");
        column.close().expect("close");
        group.close().expect("close");
        writer.close().expect("close");
    }

    #[test]
    fn rows_are_read_decoded_and_sorted() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("train.parquet");
        write(&path, &[png(3), png(200)], &[7, 99]);
        let data = read(&path, 2).expect("read");
        assert!(data.samples[0].key < data.samples[1].key);
        let first = data.samples.iter().position(|s| s.label == 7).expect("label 7");
        assert_eq!(data.images[first].pixels[..3], [3, 0, 1]);
    }

    #[test]
    fn damage_is_named_with_file_and_row() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("train.parquet");
        let message = |expected: usize| read(&path, expected).err().expect("must fail").to_string();
        write(&path, &[png(3), b"no image".to_vec()], &[7, 9]);
        assert!(message(2).contains("train.parquet: row 1"), "{}", message(2));
        assert!(message(5).contains("2 rows, expected 5"));
        write(&path, &[png(3)], &[100]);
        assert!(message(1).contains("row 0: fine_label 100"));
        let whole = std::fs::read(&path).expect("read");
        std::fs::write(&path, &whole[..whole.len() / 2]).expect("truncate");
        assert!(message(1).contains("not a whole parquet file"), "{}", message(1));
    }

    #[test]
    fn a_folder_without_the_files_says_what_was_looked_for() {
        let folder = tempfile::tempdir().expect("folder");
        let message = Cifar100::open(Some(folder.path())).err().expect("must fail").to_string();
        assert!(message.contains("train-00000-of-00001.parquet") && message.contains("uoft-cs/cifar100"), "{message}");
        assert!(Cifar100::open(None).err().expect("must fail").to_string().contains("--data-root"));
    }
}
