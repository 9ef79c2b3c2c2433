//! One copy of embeddings and graphs for all ranks that reach one folder.
//!
//! Ranks of a job need the same tables and graphs. One of them, the first that claims it, makes each of these and saves
//! it under a name that says what it is made of; the others wait, and map the file. So do ranks on other hosts, and a
//! rank that comes later. A file is removed once no rank has it in use.
//!
//! Where that fails, a rank makes its own copy, which is logged.

mod file;
mod recipe;

use std::cell::Cell;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use self::file::{FileInUse, Shareable};
pub(crate) use self::recipe::{Origin, Recipe, Report, Shared};
use crate::arrow_file::remove_unfinished;
use crate::claim::Claim;
use crate::config::{PipelineConfig, StreamConfig};
use crate::encode::cache_dir;
use crate::error::Result;
use crate::telemetry;

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
mod tests;
