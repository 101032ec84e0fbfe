//! Structs of an earlier and of a later revision than the reader's, and sizes that cannot be.

use std::mem::offset_of;

use super::*;
use crate::plugin::abi::{CilLoss, CilPlan};

/// [`CilPlan`] as a later revision may have it.
#[repr(C)]
#[derive(Clone, Copy)]
struct LaterPlan {
    plan: CilPlan,
    repeats: u64,
}

// SAFETY: it begins with a struct that crosses, whose size is its own, and goes on with a number.
unsafe impl Crossing for LaterPlan {
    const NAME: &'static str = "CilPlan";
    const LEAST: usize = CilPlan::LEAST;
    const FIELDS: &'static [(&'static str, usize, usize)] = &[
        ("required", offset_of!(CilPlan, required), 8),
        ("repeats", offset_of!(LaterPlan, repeats), 8),
    ];

    fn empty() -> Self {
        let size = size_of::<Self>() as u64;
        Self { plan: CilPlan { size, ..CilPlan::empty() }, repeats: 0 }
    }
}

fn later() -> LaterPlan {
    let mut later = LaterPlan::empty();
    (later.plan.epochs, later.repeats) = (5, 7);
    later
}

/// What is refused.
fn refused<T>(read: Read<T>) -> String {
    read.err().expect("must be refused")
}

#[test]
fn a_longer_struct_is_read_as_far_as_it_is_known() {
    let later = later();
    // SAFETY: a whole struct, here and below.
    let plan: CilPlan = unsafe { read((&raw const later).cast()) }.expect("longer than known");
    assert_eq!((plan.epochs, plan.size), (5, size_of::<LaterPlan>() as u64));
}

#[test]
fn a_shorter_struct_has_zeros_where_it_ends() {
    let plan = [CilPlan { epochs: 5, ..CilPlan::empty() }; 2];
    // SAFETY: as above; the second one lies where a field of the first would lie.
    let later: LaterPlan = unsafe { read(plan.as_ptr().cast()) }.expect("shorter than known");
    assert_eq!((later.plan.epochs, later.repeats), (5, 0));
}

#[test]
fn a_size_that_cannot_be_is_refused_with_the_name_of_the_struct() {
    for size in [0, 8, CilPlan::LEAST as u64 - 1, LARGEST as u64 + 1, u64::MAX] {
        let plan = CilPlan { size, ..CilPlan::empty() };
        // SAFETY: only the size is read before it is refused, here and below.
        let error = refused(unsafe { read(&raw const plan) });
        let expected = format!("CilPlan: its size is {size}, and in version {VERSION}");
        assert!(error.starts_with(&expected), "{error}");
        let mut out = plan;
        assert_eq!(refused(unsafe { put(&raw mut out, CilPlan::empty()) }), error);
    }
    let error = refused(unsafe { read(std::ptr::null::<CilPlan>()) });
    assert_eq!(error, "a null pointer where a CilPlan should be");
    let plan = CilPlan::empty();
    let error = refused(unsafe { read((&raw const plan).byte_add(1)) });
    assert_eq!(error, "the pointer to a CilPlan is not aligned");
}

#[test]
fn an_out_parameter_is_written_as_far_as_it_has_room() {
    // Room for what is known to an earlier revision, and a field that must stay as it is.
    let mut room = later();
    room.plan.size = size_of::<CilPlan>() as u64;
    let mut value = LaterPlan::empty();
    (value.plan.epochs, value.repeats) = (9, 9);
    // SAFETY: as much room as the size says, here and below.
    unsafe { put(&raw mut room, value) }.expect("there is room for revision 0");
    let earlier = size_of::<CilPlan>() as u64;
    assert_eq!((room.plan.epochs, room.repeats, room.plan.size), (9, 7, earlier));
    // Room for more than is written: its reader learns how much that is.
    let mut room = later();
    let value = CilPlan { epochs: 9, ..CilPlan::empty() };
    unsafe { put((&raw mut room).cast(), value) }.expect("there is more room than that");
    assert_eq!((room.plan.epochs, room.repeats, room.plan.size), (9, 7, earlier));
    let read: LaterPlan = unsafe { read(&raw const room) }.expect("a shorter one");
    assert_eq!(read.repeats, 0, "what was not written is zero");
}

#[test]
fn what_is_required_must_be_known_and_there() {
    let require =
        |names: &std::ffi::CStr, later: &mut LaterPlan| later.plan.required = names.as_ptr();
    let mut later = later();
    require(c"steps, repeats", &mut later);
    let pointer = &raw const later;
    // SAFETY: a whole struct and a static text, here and below.
    let known = unsafe { read_from(pointer, Writer::Plugin(1)) };
    assert!(refused(known).contains("requires 'steps'"), "this reader's list has no such field");
    let earlier = |writer| refused(unsafe { read_from(pointer.cast::<CilPlan>(), writer) });
    assert_eq!(
        earlier(Writer::Plugin(3)),
        "CilPlan requires 'repeats', which this cilbench (ABI 2.0) does not know and the plugin \
         (ABI 2.3) does: update cilbench"
    );
    assert_eq!(
        earlier(Writer::Harness(3)),
        "CilPlan requires 'repeats', which this plugin (ABI 2.0) does not know and the harness \
         (ABI 2.3) does: rebuild the plugin against it"
    );
    require(c"repeats,", &mut later);
    let known = unsafe { read_from(&raw const later, Writer::Plugin(1)) };
    assert_eq!(known.expect("known and there").repeats, 7);
    later.plan.size = size_of::<CilPlan>() as u64;
    let error = refused(unsafe { read_from(&raw const later, Writer::Plugin(1)) });
    assert_eq!(error, "CilPlan requires 'repeats' and ends before it");
}

#[test]
fn a_list_is_stepped_through_by_the_size_of_its_elements() {
    let mut plans = [later(), later()];
    plans[1].plan.epochs = 6;
    let list_of = |plans: &[LaterPlan]| {
        // SAFETY: as many structs as there are in the slice.
        unsafe { list::<CilPlan>("plans", plans.as_ptr().cast(), plans.len() as u64) }
    };
    let epochs: Vec<u64> = list_of(&plans).expect("plans").iter().map(|p| p.epochs).collect();
    assert_eq!(epochs, [5, 6]);
    plans[1].plan.size -= 8;
    assert!(refused(list_of(&plans)).contains("in a list all have the same size"));
    plans[0].plan.size -= 1;
    assert!(refused(list_of(&plans)).contains("which 8 divides"));
    // SAFETY: a list of nothing has no elements, and a null pointer is refused.
    unsafe {
        assert!(list::<CilLoss>("terms", std::ptr::null(), 0).expect("none").is_empty());
        let error = refused(list::<CilLoss>("terms", std::ptr::null(), 1));
        assert_eq!(error, "a null pointer where terms should be");
    }
}

#[test]
fn every_struct_begins_with_its_size_and_ends_revision_0_without_padding() {
    for layout in crate::plugin::abi::layouts() {
        let first = if layout.name == "CilPlugin" { ("size", 4, 4) } else { ("size", 0, 8) };
        assert!(layout.fields.contains(&first), "{}", layout.name);
        // Padding at the end would be taken by the next field, and the size would not tell.
        let end = layout.fields.last().map(|(_, at, bytes)| at + bytes);
        assert_eq!(end, Some(layout.size), "{}", layout.name);
    }
}
