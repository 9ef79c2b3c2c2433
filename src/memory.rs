//! Large arrays that are read at random.

use std::mem::MaybeUninit;

use aligned_vec::AVec;

/// Moves items to pages of 2 MiB, where the system has any to spare: with pages of 4 KiB nearly every random read of a
/// large array misses the processor's cache of page addresses, too. Costs a copy.
#[cfg(target_os = "linux")]
pub(crate) fn to_huge_pages<T>(items: &[T]) {
    const HUGE: usize = 2 << 20;
    let start = (items.as_ptr() as usize).next_multiple_of(HUGE);
    let end = (items.as_ptr() as usize + size_of_val(items)) / HUGE * HUGE;
    if start < end {
        let address = start as *mut libc::c_void;
        // SAFETY: whole pages of a live allocation; the advice changes where the bytes are kept, not the bytes. Where it
        // is refused reads are slower and nothing else, so nobody needs to know.
        unsafe {
            libc::madvise(address, end - start, libc::MADV_HUGEPAGE);
            libc::madvise(address, end - start, libc::MADV_COLLAPSE);
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn to_huge_pages<T>(_: &[T]) {}

/// An empty vector whose items will be on such pages.
pub(crate) fn huge<T>(capacity: usize) -> Vec<T> {
    let mut vec = Vec::with_capacity(capacity);
    to_huge_pages(vec.spare_capacity_mut());
    vec
}

/// An array that begins with a cache line: where it did not, every load of a whole line would take two.
pub(crate) type Aligned<T> = AVec<T>;

/// An empty one whose items will be on huge pages.
pub(crate) fn huge_aligned<T>(capacity: usize) -> Aligned<T> {
    let mut vec: Aligned<T> = Aligned::with_capacity(0, capacity);
    // SAFETY: the room of the vector, as bytes that may be anything.
    to_huge_pages(unsafe { std::slice::from_raw_parts(vec.as_mut_ptr().cast::<MaybeUninit<T>>(), vec.capacity()) });
    vec
}

/// A copy of these on such pages, with room for `capacity` at least.
pub(crate) fn huge_aligned_copy<T: Copy>(from: &[T], capacity: usize) -> Aligned<T> {
    let mut to = huge_aligned(capacity.max(from.len()));
    to.extend_from_slice(from);
    to
}
