//! The author's side of a binary plugin: any registered method as the functions of the ABI.

use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

use super::abi::{self, *};
use super::flat::{self, Kept, Read};
use super::messages::{Answer, BackboneOffer, Call, Construction, Failure};
use super::serve::{Instance, build};
use crate::array::{Array, Element};
use crate::config;
use crate::context::NoHost;
use crate::context::{Host, Law, MemoryRequest, Reply, Request};
use crate::error::catching;
use crate::method::{Method, MethodEntry};
use crate::scenario::ScenarioFacts;
use crate::state::Kind;
use crate::{Error, Result};

/// Makes a dynamic library of methods: put it into a crate with `crate-type = ["cdylib"]`. A method may be given another name.
///
/// ```ignore
/// cilbench::export_method!(MyMethod);
/// cilbench::export_method!(MyMethod, Other as "my-other-method");
/// ```
#[macro_export]
macro_rules! export_method {
    ($($method:ty $(as $name:literal)?),+ $(,)?) => {
        /// The one symbol of a binary plugin of cilbench.
        #[unsafe(no_mangle)]
        pub extern "C" fn cilbench_plugin() -> *const $crate::plugin::abi::CilPlugin {
            $crate::plugin::export::plugin(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), || {
                vec![$($crate::plugin::export::method::<$method>(&[$($name)?])),+]
            })
        }
    };
}

/// What the library says of itself, made once and kept for good.
struct Table(CilPlugin);
// SAFETY: nothing in it ever changes, and what it points to is leaked.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// What [`export_method!`](crate::export_method) calls: the library's table, made by the first call.
pub fn plugin(name: &str, version: &str, methods: fn() -> Vec<CilMethod>) -> *const CilPlugin {
    static TABLE: OnceLock<Option<Table>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let methods = catching(|| Ok(methods())).ok()?.leak();
        let (name, version) = (forever(name), forever(version));
        Some(Table(CilPlugin { abi: abi::VERSION, method_count: methods.len() as u32, name, version, methods: methods.as_ptr() }))
    });
    table.as_ref().map_or(std::ptr::null(), |t| &raw const t.0)
}

/// The functions of a method; `name` is another name for it, if there is one.
pub fn method<M: Method>(name: &[&str]) -> CilMethod {
    let about = M::ABOUT;
    CilMethod {
        name: forever(name.first().unwrap_or(&about.name)),
        version: forever(about.version),
        summary: forever(about.summary),
        paper: forever(about.paper),
        trains: forever(about.trains),
        presets: forever(about.presets),
        fields: forever(&config::fields_to_json(&config::fields::<M::Config>())),
        access: flat::access_code(about.access),
        create: Some(create::<M>),
        destroy: Some(destroy),
        check: Some(check),
        plan: Some(plan),
        begin_task: Some(begin_task),
        observe: Some(observe),
        end_task: Some(end_task),
        predict: Some(predict),
        cls_tokens: Some(cls_tokens),
        state: Some(state),
        restore: Some(restore),
        export_model: Some(export_model),
    }
}

fn forever(text: &str) -> *const c_char {
    Box::leak(Box::<Kept>::default()).text(text)
}

/// An instance: the method, and what its last call gave back.
struct Exported {
    instance: Instance,
    kept: Kept,
}

/// An error of reading what the host gave.
fn misread(what: String) -> Error {
    Error::Protocol(format!("from the harness: {what}"))
}

unsafe extern "C" fn create<M: Method>(setup: *const CilSetup, out: *mut *mut c_void) -> CilStatus {
    thread_local!(static KEPT: RefCell<Kept> = RefCell::default());
    let made = catching(|| {
        // SAFETY: the host passes a whole setup, which is valid until this returns.
        let from = unsafe { construction(M::ABOUT.name, &*setup) }.map_err(misread)?;
        build(&MethodEntry::of::<M>(), &from)
    });
    match made {
        Ok(instance) => {
            let exported = Box::new(Exported { instance, kept: Kept::default() });
            // SAFETY: the host passes room for a pointer.
            unsafe { *out = Box::into_raw(exported).cast() };
            flat::ok()
        }
        Err(error) => KEPT.with_borrow_mut(|kept| {
            *kept = Kept::default();
            kept.status(&Failure::from(&error))
        }),
    }
}

/// # Safety
/// Texts are null or end with a zero.
unsafe fn construction(method: &str, setup: &CilSetup) -> Read<Construction> {
    let b = &setup.backbone;
    // SAFETY: the caller's promise.
    unsafe {
        Ok(Construction {
            method: method.to_owned(),
            config: flat::text("the configuration", setup.config)?,
            device: flat::text("the device", setup.device)?,
            dtype: flat::element(setup.dtype).ok_or_else(|| format!("there is no element type {}", setup.dtype))?,
            backbone: BackboneOffer {
                entry: flat::text("the backbone's kind", b.entry)?,
                name: flat::text("the backbone's name", b.name)?,
                weights: flat::optional_text("the weights", b.weights)?,
                weights_hash: flat::text("the weights' hash", b.weights_hash)?,
                dim: b.dim as usize,
                blocks: b.blocks as usize,
                heads: b.heads as usize,
                patch: b.patch as usize,
                image_size: b.image_size as usize,
                mean: b.mean,
                std: b.std,
            },
        })
    }
}

unsafe extern "C" fn destroy(instance: *mut c_void) {
    // SAFETY: made by `create`, and destroyed once.
    let exported = unsafe { Box::from_raw(instance.cast::<Exported>()) };
    let _ = catching(|| {
        drop(exported);
        Ok(())
    });
}

/// Reads the call, has it answered, and writes what came out.
///
/// # Safety
/// `instance` was made by [`create`] and is used by no one else now; `context` is null or a whole context.
unsafe fn respond(
    instance: *mut c_void,
    context: *const CilContext,
    read: impl FnOnce() -> Read<Call>,
    write: impl FnOnce(&mut Kept, Answer) -> Result<()>,
) -> CilStatus {
    // SAFETY: the caller's promise.
    let Exported { instance, kept } = unsafe { &mut *instance.cast::<Exported>() };
    *kept = Kept::default();
    let done = catching(|| {
        let call = read().map_err(misread)?;
        // SAFETY: the caller's promise.
        let answer = match unsafe { context.as_ref() } {
            Some(context) => instance.answer(call, &mut Harness(context)),
            None => instance.answer(call, &mut NoHost),
        };
        match answer {
            Answer::Failed(failure) => Err(failure.error()),
            answer => write(kept, answer),
        }
    });
    done.map_or_else(|error| kept.status(&Failure::from(&error)), |()| flat::ok())
}

fn nothing(_: &mut Kept, _: Answer) -> Result<()> {
    Ok(())
}

unsafe extern "C" fn check(instance: *mut c_void, classes: u64) -> CilStatus {
    // SAFETY: what the host passes is whole, here and in the functions below.
    unsafe {
        respond(
            instance,
            std::ptr::null(),
            || Ok(Call::Check { scenario: ScenarioFacts { classes: classes as usize, tasks: 0, domain_incremental: false } }),
            nothing,
        )
    }
}

unsafe extern "C" fn plan(instance: *mut c_void, task: *const CilTask, out: *mut CilPlan) -> CilStatus {
    let write = |_: &mut Kept, answer| {
        if let Answer::Plan(p) = answer {
            // SAFETY: as above.
            unsafe { *out = CilPlan { epochs: p.epochs as u64, batch_size: p.batch_size as u64, view: flat::view_code(p.view) } };
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { respond(instance, std::ptr::null(), || Ok(Call::Plan { task: flat::task(&*task)? }), write) }
}

unsafe extern "C" fn begin_task(instance: *mut c_void, task: *const CilTask, context: *const CilContext) -> CilStatus {
    // SAFETY: as above.
    unsafe { respond(instance, context, || Ok(Call::BeginTask { task: flat::task(&*task)? }), nothing) }
}

unsafe extern "C" fn end_task(instance: *mut c_void, task: *const CilTask, context: *const CilContext) -> CilStatus {
    // SAFETY: as above.
    unsafe { respond(instance, context, || Ok(Call::EndTask { task: flat::task(&*task)? }), nothing) }
}

unsafe extern "C" fn observe(
    instance: *mut c_void,
    batch: *const CilBatch,
    epoch: u64,
    step: u64,
    task: *const CilTask,
    context: *const CilContext,
    out: *mut CilLosses,
) -> CilStatus {
    // SAFETY: as above.
    let read = || unsafe {
        Ok(Call::Observe { batch: flat::batch(&*batch)?, epoch: epoch as usize, step: step as usize, task: flat::task(&*task)? })
    };
    let write = |kept: &mut Kept, answer| {
        if let Answer::Losses(losses) = answer {
            kept.losses = losses.0.iter().map(|(name, value)| CilLoss { name: kept.text(name), value: *value }).collect();
            // SAFETY: as above.
            unsafe { *out = CilLosses { count: kept.losses.len() as u64, items: kept.losses.as_ptr() } };
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { respond(instance, context, read, write) }
}

unsafe extern "C" fn predict(instance: *mut c_void, images: *const CilBatch, out: *mut CilLogits) -> CilStatus {
    let write = |kept: &mut Kept, answer| {
        if let Answer::Logits(logits) = answer {
            let [rows, columns] = logits.shape[..] else {
                return Err(Error::Protocol(format!("logits of shape {:?}, expected (images, classes)", logits.shape)));
            };
            let values = match logits.element {
                Element::F32 => logits,
                _ => Array::from_tensor(&logits.to_dtype(candle_core::DType::F32, &candle_core::Device::Cpu)?)?,
            };
            // SAFETY: as above.
            unsafe { *out = CilLogits { rows: rows as u64, columns: columns as u64, data: kept.aligned(values.bytes).cast() } };
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { respond(instance, std::ptr::null(), || Ok(Call::Predict { images: flat::images(&*images)? }), write) }
}

unsafe extern "C" fn cls_tokens(instance: *mut c_void, images: *const CilBatch, out: *mut CilTensor) -> CilStatus {
    let write = |kept: &mut Kept, answer| {
        if let Answer::ClsTokens(tokens) = answer {
            // SAFETY: as above.
            unsafe { *out = kept.optional(tokens) };
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { respond(instance, std::ptr::null(), || Ok(Call::ClsTokens { images: flat::images(&*images)? }), write) }
}

unsafe extern "C" fn state(instance: *mut c_void, out: *mut CilState) -> CilStatus {
    let write = |kept: &mut Kept, answer| {
        if let Answer::State(state) = answer {
            let (count, items) = kept.entries(flat::state_entries(state).into_iter());
            // SAFETY: as above.
            unsafe { *out = CilState { count, items } };
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { respond(instance, std::ptr::null(), || Ok(Call::State), write) }
}

unsafe extern "C" fn restore(instance: *mut c_void, from: *const CilState, tasks: *const CilTask, count: u64, running: u32) -> CilStatus {
    // SAFETY: as above.
    let read = || unsafe {
        let tasks = flat::list("tasks", tasks, count)?.iter().map(|t| flat::task(t)).collect::<Read<_>>()?;
        Ok(Call::Restore { state: flat::state(&*from)?, tasks, running: running != 0 })
    };
    // SAFETY: as above.
    unsafe { respond(instance, std::ptr::null(), read, nothing) }
}

unsafe extern "C" fn export_model(instance: *mut c_void, out: *mut CilModel) -> CilStatus {
    let write = |kept: &mut Kept, answer| {
        if let Answer::Model(model) = answer {
            let (count, items) = kept.entries(model.tensors.into_iter().map(|(name, value)| (name, Kind::Trained, value)));
            kept.pairs = model.metadata.iter().map(|(k, v)| CilPair { key: kept.text(k), value: kept.text(v) }).collect();
            // SAFETY: as above.
            unsafe { *out = CilModel { count, items, pair_count: kept.pairs.len() as u64, pairs: kept.pairs.as_ptr() } };
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { respond(instance, std::ptr::null(), || Ok(Call::Export), write) }
}

/// The harness, as a plugin sees it.
struct Harness<'a>(&'a CilContext);

impl Host for Harness<'_> {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        let (c, mut kept) = (self.0, Kept::default());
        let (mut tensor, mut batch, mut exemplars) = (flat::no_tensor(), empty_batch(), CilExemplars { count: 0, items: std::ptr::null() });
        let mut opened = 0;
        // SAFETY: the context is whole and valid while the host's call lasts; what it gives back is read before it is called again.
        unsafe {
            let status = match &request {
                Request::Draw { name, shape, law } => {
                    let (law, low, high) = match law {
                        Law::Uniform { low, high } => (abi::LAW_UNIFORM, *low, *high),
                        Law::Normal => (abi::LAW_NORMAL, 0.0, 0.0),
                        Law::Permutation => (abi::LAW_PERMUTATION, 0.0, 0.0),
                    };
                    (c.draw)(c.host, kept.text(name), kept.sizes(shape), shape.len() as u64, law, low, high, &mut tensor)
                }
                Request::Given { name } => (c.given)(c.host, kept.text(name), &mut tensor),
                Request::OpenPass { view, batch_size } => (c.open_pass)(c.host, flat::view_code(*view), *batch_size as u64, &mut opened),
                Request::NextBatch { pass } => (c.next_batch)(c.host, *pass, &mut batch),
                Request::Probe { name, value } => (c.probe)(c.host, kept.text(name), &kept.tensor(value.clone())),
                Request::Memory(MemoryRequest::Insert { positions, payload }) => {
                    let payload = payload.clone().map(|p| kept.tensor(p));
                    let pointer = payload.as_ref().map_or(std::ptr::null(), |p| &raw const *p);
                    (c.memory_insert)(c.host, kept.sizes(positions), positions.len() as u64, pointer, &mut exemplars)
                }
                Request::Memory(MemoryRequest::Remove { ids }) => (c.memory_remove)(c.host, ids.as_ptr(), ids.len() as u64),
                Request::Memory(MemoryRequest::List) => (c.memory_list)(c.host, &mut exemplars),
                Request::Memory(MemoryRequest::Read { ids, view }) => {
                    (c.memory_read)(c.host, ids.as_ptr(), ids.len() as u64, flat::view_code(*view), &mut batch)
                }
            };
            if let Some(failure) = flat::failure(status) {
                return Err(failure.error());
            }
            let reply = || -> Read<Reply> {
                Ok(match &request {
                    Request::Draw { .. } => Reply::Array(flat::tensor("a draw", &tensor)?),
                    Request::Given { .. } => Reply::Given(flat::optional_tensor("a given quantity", &tensor)?),
                    Request::OpenPass { .. } => Reply::Pass(opened),
                    Request::NextBatch { .. } if batch.count == 0 => Reply::Batch(None),
                    Request::NextBatch { .. } | Request::Memory(MemoryRequest::Read { .. }) => Reply::Batch(Some(flat::batch(&batch)?)),
                    Request::Probe { .. } | Request::Memory(MemoryRequest::Remove { .. }) => Reply::Done,
                    Request::Memory(MemoryRequest::Insert { .. } | MemoryRequest::List) => Reply::Exemplars(flat::exemplars(&exemplars)?),
                })
            };
            reply().map_err(misread)
        }
    }

    fn probing(&self) -> bool {
        self.0.probing != 0
    }
}

fn empty_batch() -> CilBatch {
    let (images, labels, positions) = (std::ptr::null(), std::ptr::null(), std::ptr::null());
    CilBatch { count: 0, height: 0, width: 0, images, labels, positions }
}
