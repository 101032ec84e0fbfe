//! The ViT against the authors' features, folded and not; LayerScale; other image sizes.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use cilbench::backbone::{
    Backbone, BackboneOptions, LowRank, Pair, Pass, Projection, Site, Vit, WeightsFile,
};
use cilbench::verify::FixtureEntry;
use cilbench_methods as _;

const DEPTH: usize = 4;

fn fixture() -> WeightsFile {
    let name = "sr2-lora_adam.safetensors";
    let entry = cilbench::inventory::iter::<FixtureEntry>
        .into_iter()
        .find(|f| f.file == name)
        .expect("the fixture");
    WeightsFile::parse(Path::new(name), entry.bytes).expect("parse")
}

fn tensor(file: &WeightsFile, name: &str) -> Tensor {
    file.tensor(name, DType::F64, &Device::Cpu).expect(name)
}

/// The fixture's backbone, with some tensors changed.
fn vit(
    file: &WeightsFile,
    image_size: usize,
    change: impl FnOnce(&mut BTreeMap<String, Tensor>),
) -> Vit {
    let plain = |n: &str| n.strip_prefix("backbone.").map(|p| (p.to_owned(), tensor(file, n)));
    let mut tensors: BTreeMap<String, Tensor> = file.names().filter_map(plain).collect();
    change(&mut tensors);
    let file = WeightsFile::from_tensors("test", "test".into(), HashMap::new(), tensors);
    let options = BackboneOptions {
        heads: Some(4),
        image_size: Some(image_size),
        ..BackboneOptions::default()
    };
    Vit::new("test", &file, &options, DType::F64, &Device::Cpu).expect("vit")
}

fn images(file: &WeightsFile) -> Tensor {
    let index = file
        .tensor("task0.test_index", DType::U32, &Device::Cpu)
        .expect("index")
        .narrow(0, 0, 4)
        .expect("four");
    (tensor(file, "test.images").index_select(&index, 0).expect("images") / 255.0).expect("scaled")
}

/// The pairs the authors trained in task 0.
fn pairs(file: &WeightsFile) -> LowRank {
    let mut pairs = LowRank::new();
    for block in 0..DEPTH {
        for projection in [Projection::K, Projection::V] {
            let site = Site { block, projection };
            let part = |p: &str| tensor(file, &format!("task0.trained.lora.0.{site}.{p}"));
            pairs.insert(site, Pair { a: part("A"), b: part("B") });
        }
    }
    pairs
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    (a - b)
        .expect("sub")
        .abs()
        .expect("abs")
        .max_all()
        .expect("max")
        .to_scalar::<f64>()
        .expect("scalar")
}

fn tokens(vit: &Vit, images: &Tensor, low_rank: Option<&LowRank>) -> Tensor {
    vit.forward(images, Pass { low_rank, cls_tokens: true, ..Pass::default() })
        .expect("forward")
        .blocks
        .expect("tokens")
}

#[test]
fn features_equal_the_authors_folded_and_not() {
    let (file, mut vit) = (fixture(), vit(&fixture(), 32, |_| ()));
    let (images, pairs, expected) =
        (images(&file), pairs(&file), tensor(&file, "task0.cls_features"));
    let beside = tokens(&vit, &images, Some(&pairs));
    assert!(worst(&beside, &expected) < 1e-5, "{}", worst(&beside, &expected));
    assert!(worst(&tokens(&vit, &images, None), &expected) > 1e-3, "the pairs do something");
    vit.fold(&pairs).expect("fold");
    let folded = tokens(&vit, &images, None);
    assert!(worst(&folded, &beside) < 1e-12, "{}", worst(&folded, &beside));
}

#[test]
fn every_projection_folds_to_what_it_computes_beside() {
    let file = fixture();
    for projection in [
        Projection::Q,
        Projection::K,
        Projection::V,
        Projection::Proj,
        Projection::Fc1,
        Projection::Fc2,
    ] {
        let mut vit = vit(&file, 32, |_| ());
        let mut pairs = LowRank::new();
        for block in [0, DEPTH - 1] {
            let site = Site { block, projection };
            let (outputs, inputs) = vit.projection(site).expect("size");
            let draw = |shape: (usize, usize)| {
                Tensor::randn(0f64, 0.2, shape, &Device::Cpu).expect("randn")
            };
            pairs.insert(site, Pair { a: draw((3, inputs)), b: draw((outputs, 3)) });
        }
        let (images, plain) = (images(&file), tokens(&vit, &images(&file), None));
        let beside = tokens(&vit, &images, Some(&pairs));
        vit.fold(&pairs).expect("fold");
        assert!(worst(&plain, &beside) > 1e-3, "{projection}");
        assert!(worst(&tokens(&vit, &images, None), &beside) < 1e-10, "{projection}");
    }
}

#[test]
fn layer_scale_scales_the_branches() {
    let file = fixture();
    let scaled = vit(&file, 32, |tensors| {
        for i in 0..DEPTH {
            for (name, factor) in [("ls1", 2.0), ("ls2", 0.5)] {
                tensors.insert(
                    format!("blocks.{i}.{name}.gamma"),
                    Tensor::full(factor, 48, &Device::Cpu).expect("gamma"),
                );
            }
        }
    });
    let by_hand = vit(&file, 32, |tensors| {
        for i in 0..DEPTH {
            for (name, factor) in [("attn.proj", 2.0), ("mlp.fc2", 0.5)] {
                for part in ["weight", "bias"] {
                    let tensor =
                        tensors.get_mut(&format!("blocks.{i}.{name}.{part}")).expect("tensor");
                    *tensor = (&*tensor * factor).expect("scaled");
                }
            }
        }
    });
    assert!(
        worst(&tokens(&scaled, &images(&file), None), &tokens(&by_hand, &images(&file), None))
            < 1e-12
    );
}

#[test]
fn another_image_size_resizes_the_positions_and_a_wrong_one_is_refused() {
    let file = fixture();
    let larger = vit(&file, 48, |_| ());
    let image = Tensor::zeros((2, 3, 48, 48), DType::F64, &Device::Cpu).expect("image");
    assert_eq!(tokens(&larger, &image, None).dims(), [2, DEPTH, 48]);
    let error =
        larger.forward(&images(&file), Pass::default()).expect_err("32 is not 48").to_string();
    assert!(error.contains("3×48×48"), "{error}");
}

#[test]
fn the_attention_s_inputs_are_shown_block_by_block() {
    let (file, mut seen) = (fixture(), Vec::new());
    let mut tap = |block: usize, x: &Tensor| {
        seen.push((block, x.dims().to_vec()));
        Ok(())
    };
    let vit = vit(&file, 32, |_| ());
    vit.forward(&images(&file), Pass { attention_inputs: Some(&mut tap), ..Pass::default() })
        .expect("forward");
    assert_eq!(seen, (0..DEPTH).map(|b| (b, vec![4, 17, 48])).collect::<Vec<_>>());
}
