//! A replay's memory of exemplars: rows of the fixture's training images, by id.

use std::collections::BTreeMap;

use crate::context::{Exemplar, MemoryRequest};
use crate::{Error, Result};

/// The exemplars of a replay, each with its row among the fixture's training images.
#[derive(Default)]
pub(super) struct FixtureMemory {
    stored: BTreeMap<u64, (Exemplar, usize)>,
    next: u64,
}

/// What is to be answered.
pub(super) enum Answer {
    Done,
    Exemplars(Vec<Exemplar>),
    /// Rows of the training images, and the ids they stand for.
    Rows(Vec<usize>, Vec<u64>),
}

impl FixtureMemory {
    /// Answers a call within `task`, whose training images are `rows` with these labels (of all
    /// training images).
    pub(super) fn answer(
        &mut self,
        request: MemoryRequest,
        task: usize,
        rows: &[usize],
        labels: &[i64],
    ) -> Result<Answer> {
        let unknown = |id: u64| Error::Protocol(format!("memory: there is no exemplar {id}"));
        match request {
            MemoryRequest::List => {
                Ok(Answer::Exemplars(self.stored.values().map(|(e, _)| e.clone()).collect()))
            }
            MemoryRequest::Remove { ids } => {
                ids.into_iter().try_for_each(|id| {
                    self.stored.remove(&id).map(drop).ok_or_else(|| unknown(id))
                })?;
                Ok(Answer::Done)
            }
            MemoryRequest::Insert { positions, payload } => {
                let payloads = crate::run::payload_rows(payload, positions.len())?;
                let mut added = Vec::new();
                for (position, payload) in positions.into_iter().zip(payloads) {
                    let outside = || {
                        Error::Protocol(format!(
                            "memory: position {position} is not in the task's {} images",
                            rows.len()
                        ))
                    };
                    let row = *rows.get(position).ok_or_else(outside)?;
                    let exemplar = Exemplar { id: self.next, label: labels[row], task, payload };
                    self.next += 1;
                    added.push(exemplar.clone());
                    self.stored.insert(exemplar.id, (exemplar, row));
                }
                Ok(Answer::Exemplars(added))
            }
            MemoryRequest::Read { ids, .. } => {
                let rows = ids
                    .iter()
                    .map(|id| self.stored.get(id).map(|(_, row)| *row).ok_or_else(|| unknown(*id)))
                    .collect::<Result<_>>()?;
                Ok(Answer::Rows(rows, ids))
            }
        }
    }
}
