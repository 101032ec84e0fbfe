//! The functions of a [`CilContext`], called as a plugin in C may call them.

use std::ffi::CStr;

use super::*;
use crate::Result;

/// Draws numbers that count up, keeps what it is shown, and fails where it is asked for a memory.
#[derive(Default)]
struct Counting {
    shown: Vec<Array>,
    requests: usize,
}

impl Host for Counting {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        self.requests += 1;
        match request {
            Request::Draw { shape, .. } => {
                let values: Vec<f32> =
                    (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
                Ok(Reply::Array(Array::from_f32(shape, &values)))
            }
            Request::Probe { value, .. } => {
                self.shown.push(value);
                Ok(Reply::Done)
            }
            _ => Err(Error::Protocol("there is no memory".into())),
        }
    }

    fn probing(&self) -> bool {
        true
    }
}

fn said(status: &CilStatus) -> String {
    // SAFETY: a status of this module's.
    unsafe { CStr::from_ptr(status.text) }.to_string_lossy().into_owned()
}

#[test]
fn what_a_request_gave_may_be_handed_on_with_the_next() {
    let mut host = Counting::default();
    let mut harness = Harness::new(&mut host);
    let context = harness.context();
    let (name, mut drawn) = (c"numbers", CilTensor::empty());
    // So many that their memory is given back to the system as soon as it is freed.
    let shape = [1u64 << 20];
    // SAFETY: the pointers are those of the values above; the context is used within the harness's
    // life.
    unsafe {
        let status =
            draw(context.host, name.as_ptr(), shape.as_ptr(), 1, LAW_NORMAL, 0.0, 0.0, &mut drawn);
        assert_eq!(status.code, 0, "{}", said(&status));
        let status = probe(context.host, name.as_ptr(), &drawn);
        assert_eq!(status.code, 0, "{}", said(&status));
    }
    let expected: Vec<f32> = (0..1 << 20).map(|i| i as f32).collect();
    assert!(host.shown == [Array::from_f32([1 << 20], &expected)]);
}

#[test]
fn after_a_failed_request_all_fail() {
    let mut host = Counting::default();
    let mut harness = Harness::new(&mut host);
    let context = harness.context();
    let (mut list, mut drawn, shape) = (CilExemplars::empty(), CilTensor::empty(), [3u64]);
    // SAFETY: as above.
    unsafe {
        let status = memory_list(context.host, &mut list);
        assert!(status.code != 0 && said(&status).contains("there is no memory"));
        let status = draw(
            context.host,
            c"numbers".as_ptr(),
            shape.as_ptr(),
            1,
            LAW_NORMAL,
            0.0,
            0.0,
            &mut drawn,
        );
        assert!(
            status.code != 0 && said(&status).contains("there is no memory"),
            "{}",
            said(&status)
        );
    }
    assert!(harness.error.is_some());
    assert_eq!(host.requests, 1, "the second was not even asked");
}

#[test]
fn a_request_that_cannot_be_read_or_answered_fails_the_call_too() {
    let (name, shape, mut drawn) = (c"numbers", [3u64], CilTensor::empty());
    for (law, out) in [(99, &raw mut drawn), (LAW_NORMAL, std::ptr::null_mut())] {
        let mut host = Counting::default();
        let mut harness = Harness::new(&mut host);
        let context = harness.context();
        // SAFETY: as above; a null pointer is what the function must withstand.
        unsafe {
            let status = draw(context.host, name.as_ptr(), shape.as_ptr(), 1, law, 0.0, 0.0, out);
            assert!(status.code != 0, "law {law}");
            let status = draw(
                context.host,
                name.as_ptr(),
                shape.as_ptr(),
                1,
                LAW_NORMAL,
                0.0,
                0.0,
                &raw mut drawn,
            );
            assert!(
                status.code != 0,
                "law {law}: a plugin that did not mind would go on with nothing"
            );
        }
        assert!(harness.error.is_some());
    }
}
