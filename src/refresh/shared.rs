//! One copy of embeddings and graphs for all ranks that reach one folder.
//!
//! Ranks of a job need the same tables and graphs. One of them, the first that claims it, makes each of these and saves
//! it under a name that says what it is made of; the others wait, and map the file. So do ranks on other hosts, and a
//! rank that comes later. A file is removed once no rank has it in use.
//!
//! Where that fails, a rank makes its own copy, which is logged.

use std::cell::Cell;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use crate::arrow_file::{checksum, remove_unfinished, to_text};
use crate::claim::Claim;
use crate::config::{PipelineConfig, StreamConfig};
use crate::embeddings::EmbeddingTable;
use crate::encode::cache_dir;
use crate::error::Result;
use crate::graph::ProximityGraph;
use crate::telemetry;

/// What can be shared: saved to a file, and mapped.
pub(crate) trait Shareable: Sized {
    /// What names of files begin with, and messages call it.
    const NAME: &str;

    fn save(&self, path: &Path) -> Result<()>;
    fn map(path: &Path) -> Result<Self>;
}

impl Shareable for EmbeddingTable {
    const NAME: &str = "embeddings";

    fn save(&self, path: &Path) -> Result<()> {
        self.save_for_now(path)
    }

    fn map(path: &Path) -> Result<Self> {
        Self::map(path)
    }
}

impl Shareable for ProximityGraph {
    const NAME: &str = "graph";

    fn save(&self, path: &Path) -> Result<()> {
        self.save_for_now(path)
    }

    fn map(path: &Path) -> Result<Self> {
        Self::open(path)
    }
}

/// Says what a table or a graph is made of: equal ones are made of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recipe(u64);

impl Recipe {
    pub fn of(parts: &[&dyn std::fmt::Display]) -> Self {
        let text: String = parts.iter().map(|part| format!("{part}\n")).collect();
        Self(checksum(text.as_bytes()))
    }
}

impl std::fmt::Display for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&to_text(self.0))
    }
}

/// What was made here or mapped, and where it is from.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    pub value: T,
    pub origin: Origin,
}

impl<T> Shared<T> {
    /// What this rank has made for itself.
    pub fn own(value: T, recipe: Option<Recipe>) -> Self {
        Self { value, origin: Origin { recipe, _file: None } }
    }

    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Shared<U> {
        Shared { value: change(self.value), origin: self.origin }
    }
}

/// Is told how many samples are done, and ends the work by an error.
pub(crate) type Report<'a> = &'a mut dyn FnMut(usize) -> Result<()>;

/// Where a table or a graph is from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// `None` if it can only be this rank's own.
    pub recipe: Option<Recipe>,
    /// Keeps the file that is mapped.
    _file: Option<Arc<FileInUse>>,
}

/// A file that stays as long as some rank has it in use.
#[derive(Debug)]
struct FileInUse {
    /// Locked for all that use it.
    file: File,
    path: PathBuf,
}

impl Drop for FileInUse {
    fn drop(&mut self) {
        // A lock that all others have given up, too, can be had alone.
        if self.file.unlock().is_ok() && self.file.try_lock().is_ok() {
            // Windows keeps a file that is mapped; the next run removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The folder in which ranks share tables and graphs.
#[derive(Debug)]
pub(crate) struct SharedFolder {
    dir: PathBuf,
    rank: usize,
    opened: Once,
    /// Whether this rank makes copies of its own from now on.
    is_alone: AtomicBool,
}

impl SharedFolder {
    /// The folder that the settings ask for, beside the embeddings that are kept; `None` if there is one rank alone.
    pub fn of(config: &PipelineConfig) -> Option<Self> {
        let StreamConfig { rank, world_size, .. } = config.stream;
        let dir = cache_dir(config).filter(|_| world_size > 1)?.join(FOLDER);
        Some(Self { dir, rank, opened: Once::new(), is_alone: AtomicBool::new(false) })
    }

    /// What `recipe` says, mapped: made by this rank or by another one.
    ///
    /// While another one makes it, this rank first does a part of the work by `help`, and then waits. `report` is told
    /// how many samples are done, and its error ends the work and the waiting. Blocks.
    pub fn get<T: Shareable>(
        &self,
        recipe: Recipe,
        make: impl FnOnce(Report<'_>) -> Result<T>,
        help: impl FnOnce(Report<'_>) -> Result<()>,
        report: Report<'_>,
    ) -> Result<Shared<T>> {
        self.opened.call_once(|| self.open());
        let path = self.dir.join(format!("{}-{recipe}.arrow", T::NAME));
        let done = Cell::new(0);
        let mut report = |now| {
            done.set(now);
            report(now)
        };
        let mut help = Some(help);
        let mut since = None;
        while !self.is_alone.load(Relaxed) {
            if let Some(shared) = self.find(&path, recipe) {
                return Ok(shared);
            }
            if let Some(claim) = self.claim(&path, since.map_or(Duration::ZERO, |since: Instant| since.elapsed())) {
                return self.make(&path, recipe, claim, || make(&mut report));
            }
            if let Some(help) = help.take() {
                help(&mut report)?;
                continue;
            }
            if since.is_none() {
                since = Some(Instant::now());
                telemetry::shared_awaited(T::NAME, &Claim::holder(&path));
            }
            report(done.get())?;
            std::thread::sleep(PAUSE);
        }
        Ok(Shared::own(make(&mut report)?, Some(recipe)))
    }

    /// Creates the folder, and removes what ranks that were killed have left.
    fn open(&self) {
        let opened = std::fs::create_dir_all(&self.dir).and_then(|()| {
            remove_unfinished(&self.dir)?;
            for entry in std::fs::read_dir(&self.dir)?.flatten() {
                self.remove_unused(&entry.path());
            }
            Ok(())
        });
        if let Err(cause) = opened {
            self.stay_alone(&self.dir, &cause);
        }
    }

    fn remove_unused(&self, path: &Path) {
        if path.extension().is_none_or(|extension| extension != "arrow") {
            return;
        }
        // Whoever makes the file holds its claim until it has the file in use.
        let Ok(Some(claim)) = Claim::of(path, self.rank) else { return };
        if let Ok(file) = File::open(path) {
            drop(FileInUse { file, path: path.to_owned() });
        }
        claim.end();
    }

    /// Maps the file, if it is there.
    fn find<T: Shareable>(&self, path: &Path, recipe: Recipe) -> Option<Shared<T>> {
        let file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Ok(()) => {}
            // It is being removed.
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Error(cause)) => {
                self.stay_alone(path, &cause);
                return None;
            }
        }
        let file = Arc::new(FileInUse { file, path: path.to_owned() });
        match T::map(path) {
            Ok(value) => Some(Shared { value, origin: Origin { recipe: Some(recipe), _file: Some(file) } }),
            Err(error) => {
                telemetry::cache_discarded(path, &error);
                None
            }
        }
    }

    /// Claims a file; `None` while another rank has claimed it, and where nothing can be claimed.
    ///
    /// `awaited` is how long this one has waited for it: half an hour at most.
    fn claim(&self, path: &Path, awaited: Duration) -> Option<Claim> {
        match Claim::of(path, self.rank) {
            Ok(None) if awaited >= MAX_WAIT => {
                telemetry::claim_ignored(path, &Claim::holder(path), awaited);
                Some(Claim::unshared())
            }
            Ok(claim) => claim,
            Err(cause) => {
                self.stay_alone(path, &cause);
                None
            }
        }
    }

    /// Makes and saves what this rank has claimed, and maps it.
    fn make<T: Shareable>(
        &self,
        path: &Path,
        recipe: Recipe,
        claim: Claim,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<Shared<T>> {
        // Another rank may have made it before it gave up its claim.
        if let Some(shared) = self.find(path, recipe) {
            claim.end();
            return Ok(shared);
        }
        let value = make()?;
        if let Err(error) = value.save(path) {
            self.stay_alone(path, &error);
        } else if let Some(shared) = self.find(path, recipe) {
            claim.end();
            return Ok(shared);
        }
        Ok(Shared::own(value, Some(recipe)))
    }

    /// Shares nothing from now on, and logs the reason once.
    fn stay_alone(&self, path: &Path, reason: &dyn std::fmt::Display) {
        if !self.is_alone.swap(true, Relaxed) {
            telemetry::not_shared(path, reason);
        }
    }
}

/// The name of the folder, in that of the embeddings that are kept.
const FOLDER: &str = "shared";

/// How long a rank waits between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a rank waits for another one before it does the work itself.
const MAX_WAIT: Duration = Duration::from_secs(1800);

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::error::Error;
    use crate::sample::{GraphVersion, SampleId};

    fn folder(dir: &Path, rank: usize) -> SharedFolder {
        SharedFolder { dir: dir.join(FOLDER), rank, opened: Once::new(), is_alone: AtomicBool::new(false) }
    }

    fn graph(similarity: f32) -> ProximityGraph {
        ProximityGraph::from_parts(vec![SampleId(1), SampleId(0)], vec![similarity; 2], 1, GraphVersion(1))
    }

    fn files(dir: &Path) -> usize {
        std::fs::read_dir(dir.join(FOLDER)).unwrap().count()
    }

    const RECIPE: Recipe = Recipe(7);

    #[test]
    fn one_rank_makes_it_while_the_others_help_and_wait() {
        let dir = tempfile::TempDir::new().unwrap();
        let (begun, has_begun) = channel();
        let (helped, has_helped) = channel();
        let helps = AtomicUsize::new(0);
        let maker = &folder(dir.path(), 0);
        let made = std::thread::scope(|scope| {
            let make = move |_: Report<'_>| {
                begun.send(()).unwrap();
                // All others have helped before it is made.
                (0..3).for_each(|_| has_helped.recv().unwrap());
                Ok(graph(0.5))
            };
            let first =
                scope.spawn(move || maker.get(RECIPE, make, |_| panic!("nobody to help"), &mut |_| Ok(())).unwrap());
            has_begun.recv().unwrap();
            let others: Vec<_> = (1..4)
                .map(|rank| {
                    let (helped, helps, dir) = (helped.clone(), &helps, dir.path());
                    scope.spawn(move || {
                        let help = |report: Report<'_>| {
                            helps.fetch_add(1, Relaxed);
                            report(rank)?;
                            helped.send(()).unwrap();
                            Ok(())
                        };
                        let mut reports = Vec::new();
                        let mut report = |done| {
                            reports.push(done);
                            Ok(())
                        };
                        let make = |_: Report<'_>| -> Result<ProximityGraph> { panic!("made twice") };
                        let shared = folder(dir, rank).get(RECIPE, make, help, &mut report).unwrap();
                        // While it waits, its progress stays where it is.
                        assert!(reports.iter().all(|&done| done == rank), "{reports:?}");
                        shared
                    })
                })
                .collect();
            let mut made = vec![first.join().unwrap()];
            made.extend(others.into_iter().map(|other| other.join().unwrap()));
            made
        });
        assert_eq!(helps.load(Relaxed), 3);
        assert!(made.iter().all(|shared| shared.value == graph(0.5) && shared.origin._file.is_some()));
        // The file stays until nobody has it in use.
        for shared in made {
            assert_eq!(files(dir.path()), 1);
            drop(shared);
        }
        assert_eq!(files(dir.path()), 0);
    }

    #[test]
    fn another_rank_makes_what_one_could_not() {
        let dir = tempfile::TempDir::new().unwrap();
        let get = |rank, made: Result<ProximityGraph>| {
            folder(dir.path(), rank).get(RECIPE, |_| made, |_| Ok(()), &mut |_| Ok(()))
        };
        assert!(matches!(get(0, Err(Error::Cancelled)), Err(Error::Cancelled)));
        assert_eq!(get(1, Ok(graph(0.25))).unwrap().value, graph(0.25));
    }

    #[test]
    fn waiting_ends_when_the_work_is_cancelled() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = folder(dir.path(), 1);
        folder.open();
        let path = folder.dir.join(format!("graph-{RECIPE}.arrow"));
        let claim = Claim::of(&path, 0).unwrap().unwrap();
        let mut looks = 0;
        let mut report = |_| {
            looks += 1;
            if looks == 3 { Err(Error::Cancelled) } else { Ok(()) }
        };
        let got = folder.get::<ProximityGraph>(RECIPE, |_| panic!("it is claimed"), |_| Ok(()), &mut report);
        assert!(matches!(got, Err(Error::Cancelled)));
        drop(claim);
    }

    #[test]
    fn a_claim_counts_for_half_an_hour() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = folder(dir.path(), 1);
        folder.open();
        let path = folder.dir.join("graph-a.arrow");
        let claim = Claim::of(&path, 0).unwrap().unwrap();
        assert!(folder.claim(&path, Duration::from_secs(1799)).is_none());
        assert!(folder.claim(&path, Duration::from_secs(1800)).is_some());
        claim.end();
    }

    #[test]
    fn a_damaged_file_is_made_anew() {
        let dir = tempfile::TempDir::new().unwrap();
        let get = || folder(dir.path(), 0).get(RECIPE, |_| Ok(graph(0.5)), |_| Ok(()), &mut |_| Ok(()));
        let first = get().unwrap();
        let path = dir.path().join(FOLDER).join(format!("graph-{RECIPE}.arrow"));
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        // Renamed, so that the mapping of the first stays as it is.
        std::fs::write(path.with_extension("damaged"), bytes).unwrap();
        std::fs::rename(path.with_extension("damaged"), &path).unwrap();
        assert_eq!(get().unwrap().value, first.value);
    }
}
