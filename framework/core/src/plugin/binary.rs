//! The harness's side of a binary plugin: messages as calls of the library's functions.

use std::ffi::c_void;

use super::abi::*;
use super::answering::Harness;
use super::codes;
use super::flat::{self, Read};
use super::kept::{self, Kept};
use super::messages::{Answer, BackboneOffer, Call, Construction, Failure, FailureClass};
use super::remote::{Connect, Link};
use super::sized::{self, Writer};
use crate::array::Array;
use crate::context::Host;
use crate::{Error, Result};

/// The methods of an open library, by name.
pub(super) struct Library {
    pub(super) methods: Vec<(String, CilMethod)>,
    /// The revision of the ABI that it was built for.
    pub(super) revision: u32,
}
// SAFETY: the tables are never written to, and what they point to is valid for good by the rules
// of the ABI. The functions are called from one thread for each instance.
unsafe impl Send for Library {}
// SAFETY: as above; the tables are only read.
unsafe impl Sync for Library {}

impl Connect for Library {
    fn connect(&self) -> Result<Box<dyn Link>> {
        let writer = Writer::Plugin(self.revision);
        Ok(Box::new(BinaryLink { methods: self.methods.clone(), writer, open: None }))
    }
}

/// An instance of a library's method, once it is built.
struct BinaryLink {
    methods: Vec<(String, CilMethod)>,
    writer: Writer,
    open: Option<(CilMethod, *mut c_void)>,
}

impl Drop for BinaryLink {
    fn drop(&mut self) {
        if let Some((CilMethod { destroy: Some(destroy), .. }, instance)) = self.open {
            // SAFETY: made by the library's `create`, and not used again.
            unsafe { destroy(instance) };
        }
    }
}

impl Link for BinaryLink {
    fn call(&mut self, call: Call, host: Option<&mut dyn Host>) -> Result<Answer> {
        let name = call.name();
        let wrong = |text: String| Answer::Failed(Failure { class: FailureClass::Failed, text });
        if let Call::Build(from) = &call {
            return Ok(self.build(from).unwrap_or_else(wrong));
        }
        let Some((method, instance)) = self.open else {
            return Err(Error::Protocol(format!("{name} was called before the method was built")));
        };
        let mut harness = host.map(Harness::new);
        let context = harness.as_mut().map(Harness::context);
        let context = context.as_ref().map_or(std::ptr::null(), |c| &raw const *c);
        // SAFETY: the library was opened for this version of the ABI, so its functions are what the
        // table says, and keep the rules.
        let answer = unsafe { dispatch(&method, instance, call, context, self.writer) };
        let (cause, by_harness) = harness.map_or((None, false), |h| (h.error, h.by_harness));
        match (answer, cause) {
            // What the harness itself failed with says more than what came back of it.
            (Ok(Answer::Failed(failure)), Some(error))
                if by_harness && failure.text.contains(&Failure::from(&error).text) =>
            {
                Err(error)
            }
            (Ok(Answer::Failed(failure)), _) => Ok(Answer::Failed(failure)),
            // A failed request that the plugin did not mind is a failure all the same: what came
            // after it rests on nothing.
            (Ok(_), Some(error)) => Err(error),
            (Ok(answer), None) => Ok(answer),
            (Err(_), Some(error)) => Err(error),
            (Err(text), None) => Ok(wrong(text)),
        }
    }
}

/// The backbone of a run, with texts in `kept`.
fn backbone(kept: &mut Kept, from: &BackboneOffer) -> CilBackbone {
    CilBackbone {
        entry: kept.text(&from.entry),
        name: kept.text(&from.name),
        weights: from.weights.as_ref().map_or(std::ptr::null(), |w| kept.text(w)),
        weights_hash: kept.text(&from.weights_hash),
        dim: from.dim as u64,
        blocks: from.blocks as u64,
        heads: from.heads as u64,
        patch: from.patch as u64,
        image_size: from.image_size as u64,
        mean: from.mean,
        std: from.std,
        ..CilBackbone::empty()
    }
}

impl BinaryLink {
    fn build(&mut self, from: &Construction) -> Read<Answer> {
        let Some((_, method)) = self.methods.iter().find(|(name, _)| *name == from.method) else {
            return Err(format!("there is no method '{}' in the library", from.method));
        };
        let mut kept = Kept::default();
        let backbone = backbone(&mut kept, &from.backbone);
        let setup = CilSetup {
            config: kept.text(&from.config),
            device: kept.text(&from.device),
            dtype: codes::element_code(from.dtype),
            revision: REVISION,
            backbone: &raw const backbone,
            ..CilSetup::empty()
        };
        let create = method.create.ok_or("create is a null pointer")?;
        let mut instance = std::ptr::null_mut();
        // SAFETY: as in `call`; setup, backbone and texts live until the function has returned.
        if let Some(failure) = unsafe { flat::failure(create(&setup, &mut instance)) } {
            return Ok(Answer::Failed(failure));
        }
        if instance.is_null() {
            return Err("create gave a null pointer and no failure".into());
        }
        self.open = Some((*method, instance));
        Ok(Answer::Done)
    }
}

/// Calls a function of the library; a failure is an answer, and what cannot be understood an error.
///
/// # Safety
/// The library keeps the rules of the ABI.
unsafe fn dispatch(
    method: &CilMethod,
    instance: *mut c_void,
    call: Call,
    context: *const CilContext,
    writer: Writer,
) -> Read<Answer> {
    let mut kept = Kept::default();
    macro_rules! run {
        ($function:ident($($argument:expr),*)) => {
            match method.$function {
                // SAFETY: the caller's promise; what is passed lives until the function returns.
                Some(function) => {
                    let status = unsafe { function(instance, $($argument),*) };
                    if let Some(failure) = unsafe { flat::failure(status) } {
                        return Ok(Answer::Failed(failure));
                    }
                }
                None => return Err(concat!(stringify!($function), " is a null pointer").into()),
            }
        };
    }
    // What the function wrote, as far as it is known here. Its writer says how much that is.
    macro_rules! written {
        ($out:ident) => {
            // SAFETY: a whole struct of this side, which the function filled by the rules.
            unsafe { sized::read_from(&raw const $out, writer)? }
        };
    }
    match call {
        Call::Build(_) => return Err("the method is built already".into()),
        Call::Check { .. } if method.check.is_none() => {}
        Call::Check { scenario } => run!(check(&kept::scenario(&scenario))),
        Call::Plan { task } => {
            let mut out = CilPlan::empty();
            run!(plan(&kept.task(&task), &mut out));
            return Ok(Answer::Plan(flat::plan(&written!(out))?));
        }
        Call::BeginTask { task } => run!(begin_task(&kept.task(&task), context)),
        Call::EndTask { task } => run!(end_task(&kept.task(&task), context)),
        Call::Observe { batch, epoch, step, task } => {
            let (batch, task) = (kept.batch(batch)?, kept.task(&task));
            let mut out = CilLosses::empty();
            run!(observe(&batch, epoch as u64, step as u64, &task, context, &mut out));
            let losses = written!(out);
            // SAFETY: the plugin's list lives until its next call, here and below.
            return Ok(Answer::Losses(unsafe { flat::losses(&losses)? }));
        }
        Call::Predict { images } => {
            let mut out = CilLogits::empty();
            run!(predict(&kept.images(images)?, &mut out));
            let CilLogits { rows, columns, data, .. } = written!(out);
            let count = rows.checked_mul(columns).ok_or("more logits than there is memory")?;
            // SAFETY: as above.
            let values = unsafe { flat::list("logits", data, count)? };
            return Ok(Answer::Logits(Array::from_f32([rows as usize, columns as usize], values)));
        }
        Call::ClsTokens { .. } if method.cls_tokens.is_none() => {
            return Ok(Answer::ClsTokens(None));
        }
        Call::ClsTokens { images } => {
            let mut out = CilTensor::empty();
            run!(cls_tokens(&kept.images(images)?, &mut out));
            // SAFETY: as above.
            return Ok(Answer::ClsTokens(unsafe { flat::optional_tensor("CLS tokens", &out)? }));
        }
        Call::State => {
            let mut out = CilState::empty();
            run!(state(&mut out));
            let state = written!(out);
            // SAFETY: as above.
            return Ok(Answer::State(unsafe { flat::state(&state)? }));
        }
        Call::Restore { state, tasks, running } => {
            let (state, list) = (kept.state(&state), kept.tasks(&tasks));
            run!(restore(&state, list, tasks.len() as u64, running.into()));
        }
        Call::Export if method.export_model.is_none() => {
            let text = "this method's model cannot be written as a backbone with a linear head";
            let failure = Failure { class: FailureClass::Unsupported, text: text.to_owned() };
            return Ok(Answer::Failed(failure));
        }
        Call::Export => {
            let mut out = CilModel::empty();
            run!(export_model(&mut out));
            let model = written!(out);
            // SAFETY: as above.
            return Ok(Answer::Model(unsafe { flat::model(&model)? }));
        }
    }
    Ok(Answer::Done)
}
