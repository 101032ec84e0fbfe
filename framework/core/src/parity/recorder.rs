//! The host of one side: answers as in a run, and keeps what the method showed and asked for.

use std::collections::BTreeMap;

use crate::Result;
use crate::array::Array;
use crate::context::{Drawn, Host, MemoryRequest, Reply, Request, TaskCall};
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

impl Trace {
    fn drawn(&mut self, name: &str, shape: &[usize]) {
        let drawn = self.draws.entry(name.to_owned()).or_default();
        *drawn = (drawn.0 + 1, shape.to_vec());
    }
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
            Request::Draw { name, shape, .. } => self.trace.drawn(name, shape),
            Request::Memory(MemoryRequest::Insert { positions, .. }) => {
                self.trace.stored.extend(positions)
            }
            _ => {}
        }
        self.host.answer(request)
    }

    fn normals(&mut self, name: String, shape: [usize; 2]) -> Result<Drawn> {
        self.trace.drawn(&name, &shape);
        self.host.normals(name, shape)
    }

    fn probing(&self) -> bool {
        true
    }

    fn enter(&mut self, call: TaskCall) {
        self.host.enter(call);
    }
}
