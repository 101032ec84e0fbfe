//! P&M: train with perturbation, infer after merging (Qiu et al. 2025, arXiv 2505.22389), with
//! LoRA.
//!
//! ```sh
//! cilbench run --method pm
//! ```
//!
//! Task t trains a pair on top of the merged weights θ̂_{t−1} to θ*_t = θ̂_{t−1} + Δ. While it
//! trains, Δ is scaled by 1, 1+ε or 1−ε, each in a third of the steps, which keeps the loss flat
//! along Δ. Then only a part of it is kept, θ̂_t = θ̂_{t−1} + α·Δ, with the α that adds least to
//! the losses of all tasks to second order: α = −Σ_{i≤t} (θ̂_{t−1} − θ*_i)ᵀF_iΔ / Σ_{i≤t} ΔᵀF_iΔ,
//! cut to \[0, 1\], F_i being the diagonal empirical Fisher information of the adapted projections'
//! weights at θ*_i under the task's own head. The sums need ΣF_i and ΣF_iθ*_i only, so what is
//! carried does not grow with the tasks. Heads are not merged. In the first task α = 1.
//!
//! The paper leaves two points open, which are options here: whether one scale is drawn a step or
//! one for each pair (`perturb_each_site`, default one a step), and whether the Fisher information
//! squares the gradient of every image or of a batch's mean (`fisher_batch_size`, default every
//! image).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use candle_core::{DType, Device, Tensor, Var};
use cilbench::backbone::{LowRank, Pair, Pass, Site};
use cilbench::context::{Context, Law};
use cilbench::data::View;
use cilbench::method::{
    About, Batch, Carry, Fresh, Held, Loss, Losses, Method, MethodEntry, Model, Setup, Value,
};
use cilbench::nn;
use cilbench::parts::{Learner, LoraConfig, Training};
use cilbench::scenario::TaskInfo;
use cilbench::state::Kind;
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<PerturbAndMerge>() }

/// Images a pass over the task, for the Fisher information.
const BATCH: usize = 64;

/// Hyper-parameters of P&M.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    training: Training,
    #[serde(flatten)]
    lora: LoraConfig,
    /// Size of the perturbation of the task's weight change (ε), from 0 to 1; 0 trains without.
    perturbation: f64,
    /// Whether each pair has a perturbation of its own in a step, instead of one for all.
    perturb_each_site: bool,
    /// Training images, drawn at random, of which the Fisher information is taken; all if there are
    /// fewer.
    fisher_images: usize,
    /// Images whose mean gradient is squared for the Fisher information; 1 squares every image's.
    fisher_batch_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            training: Training::default(),
            lora: LoraConfig::default(),
            perturbation: 0.5,
            perturb_each_site: false,
            fisher_images: 256,
            fisher_batch_size: 1,
        }
    }
}

/// What is summed up over tasks for the weights of one site, both (outputs, inputs).
struct Sums {
    /// Σ F_i.
    fisher: Value,
    /// Σ F_i·(θ*_i − θ_0).
    target: Value,
}

/// P&M.
pub struct PerturbAndMerge {
    config: Config,
    learner: Learner,
    sums: BTreeMap<Site, Sums>,
    /// α of the tasks so far.
    alphas: Option<Held<Vec<f64>>>,
}

impl Method for PerturbAndMerge {
    type Config = Config;
    cilbench::model!(learner: Learner);
    const ABOUT: About = About {
        name: "pm",
        version: "1",
        summary: "P&M: LoRA trained under perturbation, merged with the past by a Fisher-optimal factor",
        paper: r"@article{qiu2025train,
  title={Train with Perturbation, Infer after Merging: A Two-Stage Framework for Continual Learning},
  author={Qiu, Haomiao and Zhang, Miao and Qiao, Ziyue and Nie, Liqiang},
  journal={arXiv:2505.22389}, year={2025}
}",
        trains: "the current task's LoRA pair and head",
        presets: include_str!("../presets/pm.toml"),
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        if !(0.0..=1.0).contains(&config.perturbation) {
            return Err(Error::usage(format!(
                "perturbation = {}: must be from 0 to 1",
                config.perturbation
            )));
        }
        for (key, value) in [
            ("fisher_images", config.fisher_images),
            ("fisher_batch_size", config.fisher_batch_size),
        ] {
            if value == 0 {
                return Err(Error::usage(format!(
                    "{key} = 0: the Fisher information needs at least one image"
                )));
            }
        }
        let learner =
            Learner::lora(Self::ABOUT.name, config.training.clone(), config.lora.clone(), setup)?;
        Ok(Self { config, learner, sums: BTreeMap::new(), alphas: None })
    }

    /// Declares the sums over tasks, which [`Method::finish`] brings up to date.
    fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.learner.grow(task, carry)?;
        for (site, pair) in self.learner.pairs.running().iter() {
            if let Entry::Vacant(new) = self.sums.entry(site) {
                let shape = [pair.b.dim(0)?, pair.a.dim(1)?];
                let mut sum = |name: &str| {
                    carry.value(format!("{name}.{site}"), Kind::Statistic, &shape, Fresh::Zeros)
                };
                new.insert(Sums { fisher: sum("fisher")?, target: sum("fisher_target")? });
            }
        }
        if self.alphas.is_none() {
            self.alphas = Some(carry.held_from("alpha", Kind::Buffer, Vec::new())?);
        }
        Ok(())
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, ctx: &mut Context) -> Result<Losses> {
        let paths = self.perturbed(ctx)?;
        let pass = Pass { low_rank: Some(&paths), ..Pass::default() };
        let features = self.learner.backbone.forward(&batch.data.images, pass)?.cls;
        let ce = nn::cross_entropy(
            &self.learner.heads.current(&features)?,
            &task.within(&batch.data.labels)?,
        )?;
        self.learner.step(Loss::new("ce", ce), batch.epoch)
    }

    /// Merges before the pair is folded: θ̂_t = θ̂_{t−1} + α·Δ.
    fn finish(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let changes = self.learner.pairs.running_products()?;
        let fisher = self.fisher(&changes, task, ctx)?;
        let alpha = merge(&self.sums, &changes, &fisher, &self.learner.pairs.folded_products()?)?;
        ctx.probe("pm.alpha", || Ok(Tensor::new(alpha, &Device::Cpu)?))?;
        if let Some(alphas) = &self.alphas {
            alphas.set([alphas.get()?.as_slice(), &[alpha]].concat());
        }
        self.learner.pairs.scale_running(alpha)
    }
}

/// The scale of a third: 1, 1 + ε, 1 − ε.
fn scale(third: f64, epsilon: f64) -> f64 {
    match third as usize {
        0 => 1.0,
        1 => 1.0 + epsilon,
        _ => 1.0 - epsilon,
    }
}

impl PerturbAndMerge {
    /// The running pair, perturbed.
    fn perturbed(&self, ctx: &mut Context) -> Result<LowRank> {
        let running = self.learner.pairs.running();
        let mut paths = LowRank::new();
        let sites = running.iter().count();
        let drawn = if self.config.perturb_each_site { sites } else { 1 };
        let thirds = ctx.numbers("pm.perturbation", drawn, Law::Uniform { low: 0.0, high: 3.0 })?;
        for (i, (site, pair)) in running.iter().enumerate() {
            let factor = scale(thirds[i.min(drawn - 1)], self.config.perturbation);
            paths.insert(site, Pair { a: pair.a.clone(), b: (&pair.b * factor)? });
        }
        Ok(paths)
    }

    /// Training images for the Fisher information, through the test transform, in groups of
    /// `fisher_batch_size`: images and labels.
    fn groups(&self, task: &TaskInfo, ctx: &mut Context) -> Result<Vec<(Tensor, Tensor)>> {
        let order = ctx.order("pm.fisher", task.train_images)?;
        let mut wanted = vec![false; task.train_images];
        order.into_iter().take(self.config.fisher_images).for_each(|i| wanted[i] = true);
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        ctx.pass(View::Test, BATCH, |batch| {
            for (row, _) in batch.positions.iter().enumerate().filter(|(_, p)| wanted[**p]) {
                images.push(batch.images.get(row)?);
                labels.push(batch.host_labels[row]);
            }
            Ok(())
        })?;
        let size = self.config.fisher_batch_size;
        let groups = images.chunks(size).zip(labels.chunks(size));
        groups
            .map(|(images, labels)| {
                Ok((Tensor::stack(images, 0)?, Tensor::new(labels, ctx.device())?))
            })
            .collect()
    }

    /// The diagonal Fisher information (outputs, inputs) of each site's weights at the trained,
    /// unmerged model.
    fn fisher(
        &self,
        changes: &[(Site, Tensor)],
        task: &TaskInfo,
        ctx: &mut Context,
    ) -> Result<Vec<Tensor>> {
        // A path x·Iᵀ·Δᵀ stands for the pair; the gradient of Δ is that of the weights.
        let mut paths = LowRank::new();
        let vars = changes
            .iter()
            .map(|(_, change)| Ok(Var::from_tensor(change)?))
            .collect::<Result<Vec<_>>>()?;
        for ((site, change), var) in changes.iter().zip(&vars) {
            let a = Tensor::eye(change.dim(1)?, change.dtype(), change.device())?;
            paths.insert(*site, Pair { a, b: var.as_tensor().clone() });
        }
        let mut sums =
            changes.iter().map(|(_, c)| Ok(c.zeros_like()?)).collect::<Result<Vec<_>>>()?;
        let groups = self.groups(task, ctx)?;
        let total: usize = groups.iter().map(|(_, labels)| labels.elem_count()).sum();
        for (images, labels) in &groups {
            let features = self
                .learner
                .backbone
                .forward(images, Pass { low_rank: Some(&paths), ..Pass::default() })?
                .cls;
            let ce =
                nn::cross_entropy(&self.learner.heads.current(&features)?, &task.within(labels)?)?;
            let grads = ce.backward()?;
            let weight = labels.elem_count() as f64 / total.max(1) as f64;
            for (sum, var) in sums.iter_mut().zip(&vars) {
                if let Some(gradient) = grads.get(var) {
                    *sum = (&*sum + (gradient.detach().sqr()? * weight)?)?;
                }
            }
        }
        Ok(sums)
    }
}

/// Takes a task's Fisher information in and gives α; `merged` is θ̂_{t−1} − θ_0, none before the
/// first task.
fn merge(
    all: &BTreeMap<Site, Sums>,
    changes: &[(Site, Tensor)],
    fisher: &[Tensor],
    merged: &[(Site, Tensor)],
) -> Result<f64> {
    let dot = |a: &Tensor, b: &Tensor| -> Result<f64> {
        Ok((a.to_dtype(DType::F64)? * b.to_dtype(DType::F64)?)?.sum_all()?.to_scalar::<f64>()?)
    };
    let (mut numerator, mut denominator) = (0.0, 0.0);
    for (i, ((site, change), fisher)) in changes.iter().zip(fisher).enumerate() {
        let before = match merged.get(i) {
            Some((_, before)) => before.clone(),
            None => change.zeros_like()?,
        };
        let sums = all
            .get(site)
            .ok_or_else(|| Error::Protocol(format!("the sums of {site} were never declared")))?;
        let target = (&*sums.target.get()? + (fisher * (&before + change)?)?)?; //  Σ F_i·(θ*_i − θ_0)
        let fisher = (&*sums.fisher.get()? + fisher)?; //                           Σ F_i
        numerator += dot(&(&target - (&fisher * before)?)?, change)?;
        denominator += dot(&fisher, &change.sqr()?)?;
        sums.fisher.replace(&fisher)?;
        sums.target.replace(&target)?;
    }
    if !(numerator.is_finite() && denominator.is_finite()) {
        return Err(Error::Diverged(
            "P&M: the Fisher information is not finite: lower the learning rate".into(),
        ));
    }
    // Without curvature along Δ every α is as good; the task's own solution is taken.
    Ok(if denominator > 0.0 { (numerator / denominator).clamp(0.0, 1.0) } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use cilbench::backbone::Projection;
    use cilbench::context::{Carried, NoHost, Placement};

    use super::*;

    #[test]
    fn alpha_is_the_minimum_of_the_tasks_summed_second_order_losses() {
        let sites = [
            Site { block: 0, projection: Projection::K },
            Site { block: 1, projection: Projection::V },
        ];
        let draw = || Tensor::randn(0f64, 1.0, (3, 4), &Device::Cpu).expect("randn");
        let value = |t: Tensor| t.sum_all().expect("sum").to_scalar::<f64>().expect("scalar");
        let (carried, placement, mut host) = (Carried::new(), Placement::cpu(DType::F64), NoHost);
        let mut carry = Carry::fresh(&mut host, &carried, &placement);
        let mut sum = |name: String| {
            carry.value(name, Kind::Statistic, &[3, 4], Fresh::Zeros).expect("declared")
        };
        let all = BTreeMap::from(sites.map(|site| {
            (
                site,
                Sums {
                    fisher: sum(format!("fisher.{site}")),
                    target: sum(format!("fisher_target.{site}")),
                },
            )
        }));
        let (mut merged, mut past) = (Vec::<(Site, Tensor)>::new(), Vec::new());
        for task in 0..4 {
            let changes: Vec<(Site, Tensor)> = sites.iter().map(|s| (*s, draw())).collect();
            let fisher: Vec<Tensor> = sites.iter().map(|_| draw().sqr().expect("sqr")).collect();
            let before: Vec<Tensor> = (0..2)
                .map(|i| {
                    merged.get(i).map_or_else(
                        || draw().zeros_like().expect("zeros"),
                        |(_, m): &(Site, Tensor)| m.clone(),
                    )
                })
                .collect();
            let optima: Vec<Tensor> =
                (0..2).map(|i| (&before[i] + &changes[i].1).expect("add")).collect();
            past.push((fisher.clone(), optima));
            let alpha = merge(&all, &changes, &fisher, &merged).expect("alpha");
            let loss = |alpha: f64| -> f64 {
                let of = |(fisher, optima): &(Vec<Tensor>, Vec<Tensor>), i: usize| {
                    let at = (&before[i] + (&changes[i].1 * alpha).expect("mul")).expect("add");
                    value(
                        (&fisher[i] * (at - &optima[i]).expect("sub").sqr().expect("sqr"))
                            .expect("mul"),
                    )
                };
                past.iter().map(|p| of(p, 0) + of(p, 1)).sum()
            };
            let best = (0..=10_000)
                .map(|i| f64::from(i) / 1e4)
                .min_by(|a, b| loss(*a).total_cmp(&loss(*b)))
                .expect("best");
            assert!((alpha - best).abs() <= 1e-4, "task {task}: {alpha} {best}");
            assert!(task > 0 || (alpha - 1.0).abs() < 1e-12, "the first task is kept whole");
            merged = (0..2)
                .map(|i| {
                    (sites[i], (&before[i] + (&changes[i].1 * alpha).expect("mul")).expect("add"))
                })
                .collect();
        }
    }

    #[test]
    fn the_three_scales() {
        assert_eq!(
            [0.0, 0.99, 1.0, 1.99, 2.0, 2.99].map(|u| scale(u, 0.5)),
            [1.0, 1.0, 1.5, 1.5, 0.5, 0.5]
        );
    }
}
