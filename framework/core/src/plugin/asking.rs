//! The harness as a plugin's method sees it: requests become calls of a [`CilContext`].

use super::abi::*;
use super::codes;
use super::flat::{self, Read};
use super::kept::Kept;
use super::sized;
use crate::context::{Host, Law, MemoryRequest, Reply, Request};
use crate::{Error, Result};

/// The harness of one call.
pub(super) struct Harness<'a>(pub(super) &'a CilContext);

/// Room for what a request may be answered with.
struct Room {
    tensor: CilTensor,
    batch: CilBatch,
    exemplars: CilExemplars,
    pass: u32,
}

impl Host for Harness<'_> {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        let mut kept = Kept::default();
        let mut room = Room {
            tensor: CilTensor::empty(),
            batch: CilBatch::empty(),
            exemplars: CilExemplars::empty(),
            pass: 0,
        };
        let misread = |what| Error::Protocol(format!("from the harness: {what}"));
        // SAFETY: the context is whole and valid while the host's call lasts; what a function of it
        // gives back is read before the next one is called.
        unsafe {
            let status = ask(self.0, &request, &mut kept, &mut room).map_err(misread)?;
            match flat::failure(status) {
                Some(failure) => Err(failure.error()),
                None => reply(&request, &room).map_err(misread),
            }
        }
    }

    fn probing(&self) -> bool {
        self.0.probing != 0
    }
}

/// Calls the function of a request.
///
/// # Safety
/// The context is whole, and the plugin is within a call of the host that gave it.
unsafe fn ask(
    c: &CilContext,
    request: &Request,
    kept: &mut Kept,
    room: &mut Room,
) -> Read<CilStatus> {
    macro_rules! call {
        ($function:ident($($argument:expr),*)) => {{
            let null = concat!("a null pointer where the function ", stringify!($function), " should be");
            let function = c.$function.ok_or(null)?;
            // SAFETY: the caller's promise; texts and lists live in `kept` and in the request.
            unsafe { function(c.host, $($argument),*) }
        }};
    }
    Ok(match request {
        Request::Draw { name, shape, law } => {
            let (law, low, high) = match law {
                Law::Uniform { low, high } => (LAW_UNIFORM, *low, *high),
                Law::Normal => (LAW_NORMAL, 0.0, 0.0),
                Law::Permutation => (LAW_PERMUTATION, 0.0, 0.0),
            };
            let (name, sizes, rank) = (kept.text(name), kept.sizes(shape), shape.len() as u64);
            call!(draw(name, sizes, rank, law, low, high, &mut room.tensor))
        }
        Request::Given { name } => call!(given(kept.text(name), &mut room.tensor)),
        Request::OpenPass { view, batch_size } => {
            call!(open_pass(codes::view_code(*view), *batch_size as u64, &mut room.pass))
        }
        Request::NextBatch { pass } => call!(next_batch(*pass, &mut room.batch)),
        Request::Probe { name, value } => {
            call!(probe(kept.text(name), &kept.tensor(value.clone())))
        }
        Request::Memory(MemoryRequest::Insert { positions, payload }) => {
            let payload = payload.clone().map(|p| kept.tensor(p));
            let payload = payload.as_ref().map_or(std::ptr::null(), |p| &raw const *p);
            let (list, count) = (kept.sizes(positions), positions.len() as u64);
            call!(memory_insert(list, count, payload, &mut room.exemplars))
        }
        Request::Memory(MemoryRequest::Remove { ids }) => {
            call!(memory_remove(ids.as_ptr(), ids.len() as u64))
        }
        Request::Memory(MemoryRequest::List) => call!(memory_list(&mut room.exemplars)),
        Request::Memory(MemoryRequest::Read { ids, view }) => {
            let (list, count) = (ids.as_ptr(), ids.len() as u64);
            call!(memory_read(list, count, codes::view_code(*view), &mut room.batch))
        }
    })
}

/// What a request was answered with.
///
/// # Safety
/// The host has filled the room, and no function of the context was called since.
unsafe fn reply(request: &Request, room: &Room) -> Read<Reply> {
    // SAFETY: the caller's promise; the host wrote the sizes to which it filled the structs.
    unsafe {
        Ok(match request {
            Request::Draw { .. } => Reply::Array(flat::tensor("a draw", &room.tensor)?),
            Request::Given { .. } => {
                Reply::Given(flat::optional_tensor("a given quantity", &room.tensor)?)
            }
            Request::OpenPass { .. } => Reply::Pass(room.pass),
            Request::NextBatch { .. } if room.batch.count == 0 => Reply::Batch(None),
            Request::NextBatch { .. } | Request::Memory(MemoryRequest::Read { .. }) => {
                Reply::Batch(Some(flat::batch(&sized::read(&raw const room.batch)?)?))
            }
            Request::Probe { .. } | Request::Memory(MemoryRequest::Remove { .. }) => Reply::Done,
            Request::Memory(MemoryRequest::Insert { .. } | MemoryRequest::List) => {
                Reply::Exemplars(flat::exemplars(&sized::read(&raw const room.exemplars)?)?)
            }
        })
    }
}
