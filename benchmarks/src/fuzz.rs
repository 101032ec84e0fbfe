//! Mutated inputs of every kind. None may panic, abort, hang, or take much memory: each is read, or
//! is an error.
//!
//! A few thousand inputs are tried by default. `CILBENCH_FUZZ=100000 cargo test --release -p
//! cilbench-benchmarks --lib fuzz` tries so many of each kind; `ulimit -v 8000000` before it bounds
//! the memory. The inputs depend on their number alone, so that what fails is found again.

use std::io::{Cursor, Write};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cilbench::data::{MAX_PIXELS, Scale, decode_as, parse_list, read_manifest};
use cilbench::pickle::Pickle;
use cilbench::scenario::{ClassOrder, ScenarioSpec};
use image::{DynamicImage, ImageFormat};

use crate::parquet_file::{self, Beside};
use crate::{idx, parquet};

/// Inputs of each kind that are tried unless the environment says otherwise.
const DEFAULT: u64 = 1500;

/// The longest that a small input may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pseudo-random numbers (splitmix64), the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `n` − 1; 0 for none.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// What programs trip over: separators, quotes, signs, large numbers, characters of several bytes.
const TOKENS: [&[u8]; 24] = [
    b",",
    b";",
    b"\t",
    b"\"",
    b"\r",
    b"\n",
    b"\0",
    b"..",
    b"/",
    b"\\",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"9223372036854775807",
    b"4294967295",
    b"nan",
    b"[",
    b"{",
    b"=",
    b"#",
    "\u{feff}".as_bytes(),
    "\u{301}".as_bytes(),
    "\u{202e}".as_bytes(),
    b"\xff\xfe",
];

/// An input with a few changes; `other` lends parts.
fn mutated(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.below(6)],
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => drop(bytes.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
            5 => {
                let part: Vec<u8> = bytes[at..end].repeat(1 + random.below(20));
                drop(bytes.splice(at..at, part));
            }
            6 => {
                let from = random.below(other.len() + 1);
                let part = other[from..(from + random.below(64)).min(other.len())].to_vec();
                drop(bytes.splice(at..end, part));
            }
            7 => {
                let width = [2, 4, 8][random.below(3)];
                let value = [0, 1, u64::MAX, u64::MAX >> 1, 1 << 31, 1 << 20, random.next()]
                    [random.below(7)];
                let all = if random.below(2) == 0 {
                    value.to_le_bytes()
                } else {
                    value.rotate_right(8 * width as u32).to_be_bytes()
                };
                all.iter().take(width).zip(at..bytes.len()).for_each(|(b, i)| bytes[i] = *b);
            }
            _ => bytes.push(random.next() as u8),
        }
    }
    bytes
}

fn tries() -> u64 {
    std::env::var("CILBENCH_FUZZ")
        .ok()
        .map_or(DEFAULT, |n| n.parse().expect("CILBENCH_FUZZ is a number"))
}

/// Reads `tries()` mutations of these inputs; gives how many of them were read without an error.
fn fuzz(
    kind: &str,
    inputs: &[Vec<u8>],
    read: impl Fn(&[u8]) -> bool + std::panic::RefUnwindSafe,
) -> usize {
    assert!(
        inputs.iter().all(|input| read(input)),
        "{kind}: the inputs are sound before they are changed"
    );
    let mut sound = 0;
    for i in 0..tries() {
        let mut random = Random(i.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ kind.len() as u64);
        let (a, b) = (random.below(inputs.len()), random.below(inputs.len()));
        let bytes = mutated(&inputs[a], &inputs[b], &mut random);
        let began = Instant::now();
        let outcome = catch_unwind(|| read(&bytes));
        let taken = began.elapsed();
        let keep = || {
            let file = std::env::temp_dir().join(format!("cilbench-fuzz-{kind}-{i}"));
            std::fs::write(&file, &bytes).expect("the input is kept");
            file
        };
        match outcome {
            Ok(good) => sound += usize::from(good),
            Err(_) => panic!("{kind} {i} panics: {}", keep().display()),
        }
        assert!(taken < PATIENCE, "{kind} {i} takes {taken:?}: {}", keep().display());
    }
    sound
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|t| t.as_bytes().to_vec()).collect()
}

#[test]
fn lists_and_manifests() {
    let lists = texts(&[
        "real/dog/1.jpg 0\nreal/owl/2.jpg 1\nreal/my cat/3.jpg 2\n",
        "a/b.png\t2\r\n./c//d.png\t0\r\n",
        "\"a b.png\", 1\nc.png;0\n",
    ]);
    fuzz("list", &lists, |bytes| {
        std::str::from_utf8(bytes)
            .is_ok_and(|text| parse_list(text, Path::new("list.txt"), 3).is_ok())
    });
    let manifests = texts(&[
        "path,label,split\na.jpg,0,train\nb.jpg,1,test\nc.jpg,007,train\n",
        "a.jpg;cat;photo;train\nb.jpg;dog;sketch;test\n\"x;y.jpg\";cat;photo;test\n",
        "\"my cat/1.jpg\" 3 train\n/abs/2.jpg 0 test\n../up.jpg 1 train\n",
    ]);
    let folder = tempfile::tempdir().expect("folder");
    for (name, split) in [("m.csv", "listed"), ("m.txt", "random-80-20:3")] {
        let file = folder.path().join(name);
        let split = split.parse().expect("split");
        fuzz("manifest", &manifests, |bytes| {
            std::fs::write(&file, bytes).expect("file");
            read_manifest(&file, folder.path(), &split).is_ok()
        });
    }
}

#[test]
fn scenarios_and_class_orders() {
    let scenarios = texts(&[
        "dataset = 'folder'\ntasks = [['cat', 3], [0, 'dog']]\nimage_size = 32\n[transforms]\ncrop_scale = [0.5, 1.0]\nflip = false\n",
        "name = 'x'\ndataset = 'manifest'\nbase = 50\nincrement = 10\nclass_order = 'seed:1993'\nmanifest = 'a.csv'\nscale = '16-bit'\n",
        "dataset = 'folder'\nkind = 'domain-incremental'\ndomains = ['a', 'b']\nsplit = 'random-80-20:7'\ndata_root = 'x'\n",
    ]);
    fuzz("scenario", &scenarios, |bytes| {
        std::str::from_utf8(bytes).is_ok_and(|text| ScenarioSpec::parse(text, "x.toml").is_ok())
    });
    let names: Vec<String> = ["cat", "dog", "owl"].map(str::to_owned).to_vec();
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("order.txt");
    fuzz("order", &texts(&["owl\ncat\ndog\n", "\u{feff}dog\r\nowl\r\ncat\r\n"]), |bytes| {
        std::fs::write(&file, bytes).expect("file");
        ClassOrder::File(PathBuf::from(&file)).resolved(&names).is_ok()
    });
    fuzz("order text", &texts(&["seed:1993", "listed:2,0,1", "natural"]), |bytes| {
        let order =
            std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<ClassOrder>().ok());
        order.is_some_and(|order| order.permutation(3).is_ok())
    });
}

fn encoded(format: ImageFormat) -> Vec<u8> {
    let image = image::RgbImage::from_fn(24, 17, |x, y| {
        image::Rgb([(x * 9) as u8, (y * 13) as u8, (x * y) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, format).expect("encode");
    bytes.into_inner()
}

#[test]
fn images() {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    let mut inputs: Vec<Vec<u8>> = [Bmp, Gif, Jpeg, Png, Tiff, WebP].map(encoded).to_vec();
    inputs.push(include_bytes!("../../framework/core/tests/pillow/progressive.jpg").to_vec());
    inputs.push(include_bytes!("../../framework/core/tests/pillow/cmyk.jpg").to_vec());
    inputs.push(include_bytes!("../../framework/core/tests/pillow/palette.png").to_vec());
    inputs.push(include_bytes!("../../framework/core/tests/pillow/grey16.png").to_vec());
    let sound = fuzz("image", &inputs, |bytes| match decode_as(bytes, Scale::SixteenBit) {
        Ok(image) => {
            let pixels = u64::from(image.width) * u64::from(image.height);
            assert!(
                pixels <= MAX_PIXELS && image.pixels.len() as u64 == 3 * pixels,
                "{}×{}",
                image.width,
                image.height
            );
            true
        }
        Err(_) => false,
    });
    assert!(sound > 0, "some mutations leave an image that can be read");
}

#[test]
fn pickles() {
    let inputs: Vec<Vec<u8>> = [
        include_bytes!("../../framework/core/tests/pickles/p2.pkl").as_slice(),
        include_bytes!("../../framework/core/tests/pickles/p4.pkl"),
        include_bytes!("../../framework/core/tests/pickles/p5.pkl"),
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    fuzz("pickle", &inputs, |bytes| {
        let read = || {
            let pickle = Pickle::parse(bytes)?;
            let value = pickle.root();
            value.get("data")?.byte_array()?;
            value.get("fine_labels")?.integers()?;
            value.get("names")?.texts()
        };
        read().is_ok()
    });
}

#[test]
fn idx_files() {
    let images = [&[0u8, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3][..], &[7; 12]].concat();
    let labels = [0u8, 0, 8, 1, 0, 0, 0, 2, 0, 1];
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&images).expect("gzip");
    let inputs = [images, packed.finish().expect("gzip")];
    let paths = [Path::new("images"), Path::new("labels")];
    fuzz("idx", &inputs, |bytes| idx::images((paths[0], bytes), (paths[1], &labels), 2).is_ok());
}

#[test]
fn parquet_files() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("train-0.parquet");
    let images: Vec<(Vec<u8>, String)> =
        (0..20).map(|i| (vec![i; 40], format!("{i}.png"))).collect();
    let labels: Vec<i64> = (0..20).collect();
    let texts: Vec<String> = (0..20).map(|i| format!("n{i:08}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut inputs = Vec::new();
    for beside in [Beside::Integers("label", &labels), Beside::Texts("label", &texts)] {
        parquet_file::write(&file, "image", &images, beside);
        inputs.push(std::fs::read(&file).expect("file"));
    }
    fuzz("parquet", &inputs, |bytes| {
        std::fs::write(&file, bytes).expect("file");
        let read = |row: parquet::ImageRow| {
            row.label("label", 20).map(|_| ()).or_else(|_| row.text("label").map(|_| ()))
        };
        parquet::rows(&file, &["image"], &mut |row| read(row)).is_ok()
    });
}
