//! Advises the operating system how mapped rows will be read.
//!
//! By default the system reads ahead around each row that is touched. That is right if the whole file will end up in
//! memory, and reads many times too much if it cannot. For such files read-ahead is turned off, and the pages of a
//! mini-batch's rows are requested all at once, so that the disk works on many at a time.

use std::ops::Range;
#[cfg(target_os = "linux")]
use std::sync::OnceLock;

use arrow::array::{Array, ArrayData, ByteView, MAX_INLINE_VIEW_LEN, RecordBatch};
use arrow::datatypes::DataType;

use crate::config::Advice;
use crate::{machine, telemetry};

/// Advises the system that rows will be read at random, if `advice` says so, and returns whether it does.
///
/// With [`Advice::Auto`], it does if the rows take more than half of the memory that is available.
pub(super) fn advise_random<'a>(batches: impl Iterator<Item = &'a RecordBatch> + Clone, advice: Advice) -> bool {
    let buffers = || batches.clone().flat_map(RecordBatch::columns).flat_map(|column| extents(&column.to_data()));
    let size: usize = buffers().map(|extent| extent.len()).sum();
    let random = match advice {
        Advice::Normal => false,
        Advice::Random => true,
        Advice::Auto => machine::available_memory().is_some_and(|available| size as u64 > available / 2),
    };
    if random {
        telemetry::read_at_random(size);
        buffers().for_each(|extent| advise(extent, AccessPattern::Random));
    }
    random
}

/// Requests the pages of these rows, each given as a record batch and a row in it.
///
/// 1. The offsets of all rows are requested, and the values of fixed width.
/// 2. The offsets are read, and the values of variable length that they point to are requested.
pub(super) fn will_need(batches: &[&RecordBatch], rows: &[(usize, usize)]) {
    let for_each_value = |request: fn(&ArrayData, Range<usize>)| {
        for &(batch, row) in rows {
            for column in batches[batch].columns() {
                request(&column.to_data(), row..row + 1);
            }
        }
    };
    for_each_value(will_need_fixed_width);
    for_each_value(|data, rows| values(data, rows, &mut will_need_long));
}

/// Returns the bytes of the values of all rows, without offsets and validity bits.
pub(super) fn bytes(batch: &RecordBatch) -> usize {
    let mut bytes = 0;
    let columns = batch.columns().iter().map(Array::to_data);
    columns.for_each(|data| values(&data, 0..data.len(), &mut |extent| bytes += extent.len()));
    bytes
}

/// Requests all pages of a record batch.
pub(super) fn will_need_all(batch: &RecordBatch) {
    let buffers = batch.columns().iter().flat_map(|column| extents(&column.to_data()));
    buffers.for_each(|extent| advise(extent, AccessPattern::WillNeed));
}

/// Returns the addresses of all buffers of an array.
fn extents(data: &ArrayData) -> Vec<Range<usize>> {
    let own = data.buffers().iter().map(|buffer| buffer.as_ptr() as usize..buffer.as_ptr() as usize + buffer.len());
    own.chain(data.child_data().iter().flat_map(extents)).collect()
}

/// Requests the offsets of some rows, or their values if these are of fixed width.
fn will_need_fixed_width(data: &ArrayData, rows: Range<usize>) {
    let (rows, width) = match data.data_type() {
        DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::Map(..) => (rows.start..rows.end + 1, 4),
        DataType::LargeUtf8 | DataType::LargeBinary | DataType::LargeList(_) => (rows.start..rows.end + 1, 8),
        DataType::Utf8View | DataType::BinaryView => (rows, size_of::<u128>()),
        DataType::Struct(_) => {
            return data.child_data().iter().for_each(|child| will_need_fixed_width(child, rows.clone()));
        }
        other => (rows, other.primitive_width().unwrap_or(0)),
    };
    if let Some(buffer) = data.buffers().first() {
        let start = buffer.as_ptr() as usize + data.offset() * width;
        advise(start + rows.start * width..start + rows.end * width, AccessPattern::WillNeed);
    }
}

/// Calls `found` with the addresses of the values of some rows.
fn values(data: &ArrayData, rows: Range<usize>, found: &mut dyn FnMut(Range<usize>)) {
    let rows = rows.start + data.offset()..rows.end + data.offset();
    let mut bytes = |width: usize| {
        let start = data.buffers()[0].as_ptr() as usize;
        found(start + rows.start * width..start + rows.end * width);
    };
    match data.data_type() {
        DataType::Utf8 | DataType::Binary => texts::<i32>(data, &rows, found),
        DataType::LargeUtf8 | DataType::LargeBinary => texts::<i64>(data, &rows, found),
        DataType::Utf8View | DataType::BinaryView => views(data, rows, found),
        DataType::List(_) | DataType::Map(..) => values(&data.child_data()[0], items::<i32>(data, &rows), found),
        DataType::LargeList(_) => values(&data.child_data()[0], items::<i64>(data, &rows), found),
        DataType::FixedSizeList(_, length) => {
            let length = usize::try_from(*length).unwrap_or(0);
            values(&data.child_data()[0], rows.start * length..rows.end * length, found);
        }
        DataType::Struct(_) => data.child_data().iter().for_each(|child| values(child, rows.clone(), found)),
        DataType::FixedSizeBinary(width) => bytes(usize::try_from(*width).unwrap_or(0)),
        other => {
            if let Some(width) = other.primitive_width() {
                bytes(width);
            }
        }
    }
}

fn texts<O: Offset>(data: &ArrayData, rows: &Range<usize>, found: &mut dyn FnMut(Range<usize>)) {
    let start = data.buffers()[1].as_ptr() as usize;
    let items = items::<O>(data, rows);
    found(start + items.start..start + items.end);
}

fn views(data: &ArrayData, rows: Range<usize>, found: &mut dyn FnMut(Range<usize>)) {
    let views = data.buffers()[0].typed_data::<u128>()[rows].iter().copied().map(ByteView::from);
    for view in views.filter(|view| view.length > MAX_INLINE_VIEW_LEN) {
        let start = data.buffers()[1 + view.buffer_index as usize].as_ptr() as usize + view.offset as usize;
        found(start..start + view.length as usize);
    }
}

/// Requests the pages of a value, unless it is short.
fn will_need_long(bytes: Range<usize>) {
    if bytes.len() >= MIN_REQUEST_BYTES {
        advise(bytes, AccessPattern::WillNeed);
    }
}

/// Returns the range of items that rows of variable length point to.
fn items<O: Offset>(data: &ArrayData, rows: &Range<usize>) -> Range<usize> {
    let offsets = data.buffers()[0].typed_data::<O>();
    offsets[rows.start].index()..offsets[rows.end].index()
}

trait Offset: arrow::datatypes::ArrowNativeType {
    fn index(self) -> usize {
        self.as_usize()
    }
}

impl Offset for i32 {}
impl Offset for i64 {}

/// How pages will be read.
#[derive(Clone, Copy)]
enum AccessPattern {
    Random,
    WillNeed,
}

#[cfg(target_os = "linux")]
fn advise(bytes: Range<usize>, access: AccessPattern) {
    let page = page_size();
    let start = bytes.start / page * page;
    let advice = match access {
        AccessPattern::Random => libc::MADV_RANDOM,
        AccessPattern::WillNeed => libc::MADV_WILLNEED,
    };
    if !bytes.is_empty() {
        // SAFETY: these are pages of a live mapping, which advice does not change. If it is refused, reads are slower.
        unsafe { libc::madvise(start as *mut libc::c_void, bytes.end - start, advice) };
    }
}

/// Returns the bytes of a page: 4 KiB on most machines, 16 or 64 KiB on some.
#[cfg(target_os = "linux")]
fn page_size() -> usize {
    static PAGE_SIZE: OnceLock<usize> = OnceLock::new();
    *PAGE_SIZE.get_or_init(|| {
        // SAFETY: the call only reads a setting of the system.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(4096)
    })
}

#[cfg(not(target_os = "linux"))]
fn advise(_: Range<usize>, _: AccessPattern) {}

/// Shorter values are not requested: they share their page with many others, which keep it in memory.
const MIN_REQUEST_BYTES: usize = 64;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn pages_are_as_large_as_the_system_says() {
        assert!(page_size().is_power_of_two() && page_size() >= 4096, "{}", page_size());
    }
}
