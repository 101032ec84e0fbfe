//! Buffers aligned to cache lines. Large buffers lie in large pages, so that walking through a
//! matrix costs fewer address translations.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::nn::cpu::simd::Float;

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;
/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;

/// A buffer of numbers that begins at a cache line. If it is as large as a large page, it begins at
/// one.
pub(crate) struct Aligned<T> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: it owns its numbers as a box does.
unsafe impl<T: Send> Send for Aligned<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Aligned<T> {}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { start: NonNull::dangling(), len: 0 }
    }
}

impl<T> Aligned<T> {
    fn layout(len: usize) -> Layout {
        let bytes = size_of::<T>().checked_mul(len).expect("memory for a matrix");
        let alignment = if bytes >= LARGE_PAGE { LARGE_PAGE } else { LINE };
        Layout::from_size_align(bytes, alignment).expect("memory for a matrix")
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn values(&self) -> &[T] {
        // SAFETY: `new` made room for `len` numbers and cleared them; without any, the pointer is
        // not used.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub fn values_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Float> Aligned<T> {
    /// A buffer of zeros.
    pub fn new(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        let layout = Self::layout(len);
        // SAFETY: the layout is not empty.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }.cast::<T>()) else {
            handle_alloc_error(layout)
        };
        // The advice must come before the first write.
        large_pages(start.as_ptr(), layout.size(), Pages::WhenTouched);
        // SAFETY: room for `len` numbers; all bits zero are the number 0 in the types that `Float`
        // is for.
        unsafe { start.write_bytes(0, len) };
        Self { start, len }
    }
}

impl<T> Drop for Aligned<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) };
        }
    }
}

/// When memory is to move to large pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// When it is first written to.
    WhenTouched,
    /// At once. Memory that is already written to needs this.
    Now,
}

/// Asks the system to put the bytes from `start` on into large pages, as far as they fill whole
/// ones. A system without large pages changes nothing.
pub(crate) fn large_pages<T>(start: *const T, bytes: usize, when: Pages) {
    #[cfg(target_os = "linux")]
    {
        // Since Linux 6.1; not every C library has this constant.
        const MADV_COLLAPSE: libc::c_int = 25;
        let first = start.addr().next_multiple_of(LARGE_PAGE);
        let end = (start.addr() + bytes) / LARGE_PAGE * LARGE_PAGE;
        if first < end {
            let advice = if when == Pages::Now { MADV_COLLAPSE } else { libc::MADV_HUGEPAGE };
            // SAFETY: advice about pages inside one allocation, which changes nothing that a
            // program can read.
            unsafe { libc::madvise(start.with_addr(first).cast_mut().cast(), end - first, advice) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes, when);
}

/// Prefetches values that will soon be read.
pub(crate) fn fetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(LINE / size_of::<T>()).chain(values.last().map(std::slice::from_ref))
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: fetching ahead reads nothing as far as the program can tell.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_at_a_line_or_a_large_page_and_holds_zeros() {
        for (len, alignment) in
            [(1, LINE), (1000, LINE), (LARGE_PAGE / 4, LARGE_PAGE), (LARGE_PAGE, LARGE_PAGE)]
        {
            let mut memory = Aligned::<f32>::new(len);
            assert_eq!((memory.len(), memory.values().as_ptr().addr() % alignment), (len, 0));
            assert!(memory.values().iter().all(|v| *v == 0.0));
            memory.values_mut().fill(1.5);
            large_pages(memory.values().as_ptr(), size_of_val(memory.values()), Pages::Now);
            assert!(memory.values().iter().all(|v| *v == 1.5), "moving pages keeps the values");
        }
        assert!(Aligned::<f64>::new(0).values().is_empty());
    }
}
