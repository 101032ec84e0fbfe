//! SLDA: linear discriminant analysis on frozen features with one running covariance (Hayes and
//! Kanan, CVPRW 2020). No gradient, one pass.
//!
//! ```sh
//! cilbench run --method slda
//! ```
//!
//! Class means and the covariance Σ shared by all classes are kept in f64 and updated task by task;
//! the classifier is w_c = Λ·μ_c, b_c = −μ_cᵀ·Λ·μ_c / 2 with Λ = ((1−ε)·Σ + ε·I)⁻¹.
//!
//! As in the authors' code the first task's Σ is the oracle-approximating shrinkage estimate (OAS,
//! Chen et al. 2010) towards tr(Σ)/dim·I, which counts where images are fewer than dimensions; `oas
//! = false` takes it as it is. Later images add their scatter. The authors add image after image,
//! each about its class's mean so far; here a task's scatter is about its classes' means, which is
//! the exact pooled covariance and does not depend on the order of images.

use std::cell::OnceCell;

use candle_core::{DType, Device, Tensor};
use cilbench::context::Context;
use cilbench::method::{About, Carry, Held, Method, MethodEntry, OnHost, Setup};
use cilbench::nn;
use cilbench::parts::FrozenFeatures;
use cilbench::scenario::TaskInfo;
use cilbench::state::Kind;
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<Slda>() }

/// Hyper-parameters of SLDA.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Shrinkage of the covariance towards the identity (ε), in (0, 1].
    shrinkage: f64,
    /// Whether the first task's covariance is shrunk by as much as its images and dimensions ask
    /// for (OAS).
    oas: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { shrinkage: 1e-4, oas: true }
    }
}

/// The classifier that the statistics give.
struct Classifier {
    /// (classes, dim).
    weight: Tensor,
    /// (classes).
    bias: Tensor,
}

/// What is carried.
struct Statistics {
    /// (classes, dim), f64.
    means: Held<OnHost>,
    /// Images of each class.
    counts: Held<Vec<i64>>,
    /// Σ over classes of the scatter about the class's mean, (dim, dim), f64.
    scatter: Held<OnHost>,
}

/// SLDA.
pub struct Slda {
    config: Config,
    frozen: FrozenFeatures,
    statistics: Option<Statistics>,
    /// Follows from the statistics; empty where they have changed.
    classifier: OnceCell<Classifier>,
}

impl Method for Slda {
    type Config = Config;
    cilbench::model!(frozen: FrozenFeatures);
    const ABOUT: About = About {
        name: "slda",
        version: "3",
        summary: "linear discriminant analysis on frozen features with one running covariance; no training",
        paper: r"@inproceedings{hayes2020lifelong,
  title={Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis},
  author={Hayes, Tyler L. and Kanan, Christopher},
  booktitle={CVPR Workshops}, year={2020}
}",
        trains: "nothing",
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        if !(config.shrinkage > 0.0 && config.shrinkage <= 1.0) {
            return Err(Error::usage(format!(
                "shrinkage = {}: must be above 0 and at most 1",
                config.shrinkage
            )));
        }
        let frozen = FrozenFeatures::new(setup);
        Ok(Self { config, frozen, statistics: None, classifier: OnceCell::new() })
    }

    fn settle(&mut self, _: &TaskInfo, carry: &mut Carry) -> Result<()> {
        if self.statistics.is_none() {
            self.statistics = Some(Statistics {
                means: carry.held("means", Kind::Statistic)?,
                counts: carry.held("counts", Kind::Buffer)?,
                scatter: carry.held("scatter", Kind::Statistic)?,
            });
        }
        Ok(())
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let (features, labels) = self.frozen.of_task(ctx)?;
        let mut sums = self.sums()?;
        for class in &task.classes {
            sums.take_in(*class, &self.frozen.rows(&features, &labels, *class)?)?;
        }
        if self.config.oas && task.index == 0 {
            let images = sums.images();
            sums.scatter = Some((oas(&(sums.scatter()? / images)?, images)? * images)?);
        }
        self.keep(sums)?;
        self.classifier().map(drop)
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        let Classifier { weight, bias } = self.classifier()?;
        Ok(self.frozen.of(images)?.matmul(&weight.t()?)?.broadcast_add(bias)?)
    }
}

/// The oracle-approximating shrinkage estimate of a covariance (dim, dim) taken from `images`
/// centred rows: (1−ρ)·S + ρ·tr(S)/dim·I with ρ = min(1, (a + m²) / ((n+1)·(a − m²/dim))), a the
/// mean of S's squared entries and m = tr(S)/dim.
fn oas(covariance: &Tensor, images: f64) -> Result<Tensor> {
    let dim = covariance.dim(0)?;
    let identity = Tensor::eye(dim, DType::F64, &Device::Cpu)?;
    let mean = (covariance * &identity)?.sum_all()?.to_scalar::<f64>()? / dim as f64;
    let squares = covariance.sqr()?.mean_all()?.to_scalar::<f64>()?;
    let spread = (images + 1.0) * (squares - mean * mean / dim as f64);
    let rho = if spread > 0.0 { ((squares + mean * mean) / spread).min(1.0) } else { 1.0 };
    Ok(((covariance * (1.0 - rho))? + (identity * (rho * mean))?)?)
}

/// The statistics while a task is taken in.
#[derive(Default)]
struct Sums {
    means: Vec<Tensor>,
    counts: Vec<i64>,
    scatter: Option<Tensor>,
}

impl Sums {
    fn images(&self) -> f64 {
        self.counts.iter().sum::<i64>().max(1) as f64
    }

    fn scatter(&self) -> Result<&Tensor> {
        self.scatter
            .as_ref()
            .ok_or_else(|| Error::Protocol("slda was used before its first task was over".into()))
    }

    /// Takes a class's features (n, dim) in; a class seen before (in another domain) is merged.
    fn take_in(&mut self, class: usize, rows: &Tensor) -> Result<()> {
        let (n, dim) = rows.dims2()?;
        let rows = rows.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let mean = rows.mean(0)?;
        let centred = rows.broadcast_sub(&mean)?;
        let mut scatter = centred.t()?.contiguous()?.matmul(&centred)?;
        if class < self.means.len() {
            let (old, m) = (self.counts[class] as f64, n as f64);
            let shift = (&mean - &self.means[class])?.reshape((1, dim))?;
            scatter =
                (scatter + (shift.t()?.contiguous()?.matmul(&shift)? * (old * m / (old + m)))?)?;
            self.means[class] = (((&self.means[class] * old)? + (mean * m)?)? / (old + m))?;
            self.counts[class] += n as i64;
        } else {
            self.means.push(mean);
            self.counts.push(n as i64);
        }
        self.scatter = Some(match &self.scatter {
            Some(sum) => (sum + scatter)?,
            None => scatter,
        });
        Ok(())
    }
}

impl Slda {
    /// What is carried so far.
    fn sums(&self) -> Result<Sums> {
        let Some(carried) = &self.statistics else { return Ok(Sums::default()) };
        let Some(means) = carried.means.find() else { return Ok(Sums::default()) };
        let means =
            (0..means.0.dim(0)?).map(|class| Ok(means.0.get(class)?)).collect::<Result<_>>()?;
        let scatter = Some(carried.scatter.get()?.0.clone());
        Ok(Sums { means, counts: carried.counts.get()?.as_ref().clone(), scatter })
    }

    /// Carries the sums on.
    fn keep(&mut self, sums: Sums) -> Result<()> {
        let undeclared = || Error::Protocol("slda's statistics were never declared".into());
        let carried = self.statistics.as_ref().ok_or_else(undeclared)?;
        carried.means.set(OnHost(Tensor::stack(&sums.means, 0)?));
        carried.scatter.set(OnHost(sums.scatter()?.clone()));
        carried.counts.set(sums.counts);
        self.classifier = OnceCell::new();
        Ok(())
    }

    /// The classifier of the statistics: W = Σ⁻¹·μ, b = −½·diag(μᵀ·W).
    fn classifier(&self) -> Result<&Classifier> {
        if let Some(classifier) = self.classifier.get() {
            return Ok(classifier);
        }
        let sums = self.sums()?;
        let (scatter, epsilon) = (sums.scatter()?, self.config.shrinkage);
        let identity = Tensor::eye(scatter.dim(0)?, DType::F64, &Device::Cpu)?;
        let covariance = ((scatter * ((1.0 - epsilon) / sums.images()))? + (identity * epsilon)?)?;
        let means = Tensor::stack(&sums.means, 0)?;
        let weight = nn::solve_symmetric(&covariance, &means.t()?)?.t()?.contiguous()?;
        let bias = ((&weight * &means)?.sum(1)? * -0.5)?;
        let placement = self.frozen.placement();
        let classifier =
            Classifier { weight: placement.place(&weight)?, bias: placement.place(&bias)? };
        Ok(self.classifier.get_or_init(|| classifier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oas_keeps_the_trace_and_shrinks_less_with_more_images() {
        let s = Tensor::new(&[[4.0f64, 1.0], [1.0, 2.0]], &Device::Cpu).expect("covariance");
        let off = |images: f64| {
            let shrunk = oas(&s, images).expect("oas").to_vec2::<f64>().expect("values");
            assert!((shrunk[0][0] + shrunk[1][1] - 6.0).abs() < 1e-12);
            shrunk[0][1]
        };
        // a = 22/4, m = 3: ρ = (5.5 + 9) / ((n+1)·(5.5 − 4.5)).
        assert!((off(28.0) - (1.0 - 14.5 / 29.0)).abs() < 1e-12, "{}", off(28.0));
        assert!(off(3.0).abs() < 1e-12 && off(1e6) > 0.9999);
    }
}
