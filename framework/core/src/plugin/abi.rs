//! The C ABI of a binary plugin, version 1: every struct that crosses, and the rules. `plugins/cilbench.h` is the same in C; a test compares them.
//!
//! A plugin is a dynamic library with one function, [`ENTRY`] (`cilbench_plugin`), that gives a [`CilPlugin`]. In Rust,
//! [`export_method!`](crate::export_method) writes it; nobody needs to read on but who writes a plugin in another language.
//!
//! **Version.** The first 32 bits of [`CilPlugin`] are the ABI's version, in every version. A host opens only its own: structs never change within a
//! version, so there are no size fields. Reserved values of the enumerations below are errors.
//!
//! **Ownership.** Nobody frees what the other side allocated; there is no shared allocator.
//! - What the host passes to a function of the plugin is valid until that function returns.
//! - What a function of the plugin gives back (through an out parameter, or as a status' text) stays valid until the next call on the same
//!   instance, or its `destroy`. What [`CilPlugin`] points to, and the text of a failed `create`, stay valid for good, or until the next `create`.
//! - What a function of [`CilContext`] gives back is valid until the next call of a function of that context, or until the plugin's function returns.
//! - Out parameters come in zeroed.
//!
//! **Threads.** All functions of one instance are called from the thread that created it, one at a time. Several instances may live at once. The
//! functions of a [`CilContext`] may be called only from that same thread and only before the plugin's function returns; inside it a plugin may use
//! as many threads as it likes.
//!
//! **Lifetime.** A library is never unloaded. An instance is made by `create` and ended by `destroy`; a process may end without `destroy`.
//!
//! **Failing.** A function that fails returns a status with a code other than [`OK`] and a text. No exception and no panic may leave a function of
//! either side. A host function that failed stays failed: the plugin's function should return that failure.
//!
//! **Texts** are UTF-8 and end with a zero byte. **Pointers** to arrays are aligned for their elements ([`CilTensor::data`]: to 8 bytes), and may be null where
//! the count is 0. **Tensors** are contiguous and row-major, numbers are in the machine's own byte order (all supported machines are little-endian).

use std::ffi::{c_char, c_void};

/// The version of this ABI.
pub const VERSION: u32 = 1;
/// The name of the one symbol, a function of type [`EntryFn`].
pub const ENTRY: &str = "cilbench_plugin";
/// The type of that function. It gives the same pointer each time, never null.
pub type EntryFn = unsafe extern "C" fn() -> *const CilPlugin;

/// [`CilStatus::code`]: done.
pub const OK: u32 = 0;
/// [`CilStatus::code`]: failed, for a reason that the text states.
pub const FAILED: u32 = 1;
/// [`CilStatus::code`]: a hyper-parameter is out of range; the user must change it.
pub const USAGE: u32 = 2;
/// [`CilStatus::code`]: this backbone, device or build cannot do it.
pub const UNSUPPORTED: u32 = 3;
/// [`CilStatus::code`]: a number is not finite any more.
pub const DIVERGED: u32 = 4;
/// [`CilStatus::code`]: stopped from outside.
pub const INTERRUPTED: u32 = 5;

/// [`CilTensor::element`]: there is no tensor.
pub const NONE: u32 = 0;
/// [`CilTensor::element`]: 32-bit float.
pub const F32: u32 = 1;
/// [`CilTensor::element`]: 64-bit float.
pub const F64: u32 = 2;
/// [`CilTensor::element`]: 16-bit brain float.
pub const BF16: u32 = 3;
/// [`CilTensor::element`]: 16-bit float.
pub const F16: u32 = 4;
/// [`CilTensor::element`]: 64-bit signed integer.
pub const I64: u32 = 5;
/// [`CilTensor::element`]: 8-bit unsigned integer.
pub const U8: u32 = 6;
/// [`CilTensor::element`]: 32-bit unsigned integer.
pub const U32: u32 = 7;

/// A view: random crop and flip.
pub const VIEW_TRAIN: u32 = 1;
/// A view: resize and centre crop.
pub const VIEW_TEST: u32 = 2;

/// [`CilMethod::access`]: only the current task's images.
pub const ACCESS_STREAM: u32 = 1;
/// [`CilMethod::access`]: also the exemplars that it put into the harness's memory.
pub const ACCESS_MEMORY: u32 = 2;
/// [`CilMethod::access`]: all images seen so far (upper bounds).
pub const ACCESS_ALL: u32 = 3;

/// A law: uniform on \[low, high).
pub const LAW_UNIFORM: u32 = 1;
/// A law: standard normal.
pub const LAW_NORMAL: u32 = 2;
/// A law: a random permutation of 0..n, i64, for one dimension n.
pub const LAW_PERMUTATION: u32 = 3;

/// [`CilEntry::kind`]: a weight that is trained.
pub const KIND_TRAINED: u32 = 1;
/// [`CilEntry::kind`]: a statistic of past data.
pub const KIND_STATISTIC: u32 = 2;
/// [`CilEntry::kind`]: the optimiser's moments and counters; needed only within a task.
pub const KIND_OPTIMISER: u32 = 3;
/// [`CilEntry::kind`]: anything else that must be kept.
pub const KIND_BUFFER: u32 = 4;

/// Field by field, where a struct's parts lie: for the comparison with the C header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The struct's name.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: usize,
    /// Name, offset and size of each field.
    pub fields: Vec<(&'static str, usize, usize)>,
}

/// Declares the structs, and [`layouts`].
macro_rules! structs {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $type:ty,)* })*) => {
        $($(#[$doc])* #[repr(C)] #[derive(Clone, Copy)] pub struct $name { $($(#[$field_doc])* pub $field: $type,)* })*

        /// Where the parts of every struct lie.
        pub fn layouts() -> Vec<Layout> {
            vec![$(Layout {
                name: stringify!($name),
                size: size_of::<$name>(),
                fields: vec![$((stringify!($field), std::mem::offset_of!($name, $field), size_of::<$type>())),*],
            }),*]
        }
    };
}

structs! {
    /// The outcome of a function.
    pub struct CilStatus {
        /// [`OK`], or why not.
        pub code: u32,
        /// What was wrong and what to do; null if [`OK`].
        pub text: *const c_char,
    }

    /// A typed tensor.
    pub struct CilTensor {
        /// The type of its elements; [`NONE`] if there is no tensor.
        pub element: u32,
        /// The number of its dimensions; 0 for a scalar.
        pub rank: u32,
        /// `rank` sizes.
        pub shape: *const u64,
        /// Its elements, aligned to 8 bytes.
        pub data: *const c_void,
        /// Bytes of `data`.
        pub bytes: u64,
    }

    /// Images, with labels where they are for training.
    pub struct CilBatch {
        /// The number of images; 0 at the end of a pass.
        pub count: u64,
        /// Their height in pixels.
        pub height: u64,
        /// Their width in pixels.
        pub width: u64,
        /// (count, 3, height, width), f32 in \[0, 1\].
        pub images: *const f32,
        /// Classes as the model sees them, numbered in the order of their appearance; null when predicting.
        pub labels: *const i64,
        /// Positions in the task's training set (in a read of the memory: the exemplars' ids); null when predicting.
        pub positions: *const u64,
    }

    /// A task.
    pub struct CilTask {
        /// The task, from 0.
        pub index: u64,
        /// The number of tasks of the scenario.
        pub tasks: u64,
        /// The number of classes of the tasks before, where its own begin; 0 in a domain-incremental scenario.
        pub first_class: u64,
        /// The number of its training images.
        pub train_images: u64,
        /// The number of its classes.
        pub class_count: u64,
        /// Its classes, as labels have them.
        pub classes: *const u64,
        /// The names of its classes.
        pub class_names: *const *const c_char,
        /// The domain it is in; null if tasks are no domains.
        pub domain: *const c_char,
    }

    /// The backbone of a run, for a plugin to build its own.
    pub struct CilBackbone {
        /// The kind: `vit` for a plain ViT in a safetensors file with timm's names.
        pub entry: *const c_char,
        /// The name it was asked for by.
        pub name: *const c_char,
        /// The path of its weights; the file may be gone once `create` returns. Null for a kind that brings its own.
        pub weights: *const c_char,
        /// SHA-256 of the weights that the user named, in hexadecimal digits.
        pub weights_hash: *const c_char,
        /// The width of a token.
        pub dim: u64,
        /// The number of blocks.
        pub blocks: u64,
        /// The number of attention heads.
        pub heads: u64,
        /// The side of a patch, in pixels.
        pub patch: u64,
        /// The side of the images, in pixels.
        pub image_size: u64,
        /// Per-channel mean to subtract from images in \[0, 1\].
        pub mean: [f64; 3],
        /// Per-channel standard deviation to divide by.
        pub std: [f64; 3],
    }

    /// What a method is built from.
    pub struct CilSetup {
        /// All its hyper-parameters, a JSON object.
        pub config: *const c_char,
        /// Where to compute: `cpu`, or `cuda:<n>`.
        pub device: *const c_char,
        /// In which floating-point type: [`F32`] or [`F64`].
        pub dtype: u32,
        /// The backbone.
        pub backbone: CilBackbone,
    }

    /// A stored exemplar.
    pub struct CilExemplar {
        /// Its number; never used again.
        pub id: u64,
        /// Its class.
        pub label: i64,
        /// The task it came from.
        pub task: u64,
        /// What was stored beside it; [`NONE`] if nothing was.
        pub payload: CilTensor,
    }

    /// Stored exemplars.
    pub struct CilExemplars {
        /// How many.
        pub count: u64,
        /// They.
        pub items: *const CilExemplar,
    }

    /// What a method may ask of the harness. `host` goes into every function.
    pub struct CilContext {
        /// The harness.
        pub host: *mut c_void,
        /// Not 0 if probes are looked at; one that is not need not be computed.
        pub probing: u32,
        /// Random numbers by name and shape, from the method's own stream: f32 (i64 for a permutation). `(host, name, shape, rank, law, low, high, out)`; the same
        /// name drawn again in a task gives new numbers.
        pub draw: unsafe extern "C" fn(*mut c_void, *const c_char, *const u64, u64, u32, f64, f64, *mut CilTensor) -> CilStatus,
        /// A derived random quantity, if the harness prescribes it (a replay does); else [`NONE`]. `(host, name, out)`.
        pub given: unsafe extern "C" fn(*mut c_void, *const c_char, *mut CilTensor) -> CilStatus,
        /// Starts a pass over the task's training images in canonical order. `(host, view, batch_size, pass)`.
        pub open_pass: unsafe extern "C" fn(*mut c_void, u32, u64, *mut u32) -> CilStatus,
        /// The next batch of a pass; one of 0 images at its end. `(host, pass, out)`.
        pub next_batch: unsafe extern "C" fn(*mut c_void, u32, *mut CilBatch) -> CilStatus,
        /// Shows the harness a quantity. `(host, name, value)`.
        pub probe: unsafe extern "C" fn(*mut c_void, *const c_char, *const CilTensor) -> CilStatus,
        /// Stores images of the current task in the memory, with a row of `payload` (may be null) for each. `(host, positions, count, payload, out)`.
        pub memory_insert: unsafe extern "C" fn(*mut c_void, *const u64, u64, *const CilTensor, *mut CilExemplars) -> CilStatus,
        /// Forgets exemplars. `(host, ids, count)`.
        pub memory_remove: unsafe extern "C" fn(*mut c_void, *const u64, u64) -> CilStatus,
        /// What is stored. `(host, out)`.
        pub memory_list: unsafe extern "C" fn(*mut c_void, *mut CilExemplars) -> CilStatus,
        /// Reads exemplars. `(host, ids, count, view, out)`.
        pub memory_read: unsafe extern "C" fn(*mut c_void, *const u64, u64, u32, *mut CilBatch) -> CilStatus,
    }

    /// How the training images of a task are to be served.
    pub struct CilPlan {
        /// Passes over them; 0 if the method only uses passes of its own.
        pub epochs: u64,
        /// Images a step.
        pub batch_size: u64,
        /// [`VIEW_TRAIN`] or [`VIEW_TEST`].
        pub view: u32,
    }

    /// A term of a step's loss, before the update.
    pub struct CilLoss {
        /// Its name.
        pub name: *const c_char,
        /// Its value.
        pub value: f64,
    }

    /// The terms of a step's loss.
    pub struct CilLosses {
        /// How many.
        pub count: u64,
        /// They.
        pub items: *const CilLoss,
    }

    /// Predictions.
    pub struct CilLogits {
        /// The number of images.
        pub rows: u64,
        /// The number of classes seen so far.
        pub columns: u64,
        /// (rows, columns).
        pub data: *const f32,
    }

    /// A tensor of a state.
    pub struct CilEntry {
        /// Its name.
        pub name: *const c_char,
        /// What it is; of no meaning in an exported model.
        pub kind: u32,
        /// Its value.
        pub value: CilTensor,
    }

    /// What a method carries from task to task. No name comes twice.
    pub struct CilState {
        /// The number of tensors.
        pub count: u64,
        /// They.
        pub items: *const CilEntry,
    }

    /// A pair of metadata.
    pub struct CilPair {
        /// Its key.
        pub key: *const c_char,
        /// Its value.
        pub value: *const c_char,
    }

    /// A model as plain tensors with the backbone's own names, heads as `head.weight` and `head.bias`.
    pub struct CilModel {
        /// The number of tensors.
        pub count: u64,
        /// They.
        pub items: *const CilEntry,
        /// The number of pairs of metadata.
        pub pair_count: u64,
        /// They: what a weights file needs.
        pub pairs: *const CilPair,
    }

    /// A method. For every task the harness calls `plan`, `begin_task`, `observe` for each batch of each epoch, `end_task`; then `predict` on the test images of
    /// all classes seen so far. `instance` goes into every function but `create`.
    pub struct CilMethod {
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
        /// Hyper-parameters, JSON: `[{"key": "epochs", "default": 5, "doc": "Passes over the images."}, …]`.
        pub fields: *const c_char,
        /// What it may see of past images.
        pub access: u32,
        /// Builds an instance. Checks every hyper-parameter. `(setup, instance)`.
        pub create: Option<unsafe extern "C" fn(*const CilSetup, *mut *mut c_void) -> CilStatus>,
        /// Ends an instance.
        pub destroy: Option<unsafe extern "C" fn(*mut c_void)>,
        /// Whether its hyper-parameters suit so many classes in all; may be null. `(instance, classes)`.
        pub check: Option<unsafe extern "C" fn(*mut c_void, u64) -> CilStatus>,
        /// How a task's images are to be served. `(instance, task, out)`.
        pub plan: Option<unsafe extern "C" fn(*mut c_void, *const CilTask, *mut CilPlan) -> CilStatus>,
        /// A task begins: make room for its classes. `(instance, task, context)`.
        pub begin_task: Option<unsafe extern "C" fn(*mut c_void, *const CilTask, *const CilContext) -> CilStatus>,
        /// One optimisation step. `(instance, batch, epoch, step, task, context, out)`.
        pub observe: Option<unsafe extern "C" fn(*mut c_void, *const CilBatch, u64, u64, *const CilTask, *const CilContext, *mut CilLosses) -> CilStatus>,
        /// The last epoch is over. `(instance, task, context)`.
        pub end_task: Option<unsafe extern "C" fn(*mut c_void, *const CilTask, *const CilContext) -> CilStatus>,
        /// Logits over the classes seen so far. `(instance, images, out)`.
        pub predict: Option<unsafe extern "C" fn(*mut c_void, *const CilBatch, *mut CilLogits) -> CilStatus>,
        /// The normalised CLS token after every block, (count, blocks, dim), or [`NONE`]; may be null. `(instance, images, out)`.
        pub cls_tokens: Option<unsafe extern "C" fn(*mut c_void, *const CilBatch, *mut CilTensor) -> CilStatus>,
        /// Everything the method carries. `(instance, out)`.
        pub state: Option<unsafe extern "C" fn(*mut c_void, *mut CilState) -> CilStatus>,
        /// Takes over a state into a fresh instance: the tasks begun so far, and whether the last of them is still in training. `(instance, state, tasks, count, running)`.
        pub restore: Option<unsafe extern "C" fn(*mut c_void, *const CilState, *const CilTask, u64, u32) -> CilStatus>,
        /// The model as plain tensors; may be null. `(instance, out)`.
        pub export_model: Option<unsafe extern "C" fn(*mut c_void, *mut CilModel) -> CilStatus>,
    }

    /// A plugin.
    pub struct CilPlugin {
        /// The version of the ABI it was built for: [`VERSION`].
        pub abi: u32,
        /// The number of its methods, at least 1.
        pub method_count: u32,
        /// Its name.
        pub name: *const c_char,
        /// Its version.
        pub version: *const c_char,
        /// Its methods.
        pub methods: *const CilMethod,
    }
}
