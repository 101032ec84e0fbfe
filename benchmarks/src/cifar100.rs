//! CIFAR-100, in any of the four layouts it is commonly found in.
//!
//! Sample key: SHA-256 of the 32·32·3 decoded bytes, row by row, RGB interleaved. All images are
//! decoded when the data set is opened and held in memory (184 MB). Ten test images equal a
//! training image (Barz and Denzler, arXiv 1902.00423 count near-duplicates too), so the key is no
//! leak test.

use std::path::{Path, PathBuf};

use cilbench::data::{
    DatasetEntry, Decoded, HubSource, InMemory, RgbImage, SplitAbout, decode, folders_in,
    images_below,
};
use cilbench::pickle::{Node, Pickle};
use cilbench::{Error, Result};
use rayon::prelude::*;

use crate::parquet;

inventory::submit! {
    DatasetEntry {
        name: "cifar100",
        summary: "100 classes of 32×32 colour images, 500 training and 100 test images per class",
        source: "Krizhevsky: Learning Multiple Layers of Features from Tiny Images (2009)",
        files: "one of: train-00000-of-00001.parquet and test-00000-of-00001.parquet of the Hugging Face data set uoft-cs/cifar100; the folder \
                cifar-100-python or cifar-100-binary of cs.toronto.edu/~kriz/cifar.html, unpacked; folders train/<class>/ and test/<class>/ of PNG files",
        aliases: &["cifar-100"],
        splits: &[SplitAbout { name: "official", summary: "as distributed", images: Some((50_000, 10_000)) }],
        hub: Some(HubSource { repo: "uoft-cs/cifar100", files: ("cifar100/", ".parquet") }),
        open: |entry, source| Ok(Box::new(open(source.root(entry)?, (50_000, 10_000), || source.not_found(entry, LAYOUTS))?)),
    }
}

const LAYOUTS: &str = "*.parquet, cifar-100-python/train, cifar-100-binary/train.bin and train/<class>/ in it, and in its folders cifar100, data";

/// The fine labels, in alphabetical order, which is their official numbering.
fn classes() -> Vec<String> {
    include_str!("cifar100_classes.txt").lines().map(str::to_owned).collect()
}

/// A layout: whether it is in a folder, and how a split of so many images is read from it.
type Layout = (fn(&Path) -> Option<PathBuf>, fn(&Path, &str, usize) -> Result<Decoded>);

const READERS: [Layout; 4] = [
    (
        |root| {
            parquet::files(root, "train-")
                .ok()
                .filter(|f| !f.is_empty())
                .map(|_| root.to_path_buf())
        },
        read_parquet,
    ),
    (|root| with_file(root, "cifar-100-python", "meta"), read_python),
    (|root| with_file(root, "cifar-100-binary", "train.bin"), read_binary),
    (
        |root| {
            (root.join("train").is_dir() && root.join("test").is_dir()).then(|| root.to_path_buf())
        },
        read_folders,
    ),
];

/// The folder itself or the one called `name` in it, whichever has the file.
fn with_file(root: &Path, name: &str, file: &str) -> Option<PathBuf> {
    [root.join(name), root.to_path_buf()].into_iter().find(|folder| folder.join(file).is_file())
}

fn open(
    root: &Path,
    (train, test): (usize, usize),
    not_found: impl Fn() -> Error,
) -> Result<InMemory> {
    let places = ["", "cifar100", "cifar-100", "data"].map(|p| root.join(p));
    let found = places.iter().find_map(|place| {
        READERS.iter().find_map(|(find, read)| find(place).map(|folder| (folder, read)))
    });
    let (folder, read) = found.ok_or_else(not_found)?;
    Ok(InMemory::new(
        "cifar100",
        classes(),
        read(&folder, "train", train)?,
        read(&folder, "test", test)?,
    ))
}

fn whole(path: &Path, found: usize, expected: usize) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::file(
            path,
            format!("{found} images, expected {expected}; download it again"),
        )),
    }
}

/// A decoded image, if it is of CIFAR's size.
fn of_cifar_size(bytes: &[u8]) -> Result<RgbImage, String> {
    let image = decode(bytes)?;
    match (image.width, image.height) {
        (32, 32) => Ok(image),
        (w, h) => Err(format!("the image is {w}×{h}, expected 32×32")),
    }
}

/// Three planes of 32×32 as an image.
fn from_planes(planes: &[u8]) -> RgbImage {
    RgbImage {
        width: 32,
        height: 32,
        pixels: (0..1024).flat_map(|i| [planes[i], planes[1024 + i], planes[2048 + i]]).collect(),
    }
}

fn read_parquet(folder: &Path, split: &str, expected: usize) -> Result<Decoded> {
    let files = parquet::files(folder, &format!("{split}-"))?;
    let Some(first) = files.first() else {
        return Err(Error::file(
            folder,
            format!(
                "there is no {split}-*.parquet beside the other parquet files; download it again"
            ),
        ));
    };
    let mut images = Vec::new();
    for file in &files {
        let mut encoded = Vec::new();
        parquet::rows(file, &["img"], &mut |row| {
            let label = row.label("fine_label", 100)?;
            encoded.push((row.number, row.bytes, label));
            Ok(())
        })?;
        let decode = |(number, bytes, label): (usize, Vec<u8>, usize)| {
            let image = of_cifar_size(&bytes).map_err(|what| {
                Error::file(file, format!("row {number}: {what}; download it again"))
            })?;
            Ok((image, label))
        };
        images.extend(encoded.into_par_iter().map(decode).collect::<Result<Vec<_>>>()?);
    }
    whole(first, images.len(), expected)?;
    Ok(Decoded::new(images))
}

fn read_python(folder: &Path, split: &str, expected: usize) -> Result<Decoded> {
    let path = folder.join(split);
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    let fail = |what: String| {
        Error::file(&path, format!("not a pickle of CIFAR-100: {what}; download it again"))
    };
    let pickle = Pickle::parse(&bytes).map_err(fail)?;
    let value = pickle.root();
    let (shape, pixels) = value.get("data").and_then(|v| Node::byte_array(&v)).map_err(fail)?;
    let labels = value.get("fine_labels").and_then(|v| Node::integers(&v)).map_err(fail)?;
    if shape != [labels.len(), 3072] {
        return Err(fail(format!("{} labels for data of shape {shape:?}", labels.len())));
    }
    let meta = folder.join("meta");
    let bytes = std::fs::read(&meta).map_err(Error::io(&meta))?;
    let names = Pickle::parse(&bytes).and_then(|p| p.root().get("fine_label_names")?.texts());
    if names.map_err(|what| {
        Error::file(&meta, format!("not the names of CIFAR-100: {what}; download it again"))
    })? != classes()
    {
        return Err(Error::file(
            &meta,
            "its fine_label_names are not those of CIFAR-100; is it another data set's?",
        ));
    }
    let one = |(i, label): (usize, &i64)| match usize::try_from(*label).ok().filter(|l| *l < 100) {
        Some(class) => Ok((from_planes(&pixels[3072 * i..3072 * (i + 1)]), class)),
        None => Err(fail(format!("image {i}: fine label {label} is not a class (0 to 99)"))),
    };
    whole(&path, labels.len(), expected)?;
    Ok(Decoded::new(labels.iter().enumerate().map(one).collect::<Result<_>>()?))
}

fn read_binary(folder: &Path, split: &str, expected: usize) -> Result<Decoded> {
    /// Coarse label, fine label, three planes.
    const ROW: usize = 2 + 3072;
    let path = folder.join(format!("{split}.bin"));
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    if bytes.len() % ROW != 0 {
        return Err(Error::file(
            &path,
            format!(
                "{} bytes are no multiple of {ROW}, the size of an image; download it again",
                bytes.len()
            ),
        ));
    }
    whole(&path, bytes.len() / ROW, expected)?;
    let one = |(i, row): (usize, &[u8])| match row[1] {
        label @ 0..100 => Ok((from_planes(&row[2..]), usize::from(label))),
        label => Err(Error::file(
            &path,
            format!("image {i}: fine label {label} is not a class (0 to 99); download it again"),
        )),
    };
    Ok(Decoded::new(bytes.chunks(ROW).enumerate().map(one).collect::<Result<_>>()?))
}

fn read_folders(folder: &Path, split: &str, expected: usize) -> Result<Decoded> {
    let root = folder.join(split);
    let classes = classes();
    for name in folders_in(&root)? {
        if !classes.contains(&name) {
            let known = Error::unknown("class", &name, classes.iter().map(String::as_str));
            return Err(Error::file(
                root.join(&name),
                format!("this is no class of CIFAR-100: {known}"),
            ));
        }
    }
    let one = |key: String| {
        let class = key.split('/').next().unwrap_or_default();
        let class = classes.iter().position(|c| c == class);
        let path = root.join(&key);
        let class = class.ok_or_else(|| {
            Error::file(
                &path,
                "the image lies in no folder of a class; move it into one, or remove it",
            )
        })?;
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        Ok((
            of_cifar_size(&bytes)
                .map_err(|what| Error::file(&path, format!("{what}; replace the file")))?,
            class,
        ))
    };
    let images: Vec<_> =
        images_below(&root)?.images.into_par_iter().map(one).collect::<Result<_>>()?;
    whole(&root, images.len(), expected)?;
    Ok(Decoded::new(images))
}

#[cfg(test)]
mod tests {
    use cilbench::data::{Dataset, Split};

    use super::*;
    use crate::parquet_file::{self, Beside};

    fn image(i: usize) -> RgbImage {
        RgbImage {
            width: 32,
            height: 32,
            pixels: (0..3072).map(|p| ((p * 7 + i * 31) % 251) as u8).collect(),
        }
    }

    fn png(image: &RgbImage) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let whole = image::RgbImage::from_raw(image.width, image.height, image.pixels.clone())
            .expect("image");
        whole.write_to(&mut bytes, image::ImageFormat::Png).expect("png");
        bytes.into_inner()
    }

    /// A parquet file with the hub's columns.
    fn write_parquet(path: &Path, images: &[Vec<u8>], labels: &[i64]) {
        let images: Vec<_> = images
            .iter()
            .enumerate()
            .map(|(i, bytes)| (bytes.clone(), format!("{i}.png")))
            .collect();
        parquet_file::write(path, "img", &images, Beside::Integers("fine_label", labels));
    }

    /// The split's images and labels, written in a layout of the data set.
    const IMAGES: [(&str, &[(usize, usize)]); 2] =
        [("train", &[(1, 7), (2, 99), (3, 0)]), ("test", &[(4, 7), (1, 5)])];

    fn planes(image: &RgbImage) -> Vec<u8> {
        (0..3).flat_map(|c| image.pixels.iter().skip(c).step_by(3).copied()).collect()
    }

    /// A pickle in protocol 2, as Python 2 wrote CIFAR-100's.
    fn write_python(path: &Path, rows: &[(usize, usize)]) {
        let text = |s: &[u8]| [&[b'U', s.len() as u8], s].concat();
        let data: Vec<u8> = rows.iter().flat_map(|(i, _)| planes(&image(*i))).collect();
        let int = |n: usize| [b"J".as_slice(), &(n as u32).to_le_bytes()].concat();
        let labels: Vec<u8> = rows.iter().flat_map(|(_, l)| int(*l)).collect();
        let dtype = [
            b"cnumpy\ndtype\n".as_slice(),
            &text(b"u1"),
            &int(0),
            &int(1),
            b"\x87R(",
            &int(3),
            &text(b"|"),
            b"NNN",
            b"J\xff\xff\xff\xffJ\xff\xff\xff\xff",
            &int(0),
            b"tb",
        ]
        .concat();
        let array = [
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n".as_slice(),
            &int(0),
            b"\x85",
            &text(b"b"),
            b"\x87R(",
            &int(1),
            &int(rows.len()),
            &int(3072),
            b"\x86",
            &dtype,
            b"\x89T",
            &(data.len() as u32).to_le_bytes(),
            &data,
            b"tb",
        ]
        .concat();
        let all = [
            b"\x80\x02}q\x01(".as_slice(),
            &text(b"data"),
            &array,
            &text(b"fine_labels"),
            b"](",
            &labels,
            b"e",
            b"u.",
        ]
        .concat();
        std::fs::write(path, all).expect("pickle");
    }

    fn write(layout: &str, root: &Path) {
        for (split, rows) in IMAGES {
            match layout {
                "parquet" => {
                    let images: Vec<Vec<u8>> = rows.iter().map(|(i, _)| png(&image(*i))).collect();
                    let labels: Vec<i64> = rows.iter().map(|(_, l)| *l as i64).collect();
                    write_parquet(
                        &root.join(format!("{split}-00000-of-00001.parquet")),
                        &images,
                        &labels,
                    );
                }
                "python" => {
                    let folder = root.join("cifar-100-python");
                    std::fs::create_dir_all(&folder).expect("folder");
                    write_python(&folder.join(split), rows);
                    let names: Vec<u8> = classes()
                        .iter()
                        .flat_map(|n| [&[b'U', n.len() as u8], n.as_bytes()].concat())
                        .collect();
                    std::fs::write(
                        folder.join("meta"),
                        [b"\x80\x02}U\x10fine_label_names](".as_slice(), &names, b"es."].concat(),
                    )
                    .expect("meta");
                }
                "binary" => {
                    let folder = root.join("cifar-100-binary");
                    std::fs::create_dir_all(&folder).expect("folder");
                    let bytes: Vec<u8> = rows
                        .iter()
                        .flat_map(|(i, l)| [vec![3, *l as u8], planes(&image(*i))].concat())
                        .collect();
                    std::fs::write(folder.join(format!("{split}.bin")), bytes).expect("binary");
                }
                _ => {
                    for (n, (i, l)) in rows.iter().enumerate() {
                        let folder = root.join(split).join(&classes()[*l]);
                        std::fs::create_dir_all(&folder).expect("folder");
                        std::fs::write(folder.join(format!("{n}.png")), png(&image(*i)))
                            .expect("png");
                    }
                }
            }
        }
    }

    fn fail() -> Error {
        Error::usage("not found")
    }

    #[test]
    fn the_four_layouts_give_the_same_samples_and_pixels() {
        let contents = |layout: &str| {
            let root = tempfile::tempdir().expect("folder");
            write(layout, root.path());
            let data = open(root.path(), (3, 2), fail).unwrap_or_else(|e| panic!("{layout}: {e}"));
            let of = |split| -> Vec<_> {
                data.samples(split)
                    .iter()
                    .enumerate()
                    .map(|(i, s)| (s.clone(), data.image(split, i).expect("image")))
                    .collect()
            };
            (of(Split::Train), of(Split::Test))
        };
        let first = contents("parquet");
        assert_eq!(first.0.iter().find(|(s, _)| s.label == 99).expect("label 99").1, image(2));
        for layout in ["python", "binary", "folders"] {
            assert!(contents(layout) == first, "{layout}");
        }
    }

    #[test]
    fn damage_is_named_with_file_and_place() {
        let message = |layout: &str, damage: &dyn Fn(&Path)| {
            let root = tempfile::tempdir().expect("folder");
            write(layout, root.path());
            damage(root.path());
            open(root.path(), (3, 2), fail).err().expect("must fail").to_string()
        };
        let truncate = |path: PathBuf| {
            let bytes = std::fs::read(&path).expect("read");
            std::fs::write(&path, &bytes[..bytes.len() / 3]).expect("truncate");
        };
        let parquet = |images: &[Vec<u8>], labels: &[i64]| {
            let (images, labels) = (images.to_vec(), labels.to_vec());
            message("parquet", &move |root| {
                write_parquet(&root.join("train-00000-of-00001.parquet"), &images, &labels)
            })
        };
        let text = parquet(&[png(&image(1)), b"no image".to_vec()], &[7, 9]);
        assert!(text.contains("train-00000-of-00001.parquet: row 1"), "{text}");
        assert!(parquet(&[png(&image(1))], &[100]).contains("row 0: fine_label 100"));
        assert!(parquet(&[png(&image(1))], &[1]).contains("1 images, expected 3"));
        assert!(
            message("parquet", &|root| truncate(root.join("test-00000-of-00001.parquet")))
                .contains("not a whole parquet file")
        );
        assert!(
            message("python", &|root| truncate(root.join("cifar-100-python/train")))
                .contains("ends too early")
        );
        assert!(
            message("binary", &|root| truncate(root.join("cifar-100-binary/test.bin")))
                .contains("no multiple of 3074")
        );
        let folder = message("folders", &|root| {
            std::fs::create_dir(root.join("train/aple")).expect("folder")
        });
        assert!(folder.contains("aple") && folder.contains("did you mean 'apple'"), "{folder}");
        let small = message("folders", &|root| {
            let small = RgbImage { width: 2, height: 1, pixels: vec![0; 6] };
            std::fs::write(root.join("train/apple/small.png"), png(&small)).expect("png");
        });
        assert!(small.contains("small.png: the image is 2×1"), "{small}");
    }

    #[test]
    fn a_folder_without_the_files_says_what_was_looked_for() {
        let folder = tempfile::tempdir().expect("folder");
        let entry = cilbench::data::find("cifar100").expect("registered");
        let source = |root: Option<&Path>| {
            cilbench::data::Source::new(
                root.map(Path::to_path_buf),
                entry.split(None).expect("split"),
            )
        };
        let message =
            entry.load(&source(Some(folder.path()))).err().expect("must fail").to_string();
        assert!(
            message.contains("cifar-100-python/train") && message.contains("uoft-cs/cifar100"),
            "{message}"
        );
        assert!(
            entry.load(&source(None)).err().expect("must fail").to_string().contains("--data-root")
        );
    }
}
