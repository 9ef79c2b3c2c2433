//! What the system and the control groups of this process leave it of the machine: memory and cores.
//!
//! All of it is read from files of Linux; elsewhere nothing is known.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Returns the bytes of memory that are left; `None` if the system does not tell.
///
/// A limit of the control groups counts as a whole, since what they use holds files that can be dropped.
pub(crate) fn available_memory() -> Option<u64> {
    let machine = meminfo("MemAvailable:")?;
    Some(ControlGroups::of_process().memory_limit().map_or(machine, |limit| limit.min(machine)))
}

/// Returns the bytes of memory that the machine has; `None` if the system does not tell.
#[cfg(feature = "cli")]
pub(crate) fn total_memory() -> Option<u64> {
    meminfo("MemTotal:")
}

fn meminfo(key: &str) -> Option<u64> {
    let text = read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The control groups of this process, of version 1 or 2. Limits of all groups up to the root hold.
pub(crate) struct ControlGroups {
    /// Where the groups are mounted.
    root: PathBuf,
    /// The groups by hierarchy, as `/proc/self/cgroup` has them.
    groups: String,
}

impl ControlGroups {
    pub fn of_process() -> Self {
        let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self { root: "/sys/fs/cgroup".into(), groups }
    }

    /// Returns the bytes that the groups may use; `None` without a limit.
    pub fn memory_limit(&self) -> Option<u64> {
        let limit = |path: PathBuf| {
            let bytes: u64 = read_to_string(path).ok()?.trim().parse().ok()?;
            // Version 1 writes no limit as the largest number of whole pages.
            (bytes < 1 << 62).then_some(bytes)
        };
        let files = self.files("memory", "memory.max", "memory.limit_in_bytes");
        files.into_iter().filter_map(limit).min()
    }

    /// Returns how many cores' worth of time the groups may use; `None` without a quota.
    #[cfg(feature = "cli")]
    pub fn core_quota(&self) -> Option<f64> {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let quota = |path: PathBuf| {
            let text = read_to_string(&path).ok()?;
            let (quota, period) = match text.trim().split_once(' ') {
                Some((quota, period)) => (number(quota)?, number(period)?),
                None => (number(&text)?, number(&read_to_string(path.with_file_name("cpu.cfs_period_us")).ok()?)?),
            };
            // Version 1 writes no quota as -1, version 2 as `max`.
            (quota > 0.0 && period > 0.0).then_some(quota / period)
        };
        let files = self.files("cpu", "cpu.max", "cpu.cfs_quota_us");
        files.into_iter().filter_map(quota).min_by(f64::total_cmp)
    }

    /// Returns the files of a controller's limit, from the process's own group to the root.
    ///
    /// A container sees its own group as the root, so some of them may not be there.
    fn files(&self, controller: &str, unified: &str, of_version_1: &str) -> Vec<PathBuf> {
        let files_of = |line: &str| {
            let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
            let (root, file) = match controllers {
                "" => (self.root.clone(), unified),
                _ if controllers.split(',').any(|c| c == controller) => (self.root.join(controller), of_version_1),
                _ => return None,
            };
            let group = root.join(group.trim_start_matches('/'));
            let up_to_root = group.ancestors().take_while(|folder| folder.starts_with(&root));
            Some(up_to_root.map(|folder: &Path| folder.join(file)).collect::<Vec<_>>())
        };
        self.groups.lines().filter_map(files_of).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn groups(dir: &TempDir, groups: &str, files: &[(&str, &str)]) -> ControlGroups {
        for (file, content) in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        ControlGroups { root: dir.path().into(), groups: groups.into() }
    }

    #[test]
    fn every_group_from_the_own_one_to_the_root_has_a_limit() {
        let paths = |groups: &str| {
            let groups = ControlGroups { root: "/sys/fs/cgroup".into(), groups: groups.into() };
            let files = groups.files("memory", "memory.max", "memory.limit_in_bytes");
            files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        let unified = ["/user.slice/job", "/user.slice", ""].map(|group| format!("/sys/fs/cgroup{group}/memory.max"));
        assert_eq!(paths("0::/user.slice/job\n"), unified);
        let of_memory = ["/docker/1f", "/docker", ""];
        let of_memory = of_memory.map(|group| format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes"));
        assert_eq!(paths("9:cpu,cpuacct:/docker/1f\n4:hugetlb,memory:/docker/1f\n1:name=systemd:/init\n"), of_memory);
        // A container sees its own group as the root.
        assert_eq!(paths("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(paths("nonsense\n"), [""; 0]);
    }

    #[test]
    fn the_least_limit_of_version_2_holds() {
        let dir = TempDir::new().unwrap();
        let files = [
            ("job/memory.max", "max\n"),
            ("memory.max", "8589934592\n"),
            ("job/cpu.max", "150000 100000\n"),
            ("cpu.max", "max 100000\n"),
        ];
        let groups = groups(&dir, "0::/job\n", &files);
        assert_eq!(groups.memory_limit(), Some(8 << 30));
        #[cfg(feature = "cli")]
        assert_eq!(groups.core_quota(), Some(1.5));
    }

    #[test]
    fn the_least_limit_of_version_1_holds() {
        let dir = TempDir::new().unwrap();
        let files = [
            ("memory/docker/1f/memory.limit_in_bytes", "1073741824\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpu/docker/1f/cpu.cfs_quota_us", "50000\n"),
            ("cpu/docker/1f/cpu.cfs_period_us", "100000\n"),
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
        ];
        let of_docker = groups(&dir, "9:cpu,cpuacct:/docker/1f\n4:memory:/docker/1f\n", &files);
        assert_eq!(of_docker.memory_limit(), Some(1 << 30));
        #[cfg(feature = "cli")]
        assert_eq!(of_docker.core_quota(), Some(0.5));
        let of_root = groups(&dir, "9:cpu,cpuacct:/\n4:memory:/\n", &[]);
        assert_eq!(of_root.memory_limit(), None);
        #[cfg(feature = "cli")]
        assert_eq!(of_root.core_quota(), None);
    }
}
