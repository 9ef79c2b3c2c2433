//! What the operating system is told about the mapped rows.
//!
//! It reads whole stretches of a file around each row that is touched: right where all of the file will end up in
//! memory, and many times too much where it cannot. Then each row's own pages are asked for, all of a mini-batch at
//! once, so that the disk works on many at a time.

use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayData, ByteView, MAX_INLINE_VIEW_LEN, RecordBatch};
use arrow::datatypes::DataType;

use crate::config::Advice;
use crate::telemetry;

/// Tells the system that rows will be read at random, where that is so. Whether they are to be asked for.
pub(super) fn advise<'a>(batches: impl Iterator<Item = &'a RecordBatch> + Clone, advice: Advice) -> bool {
    let buffers = || batches.clone().flat_map(RecordBatch::columns).flat_map(|column| stretches(&column.to_data()));
    let size: usize = buffers().map(|stretch| stretch.len()).sum();
    let random = match advice {
        Advice::Normal => false,
        Advice::Random => true,
        Advice::Auto => available().is_some_and(|available| size > available / 2),
    };
    if random {
        telemetry::read_at_random(size);
        buffers().for_each(|stretch| tell(stretch, Tell::Random));
    }
    random
}

/// Asks for the pages of these rows, each a record batch and a place in it. Where values of variable length are must be
/// read to ask for them, so this is asked for before, of all rows at once too.
pub(super) fn ask_for(batches: &[&RecordBatch], rows: &[(usize, usize)]) {
    let each = |what: fn(&ArrayData, Range<usize>)| {
        for &(batch, row) in rows {
            for column in batches[batch].columns() {
                what(&column.to_data(), row..row + 1);
            }
        }
    };
    each(narrow);
    each(|data, rows| values(data, rows, &mut ask));
}

/// How long the values of all rows are, in bytes, without offsets and bits.
pub(super) fn bytes(batch: &RecordBatch) -> usize {
    let mut bytes = 0;
    let columns = batch.columns().iter().map(Array::to_data);
    columns.for_each(|data| values(&data, 0..data.len(), &mut |stretch| bytes += stretch.len()));
    bytes
}

/// Asks for a whole record batch.
pub(super) fn ask_for_all(batch: &RecordBatch) {
    let buffers = batch.columns().iter().flat_map(|column| stretches(&column.to_data()));
    buffers.for_each(|stretch| tell(stretch, Tell::WillNeed));
}

/// All buffers of an array, as addresses.
fn stretches(data: &ArrayData) -> Vec<Range<usize>> {
    let own = data.buffers().iter().map(|buffer| buffer.as_ptr() as usize..buffer.as_ptr() as usize + buffer.len());
    own.chain(data.child_data().iter().flat_map(stretches)).collect()
}

/// Asks for the offsets of some rows, or for their values where these are as narrow.
fn narrow(data: &ArrayData, rows: Range<usize>) {
    let (rows, width) = match data.data_type() {
        DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::Map(..) => (rows.start..rows.end + 1, 4),
        DataType::LargeUtf8 | DataType::LargeBinary | DataType::LargeList(_) => (rows.start..rows.end + 1, 8),
        DataType::Utf8View | DataType::BinaryView => (rows, size_of::<u128>()),
        DataType::Struct(_) => return data.child_data().iter().for_each(|child| narrow(child, rows.clone())),
        other => (rows, other.primitive_width().unwrap_or(0)),
    };
    if let Some(buffer) = data.buffers().first() {
        let start = buffer.as_ptr() as usize + data.offset() * width;
        tell(start + rows.start * width..start + rows.end * width, Tell::WillNeed);
    }
}

/// Where the values of some rows are.
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

/// Values shorter than this share their page with many others, which keep it in memory.
const NARROW: usize = 64;

fn texts<O: Offset>(data: &ArrayData, rows: &Range<usize>, found: &mut dyn FnMut(Range<usize>)) {
    let (start, items) = (data.buffers()[1].as_ptr() as usize, items::<O>(data, rows));
    found(start + items.start..start + items.end);
}

fn views(data: &ArrayData, rows: Range<usize>, found: &mut dyn FnMut(Range<usize>)) {
    let views = data.buffers()[0].typed_data::<u128>()[rows].iter().copied().map(ByteView::from);
    for view in views.filter(|view| view.length > MAX_INLINE_VIEW_LEN) {
        let start = data.buffers()[1 + view.buffer_index as usize].as_ptr() as usize + view.offset as usize;
        found(start..start + view.length as usize);
    }
}

fn ask(bytes: Range<usize>) {
    if bytes.len() >= NARROW {
        tell(bytes, Tell::WillNeed);
    }
}

/// What rows of variable length point to.
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

#[derive(Clone, Copy)]
enum Tell {
    Random,
    WillNeed,
}

#[cfg(target_os = "linux")]
fn tell(bytes: Range<usize>, what: Tell) {
    const PAGE: usize = 4096;
    let start = bytes.start / PAGE * PAGE;
    let advice = match what {
        Tell::Random => libc::MADV_RANDOM,
        Tell::WillNeed => libc::MADV_WILLNEED,
    };
    if !bytes.is_empty() {
        // SAFETY: pages of a live mapping, which the advice does not change; where it is refused, reads are slower.
        unsafe { libc::madvise(start as *mut libc::c_void, bytes.end - start, advice) };
    }
}

#[cfg(not(target_os = "linux"))]
fn tell(_: Range<usize>, _: Tell) {}

/// Bytes of memory that the system, or the container, still has for the pages of files. `None` where it does not say.
fn available() -> Option<usize> {
    let number = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    let line = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()
    };
    let machine = line(&std::fs::read_to_string("/proc/meminfo").ok()?)? * 1024;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(limits(&groups).iter().filter_map(|path| number(path)).fold(machine, usize::min))
}

/// Where the limits of a process's control groups stand, from its own up to the root, for both versions of them.
fn limits(groups: &str) -> Vec<PathBuf> {
    let of = |line: &str| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|c| c == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        let group = Path::new(root).join(group.trim_start_matches('/'));
        Some(group.ancestors().take_while(|folder| folder.starts_with(root)).map(|f| f.join(file)).collect::<Vec<_>>())
    };
    groups.lines().filter_map(of).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_stand_in_every_group_from_the_own_one_to_the_root() {
        let paths = |groups| limits(groups).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        let unified = ["/user.slice/job", "/user.slice", ""].map(|group| format!("/sys/fs/cgroup{group}/memory.max"));
        assert_eq!(paths("0::/user.slice/job\n"), unified);
        let of_memory = ["/docker/1f", "/docker", ""];
        let of_memory = of_memory.map(|group| format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes"));
        assert_eq!(paths("9:cpu,cpuacct:/docker/1f\n4:hugetlb,memory:/docker/1f\n1:name=systemd:/init\n"), of_memory);
        // A container sees itself as the root.
        assert_eq!(paths("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(paths("nonsense\n"), [""; 0]);
    }
}
