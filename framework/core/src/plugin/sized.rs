//! Structs of the ABI that may be longer or shorter on the other side. Whatever crosses is read and
//! written by the functions of this file.

use std::ffi::c_char;

use super::abi::{Crossing, LARGEST, REVISION, VERSION};
use super::flat::{self, Read};

/// Who wrote what is read, and the revision of the ABI that it speaks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Writer {
    Plugin(u32),
    Harness(u32),
}

impl Writer {
    /// The refusal of a field that this side does not have.
    fn refuse(self, what: &str, field: &str) -> String {
        let (other, theirs, own, remedy) = match self {
            Self::Plugin(theirs) => ("plugin", theirs, "cilbench", "update cilbench"),
            Self::Harness(theirs) => ("harness", theirs, "plugin", "rebuild the plugin against it"),
        };
        format!(
            "{what} requires '{field}', which this {own} (ABI {VERSION}.{REVISION}) does not know \
             and the {other} (ABI {VERSION}.{theirs}) does: {remedy}"
        )
    }
}

/// Copies a struct of the other side: fields beyond its size are zero, and what lies beyond the
/// known fields is skipped.
///
/// # Safety
/// A pointer that is not null points to as many bytes as the size at its beginning says.
pub(super) unsafe fn read<T: Crossing>(pointer: *const T) -> Read<T> {
    let size = unsafe { size_at(pointer)? };
    // SAFETY: the caller's promise.
    unsafe { copy(pointer, size) }
}

/// As [`read`]. Refuses a struct that requires a field which is not known here.
///
/// # Safety
/// As [`read`]; texts end with a zero.
pub(super) unsafe fn read_from<T: Crossing>(pointer: *const T, writer: Writer) -> Read<T> {
    // SAFETY: the caller's promise, here and below.
    let size = unsafe { size_at(pointer)? };
    let value = unsafe { copy(pointer, size)? };
    unsafe { understood(&value, size, writer)? };
    Ok(value)
}

/// Checks that every field which a struct of `size` bytes requires is known and there.
///
/// # Safety
/// As [`read_from`].
pub(super) unsafe fn understood<T: Crossing>(value: &T, size: u64, writer: Writer) -> Read<()> {
    let Some((_, offset, _)) = T::FIELDS.iter().find(|(name, ..)| *name == "required") else {
        return Ok(());
    };
    // SAFETY: `Crossing` promises that a text lies there, and the caller that it ends with a zero.
    let names = unsafe {
        let names = std::ptr::from_ref(value).byte_add(*offset).cast::<*const c_char>().read();
        flat::optional_text(&format!("the required fields of {}", T::NAME), names)?
    };
    for name in names.iter().flat_map(|n| n.split(',')).map(str::trim).filter(|n| !n.is_empty()) {
        match T::FIELDS.iter().find(|(known, ..)| *known == name) {
            None => return Err(writer.refuse(T::NAME, name)),
            Some((_, at, bytes)) if (at + bytes) as u64 > size => {
                return Err(format!("{} requires '{name}' and ends before it", T::NAME));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Copies a list of structs, which lie as many bytes apart as the first says.
///
/// # Safety
/// A pointer that is not null points to `count` structs of one size, each as for [`read`].
pub(super) unsafe fn list<T: Crossing>(what: &str, items: *const T, count: u64) -> Read<Vec<T>> {
    let (mut all, mut stride) = (Vec::new(), 0);
    for i in 0..count {
        if items.is_null() {
            return Err(format!("a null pointer where {what} should be"));
        }
        let offset = usize::try_from(i).ok().and_then(|i| i.checked_mul(stride));
        let offset = offset.filter(|o| isize::try_from(*o).is_ok());
        let offset = offset.ok_or_else(|| format!("more {what} than there is memory"))?;
        // SAFETY: the caller's promise; all elements before were as long as the stride.
        let (pointer, size) = unsafe {
            let pointer = items.byte_add(offset);
            (pointer, size_at(pointer)?)
        };
        if !size.is_multiple_of(8) || (i > 0 && size != stride as u64) {
            return Err(format!(
                "{what}: a {} of {size} bytes; in a list all have the same size, which 8 divides",
                T::NAME
            ));
        }
        stride = size as usize;
        // SAFETY: as above.
        all.push(unsafe { copy(pointer, size)? });
    }
    Ok(all)
}

/// As [`list`]. Refuses an element that requires a field which is not known here.
///
/// # Safety
/// As [`list`]; texts end with a zero.
pub(super) unsafe fn list_from<T: Crossing>(
    what: &str,
    items: *const T,
    count: u64,
    writer: Writer,
) -> Read<Vec<T>> {
    // SAFETY: the caller's promise, here and below.
    let all = unsafe { list(what, items, count)? };
    let size = if count == 0 { 0 } else { unsafe { size_at(items)? } };
    for one in &all {
        unsafe { understood(one, size, writer)? };
    }
    Ok(all)
}

/// Writes to an out parameter as much as there is room for.
///
/// # Safety
/// A pointer that is not null has as much room as the size at its beginning says.
pub(super) unsafe fn put<T: Crossing>(out: *mut T, value: T) -> Read<()> {
    // SAFETY: the caller's promise.
    let room = unsafe { size_at(out.cast_const())? };
    let written = size_of::<T>().min(room as usize);
    // SAFETY: both have so many bytes; the size is the first field of an out parameter.
    unsafe {
        std::ptr::copy_nonoverlapping(std::ptr::from_ref(&value).cast::<u8>(), out.cast(), written);
        out.cast::<u64>().write(written as u64);
    }
    Ok(())
}

/// The size that a struct begins with, if it can be one.
///
/// # Safety
/// A pointer that is not null points to 8 bytes at least.
unsafe fn size_at<T: Crossing>(pointer: *const T) -> Read<u64> {
    if pointer.is_null() {
        return Err(format!("a null pointer where a {} should be", T::NAME));
    }
    if !pointer.is_aligned() {
        return Err(format!("the pointer to a {} is not aligned", T::NAME));
    }
    // SAFETY: not null, aligned for the struct and so for its first field.
    let size = unsafe { pointer.cast::<u64>().read() };
    checked::<T>(size)
}

/// An error unless a struct may have this size.
fn checked<T: Crossing>(size: u64) -> Read<u64> {
    let (name, least) = (T::NAME, T::LEAST);
    if (least as u64..=LARGEST as u64).contains(&size) {
        return Ok(size);
    }
    Err(format!(
        "{name}: its size is {size}, and in version {VERSION} of the ABI it is from {least} to \
         {LARGEST}: set it to sizeof({name})"
    ))
}

/// Copies a struct of `size` bytes.
///
/// # Safety
/// The pointer is not null and points to so many bytes.
pub(super) unsafe fn copy<T: Crossing>(pointer: *const T, size: u64) -> Read<T> {
    let known = checked::<T>(size)?.min(size_of::<T>() as u64);
    // SAFETY: zeros are a value of the type, by `Crossing`.
    let mut value: T = unsafe { std::mem::zeroed() };
    // SAFETY: both have so many bytes. What is copied is a beginning of the struct's fields, and
    // each of them is a number, a pointer or a function that may be missing.
    unsafe {
        let to = std::ptr::from_mut(&mut value).cast::<u8>();
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), to, known as usize);
    }
    Ok(value)
}

#[cfg(test)]
#[path = "sized_test.rs"]
mod tests;
