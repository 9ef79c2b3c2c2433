//! Building and gathering in a process that may have half as much memory as the rows take.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use prosampler::config::Advice;

use super::gather::gather;
use super::{BATCH_SIZE, build, pages};

const MB: f64 = 1e6;

/// Building takes about as much, however many the rows are.
const LEAST: usize = 600_000_000;

pub fn run(folder: &Path) -> Option<String> {
    let parquet = build::parquet(folder);
    // Of incompressible rows, the file is as large as they are.
    let limit = fs::metadata(&parquet).expect("Parquet").len() as usize / 2;
    if limit < LEAST {
        println!("no limit of memory for so few rows");
        return None;
    }
    let group = Group::new(limit);
    let scope = || Command::new("systemd-run").args(["--scope", "--quiet", "true"]).status().is_ok_and(|s| s.success());
    let (mut command, how, all) = match &group {
        Some(group) => (group.command(), "in a memory cgroup", true),
        None if scope() => (systemd(limit), "in a systemd scope", true),
        None => (ulimit(limit), "by ulimit -d, so of anonymous memory only", false),
    };
    // Pages are charged to whoever reads them first.
    pages::evict(&parquet);
    let program = std::env::current_exe().expect("program");
    let output = command.arg(program).arg("--limited").arg(folder).stderr(Stdio::inherit()).output().expect("child");
    assert!(output.status.success(), "the child ended with {}", output.status);
    let words = String::from_utf8(output.stdout).expect("text");
    let numbers: Vec<f64> = words.split_whitespace().map(|word| word.parse().expect("number")).collect();
    let &[resident, anonymous, auto, normal] = &numbers[..] else { panic!("{words}") };

    println!("under a limit of {:.0} MB, half of the rows, {how}", limit as f64 / MB);
    println!("{:<44} {auto:>10.0}", "  prosampler, advice = auto");
    println!("{:<44} {normal:>10.0}", "  prosampler, advice = normal");
    println!("  resident at most {:.0} MB, of it anonymous {:.0} MB", resident / MB, anonymous / MB);
    if let Some(peak) = group.and_then(|group| group.peak()) {
        println!("  charged at most {:.0} MB, the page cache included", peak / MB);
    }
    let share = if all { resident } else { anonymous } / limit as f64;
    Some(format!("figure store.resident_under_limit {share:.3} share"))
}

/// Builds, gathers with either advice, and prints most resident bytes, most anonymous bytes and rows/s.
pub fn child(folder: &Path) {
    let anonymous = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let rates = thread::scope(|scope| {
        scope.spawn(|| {
            while done.load(Relaxed) == 0 {
                anonymous.fetch_max(status("RssAnon:"), Relaxed);
                thread::sleep(Duration::from_millis(10));
            }
        });
        let cache = folder.join("limited");
        let rates = [(Advice::Auto, 400), (Advice::Normal, 10)].map(|(advice, mini_batches)| {
            let store = build::open(folder, &cache, advice);
            (mini_batches * BATCH_SIZE) as f64 / gather(&store, mini_batches, 1)
        });
        fs::remove_dir_all(&cache).expect("cache");
        done.store(1, Relaxed);
        rates
    });
    println!("{} {} {} {}", status("VmHWM:"), anonymous.into_inner(), rates[0], rates[1]);
}

/// Bytes, from what the system says of this process.
fn status(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("its line");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("kB");
    kilobytes * 1024
}

/// A cgroup (version 1) of its own.
struct Group(PathBuf);

impl Group {
    /// Where this process may make one.
    fn new(limit: usize) -> Option<Self> {
        let folder = PathBuf::from(format!("/sys/fs/cgroup/memory/prosampler-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let group = Self(folder);
        fs::write(group.0.join("memory.limit_in_bytes"), limit.to_string()).ok()?;
        Some(group)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(self.0.join("cgroup.procs"));
        command
    }

    /// The most bytes that were charged to it.
    fn peak(&self) -> Option<f64> {
        fs::read_to_string(self.0.join("memory.max_usage_in_bytes")).ok()?.trim().parse().ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group without processes; one that stays does no harm.
        let _ = fs::remove_dir(&self.0);
    }
}

fn systemd(limit: usize) -> Command {
    let mut command = Command::new("systemd-run");
    command.args(["--scope", "--quiet", "-p", "MemorySwapMax=0", "-p"]).arg(format!("MemoryMax={limit}"));
    command
}

fn ulimit(limit: usize) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -d "$0" && exec "$@""#]).arg((limit / 1024).to_string());
    command
}
