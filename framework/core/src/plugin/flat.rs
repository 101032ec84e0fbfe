//! The structs of the ABI to plain data. Both sides of the boundary use it.

use std::ffi::{CStr, c_char};

use super::abi::{
    self, CilBatch, CilEntry, CilExemplar, CilExemplars, CilLoss, CilLosses, CilModel, CilPair,
    CilPlan, CilScenario, CilState, CilStatus, CilTask, CilTensor,
};
use super::codes;
use super::messages::{Failure, FailureClass, PlainModel};
use super::sized;
use crate::array::Array;
use crate::context::{Exemplar, PlainBatch};
use crate::method::{Losses, Plan};
use crate::scenario::{ScenarioFacts, TaskInfo};
use crate::state::State;

/// What is wrong with what the other side gave.
pub(super) type Read<T> = Result<T, String>;

/// A list of numbers or texts. For structs there is [`sized::list`].
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
    let count = usize::try_from(count)
        .ok()
        .filter(|n| n.checked_mul(size_of::<T>()).is_some_and(|b| b <= isize::MAX as usize));
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
    let size = size_of::<CilTensor>() as u64;
    if tensor.size != size {
        return Err(format!("{what}: its size is {}, and a CilTensor has {size}", tensor.size));
    }
    if tensor.element == abi::NONE {
        return Ok(None);
    }
    let element = codes::element(tensor.element)
        .ok_or_else(|| format!("{what}: there is no element type {}", tensor.element))?;
    // SAFETY: the caller's promise.
    let (shape, bytes) = unsafe {
        (
            list("a tensor's shape", tensor.shape, tensor.rank.into())?,
            list("a tensor's data", tensor.data.cast::<u8>(), tensor.bytes)?,
        )
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
    let count = shape
        .iter()
        .try_fold(1u64, |n, s| n.checked_mul(*s))
        .ok_or("a batch larger than memory")?;
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
    let (labels, positions) = unsafe {
        (
            list("labels", batch.labels, batch.count)?,
            list("positions", batch.positions, batch.count)?,
        )
    };
    // SAFETY: as above.
    let images = unsafe { images(batch)? };
    Ok(PlainBatch {
        images,
        labels: labels.to_vec(),
        positions: positions.iter().map(|p| *p as usize).collect(),
    })
}

/// A task.
///
/// # Safety
/// Its pointers point to what its counts say.
pub(super) unsafe fn task(task: &CilTask) -> Read<TaskInfo> {
    // SAFETY: the caller's promise, here and below.
    let (classes, names) = unsafe {
        let names = list("class names", task.class_names, task.class_count)?;
        (list("classes", task.classes, task.class_count)?, names)
    };
    Ok(TaskInfo {
        index: task.index as usize,
        tasks: task.tasks as usize,
        classes: classes.iter().map(|c| *c as usize).collect(),
        first_class: task.first_class as usize,
        class_names: names
            .iter()
            .map(|n| unsafe { text("a class name", *n) })
            .collect::<Read<_>>()?,
        train_images: task.train_images as usize,
        domain: unsafe { optional_text("the domain", task.domain)? },
    })
}

/// The facts of a scenario.
pub(super) fn scenario(from: &CilScenario) -> ScenarioFacts {
    ScenarioFacts {
        classes: from.classes as usize,
        tasks: from.tasks as usize,
        domain_incremental: from.domain_incremental != 0,
    }
}

/// A plan.
pub(super) fn plan(from: &CilPlan) -> Read<Plan> {
    let given = |n: u64| Some(n as usize).filter(|n| *n > 0);
    Ok(Plan {
        epochs: from.epochs as usize,
        batch_size: from.batch_size as usize,
        view: codes::view(from.view)?,
        drop_last: from.drop_last != 0,
        steps: given(from.steps),
        test_batch: given(from.test_batch),
    })
}

/// The terms of a loss.
///
/// # Safety
/// Its pointers point to what its counts say.
pub(super) unsafe fn losses(from: &CilLosses) -> Read<Losses> {
    // SAFETY: the caller's promise, here and below.
    let items = unsafe { sized::list("loss terms", from.items, from.count)? };
    let one =
        |loss: &CilLoss| Ok((unsafe { text("the name of a loss term", loss.name)? }, loss.value));
    Ok(Losses(items.iter().map(one).collect::<Read<_>>()?))
}

/// The tensors of a state or a model.
///
/// # Safety
/// As [`list`].
unsafe fn entries(count: u64, items: *const CilEntry) -> Read<Vec<(String, u32, Array)>> {
    // SAFETY: the caller's promise, here and below.
    let items = unsafe { sized::list("the tensors", items, count)? };
    let one = |entry: &CilEntry| {
        let name = unsafe { text("a tensor's name", entry.name)? };
        let value = unsafe { tensor(&name, &entry.value)? };
        Ok((name, entry.kind, value))
    };
    items.iter().map(one).collect()
}

/// A state.
///
/// # Safety
/// As [`list`].
pub(super) unsafe fn state(from: &CilState) -> Read<State> {
    let mut state = State::new();
    // SAFETY: the caller's promise.
    for (name, code, value) in unsafe { entries(from.count, from.items)? } {
        let kind = codes::kind(code).ok_or_else(|| format!("{name}: there is no kind {code}"))?;
        state.put_array(name, kind, value).map_err(|e| e.to_string())?;
    }
    Ok(state)
}

/// A model.
///
/// # Safety
/// As [`list`].
pub(super) unsafe fn model(from: &CilModel) -> Read<PlainModel> {
    // SAFETY: the caller's promise, here and below.
    let tensors = unsafe { entries(from.count, from.items)? };
    let pairs = unsafe { sized::list("metadata", from.pairs, from.pair_count)? };
    let pair = |p: &CilPair| unsafe { Ok((text("a key", p.key)?, text("a value", p.value)?)) };
    Ok(PlainModel {
        tensors: tensors.into_iter().map(|(name, _, value)| (name, value)).collect(),
        metadata: pairs.iter().map(pair).collect::<Read<_>>()?,
    })
}

/// Exemplars.
///
/// # Safety
/// As [`list`].
pub(super) unsafe fn exemplars(from: &CilExemplars) -> Read<Vec<Exemplar>> {
    // SAFETY: the caller's promise, here and below.
    let items = unsafe { sized::list("exemplars", from.items, from.count)? };
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
    let size = size_of::<CilStatus>() as u64;
    if status.size != size {
        let text =
            format!("the size of the CilStatus that came back is {}, not {size}", status.size);
        return Some(Failure { class: FailureClass::Failed, text });
    }
    let class = codes::failure_class(status.code)?;
    // SAFETY: the caller's promise.
    let text = unsafe { text("a status' text", status.text) };
    let text =
        text.unwrap_or_else(|_| format!("failed (code {}) without a readable text", status.code));
    Some(Failure { class, text })
}
