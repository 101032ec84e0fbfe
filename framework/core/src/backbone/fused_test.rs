//! The fused pass against the composed one: features, and gradients of pairs and extra tokens, over
//! random shapes.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};

use super::{
    Backbone, BackboneOptions, Features, LowRank, Pair, Pass, Projection, Site, Vit, WeightsFile,
};

/// Sizes of a random ViT of 4-pixel patches.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    dim: usize,
    heads: usize,
    hidden: usize,
    depth: usize,
    grid: usize,
    layer_scale: bool,
}

fn draw(shape: &[usize], scale: f64) -> Tensor {
    (Tensor::randn(0f64, 1.0, shape, &Device::Cpu).expect("randn") * scale).expect("scale")
}

fn vit(s: Sizes) -> Vit {
    vit_in(s, DType::F64)
}

fn vit_in(s: Sizes, dtype: DType) -> Vit {
    let mut tensors = BTreeMap::new();
    let mut put = |name: String, shape: &[usize], middle: f64| {
        tensors.insert(name, (draw(shape, 0.3) + middle).expect("tensor"));
    };
    let d = s.dim;
    put("cls_token".into(), &[1, 1, d], 0.0);
    put("pos_embed".into(), &[1, s.grid * s.grid + 1, d], 0.0);
    put("patch_embed.proj.weight".into(), &[d, 3, 4, 4], 0.0);
    put("patch_embed.proj.bias".into(), &[d], 0.0);
    put("norm.weight".into(), &[d], 1.0);
    put("norm.bias".into(), &[d], 0.0);
    for b in 0..s.depth {
        for (name, rows, columns) in [
            ("attn.qkv", 3 * d, d),
            ("attn.proj", d, d),
            ("mlp.fc1", s.hidden, d),
            ("mlp.fc2", d, s.hidden),
        ] {
            put(format!("blocks.{b}.{name}.weight"), &[rows, columns], 0.0);
            put(format!("blocks.{b}.{name}.bias"), &[rows], 0.0);
        }
        for norm in ["norm1", "norm2"] {
            put(format!("blocks.{b}.{norm}.weight"), &[d], 1.0);
            put(format!("blocks.{b}.{norm}.bias"), &[d], 0.0);
        }
        if s.layer_scale {
            put(format!("blocks.{b}.ls1.gamma"), &[d], 0.5);
            put(format!("blocks.{b}.ls2.gamma"), &[d], 0.5);
        }
    }
    let metadata = HashMap::from([
        ("heads".to_owned(), s.heads.to_string()),
        ("mean".to_owned(), "0.5,0.4,0.3".to_owned()),
        ("std".to_owned(), "0.2,0.3,0.5".to_owned()),
    ]);
    let file = WeightsFile::from_tensors("random", "random".into(), metadata, tensors);
    Vit::new("vit", &file, &BackboneOptions::default(), dtype, &Device::Cpu).expect("vit")
}

/// Both are alike: the largest difference is below 1e-9 in f64, and in f32 below 2e-5 of the
/// largest value.
fn worst(what: &str, a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let largest =
        |t: &Tensor| t.to_dtype(DType::F64)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
    let (worst, size) =
        ((a - b).and_then(|d| largest(&d)).expect("difference"), largest(b).expect("size"));
    let allowed = if a.dtype() == DType::F64 { 1e-9 } else { 2e-5 * (1.0 + size) };
    assert!(worst < allowed, "{what}: {worst} of {size}");
}

/// Pairs of ranks 1, 2 and 3 beside q, k and v of some blocks, the A of q's frozen, or of all.
fn pairs_in(s: Sizes, dtype: DType, designed: bool) -> (LowRank, Vec<Var>) {
    let (mut pairs, mut vars) = (LowRank::new(), Vec::new());
    let var = |shape: &[usize]| {
        Var::from_tensor(&draw(shape, 0.3).to_dtype(dtype).expect("typed")).expect("var")
    };
    for block in (0..s.depth).filter(|b| b % 3 != 1) {
        for (projection, rank) in [(Projection::Q, 1), (Projection::K, 2), (Projection::V, 3)] {
            if projection == Projection::Q && block == 0 {
                continue;
            }
            let (a, b) = (var(&[rank, s.dim]), var(&[s.dim, rank]));
            let shown = if designed || projection == Projection::Q {
                a.as_detached_tensor()
            } else {
                a.as_tensor().clone()
            };
            pairs.insert(Site { block, projection }, Pair { a: shown, b: b.as_tensor().clone() });
            vars.extend([a, b]);
        }
    }
    (pairs, vars)
}

fn pairs(s: Sizes) -> (LowRank, Vec<Var>) {
    pairs_in(s, DType::F64, false)
}

/// A scalar that every feature has a part in.
fn loss(f: &Features) -> Tensor {
    let square = |t: &Tensor| (t.sqr().expect("sqr") + t).expect("add").sum_all().expect("sum");
    [f.blocks.as_ref(), f.extra.as_ref()]
        .into_iter()
        .flatten()
        .fold(square(&f.cls), |sum, t| (sum + square(t)).expect("add"))
}

fn same(a: &Features, b: &Features) {
    worst("cls", &a.cls, &b.cls);
    for (what, a, b) in [("blocks", &a.blocks, &b.blocks), ("extra", &a.extra, &b.extra)] {
        assert_eq!(a.is_some(), b.is_some(), "{what}");
        if let (Some(a), Some(b)) = (a, b) {
            worst(what, a, b);
        }
    }
}

const SHAPES: [Sizes; 4] = [
    Sizes { dim: 6, heads: 2, hidden: 10, depth: 1, grid: 1, layer_scale: false },
    Sizes { dim: 21, heads: 3, hidden: 37, depth: 2, grid: 2, layer_scale: true },
    Sizes { dim: 32, heads: 4, hidden: 64, depth: 4, grid: 3, layer_scale: false },
    Sizes { dim: 7, heads: 1, hidden: 5, depth: 3, grid: 4, layer_scale: true },
];

fn compare(dtype: DType) {
    for (s, batch, cls_tokens, extra, designed) in [
        (SHAPES[0], 1, true, 0, false),
        (SHAPES[0], 2, false, 1, true),
        (SHAPES[1], 3, true, 2, false),
        (SHAPES[1], 1, false, 0, true),
        (SHAPES[2], 2, true, 0, true),
        (SHAPES[2], 70, false, 0, false),
        (SHAPES[3], 5, true, 3, false),
    ] {
        let vit = vit_in(s, dtype);
        let typed = |t: Tensor| t.to_dtype(dtype).expect("typed");
        let images = typed(
            Tensor::rand(0f64, 1.0, (batch, 3, 4 * s.grid, 4 * s.grid), &Device::Cpu)
                .expect("images"),
        );
        let (low_rank, vars) = pairs_in(s, dtype, designed);
        let prompts =
            Var::from_tensor(&typed(draw(&[batch, extra.max(1), s.dim], 0.5))).expect("prompts");
        let pass = || Pass {
            low_rank: Some(&low_rank),
            cls_tokens,
            extra_tokens: (extra > 0).then_some(prompts.as_tensor()),
            ..Pass::default()
        };
        let (ours, plain) = (
            vit.fused(&images, pass()).expect("fused"),
            vit.composed(&images, pass()).expect("composed"),
        );
        same(&ours, &plain);
        let (ours, plain) =
            (loss(&ours).backward().expect("bwd"), loss(&plain).backward().expect("bwd"));
        for (i, var) in vars.iter().chain([&prompts]).enumerate() {
            let (a, b) = (ours.get(var), plain.get(var));
            assert_eq!(a.is_some(), b.is_some(), "{s:?}: variable {i}");
            if let (Some(a), Some(b)) = (a, b) {
                worst(&format!("{s:?}, batch {batch}: gradient {i}"), a, b);
            }
        }
    }
}

#[test]
fn equals_the_composed_pass_in_values_and_gradients_in_f64() {
    compare(DType::F64);
}

#[test]
fn equals_the_composed_pass_in_values_and_gradients_in_f32() {
    compare(DType::F32);
}

#[test]
fn threads_and_recomputation_change_no_bit_of_a_gradient() {
    let s = SHAPES[1];
    let mut vit = vit_in(s, DType::F32);
    let (low_rank, vars) = pairs_in(s, DType::F32, false);
    let images = Tensor::rand(0f32, 1.0, (70, 3, 8, 8), &Device::Cpu).expect("images");
    let mut gradients = |threads: usize, kept: Option<usize>| -> Vec<Vec<f32>> {
        vit.keep_activations(kept).expect("on the CPU");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
        let features = vit
            .forward(
                &images,
                Pass { low_rank: Some(&low_rank), cls_tokens: true, ..Pass::default() },
            )
            .expect("forward");
        let loss = loss(&features);
        let grads = pool.install(|| loss.backward().expect("bwd"));
        vars.iter()
            .filter_map(|v| grads.get(v))
            .map(|g| g.flatten_all().expect("flat").to_vec1().expect("values"))
            .collect()
    };
    let all = gradients(1, None);
    assert!(all.iter().flatten().any(|g| *g != 0.0));
    for (threads, kept) in [(2, None), (3, Some(0)), (1, Some(13)), (2, Some(69))] {
        assert_eq!(all, gradients(threads, kept), "{threads} threads, {kept:?} images kept");
    }
}

#[test]
fn activations_computed_again_give_the_same_bits() {
    let s = SHAPES[2];
    let mut vit = vit(s);
    let images = Tensor::rand(0f64, 1.0, (5, 3, 12, 12), &Device::Cpu).expect("images");
    let (low_rank, vars) = pairs(s);
    let mut gradients = |kept: Option<usize>| -> Vec<Vec<f64>> {
        vit.keep_activations(kept).expect("on the CPU");
        let features = vit
            .forward(
                &images,
                Pass { low_rank: Some(&low_rank), cls_tokens: true, ..Pass::default() },
            )
            .expect("forward");
        let loss = loss(&features);
        // The second time the kept activations are gone.
        let _ = loss.backward().expect("bwd");
        let grads = loss.backward().expect("bwd");
        let flat = |v: &Var| {
            grads.get(v).map(|g| g.flatten_all().expect("flat").to_vec1::<f64>().expect("values"))
        };
        vars.iter().filter_map(flat).collect()
    };
    let all = gradients(None);
    assert!(all.iter().flatten().any(|g| *g != 0.0));
    for kept in [0, 1, 3, 5, 9] {
        assert_eq!(all, gradients(Some(kept)), "{kept} images kept");
    }
}

#[test]
fn the_attention_s_inputs_are_those_of_the_composed_pass() {
    for s in SHAPES {
        let vit = vit(s);
        let images =
            Tensor::rand(0f64, 1.0, (2, 3, 4 * s.grid, 4 * s.grid), &Device::Cpu).expect("images");
        let low_rank = pairs(s).0;
        let seen = |fused: bool| {
            let mut seen = Vec::new();
            let mut tap = |block: usize, x: &Tensor| -> crate::Result<()> {
                seen.push((block, x.detach()));
                Ok(())
            };
            let pass = Pass {
                low_rank: Some(&low_rank),
                attention_inputs: Some(&mut tap),
                ..Pass::default()
            };
            let features =
                if fused { vit.fused(&images, pass) } else { vit.composed(&images, pass) }
                    .expect("pass");
            (seen, features)
        };
        let ((ours, a), (plain, b)) = (seen(true), seen(false));
        same(&a, &b);
        assert_eq!(ours.len(), s.depth);
        for ((i, a), (j, b)) in ours.iter().zip(&plain) {
            assert_eq!(i, j);
            worst("attention input", a, b);
        }
    }
}

#[test]
fn folded_and_unfrozen_weights_are_taken_up() {
    let s = SHAPES[1];
    let mut vit = vit(s);
    let images = Tensor::rand(0f64, 1.0, (2, 3, 8, 8), &Device::Cpu).expect("images");
    let low_rank = pairs(s).0;
    let beside = vit
        .forward(&images, Pass { low_rank: Some(&low_rank), ..Pass::default() })
        .expect("beside")
        .cls;
    vit.forward(&images, Pass::default()).expect("laid out before the fold");
    vit.fold(&low_rank).expect("fold");
    worst("folded", &vit.forward(&images, Pass::default()).expect("folded").cls, &beside);
    let vars = vit.unfreeze().expect("unfrozen");
    vit.forward(&images, Pass::default()).expect("before the change");
    for (_, var) in &vars {
        var.set(&(var.as_tensor().detach() * 1.1).expect("mul")).expect("set");
    }
    let plain = vit.composed(&images, Pass::default()).expect("composed").cls;
    worst("changed", &vit.forward(&images, Pass::default()).expect("fused").cls, &plain);
}
