//! The harness behind a [`CilContext`]: what a library asks becomes requests, and replies become
//! structs.

use std::ffi::{c_char, c_void};

use super::abi::*;
use super::codes;
use super::flat::{self, Read};
use super::kept::{self, Kept};
use super::messages::Failure;
use super::sized;
use crate::Error;
use crate::array::Array;
use crate::context::{Host, Law, MemoryRequest, PlainBatch, Reply, Request};
use crate::error::catching;

/// The harness behind a [`CilContext`].
pub(super) struct Harness<'a> {
    host: &'a mut dyn Host,
    /// What the last request was answered with.
    kept: Kept,
    /// The first request that failed.
    pub(super) error: Option<Error>,
    /// Whether what failed there was the harness's answer, and not the plugin's asking.
    pub(super) by_harness: bool,
}

impl<'a> Harness<'a> {
    pub(super) fn new(host: &'a mut dyn Host) -> Self {
        Self { host, kept: Kept::default(), error: None, by_harness: false }
    }

    pub(super) fn context(&mut self) -> CilContext {
        CilContext {
            host: std::ptr::from_mut(self).cast(),
            probing: self.host.probing().into(),
            draw: Some(draw),
            given: Some(given),
            open_pass: Some(open_pass),
            next_batch: Some(next_batch),
            probe: Some(probe),
            memory_insert: Some(memory_insert),
            memory_remove: Some(memory_remove),
            memory_list: Some(memory_list),
            memory_read: Some(memory_read),
            ..CilContext::empty()
        }
    }

    /// Answers a request and writes the reply; what the harness fails with is kept, as it is, for
    /// the end of the call.
    ///
    /// # Safety
    /// `host` is the one of [`Harness::context`], while the call lasts.
    unsafe fn respond(
        host: *mut c_void,
        read: impl FnOnce() -> Read<Request>,
        write: impl FnOnce(&mut Kept, Reply) -> Read<()>,
    ) -> CilStatus {
        // SAFETY: the caller's promise.
        let Self { host, kept, error, by_harness } = unsafe { &mut *host.cast::<Harness<'_>>() };
        let done = catching(|| {
            // Read first: a plugin may hand on what the last request gave it, which lives until
            // here.
            let request =
                read().map_err(|what| Error::Protocol(format!("the plugin asked with {what}")))?;
            *kept = Kept::default();
            if let Some(failed) = error {
                return Err(Failure::from(&*failed).error());
            }
            let reply = catching(|| host.answer(request)).inspect_err(|_| *by_harness = true)?;
            write(kept, reply).map_err(Error::Protocol)
        });
        match done {
            Ok(()) => kept::ok(),
            Err(failed) => {
                let told = kept.status(&Failure::from(&failed));
                error.get_or_insert(failed);
                told
            }
        }
    }
}

fn other(reply: &Reply) -> String {
    format!("the harness answered with something else: {reply:?}")
}

/// Writes to an out parameter of the plugin's that is a number.
///
/// # Safety
/// A pointer that is not null has room for a value.
unsafe fn put<T>(out: *mut T, value: T) -> Read<()> {
    if out.is_null() {
        return Err("the plugin passed a null pointer for what it wants to know".into());
    }
    // SAFETY: not null; the caller's promise.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes to an out parameter of the plugin's that is a struct.
///
/// # Safety
/// As [`sized::put`].
unsafe fn put_struct<T: Crossing>(out: *mut T, value: T) -> Read<()> {
    // SAFETY: the caller's promise.
    unsafe { sized::put(out, value) }
        .map_err(|what| format!("the plugin asked for what it has no room for: {what}"))
}

#[allow(clippy::too_many_arguments)]
unsafe extern "C" fn draw(
    host: *mut c_void,
    name: *const c_char,
    shape: *const u64,
    rank: u64,
    law: u32,
    low: f64,
    high: f64,
    out: *mut CilTensor,
) -> CilStatus {
    // SAFETY: what the plugin passes is whole by the rules of the ABI: texts end with a zero, lists
    // are as long as their counts say, and structs as their sizes say. So it is below.
    let read = || unsafe {
        let law = match law {
            LAW_UNIFORM => Law::Uniform { low, high },
            LAW_NORMAL => Law::Normal,
            LAW_PERMUTATION => Law::Permutation,
            _ => return Err(format!("a law {law}, which there is not")),
        };
        let shape = flat::list("a shape", shape, rank)?.iter().map(|n| *n as usize).collect();
        Ok(Request::Draw { name: flat::text("the name of a draw", name)?, shape, law })
    };
    let write = |kept: &mut Kept, reply| match reply {
        // SAFETY: as above.
        Reply::Array(array) => unsafe { put_struct(out, kept.tensor(array)) },
        reply => Err(other(&reply)),
    };
    // SAFETY: as above.
    unsafe { Harness::respond(host, read, write) }
}

unsafe extern "C" fn given(
    host: *mut c_void,
    name: *const c_char,
    out: *mut CilTensor,
) -> CilStatus {
    let write = |kept: &mut Kept, reply| match reply {
        // SAFETY: as above.
        Reply::Given(array) => unsafe { put_struct(out, kept.optional(array)) },
        reply => Err(other(&reply)),
    };
    // SAFETY: as above.
    unsafe {
        Harness::respond(
            host,
            || Ok(Request::Given { name: flat::text("the name of a given quantity", name)? }),
            write,
        )
    }
}

unsafe extern "C" fn open_pass(
    host: *mut c_void,
    view: u32,
    batch_size: u64,
    out: *mut u32,
) -> CilStatus {
    let write = |_: &mut Kept, reply| match reply {
        // SAFETY: as above.
        Reply::Pass(pass) => unsafe { put(out, pass) },
        reply => Err(other(&reply)),
    };
    // SAFETY: as above.
    unsafe {
        Harness::respond(
            host,
            || Ok(Request::OpenPass { view: codes::view(view)?, batch_size: batch_size as usize }),
            write,
        )
    }
}

/// Writes a batch, or one of no images for none.
fn write_batch(out: *mut CilBatch) -> impl FnOnce(&mut Kept, Reply) -> Read<()> {
    move |kept, reply| {
        let batch = match reply {
            Reply::Batch(Some(batch)) => kept.batch(batch)?,
            Reply::Batch(None) => kept.batch(PlainBatch {
                images: Array::from_f32([0, 3, 0, 0], &[]),
                labels: vec![],
                positions: vec![],
            })?,
            reply => return Err(other(&reply)),
        };
        // SAFETY: the plugin passes room for a batch.
        unsafe { put_struct(out, batch) }
    }
}

unsafe extern "C" fn next_batch(host: *mut c_void, pass: u32, out: *mut CilBatch) -> CilStatus {
    // SAFETY: as above.
    unsafe { Harness::respond(host, || Ok(Request::NextBatch { pass }), write_batch(out)) }
}

fn expect_done(_: &mut Kept, reply: Reply) -> Read<()> {
    if reply == Reply::Done { Ok(()) } else { Err(other(&reply)) }
}

unsafe extern "C" fn probe(
    host: *mut c_void,
    name: *const c_char,
    value: *const CilTensor,
) -> CilStatus {
    // SAFETY: as above.
    let read = || unsafe {
        let value = value.as_ref().ok_or("a null pointer for a probe's value")?;
        Ok(Request::Probe {
            name: flat::text("the name of a probe", name)?,
            value: flat::tensor("a probe", value)?,
        })
    };
    // SAFETY: as above.
    unsafe { Harness::respond(host, read, expect_done) }
}

/// Writes exemplars.
fn write_exemplars(out: *mut CilExemplars) -> impl FnOnce(&mut Kept, Reply) -> Read<()> {
    move |kept, reply| match reply {
        // SAFETY: the plugin passes room for a list.
        Reply::Exemplars(exemplars) => unsafe { put_struct(out, kept.exemplars(exemplars)) },
        reply => Err(other(&reply)),
    }
}

unsafe extern "C" fn memory_insert(
    host: *mut c_void,
    positions: *const u64,
    count: u64,
    payload: *const CilTensor,
    out: *mut CilExemplars,
) -> CilStatus {
    // SAFETY: as above.
    let read = || unsafe {
        let positions =
            flat::list("positions", positions, count)?.iter().map(|p| *p as usize).collect();
        let payload = payload.as_ref().map(|p| flat::tensor("a payload", p)).transpose()?;
        Ok(Request::Memory(MemoryRequest::Insert { positions, payload }))
    };
    // SAFETY: as above.
    unsafe { Harness::respond(host, read, write_exemplars(out)) }
}

unsafe extern "C" fn memory_remove(host: *mut c_void, ids: *const u64, count: u64) -> CilStatus {
    // SAFETY: as above.
    let read = || unsafe {
        Ok(Request::Memory(MemoryRequest::Remove { ids: flat::list("ids", ids, count)?.to_vec() }))
    };
    // SAFETY: as above.
    unsafe { Harness::respond(host, read, expect_done) }
}

unsafe extern "C" fn memory_list(host: *mut c_void, out: *mut CilExemplars) -> CilStatus {
    // SAFETY: as above.
    unsafe {
        Harness::respond(host, || Ok(Request::Memory(MemoryRequest::List)), write_exemplars(out))
    }
}

unsafe extern "C" fn memory_read(
    host: *mut c_void,
    ids: *const u64,
    count: u64,
    view: u32,
    out: *mut CilBatch,
) -> CilStatus {
    // SAFETY: as above.
    let read = || unsafe {
        Ok(Request::Memory(MemoryRequest::Read {
            ids: flat::list("ids", ids, count)?.to_vec(),
            view: codes::view(view)?,
        }))
    };
    // SAFETY: as above.
    unsafe { Harness::respond(host, read, write_batch(out)) }
}

#[cfg(test)]
#[path = "answering_test.rs"]
mod tests;
