//! Large arrays that are read at random.

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
