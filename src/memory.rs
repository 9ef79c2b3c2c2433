//! Large arrays that are read at random.

use std::mem::MaybeUninit;

use aligned_vec::AVec;

/// Moves items to pages of 2 MiB, if the system has any to spare, at the cost of a copy.
///
/// With pages of 4 KiB, nearly every random read of a large array also misses the processor's cache of page addresses.
#[cfg(target_os = "linux")]
pub(crate) fn to_huge_pages<T>(items: &[T]) {
    const HUGE_PAGE_BYTES: usize = 2 << 20;
    let start = (items.as_ptr() as usize).next_multiple_of(HUGE_PAGE_BYTES);
    let end = (items.as_ptr() as usize + size_of_val(items)) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if start < end {
        let address = start as *mut libc::c_void;
        // SAFETY: these are whole pages of a live allocation, and the advice changes where the bytes are kept, not the
        // bytes. If it is refused, reads are slower and nothing else, so the result is ignored.
        unsafe {
            libc::madvise(address, end - start, libc::MADV_HUGEPAGE);
            libc::madvise(address, end - start, libc::MADV_COLLAPSE);
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn to_huge_pages<T>(_: &[T]) {}

/// An empty vector whose items will be on huge pages.
pub(crate) fn huge<T>(capacity: usize) -> Vec<T> {
    let mut vec = Vec::with_capacity(capacity);
    to_huge_pages(vec.spare_capacity_mut());
    vec
}

/// An array that begins with a cache line, so that loading a line's worth of items touches one line and not two.
pub(crate) type Aligned<T> = AVec<T>;

/// An empty aligned array whose items will be on huge pages.
pub(crate) fn huge_aligned<T>(capacity: usize) -> Aligned<T> {
    let mut vec: Aligned<T> = Aligned::with_capacity(0, capacity);
    // SAFETY: `ptr..ptr + capacity` is one allocation, and `MaybeUninit<T>` needs no initialised bytes.
    to_huge_pages(unsafe { std::slice::from_raw_parts(vec.as_mut_ptr().cast::<MaybeUninit<T>>(), vec.capacity()) });
    vec
}

/// A copy of items on huge pages, with a capacity of at least `capacity`.
pub(crate) fn huge_aligned_copy<T: Copy>(from: &[T], capacity: usize) -> Aligned<T> {
    let mut to = huge_aligned(capacity.max(from.len()));
    to.extend_from_slice(from);
    to
}
