//! Stripes: six classes of made-up images, told apart by the direction of their stripes; and a
//! scenario of three tasks.

use cilbench::Result;
use cilbench::data::{Dataset, DatasetEntry, RgbImage, Sample, Split, SplitAbout};
use cilbench::scenario::ScenarioEntry;

inventory::submit! {
    DatasetEntry {
        name: "stripes",
        summary: "stripes in six directions, 16×16; made up, nothing to download",
        source: "made up",
        files: "", // what it needs in --data-root: `open` is given that folder
        aliases: &[],
        splits: &[SplitAbout { name: "official", summary: "30 training and 10 test images a class", images: Some((180, 60)) }],
        hub: None,
        open: |_, _| Ok(Box::new(Stripes::new())),
    }
}

inventory::submit! {
    ScenarioEntry { file: "stripes-3.toml", toml: r#"
name = "stripes-3"
summary = "stripes in three tasks of two directions"
dataset = "stripes"
tasks = 3
image_size = 16
"# }
}

const CLASSES: usize = 6;
const SIZE: u32 = 16;

struct Stripes {
    classes: Vec<String>,
    domains: Vec<String>,
    train: Vec<Sample>,
    test: Vec<Sample>,
}

impl Stripes {
    fn new() -> Self {
        // A sample is known by its key: it must never change, and samples are in the order of their
        // keys.
        let list = |split: &str, n: usize| {
            let one = |label: usize, i: usize| Sample {
                key: format!("{split}/{label}/{i:02}"),
                label,
                domain: 0,
            };
            (0..CLASSES).flat_map(|label| (0..n).map(move |i| one(label, i))).collect()
        };
        let classes = (0..CLASSES).map(|c| format!("{} degrees", 30 * c)).collect();
        Self {
            classes,
            domains: vec!["made up".into()],
            train: list("train", 30),
            test: list("test", 10),
        }
    }
}

impl Dataset for Stripes {
    fn class_names(&self) -> &[String] {
        &self.classes
    }

    fn domain_names(&self) -> &[String] {
        &self.domains
    }

    fn samples(&self, split: Split) -> &[Sample] {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }

    fn image(&self, split: Split, index: usize) -> Result<RgbImage> {
        let label = self.samples(split)[index].label;
        let (sin, cos) = (label as f64 * std::f64::consts::PI / CLASSES as f64).sin_cos();
        // Test images are shifted otherwise than training images.
        let shift = index as f64 * 0.7 + if split == Split::Test { 0.35 } else { 0.0 };
        let brightness = |x: u32, y: u32| {
            ((f64::from(x) * cos + f64::from(y) * sin + shift).sin() * 100.0 + 128.0) as u8
        };
        let pixels =
            (0..SIZE).flat_map(|y| (0..SIZE).flat_map(move |x| [brightness(x, y); 3])).collect();
        Ok(RgbImage { width: SIZE, height: SIZE, pixels })
    }
}

#[cfg(test)]
pub(crate) fn opened() -> impl Dataset {
    Stripes::new()
}
