//! The host of one side: answers as in a run, and keeps what the method showed and asked for.

use std::collections::BTreeMap;

use crate::Result;
use crate::array::Array;
use crate::context::{Host, MemoryRequest, Reply, Request};
use crate::run::TaskHost;

/// What a method did through its context.
#[derive(Default)]
pub(super) struct Trace {
    /// The probes since they were last taken, in order.
    pub probes: Vec<(String, Array)>,
    /// How often each name was drawn in this task, and the shape of the last draw.
    pub draws: BTreeMap<String, (usize, Vec<usize>)>,
    /// The positions of images stored in the memory in this task.
    pub stored: Vec<usize>,
}

pub(super) struct Recorder<'a> {
    pub host: TaskHost<'a>,
    pub trace: Trace,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(host: TaskHost<'a>) -> Self {
        Self { host, trace: Trace::default() }
    }
}

impl Host for Recorder<'_> {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        match &request {
            Request::Probe { name, value } => self.trace.probes.push((name.clone(), value.clone())),
            Request::Draw { name, shape, .. } => {
                let drawn = self.trace.draws.entry(name.clone()).or_default();
                *drawn = (drawn.0 + 1, shape.clone());
            }
            Request::Memory(MemoryRequest::Insert { positions, .. }) => self.trace.stored.extend(positions),
            _ => {}
        }
        self.host.answer(request)
    }

    fn probing(&self) -> bool {
        true
    }
}
