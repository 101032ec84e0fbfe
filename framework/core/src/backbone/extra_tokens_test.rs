//! Extra tokens of the ViT: gradients against differences, no order among them, and none at all.

use candle_core::{DType, Device, Tensor, Var};

use super::{Backbone, Features, Pass, Vit};
use crate::conformance::trial::backbone;

fn forward(vit: &Vit, images: &Tensor, tokens: Option<&Tensor>) -> Features {
    vit.forward(images, Pass { extra_tokens: tokens, cls_tokens: true, ..Pass::default() })
        .expect("forward")
}

fn draw(shape: (usize, usize, usize)) -> Tensor {
    Tensor::randn(0f64, 1.0, shape, &Device::Cpu).expect("randn")
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

#[test]
fn gradients_of_extra_tokens_equal_differences() {
    let vit = backbone(DType::F64).expect("vit");
    let images = Tensor::rand(0f64, 1.0, (2, 3, 16, 16), &Device::Cpu).expect("images");
    let (tokens, weights) = (Var::from_tensor(&draw((2, 3, 16))).expect("var"), draw((2, 3, 16)));
    let loss = |tokens: &Tensor| {
        let features = forward(&vit, &images, Some(tokens));
        let extra =
            (features.extra.expect("extra") * &weights).expect("mul").sum_all().expect("sum");
        (extra + features.blocks.expect("tokens").sqr().expect("sqr").sum_all().expect("sum"))
            .expect("add")
    };
    let exact = loss(&tokens)
        .backward()
        .expect("bwd")
        .get(&tokens)
        .expect("gradient")
        .flatten_all()
        .expect("flat")
        .to_vec1::<f64>();
    let values = tokens.flatten_all().expect("flat").to_vec1::<f64>().expect("values");
    for (i, exact) in exact.expect("values").into_iter().enumerate() {
        let at = |delta: f64| {
            let mut moved = values.clone();
            moved[i] += delta;
            loss(&Tensor::from_vec(moved, (2, 3, 16), &Device::Cpu).expect("tensor"))
                .to_scalar::<f64>()
                .expect("scalar")
        };
        let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((numeric - exact).abs() < 1e-5 * (1.0 + numeric.abs()), "{i}: {numeric} {exact}");
    }
}

#[test]
fn their_order_does_not_matter_and_without_them_nothing_changes() {
    let vit = backbone(DType::F64).expect("vit");
    let images = Tensor::rand(0f64, 1.0, (2, 3, 16, 16), &Device::Cpu).expect("images");
    let tokens = draw((2, 2, 16));
    let (first, second) =
        (tokens.narrow(1, 0, 1).expect("first"), tokens.narrow(1, 1, 1).expect("second"));
    let turned = Tensor::cat(&[&second, &first], 1).expect("turned");
    let (a, b) = (forward(&vit, &images, Some(&tokens)), forward(&vit, &images, Some(&turned)));
    assert!(worst(&a.cls, &b.cls) < 1e-12);
    let (a_extra, b_extra) = (a.extra.expect("extra"), b.extra.expect("extra"));
    assert!(
        worst(&a_extra.narrow(1, 0, 1).expect("first"), &b_extra.narrow(1, 1, 1).expect("second"))
            < 1e-12
    );
    let plain = forward(&vit, &images, None);
    assert!(plain.extra.is_none() && worst(&a.cls, &plain.cls) > 1e-6);
}
