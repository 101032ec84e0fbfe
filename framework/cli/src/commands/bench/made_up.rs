//! A network with random weights, and a data set of noise images.

use std::collections::{BTreeMap, HashMap};

use cilbench::Result;
use cilbench::backbone::WeightsFile;
use cilbench::candle_core::{Device, Tensor};
use cilbench::data::{Dataset, RgbImage, Sample, Split};
use cilbench::rng::{self, Purpose, stream};
use rand::Rng;

use crate::args::Size;

/// A ViT of 16-pixel patches with normal weights of standard deviation 0.02.
pub(super) fn weights(size: Size, image_size: usize) -> Result<WeightsFile> {
    let (dim, heads) = size.width_and_heads();
    let tokens = (image_size / 16).pow(2) + 1;
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("cls_token".into(), vec![1, 1, dim]),
        ("pos_embed".into(), vec![1, tokens, dim]),
        ("patch_embed.proj.weight".into(), vec![dim, 3, 16, 16]),
        ("patch_embed.proj.bias".into(), vec![dim]),
        ("norm.weight".into(), vec![dim]),
        ("norm.bias".into(), vec![dim]),
    ];
    for block in 0..12 {
        let mut add =
            |name: &str, shape: Vec<usize>| shapes.push((format!("blocks.{block}.{name}"), shape));
        for norm in ["norm1", "norm2"] {
            add(&format!("{norm}.weight"), vec![dim]);
            add(&format!("{norm}.bias"), vec![dim]);
        }
        for (name, out, input) in [
            ("attn.qkv", 3 * dim, dim),
            ("attn.proj", dim, dim),
            ("mlp.fc1", 4 * dim, dim),
            ("mlp.fc2", dim, 4 * dim),
        ] {
            add(&format!("{name}.weight"), vec![out, input]);
            add(&format!("{name}.bias"), vec![out]);
        }
    }
    let mut tensors = BTreeMap::new();
    for (name, shape) in shapes {
        let n = shape.iter().product::<usize>();
        let mut numbers = stream(0, Purpose::Measurement, &[&name]);
        let values: Vec<f32> = match (name.contains("norm"), name.ends_with("weight")) {
            (true, true) => vec![1.0; n],
            (_, false) if name.ends_with("bias") => vec![0.0; n],
            _ => (0..n).map(|_| 0.02 * normal(&mut numbers)).collect(),
        };
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    Ok(WeightsFile::from_tensors(
        "random weights",
        "random".into(),
        HashMap::from([("heads".into(), heads.to_string())]),
        tensors,
    ))
}

/// A nearly normal number: the sum of twelve uniform ones.
fn normal(rng: &mut rng::Stream) -> f32 {
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}

/// Images of noise.
pub(super) struct MadeUp {
    classes: Vec<String>,
    domains: Vec<String>,
    samples: Vec<Sample>,
    size: usize,
}

impl MadeUp {
    pub(super) fn new(classes: usize, per_class: usize, size: usize) -> Self {
        let samples = (0..per_class * classes)
            .map(|i| Sample { key: format!("{i:06}"), label: i % classes, domain: 0 })
            .collect();
        Self {
            classes: (0..classes).map(|i| format!("class {i}")).collect(),
            domains: vec!["noise".into()],
            samples,
            size,
        }
    }
}

impl Dataset for MadeUp {
    fn class_names(&self) -> &[String] {
        &self.classes
    }
    fn domain_names(&self) -> &[String] {
        &self.domains
    }
    fn samples(&self, _: Split) -> &[Sample] {
        &self.samples
    }
    fn image(&self, _: Split, index: usize) -> Result<RgbImage> {
        let mut rng = stream(0, Purpose::Measurement, &[&"image", &index]);
        let pixels = (0..3 * self.size * self.size).map(|_| rng.random()).collect();
        Ok(RgbImage { width: self.size as u32, height: self.size as u32, pixels })
    }
}
