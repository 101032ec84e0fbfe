//! The memory of exemplars: the harness keeps the images, a method names them, and everything in it
//! is counted.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::array::Array;
use crate::context::{Exemplar, MemoryImage, MemoryRequest, PlainBatch, Reply};
use crate::data::{Augment, ImageSet, Transforms};
use crate::{Error, Result};

struct Stored {
    exemplar: Exemplar,
    set: ImageSet,
    position: usize,
}

/// The exemplars of a run.
#[derive(Default)]
pub struct Memory {
    stored: BTreeMap<u64, Stored>,
    next: u64,
    reads: usize,
}

impl Memory {
    /// The memory as plain data.
    pub fn save(&self) -> MemoryImage {
        let exemplars = self.stored.values().map(|s| (s.exemplar.clone(), s.position)).collect();
        MemoryImage { exemplars, next: self.next, reads: self.reads }
    }

    /// The memory of plain data; `sets` are the training sets of the tasks so far.
    ///
    /// # Errors
    /// [`Error::Protocol`] if an exemplar is of a task or a position that does not exist.
    pub fn restore(image: &MemoryImage, sets: &[ImageSet]) -> Result<Self> {
        let stored = image.exemplars.iter().map(|(exemplar, position)| {
            let set = sets.get(exemplar.task).filter(|s| *position < s.len());
            let set = set.ok_or_else(|| {
                Error::Protocol(format!(
                    "memory: exemplar {} is of an image that is not there",
                    exemplar.id
                ))
            })?;
            Ok((
                exemplar.id,
                Stored { exemplar: exemplar.clone(), set: set.clone(), position: *position },
            ))
        });
        Ok(Self { stored: stored.collect::<Result<_>>()?, next: image.next, reads: image.reads })
    }

    /// The number of images kept.
    pub fn len(&self) -> usize {
        self.stored.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    /// Their bytes: decoded pixels, as 8-bit RGB, and what is stored beside them.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn bytes(&self) -> Result<usize> {
        let of = |s: &Stored| {
            let image = s.set.dataset.image(s.set.split, s.set.indices[s.position])?;
            Ok(image.pixels.len() + s.exemplar.payload.as_ref().map_or(0, |p| p.bytes.len()))
        };
        self.stored.values().map(of).sum()
    }

    /// Answers a call while `set` is the current task's training set.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a position or an id that does not exist, or a payload of another
    /// length.
    pub fn answer(
        &mut self,
        request: MemoryRequest,
        task: usize,
        set: &ImageSet,
        transforms: &Transforms,
        seed: u64,
    ) -> Result<Reply> {
        match request {
            MemoryRequest::List => {
                Ok(Reply::Exemplars(self.stored.values().map(|s| s.exemplar.clone()).collect()))
            }
            MemoryRequest::Remove { ids } => {
                for id in ids {
                    self.stored.remove(&id).ok_or_else(|| unknown(id))?;
                }
                Ok(Reply::Done)
            }
            MemoryRequest::Insert { positions, payload } => {
                let rows = payload_rows(payload, positions.len())?;
                let mut added = Vec::new();
                for (position, payload) in positions.into_iter().zip(rows) {
                    let label = *set.labels.get(position).ok_or_else(|| {
                        Error::Protocol(format!(
                            "memory: position {position} is not in the task's {} training images",
                            set.len()
                        ))
                    })?;
                    let exemplar = Exemplar { id: self.next, label, task, payload };
                    self.next += 1;
                    added.push(exemplar.clone());
                    self.stored
                        .insert(exemplar.id, Stored { exemplar, set: set.clone(), position });
                }
                Ok(Reply::Exemplars(added))
            }
            MemoryRequest::Read { ids, view } => {
                self.reads += 1;
                let reads = self.reads;
                let one = |id: &u64| {
                    let stored = self.stored.get(id).ok_or_else(|| unknown(*id))?;
                    // A stream of its own for each read, so that an exemplar is augmented anew
                    // every time.
                    stored.set.load(
                        &[stored.position],
                        transforms,
                        view,
                        Augment::Recall { seed, task: stored.exemplar.task, read: reads },
                    )
                };
                let loaded = ids.par_iter().map(one).collect::<Result<Vec<_>>>()?;
                let labels: Vec<i64> = loaded.iter().flat_map(|b| b.labels.clone()).collect();
                let images: Vec<f32> = loaded.into_iter().flat_map(|b| b.images).collect();
                let size = transforms.image_size;
                let positions = ids.iter().map(|id| *id as usize).collect();
                let images = Array::from_f32([labels.len(), 3, size, size], &images);
                Ok(Reply::Batch(Some(PlainBatch { images, labels, positions })))
            }
        }
    }
}

fn unknown(id: u64) -> Error {
    Error::Protocol(format!("memory: there is no exemplar {id}"))
}

/// The rows of a payload, one for each image.
pub(crate) fn payload_rows(payload: Option<Array>, n: usize) -> Result<Vec<Option<Array>>> {
    let Some(payload) = payload else { return Ok(vec![None; n]) };
    if payload.shape.first() != Some(&n) || n == 0 {
        return Err(Error::Protocol(format!(
            "memory: a payload of shape {:?} for {n} images",
            payload.shape
        )));
    }
    // By position and not in chunks: a row may be empty.
    let width = payload.bytes.len() / n;
    let row = |i: usize| payload.bytes[i * width..][..width].to_vec();
    Ok((0..n)
        .map(|i| {
            Some(Array {
                element: payload.element,
                shape: payload.shape[1..].to_vec(),
                bytes: row(i),
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_a_row_an_image_even_if_the_rows_are_empty() {
        let rows = payload_rows(Some(Array::from_f32([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])), 2)
            .expect("rows");
        assert_eq!(rows[1], Some(Array::from_f32([3], &[4.0, 5.0, 6.0])));
        let rows = payload_rows(Some(Array::from_f32([3, 0], &[])), 3).expect("empty rows");
        assert_eq!(rows, vec![Some(Array::from_f32([0], &[])); 3]);
        assert!(payload_rows(Some(Array::from_f32([2, 3], &[0.0; 6])), 3).is_err());
    }
}
