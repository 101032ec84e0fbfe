//! The other end of the messages: calls answered by a method of this program.

use super::messages::{Answer, Call, Construction, Failure, PlainModel};
use crate::array::Array;
use crate::backbone::{self, BackboneOptions};
use crate::config::table_from_json;
use crate::context::{Host, Images, Placement};
use crate::error::catching;
use crate::method::{Batch, MethodEntry, Player, Saved, Setup};
use crate::{Error, Result, device};

/// Builds the method of an entry as a [`Construction`] says, on a backbone of its own.
///
/// # Errors
/// [`Error::Unsupported`] for a backbone that this program does not know; as
/// [`Registered::new`](crate::method::Method::new).
pub fn build(entry: &MethodEntry, from: &Construction) -> Result<Instance> {
    let config = table_from_json(&from.config)
        .map_err(|what| Error::Protocol(format!("the configuration: {what}")))?;
    let placement = Placement { device: device::open(&from.device)?, dtype: from.dtype.dtype() };
    let b = &from.backbone;
    let Some(kind) = backbone::all().into_iter().find(|e| e.name == b.entry) else {
        return Err(Error::Unsupported(format!(
            "backbone '{}' is of a kind that this plugin does not know ('{}'); use one with a weights file",
            b.name, b.entry
        )));
    };
    let options = BackboneOptions {
        weights: b.weights.as_ref().map(Into::into),
        image_size: Some(b.image_size),
        heads: Some(b.heads),
        mean: Some(b.mean),
        std: Some(b.std),
        ..BackboneOptions::default()
    };
    let backbone = (kind.build)(&options, placement.dtype, &placement.device)?;
    let player = entry.build(&config, Setup { backbone, placement: placement.clone() })?;
    Ok(Instance { player, placement })
}

/// A method that answers messages.
pub struct Instance {
    player: Box<dyn Player>,
    placement: Placement,
}

impl Instance {
    /// Answers a call; a panic of the method is an answer too.
    pub fn answer(&mut self, call: Call, host: &mut dyn Host) -> Answer {
        catching(|| self.dispatch(call, host)).unwrap_or_else(|e| Answer::Failed(Failure::from(&e)))
    }

    fn dispatch(&mut self, call: Call, host: &mut dyn Host) -> Result<Answer> {
        let (player, placement) = (&mut self.player, &self.placement);
        let place = |images: &Array| images.to_dtype(placement.dtype, &placement.device);
        Ok(match call {
            Call::Build(_) => return Err(Error::Protocol("the method is built already".into())),
            Call::Check { scenario } => player.check(&scenario).map(|()| Answer::Done)?,
            Call::Plan { task } => Answer::Plan(player.plan(&task)?),
            Call::BeginTask { task } => player.begin_task(&task, host).map(|()| Answer::Done)?,
            Call::Observe { batch, epoch, step, task } => {
                let data = Images::from_plain(batch, placement)?;
                Answer::Losses(player.observe(&Batch { data, epoch, step }, &task, host)?)
            }
            Call::EndTask { task } => player.end_task(&task, host).map(|()| Answer::Done)?,
            Call::Predict { images } => {
                Answer::Logits(Array::from_tensor(&player.predict(&place(&images)?)?)?)
            }
            Call::ClsTokens { images } => {
                let tokens = player.cls_tokens(&place(&images)?)?;
                Answer::ClsTokens(tokens.map(|t| Array::from_tensor(&t)).transpose()?)
            }
            Call::State => Answer::State(player.state()?),
            Call::Restore { state, tasks, running } => {
                player.restore(&Saved { state, tasks, running }).map(|()| Answer::Done)?
            }
            Call::Export => {
                let model = player.export()?;
                let tensors = model
                    .tensors
                    .iter()
                    .map(|(name, t)| Ok((name.clone(), Array::from_tensor(t)?)));
                Answer::Model(PlainModel {
                    tensors: tensors.collect::<Result<_>>()?,
                    metadata: model.metadata,
                })
            }
        })
    }
}
