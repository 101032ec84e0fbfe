//! Adapters of the ViT: gradients against differences through the network.

use candle_core::{DType, Device, Tensor, Var};

use super::{Adapter, Adapters, Backbone, Pass, Vit};
use crate::conformance::trial::backbone;

fn draw(shape: &[usize]) -> Var {
    Var::from_tensor(&Tensor::randn(0f64, 0.5, shape, &Device::Cpu).expect("randn")).expect("var")
}

/// Half the squares of all tokens, weighted so that no direction is lost to the last norm.
fn loss(vit: &Vit, images: &Tensor, weights: &Tensor, adapters: Option<&Adapters>) -> Tensor {
    let features = vit
        .forward(images, Pass { adapters, cls_tokens: true, ..Pass::default() })
        .expect("forward");
    (features.blocks.expect("tokens") * weights)
        .expect("mul")
        .sqr()
        .expect("sqr")
        .sum_all()
        .expect("sum")
}

#[test]
fn gradients_of_adapters_equal_differences_and_of_scale_zero_they_change_nothing() {
    let vit = backbone(DType::F64).expect("vit");
    let images = Tensor::rand(0f64, 1.0, (2, 3, 16, 16), &Device::Cpu).expect("images");
    let weights = Tensor::randn(0f64, 1.0, (2, 2, 16), &Device::Cpu).expect("weights");
    let vars: Vec<[Var; 4]> =
        (0..2).map(|_| [draw(&[3, 16]), draw(&[3]), draw(&[16, 3]), draw(&[16])]).collect();
    let adapters = |scale: f64| -> Adapters {
        let of = |(block, [down, down_bias, up, up_bias]): (usize, &[Var; 4])| {
            let t = |v: &Var| v.as_tensor().clone();
            (
                block,
                Adapter {
                    down: t(down),
                    down_bias: t(down_bias),
                    up: t(up),
                    up_bias: t(up_bias),
                    scale,
                },
            )
        };
        vars.iter().enumerate().map(of).collect()
    };
    let scalar = |t: Tensor| t.to_scalar::<f64>().expect("scalar");
    let own = adapters(0.7);
    let grads = loss(&vit, &images, &weights, Some(&own)).backward().expect("bwd");
    for var in vars.iter().flatten() {
        let exact = grads
            .get(var)
            .expect("gradient")
            .flatten_all()
            .expect("flat")
            .to_vec1::<f64>()
            .expect("values");
        let values = var.flatten_all().expect("flat").to_vec1::<f64>().expect("values");
        for (i, exact) in exact.iter().enumerate() {
            let at = |delta: f64| {
                let mut moved = values.clone();
                moved[i] += delta;
                var.set(&Tensor::from_vec(moved, var.shape(), &Device::Cpu).expect("tensor"))
                    .expect("set");
                scalar(loss(&vit, &images, &weights, Some(&own)))
            };
            let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
            at(0.0);
            assert!(
                (numeric - exact).abs() < 1e-5 * (1.0 + numeric.abs()),
                "{i}: {numeric} {exact}"
            );
        }
    }
    let (plain, zero) = (
        scalar(loss(&vit, &images, &weights, None)),
        scalar(loss(&vit, &images, &weights, Some(&adapters(0.0)))),
    );
    assert!((plain - zero).abs() < 1e-9);
}
