//! Other processes, spoken to line by line.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The argument that makes this program a child of the benchmark.
pub const CHILD: &str = "--child";

pub struct Process {
    child: Child,
    /// Closed, it tells the process to end.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// A process of this program for one rank of a job whose ranks share a file of rows and a cache folder.
    pub fn rank(part: &str, file: &Path, cache: &Path, rank: usize, world_size: usize) -> Self {
        let numbers = [rank, world_size].map(|number| number.to_string());
        Self::part(part, [file.as_os_str(), cache.as_os_str(), numbers[0].as_ref(), numbers[1].as_ref()])
    }

    /// A process of this program.
    pub fn part<'a>(part: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        Self::start(command.args([CHILD, part]).args(arguments)).expect("a process")
    }

    pub fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        Ok(Self { stdin: child.stdin.take(), stdout, child })
    }

    pub fn tell(&mut self, words: &str) {
        let stdin = self.stdin.as_mut().expect("stdin");
        writeln!(stdin, "{words}").expect("a process that listens");
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("line");
        assert!(!line.is_empty(), "a process has died");
        line.trim().to_owned()
    }

    /// The numbers of its next line.
    pub fn numbers<const N: usize>(&mut self) -> [f64; N] {
        let line = self.line();
        let numbers: Vec<f64> = line.split_whitespace().map(|word| word.parse().expect("number")).collect();
        numbers.try_into().unwrap_or_else(|_| panic!("{N} numbers and not `{line}`"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It may be gone already.
        let _ = self.child.wait();
    }
}

/// What a rank's process is told: the file of rows, the cache folder, the rank, and the number of ranks.
pub fn rank_words(words: &[String]) -> (&str, &Path, usize, usize) {
    let [file, cache, rank, world_size] = words else { panic!("a rank has four arguments and not {words:?}") };
    let number = |word: &String| word.parse().expect("number");
    (file, Path::new(cache), number(rank), number(world_size))
}

/// Waits for a line of standard input, or for its end.
pub fn wait_for_line() {
    io::stdin().read_line(&mut String::new()).expect("stdin");
}
