//! The author's side of a binary plugin: any registered method as the functions of the ABI.

use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

use super::abi::*;
use super::asking::Harness;
use super::codes;
use super::flat::{self, Read};
use super::kept::{self, Kept};
use super::messages::{Answer, BackboneOffer, Call, Construction, Failure};
use super::serve::{Instance, build};
use super::sized::{self, Writer};
use crate::array::{Array, Element};
use crate::config;
use crate::context::NoHost;
use crate::error::catching;
use crate::method::{Method, MethodEntry, Plan};
use crate::{Error, Result};

/// Makes a dynamic library of methods: put it into a crate with `crate-type = ["cdylib"]`. A method
/// may be given another name.
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
            let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
            $crate::plugin::export::plugin(name, version, || {
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

/// What [`export_method!`](crate::export_method) calls: the library's table, made by the first
/// call.
pub fn plugin(name: &str, version: &str, methods: fn() -> Vec<CilMethod>) -> *const CilPlugin {
    static TABLE: OnceLock<Option<Table>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let methods = catching(|| Ok(methods())).ok()?.leak();
        let (name, version) = (forever(name), forever(version));
        Some(Table(CilPlugin {
            abi: VERSION,
            revision: REVISION,
            method_count: methods.len() as u32,
            name,
            version,
            methods: methods.as_ptr(),
            ..CilPlugin::empty()
        }))
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
        trial_settings: forever(about.trial.settings),
        fields: forever(&config::fields_to_json(&config::fields::<M::Config>())),
        access: codes::access_code(about.access),
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
        ..CilMethod::empty()
    }
}

fn forever(text: &str) -> *const c_char {
    Box::leak(Box::<Kept>::default()).text(text)
}

/// An instance: the method, and what its last call gave back.
struct Exported {
    instance: Instance,
    harness: Writer,
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
        let (from, harness) = unsafe { construction(M::ABOUT.name, setup) }.map_err(misread)?;
        let instance = build(&MethodEntry::of::<M>(), &from)?;
        Ok(Exported { instance, harness, kept: Kept::default() })
    });
    match made {
        Ok(exported) => {
            // SAFETY: the host passes room for a pointer.
            unsafe { *out = Box::into_raw(Box::new(exported)).cast() };
            kept::ok()
        }
        Err(error) => KEPT.with_borrow_mut(|kept| {
            *kept = Kept::default();
            kept.status(&Failure::from(&error))
        }),
    }
}

/// What to build, and who says so.
///
/// # Safety
/// As [`sized::read`]; texts are null or end with a zero.
unsafe fn construction(method: &str, setup: *const CilSetup) -> Read<(Construction, Writer)> {
    // SAFETY: the caller's promise, here and below.
    let setup = unsafe { sized::read(setup)? };
    let harness = Writer::Harness(setup.revision);
    let b = unsafe {
        sized::understood(&setup, setup.size, harness)?;
        sized::read_from(setup.backbone, harness)?
    };
    let dtype = codes::element(setup.dtype);
    let dtype = dtype.ok_or_else(|| format!("there is no element type {}", setup.dtype))?;
    let backbone = unsafe {
        BackboneOffer {
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
        }
    };
    let (config, device) = unsafe {
        let config = flat::text("the configuration", setup.config)?;
        (config, flat::text("the device", setup.device)?)
    };
    Ok((Construction { method: method.to_owned(), config, backbone, device, dtype }, harness))
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
/// `instance` was made by [`create`] and is used by no one else now; `context` is null or a whole
/// context, which lives until this returns.
unsafe fn respond(
    instance: *mut c_void,
    context: *const CilContext,
    read: impl FnOnce(Writer) -> Read<Call>,
    write: impl FnOnce(&mut Kept, Answer) -> Result<()>,
) -> CilStatus {
    // SAFETY: the caller's promise.
    let Exported { instance, harness, kept } = unsafe { &mut *instance.cast::<Exported>() };
    *kept = Kept::default();
    let done = catching(|| {
        let call = read(*harness).map_err(misread)?;
        let answer = if context.is_null() {
            instance.answer(call, &mut NoHost)
        } else {
            // SAFETY: not null; the caller's promise.
            let context = unsafe { sized::read(context) }.map_err(misread)?;
            instance.answer(call, &mut Harness(&context))
        };
        match answer {
            Answer::Failed(failure) => Err(failure.error()),
            answer => write(kept, answer),
        }
    });
    done.map_or_else(|error| kept.status(&Failure::from(&error)), |()| kept::ok())
}

fn nothing(_: &mut Kept, _: Answer) -> Result<()> {
    Ok(())
}

/// Writes to an out parameter of the host's.
///
/// # Safety
/// As [`sized::put`].
unsafe fn put<T: Crossing>(out: *mut T, value: T) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { sized::put(out, value) }.map_err(misread)
}

unsafe extern "C" fn check(instance: *mut c_void, scenario: *const CilScenario) -> CilStatus {
    // SAFETY: what the host passes is whole by the rules of the ABI, here and in the functions
    // below: structs are as long as their sizes say, and lists as their counts.
    let read = |harness| unsafe {
        let scenario = flat::scenario(&sized::read_from(scenario, harness)?);
        Ok(Call::Check { scenario })
    };
    // SAFETY: as above; the instance is of `create`, and calls of it come one at a time.
    unsafe { respond(instance, std::ptr::null(), read, nothing) }
}

/// The call with a task.
fn of_task(
    task: *const CilTask,
    call: fn(crate::scenario::TaskInfo) -> Call,
) -> impl FnOnce(Writer) -> Read<Call> {
    // SAFETY: the functions below pass on what the host passed, which is whole.
    move |harness| unsafe { Ok(call(flat::task(&sized::read_from(task, harness)?)?)) }
}

unsafe extern "C" fn plan(
    instance: *mut c_void,
    task: *const CilTask,
    out: *mut CilPlan,
) -> CilStatus {
    let write = |_: &mut Kept, answer| match answer {
        // SAFETY: as above.
        Answer::Plan(plan) => unsafe { put(out, plain_plan(&plan)) },
        _ => Ok(()),
    };
    let read = of_task(task, |task| Call::Plan { task });
    // SAFETY: as above.
    unsafe { respond(instance, std::ptr::null(), read, write) }
}

fn plain_plan(plan: &Plan) -> CilPlan {
    CilPlan {
        epochs: plan.epochs as u64,
        batch_size: plan.batch_size as u64,
        view: codes::view_code(plan.view),
        drop_last: plan.drop_last.into(),
        steps: plan.steps.unwrap_or(0) as u64,
        test_batch: plan.test_batch.unwrap_or(0) as u64,
        ..CilPlan::empty()
    }
}

unsafe extern "C" fn begin_task(
    instance: *mut c_void,
    task: *const CilTask,
    context: *const CilContext,
) -> CilStatus {
    // SAFETY: as above.
    unsafe { respond(instance, context, of_task(task, |task| Call::BeginTask { task }), nothing) }
}

unsafe extern "C" fn end_task(
    instance: *mut c_void,
    task: *const CilTask,
    context: *const CilContext,
) -> CilStatus {
    // SAFETY: as above.
    unsafe { respond(instance, context, of_task(task, |task| Call::EndTask { task }), nothing) }
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
    let read = |harness| unsafe {
        let batch = flat::batch(&sized::read(batch)?)?;
        let task = flat::task(&sized::read_from(task, harness)?)?;
        Ok(Call::Observe { batch, epoch: epoch as usize, step: step as usize, task })
    };
    let write = |kept: &mut Kept, answer| match answer {
        // SAFETY: as above.
        Answer::Losses(losses) => unsafe { put(out, kept.losses(&losses)) },
        _ => Ok(()),
    };
    // SAFETY: as above.
    unsafe { respond(instance, context, read, write) }
}

unsafe extern "C" fn predict(
    instance: *mut c_void,
    images: *const CilBatch,
    out: *mut CilLogits,
) -> CilStatus {
    let write = |kept: &mut Kept, answer| match answer {
        // SAFETY: as above.
        Answer::Logits(logits) => unsafe { put(out, plain_logits(kept, logits)?) },
        _ => Ok(()),
    };
    // SAFETY: as above.
    let read = |_| unsafe { Ok(Call::Predict { images: flat::images(&sized::read(images)?)? }) };
    // SAFETY: as above.
    unsafe { respond(instance, std::ptr::null(), read, write) }
}

fn plain_logits(kept: &mut Kept, logits: Array) -> Result<CilLogits> {
    let [rows, columns] = logits.shape[..] else {
        let text = format!("logits of shape {:?}, expected (images, classes)", logits.shape);
        return Err(Error::Protocol(text));
    };
    let values = match logits.element {
        Element::F32 => logits,
        _ => {
            let (to, place) = (candle_core::DType::F32, &candle_core::Device::Cpu);
            Array::from_tensor(&logits.to_dtype(to, place)?)?
        }
    };
    let data = kept.aligned(values.bytes).cast();
    Ok(CilLogits { rows: rows as u64, columns: columns as u64, data, ..CilLogits::empty() })
}

unsafe extern "C" fn cls_tokens(
    instance: *mut c_void,
    images: *const CilBatch,
    out: *mut CilTensor,
) -> CilStatus {
    let write = |kept: &mut Kept, answer| match answer {
        // SAFETY: as above.
        Answer::ClsTokens(tokens) => unsafe { put(out, kept.optional(tokens)) },
        _ => Ok(()),
    };
    // SAFETY: as above.
    let read = |_| unsafe { Ok(Call::ClsTokens { images: flat::images(&sized::read(images)?)? }) };
    // SAFETY: as above.
    unsafe { respond(instance, std::ptr::null(), read, write) }
}

unsafe extern "C" fn state(instance: *mut c_void, out: *mut CilState) -> CilStatus {
    let write = |kept: &mut Kept, answer| match answer {
        // SAFETY: as above.
        Answer::State(state) => unsafe { put(out, kept.state(&state)) },
        _ => Ok(()),
    };
    // SAFETY: as above.
    unsafe { respond(instance, std::ptr::null(), |_| Ok(Call::State), write) }
}

unsafe extern "C" fn restore(
    instance: *mut c_void,
    from: *const CilState,
    tasks: *const CilTask,
    count: u64,
    running: u32,
) -> CilStatus {
    // SAFETY: as above.
    let read = |harness| unsafe {
        let tasks = sized::list_from("tasks", tasks, count, harness)?;
        let tasks = tasks.iter().map(|t| flat::task(t)).collect::<Read<_>>()?;
        Ok(Call::Restore { state: flat::state(&sized::read(from)?)?, tasks, running: running != 0 })
    };
    // SAFETY: as above.
    unsafe { respond(instance, std::ptr::null(), read, nothing) }
}

unsafe extern "C" fn export_model(instance: *mut c_void, out: *mut CilModel) -> CilStatus {
    let write = |kept: &mut Kept, answer| match answer {
        // SAFETY: as above.
        Answer::Model(model) => unsafe { put(out, kept.model(model)) },
        _ => Ok(()),
    };
    // SAFETY: as above.
    unsafe { respond(instance, std::ptr::null(), |_| Ok(Call::Export), write) }
}
