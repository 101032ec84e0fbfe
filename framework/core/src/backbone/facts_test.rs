//! Who states what, in which order, and numbers that cannot be.

use std::collections::HashMap;
use std::path::Path;

use super::facts::{Activation, Known, Sizes, gather};
use super::{BackboneOptions, WeightsFile};

const SIZES: Sizes = Sizes { dim: 48, depth: 4, gated: false, norm_pre: false };

/// What is known of a file with this metadata beside this `config.json`.
fn known(
    metadata: &[(&str, &str)],
    config: &str,
    options: BackboneOptions,
) -> crate::Result<Known> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("weights.safetensors");
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let one =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0, 0, 128, 63]);
    let bytes = safetensors::serialize([("any", one.expect("a tensor"))], Some(metadata));
    let bytes = bytes.expect("serialise");
    std::fs::write(&path, bytes).expect("write");
    if !config.is_empty() {
        std::fs::write(folder.path().join("config.json"), config).expect("write");
    }
    gather(&WeightsFile::read(Path::new(&path))?, &options, SIZES)
}

fn by_config(config: &str) -> Known {
    known(&[], config, BackboneOptions::default()).expect(config)
}

#[test]
fn the_command_wins_over_metadata_over_a_configuration_over_assumptions() {
    let config =
        r#"{"num_attention_heads": 4, "layer_norm_eps": 1e-12, "hidden_act": "quick_gelu"}"#;
    let metadata = [("heads", "6"), ("mean", "0.5,0.5,0.5")];
    let options = BackboneOptions { heads: Some(8), ..BackboneOptions::default() };
    assert_eq!(known(&metadata, config, options).expect("known").heads, 8);
    let found = known(&metadata, config, BackboneOptions::default()).expect("known");
    assert_eq!((found.heads, found.eps, found.activation), (6, 1e-12, Activation::QuickGelu));
    assert_eq!(found.assumed, ["standard deviation 1 of the images (--std)"]);
    assert_eq!(by_config(config).heads, 4);
    let width = known(&[], "", BackboneOptions::default()).expect_err("48 / 64 heads").to_string();
    assert!(width.contains("0 attention heads do not divide"), "{width}");
}

#[test]
fn configurations_state_heads_and_normalisation_in_several_places() {
    for config in [
        r#"{"model_args": {"num_heads": 3}}"#,
        r#"{"num_attention_heads": 3, "num_heads": null}"#,
        r#"{"vision_config": {"num_attention_heads": 3}, "num_attention_heads": 8}"#,
        r#"{"model_cfg": {"vision_cfg": {"head_width": 16, "width": 48}}}"#,
    ] {
        assert_eq!(by_config(config).heads, 3, "{config}");
    }
    for config in [
        r#"{"num_heads": 3, "mean": [0.5, 0.4, 0.3], "std": [1, 1, 2]}"#,
        r#"{"num_heads": 3, "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [1, 1, 2]}}"#,
        r#"{"num_heads": 3, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [1, 1, 2]}}"#,
    ] {
        let found = by_config(config);
        assert_eq!((found.mean, found.std), ([0.5, 0.4, 0.3], [1.0, 1.0, 2.0]), "{config}");
    }
    let named =
        by_config(r#"{"architecture": "vit_base_patch16_clip_quickgelu_224", "num_heads": 3}"#);
    assert_eq!((named.eps, named.activation), (1e-5, Activation::QuickGelu));
    let assumed = by_config(r#"{"num_heads": 3}"#).assumed.join("; ");
    for part in ["ε = 1e-6", "activation gelu", "not normalised"] {
        assert!(assumed.contains(part), "{assumed}");
    }
}

#[test]
fn a_configuration_of_another_network_is_not_used_and_a_note_says_so() {
    let options = || BackboneOptions { heads: Some(3), ..BackboneOptions::default() };
    let other =
        known(&[], r#"{"hidden_size": 768, "layer_norm_eps": 0.01}"#, options()).expect("known");
    assert_eq!(other.eps, 1e-6);
    assert!(other.notes[0].contains("hidden_size is 768, the weights' is 48"), "{:?}", other.notes);
    let broken = known(&[], "not json", options()).expect("known");
    assert!(broken.notes[0].contains("cannot be read"), "{:?}", broken.notes);
}

#[test]
fn numbers_that_cannot_be_are_refused_with_who_states_them() {
    let heads = |config: &str| {
        known(&[], config, BackboneOptions::default()).expect_err(config).to_string()
    };
    for (config, expected) in [
        (r#"{"num_heads": 5}"#, "config.json: 5 attention heads do not divide"),
        (r#"{"num_heads": 2.5}"#, "a whole number"),
        (r#"{"num_heads": "3"}"#, "expected a number"),
        (
            r#"{"num_heads": 3, "mean": [127, 127, 127]}"#,
            "config.json: the mean of images in [0, 1] is in [0, 1], got 127",
        ),
        (r#"{"num_heads": 3, "std": [0, 1, 1]}"#, "must be finite and positive, got 0"),
        (r#"{"num_heads": 3, "layer_norm_eps": -1}"#, "small positive number"),
        (r#"{"num_heads": 3, "hidden_act": "relu"}"#, "known are gelu, gelu-tanh and quick-gelu"),
    ] {
        assert!(heads(config).contains(expected), "{}", heads(config));
    }
    for (metadata, expected) in [
        (("std", "inf,1,1"), "finite and positive"),
        (("mean", "NaN,0,0"), "got NaN"),
        (("layer_norm_eps", "NaN"), "small positive number"),
        (("heads", "5"), "do not divide"),
    ] {
        let message =
            known(&[metadata], "", BackboneOptions::default()).expect_err("refused").to_string();
        assert!(message.contains(expected) && message.contains("weights.safetensors"), "{message}");
    }
    let options = BackboneOptions { std: Some([f64::INFINITY; 3]), ..BackboneOptions::default() };
    assert!(known(&[], "", options).is_err());
}
