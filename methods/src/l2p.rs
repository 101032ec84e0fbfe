//! L2P: a pool of prompts, of which each image chooses its own by the frozen network's features (Wang et al., CVPR 2022).
//!
//! ```sh
//! cilbench run --method l2p
//! ```
//!
//! The query of an image is the CLS feature of the frozen backbone without prompts. Of P prompts of L tokens, the N whose keys are nearest to it by cosine are put beside
//! the image's tokens; the head sees the mean of their outputs. loss = CE over the task's classes + λ·Σ (1 − cos(query, key)) over the keys chosen. Prompts, keys
//! and the task's head train; the backbone never does.
//!
//! Each image chooses for itself, in training and in prediction, as in the paper; the authors' code lets a whole batch vote in both, which makes a prediction
//! depend on the images beside it. The learning rate follows the schedule of all methods here, not the authors' constant one, and gradients are not clipped.

use candle_core::{D, DType, Device, Tensor, Var};
use cilbench::backbone::{Backbone, Capability, Features, Pass};
use cilbench::context::{Context, Law};
use cilbench::method::{About, Access, Batch, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::nn::{self, Optimiser};
use cilbench::parts::{Heads, Training, restore_optimiser, save_optimiser, unit};
use cilbench::scenario::TaskInfo;
use cilbench::state::{Kind, State};
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<L2p>() }

/// Hyper-parameters of L2P.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    training: Training,
    /// Prompts in the pool (P).
    pool_size: usize,
    /// Tokens a prompt (L).
    prompt_length: usize,
    /// Prompts that an image chooses (N).
    top_k: usize,
    /// Weight of the distance between an image's query and the keys it chose (λ).
    pull: f64,
}

impl Default for Config {
    fn default() -> Self {
        let training = Training { epochs: 5, learning_rate: 0.015, ..Training::default() };
        Self { training, pool_size: 10, prompt_length: 5, top_k: 5, pull: 0.5 }
    }
}

/// The prompts and their keys.
struct Pool {
    /// (P, L, dim).
    prompts: Var,
    /// (P, dim).
    keys: Var,
}

/// L2P.
pub struct L2p {
    config: Config,
    backbone: Box<dyn Backbone>,
    heads: Heads,
    pool: Option<Pool>,
    optimiser: Option<Box<dyn Optimiser>>,
    device: Device,
    dtype: DType,
}

impl Registered for L2p {
    type Config = Config;
    const ABOUT: About = About {
        name: "l2p",
        version: "1",
        summary: "a pool of prompts, chosen for each image by the frozen network's features",
        paper: r"@inproceedings{wang2022learning,
  title={Learning to Prompt for Continual Learning},
  author={Wang, Zifeng and Zhang, Zizhao and Lee, Chen-Yu and Zhang, Han and Sun, Ruoxi and Ren, Xiaoqi and Su, Guolong and Perot, Vincent and Dy, Jennifer and Pfister, Tomas},
  booktitle={CVPR}, year={2022}
}",
        access: Access::Stream,
        trains: "the pool of prompts, their keys and the current task's head",
        presets: include_str!("../presets/l2p.toml"),
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        config.training.check()?;
        for (key, value) in [("pool_size", config.pool_size), ("prompt_length", config.prompt_length), ("top_k", config.top_k)] {
            if value == 0 {
                return Err(Error::usage(format!("{key} = 0: must be at least 1")));
            }
        }
        if config.top_k > config.pool_size {
            let (k, pool) = (config.top_k, config.pool_size);
            return Err(Error::usage(format!("top_k = {k}: there are only pool_size = {pool} prompts to choose from")));
        }
        if !(config.pull.is_finite() && config.pull >= 0.0) {
            return Err(Error::usage(format!("pull = {}: a loss's weight must not be negative", config.pull)));
        }
        setup.backbone.require(Self::ABOUT.name, &[Capability::ExtraTokens])?;
        let heads = Heads::new(setup.backbone.info().dim);
        let Setup { backbone, device, dtype } = setup;
        Ok(Self { config, backbone, heads, pool: None, optimiser: None, device, dtype })
    }
}

impl Pool {
    fn vars(&self) -> Vec<(String, Var)> {
        vec![("prompts".to_owned(), self.prompts.clone()), ("keys".to_owned(), self.keys.clone())]
    }

    /// For queries (batch, dim): the prompts chosen, (batch, top_k·L, dim), and the mean over images of Σ (1 − cos) to their keys.
    fn choose(&self, queries: &Tensor, top_k: usize) -> Result<(Tensor, Tensor)> {
        let (batch, dim) = queries.dims2()?;
        let similarity = unit(&queries.detach())?.matmul(&unit(self.keys.as_tensor())?.t()?)?;
        let indices = nearest(&similarity, top_k)?;
        let chosen = self.prompts.index_select(&indices.flatten_all()?, 0)?;
        let distance = (1.0 - similarity.gather(&indices, 1)?)?.sum(D::Minus1)?.mean_all()?;
        Ok((chosen.reshape((batch, top_k * self.prompts.dim(1)?, dim))?, distance))
    }
}

/// The places (batch, k), u32, of the `k` largest of each row of cosines (batch, n), the largest first; on the CPU of equal ones the first.
fn nearest(cosines: &Tensor, k: usize) -> Result<Tensor> {
    let mut left = cosines.detach();
    let taken = Tensor::full(-2f32, (left.dim(0)?, 1), left.device())?.to_dtype(left.dtype())?;
    let mut places = Vec::with_capacity(k);
    for _ in 0..k {
        let best = left.argmax_keepdim(D::Minus1)?;
        left = left.scatter(&best, &taken, 1)?;
        places.push(best);
    }
    Ok(Tensor::cat(&places, 1)?)
}

impl L2p {
    /// The network's outputs with the prompts that each image chooses, and the distance to their keys.
    fn forward(&self, images: &Tensor, cls_tokens: bool) -> Result<(Features, Tensor)> {
        let pool = self.pool.as_ref().ok_or_else(|| Error::Protocol("l2p was used before its first task began".into()))?;
        let queries = self.backbone.forward(images, Pass::default())?.cls;
        let (prompts, distance) = pool.choose(&queries, self.config.top_k)?;
        let pass = Pass { extra_tokens: Some(&prompts), cls_tokens, ..Pass::default() };
        Ok((self.backbone.forward(images, pass)?, distance))
    }

    /// The mean of the prompts' outputs, (batch, dim).
    fn pooled(features: &Features) -> Result<Tensor> {
        let extra = features.extra.as_ref().ok_or_else(|| Error::Protocol("the backbone gave no outputs of its extra tokens".into()))?;
        Ok(extra.mean(1)?)
    }

    fn new_optimiser(&self) -> Result<Box<dyn Optimiser>> {
        self.config.training.optimiser(self.pool.iter().flat_map(Pool::vars).collect(), self.heads.current_vars())
    }
}

impl Method for L2p {
    fn plan(&self, _: &TaskInfo) -> Plan {
        self.config.training.plan()
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        if self.pool.is_none() {
            let (pool, dim) = (self.config.pool_size, self.backbone.info().dim);
            let law = Law::Uniform { low: -1.0, high: 1.0 };
            let prompts = Var::from_tensor(&ctx.draw("init.prompts", &[pool, self.config.prompt_length, dim], law)?)?;
            self.pool = Some(Pool { prompts, keys: Var::from_tensor(&ctx.draw("init.keys", &[pool, dim], law)?)? });
        }
        self.heads.grow(task, ctx)?;
        self.optimiser = Some(self.new_optimiser()?);
        Ok(())
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        let (features, distance) = self.forward(&batch.data.images, false)?;
        let ce = nn::cross_entropy(&self.heads.current(&Self::pooled(&features)?)?, &task.within(&batch.data.labels)?)?;
        let loss = (&ce + (&distance * self.config.pull)?)?;
        let Some(optimiser) = &mut self.optimiser else {
            return Err(Error::Protocol("a training step was asked for outside a task".into()));
        };
        optimiser.set_learning_rate(self.config.training.rate(batch.epoch));
        optimiser.step(&loss.backward()?)?;
        Losses::read(&[("ce", &ce), ("key_distance", &distance)])
    }

    fn end_task(&mut self, _: &TaskInfo, _: &mut Context) -> Result<()> {
        self.optimiser = None;
        Ok(())
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        let (features, _) = self.forward(images, false)?;
        Ok(self.heads.all(&Self::pooled(&features)?)?.detach())
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        if !self.backbone.supports(Capability::ClsTokens) {
            return Ok(None);
        }
        Ok(self.forward(images, true)?.0.blocks.map(|b| b.detach()))
    }

    fn state(&self) -> Result<State> {
        let mut state = State::new();
        self.pool.iter().flat_map(Pool::vars).try_for_each(|(name, var)| state.put(name, Kind::Trained, &var))?;
        self.heads.save(&mut state)?;
        save_optimiser(self.optimiser.as_deref(), &mut state)?;
        Ok(state)
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        self.heads.restore(state, tasks, self.dtype, &self.device)?;
        (self.pool, self.optimiser) = (None, None);
        if tasks.is_empty() {
            return Ok(());
        }
        let (pool, dim) = (self.config.pool_size, self.backbone.info().dim);
        let var = |name: &str, shape: &[usize]| -> Result<Var> {
            let tensor = state.tensor(name, self.dtype, &self.device)?;
            if tensor.dims() != shape {
                return Err(Error::Protocol(format!("state: '{name}' has shape {:?}, expected {shape:?}", tensor.dims())));
            }
            Ok(Var::from_tensor(&tensor)?)
        };
        let prompts = var("prompts", &[pool, self.config.prompt_length, dim])?;
        self.pool = Some(Pool { prompts, keys: var("keys", &[pool, dim])? });
        if running {
            let mut optimiser = self.new_optimiser()?;
            restore_optimiser(optimiser.as_mut(), state, &self.device)?;
            self.optimiser = Some(optimiser);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_gets_the_prompts_of_its_nearest_keys_and_trains_them_alone() {
        let var = |t: Tensor| Var::from_tensor(&t).expect("var");
        let keys = Tensor::new(&[[1.0f64, 0.0], [0.0, 2.0], [-3.0, 0.0]], &Device::Cpu).expect("keys");
        let prompts = Tensor::arange(0.0f64, 12.0, &Device::Cpu).expect("prompts").reshape((3, 2, 2)).expect("shape");
        let pool = Pool { prompts: var(prompts), keys: var(keys) };
        let queries = Tensor::new(&[[2.0f64, 1.0], [-1.0, -1.0]], &Device::Cpu).expect("queries");
        let (chosen, distance) = pool.choose(&queries, 2).expect("choice");
        let values = chosen.flatten_all().expect("flat").to_vec1::<f64>().expect("values");
        let expected: Vec<f64> = [0..4, 4..8, 8..12, 0..4].into_iter().flatten().map(f64::from).collect();
        assert_eq!(values, expected, "prompts 0 and 1, then 2 and 0");
        // cos: 2/√5 and 1/√5 for the first; 1/√2 and, of two equal ones, the first (−1/√2) for the second.
        let expected = (2.0 - 3.0 / 5f64.sqrt() + 2.0) / 2.0;
        assert!((distance.to_scalar::<f64>().expect("scalar") - expected).abs() < 1e-9);
        let grads = (chosen.sum_all().expect("sum") + distance).expect("loss").backward().expect("bwd");
        let of = |v: &Var| grads.get(v).expect("gradient").flatten_all().expect("flat").to_vec1::<f64>().expect("values");
        assert_eq!(of(&pool.prompts), [2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], "as often as each was chosen");
        assert!(of(&pool.keys).iter().any(|g| g.abs() > 1e-6));
    }
}
