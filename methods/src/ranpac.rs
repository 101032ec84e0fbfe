//! RanPAC: ridge regression on randomly projected features of a frozen backbone (McDonnell et al.,
//! NeurIPS 2023). No gradient, one pass.
//!
//! ```sh
//! cilbench run --method ranpac
//! ```
//!
//! h = relu(f·W) for features f (dim) and a fixed W (dim, M) of standard normals. G = Σ hᵀh (M, M)
//! and C = Σ yᵀh (classes, M) are summed up task by task; the classifier is C·(G + λI)⁻¹. λ is
//! chosen at each task from 1e-8 … 1e8 by the squared error on a fifth of its training images,
//! fitted to the others; where those are fewer than M, in its dual form, which gives the same
//! predictions. If G + λI is not positive definite in floating point, the next larger candidate
//! that makes it so is taken.
//!
//! With `first_session = true` the backbone is adapted to the first task by a LoRA pair before it
//! is frozen (the paper's phase 1, which uses other adapters). Without it this is the method
//! without the paper's phase 1, which its reported numbers have.
//!
//! With M = 10000, the paper's, a run takes 2 GB at its peak and on two cores about 15 s a task
//! beside the features; with `--set projection=2000` 1 s and 0.2 GB.

use candle_core::{DType, Device, Tensor};
use cilbench::context::{Context, Law};
use cilbench::data::View;
use cilbench::method::{
    About, Batch, Carry, Fresh, Held, Losses, Method, MethodEntry, Model, Plan, Setup, Trial,
    TrialBackbone, Value,
};
use cilbench::nn::Cholesky;
use cilbench::parts::{Classes, Learner, LearnerConfig, LoraConfig, Trainable, Training, Want};
use cilbench::scenario::TaskInfo;
use cilbench::state::Kind;
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
    /// Whether the backbone is adapted to the first task by a LoRA pair; the settings of training
    /// and rank only count then.
    first_session: bool,
    #[serde(flatten)]
    training: Training,
    #[serde(flatten)]
    lora: LoraConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            projection: 10_000,
            ridge: 0.0,
            first_session: false,
            training: Training::default(),
            lora: LoraConfig::default(),
        }
    }
}

/// What is summed up over all tasks.
struct Sums {
    /// W (dim, M).
    projection: Value,
    /// G (M, M).
    gram: Value,
    /// C (classes, M); it grows with the classes.
    products: Held<Tensor>,
    /// The λ of the last task; 1 before the first.
    ridge: Held<f64>,
}

/// RanPAC.
pub struct RanPac {
    config: Config,
    /// The backbone, and the pair and head of the first session.
    learner: Learner,
    sums: Option<Sums>,
    /// (classes, M).
    classifier: Option<Held<Tensor>>,
}

impl Method for RanPac {
    type Config = Config;
    cilbench::model!(learner: Learner);
    const ABOUT: About = About {
        name: "ranpac",
        version: "3",
        summary: "ridge regression on random projections of frozen features; no training",
        paper: r"@inproceedings{mcdonnell2023ranpac,
  title={{RanPAC}: Random Projections and Pre-trained Models for Continual Learning},
  author={McDonnell, Mark D. and Gong, Dong and Parvaneh, Amin and Abbasnejad, Ehsan and van den Hengel, Anton},
  booktitle={NeurIPS}, year={2023}
}",
        trains: "nothing; with first_session the first task's LoRA pair and head",
        presets: include_str!("../presets/ranpac.toml"),
        trial: Trial { settings: "projection = 32", backbone: TrialBackbone::Vit },
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        if config.projection == 0 {
            return Err(Error::usage(
                "projection = 0: the random projection needs a width, 10000 in the paper",
            ));
        }
        if !(config.ridge.is_finite() && config.ridge >= 0.0) {
            return Err(Error::usage(format!(
                "ridge = {}: must be positive, or 0 to choose it on held-out images",
                config.ridge
            )));
        }
        let trainable = if config.first_session { Trainable::Lora } else { Trainable::Head };
        let first_session = LearnerConfig {
            training: config.training.clone(),
            trainable,
            lora: config.lora.clone(),
        };
        let learner = Learner::new(Self::ABOUT.name, first_session, Classes::Current, setup)?;
        Ok(Self { config, learner, sums: None, classifier: None })
    }

    fn plan(&self, task: &TaskInfo) -> Result<Plan> {
        let plan = self.config.training.plan();
        Ok(if self.adapts(task) { plan } else { Plan { epochs: 0, view: View::Test, ..plan } })
    }

    fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        if self.adapts(task) {
            self.learner.grow(task, carry)?;
        }
        if self.sums.is_none() {
            let (dim, width) = (self.learner.backbone.info().dim, self.config.projection);
            let draw = Fresh::DrawAs("ranpac.projection", Law::Normal);
            let placement = carry.placement();
            let products =
                Tensor::zeros((task.classes.len(), width), placement.dtype, &placement.device)?;
            self.sums = Some(Sums {
                projection: carry.value("projection", Kind::Buffer, &[dim, width], draw)?,
                gram: carry.value("gram", Kind::Statistic, &[width, width], Fresh::Zeros)?,
                products: carry.held_from("products", Kind::Statistic, products)?,
                ridge: carry.held_from("ridge", Kind::Buffer, 1.0)?,
            });
        }
        Ok(())
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        if self.adapts(task) { self.learner.learn(batch, task) } else { Ok(Losses::default()) }
    }

    fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        if self.classifier.is_none() {
            self.classifier = Some(carry.held("classifier", Kind::Statistic)?);
        }
        if self.adapts(task) { self.learner.settle(task, carry) } else { Ok(()) }
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let (features, labels) = self.features(ctx)?;
        let targets = one_hot(&labels, task.first_class, task.classes.len(), &features)?;
        self.sum_up(&features, &targets, task.first_class)?;
        if self.config.ridge > 0.0 {
            return self.solve([self.config.ridge].into_iter());
        }
        let sums = self.sums()?;
        let chosen = choose_ridge(&features, &targets, &*sums.projection.get()?)?;
        let chosen = chosen.map_or_else(|| sums.ridge.get().map(|ridge| *ridge), Ok)?;
        self.solve(candidates().filter(|ridge| *ridge >= chosen))?;
        let ridge = *self.sums()?.ridge.get()?;
        ctx.probe("ranpac.ridge", || Ok(Tensor::new(ridge, &Device::Cpu)?))
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        let early = || Error::Protocol("ranpac predicted before its first task was over".into());
        let classifier = self.classifier.as_ref().and_then(Held::find).ok_or_else(early)?;
        let features = self.learner.infer(images, Want::Features)?.cls.detach();
        Ok(projected(&features, &*self.sums()?.projection.get()?)?.matmul(&classifier.t()?)?)
    }

    /// The model is no linear head on a backbone.
    fn export(&self) -> Result<cilbench::method::Exported> {
        ().export()
    }
}

/// relu(f·W), (n, M), for features (n, dim).
fn projected(features: &Tensor, projection: &Tensor) -> Result<Tensor> {
    Ok(features.matmul(projection)?.relu()?)
}

/// Σ hᵀh (M, M) and Σ yᵀh (columns, M) over features (n, dim) and targets (n, columns), a part of
/// the rows at a time.
fn moments(features: &Tensor, targets: &Tensor, projection: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, width) = (features.dim(0)?, projection.dim(1)?);
    let mut gram = Tensor::zeros((width, width), features.dtype(), features.device())?;
    let mut products =
        Tensor::zeros((targets.dim(1)?, width), features.dtype(), features.device())?;
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
    labels
        .iter()
        .enumerate()
        .for_each(|(i, label)| values[i * columns + *label as usize - first] = 1.0);
    Ok(Tensor::from_vec(values, (labels.len(), columns), like.device())?.to_dtype(like.dtype())?)
}

fn candidates() -> impl Iterator<Item = f64> {
    EXPONENTS.map(|e| 10f64.powi(e))
}

/// The λ of the candidates with the least squared error on the last fifth of the rows, fitted to
/// the others; of equal ones the smallest. None if no candidate can be fitted, or if there are not
/// two images.
fn choose_ridge(features: &Tensor, targets: &Tensor, projection: &Tensor) -> Result<Option<f64>> {
    let (rows, width) = (features.dim(0)?, projection.dim(1)?);
    if rows < 2 {
        return Ok(None);
    }
    let n = (rows * 4 / 5).clamp(1, rows - 1);
    let part =
        |t: &Tensor, start: usize, len: usize| -> Result<Tensor> { Ok(t.narrow(0, start, len)?) };
    let (fitted, held) = (part(features, 0, n)?, part(features, n, rows - n)?);
    let (y, wanted) = (part(targets, 0, n)?, part(targets, n, rows - n)?);
    let held = projected(&held, projection)?;
    // Primal: X = (HᵀH + λI)⁻¹HᵀY, held·X. Dual, the same by the push-through identity: X = (HHᵀ +
    // λI)⁻¹Y, (held·Hᵀ)·X.
    let (matrix, right, left) = if n >= width {
        let (gram, products) = moments(&fitted, &y, projection)?;
        (gram, products.t()?.contiguous()?, held)
    } else {
        let h = projected(&fitted, projection)?;
        (h.matmul(&h.t()?)?, y, held.matmul(&h.t()?)?)
    };
    let host = |t: &Tensor| -> Result<Tensor> {
        Ok(t.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F64)?)
    };
    let (matrix, left, wanted) = (host(&matrix)?, host(&left)?, host(&wanted)?);
    let mut best: Option<(f64, f64)> = None;
    for ridge in candidates() {
        let Some(factor) = Cholesky::new(&matrix, ridge)? else { continue };
        let error = (left.matmul(&factor.solve(&right)?)? - &wanted)?
            .sqr()?
            .mean_all()?
            .to_scalar::<f64>()?;
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

    /// Features (n, dim) and labels of the task's training images in random order, so that the
    /// held-out ones are of all classes.
    fn features(&self, ctx: &mut Context) -> Result<(Tensor, Vec<i64>)> {
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        ctx.pass(View::Test, BATCH, |batch| {
            rows.push(self.learner.infer(&batch.images, Want::Features)?.cls.detach());
            labels.extend(batch.host_labels);
            Ok(())
        })?;
        if rows.is_empty() {
            return Err(Error::Protocol("a task has no training image".into()));
        }
        let order = ctx.permutation("ranpac.order", labels.len())?;
        let shuffled = order.to_vec1::<i64>()?.into_iter().map(|i| labels[i as usize]).collect();
        Ok((Tensor::cat(&rows, 0)?.index_select(&order, 0)?, shuffled))
    }

    fn sums(&self) -> Result<&Sums> {
        self.sums
            .as_ref()
            .ok_or_else(|| Error::Protocol("ranpac was used before its first task began".into()))
    }

    /// Adds a task's moments; `first` is its first class.
    fn sum_up(&mut self, features: &Tensor, targets: &Tensor, first: usize) -> Result<()> {
        let sums = self.sums()?;
        let (gram, products) = moments(features, targets, &*sums.projection.get()?)?;
        sums.gram.replace(&(&*sums.gram.get()? + gram)?)?;
        let old = sums.products.get()?;
        let classes = old.dim(0)?.max(first + products.dim(0)?);
        let pad =
            |t: &Tensor, above: usize| t.pad_with_zeros(0, above, classes - above - t.dim(0)?);
        sums.products.replace(&(pad(&old, 0)? + pad(&products, first)?)?)
    }

    /// The classifier with the first of `ridges` that makes G + λI positive definite.
    fn solve(&mut self, ridges: impl Iterator<Item = f64>) -> Result<()> {
        let sums = self.sums()?;
        for ridge in ridges {
            if let Some(factor) = Cholesky::new(&*sums.gram.get()?, ridge)? {
                let weights = factor.solve(&sums.products.get()?.t()?)?.t()?.contiguous()?;
                let weights = self.learner.placement().place(&weights)?;
                self.classifier.iter().try_for_each(|held| held.replace(&weights))?;
                sums.ridge.set(ridge);
                return Ok(());
            }
        }
        Err(Error::Diverged(format!(
            "the {0}×{0} matrix of projected features is not positive definite with ridge = {1}: set a larger ridge",
            self.config.projection, self.config.ridge
        )))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Features (rows, 5), targets (rows, 2) that a ridge can learn but for noise, and a projection
    /// to `width`.
    fn problem(rows: usize, width: usize) -> (Tensor, Tensor, Tensor) {
        let draw =
            |shape: (usize, usize)| Tensor::randn(0f64, 1.0, shape, &Device::Cpu).expect("randn");
        let (features, projection) = (draw((rows, 5)), draw((5, width)));
        let labels = features
            .narrow(1, 0, 1)
            .expect("column")
            .flatten_all()
            .expect("flat")
            .to_vec1::<f64>()
            .expect("values");
        let labels: Vec<i64> = labels.into_iter().map(|v| 3 + i64::from(v > 0.0)).collect();
        let targets = one_hot(&labels, 3, 2, &features).expect("targets");
        (features, targets, projection)
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
    fn moments_in_parts_are_the_whole_products() {
        let (features, targets, projection) = problem(ROWS + 100, 7);
        let h = projected(&features, &projection).expect("h");
        let (gram, products) = moments(&features, &targets, &projection).expect("moments");
        assert!(worst(&gram, &h.t().expect("t").matmul(&h).expect("mm")) < 1e-8);
        assert!(
            worst(
                &products,
                &targets.t().expect("t").contiguous().expect("c").matmul(&h).expect("mm")
            ) < 1e-8
        );
    }

    #[test]
    fn the_ridge_is_the_one_with_the_least_error_on_held_out_images_in_both_forms() {
        for (rows, width) in [(100, 20), (60, 200)] {
            let (features, targets, projection) = problem(rows, width);
            let chosen =
                choose_ridge(&features, &targets, &projection).expect("choice").expect("one");
            let n = rows * 4 / 5;
            let error = |ridge: f64| {
                let (gram, products) = moments(
                    &features.narrow(0, 0, n).expect("f"),
                    &targets.narrow(0, 0, n).expect("t"),
                    &projection,
                )
                .expect("m");
                let x = Cholesky::new(&gram, ridge)
                    .expect("finite")
                    .expect("factor")
                    .solve(&products.t().expect("t"))
                    .expect("x");
                let held = projected(&features.narrow(0, n, rows - n).expect("f"), &projection)
                    .expect("h");
                let y = (held.matmul(&x).expect("mm") - targets.narrow(0, n, rows - n).expect("t"))
                    .expect("sub");
                y.sqr().expect("sqr").mean_all().expect("mean").to_scalar::<f64>().expect("scalar")
            };
            // Only candidates far from the rounding of the primal form are compared.
            let best = candidates()
                .filter(|r| *r >= 1e-3)
                .min_by(|a, b| error(*a).total_cmp(&error(*b)))
                .expect("best");
            assert!(chosen == best || chosen < 1e-3, "{chosen} {best}");
        }
        let (features, targets, projection) = problem(1, 4);
        assert!(
            choose_ridge(&features, &targets, &projection).expect("choice").is_none(),
            "nothing can be held out"
        );
    }
}
