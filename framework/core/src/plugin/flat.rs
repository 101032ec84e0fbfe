//! Plain data to the structs of the ABI and back. Both sides of the boundary use it: what one writes the other reads.

use std::ffi::{CStr, CString, c_char, c_void};

use super::abi::{self, CilBatch, CilEntry, CilExemplar, CilExemplars, CilStatus, CilTask, CilTensor};
use super::messages::{Failure, FailureClass};
use crate::array::{Array, Element};
use crate::context::{Exemplar, PlainBatch};
use crate::data::View;
use crate::method::Access;
use crate::scenario::TaskInfo;
use crate::state::{Entry, Kind, State};

/// What is wrong with what the other side gave.
pub(super) type Read<T> = Result<T, String>;

/// Owns what structs of the ABI point to, for as long as the other side may read it.
#[derive(Default)]
pub(super) struct Kept {
    texts: Vec<CString>,
    numbers: Vec<Vec<u64>>,
    labels: Vec<Vec<i64>>,
    bytes: Vec<Vec<u8>>,
    pointers: Vec<Vec<*const c_char>>,
    tasks: Vec<Vec<CilTask>>,
    entries: Vec<Vec<CilEntry>>,
    exemplars: Vec<Vec<CilExemplar>>,
    pub(super) losses: Vec<abi::CilLoss>,
    pub(super) pairs: Vec<abi::CilPair>,
}

/// Puts a list where it stays, and gives its address.
fn keep<T>(place: &mut Vec<Vec<T>>, list: Vec<T>) -> *const T {
    place.push(list);
    place.last().map_or(std::ptr::null(), |l| l.as_ptr())
}

impl Kept {
    /// A text ends at its first zero byte, if there should be one in it.
    pub(super) fn text(&mut self, text: &str) -> *const c_char {
        let end = text.find('\0').unwrap_or(text.len());
        self.texts.push(CString::new(&text[..end]).unwrap_or_default());
        self.texts.last().map_or(std::ptr::null(), |t| t.as_ptr())
    }

    pub(super) fn sizes(&mut self, values: &[usize]) -> *const u64 {
        self.ids(values.iter().map(|v| *v as u64).collect())
    }

    pub(super) fn ids(&mut self, values: Vec<u64>) -> *const u64 {
        keep(&mut self.numbers, values)
    }

    /// Bytes at an address that 8 divides.
    pub(super) fn aligned(&mut self, bytes: Vec<u8>) -> *const c_void {
        if bytes.as_ptr().align_offset(8) == 0 {
            return keep(&mut self.bytes, bytes).cast();
        }
        let words = bytes.chunks(8).map(|c| {
            let mut word = [0; 8];
            word[..c.len()].copy_from_slice(c);
            u64::from_ne_bytes(word)
        });
        let words = words.collect();
        keep(&mut self.numbers, words).cast()
    }

    pub(super) fn tensor(&mut self, array: Array) -> CilTensor {
        let (rank, bytes) = (array.shape.len() as u32, array.bytes.len() as u64);
        let shape = self.sizes(&array.shape);
        CilTensor { element: element_code(array.element), rank, shape, data: self.aligned(array.bytes), bytes }
    }

    pub(super) fn optional(&mut self, array: Option<Array>) -> CilTensor {
        array.map_or_else(no_tensor, |a| self.tensor(a))
    }

    /// Images (batch, 3, height, width), f32.
    pub(super) fn images(&mut self, images: Array) -> Read<CilBatch> {
        let [count, 3, height, width] = images.shape[..] else {
            return Err(format!("images of shape {:?}, expected (batch, 3, height, width)", images.shape));
        };
        if images.element != Element::F32 {
            return Err(format!("images of {:?}, expected f32", images.element));
        }
        let [count, height, width] = [count, height, width].map(|n| n as u64);
        let data = self.aligned(images.bytes).cast();
        Ok(CilBatch { count, height, width, images: data, labels: std::ptr::null(), positions: std::ptr::null() })
    }

    pub(super) fn batch(&mut self, batch: PlainBatch) -> Read<CilBatch> {
        let positions = self.sizes(&batch.positions);
        let labels = keep(&mut self.labels, batch.labels);
        Ok(CilBatch { labels, positions, ..self.images(batch.images)? })
    }

    pub(super) fn task(&mut self, task: &TaskInfo) -> CilTask {
        let names: Vec<*const c_char> = task.class_names.iter().map(|n| self.text(n)).collect();
        CilTask {
            index: task.index as u64,
            tasks: task.tasks as u64,
            first_class: task.first_class as u64,
            train_images: task.train_images as u64,
            class_count: task.classes.len() as u64,
            classes: self.sizes(&task.classes),
            class_names: keep(&mut self.pointers, names),
            domain: task.domain.as_ref().map_or(std::ptr::null(), |d| self.text(d)),
        }
    }

    pub(super) fn tasks(&mut self, tasks: &[TaskInfo]) -> *const CilTask {
        let list = tasks.iter().map(|t| self.task(t)).collect();
        keep(&mut self.tasks, list)
    }

    pub(super) fn entries(&mut self, entries: impl Iterator<Item = (String, Kind, Array)>) -> (u64, *const CilEntry) {
        let list: Vec<CilEntry> = entries
            .map(|(name, kind, value)| CilEntry { name: self.text(&name), kind: kind_code(kind), value: self.tensor(value) })
            .collect();
        (list.len() as u64, keep(&mut self.entries, list))
    }

    pub(super) fn exemplars(&mut self, exemplars: Vec<Exemplar>) -> CilExemplars {
        let one = |e: Exemplar| CilExemplar { id: e.id, label: e.label, task: e.task as u64, payload: self.optional(e.payload) };
        let list: Vec<CilExemplar> = exemplars.into_iter().map(one).collect();
        CilExemplars { count: list.len() as u64, items: keep(&mut self.exemplars, list) }
    }

    pub(super) fn status(&mut self, failure: &Failure) -> CilStatus {
        CilStatus { code: failure_code(failure.class), text: self.text(&failure.text) }
    }
}

/// No tensor.
pub(super) fn no_tensor() -> CilTensor {
    CilTensor { element: abi::NONE, rank: 0, shape: std::ptr::null(), data: std::ptr::null(), bytes: 0 }
}

/// All is well.
pub(super) fn ok() -> CilStatus {
    CilStatus { code: abi::OK, text: std::ptr::null() }
}

/// A list of plain numbers or structs.
///
/// # Safety
/// A pointer that is not null points to `count` elements.
pub(super) unsafe fn list<'a, T>(what: &str, pointer: *const T, count: u64) -> Read<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(format!("a null pointer where {what} should be"));
    }
    if !pointer.is_aligned() {
        return Err(format!("the pointer to {what} is not aligned"));
    }
    let count = usize::try_from(count).ok().filter(|n| n.checked_mul(size_of::<T>()).is_some_and(|b| b <= isize::MAX as usize));
    let count = count.ok_or_else(|| format!("more {what} than there is memory"))?;
    // SAFETY: not null, aligned, of a size that fits; the caller promises the elements.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// A text.
///
/// # Safety
/// A pointer that is not null points to bytes that end with a zero.
pub(super) unsafe fn text(what: &str, pointer: *const c_char) -> Read<String> {
    if pointer.is_null() {
        return Err(format!("a null pointer where {what} should be"));
    }
    // SAFETY: not null; the caller promises the zero.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_str().map(str::to_owned).map_err(|_| format!("{what} is not UTF-8"))
}

/// A text that may be missing.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn optional_text(what: &str, pointer: *const c_char) -> Read<Option<String>> {
    // SAFETY: the caller's promise.
    if pointer.is_null() { Ok(None) } else { unsafe { text(what, pointer) }.map(Some) }
}

/// A tensor that may be missing.
///
/// # Safety
/// Its pointers point to what its counts say.
pub(super) unsafe fn optional_tensor(what: &str, tensor: &CilTensor) -> Read<Option<Array>> {
    if tensor.element == abi::NONE {
        return Ok(None);
    }
    let element = element(tensor.element).ok_or_else(|| format!("{what}: there is no element type {}", tensor.element))?;
    // SAFETY: the caller's promise.
    let (shape, bytes) = unsafe {
        (list("a tensor's shape", tensor.shape, tensor.rank.into())?, list("a tensor's data", tensor.data.cast::<u8>(), tensor.bytes)?)
    };
    let shape: Vec<usize> = shape.iter().map(|n| *n as usize).collect();
    let expected = shape.iter().try_fold(element.size(), |n, s| n.checked_mul(*s));
    if expected != Some(bytes.len()) {
        return Err(format!("{what}: {} bytes for {element:?} of shape {shape:?}", bytes.len()));
    }
    Ok(Some(Array { element, shape, bytes: bytes.to_vec() }))
}

/// A tensor.
///
/// # Safety
/// As [`optional_tensor`].
pub(super) unsafe fn tensor(what: &str, value: &CilTensor) -> Read<Array> {
    // SAFETY: the caller's promise.
    unsafe { optional_tensor(what, value)? }.ok_or_else(|| format!("{what}: there is no tensor"))
}

/// The images of a batch.
///
/// # Safety
/// Its pointers point to what its counts say.
pub(super) unsafe fn images(batch: &CilBatch) -> Read<Array> {
    let shape = [batch.count, 3, batch.height, batch.width];
    let count = shape.iter().try_fold(1u64, |n, s| n.checked_mul(*s)).ok_or("a batch larger than memory")?;
    // SAFETY: the caller's promise.
    let values = unsafe { list("images", batch.images, count)? };
    Ok(Array::from_f32(shape.map(|n| n as usize), values))
}

/// A batch for training.
///
/// # Safety
/// As [`images`].
pub(super) unsafe fn batch(batch: &CilBatch) -> Read<PlainBatch> {
    // SAFETY: the caller's promise.
    let (labels, positions) = unsafe { (list("labels", batch.labels, batch.count)?, list("positions", batch.positions, batch.count)?) };
    // SAFETY: as above.
    let images = unsafe { images(batch)? };
    Ok(PlainBatch { images, labels: labels.to_vec(), positions: positions.iter().map(|p| *p as usize).collect() })
}

/// A task.
///
/// # Safety
/// Its pointers point to what its counts say.
pub(super) unsafe fn task(task: &CilTask) -> Read<TaskInfo> {
    // SAFETY: the caller's promise, here and below.
    let (classes, names) =
        unsafe { (list("classes", task.classes, task.class_count)?, list("class names", task.class_names, task.class_count)?) };
    Ok(TaskInfo {
        index: task.index as usize,
        tasks: task.tasks as usize,
        classes: classes.iter().map(|c| *c as usize).collect(),
        first_class: task.first_class as usize,
        class_names: names.iter().map(|n| unsafe { text("a class name", *n) }).collect::<Read<_>>()?,
        train_images: task.train_images as usize,
        domain: unsafe { optional_text("the domain", task.domain)? },
    })
}

/// The tensors of a state or a model.
///
/// # Safety
/// As [`list`].
pub(super) unsafe fn entries<'a>(count: u64, items: *const CilEntry) -> Read<Vec<(String, &'a CilEntry, Array)>> {
    // SAFETY: the caller's promise, here and below.
    let items: &'a [CilEntry] = unsafe { list("the tensors", items, count)? };
    let one = |entry: &'a CilEntry| {
        let name = unsafe { text("a tensor's name", entry.name)? };
        let value = unsafe { tensor(&name, &entry.value)? };
        Ok((name, entry, value))
    };
    items.iter().map(one).collect()
}

/// A state.
///
/// # Safety
/// As [`list`].
pub(super) unsafe fn state(from: &abi::CilState) -> Read<State> {
    let mut state = State::new();
    // SAFETY: the caller's promise.
    for (name, entry, value) in unsafe { entries(from.count, from.items)? } {
        let kind = kind(entry.kind).ok_or_else(|| format!("{name}: there is no kind {}", entry.kind))?;
        state.put_array(name, kind, value).map_err(|e| e.to_string())?;
    }
    Ok(state)
}

/// The entries of a state, to be written.
pub(super) fn state_entries(state: State) -> Vec<(String, Kind, Array)> {
    state.iter().map(|(name, Entry { kind, value })| (name.to_owned(), *kind, value.clone())).collect()
}

/// Exemplars.
///
/// # Safety
/// As [`list`].
pub(super) unsafe fn exemplars(from: &CilExemplars) -> Read<Vec<Exemplar>> {
    // SAFETY: the caller's promise, here and below.
    let items = unsafe { list("exemplars", from.items, from.count)? };
    let one = |e: &CilExemplar| {
        let payload = unsafe { optional_tensor("a payload", &e.payload)? };
        Ok(Exemplar { id: e.id, label: e.label, task: e.task as usize, payload })
    };
    items.iter().map(one).collect()
}

/// The failure of a status, if it is one.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn failure(status: CilStatus) -> Option<Failure> {
    let class = match status.code {
        abi::OK => return None,
        abi::USAGE => FailureClass::Usage,
        abi::UNSUPPORTED => FailureClass::Unsupported,
        abi::DIVERGED => FailureClass::Diverged,
        abi::INTERRUPTED => FailureClass::Interrupted,
        _ => FailureClass::Failed,
    };
    // SAFETY: the caller's promise.
    let text =
        unsafe { text("a status' text", status.text) }.unwrap_or_else(|_| format!("failed (code {}) without a readable text", status.code));
    Some(Failure { class, text })
}

fn failure_code(class: FailureClass) -> u32 {
    match class {
        FailureClass::Failed => abi::FAILED,
        FailureClass::Usage => abi::USAGE,
        FailureClass::Unsupported => abi::UNSUPPORTED,
        FailureClass::Diverged => abi::DIVERGED,
        FailureClass::Interrupted => abi::INTERRUPTED,
    }
}

/// The code of a view.
pub(super) fn view_code(view: View) -> u32 {
    match view {
        View::Train => abi::VIEW_TRAIN,
        View::Test => abi::VIEW_TEST,
    }
}

/// The view of a code.
pub(super) fn view(code: u32) -> Read<View> {
    match code {
        abi::VIEW_TRAIN => Ok(View::Train),
        abi::VIEW_TEST => Ok(View::Test),
        _ => Err(format!("there is no view {code}")),
    }
}

/// The code of an access.
pub(super) fn access_code(access: Access) -> u32 {
    match access {
        Access::Stream => abi::ACCESS_STREAM,
        Access::Memory => abi::ACCESS_MEMORY,
        Access::All => abi::ACCESS_ALL,
    }
}

/// The access of a code.
pub(super) fn access(code: u32) -> Read<Access> {
    match code {
        abi::ACCESS_STREAM => Ok(Access::Stream),
        abi::ACCESS_MEMORY => Ok(Access::Memory),
        abi::ACCESS_ALL => Ok(Access::All),
        _ => Err(format!("there is no access {code}")),
    }
}

const ELEMENTS: [(u32, Element); 7] = [
    (abi::F32, Element::F32),
    (abi::F64, Element::F64),
    (abi::BF16, Element::BF16),
    (abi::F16, Element::F16),
    (abi::I64, Element::I64),
    (abi::U8, Element::U8),
    (abi::U32, Element::U32),
];

/// The code of an element type.
pub(super) fn element_code(element: Element) -> u32 {
    ELEMENTS.iter().find(|(_, e)| *e == element).map_or(abi::NONE, |(code, _)| *code)
}

/// The element type of a code.
pub(super) fn element(code: u32) -> Option<Element> {
    ELEMENTS.iter().find(|(c, _)| *c == code).map(|(_, e)| *e)
}

const KINDS: [(u32, Kind); 4] = [
    (abi::KIND_TRAINED, Kind::Trained),
    (abi::KIND_STATISTIC, Kind::Statistic),
    (abi::KIND_OPTIMISER, Kind::Optimiser),
    (abi::KIND_BUFFER, Kind::Buffer),
];

fn kind_code(kind: Kind) -> u32 {
    KINDS.iter().find(|(_, k)| *k == kind).map_or(0, |(code, _)| *code)
}

fn kind(code: u32) -> Option<Kind> {
    KINDS.iter().find(|(c, _)| *c == code).map(|(_, k)| *k)
}
