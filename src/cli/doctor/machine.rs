//! The processor, and the limits of the system and of the container.

use super::item;
use crate::Result;
use crate::cli::progress::{size, thousands};
use crate::graph::kernel_names;
use crate::machine::{ControlGroups, available_memory, total_memory};

/// Says what the machine has, and what this process may use of it.
pub(super) fn print() -> Result<()> {
    say!("\nmachine")?;
    let features = processor_features();
    let features =
        if features.is_empty() { "no vector instructions that are used".to_owned() } else { features.join(", ") };
    item("processor", &format!("{}: {features}", std::env::consts::ARCH))?;
    item("kernels", &kernel_names().join(", "))?;

    let groups = ControlGroups::of_process();
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let all = online_processors().map(|all| format!(" of {all}")).unwrap_or_default();
    let quota = groups.core_quota().map(|quota| format!(", by a quota of {quota:.2}")).unwrap_or_default();
    item("cores", &format!("{usable}{all}{quota}"))?;

    let available = available_memory().map_or("not known".to_owned(), |bytes| format!("{} available", size(bytes)));
    let total = total_memory().map(|bytes| format!(" of {}", size(bytes))).unwrap_or_default();
    let limit = groups.memory_limit().map(|bytes| format!(", with a limit of {}", size(bytes))).unwrap_or_default();
    item("memory", &format!("{available}{total}{limit}"))?;

    if let Some(limit) = open_file_limit() {
        item("open files", &limit)?;
    }
    Ok(())
}

/// The vector instructions for which there is code, of those that the processor has.
fn processor_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let features = [
            ("AVX2", is_x86_feature_detected!("avx2")),
            ("FMA", is_x86_feature_detected!("fma")),
            ("POPCNT", is_x86_feature_detected!("popcnt")),
            ("AVX-512F", is_x86_feature_detected!("avx512f")),
            ("AVX-512 BF16", is_x86_feature_detected!("avx512bf16")),
            ("AVX-512 VNNI", is_x86_feature_detected!("avx512vnni")),
        ];
        features.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect()
    }
    #[cfg(target_arch = "aarch64")]
    return vec!["NEON"];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    Vec::new()
}

/// The processors of the machine; `None` if the system does not tell.
fn online_processors() -> Option<u64> {
    #[cfg(unix)]
    {
        // SAFETY: the call only reads a setting of the system.
        let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        u64::try_from(count).ok().filter(|count| *count > 0)
    }
    #[cfg(not(unix))]
    None
}

/// How many files this process may have open.
fn open_file_limit() -> Option<String> {
    #[cfg(unix)]
    {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the call writes to `limit` alone.
        let is_known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
        let number = |limit: libc::rlim_t| match limit {
            libc::RLIM_INFINITY => "any number".to_owned(),
            limit => thousands(limit),
        };
        is_known.then(|| format!("{}, at most {} by ulimit -n", number(limit.rlim_cur), number(limit.rlim_max)))
    }
    #[cfg(not(unix))]
    None
}
