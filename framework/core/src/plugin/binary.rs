//! The harness's side of a binary plugin: messages as calls of the library's functions.

use std::ffi::{c_char, c_void};

use super::abi::*;
use super::flat::{self, Kept, Read};
use super::messages::{Answer, Call, Construction, Failure, FailureClass, PlainModel};
use super::remote::{Connect, Link};
use crate::array::Array;
use crate::context::{Host, Law, MemoryRequest, PlainBatch, Reply, Request};
use crate::error::catching;
use crate::method::{Losses, Plan};
use crate::{Error, Result};

/// The methods of an open library, by name.
pub(super) struct Library(pub(super) Vec<(String, CilMethod)>);
// SAFETY: the tables are never written to, and what they point to is valid for good by the rules of the ABI.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Connect for Library {
    fn connect(&self) -> Result<Box<dyn Link>> {
        Ok(Box::new(BinaryLink { methods: self.0.clone(), open: None }))
    }
}

/// An instance of a library's method, once it is built.
struct BinaryLink {
    methods: Vec<(String, CilMethod)>,
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
        let mut harness = host.map(|host| Harness { host, kept: Kept::default(), error: None, by_harness: false });
        let context = harness.as_mut().map(Harness::context);
        let context = context.as_ref().map_or(std::ptr::null(), |c| &raw const *c);
        // SAFETY: the library was opened for this version of the ABI, so its functions are what the table says, and keep the rules.
        let answer = unsafe { dispatch(&method, instance, call, context) };
        let (cause, by_harness) = harness.map_or((None, false), |h| (h.error, h.by_harness));
        match (answer, cause) {
            // What the harness itself failed with says more than what came back of it.
            (Ok(Answer::Failed(failure)), Some(error)) if by_harness && failure.text.contains(&Failure::from(&error).text) => Err(error),
            (Ok(Answer::Failed(failure)), _) => Ok(Answer::Failed(failure)),
            // A failed request that the plugin did not mind is a failure all the same: what came after it rests on nothing.
            (Ok(_), Some(error)) => Err(error),
            (Ok(answer), None) => Ok(answer),
            (Err(_), Some(error)) => Err(error),
            (Err(text), None) => Ok(wrong(text)),
        }
    }
}

impl BinaryLink {
    fn build(&mut self, from: &Construction) -> Read<Answer> {
        let Some((_, method)) = self.methods.iter().find(|(name, _)| *name == from.method) else {
            return Err(format!("there is no method '{}' in the library", from.method));
        };
        let (mut kept, b) = (Kept::default(), &from.backbone);
        let setup = CilSetup {
            config: kept.text(&from.config),
            device: kept.text(&from.device),
            dtype: flat::element_code(from.dtype),
            backbone: CilBackbone {
                entry: kept.text(&b.entry),
                name: kept.text(&b.name),
                weights: b.weights.as_ref().map_or(std::ptr::null(), |w| kept.text(w)),
                weights_hash: kept.text(&b.weights_hash),
                dim: b.dim as u64,
                blocks: b.blocks as u64,
                heads: b.heads as u64,
                patch: b.patch as u64,
                image_size: b.image_size as u64,
                mean: b.mean,
                std: b.std,
            },
        };
        let create = method.create.ok_or("create is a null pointer")?;
        let mut instance = std::ptr::null_mut();
        // SAFETY: as in `call`.
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
unsafe fn dispatch(method: &CilMethod, instance: *mut c_void, call: Call, context: *const CilContext) -> Read<Answer> {
    let mut kept = Kept::default();
    macro_rules! run {
        ($function:ident($($argument:expr),*)) => {
            match method.$function {
                // SAFETY: the caller's promise.
                Some(function) => if let Some(failure) = unsafe { flat::failure(function(instance, $($argument),*)) } {
                    return Ok(Answer::Failed(failure));
                },
                None => return Err(concat!(stringify!($function), " is a null pointer").into()),
            }
        };
    }
    match call {
        Call::Build(_) => return Err("the method is built already".into()),
        Call::Check { .. } if method.check.is_none() => {}
        Call::Check { scenario } => run!(check(scenario.classes as u64)),
        Call::Plan { task } => {
            let mut plan = CilPlan { epochs: 0, batch_size: 0, view: 0 };
            run!(plan(&kept.task(&task), &mut plan));
            let [epochs, batch_size] = [plan.epochs as usize, plan.batch_size as usize];
            return Ok(Answer::Plan(Plan::epochs(epochs, batch_size, flat::view(plan.view)?)));
        }
        Call::BeginTask { task } => run!(begin_task(&kept.task(&task), context)),
        Call::EndTask { task } => run!(end_task(&kept.task(&task), context)),
        Call::Observe { batch, epoch, step, task } => {
            let (batch, task) = (kept.batch(batch)?, kept.task(&task));
            let mut losses = CilLosses { count: 0, items: std::ptr::null() };
            run!(observe(&batch, epoch as u64, step as u64, &task, context, &mut losses));
            // SAFETY: the caller's promise, here and below.
            let items = unsafe { flat::list("loss terms", losses.items, losses.count)? };
            let one = |loss: &CilLoss| Ok((unsafe { flat::text("the name of a loss term", loss.name)? }, loss.value));
            return Ok(Answer::Losses(Losses(items.iter().map(one).collect::<Read<_>>()?)));
        }
        Call::Predict { images } => {
            let mut out = CilLogits { rows: 0, columns: 0, data: std::ptr::null() };
            run!(predict(&kept.images(images)?, &mut out));
            let count = out.rows.checked_mul(out.columns).ok_or("more logits than there is memory")?;
            let values = unsafe { flat::list("logits", out.data, count)? };
            return Ok(Answer::Logits(Array::from_f32([out.rows as usize, out.columns as usize], values)));
        }
        Call::ClsTokens { .. } if method.cls_tokens.is_none() => return Ok(Answer::ClsTokens(None)),
        Call::ClsTokens { images } => {
            let mut out = flat::no_tensor();
            run!(cls_tokens(&kept.images(images)?, &mut out));
            return Ok(Answer::ClsTokens(unsafe { flat::optional_tensor("CLS tokens", &out)? }));
        }
        Call::State => {
            let mut out = CilState { count: 0, items: std::ptr::null() };
            run!(state(&mut out));
            return Ok(Answer::State(unsafe { flat::state(&out)? }));
        }
        Call::Restore { state, tasks, running } => {
            let (count, items) = kept.entries(flat::state_entries(state).into_iter());
            let list = kept.tasks(&tasks);
            run!(restore(&CilState { count, items }, list, tasks.len() as u64, running.into()));
        }
        Call::Export if method.export_model.is_none() => {
            let text = "this method's model cannot be written as a backbone with a linear head".to_owned();
            return Ok(Answer::Failed(Failure { class: FailureClass::Unsupported, text }));
        }
        Call::Export => {
            let mut out = CilModel { count: 0, items: std::ptr::null(), pair_count: 0, pairs: std::ptr::null() };
            run!(export_model(&mut out));
            let tensors = unsafe { flat::entries(out.count, out.items)? }.into_iter().map(|(name, _, value)| (name, value));
            let pairs = unsafe { flat::list("metadata", out.pairs, out.pair_count)? };
            let pair = |p: &CilPair| unsafe { Ok((flat::text("a key", p.key)?, flat::text("a value", p.value)?)) };
            return Ok(Answer::Model(PlainModel { tensors: tensors.collect(), metadata: pairs.iter().map(pair).collect::<Read<_>>()? }));
        }
    }
    Ok(Answer::Done)
}

/// The harness behind a [`CilContext`].
struct Harness<'a> {
    host: &'a mut dyn Host,
    /// What the last request was answered with.
    kept: Kept,
    /// The first request that failed.
    error: Option<Error>,
    /// Whether what failed there was the harness's answer, and not the plugin's asking.
    by_harness: bool,
}

impl Harness<'_> {
    fn context(&mut self) -> CilContext {
        CilContext {
            host: std::ptr::from_mut(self).cast(),
            probing: self.host.probing().into(),
            draw,
            given,
            open_pass,
            next_batch,
            probe,
            memory_insert,
            memory_remove,
            memory_list,
            memory_read,
        }
    }

    /// Answers a request and writes the reply; what the harness fails with is kept, as it is, for the end of the call.
    ///
    /// # Safety
    /// `host` is the one of [`Harness::context`], while the call lasts.
    unsafe fn respond(
        host: *mut c_void,
        read: impl FnOnce() -> Read<Request>,
        write: impl FnOnce(&mut Kept, Reply) -> Read<()>,
    ) -> CilStatus {
        // SAFETY: the caller's promise.
        let Self { host, kept, error, by_harness } = unsafe { &mut *host.cast::<Harness<'_>>() };
        let done = catching(|| {
            // Read first: a plugin may hand on what the last request gave it, which lives until here.
            let request = read().map_err(|what| Error::Protocol(format!("the plugin asked with {what}")))?;
            *kept = Kept::default();
            if let Some(failed) = error {
                return Err(Failure::from(&*failed).error());
            }
            let reply = catching(|| host.answer(request)).inspect_err(|_| *by_harness = true)?;
            write(kept, reply).map_err(Error::Protocol)
        });
        match done {
            Ok(()) => flat::ok(),
            Err(failed) => {
                let told = kept.status(&Failure::from(&failed));
                error.get_or_insert(failed);
                told
            }
        }
    }
}

fn other(reply: &Reply) -> String {
    format!("the harness answered with something else: {reply:?}")
}

/// Writes to an out parameter of the plugin's.
///
/// # Safety
/// A pointer that is not null has room for a value.
unsafe fn put<T>(out: *mut T, value: T) -> Read<()> {
    if out.is_null() {
        return Err("the plugin passed a null pointer for what it wants to know".into());
    }
    // SAFETY: not null; the caller's promise.
    unsafe { out.write(value) };
    Ok(())
}

#[allow(clippy::too_many_arguments)]
unsafe extern "C" fn draw(
    host: *mut c_void,
    name: *const c_char,
    shape: *const u64,
    rank: u64,
    law: u32,
    low: f64,
    high: f64,
    out: *mut CilTensor,
) -> CilStatus {
    // SAFETY: what the plugin passes is whole, here and in the functions below.
    let read = || unsafe {
        let law = match law {
            LAW_UNIFORM => Law::Uniform { low, high },
            LAW_NORMAL => Law::Normal,
            LAW_PERMUTATION => Law::Permutation,
            _ => return Err(format!("a law {law}, which there is not")),
        };
        let shape = flat::list("a shape", shape, rank)?.iter().map(|n| *n as usize).collect();
        Ok(Request::Draw { name: flat::text("the name of a draw", name)?, shape, law })
    };
    let write = |kept: &mut Kept, reply| match reply {
        // SAFETY: as above.
        Reply::Array(array) => unsafe { put(out, kept.tensor(array)) },
        reply => Err(other(&reply)),
    };
    // SAFETY: as above.
    unsafe { Harness::respond(host, read, write) }
}

unsafe extern "C" fn given(host: *mut c_void, name: *const c_char, out: *mut CilTensor) -> CilStatus {
    let write = |kept: &mut Kept, reply| match reply {
        // SAFETY: as above.
        Reply::Given(array) => unsafe { put(out, kept.optional(array)) },
        reply => Err(other(&reply)),
    };
    // SAFETY: as above.
    unsafe { Harness::respond(host, || Ok(Request::Given { name: flat::text("the name of a given quantity", name)? }), write) }
}

unsafe extern "C" fn open_pass(host: *mut c_void, view: u32, batch_size: u64, out: *mut u32) -> CilStatus {
    let write = |_: &mut Kept, reply| match reply {
        // SAFETY: as above.
        Reply::Pass(pass) => unsafe { put(out, pass) },
        reply => Err(other(&reply)),
    };
    // SAFETY: as above.
    unsafe { Harness::respond(host, || Ok(Request::OpenPass { view: flat::view(view)?, batch_size: batch_size as usize }), write) }
}

/// Writes a batch, or one of no images for none.
fn write_batch(out: *mut CilBatch) -> impl FnOnce(&mut Kept, Reply) -> Read<()> {
    move |kept, reply| {
        let batch = match reply {
            Reply::Batch(Some(batch)) => kept.batch(batch)?,
            Reply::Batch(None) => {
                kept.batch(PlainBatch { images: Array::from_f32([0, 3, 0, 0], &[]), labels: vec![], positions: vec![] })?
            }
            reply => return Err(other(&reply)),
        };
        // SAFETY: the plugin passes room for a batch.
        unsafe { put(out, batch) }
    }
}

unsafe extern "C" fn next_batch(host: *mut c_void, pass: u32, out: *mut CilBatch) -> CilStatus {
    // SAFETY: as above.
    unsafe { Harness::respond(host, || Ok(Request::NextBatch { pass }), write_batch(out)) }
}

fn expect_done(_: &mut Kept, reply: Reply) -> Read<()> {
    if reply == Reply::Done { Ok(()) } else { Err(other(&reply)) }
}

unsafe extern "C" fn probe(host: *mut c_void, name: *const c_char, value: *const CilTensor) -> CilStatus {
    // SAFETY: as above.
    let read = || unsafe {
        let value = value.as_ref().ok_or("a null pointer for a probe's value")?;
        Ok(Request::Probe { name: flat::text("the name of a probe", name)?, value: flat::tensor("a probe", value)? })
    };
    // SAFETY: as above.
    unsafe { Harness::respond(host, read, expect_done) }
}

/// Writes exemplars.
fn write_exemplars(out: *mut CilExemplars) -> impl FnOnce(&mut Kept, Reply) -> Read<()> {
    move |kept, reply| match reply {
        // SAFETY: the plugin passes room for a list.
        Reply::Exemplars(exemplars) => unsafe { put(out, kept.exemplars(exemplars)) },
        reply => Err(other(&reply)),
    }
}

unsafe extern "C" fn memory_insert(
    host: *mut c_void,
    positions: *const u64,
    count: u64,
    payload: *const CilTensor,
    out: *mut CilExemplars,
) -> CilStatus {
    // SAFETY: as above.
    let read = || unsafe {
        let positions = flat::list("positions", positions, count)?.iter().map(|p| *p as usize).collect();
        let payload = payload.as_ref().map(|p| flat::tensor("a payload", p)).transpose()?;
        Ok(Request::Memory(MemoryRequest::Insert { positions, payload }))
    };
    // SAFETY: as above.
    unsafe { Harness::respond(host, read, write_exemplars(out)) }
}

unsafe extern "C" fn memory_remove(host: *mut c_void, ids: *const u64, count: u64) -> CilStatus {
    // SAFETY: as above.
    let read = || unsafe { Ok(Request::Memory(MemoryRequest::Remove { ids: flat::list("ids", ids, count)?.to_vec() })) };
    // SAFETY: as above.
    unsafe { Harness::respond(host, read, expect_done) }
}

unsafe extern "C" fn memory_list(host: *mut c_void, out: *mut CilExemplars) -> CilStatus {
    // SAFETY: as above.
    unsafe { Harness::respond(host, || Ok(Request::Memory(MemoryRequest::List)), write_exemplars(out)) }
}

unsafe extern "C" fn memory_read(host: *mut c_void, ids: *const u64, count: u64, view: u32, out: *mut CilBatch) -> CilStatus {
    // SAFETY: as above.
    let read =
        || unsafe { Ok(Request::Memory(MemoryRequest::Read { ids: flat::list("ids", ids, count)?.to_vec(), view: flat::view(view)? })) };
    // SAFETY: as above.
    unsafe { Harness::respond(host, read, write_batch(out)) }
}

#[cfg(test)]
#[path = "binary_test.rs"]
mod tests;
