//! Full training of the ViT: gradients against differences, frozen passes, copies.

use candle_core::{DType, Device, Tensor, Var};

use super::{Backbone, Features, Pass, Vit};
use crate::conformance::trial::backbone;

fn images(n: usize) -> Tensor {
    Tensor::rand(0f64, 1.0, (n, 3, 16, 16), &Device::Cpu).expect("images")
}

fn features(vit: &Vit, images: &Tensor, train_weights: bool) -> Features {
    vit.forward(images, Pass { cls_tokens: true, train_weights, ..Pass::default() })
        .expect("forward")
}

/// A scalar that every weight has a part in.
fn loss(features: &Features, weights: &Tensor) -> Tensor {
    let blocks = features.blocks.as_ref().expect("tokens");
    (blocks.sqr().expect("sqr").sum_all().expect("sum")
        + (&features.cls * weights).expect("mul").sum_all().expect("sum"))
    .expect("add")
}

fn entry(var: &Var, index: usize, delta: f64) {
    let mut values = var.flatten_all().expect("flat").to_vec1::<f64>().expect("values");
    values[index] += delta;
    var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).expect("tensor")).expect("set");
}

#[test]
fn gradients_of_every_weight_equal_differences() {
    let mut vit = backbone(DType::F64).expect("vit");
    let images = images(3);
    let weights = Tensor::randn(0f64, 1.0, (3, 16), &Device::Cpu).expect("weights");
    let vars = vit.unfreeze().expect("unfrozen");
    assert_eq!(vars.iter().map(|(_, v)| v.elem_count()).sum::<usize>(), vit.info().parameters);
    let grads = loss(&features(&vit, &images, true), &weights).backward().expect("bwd");
    for (name, var) in &vars {
        let exact = grads
            .get(var)
            .unwrap_or_else(|| panic!("{name} has no gradient"))
            .flatten_all()
            .expect("flat")
            .to_vec1::<f64>();
        let exact = exact.expect("values");
        for index in [0, exact.len() / 2, exact.len() - 1] {
            let at = |delta: f64| {
                entry(var, index, delta);
                let value = loss(&features(&vit, &images, false), &weights)
                    .to_scalar::<f64>()
                    .expect("scalar");
                entry(var, index, -delta);
                value
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!(
                (numeric - exact[index]).abs() < 1e-5 * (1.0 + numeric.abs()),
                "{name}[{index}]: {numeric} {}",
                exact[index]
            );
        }
    }
}

#[test]
fn a_frozen_pass_has_no_graph_and_the_same_values() {
    let mut vit = backbone(DType::F64).expect("vit");
    let images = images(2);
    let before = features(&vit, &images, false).cls;
    assert!(
        vit.forward(&images, Pass { train_weights: true, ..Pass::default() }).is_err(),
        "nothing is unfrozen yet"
    );
    let vars = vit.unfreeze().expect("unfrozen");
    let same =
        vit.unfreeze().expect("again").iter().zip(&vars).all(|((_, a), (_, b))| a.id() == b.id());
    assert!(same, "the same variables when asked for again");
    let (frozen, trained) = (features(&vit, &images, false).cls, features(&vit, &images, true).cls);
    let worst = |t: &Tensor| {
        (t - &before)
            .expect("sub")
            .abs()
            .expect("abs")
            .max_all()
            .expect("max")
            .to_scalar::<f64>()
            .expect("scalar")
    };
    assert!(worst(&frozen) == 0.0 && worst(&trained) < 1e-12);
    assert!(!frozen.track_op() && trained.track_op());
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let mut vit = backbone(DType::F64).expect("vit");
    let images = images(2);
    let vars = vit.unfreeze().expect("unfrozen");
    let copy = vit.snapshot().expect("copy");
    let of = |b: &dyn Backbone| {
        b.forward(&images, Pass::default()).expect("forward").cls.to_vec2::<f64>().expect("values")
    };
    assert_eq!(of(&vit), of(copy.as_ref()));
    for (_, var) in &vars {
        var.set(&(var.as_tensor().detach() * 1.1).expect("scaled")).expect("set");
    }
    assert_ne!(of(&vit), of(copy.as_ref()));
    assert_eq!(copy.export().expect("export").tensors.len(), vars.len());
}
