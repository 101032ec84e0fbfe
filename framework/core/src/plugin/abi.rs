//! The C ABI of a binary plugin, version 2: every struct that crosses, and the rules.
//! `plugins/cilbench.h` is the same in C, and a test compares the two.
//!
//! A plugin is a dynamic library with one function, [`ENTRY`] (`cilbench_plugin`), which gives a
//! [`CilPlugin`]. In Rust, [`export_method!`](crate::export_method) writes that function. Only an
//! author in another language needs the rest of this page.
//!
//! **Version.** The first 32 bits of [`CilPlugin`] are the version of the ABI, in every version. A
//! harness opens only plugins of its own version.
//!
//! **Revision and size.** Within a version a struct may get new fields at its end, and nothing else
//! changes. Each set of new fields raises the [`REVISION`]. Every struct therefore begins with its
//! `size` in bytes, as its writer knows it, and whoever makes a struct sets it.
//! - A reader skips what lies beyond the fields that it knows.
//! - A field beyond the writer's `size` reads as zero. Zero means the behaviour of before.
//! - A struct that is smaller than in revision 0, or larger than [`LARGEST`], is an error. The
//!   second is most likely a size that was never set.
//! - The elements of a list lie `size` bytes apart, where `size` is that of the first element. All
//!   elements of a list have the same size, which 8 divides.
//! - Out parameters come in zeroed except for `size`, which says how much room there is. Whoever
//!   fills one writes no more than that, and sets `size` to what was written. In C, `cil_put` does
//!   so.
//! - [`CilStatus`] and [`CilTensor`] never grow, since the first is returned by value and the
//!   second lies within other structs. Their sizes are fixed.
//!
//! **Required fields.** A struct that configures the other side ends revision 0 with `required`:
//! null, or the names of later fields, separated by commas, that the reader must understand. A
//! reader refuses a name that it does not know. A writer thus lists a field there whenever a
//! reader that skips it would compute something else than what was asked for.
//!
//! **Ownership.** Nobody frees what the other side allocated. There is no shared allocator.
//! - What the host passes to a function of the plugin is valid until that function returns.
//! - What a function of the plugin gives back (through an out parameter, or as the text of a
//!   status) stays valid until the next call on the same instance, or its `destroy`. What
//!   [`CilPlugin`] points to stays valid for good. The text of a failed `create` stays valid until
//!   the next `create`.
//! - What a function of [`CilContext`] gives back is valid until the next call of a function of
//!   that context, or until the plugin's function returns.
//!
//! **Threads.** All functions of one instance are called from the thread that created it, one at a
//! time. Several instances may live at once. The functions of a [`CilContext`] may be called only
//! from that same thread and only before the plugin's function returns. Inside its function a
//! plugin may use as many threads as it likes.
//!
//! **Lifetime.** A library is never unloaded. An instance is made by `create` and ended by
//! `destroy`. A process may end without `destroy`.
//!
//! **Failing.** A function that fails returns a status with a code other than [`OK`] and a text. No
//! exception and no panic may leave a function of either side. A host function that failed stays
//! failed: the plugin's function should return that failure. Values of an enumeration that are not
//! listed below are errors.
//!
//! **Texts** are UTF-8 and end with a zero byte. **Pointers** to arrays are aligned for their
//! elements ([`CilTensor::data`]: to 8 bytes), and may be null where the count is 0. **Tensors**
//! are contiguous and row-major. Numbers are in the machine's own byte order, which is
//! little-endian on all supported machines.

mod crossing;
mod structs;
mod tables;

pub use crossing::{Crossing, Layout};
pub use structs::{
    CilBackbone, CilBatch, CilEntry, CilExemplar, CilExemplars, CilLogits, CilLoss, CilLosses,
    CilModel, CilPair, CilPlan, CilScenario, CilSetup, CilState, CilStatus, CilTask, CilTensor,
};
pub use tables::{CilContext, CilMethod, CilPlugin};

/// Field by field, where every struct's parts lie: for the comparison with the C header.
pub fn layouts() -> Vec<Layout> {
    [structs::layouts(), tables::layouts()].concat()
}

/// The version of this ABI.
pub const VERSION: u32 = 2;
/// The revision of this version: the number of times that structs got new fields.
pub const REVISION: u32 = 0;
/// Bytes that no struct ever exceeds.
pub const LARGEST: usize = 4096;
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
