//! The other end of the messages: calls answered by a method of this program.

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{DType, Device};

use super::messages::{Answer, Call, Construction, Failure, FailureClass, PlainModel};
use crate::array::Array;
use crate::backbone::{self, BackboneOptions};
use crate::config::table_from_json;
use crate::context::{Context, Host, Images, Reply, Request};
use crate::method::{Batch, Method, MethodEntry, Setup};
use crate::{Error, Result, device};

/// Builds the method of an entry as a [`Construction`] says, on a backbone of its own.
///
/// # Errors
/// [`Error::Unsupported`] for a backbone that this program does not know; as [`Registered::new`](crate::method::Registered::new).
pub fn build(entry: &MethodEntry, from: &Construction) -> Result<Instance> {
    let config = table_from_json(&from.config).map_err(|what| Error::Protocol(format!("the configuration: {what}")))?;
    let (device, dtype) = (device::open(&from.device)?, from.dtype.dtype());
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
        source: None,
    };
    let backbone = (kind.build)(&options, dtype, &device)?;
    let method = entry.build(&config, Setup { backbone, device: device.clone(), dtype })?;
    Ok(Instance { method, device, dtype })
}

/// A method that answers messages.
pub struct Instance {
    method: Box<dyn Method>,
    device: Device,
    dtype: DType,
}

impl Instance {
    /// Answers a call; a panic of the method is an answer too.
    pub fn answer(&mut self, call: Call, host: &mut dyn Host) -> Answer {
        catching(|| self.dispatch(call, host)).unwrap_or_else(|e| Answer::Failed(Failure::from(&e)))
    }

    fn dispatch(&mut self, call: Call, host: &mut dyn Host) -> Result<Answer> {
        let (method, device, dtype) = (&mut self.method, &self.device, self.dtype);
        let mut ctx = Context::new(host, device, dtype);
        Ok(match call {
            Call::Build(_) => return Err(Error::Protocol("the method is built already".into())),
            Call::Check { classes } => method.check(classes).map(|()| Answer::Done)?,
            Call::Plan { task } => Answer::Plan(method.plan(&task)),
            Call::BeginTask { task } => method.begin_task(&task, &mut ctx).map(|()| Answer::Done)?,
            Call::Observe { batch, epoch, step, task } => {
                let data = Images::from_plain(batch, dtype, device)?;
                Answer::Losses(method.observe(&Batch { data, epoch, step }, &task, &mut ctx)?)
            }
            Call::EndTask { task } => method.end_task(&task, &mut ctx).map(|()| Answer::Done)?,
            Call::Predict { images } => Answer::Logits(Array::from_tensor(&method.predict(&images.to_dtype(dtype, device)?)?)?),
            Call::ClsTokens { images } => {
                let tokens = method.cls_tokens(&images.to_dtype(dtype, device)?)?;
                Answer::ClsTokens(tokens.map(|t| Array::from_tensor(&t)).transpose()?)
            }
            Call::State => Answer::State(method.state()?),
            Call::Restore { state, tasks, running } => method.restore(&state, &tasks, running).map(|()| Answer::Done)?,
            Call::Export => {
                let model = method.export()?;
                let tensors = model.tensors.iter().map(|(name, t)| Ok((name.clone(), Array::from_tensor(t)?)));
                Answer::Model(PlainModel { tensors: tensors.collect::<Result<_>>()?, metadata: model.metadata })
            }
        })
    }
}

/// Runs `work`; a panic in it becomes an error.
///
/// # Errors
/// What `work` fails with, or [`Error::Protocol`] with the panic's message.
pub fn catching<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::Protocol(format!("panicked: {}", text.unwrap_or("without a message"))))
    })
}

/// The host of a call that has none.
pub(super) struct NoHost;

impl Host for NoHost {
    fn answer(&mut self, _: Request) -> Result<Reply> {
        Err(out_of_place().error())
    }
}

/// The failure of a request that came when none is allowed.
pub(super) fn out_of_place() -> Failure {
    Failure { class: FailureClass::Failed, text: "the method asked the harness for something in a call that has no context".into() }
}
