//! Large arrays that are read at random.

use std::mem::MaybeUninit;
use std::ops::Deref;

use aligned_vec::AVec;
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::ArrowNativeType;

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

/// A large array, in memory or in a mapped file. One in a file is copied to memory when it is first changed.
#[derive(Clone, Debug)]
pub(crate) enum LargeArray<T: ArrowNativeType> {
    InMemory(Aligned<T>),
    Mapped(ScalarBuffer<T>),
}

impl<T: ArrowNativeType> LargeArray<T> {
    /// An empty array in memory with space for so many items.
    pub fn with_capacity(capacity: usize) -> Self {
        Self::InMemory(huge_aligned(capacity))
    }

    /// A copy in memory with space for `capacity` items in all.
    pub fn copy_with_capacity(&self, capacity: usize) -> Self {
        Self::InMemory(huge_aligned_copy(self, capacity))
    }

    /// The array in memory, to be changed.
    pub fn to_mut(&mut self) -> &mut Aligned<T> {
        if let Self::Mapped(items) = self {
            *self = Self::InMemory(huge_aligned_copy(items, 0));
        }
        match self {
            Self::InMemory(items) => items,
            Self::Mapped(_) => unreachable!("it was copied to memory"),
        }
    }

    /// The items as a buffer of Arrow's. They are copied if they are in memory.
    pub fn to_buffer(&self) -> ScalarBuffer<T> {
        match self {
            Self::InMemory(items) => items.iter().copied().collect(),
            Self::Mapped(items) => items.clone(),
        }
    }
}

impl<T: ArrowNativeType> Deref for LargeArray<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Self::InMemory(items) => items,
            Self::Mapped(items) => items,
        }
    }
}

impl<T: ArrowNativeType> PartialEq for LargeArray<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
