//! The page cache: reading files into it, and emptying it of one.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Reads a file, or all files of a folder.
pub fn load(path: &Path) {
    if path.is_dir() {
        fs::read_dir(path).expect("folder").for_each(|entry| load(&entry.expect("entry").path()));
    } else {
        io::copy(&mut File::open(path).expect("file"), &mut io::sink()).expect("read");
    }
}

#[cfg(target_os = "linux")]
pub use self::linux::evict;

/// Takes all pages of a file out of memory.
#[cfg(not(target_os = "linux"))]
pub fn evict(_: &Path) {
    panic!("the benchmark runs on Linux");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use memmap2::Mmap;

    const PAGE: usize = 4096;

    /// Takes all pages of a file out of memory, those included that this process has mapped.
    pub fn evict(path: &Path) {
        let path = path.canonicalize().expect("path");
        let file = File::open(&path).expect("file");
        file.sync_all().expect("sync");
        let left = || {
            unmap_pages(&path);
            // SAFETY: an open file; 0, 0 is all of it.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
            resident(&file)
        };
        // Pages that are still being read ahead stay at first.
        let left = (0..10).map(|_| left()).find(|&pages| pages == 0);
        assert_eq!(left, Some(0), "pages of {} stay in memory", path.display());
    }

    /// Pages that are mapped cannot be evicted.
    fn unmap_pages(path: &Path) {
        let maps = fs::read_to_string("/proc/self/maps").expect("maps");
        for line in maps.lines().filter(|line| line.ends_with(&path.display().to_string())) {
            let (start, end) = line.split_once(' ').and_then(|(range, _)| range.split_once('-')).expect("a range");
            let [start, end] = [start, end].map(|hex| usize::from_str_radix(hex, 16).expect("an address"));
            // SAFETY: a mapping of a file that nothing writes to; its pages are read again when next touched.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        }
    }

    /// Pages of a file that are in memory.
    fn resident(file: &File) -> usize {
        // SAFETY: nothing reads through this mapping.
        let map = unsafe { Mmap::map(file) }.expect("map");
        let mut pages = vec![0u8; map.len().div_ceil(PAGE)];
        // SAFETY: a live mapping, and a byte for each of its pages.
        let answer = unsafe { libc::mincore(map.as_ptr() as *mut libc::c_void, map.len(), pages.as_mut_ptr().cast()) };
        assert_eq!(answer, 0, "mincore");
        pages.iter().filter(|&page| page & 1 == 1).count()
    }
}
