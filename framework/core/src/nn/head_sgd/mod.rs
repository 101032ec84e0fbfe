//! SGD of one linear layer on stored features. With CPU kernels, a step gathers its rows, scores
//! them and updates the layer in one go; elsewhere the step is composed.

mod loss;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use rayon::prelude::*;

use crate::nn;
use crate::nn::cpu::aligned::fetch;
use crate::nn::cpu::product::{View, product};
use crate::nn::cpu::simd::{Float, vectorised};
use crate::nn::cpu::storage::with_values;
use crate::nn::gaussian::{Features, Kept};
use crate::nn::ops::{cross_entropy, linear, mean_entropy, normalised};
use crate::{Error, Result};
pub use loss::LayerLoss;
use loss::padded;

/// The number of parts of a step, each on one thread, and the rows of the smallest and the largest
/// part. They do not depend on the number of threads, so the sums do not either.
const PARTS: usize = 4;
const LEAST: usize = 40;
const MOST: usize = 160;
/// The number of weights per block of an update, and of blocks per rayon task at least.
const WEIGHTS: usize = 1 << 12;
const BLOCKS: usize = 8;

/// Rows are prefetched so many rows before they are gathered, for they lie anywhere in memory.
const AHEAD: usize = 4;

/// A linear layer (classes, dim) with its bias (classes), trained by SGD with momentum and weight
/// decay as [`Sgd`](crate::optim::Sgd) does it.
pub struct LayerSgd {
    loss: LayerLoss,
    layer: Layer,
}

enum Layer {
    F32(Own<f32>),
    F64(Own<f64>),
    Composed { weight: Momentum, bias: Momentum, momentum: f64, weight_decay: f64 },
}

/// A variable with its momentum, for the composed tier.
struct Momentum {
    var: Var,
    /// None before the first step.
    buffer: Option<Tensor>,
}

impl Momentum {
    fn new(value: &Tensor) -> Result<Self> {
        Ok(Self { var: Var::from_tensor(&value.detach())?, buffer: None })
    }

    fn step(
        &mut self,
        grads: &GradStore,
        rate: f64,
        momentum: f64,
        weight_decay: f64,
    ) -> Result<()> {
        let Some(grad) = grads.get(&self.var) else { return Ok(()) };
        let mut grad = grad.detach();
        if weight_decay != 0.0 {
            grad = (grad + (self.var.as_tensor().detach() * weight_decay)?)?;
        }
        let buffer = match &self.buffer {
            Some(buffer) => ((buffer * momentum)? + grad)?,
            None => grad,
        };
        self.var.set(&(self.var.as_tensor().detach() - (&buffer * rate)?)?)?;
        self.buffer = Some(buffer);
        Ok(())
    }
}

impl LayerSgd {
    /// Starts from a weight (classes, dim) and a bias (classes).
    ///
    /// # Errors
    /// If the shapes or types do not fit.
    pub fn new(
        loss: LayerLoss,
        (weight, bias): (&Tensor, &Tensor),
        momentum: f64,
        weight_decay: f64,
    ) -> Result<Self> {
        let classes = weight.dims2()?.0;
        if weight.elem_count() == 0 {
            return Err(Error::Protocol(format!(
                "a layer of shape {:?} has nothing to learn",
                weight.dims()
            )));
        }
        if bias.dims() != [classes] || bias.dtype() != weight.dtype() {
            let (shape, dtype, own) = (bias.dims(), bias.dtype(), weight.dtype());
            return Err(Error::Protocol(format!(
                "a bias of shape {shape:?} and type {dtype:?} for a layer of {classes} classes of type {own:?}"
            )));
        }
        let layer = match weight.dtype() {
            DType::F32 if nn::has_cpu_kernel(weight) => {
                Layer::F32(Own::new(weight, bias, momentum, weight_decay)?)
            }
            DType::F64 if nn::has_cpu_kernel(weight) => {
                Layer::F64(Own::new(weight, bias, momentum, weight_decay)?)
            }
            _ => {
                let (weight, bias) = (Momentum::new(weight)?, Momentum::new(bias)?);
                Layer::Composed { weight, bias, momentum, weight_decay }
            }
        };
        Ok(Self { loss, layer })
    }

    /// Takes steps of `step` rows each over `features` (n, dim) with i64 `labels` (n), in the order
    /// of the i64 row numbers `order`. Returns the sum of the losses of the steps.
    ///
    /// # Errors
    /// If a label or a row number is out of range, or shapes or types do not fit.
    pub fn epoch(
        &mut self,
        rate: f64,
        features: &Features,
        (labels, order): (&Tensor, &Tensor),
        step: usize,
    ) -> Result<f64> {
        let loss = self.loss;
        match (&mut self.layer, &features.0) {
            (Layer::F32(own), Kept::F32(values, _)) => {
                own.epoch(loss, rate, values, (labels, order), step)
            }
            (Layer::F64(own), Kept::F64(values, _)) => {
                own.epoch(loss, rate, values, (labels, order), step)
            }
            (Layer::F32(own), Kept::Tensor(t)) => with_values(&t.contiguous()?, |values| {
                own.epoch(loss, rate, values, (labels, order), step)
            })?,
            (Layer::F64(own), Kept::Tensor(t)) => with_values(&t.contiguous()?, |values| {
                own.epoch(loss, rate, values, (labels, order), step)
            })?,
            (Layer::Composed { weight, bias, momentum, weight_decay }, Kept::Tensor(features)) => {
                let total = order.dim(0)?;
                // The losses are summed on their device and read once. On a GPU, reading each would
                // cost more than its step.
                let mut sum = Tensor::zeros((), features.dtype(), features.device())?;
                for start in (0..total).step_by(step) {
                    let rows = order.narrow(0, start, step.min(total - start))?;
                    let logits = linear(&features.index_select(&rows, 0)?, &weight.var, &bias.var)?;
                    let labels = labels.index_select(&rows, 0)?;
                    let loss = match loss {
                        LayerLoss::CrossEntropy => cross_entropy(&logits, &labels)?,
                        LayerLoss::EntropyNormalised => {
                            (mean_entropy(&logits)?
                                + cross_entropy(&normalised(&logits)?, &labels)?)?
                        }
                    };
                    sum = (sum + loss.detach())?;
                    let grads = loss.backward()?;
                    weight.step(&grads, rate, *momentum, *weight_decay)?;
                    bias.step(&grads, rate, *momentum, *weight_decay)?;
                }
                Ok(sum.to_dtype(DType::F64)?.to_scalar::<f64>()?)
            }
            _ => Err(Error::Protocol(
                "a layer learns from features of another type or on another device".into(),
            )),
        }
    }

    /// The layer: its weight (classes, dim) and bias (classes).
    ///
    /// # Errors
    /// If the tensors cannot be made.
    pub fn layer(&self) -> Result<(Tensor, Tensor)> {
        match &self.layer {
            Layer::F32(own) => own.layer(),
            Layer::F64(own) => own.layer(),
            Layer::Composed { weight, bias, .. } => {
                Ok((weight.var.as_tensor().detach(), bias.var.as_tensor().detach()))
            }
        }
    }
}

/// The layer for the CPU kernels. Its weight is stored transposed, (dim, classes), with rows
/// [`padded`] by zeros, so that products run at full speed.
struct Own<T> {
    classes: usize,
    weight: Vec<T>,
    bias: Vec<T>,
    weight_momentum: Vec<T>,
    bias_momentum: Vec<T>,
    momentum: T,
    weight_decay: T,
    /// Buffers of a step's parts, kept from step to step.
    parts: Vec<Part<T>>,
}

/// Buffers of some rows of a step.
#[derive(Default)]
struct Part<T> {
    /// (rows, dim), and their labels.
    x: Vec<T>,
    labels: Vec<i64>,
    /// (rows, padded classes): logits, then their gradient.
    logits: Vec<T>,
    /// A buffer of the loss.
    room: Vec<T>,
    losses: Vec<f64>,
    loss: f64,
    /// The gradients of the weight and the bias, in the layout of the layer.
    weight: Vec<T>,
    bias: Vec<T>,
}

impl<T: Float + candle_core::WithDType> Own<T> {
    fn new(weight: &Tensor, bias: &Tensor, momentum: f64, weight_decay: f64) -> Result<Self> {
        let (given, mut bias) = (weight.flatten_all()?.to_vec1::<T>()?, bias.to_vec1::<T>()?);
        let (classes, dim) = weight.dims2()?;
        let pitch = padded(classes);
        bias.resize(pitch, T::ZERO);
        let mut weight = vec![T::ZERO; dim * pitch];
        for (class, row) in given.chunks_exact(dim.max(1)).enumerate() {
            weight[class..].iter_mut().step_by(pitch).zip(row).for_each(|(w, v)| *w = *v);
        }
        Ok(Self {
            classes,
            weight_momentum: vec![T::ZERO; weight.len()],
            bias_momentum: vec![T::ZERO; bias.len()],
            weight,
            bias,
            momentum: T::narrow(momentum),
            weight_decay: T::narrow(weight_decay),
            parts: Vec::new(),
        })
    }

    fn layer(&self) -> Result<(Tensor, Tensor)> {
        let (device, classes, pitch) = (&candle_core::Device::Cpu, self.classes, self.bias.len());
        let weight: Vec<T> = (0..classes)
            .flat_map(|class| self.weight[class..].iter().step_by(pitch).copied())
            .collect();
        let weight = Tensor::from_vec(weight, (classes, self.weight.len() / pitch.max(1)), device)?;
        Ok((weight, Tensor::from_slice(&self.bias[..classes], classes, device)?))
    }

    fn epoch(
        &mut self,
        loss: LayerLoss,
        rate: f64,
        features: &[T],
        (labels, order): (&Tensor, &Tensor),
        step: usize,
    ) -> Result<f64> {
        let (labels, order) = (labels.to_vec1::<i64>()?, order.to_vec1::<i64>()?);
        let (classes, dim) = (self.classes, self.weight.len() / self.bias.len().max(1));
        if features.len() != labels.len() * dim {
            let (n, width) = (labels.len(), features.len());
            return Err(Error::Protocol(format!(
                "{width} numbers are not {n} labelled features of {dim}, the layer's width"
            )));
        }
        if let Some(label) = labels.iter().find(|l| !(0..classes as i64).contains(l)) {
            return Err(Error::Protocol(format!("label {label} for a layer of {classes} classes")));
        }
        if let Some(row) = order.iter().find(|r| !(0..labels.len() as i64).contains(r)) {
            return Err(Error::Protocol(format!("row {row} of {} features", labels.len())));
        }
        // A step that starts inside the pool need not wake this thread.
        Ok(rayon::scope(|_| {
            order
                .chunks(step.max(1))
                .map(|rows| self.step(loss, T::narrow(rate), features, &labels, rows))
                .sum()
        }))
    }

    /// Takes one step on some rows and returns its loss.
    fn step(
        &mut self,
        loss: LayerLoss,
        rate: T,
        features: &[T],
        labels: &[i64],
        rows: &[i64],
    ) -> f64 {
        let size = rows.len().div_ceil(PARTS).clamp(LEAST, MOST);
        let count = rows.len().div_ceil(size);
        let scale = T::narrow(1.0 / rows.len() as f64);
        if self.parts.len() < count {
            self.parts.resize_with(count, Part::default);
        }
        let (parts, layer) =
            (&mut self.parts[..count], (&self.weight[..], &self.bias[..], self.classes));
        parts
            .par_iter_mut()
            .zip(rows.par_chunks(size))
            .for_each(|(part, rows)| part.learn(loss, scale, layer, (features, labels), rows));

        let (parts, momentum, decay) = (&self.parts[..count], self.momentum, self.weight_decay);
        let update =
            |at: usize, weight: &mut [T], buffer: &mut [T], grad: fn(&Part<T>) -> &Vec<T>| {
                decayed(weight, momentum, decay, buffer);
                parts.iter().for_each(|part| added(&grad(part)[at..at + buffer.len()], buffer));
                moved(buffer, rate, weight);
            };
        let blocks =
            self.weight.par_chunks_mut(WEIGHTS).zip(self.weight_momentum.par_chunks_mut(WEIGHTS));
        blocks.enumerate().with_min_len(BLOCKS).for_each(|(i, (weight, buffer))| {
            update(i * WEIGHTS, weight, buffer, |part| &part.weight)
        });
        update(0, &mut self.bias, &mut self.bias_momentum, |part| &part.bias);
        parts.iter().map(|part| part.loss).sum::<f64>() / rows.len() as f64
    }
}

impl<T: Float> Part<T> {
    /// Computes the sum of the losses of the rows, and `scale` times its gradient.
    fn learn(
        &mut self,
        loss: LayerLoss,
        scale: T,
        (weight, bias, classes): (&[T], &[T], usize),
        (features, labels): (&[T], &[i64]),
        rows: &[i64],
    ) {
        let (n, pitch, dim) = (rows.len(), bias.len(), weight.len() / bias.len());
        let (wide, narrow) = (View::rows(dim), View::rows(pitch));
        self.x.clear();
        self.labels.clear();
        self.logits.clear();
        for (i, row) in rows.iter().enumerate() {
            let row = *row as usize;
            if let Some(next) = rows.get(i + AHEAD) {
                fetch(&features[*next as usize * dim..][..dim]);
            }
            self.x.extend_from_slice(&features[row * dim..][..dim]);
            self.labels.push(labels[row]);
            self.logits.extend_from_slice(bias);
        }
        let (x, w) = (wide.of(&self.x), narrow.of(weight));
        product((n, pitch, dim), narrow.added_to(&mut self.logits), x, w, 1.0);

        self.losses.resize(n, 0.0);
        self.room.resize(2 * pitch, T::ZERO);
        loss.learn(
            scale,
            &mut self.logits,
            (&self.labels, classes),
            &mut self.losses,
            &mut self.room,
        );
        self.loss = self.losses.iter().sum();

        self.weight.resize(dim * pitch, T::ZERO);
        let (x, gradient) = (wide.t().of(&self.x), narrow.of(&self.logits));
        product((dim, pitch, n), narrow.replaced(&mut self.weight), x, gradient, 1.0);
        self.bias.clear();
        self.bias.resize(pitch, T::ZERO);
        self.logits.chunks_exact(pitch).for_each(|row| added(row, &mut self.bias));
    }
}

vectorised! {
    /// buffer := momentum · buffer + decay · weight.
    fn decayed(weight: &'a [T], momentum: T, decay: T, buffer: &'a mut [T]) {
        for (b, w) in buffer.iter_mut().zip(weight) {
            *b = momentum * *b + decay * *w;
        }
    }
}

vectorised! {
    /// to += from.
    fn added(from: &'a [T], to: &'a mut [T]) {
        for (t, f) in to.iter_mut().zip(from) {
            *t += *f;
        }
    }
}

vectorised! {
    /// weight −= rate · buffer.
    fn moved(buffer: &'a [T], rate: T, weight: &'a mut [T]) {
        for (w, b) in weight.iter_mut().zip(buffer) {
            *w = *w - rate * *b;
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// The layer and the losses after two epochs of random data of this type.
    fn trained(
        dtype: DType,
        loss: LayerLoss,
        (n, dim, classes, step): (usize, usize, usize, usize),
    ) -> (Vec<f64>, [f64; 2]) {
        let values = |shape: &[usize], salt: usize| {
            let count = shape.iter().product::<usize>();
            let values: Vec<f64> = (0..count)
                .map(|i| (((i + 1) * (salt + 7919)) as f64 * 0.618_033_988_75).fract() - 0.5)
                .collect();
            Tensor::from_vec(values, shape, &Device::Cpu)
                .expect("values")
                .to_dtype(dtype)
                .expect("type")
        };
        let (weight, bias) = (values(&[classes, dim], 1), values(&[classes], 2));
        let features = Features::of(values(&[n, dim], 3));
        let labels =
            Tensor::from_vec((0..n).map(|i| (i * 5 % classes) as i64).collect(), n, &Device::Cpu)
                .expect("labels");
        let order = Tensor::from_vec((0..n).rev().map(|i| i as i64).collect(), n, &Device::Cpu)
            .expect("order");
        let mut trainer = LayerSgd::new(loss, (&weight, &bias), 0.9, 0.01).expect("trainer");
        let losses = [0.5, 0.2]
            .map(|rate| trainer.epoch(rate, &features, (&labels, &order), step).expect("epoch"));
        let (weight, bias) = trainer.layer().expect("layer");
        assert_eq!((weight.dims(), bias.dims()), (&[classes, dim][..], &[classes][..]));
        let flat = Tensor::cat(&[weight.flatten_all().expect("flat"), bias], 0).expect("cat");
        (flat.to_dtype(DType::F64).expect("f64").to_vec1().expect("values"), losses)
    }

    fn far(a: &(Vec<f64>, [f64; 2]), b: &(Vec<f64>, [f64; 2])) -> f64 {
        let both = a.0.iter().chain(&a.1).zip(b.0.iter().chain(&b.1));
        both.map(|(a, b)| (a - b).abs() / (1.0 + b.abs()))
            .fold(0.0, |worst, d| if d.is_nan() { f64::NAN } else { worst.max(d) })
    }

    #[test]
    fn equals_the_composed_steps() {
        for loss in [LayerLoss::CrossEntropy, LayerLoss::EntropyNormalised] {
            // One row; fewer rows than a part; a last step that is short; several parts; more
            // weights than a block.
            for shape in [
                (1, 3, 2, 1),
                (7, 5, 3, 4),
                (100, 19, 11, 45),
                (700, 33, 10, 650),
                (90, 96, 101, 45),
            ] {
                let composed = nn::as_on_a_device(|| trained(DType::F64, loss, shape));
                let own = trained(DType::F64, loss, shape);
                assert!(
                    far(&own, &composed) < 1e-11,
                    "{loss:?} {shape:?}: {}",
                    far(&own, &composed)
                );
                let single = far(&trained(DType::F32, loss, shape), &composed);
                assert!(single < 1e-4, "{loss:?} {shape:?}, f32: {single}");
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_count() {
        let at = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            pool.install(|| trained(DType::F32, LayerLoss::EntropyNormalised, (700, 96, 101, 650)))
        };
        assert!(at(1) == at(3));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let cpu = &Device::Cpu;
        let layer =
            [(2usize, 3usize)].map(|shape| Tensor::zeros(shape, DType::F32, cpu).expect("weight"));
        let bias = |n: usize, dtype| Tensor::zeros(n, dtype, cpu).expect("bias");
        assert!(
            LayerSgd::new(LayerLoss::CrossEntropy, (&layer[0], &bias(3, DType::F32)), 0.9, 0.0)
                .is_err()
        );
        assert!(
            LayerSgd::new(LayerLoss::CrossEntropy, (&layer[0], &bias(2, DType::F64)), 0.9, 0.0)
                .is_err()
        );
        let mut trainer =
            LayerSgd::new(LayerLoss::CrossEntropy, (&layer[0], &bias(2, DType::F32)), 0.9, 0.0)
                .expect("trainer");
        let features = |width: usize, dtype| {
            Features::of(Tensor::zeros((2, width), dtype, cpu).expect("features"))
        };
        let ints = |values: [i64; 2]| Tensor::new(&values, cpu).expect("ints");
        for (features, labels, order, says) in [
            (
                features(3, DType::F32),
                ints([0, 2]),
                ints([0, 1]),
                "label 2 for a layer of 2 classes",
            ),
            (features(3, DType::F32), ints([0, 1]), ints([0, 2]), "row 2 of 2"),
            (features(4, DType::F32), ints([0, 1]), ints([0, 1]), "the layer's width"),
            (features(3, DType::F64), ints([0, 1]), ints([0, 1]), "not of one type"),
            (Features::default(), ints([0, 1]), ints([0, 1]), "another type"),
        ] {
            let error =
                trainer.epoch(0.1, &features, (&labels, &order), 2).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
