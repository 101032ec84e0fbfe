//! L2P: a pool of prompts, of which each image chooses its own by the frozen network's features
//! (Wang et al., CVPR 2022).
//!
//! ```sh
//! cilbench run --method l2p
//! ```
//!
//! The query of an image is the CLS feature of the frozen backbone without prompts. Of P prompts of
//! L tokens, the N whose keys are nearest to it by cosine are put beside the image's tokens; the
//! head sees the mean of their outputs. loss = CE over the task's classes + λ·Σ (1 − cos(query,
//! key)) over the keys chosen. Prompts, keys and the task's head train; the backbone never does.
//!
//! Each image chooses for itself, in training and in prediction, as in the paper; the authors' code
//! lets a whole batch vote in both, which makes a prediction depend on the images beside it. The
//! learning rate follows the schedule of all methods here, not the authors' constant one, and
//! gradients are not clipped.

use candle_core::{D, Tensor};
use cilbench::backbone::{Backbone, Capability, Features, Pass};
use cilbench::context::{Context, Law};
use cilbench::method::{
    About, Batch, Carry, Fresh, Loss, Losses, Method, MethodEntry, Model, Plan, Setup, Variable,
};
use cilbench::nn;
use cilbench::optim::Optimiser;
use cilbench::parts::{Heads, Training, Want, unit};
use cilbench::scenario::TaskInfo;
use cilbench::state::Kind;
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
    prompts: Variable,
    /// (P, dim).
    keys: Variable,
}

/// L2P.
pub struct L2p {
    config: Config,
    network: Prompted,
}

/// The frozen backbone, its pool of prompts, and the heads.
pub struct Prompted {
    backbone: Box<dyn Backbone>,
    training: Training,
    heads: Heads,
    pool: Option<Pool>,
    optimiser: Option<Box<dyn Optimiser>>,
    /// Prompts in the pool, tokens per prompt, prompts per image.
    sizes: Sizes,
}

/// P, L and N.
#[derive(Clone, Copy)]
struct Sizes {
    pool: usize,
    length: usize,
    chosen: usize,
}

impl Method for L2p {
    type Config = Config;
    cilbench::model!(network: Prompted);
    const ABOUT: About = About {
        name: "l2p",
        version: "1",
        summary: "a pool of prompts, chosen for each image by the frozen network's features",
        paper: r"@inproceedings{wang2022learning,
  title={Learning to Prompt for Continual Learning},
  author={Wang, Zifeng and Zhang, Zizhao and Lee, Chen-Yu and Zhang, Han and Sun, Ruoxi and Ren, Xiaoqi and Su, Guolong and Perot, Vincent and Dy, Jennifer and Pfister, Tomas},
  booktitle={CVPR}, year={2022}
}",
        trains: "the pool of prompts, their keys and the current task's head",
        presets: include_str!("../presets/l2p.toml"),
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        config.training.check()?;
        for (key, value) in [
            ("pool_size", config.pool_size),
            ("prompt_length", config.prompt_length),
            ("top_k", config.top_k),
        ] {
            if value == 0 {
                return Err(Error::usage(format!("{key} = 0: must be at least 1")));
            }
        }
        if config.top_k > config.pool_size {
            let (k, pool) = (config.top_k, config.pool_size);
            return Err(Error::usage(format!(
                "top_k = {k}: there are only pool_size = {pool} prompts to choose from"
            )));
        }
        if !(config.pull.is_finite() && config.pull >= 0.0) {
            return Err(Error::usage(format!(
                "pull = {}: a loss's weight must not be negative",
                config.pull
            )));
        }
        setup.backbone.require(Self::ABOUT.name, &[Capability::ExtraTokens])?;
        let network = Prompted {
            heads: Heads::new(setup.backbone.info().dim),
            backbone: setup.backbone,
            training: config.training.clone(),
            pool: None,
            optimiser: None,
            sizes: Sizes {
                pool: config.pool_size,
                length: config.prompt_length,
                chosen: config.top_k,
            },
        };
        Ok(Self { config, network })
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        let network = &mut self.network;
        let (features, distance) = network.forward(&batch.data.images, Want::Features)?;
        let logits = network.heads.current(&Prompted::pooled(&features)?)?;
        let ce = nn::cross_entropy(&logits, &task.within(&batch.data.labels)?)?;
        // Eq. (5): CE + λ·Σ γ(q(x), k) over the keys chosen.
        network
            .step(Loss::new("ce", ce).add("key_distance", self.config.pull, distance)?, batch.epoch)
    }
}

impl Pool {
    /// For queries (batch, dim): the prompts chosen, (batch, top_k·L, dim), and the mean over
    /// images of Σ (1 − cos) to their keys.
    fn choose(&self, queries: &Tensor, top_k: usize) -> Result<(Tensor, Tensor)> {
        let (batch, dim) = queries.dims2()?;
        let similarity = unit(&queries.detach())?.matmul(&unit(self.keys.as_tensor())?.t()?)?;
        let indices = nearest(&similarity, top_k)?;
        let chosen = self.prompts.index_select(&indices.flatten_all()?, 0)?;
        let distance = (1.0 - similarity.gather(&indices, 1)?)?.sum(D::Minus1)?.mean_all()?;
        Ok((chosen.reshape((batch, top_k * self.prompts.dim(1)?, dim))?, distance))
    }
}

/// The places (batch, k), u32, of the `k` largest of each row of cosines (batch, n), the largest
/// first; on the CPU of equal ones the first.
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

impl Prompted {
    /// The network's outputs with the prompts that each image chooses, and the distance to their
    /// keys.
    fn forward(&self, images: &Tensor, want: Want) -> Result<(Features, Tensor)> {
        let early = || Error::Protocol("l2p was used before its first task began".into());
        let pool = self.pool.as_ref().ok_or_else(early)?;
        let queries = self.backbone.forward(images, Pass::default())?.cls;
        let (prompts, distance) = pool.choose(&queries, self.sizes.chosen)?;
        let pass = Pass {
            extra_tokens: Some(&prompts),
            cls_tokens: want == Want::ClsTokens,
            ..Pass::default()
        };
        Ok((self.backbone.forward(images, pass)?, distance))
    }

    /// The mean of the prompts' outputs, (batch, dim).
    fn pooled(features: &Features) -> Result<Tensor> {
        let lacking = || Error::Protocol("the backbone gave no outputs of its extra tokens".into());
        Ok(features.extra.as_ref().ok_or_else(lacking)?.mean(1)?)
    }

    fn step(&mut self, loss: Loss, epoch: usize) -> Result<Losses> {
        let Some(optimiser) = &mut self.optimiser else {
            return Err(Error::Protocol("a training step was asked for outside a task".into()));
        };
        optimiser.set_learning_rate(self.training.rate(epoch));
        optimiser.step(&loss.total().backward()?)?;
        loss.losses()
    }
}

impl Model for Prompted {
    fn plan(&self, _: &TaskInfo) -> Result<Plan> {
        Ok(self.training.plan())
    }

    fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        let (Sizes { pool, length, .. }, dim) = (self.sizes, self.backbone.info().dim);
        if self.pool.is_none() {
            let fresh = Fresh::Draw(Law::Uniform { low: -1.0, high: 1.0 });
            let prompts = carry.variable("prompts", Kind::Trained, &[pool, length, dim], fresh)?;
            let keys = carry.variable("keys", Kind::Trained, &[pool, dim], fresh)?;
            self.pool = Some(Pool { prompts, keys });
        }
        self.heads.grow(task, carry)?;
        if carry.training() {
            let prompts = self
                .pool
                .iter()
                .flat_map(|pool| [pool.prompts.clone(), pool.keys.clone()])
                .collect();
            self.optimiser =
                Some(self.training.optimiser(prompts, self.heads.current_variables(), carry)?);
        }
        Ok(())
    }

    fn settle(&mut self, _: &TaskInfo, _: &mut Carry) -> Result<()> {
        self.optimiser = None;
        Ok(())
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        let (features, _) = self.forward(images, Want::Features)?;
        Ok(self.heads.all(&Self::pooled(&features)?)?.detach())
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        if !self.backbone.supports(Capability::ClsTokens) {
            return Ok(None);
        }
        Ok(self.forward(images, Want::ClsTokens)?.0.blocks.map(|b| b.detach()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use cilbench::context::{Carried, NoHost, Placement};

    use super::*;

    #[test]
    fn each_image_gets_the_prompts_of_its_nearest_keys_and_trains_them_alone() {
        let (carried, placement, mut host) = (Carried::new(), Placement::cpu(DType::F64), NoHost);
        let mut carry = Carry::fresh(&mut host, &carried, &placement);
        let mut variable =
            |name: &str, t: &Tensor| carry.copied(name, Kind::Trained, t).expect("variable");
        let keys =
            Tensor::new(&[[1.0f64, 0.0], [0.0, 2.0], [-3.0, 0.0]], &Device::Cpu).expect("keys");
        let prompts = Tensor::arange(0.0f64, 12.0, &Device::Cpu)
            .expect("prompts")
            .reshape((3, 2, 2))
            .expect("shape");
        let pool = Pool { prompts: variable("prompts", &prompts), keys: variable("keys", &keys) };
        let queries = Tensor::new(&[[2.0f64, 1.0], [-1.0, -1.0]], &Device::Cpu).expect("queries");
        let (chosen, distance) = pool.choose(&queries, 2).expect("choice");
        let values = chosen.flatten_all().expect("flat").to_vec1::<f64>().expect("values");
        let expected: Vec<f64> =
            [0..4, 4..8, 8..12, 0..4].into_iter().flatten().map(f64::from).collect();
        assert_eq!(values, expected, "prompts 0 and 1, then 2 and 0");
        // cos: 2/√5 and 1/√5 for the first; 1/√2 and, of two equal ones, the first (−1/√2) for the
        // second.
        let expected = (2.0 - 3.0 / 5f64.sqrt() + 2.0) / 2.0;
        assert!((distance.to_scalar::<f64>().expect("scalar") - expected).abs() < 1e-9);
        let grads =
            (chosen.sum_all().expect("sum") + distance).expect("loss").backward().expect("bwd");
        let of = |v: &Variable| {
            grads
                .get(v)
                .expect("gradient")
                .flatten_all()
                .expect("flat")
                .to_vec1::<f64>()
                .expect("values")
        };
        assert_eq!(
            of(&pool.prompts),
            [2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            "as often as each was chosen"
        );
        assert!(of(&pool.keys).iter().any(|g| g.abs() > 1e-6));
    }
}
