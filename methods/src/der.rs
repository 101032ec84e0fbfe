//! DER++: dark experience replay (Buzzega et al., NeurIPS 2020). Exemplars come back with the
//! logits they once had.
//!
//! ```sh
//! cilbench run --method der++
//! ```
//!
//! loss = CE(x, y) + α·MSE(h(x'), z') + β·CE(x'', y''), x' and x'' two draws from the memory and z'
//! the logits stored with x'. Where the authors store an image with its logits while the stream
//! passes, here images are chosen when their task is over, with the logits of the model as it is
//! then for the image through the test transform; z' has one column for each class seen by then,
//! and the MSE is the mean over those (theirs is over all outputs, of classes to come as well).

use candle_core::Tensor;
use cilbench::context::{Context, Exemplar};
use cilbench::method::{About, Access, Batch, Loss, Losses, Method, MethodEntry, Setup};
use cilbench::nn;
use cilbench::parts::{LearnerConfig, Rehearsal, ReplayConfig, Selection, Want, together};
use cilbench::scenario::TaskInfo;
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<DerPlusPlus>() }

/// Hyper-parameters of DER++.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    learner: LearnerConfig,
    #[serde(flatten)]
    replay: ReplayConfig,
    /// Weight of the squared distance to the stored logits (α).
    alpha: f64,
    /// Weight of the cross-entropy on the second draw from the memory (β).
    beta: f64,
}

impl Default for Config {
    fn default() -> Self {
        let replay = ReplayConfig { selection: Selection::Random, ..ReplayConfig::default() };
        Self { learner: LearnerConfig::default(), replay, alpha: 0.1, beta: 0.5 }
    }
}

/// DER++.
pub struct DerPlusPlus {
    config: Config,
    model: Rehearsal,
}

impl Method for DerPlusPlus {
    type Config = Config;
    cilbench::model!(model: Rehearsal);
    const ABOUT: About = About {
        name: "der++",
        version: "1",
        summary: "dark experience replay: exemplars are held to their stored logits and their labels",
        paper: r"@inproceedings{buzzega2020dark,
  title={Dark Experience for General Continual Learning: a Strong, Simple Baseline},
  author={Buzzega, Pietro and Boschini, Matteo and Porrello, Angelo and Abati, Davide and Calderara, Simone},
  booktitle={NeurIPS}, year={2020}
}",
        access: Access::Memory,
        trains: "the current task's LoRA pair, or all weights, or nothing of the backbone; all heads",
        presets: include_str!("../presets/der++.toml"),
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        for (key, value) in [("alpha", config.alpha), ("beta", config.beta)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::usage(format!(
                    "{key} = {value}: a loss's weight must not be negative"
                )));
            }
        }
        let model =
            Rehearsal::new(Self::ABOUT.name, config.learner.clone(), config.replay.clone(), setup)?;
        Ok(Self { config, model })
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, ctx: &mut Context) -> Result<Losses> {
        let Rehearsal { learner, replay } = &mut self.model;
        let (Some(first), Some(second)) =
            (replay.batch("logits", ctx)?, replay.batch("labels", ctx)?)
        else {
            return learner.learn(batch, task);
        };
        let data = together(&together(&batch.data, Some(&first.data))?, Some(&second.data))?;
        let logits = learner.heads.all(&learner.forward(&data.images, Want::Features)?.cls)?;
        let (n, m, k) =
            (batch.data.host_labels.len(), first.exemplars.len(), second.exemplars.len());
        let ce = nn::cross_entropy(&logits.narrow(0, 0, n)?, &batch.data.labels)?;
        let mse = distance(&logits.narrow(0, n, m)?, &first.exemplars)?;
        let replayed = nn::cross_entropy(&logits.narrow(0, n + m, k)?, &second.data.labels)?;
        // Eq. (6) of the paper: CE + α·MSE on the first draw + β·CE on the second.
        let loss = Loss::new("ce", ce).add("mse", self.config.alpha, mse)?;
        learner.step(loss.add("replay_ce", self.config.beta, replayed)?, batch.epoch)
    }

    fn end_task(&mut self, _: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let heads = self.model.learner.heads.clone();
        let logits = |features: &Tensor| Ok(heads.all(features)?.detach());
        self.model.choose(ctx, Some(&logits))
    }
}

/// Mean squared difference of logits (n, classes) to what is stored with the exemplars, over the
/// columns that are stored.
fn distance(logits: &Tensor, exemplars: &[Exemplar]) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    let (mut targets, mut mask, mut stored) =
        (vec![0.0; rows * classes], vec![0.0; rows * classes], 0);
    for (row, exemplar) in exemplars.iter().enumerate() {
        let payload = exemplar.payload.as_ref().map(|p| p.to_f64()).transpose()?;
        let payload = payload.filter(|p| p.len() <= classes);
        let payload = payload.ok_or_else(|| {
            Error::Protocol(format!(
                "memory: exemplar {} came back without its logits",
                exemplar.id
            ))
        })?;
        targets[row * classes..][..payload.len()].copy_from_slice(&payload);
        mask[row * classes..][..payload.len()].fill(1.0);
        stored += payload.len();
    }
    let place = |values: Vec<f64>| -> Result<Tensor> {
        Ok(Tensor::from_vec(values, (rows, classes), logits.device())?.to_dtype(logits.dtype())?)
    };
    Ok((((logits * place(mask)?)? - place(targets)?)?.sqr()?.sum_all()? / stored.max(1) as f64)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use cilbench::array::Array;

    use super::*;

    #[test]
    fn only_stored_logits_count() {
        let exemplar = |id, values: &[f32]| Exemplar {
            id,
            label: 0,
            task: 0,
            payload: Some(Array::from_f32([values.len()], values)),
        };
        let logits =
            Tensor::new(&[[1.0f64, 2.0, 70.0], [0.0, 1.0, 2.0]], &Device::Cpu).expect("logits");
        let mse = distance(&logits, &[exemplar(0, &[1.0, 4.0]), exemplar(1, &[1.0, 1.0, 0.0])])
            .expect("mse");
        assert!((mse.to_scalar::<f64>().expect("scalar") - (4.0 + 1.0 + 4.0) / 5.0).abs() < 1e-12);
        let bare = Exemplar { id: 7, label: 0, task: 0, payload: None };
        assert!(
            distance(&logits, &[bare.clone(), bare])
                .expect_err("no logits")
                .to_string()
                .contains("exemplar 7")
        );
    }
}
