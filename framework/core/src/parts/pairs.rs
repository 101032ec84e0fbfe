//! LoRA pairs: one for each task and projection; the running one trains, finished ones are folded
//! into the backbone and kept for the record.

use std::collections::BTreeMap;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backbone::{Backbone, LowRank, Pair, Projection, Site};
use crate::context::{Carry, Fresh, Law, Variable};
use crate::state::Kind;
use crate::{Error, Result};

/// Where LoRA pairs go and how wide they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LoraConfig {
    /// Rank of each LoRA pair (r).
    pub rank: usize,
    /// Projections that get a LoRA pair, of q, k, v, proj, fc1, fc2.
    pub targets: Vec<Projection>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 10, targets: vec![Projection::K, Projection::V] }
    }
}

/// The variables of one task's pair at one site.
#[derive(Debug, Clone)]
struct VarPair {
    site: Site,
    a: Variable,
    b: Variable,
}

/// Σ B·A of pairs, site by site, in the order of sites.
fn products<'a>(pairs: impl Iterator<Item = &'a VarPair>) -> Result<Vec<(Site, Tensor)>> {
    let mut sums: BTreeMap<Site, Tensor> = BTreeMap::new();
    for pair in pairs {
        let product = pair.b.as_detached_tensor().matmul(&pair.a.as_detached_tensor())?;
        let sum = match sums.remove(&pair.site) {
            Some(sum) => (sum + product)?,
            None => product,
        };
        sums.insert(pair.site, sum);
    }
    Ok(sums.into_iter().collect())
}

/// The pairs of all tasks so far.
#[derive(Debug, Clone)]
pub struct Pairs {
    config: LoraConfig,
    /// Pairs of all tasks; those before `folded` are part of the backbone's weights.
    tasks: Vec<Vec<VarPair>>,
    folded: usize,
    /// Whether A is designed and frozen, so that only B trains (InfLoRA).
    designed: bool,
    /// Pairs only in the last so many blocks.
    last_blocks: Option<usize>,
}

impl Pairs {
    /// No pairs yet.
    ///
    /// # Errors
    /// [`Error::Usage`] for a rank of 0 or above the width of a target, or no or repeated targets;
    /// [`Error::Unsupported`] for a target that the backbone lacks.
    pub fn new(config: LoraConfig, backbone: &dyn Backbone) -> Result<Self> {
        if config.targets.is_empty() {
            return Err(Error::usage(
                "targets = []: name at least one projection, as in targets = [\"k\", \"v\"]",
            ));
        }
        for (i, target) in config.targets.iter().enumerate() {
            if config.targets[..i].contains(target) {
                return Err(Error::usage(format!("targets names '{target}' twice")));
            }
            let (outputs, inputs) = backbone.projection(Site { block: 0, projection: *target })?;
            let width = outputs.min(inputs);
            if config.rank == 0 || config.rank > width {
                return Err(Error::usage(format!(
                    "rank = {}: must be from 1 to the width of projection '{target}', {width}",
                    config.rank
                )));
            }
        }
        Ok(Self { config, tasks: Vec::new(), folded: 0, designed: false, last_blocks: None })
    }

    /// No pairs, ever: for a method that trains something else.
    pub fn none() -> Self {
        let config = LoraConfig { rank: 0, targets: Vec::new() };
        Self { config, tasks: Vec::new(), folded: 0, designed: false, last_blocks: None }
    }

    /// The same with A designed for each task and frozen, in the last `last_blocks` blocks only
    /// (all of them if none is stated).
    ///
    /// # Errors
    /// [`Error::Usage`] for 0 or more blocks than there are.
    pub fn designed(mut self, last_blocks: Option<usize>, backbone: &dyn Backbone) -> Result<Self> {
        let depth = backbone.info().blocks;
        if let Some(n) = last_blocks.filter(|n| *n == 0 || *n > depth) {
            return Err(Error::usage(format!(
                "last_blocks = {n}: the backbone has {depth} blocks"
            )));
        }
        (self.designed, self.last_blocks) = (true, last_blocks);
        Ok(self)
    }

    /// Sets A (rank, inputs) of the running pair, block by block, for all targets of a block alike.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn set_a(&mut self, by_block: &[Tensor]) -> Result<()> {
        for pair in self.tasks.iter().skip(self.folded).flatten() {
            pair.a.set(
                &by_block[pair.site.block].to_dtype(pair.a.dtype())?.to_device(pair.a.device())?,
            )?;
        }
        Ok(())
    }

    fn sites(&self, blocks: usize) -> Vec<Site> {
        let first = self.last_blocks.map_or(0, |n| blocks - n);
        (first..blocks)
            .flat_map(|block| {
                self.config.targets.iter().map(move |p| Site { block, projection: *p })
            })
            .collect()
    }

    /// Declares the running pair of a new task, `lora.<task>.blocks.<i>.<projection>.<A|B>`. A
    /// fresh A is drawn from U(−1/√inputs, 1/√inputs) (kaiming-uniform with a = √5), a fresh B is
    /// zero.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the last task's pair was not folded.
    pub fn grow(&mut self, backbone: &dyn Backbone, carry: &mut Carry) -> Result<()> {
        if self.folded != self.tasks.len() {
            return Err(Error::Protocol(
                "a task began while the last task's LoRA pair was still running".into(),
            ));
        }
        let (task, rank) = (self.tasks.len(), self.config.rank);
        let kind_of_a = if self.designed { Kind::Statistic } else { Kind::Trained };
        let pairs = self.sites(backbone.info().blocks).into_iter().map(|site| {
            let (outputs, inputs) = backbone.projection(site)?;
            let bound = 1.0 / (inputs as f64).sqrt();
            let fresh = Fresh::Draw(Law::Uniform { low: -bound, high: bound });
            let a = carry.variable(
                format!("lora.{task}.{site}.A"),
                kind_of_a,
                &[rank, inputs],
                fresh,
            )?;
            let b = carry.variable(
                format!("lora.{task}.{site}.B"),
                Kind::Trained,
                &[outputs, rank],
                Fresh::Zeros,
            )?;
            Ok(VarPair { site, a, b })
        });
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        self.tasks.push(pairs);
        Ok(())
    }

    /// The running pair as paths of a forward pass; none between tasks.
    pub fn running(&self) -> LowRank {
        let mut paths = LowRank::new();
        for pair in self.tasks.iter().skip(self.folded).flatten() {
            let a = if self.designed {
                pair.a.as_detached_tensor()
            } else {
                pair.a.as_tensor().clone()
            };
            paths.insert(pair.site, Pair { a, b: pair.b.as_tensor().clone() });
        }
        paths
    }

    /// The running pair as paths that take no gradient.
    pub fn running_detached(&self) -> LowRank {
        let mut paths = LowRank::new();
        for (site, pair) in self.running().iter() {
            paths.insert(site, Pair { a: pair.a.detach(), b: pair.b.detach() });
        }
        paths
    }

    /// The variables of the running pair that train: A and B, or B alone where A is designed.
    pub fn running_variables(&self) -> Vec<Variable> {
        let running = self.tasks.iter().skip(self.folded).flatten();
        let of = |pair: &VarPair| match self.designed {
            true => vec![pair.b.clone()],
            false => vec![pair.a.clone(), pair.b.clone()],
        };
        running.flat_map(of).collect()
    }

    /// Multiplies the running pair's B, and so its part in the weights, by `factor`.
    ///
    /// # Errors
    /// If the tensor operation fails.
    pub fn scale_running(&mut self, factor: f64) -> Result<()> {
        for pair in self.tasks.iter().skip(self.folded).flatten() {
            pair.b.set(&(pair.b.as_detached_tensor() * factor)?)?;
        }
        Ok(())
    }

    /// B·A (outputs, inputs) of the running pair, site by site.
    ///
    /// # Errors
    /// If the tensor operation fails.
    pub fn running_products(&self) -> Result<Vec<(Site, Tensor)>> {
        products(self.tasks.iter().skip(self.folded).flatten())
    }

    /// Σ B·A (outputs, inputs) of the pairs that are part of the weights, site by site; none before
    /// the first is.
    ///
    /// # Errors
    /// If the tensor operation fails.
    pub fn folded_products(&self) -> Result<Vec<(Site, Tensor)>> {
        products(self.tasks.iter().take(self.folded).flatten())
    }

    /// Makes the running pair part of the frozen weights.
    ///
    /// # Errors
    /// If the backbone cannot fold.
    pub fn fold(&mut self, backbone: &mut dyn Backbone) -> Result<()> {
        let running = self.running();
        if running.iter().next().is_some() {
            backbone.fold(&running)?;
        }
        self.folded = self.tasks.len();
        Ok(())
    }
}
