//! RanPAC: ridge regression on randomly projected features of a frozen backbone (McDonnell et al., NeurIPS 2023). No gradient, one pass.
//!
//! ```sh
//! cilbench run --method ranpac
//! ```
//!
//! h = relu(f·W) for features f (dim) and a fixed W (dim, M) of standard normals. G = Σ hᵀh (M, M) and C = Σ yᵀh (classes, M) are summed up task by task; the
//! classifier is C·(G + λI)⁻¹. λ is chosen at each task from 1e-8 … 1e8 by the squared error on a fifth of its training images, fitted to the others; where
//! those are fewer than M, in its dual form, which gives the same predictions. If G + λI is not positive definite in floating point, the next larger candidate
//! that makes it so is taken.
//!
//! With `first_session = true` the backbone is adapted to the first task by a LoRA pair before it is frozen (the paper's phase 1, which uses other
//! adapters). Without it this is the method without the paper's phase 1, which its reported numbers have.
//!
//! With M = 10000, the paper's, a run takes 2 GB at its peak and on two cores about 15 s a task beside the features; with `--set projection=2000` 1 s and 0.2 GB.

use candle_core::{D, DType, Tensor};
use cilbench::context::{Context, Law};
use cilbench::data::View;
use cilbench::method::{About, Access, Batch, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::nn::Cholesky;
use cilbench::parts::{Classes, Learner, LearnerConfig, LoraConfig, Trainable, Training};
use cilbench::scenario::TaskInfo;
use cilbench::state::{Kind, State};
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<RanPac>() }

/// Images a forward pass.
const BATCH: usize = 64;
/// Images a product of projected features.
const ROWS: usize = 2048;
/// Exponents of the candidates for λ.
const EXPONENTS: std::ops::RangeInclusive<i32> = -8..=8;

/// Hyper-parameters of RanPAC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Width of the random projection (M).
    projection: usize,
    /// Ridge (λ); 0 chooses it at each task on held-out training images.
    ridge: f64,
    /// Whether the backbone is adapted to the first task by a LoRA pair; the settings of training and rank only count then.
    first_session: bool,
    #[serde(flatten)]
    training: Training,
    #[serde(flatten)]
    lora: LoraConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self { projection: 10_000, ridge: 0.0, first_session: false, training: Training::default(), lora: LoraConfig::default() }
    }
}

/// What is summed up over all tasks.
struct Sums {
    /// W (dim, M).
    projection: Tensor,
    /// G (M, M).
    gram: Tensor,
    /// C (classes, M).
    products: Tensor,
}

/// RanPAC.
pub struct RanPac {
    config: Config,
    /// The backbone, and the pair and head of the first session.
    learner: Learner,
    sums: Option<Sums>,
    /// The λ of the last task; 1 before the first.
    ridge: f64,
    /// (classes, M).
    classifier: Option<Tensor>,
}

impl Registered for RanPac {
    type Config = Config;
    const ABOUT: About = About {
        name: "ranpac",
        version: "2",
        summary: "ridge regression on random projections of frozen features; no training",
        paper: r"@inproceedings{mcdonnell2023ranpac,
  title={{RanPAC}: Random Projections and Pre-trained Models for Continual Learning},
  author={McDonnell, Mark D. and Gong, Dong and Parvaneh, Amin and Abbasnejad, Ehsan and van den Hengel, Anton},
  booktitle={NeurIPS}, year={2023}
}",
        access: Access::Stream,
        trains: "nothing; with first_session the first task's LoRA pair and head",
        presets: include_str!("../presets/ranpac.toml"),
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        if config.projection == 0 {
            return Err(Error::usage("projection = 0: the random projection needs a width, 10000 in the paper"));
        }
        if !(config.ridge.is_finite() && config.ridge >= 0.0) {
            return Err(Error::usage(format!("ridge = {}: must be positive, or 0 to choose it on held-out images", config.ridge)));
        }
        let trainable = if config.first_session { Trainable::Lora } else { Trainable::Head };
        let own = LearnerConfig { training: config.training.clone(), trainable, lora: config.lora.clone() };
        let learner = Learner::new(Self::ABOUT.name, own, Classes::Current, setup)?;
        Ok(Self { config, learner, sums: None, ridge: 1.0, classifier: None })
    }
}

/// relu(f·W), (n, M), for features (n, dim).
fn projected(features: &Tensor, projection: &Tensor) -> Result<Tensor> {
    Ok(features.matmul(projection)?.relu()?)
}

/// Σ hᵀh (M, M) and Σ yᵀh (columns, M) over features (n, dim) and targets (n, columns), a part of the rows at a time.
fn moments(features: &Tensor, targets: &Tensor, projection: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, width) = (features.dim(0)?, projection.dim(1)?);
    let mut gram = Tensor::zeros((width, width), features.dtype(), features.device())?;
    let mut products = Tensor::zeros((targets.dim(1)?, width), features.dtype(), features.device())?;
    for start in (0..rows).step_by(ROWS) {
        let n = ROWS.min(rows - start);
        let h = projected(&features.narrow(0, start, n)?, projection)?;
        gram = (gram + h.t()?.matmul(&h)?)?;
        products = (products + targets.narrow(0, start, n)?.t()?.contiguous()?.matmul(&h)?)?;
    }
    Ok((gram, products))
}

/// Targets (n, columns): a one at label − first.
fn one_hot(labels: &[i64], first: usize, columns: usize, like: &Tensor) -> Result<Tensor> {
    let mut values = vec![0f32; labels.len() * columns];
    labels.iter().enumerate().for_each(|(i, label)| values[i * columns + *label as usize - first] = 1.0);
    Ok(Tensor::from_vec(values, (labels.len(), columns), like.device())?.to_dtype(like.dtype())?)
}

fn candidates() -> impl Iterator<Item = f64> {
    EXPONENTS.map(|e| 10f64.powi(e))
}

/// The λ of the candidates with the least squared error on the last fifth of the rows, fitted to the others; of equal ones the smallest. None if no candidate can be
/// fitted, or if there are not two images.
fn choose_ridge(features: &Tensor, targets: &Tensor, projection: &Tensor) -> Result<Option<f64>> {
    let (rows, width) = (features.dim(0)?, projection.dim(1)?);
    if rows < 2 {
        return Ok(None);
    }
    let n = (rows * 4 / 5).clamp(1, rows - 1);
    let part = |t: &Tensor, start: usize, len: usize| -> Result<Tensor> { Ok(t.narrow(0, start, len)?) };
    let (fitted, held) = (part(features, 0, n)?, part(features, n, rows - n)?);
    let (y, wanted) = (part(targets, 0, n)?, part(targets, n, rows - n)?);
    let held = projected(&held, projection)?;
    // Primal: X = (HᵀH + λI)⁻¹HᵀY, held·X. Dual, the same by the push-through identity: X = (HHᵀ + λI)⁻¹Y, (held·Hᵀ)·X.
    let (matrix, right, left) = if n >= width {
        let (gram, products) = moments(&fitted, &y, projection)?;
        (gram, products.t()?.contiguous()?, held)
    } else {
        let h = projected(&fitted, projection)?;
        (h.matmul(&h.t()?)?, y, held.matmul(&h.t()?)?)
    };
    let host = |t: &Tensor| -> Result<Tensor> { Ok(t.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F64)?) };
    let (matrix, left, wanted) = (host(&matrix)?, host(&left)?, host(&wanted)?);
    let mut best: Option<(f64, f64)> = None;
    for ridge in candidates() {
        let Some(factor) = Cholesky::new(&matrix, ridge)? else { continue };
        let error = (left.matmul(&factor.solve(&right)?)? - &wanted)?.sqr()?.mean_all()?.to_scalar::<f64>()?;
        if error.is_finite() && best.is_none_or(|(least, _)| error < least) {
            best = Some((error, ridge));
        }
    }
    Ok(best.map(|(_, ridge)| ridge))
}

impl RanPac {
    /// Whether this task trains the backbone.
    fn adapts(&self, task: &TaskInfo) -> bool {
        self.config.first_session && task.index == 0
    }

    /// Features (n, dim) and labels of the task's training images in random order, so that the held-out ones are of all classes.
    fn features(&self, ctx: &mut Context) -> Result<(Tensor, Vec<i64>)> {
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        ctx.pass(View::Test, BATCH, |batch| {
            rows.push(self.learner.infer(&batch.images, false)?.cls.detach());
            labels.extend(batch.classes);
            Ok(())
        })?;
        if rows.is_empty() {
            return Err(Error::Protocol("a task has no training image".into()));
        }
        let order = ctx.permutation("ranpac.order", labels.len())?;
        let shuffled = order.to_vec1::<i64>()?.into_iter().map(|i| labels[i as usize]).collect();
        Ok((Tensor::cat(&rows, 0)?.index_select(&order, 0)?, shuffled))
    }

    /// Adds a task's moments; `first` is its first class.
    fn sum_up(&mut self, features: &Tensor, targets: &Tensor, first: usize) -> Result<()> {
        let Some(sums) = &mut self.sums else { return Err(Error::Protocol("ranpac ended a task that had not begun".into())) };
        let (gram, products) = moments(features, targets, &sums.projection)?;
        sums.gram = (&sums.gram + gram)?;
        let classes = sums.products.dim(0)?.max(first + products.dim(0)?);
        let pad = |t: &Tensor, above: usize| t.pad_with_zeros(0, above, classes - above - t.dim(0)?);
        sums.products = (pad(&sums.products, 0)? + pad(&products, first)?)?;
        Ok(())
    }

    /// The classifier with the first of `ridges` that makes G + λI positive definite.
    fn solve(&mut self, ridges: impl Iterator<Item = f64>) -> Result<()> {
        let Some(sums) = &self.sums else { return Ok(()) };
        for ridge in ridges {
            if let Some(factor) = Cholesky::new(&sums.gram, ridge)? {
                let (dtype, device) = self.learner.placement();
                let weights = factor.solve(&sums.products.t()?)?.t()?.contiguous()?;
                self.classifier = Some(weights.to_dtype(dtype)?.to_device(device)?);
                self.ridge = ridge;
                return Ok(());
            }
        }
        Err(Error::Diverged(format!(
            "the {0}×{0} matrix of projected features is not positive definite with ridge = {1}: set a larger ridge",
            self.config.projection, self.config.ridge
        )))
    }
}

impl Method for RanPac {
    fn plan(&self, task: &TaskInfo) -> Plan {
        let plan = self.config.training.plan();
        if self.adapts(task) { plan } else { Plan { epochs: 0, view: View::Test, ..plan } }
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        if self.adapts(task) {
            self.learner.begin_task(task, ctx)?;
        }
        if self.sums.is_none() {
            let (dim, width) = (self.learner.backbone.info().dim, self.config.projection);
            let projection = ctx.draw("ranpac.projection", &[dim, width], Law::Normal)?;
            let zeros = |rows: usize| Tensor::zeros((rows, width), ctx.dtype(), ctx.device());
            self.sums = Some(Sums { gram: zeros(width)?, products: zeros(task.classes.len())?, projection });
        }
        Ok(())
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        if !self.adapts(task) {
            return Ok(Losses(Vec::new()));
        }
        self.learner.learn(&batch.data, batch.epoch, task)
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        if self.adapts(task) {
            self.learner.end_task()?;
        }
        let (features, labels) = self.features(ctx)?;
        let targets = one_hot(&labels, task.first_class, task.classes.len(), &features)?;
        self.sum_up(&features, &targets, task.first_class)?;
        if self.config.ridge > 0.0 {
            return self.solve([self.config.ridge].into_iter());
        }
        let chosen = match &self.sums {
            Some(sums) => choose_ridge(&features, &targets, &sums.projection)?.unwrap_or(self.ridge),
            None => self.ridge,
        };
        self.solve(candidates().filter(|ridge| *ridge >= chosen))?;
        ctx.probe("ranpac.ridge", || Ok(Tensor::new(self.ridge, &candle_core::Device::Cpu)?))
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        let (Some(classifier), Some(sums)) = (&self.classifier, &self.sums) else {
            return Err(Error::Protocol("ranpac predicted before its first task was over".into()));
        };
        let features = self.learner.infer(images, false)?.cls.detach();
        Ok(projected(&features, &sums.projection)?.matmul(&classifier.t()?)?)
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        self.learner.cls_tokens(images)
    }

    fn state(&self) -> Result<State> {
        let mut state = self.learner.state()?;
        if let Some(sums) = &self.sums {
            state.put("projection", Kind::Buffer, &sums.projection)?;
            state.put("gram", Kind::Statistic, &sums.gram)?;
            state.put("products", Kind::Statistic, &sums.products)?;
            state.put("ridge", Kind::Buffer, &Tensor::new(self.ridge, &candle_core::Device::Cpu)?)?;
        }
        if let Some(classifier) = &self.classifier {
            state.put("classifier", Kind::Statistic, classifier)?;
        }
        Ok(state)
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        // The learner knows the first session alone.
        let adapted = if self.config.first_session { &tasks[..tasks.len().min(1)] } else { &[] };
        self.learner.restore(state, adapted, running && tasks.len() == 1 && !adapted.is_empty())?;
        if tasks.is_empty() {
            return Ok(());
        }
        let (dtype, device) = self.learner.placement();
        let tensor = |name: &str| state.tensor(name, dtype, device);
        let sums = Sums { projection: tensor("projection")?, gram: tensor("gram")?, products: tensor("products")? };
        let (shape, width) = ([sums.projection.dim(D::Minus1)?, sums.gram.dim(0)?, sums.products.dim(1)?], self.config.projection);
        if shape != [width; 3] {
            return Err(Error::Protocol(format!("state: projection, gram and products have widths {shape:?}, expected {width}")));
        }
        self.sums = Some(sums);
        self.ridge = state.array("ridge")?.to_f64()?.first().copied().unwrap_or(1.0);
        self.classifier = state.get("classifier").map(|e| e.value.to_dtype(dtype, device)).transpose()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Features (rows, 5), targets (rows, 2) that a ridge can learn but for noise, and a projection to `width`.
    fn problem(rows: usize, width: usize) -> (Tensor, Tensor, Tensor) {
        let draw = |shape: (usize, usize)| Tensor::randn(0f64, 1.0, shape, &Device::Cpu).expect("randn");
        let (features, projection) = (draw((rows, 5)), draw((5, width)));
        let labels = features.narrow(1, 0, 1).expect("column").flatten_all().expect("flat").to_vec1::<f64>().expect("values");
        let labels: Vec<i64> = labels.into_iter().map(|v| 3 + i64::from(v > 0.0)).collect();
        let targets = one_hot(&labels, 3, 2, &features).expect("targets");
        (features, targets, projection)
    }

    fn worst(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).expect("sub").abs().expect("abs").max_all().expect("max").to_scalar::<f64>().expect("scalar")
    }

    #[test]
    fn moments_in_parts_are_the_whole_products() {
        let (features, targets, projection) = problem(ROWS + 100, 7);
        let h = projected(&features, &projection).expect("h");
        let (gram, products) = moments(&features, &targets, &projection).expect("moments");
        assert!(worst(&gram, &h.t().expect("t").matmul(&h).expect("mm")) < 1e-8);
        assert!(worst(&products, &targets.t().expect("t").contiguous().expect("c").matmul(&h).expect("mm")) < 1e-8);
    }

    #[test]
    fn the_ridge_is_the_one_with_the_least_error_on_held_out_images_in_both_forms() {
        for (rows, width) in [(100, 20), (60, 200)] {
            let (features, targets, projection) = problem(rows, width);
            let chosen = choose_ridge(&features, &targets, &projection).expect("choice").expect("one");
            let n = rows * 4 / 5;
            let error = |ridge: f64| {
                let (gram, products) =
                    moments(&features.narrow(0, 0, n).expect("f"), &targets.narrow(0, 0, n).expect("t"), &projection).expect("m");
                let x = Cholesky::new(&gram, ridge).expect("finite").expect("factor").solve(&products.t().expect("t")).expect("x");
                let held = projected(&features.narrow(0, n, rows - n).expect("f"), &projection).expect("h");
                let y = (held.matmul(&x).expect("mm") - targets.narrow(0, n, rows - n).expect("t")).expect("sub");
                y.sqr().expect("sqr").mean_all().expect("mean").to_scalar::<f64>().expect("scalar")
            };
            // Only candidates far from the rounding of the primal form are compared.
            let best = candidates().filter(|r| *r >= 1e-3).min_by(|a, b| error(*a).total_cmp(&error(*b))).expect("best");
            assert!(chosen == best || chosen < 1e-3, "{chosen} {best}");
        }
        let (features, targets, projection) = problem(1, 4);
        assert!(choose_ridge(&features, &targets, &projection).expect("choice").is_none(), "nothing can be held out");
    }
}
