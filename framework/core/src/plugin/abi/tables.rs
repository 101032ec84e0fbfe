//! Tables of functions: what each side may call of the other.

use std::ffi::{c_char, c_void};

use super::crossing::{Crossing, Layout, size_of_field, structs};
use super::{
    CilBatch, CilExemplars, CilLogits, CilLosses, CilModel, CilPlan, CilScenario, CilSetup,
    CilState, CilStatus, CilTask, CilTensor,
};

structs! {
    /// What a method may ask of the harness. `host` goes into every function. No function of
    /// revision 0 is null.
    pub struct CilContext until memory_read {
        /// Its size in bytes.
        pub size: u64,
        /// The harness.
        pub host: *mut c_void,
        /// Not 0 if probes are looked at; one that is not need not be computed.
        pub probing: u32,
        /// Random numbers by name and shape, from the method's own stream: f32 (i64 for a
        /// permutation). `(host, name, shape, rank, law, low, high, out)`; the same name drawn
        /// again in a task gives new numbers.
        pub draw: Option<
            unsafe extern "C" fn(
                *mut c_void,
                *const c_char,
                *const u64,
                u64,
                u32,
                f64,
                f64,
                *mut CilTensor,
            ) -> CilStatus,
        >,
        /// A derived random quantity, if the harness prescribes it (a replay does); else
        /// [`NONE`](super::NONE). `(host, name, out)`.
        pub given:
            Option<unsafe extern "C" fn(*mut c_void, *const c_char, *mut CilTensor) -> CilStatus>,
        /// Starts a pass over the task's training images in canonical order.
        /// `(host, view, batch_size, pass)`.
        pub open_pass: Option<unsafe extern "C" fn(*mut c_void, u32, u64, *mut u32) -> CilStatus>,
        /// The next batch of a pass; one of 0 images at its end. `(host, pass, out)`.
        pub next_batch: Option<unsafe extern "C" fn(*mut c_void, u32, *mut CilBatch) -> CilStatus>,
        /// Shows the harness a quantity. `(host, name, value)`.
        pub probe:
            Option<unsafe extern "C" fn(*mut c_void, *const c_char, *const CilTensor) -> CilStatus>,
        /// Stores images of the current task in the memory, with a row of `payload` (may be null)
        /// for each. `(host, positions, count, payload, out)`.
        pub memory_insert: Option<
            unsafe extern "C" fn(
                *mut c_void,
                *const u64,
                u64,
                *const CilTensor,
                *mut CilExemplars,
            ) -> CilStatus,
        >,
        /// Forgets exemplars. `(host, ids, count)`.
        pub memory_remove: Option<unsafe extern "C" fn(*mut c_void, *const u64, u64) -> CilStatus>,
        /// What is stored. `(host, out)`.
        pub memory_list: Option<unsafe extern "C" fn(*mut c_void, *mut CilExemplars) -> CilStatus>,
        /// Reads exemplars. `(host, ids, count, view, out)`.
        pub memory_read: Option<
            unsafe extern "C" fn(*mut c_void, *const u64, u64, u32, *mut CilBatch) -> CilStatus,
        >,
    }

    /// A method. For every task the harness calls `plan`, `begin_task`, `observe` for each batch of
    /// each epoch, `end_task`; then `predict` on the test images of all classes seen so far.
    /// `instance` goes into every function but `create`.
    pub struct CilMethod until required {
        /// Its size in bytes.
        pub size: u64,
        /// The name on the command line.
        pub name: *const c_char,
        /// The version of its arithmetic: raised whenever results change by more than rounding.
        pub version: *const c_char,
        /// One line.
        pub summary: *const c_char,
        /// The paper, as BibTeX; may be empty.
        pub paper: *const c_char,
        /// What it trains, in words.
        pub trains: *const c_char,
        /// TOML with a table of hyper-parameters for each data set; may be empty.
        pub presets: *const c_char,
        /// TOML with the hyper-parameters with which the conformance suite tries it, on top of its
        /// defaults; may be null.
        pub trial_settings: *const c_char,
        /// Hyper-parameters, JSON:
        /// `[{"key": "epochs", "default": 5, "doc": "Passes over the images."}, …]`.
        pub fields: *const c_char,
        /// What it may see of past images: [`ACCESS_STREAM`](super::ACCESS_STREAM),
        /// [`ACCESS_MEMORY`](super::ACCESS_MEMORY) or [`ACCESS_ALL`](super::ACCESS_ALL).
        pub access: u32,
        /// Builds an instance. Checks every hyper-parameter. `(setup, instance)`.
        pub create: Option<unsafe extern "C" fn(*const CilSetup, *mut *mut c_void) -> CilStatus>,
        /// Ends an instance.
        pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
        /// Whether its hyper-parameters suit a scenario; may be null. `(instance, scenario)`.
        pub check: Option<unsafe extern "C" fn(*mut c_void, *const CilScenario) -> CilStatus>,
        /// How a task's images are to be served. `(instance, task, out)`. It is asked before the
        /// task, and again for `test_batch` when the task is scored.
        pub plan:
            Option<unsafe extern "C" fn(*mut c_void, *const CilTask, *mut CilPlan) -> CilStatus>,
        /// A task begins: make room for its classes. `(instance, task, context)`.
        pub begin_task: Option<
            unsafe extern "C" fn(*mut c_void, *const CilTask, *const CilContext) -> CilStatus,
        >,
        /// One optimisation step. `(instance, batch, epoch, step, task, context, out)`.
        pub observe: Option<
            unsafe extern "C" fn(
                *mut c_void,
                *const CilBatch,
                u64,
                u64,
                *const CilTask,
                *const CilContext,
                *mut CilLosses,
            ) -> CilStatus,
        >,
        /// The last epoch is over. `(instance, task, context)`.
        pub end_task: Option<
            unsafe extern "C" fn(*mut c_void, *const CilTask, *const CilContext) -> CilStatus,
        >,
        /// Logits over the classes seen so far. `(instance, images, out)`.
        pub predict:
            Option<unsafe extern "C" fn(*mut c_void, *const CilBatch, *mut CilLogits) -> CilStatus>,
        /// The normalised CLS token after every block, (count, blocks, dim), or
        /// [`NONE`](super::NONE); may be null. `(instance, images, out)`.
        pub cls_tokens:
            Option<unsafe extern "C" fn(*mut c_void, *const CilBatch, *mut CilTensor) -> CilStatus>,
        /// Everything the method carries. `(instance, out)`.
        pub state: Option<unsafe extern "C" fn(*mut c_void, *mut CilState) -> CilStatus>,
        /// Takes over a state into a fresh instance: the tasks begun so far, and whether the last
        /// of them is still in training. `(instance, state, tasks, count, running)`.
        pub restore: Option<
            unsafe extern "C" fn(
                *mut c_void,
                *const CilState,
                *const CilTask,
                u64,
                u32,
            ) -> CilStatus,
        >,
        /// The model as plain tensors; may be null. `(instance, out)`.
        pub export_model: Option<unsafe extern "C" fn(*mut c_void, *mut CilModel) -> CilStatus>,
        /// Later fields that the reader must understand; null if there are none.
        pub required: *const c_char,
    }

    /// A plugin.
    pub struct CilPlugin until required {
        /// The version of the ABI it was built for: [`VERSION`](super::VERSION).
        pub abi: u32,
        /// Its size in bytes.
        pub size: u32,
        /// The revision of the ABI it was built for: its [`REVISION`](super::REVISION).
        pub revision: u32,
        /// The number of its methods, at least 1.
        pub method_count: u32,
        /// Its name.
        pub name: *const c_char,
        /// Its version.
        pub version: *const c_char,
        /// Its methods.
        pub methods: *const CilMethod,
        /// Later fields that the reader must understand; null if there are none.
        pub required: *const c_char,
    }
}
