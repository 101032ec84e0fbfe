//! Networks as libraries save them, against the features that these libraries compute. The files
//! were recorded by `backbones/record.py` and `backbones/names.py`.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var};
use cilbench::backbone::{Backbone, BackboneOptions, Capability, Features, Pass, Vit, WeightsFile};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backbones")
}

fn vit(path: &Path, options: &BackboneOptions, dtype: DType) -> cilbench::Result<Vit> {
    Vit::new("vit", &WeightsFile::read(path)?, options, dtype, &Device::Cpu)
}

fn family(name: &str) -> Vit {
    let image_size = name.ends_with("resized").then_some(24);
    let options = BackboneOptions { image_size, ..BackboneOptions::default() };
    vit(&folder().join(name).join("model.safetensors"), &options, DType::F64).expect(name)
}

fn expected(name: &str) -> Tensor {
    let file = WeightsFile::read(&folder().join("expected.safetensors")).expect("expected");
    file.tensor(name, DType::F64, &Device::Cpu).expect("tensor")
}

fn images(name: &str) -> Tensor {
    expected(if name.ends_with("resized") { "images.24" } else { "images" })
}

fn forward(vit: &Vit, images: &Tensor) -> Features {
    vit.forward(images, Pass::default()).expect("forward")
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let difference = (a - b).expect("sub").abs().expect("abs").max_all().expect("max");
    difference.to_scalar::<f64>().expect("scalar")
}

const FAMILIES: [&str; 23] = [
    "timm-plain",
    "timm-no-qkv-bias",
    "timm-registers",
    "timm-registers-placed",
    "timm-distilled",
    "timm-clip",
    "timm-average",
    "timm-gap",
    "timm-siglip",
    "timm-swiglu",
    "dinov2-authors",
    "hf-vit",
    "hf-mae",
    "hf-deit",
    "hf-dinov2",
    "hf-dinov2-resized",
    "hf-dinov2-swiglu",
    "hf-dinov2-registers",
    "hf-clip",
    "hf-siglip",
    "torchvision",
    "open-clip",
    "openai-clip",
];

#[test]
fn features_equal_those_of_the_library_that_saved_the_network() {
    for name in FAMILIES {
        let vit = family(name);
        let features = forward(&vit, &images(name)).cls;
        let worst = worst(&features, &expected(name));
        println!("{name}: largest difference {worst:.1e}");
        assert!(worst < 1e-5, "{name}: {worst}");
        // What the configuration beside the file states is not assumed.
        let assumed = vit.info().assumed.join("; ");
        assert!(!assumed.contains("heads"), "{name}: {assumed}");
        assert!(!assumed.contains("hidden_act"), "{name}: {assumed}");
    }
}

#[test]
fn gradients_of_every_weight_of_a_variant_equal_differences() {
    for name in [
        "timm-registers",
        "timm-distilled",
        "timm-clip",
        "timm-average",
        "timm-siglip",
        "timm-swiglu",
    ] {
        let mut vit = family(name);
        let images = images(name);
        let vars = vit.unfreeze().expect("unfrozen");
        let count = vars.iter().map(|(_, v)| v.elem_count()).sum::<usize>();
        assert_eq!(count, vit.info().parameters, "{name}");
        let loss = |vit: &Vit| {
            let pass = Pass { train_weights: true, ..Pass::default() };
            let cls = vit.forward(&images, pass).expect("forward").cls;
            (cls.sqr().expect("sqr") + &cls)
                .expect("add")
                .sqr()
                .expect("sqr")
                .sum_all()
                .expect("sum")
        };
        let grads = loss(&vit).backward().expect("backward");
        for (weight, var) in &vars {
            let exact =
                grads.get(var).unwrap_or_else(|| panic!("{name}: {weight} has no gradient"));
            let exact = exact.flatten_all().expect("flat").to_vec1::<f64>().expect("values");
            let index = exact.len() / 3;
            let moved = |delta: f64| {
                add(var, index, delta);
                let value = loss(&vit).to_scalar::<f64>().expect("scalar");
                add(var, index, -delta);
                value
            };
            let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let worst = (numeric - exact[index]).abs() / (1.0 + numeric.abs());
            assert!(worst < 1e-5, "{name}: {weight}: {numeric} {}", exact[index]);
        }
    }
}

fn add(var: &Var, index: usize, delta: f64) {
    let mut values = var.flatten_all().expect("flat").to_vec1::<f64>().expect("values");
    values[index] += delta;
    var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).expect("tensor")).expect("set");
}

#[test]
fn an_exported_variant_computes_the_same() {
    for name in
        ["timm-registers", "timm-distilled", "hf-clip", "hf-siglip", "timm-average", "timm-swiglu"]
    {
        let vit = family(name);
        let exported = vit.export().expect("export");
        let tensors = exported.tensors.into_iter().collect();
        let metadata = exported.metadata.into_iter().collect();
        let file = WeightsFile::from_tensors("exported", String::new(), metadata, tensors);
        let again = Vit::new("vit", &file, &BackboneOptions::default(), DType::F64, &Device::Cpu)
            .expect(name);
        let images = images(name);
        assert_eq!(
            worst(&forward(&vit, &images).cls, &forward(&again, &images).cls),
            0.0,
            "{name}"
        );
        assert_eq!(again.info().assumed, Vec::<String>::new(), "{name}");
        assert_eq!(vit.info().weight_id, again.info().weight_id, "{name}");
    }
}

#[test]
fn prompts_are_tokens_like_the_others_in_every_variant() {
    for name in ["timm-plain", "timm-registers", "timm-distilled", "timm-gap", "timm-siglip"] {
        let vit = family(name);
        let images = images(name);
        let prompts = Tensor::randn(0f64, 1.0, (3, 2, 16), &Device::Cpu).expect("prompts");
        let pass = Pass { extra_tokens: Some(&prompts), ..Pass::default() };
        let with = vit.forward(&images, pass).expect("forward");
        assert_eq!(with.extra.expect("extra").dims(), [3, 2, 16], "{name}");
        assert!(worst(&with.cls, &forward(&vit, &images).cls) > 1e-3, "{name}");
    }
}

#[test]
fn a_network_without_a_cls_token_says_so() {
    let vit = family("timm-siglip");
    assert!(!vit.supports(Capability::ClsTokens));
    let pass = Pass { cls_tokens: true, ..Pass::default() };
    let message = vit.forward(&images("timm-siglip"), pass).expect_err("no CLS token").to_string();
    assert!(message.contains("no CLS token"), "{message}");
}

/// Files of one network, and the key of those that hold two.
const NAMES: [(&str, Option<&str>); 18] = [
    ("timm.safetensors", None),
    ("timm-f64.safetensors", None),
    ("compiled.safetensors", None),
    ("chunks.safetensors", None),
    ("distributed.pth", None),
    ("before-1.6.pth", None),
    ("plain.pt", None),
    ("transformers.safetensors", None),
    ("transformers.bin", None),
    ("clip-of-transformers.safetensors", None),
    ("open_clip.bin", None),
    ("torchvision.pth", None),
    ("mmpretrain.pth", None),
    ("moco-v3.pth", None),
    ("dino-teacher.pth", Some("teacher")),
    ("lightning.ckpt", None),
    ("model.safetensors.index.json", None),
    ("pytorch_model.bin.index.json", None),
];

fn named(name: &str, key: Option<&str>) -> cilbench::Result<Vit> {
    let options = BackboneOptions {
        heads: Some(2),
        weights_key: key.map(str::to_owned),
        ..BackboneOptions::default()
    };
    vit(&folder().join("names").join(name), &options, DType::F32)
}

#[test]
fn one_network_under_many_names_has_one_id_and_one_set_of_features() {
    let images = Tensor::rand(0f32, 1.0, (2, 3, 16, 16), &Device::Cpu).expect("images");
    let of = |(name, key): (&str, Option<&str>)| {
        let vit = named(name, key).unwrap_or_else(|e| panic!("{e}"));
        let features = forward(&vit, &images).cls.to_vec2::<f32>().expect("values");
        (vit.info().weight_id.clone(), features, vit.info().parameters, vit.info().assumed.clone())
    };
    let first = of(NAMES[0]);
    assert_eq!(first.0.len(), 64);
    for file in NAMES {
        assert_eq!(of(file), first, "{}", file.0);
    }
}

#[test]
fn two_networks_in_one_file_are_to_be_chosen_from() {
    let message = |key| named("dino-teacher.pth", key).err().expect("refused").to_string();
    let none = message(None);
    assert!(
        none.contains("2 networks, below student.module.backbone and teacher.backbone"),
        "{none}"
    );
    assert!(none.contains("--weights-key teacher.backbone"), "{none}");
    let other = message(Some("model_ema"));
    assert!(other.contains("unknown key") && other.contains("teacher.backbone"), "{other}");
    let id = |key| named("dino-teacher.pth", Some(key)).expect("one").info().weight_id.clone();
    assert_ne!(id("student"), id("teacher"));
    assert_eq!(id("teacher"), id("teacher.backbone"));
}
