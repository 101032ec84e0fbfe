//! What becomes of networks with holes, strangers, copies, and values that no weights have.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};

use crate::backbone::{Backbone, BackboneOptions, Vit, WeightsFile};

const DIM: usize = 6;

fn normal(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).expect("randn")
}

/// A network of three blocks.
fn network() -> BTreeMap<String, Tensor> {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("cls_token".into(), vec![1, 1, DIM]),
        ("pos_embed".into(), vec![1, 5, DIM]),
        ("patch_embed.proj.weight".into(), vec![DIM, 3, 2, 2]),
        ("patch_embed.proj.bias".into(), vec![DIM]),
    ];
    let mut layer = |name: String, rows: usize, columns: Option<usize>| {
        shapes.push((
            format!("{name}.weight"),
            [Some(rows), columns].into_iter().flatten().collect(),
        ));
        shapes.push((format!("{name}.bias"), vec![rows]));
    };
    layer("norm".into(), DIM, None);
    for i in 0..3 {
        layer(format!("blocks.{i}.norm1"), DIM, None);
        layer(format!("blocks.{i}.norm2"), DIM, None);
        layer(format!("blocks.{i}.attn.qkv"), 3 * DIM, Some(DIM));
        layer(format!("blocks.{i}.attn.proj"), DIM, Some(DIM));
        layer(format!("blocks.{i}.mlp.fc1"), 10, Some(DIM));
        layer(format!("blocks.{i}.mlp.fc2"), DIM, Some(10));
    }
    shapes.into_iter().map(|(name, shape)| (name, normal(&shape))).collect()
}

fn build(tensors: BTreeMap<String, Tensor>, key: Option<&str>) -> crate::Result<Vit> {
    let file = WeightsFile::from_tensors("file", String::new(), HashMap::new(), tensors);
    let weights_key = key.map(str::to_owned);
    let options = BackboneOptions { heads: Some(2), weights_key, ..BackboneOptions::default() };
    Vit::new("vit", &file, &options, DType::F32, &Device::Cpu)
}

/// The message about a network that was changed.
fn refused(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> String {
    let mut tensors = network();
    change(&mut tensors);
    build(tensors, None).err().expect("refused").to_string()
}

fn notes(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> String {
    let mut tensors = network();
    change(&mut tensors);
    build(tensors, None).unwrap_or_else(|e| panic!("{e}")).info().notes.join("\n")
}

fn prefixed(prefix: &str, tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect()
}

#[test]
fn a_hole_is_reported_as_a_hole() {
    let block = refused(|t| t.retain(|name, _| !name.starts_with("blocks.1.")));
    assert!(block.contains("missing: blocks.1.* (12 tensors)"), "{block}");
    assert!(!block.contains("unknown"), "{block}");
    for name in [
        "blocks.1.norm2.weight",
        "blocks.0.attn.qkv.bias",
        "norm.bias",
        "patch_embed.proj.weight",
        "cls_token",
    ] {
        let message = refused(|t| drop(t.remove(name)));
        assert!(message.contains(&format!("missing: {name}")), "{message}");
        assert!(!message.contains("unknown"), "{message}");
    }
}

#[test]
fn a_missing_part_of_a_joined_tensor_is_named() {
    let split = |t: &mut BTreeMap<String, Tensor>, without: &str| {
        for end in ["weight", "bias"] {
            let whole = t.remove(&format!("blocks.1.attn.qkv.{end}")).expect("qkv");
            for (i, part) in ["q", "k", "v"].into_iter().enumerate() {
                let rows = whole.narrow(0, i * DIM, DIM).expect("rows");
                t.insert(format!("blocks.1.attn.{part}.{end}"), rows);
            }
        }
        t.remove(without);
    };
    assert!(notes(|t| split(t, "nothing")).is_empty());
    let message = refused(|t| split(t, "blocks.1.attn.k.weight"));
    assert!(message.contains("missing: blocks.1.attn.k.weight"), "{message}");
    assert!(!message.contains("qkv"), "{message}");
}

#[test]
fn unknown_tensors_are_named_one_line_per_prefix() {
    let one = refused(|t| drop(t.insert("unheard.of".into(), normal(&[2]))));
    assert!(one.contains("unknown: unheard.of [2]"), "{one}");
    let many =
        refused(|t| (0..9).for_each(|i| drop(t.insert(format!("unheard.{i}"), normal(&[2])))));
    assert!(many.contains("unknown: unheard.* (9 tensors, such as unheard.0)"), "{many}");
    assert_eq!(many.lines().count(), 2, "{many}");
}

#[test]
fn heads_decoders_copies_and_counters_are_left_out_with_a_note() {
    let nan = Tensor::full(f32::NAN, (2, DIM), &Device::Cpu).expect("nan");
    let found = notes(|t| {
        // What is not used may be damaged.
        t.insert("head.weight".into(), nan.clone());
        t.insert("decoder_blocks.0.norm1.weight".into(), normal(&[DIM]));
        t.insert("mask_token".into(), normal(&[1, 1, DIM]));
        t.insert("steps".into(), Tensor::new(&[7i64], &Device::Cpu).expect("counter"));
        t.extend(prefixed("ema.", network()));
    });
    for expected in [
        "left out: head (a classifier, 1 tensor)",
        "left out: decoder_blocks (a decoder, 1 tensor)",
        "left out: mask_token (the token of masked patches, 1 tensor)",
        "left out: counters and indices (1 tensor)",
        "left out: ema (an average of the network over its training, 42 tensors)",
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn two_networks_are_chosen_from_by_key() {
    let both = || {
        prefixed("model.", network()).into_iter().chain(prefixed("model_ema.", network())).collect()
    };
    let message = build(both(), None).err().expect("two").to_string();
    assert!(message.contains("2 networks, below model and model_ema"), "{message}");
    let ids: Vec<String> = ["model", "model_ema"]
        .map(|key| build(both(), Some(key)).expect("one").info().weight_id.clone())
        .into();
    assert_ne!(ids[0], ids[1]);
    let root = || network().into_iter().chain(prefixed("other.", network())).collect();
    assert!(build(root(), None).err().expect("two").to_string().contains("below . and other"));
    assert!(build(root(), Some(".")).is_ok());
}

#[test]
fn values_that_no_weights_have_are_named() {
    let with = |name: &str, tensor: Tensor| refused(|t| drop(t.insert(name.to_owned(), tensor)));
    let full = |value: f64, dtype: DType| {
        Tensor::full(value, DIM, &Device::Cpu).and_then(|t| t.to_dtype(dtype)).expect("full")
    };
    let nan = with("norm.bias", full(f64::NAN, DType::F32));
    assert!(
        nan.contains("tensor 'norm.bias' has a value that is NaN: the file is damaged"),
        "{nan}"
    );
    let large = with("norm.bias", full(1e300, DType::F64));
    assert!(large.contains("tensor 'norm.bias' has a value of 1e300"), "{large}");
    let infinite = with("norm.bias", full(f64::INFINITY, DType::F16));
    assert!(infinite.contains("tensor 'norm.bias' has a value that is inf"), "{infinite}");
    for name in ["norm.weight", "norm.bias"] {
        let integer = with(name, full(1.0, DType::I64));
        assert!(integer.contains(&format!("tensor '{name}' is of type I64")), "{integer}");
    }
    let zero = with("norm.weight", full(0.0, DType::F32));
    assert!(zero.contains("tensor 'norm.weight' is zero in all its values"), "{zero}");
    let half = Tensor::cat(&[normal(&[3, DIM]), normal(&[3, DIM]).zeros_like().expect("zeros")], 0)
        .expect("half");
    let half = with("blocks.2.attn.proj.weight", half);
    assert!(half.contains("'blocks.2.attn.proj.weight' is zero in its second half"), "{half}");
    // Biases may be zero.
    assert!(notes(|t| drop(t.insert("norm.bias".into(), full(0.0, DType::F32)))).is_empty());
}

#[test]
fn other_networks_are_called_by_name() {
    let named = |names: &[&str]| {
        let tensors = names.iter().map(|n| ((*n).to_owned(), normal(&[2]))).collect();
        build(tensors, None).err().expect("refused").to_string()
    };
    assert!(named(&["conv1.weight", "layer1.0.conv1.weight"]).contains("a ResNet"));
    assert!(named(&["base_model.model.blocks.0.attn.qkv.lora_A.weight"]).contains("LoRA pairs"));
    assert!(named(&["embeddings.word_embeddings.weight"]).contains("a language model"));
    let other = named(&["a.weight", "b.weight"]);
    assert!(
        other.contains("2 tensors, such as a.weight, b.weight") && other.contains("torchvision"),
        "{other}"
    );
    let beit = refused(|t| {
        drop(t.insert("blocks.0.attn.relative_position_bias_table".into(), normal(&[2])))
    });
    assert!(beit.contains("relative position biases"), "{beit}");
    let rotary = refused(|t| drop(t.remove("pos_embed")));
    assert!(rotary.contains("rotary positions"), "{rotary}");
}

#[test]
fn positions_and_image_sizes_that_fit_no_grid_are_refused() {
    let positions = refused(|t| drop(t.insert("pos_embed".into(), normal(&[1, 7, DIM]))));
    assert!(positions.contains("pos_embed [1, 7, 6] does not make a square grid"), "{positions}");
    let sized = |size: usize| {
        let file = WeightsFile::from_tensors("file", String::new(), HashMap::new(), network());
        let options = BackboneOptions {
            heads: Some(2),
            image_size: Some(size),
            ..BackboneOptions::default()
        };
        Vit::new("vit", &file, &options, DType::F32, &Device::Cpu)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    };
    assert!(
        sized(7).contains("no multiple of the backbone's patch size, 2: use 6 or 8"),
        "{}",
        sized(7)
    );
    assert!(
        sized(1_000_000).contains("does not fit into memory: use 512 at most"),
        "{}",
        sized(1_000_000)
    );
    assert_eq!(sized(12), "");
}
