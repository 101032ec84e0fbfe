//! Plain data to the structs of the ABI, and the memory that they point to.

use std::ffi::{CString, c_char, c_void};

use super::abi::{
    self, CilBatch, CilEntry, CilExemplar, CilExemplars, CilLoss, CilLosses, CilModel, CilPair,
    CilScenario, CilState, CilStatus, CilTask, CilTensor, Crossing,
};
use super::codes;
use super::flat::Read;
use super::messages::{Failure, PlainModel};
use crate::array::{Array, Element};
use crate::context::{Exemplar, PlainBatch};
use crate::method::Losses;
use crate::scenario::{ScenarioFacts, TaskInfo};
use crate::state::{Entry, Kind, State};

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
    losses: Vec<Vec<CilLoss>>,
    pairs: Vec<Vec<CilPair>>,
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
        let (element, shape) = (codes::element_code(array.element), self.sizes(&array.shape));
        CilTensor {
            element,
            rank,
            shape,
            data: self.aligned(array.bytes),
            bytes,
            ..CilTensor::empty()
        }
    }

    pub(super) fn optional(&mut self, array: Option<Array>) -> CilTensor {
        array.map_or_else(CilTensor::empty, |a| self.tensor(a))
    }

    /// Images (batch, 3, height, width), f32.
    pub(super) fn images(&mut self, images: Array) -> Read<CilBatch> {
        let [count, 3, height, width] = images.shape[..] else {
            return Err(format!(
                "images of shape {:?}, expected (batch, 3, height, width)",
                images.shape
            ));
        };
        if images.element != Element::F32 {
            return Err(format!("images of {:?}, expected f32", images.element));
        }
        let [count, height, width] = [count, height, width].map(|n| n as u64);
        let data = self.aligned(images.bytes).cast();
        Ok(CilBatch { count, height, width, images: data, ..CilBatch::empty() })
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
            ..CilTask::empty()
        }
    }

    pub(super) fn tasks(&mut self, tasks: &[TaskInfo]) -> *const CilTask {
        let list = tasks.iter().map(|t| self.task(t)).collect();
        keep(&mut self.tasks, list)
    }

    fn entries(&mut self, entries: impl Iterator<Item = (String, Kind, Array)>) -> Vec<CilEntry> {
        let one = |(name, kind, value): (String, Kind, Array)| {
            let (name, value) = (self.text(&name), self.tensor(value));
            CilEntry { name, kind: codes::kind_code(kind), value, ..CilEntry::empty() }
        };
        entries.map(one).collect()
    }

    pub(super) fn state(&mut self, state: &State) -> CilState {
        let plain =
            |(name, Entry { kind, value }): (&str, &Entry)| (name.to_owned(), *kind, value.clone());
        let list = self.entries(state.iter().map(plain));
        let count = list.len() as u64;
        CilState { count, items: keep(&mut self.entries, list), ..CilState::empty() }
    }

    pub(super) fn model(&mut self, model: PlainModel) -> CilModel {
        let list = self
            .entries(model.tensors.into_iter().map(|(name, value)| (name, Kind::Trained, value)));
        let pair = |(key, value): &(String, String)| CilPair {
            key: self.text(key),
            value: self.text(value),
            ..CilPair::empty()
        };
        let pairs: Vec<CilPair> = model.metadata.iter().map(pair).collect();
        CilModel {
            count: list.len() as u64,
            items: keep(&mut self.entries, list),
            pair_count: pairs.len() as u64,
            pairs: keep(&mut self.pairs, pairs),
            ..CilModel::empty()
        }
    }

    pub(super) fn losses(&mut self, losses: &Losses) -> CilLosses {
        let one = |(name, value): &(String, f64)| CilLoss {
            name: self.text(name),
            value: *value,
            ..CilLoss::empty()
        };
        let list: Vec<CilLoss> = losses.0.iter().map(one).collect();
        CilLosses {
            count: list.len() as u64,
            items: keep(&mut self.losses, list),
            ..CilLosses::empty()
        }
    }

    pub(super) fn exemplars(&mut self, exemplars: Vec<Exemplar>) -> CilExemplars {
        let one = |e: Exemplar| CilExemplar {
            id: e.id,
            label: e.label,
            task: e.task as u64,
            payload: self.optional(e.payload),
            ..CilExemplar::empty()
        };
        let list: Vec<CilExemplar> = exemplars.into_iter().map(one).collect();
        let count = list.len() as u64;
        CilExemplars { count, items: keep(&mut self.exemplars, list), ..CilExemplars::empty() }
    }

    pub(super) fn status(&mut self, failure: &Failure) -> CilStatus {
        let code = codes::failure_code(failure.class);
        CilStatus { code, text: self.text(&failure.text), ..CilStatus::empty() }
    }
}

/// A scenario's facts.
pub(super) fn scenario(facts: &ScenarioFacts) -> CilScenario {
    CilScenario {
        classes: facts.classes as u64,
        tasks: facts.tasks as u64,
        domain_incremental: facts.domain_incremental.into(),
        ..CilScenario::empty()
    }
}

/// All is well.
pub(super) fn ok() -> CilStatus {
    CilStatus { code: abi::OK, ..CilStatus::empty() }
}
