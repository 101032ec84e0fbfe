//! A fixture file: its configuration, images and recorded tensors, and the host that answers a
//! method's calls from it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::memory::{Answer, FixtureMemory};
use crate::array::Array;
use crate::backbone::WeightsFile;
use crate::context::{Host, Law, PlainBatch, Reply, Request};
use crate::data::LoadedBatch;
use crate::method::Plan;
use crate::run::{Batches, Feed};
use crate::{Error, Result};

/// The configuration in a fixture's metadata.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Settings {
    pub img: usize,
    pub heads: usize,
    pub rank: usize,
    pub tasks: usize,
    /// Classes a task.
    pub cpt: usize,
    pub batch: usize,
    pub epochs: usize,
    pub optim: String,
    pub lr: f64,
    pub wd: f64,
    /// Settings of single methods, and notes.
    #[serde(flatten)]
    pub others: serde_json::Map<String, serde_json::Value>,
}

/// A fixture in memory.
pub(super) struct Fixture {
    pub file: WeightsFile,
    pub settings: Settings,
    /// The method's name, and settings that make a variant of it.
    pub method: String,
    pub variant: Vec<(String, toml::Value)>,
}

impl Fixture {
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let file = WeightsFile::parse(path, bytes)?;
        let text = |key: &str| {
            file.metadata(key)
                .ok_or_else(|| file.error(format!("no metadata '{key}': this is no fixture")))
        };
        let settings = serde_json::from_str(text("config")?)
            .map_err(|e| file.error(format!("metadata config: {e}")))?;
        let mut words = text("method")?.split_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let variant = words.map(crate::config::parse_setting).collect::<Result<_>>()?;
        Ok(Self { settings, method, variant, file })
    }

    /// A recorded tensor's values.
    pub(super) fn values(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.file.tensor(name, DType::F64, &Device::Cpu)?.flatten_all()?.to_vec1()?)
    }

    pub(super) fn labels(&self, name: &str) -> Result<Vec<i64>> {
        Ok(self.file.tensor(name, DType::I64, &Device::Cpu)?.to_vec1()?)
    }

    /// Images at these rows of `train` or `test`, (n, 3, H, W) in \[0, 1\] as f32 values.
    pub(super) fn images(&self, split: &str, rows: &[usize]) -> Result<Tensor> {
        let rows: Vec<u32> = rows.iter().map(|r| *r as u32).collect();
        let images = self.file.tensor(&format!("{split}.images"), DType::U8, &Device::Cpu)?;
        Ok((images.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?.to_dtype(DType::F64)?
            / 255.0)?)
    }

    /// The frozen backbone's tensors.
    pub(super) fn backbone(&self) -> Result<WeightsFile> {
        let mut tensors = BTreeMap::new();
        for name in self.file.names() {
            if let Some(plain) = name.strip_prefix("backbone.") {
                tensors.insert(plain.to_owned(), self.file.tensor(name, DType::F32, &Device::Cpu)?);
            }
        }
        Ok(WeightsFile::from_tensors(
            "the fixture's backbone",
            self.file.hash.clone(),
            HashMap::new(),
            tensors,
        ))
    }

    /// The rows of a task's images in `train` or `test`, in file order.
    pub(super) fn rows(&self, split: &str, task: usize) -> Result<Vec<usize>> {
        let classes = (task * self.settings.cpt) as i64..((task + 1) * self.settings.cpt) as i64;
        let labels = self.labels(&format!("{split}.labels"))?;
        Ok((0..labels.len()).filter(|i| classes.contains(&labels[*i])).collect())
    }
}

/// Answers a method's calls with a fixture's values, and keeps the probes.
pub(super) struct FixtureHost<'a> {
    pub fixture: &'a Fixture,
    pub task: usize,
    /// Whether the method sees the images of all tasks so far.
    pub all: bool,
    /// For each probe its values, in the order in which they came.
    pub probes: BTreeMap<String, Vec<Array>>,
    /// How often each name was drawn in each task.
    drawn: BTreeMap<(usize, String), usize>,
    memory: FixtureMemory,
    passes: Vec<std::vec::IntoIter<LoadedBatch>>,
}

impl<'a> FixtureHost<'a> {
    pub(super) fn new(fixture: &'a Fixture, all: bool) -> Self {
        Self {
            fixture,
            task: 0,
            all,
            probes: BTreeMap::new(),
            drawn: BTreeMap::new(),
            memory: FixtureMemory::default(),
            passes: Vec::new(),
        }
    }

    /// The task's training images in file order, as batches; with `all` those of all tasks up to
    /// it.
    fn batches(&self, batch_size: usize) -> Result<Vec<LoadedBatch>> {
        let first = if self.all { 0 } else { self.task };
        let rows = (first..=self.task)
            .map(|t| self.fixture.rows("train", t))
            .collect::<Result<Vec<_>>>()?
            .concat();
        let labels = self.fixture.labels("train.labels")?;
        let positions: Vec<usize> = (0..rows.len()).collect();
        rows.chunks(batch_size)
            .zip(positions.chunks(batch_size))
            .map(|(rows, positions)| {
                let images = self
                    .fixture
                    .images("train", rows)?
                    .to_dtype(DType::F32)?
                    .flatten_all()?
                    .to_vec1()?;
                Ok(LoadedBatch {
                    images,
                    labels: rows.iter().map(|r| labels[*r]).collect(),
                    positions: positions.to_vec(),
                })
            })
            .collect()
    }

    /// What `task<t>.draw.<name>`, (times, …), holds for this time that the name is drawn in the
    /// task; none if the file has no such tensor.
    fn recorded(&mut self, name: &str, shape: &[usize], law: Law) -> Result<Option<Array>> {
        let tensor = format!("task{}.draw.{name}", self.task);
        let Some(found) = self.fixture.file.shape(&tensor) else { return Ok(None) };
        let time = self.drawn.entry((self.task, name.to_owned())).or_default();
        *time += 1;
        if found.len() != shape.len() + 1 || found[1..] != *shape || *time > found[0] {
            let message =
                format!("'{tensor}' has {found:?}; the method drew {shape:?} for the {time}. time");
            return Err(self.fixture.file.error(message));
        }
        let dtype = if law == Law::Permutation { DType::I64 } else { DType::F64 };
        let drawn = self.fixture.file.tensor(&tensor, dtype, &Device::Cpu)?.get(*time - 1)?;
        Array::from_tensor(&drawn).map(Some)
    }

    /// An epoch's slice of `task<t>.align.samples` or `.labels`.
    fn alignment(&self, name: &str) -> Result<Option<Array>> {
        let Some((kind, epoch)) = name.strip_prefix("align.").and_then(|n| n.split_once('.'))
        else {
            return Ok(None);
        };
        let tensor = format!("task{}.align.{kind}", self.task);
        let Some(shape) = self.fixture.file.shape(&tensor) else { return Ok(None) };
        let epoch: usize =
            epoch.parse().map_err(|_| Error::Protocol(format!("'{name}' names no epoch")))?;
        if epoch >= shape[0] {
            return Err(self.fixture.file.error(format!(
                "{tensor} has {} epochs; the method asked for epoch {epoch}",
                shape[0]
            )));
        }
        let dtype = if kind == "labels" { DType::I64 } else { DType::F64 };
        Array::from_tensor(&self.fixture.file.tensor(&tensor, dtype, &Device::Cpu)?.get(epoch)?)
            .map(Some)
    }
}

impl Host for FixtureHost<'_> {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        match request {
            Request::Draw { name, shape, law } => {
                if let Some(recorded) = self.recorded(&name, &shape, law)? {
                    return Ok(Reply::Array(recorded));
                }
                // Nothing is shuffled unless the file says how.
                if let (Law::Permutation, [n]) = (law, &shape[..]) {
                    return Ok(Reply::Array(Array::from_i64(&(0..*n as i64).collect::<Vec<_>>())));
                }
                let Some(found) = self.fixture.file.shape(&name) else {
                    return Err(self
                        .fixture
                        .file
                        .error(format!("the method drew '{name}', which the file does not hold")));
                };
                if found != shape {
                    return Err(self.fixture.file.error(format!(
                        "the method drew '{name}' as {shape:?}, the file has {found:?}"
                    )));
                }
                Ok(Reply::Array(Array::from_tensor(&self.fixture.file.tensor(
                    &name,
                    DType::F32,
                    &Device::Cpu,
                )?)?))
            }
            Request::Given { name } => Ok(Reply::Given(self.alignment(&name)?)),
            Request::OpenPass { batch_size, .. } => {
                self.passes.push(self.batches(batch_size.max(1))?.into_iter());
                Ok(Reply::Pass(self.passes.len() as u32 - 1))
            }
            Request::NextBatch { pass } => {
                let batches = self.passes.get_mut(pass as usize);
                let next = batches
                    .ok_or_else(|| Error::Protocol(format!("there is no pass {pass}")))?
                    .next();
                let size = self.fixture.settings.img;
                Ok(Reply::Batch(next.map(|b| PlainBatch {
                    images: Array::from_f32([b.labels.len(), 3, size, size], &b.images),
                    labels: b.labels,
                    positions: b.positions,
                })))
            }
            Request::Probe { name, value } => {
                self.probes.entry(name).or_default().push(value);
                Ok(Reply::Done)
            }
            Request::Memory(request) => {
                let (rows, labels) =
                    (self.fixture.rows("train", self.task)?, self.fixture.labels("train.labels")?);
                Ok(match self.memory.answer(request, self.task, &rows, &labels)? {
                    Answer::Done => Reply::Done,
                    Answer::Exemplars(exemplars) => Reply::Exemplars(exemplars),
                    Answer::Rows(rows, ids) => {
                        let images = Array::from_tensor(
                            &self.fixture.images("train", &rows)?.to_dtype(DType::F32)?,
                        )?;
                        let labels = rows.iter().map(|r| labels[*r]).collect();
                        Reply::Batch(Some(PlainBatch {
                            images,
                            labels,
                            positions: ids.into_iter().map(|id| id as usize).collect(),
                        }))
                    }
                })
            }
        }
    }

    fn probing(&self) -> bool {
        true
    }
}

/// Every epoch in file order, without augmentation.
pub(super) struct FixtureFeed<'a> {
    pub fixture: &'a Fixture,
    pub task: usize,
    /// Whether an epoch goes over the images of all tasks so far.
    pub all: bool,
}

impl Feed for FixtureFeed<'_> {
    fn epoch(&mut self, _: usize, skip: usize, plan: &Plan) -> Result<Batches> {
        let host = FixtureHost { task: self.task, ..FixtureHost::new(self.fixture, self.all) };
        Ok(Box::new(host.batches(plan.batch_size)?.into_iter().skip(skip).map(Ok)))
    }

    fn image_size(&self) -> usize {
        self.fixture.settings.img
    }
}
