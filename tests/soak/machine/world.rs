//! A run with its trainer, its data and its model, to which events happen.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::TryStreamExt;
use prosampler::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::config::{CheckpointConfig, GraphConfig, RefreshConfig, StoreConfig, StreamConfig, WalkConfig};
use prosampler::encode::Encoder;
use prosampler::source::FileSource;
use prosampler::{MiniBatchStream, Pipeline, Result, SampleId, State};
use rand::RngExt;
use tempfile::TempDir;

use super::Op;
use super::account::{self, BATCH_SIZE, EVERY, Event, FIRST, LAG, MORE, Seen, What};
use crate::support::random;
use crate::tables::{self, ParquetOptions};

pub struct World {
    dir: TempDir,
    streams: Vec<MiniBatchStream>,
    model: Arc<AtomicU64>,
    events: Vec<Event>,
    seen: Vec<Seen>,
    /// The state that was kept last, and how many events were before it.
    kept: Option<(State, usize)>,
}

impl World {
    /// Goes through all events, and compares with the uninterrupted run.
    pub async fn live(ops: &[Op]) -> std::result::Result<(), String> {
        let mut world = Self::begin().await?;
        for op in ops {
            world.act(*op).await?;
        }
        let mut plain = Self::begin().await?;
        for event in &world.events {
            plain.take_to(event.step).await?;
            plain.apply(event.clone());
        }
        plain.take_to(world.seen.len() as u64).await?;
        account::check(&world.events, &plain.seen)?;
        for (one, expected) in world.seen.iter().zip(&plain.seen) {
            let same = |a: &Seen| Seen { ids: a.ids[..one.ids.len()].to_vec(), ..a.clone() };
            let few = expected.ids.len() < one.ids.len() || expected.ids.len() >= one.ids.len() + MOST_RANKS;
            if few || same(one) != same(expected) {
                return Err(format!("it is {one:?}, and was to be {expected:?}; events {:?}", world.events));
            }
        }
        Ok(())
    }

    async fn begin() -> std::result::Result<Self, String> {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let (events, seen, kept) = (Vec::new(), Vec::new(), None);
        let mut world = Self { dir, streams: Vec::new(), model: Arc::default(), events, seen, kept };
        world.write_file(0);
        world.start(1).await?;
        Ok(world)
    }

    async fn act(&mut self, op: Op) -> std::result::Result<(), String> {
        match op {
            Op::Take(n) => self.take_to(self.step() + u64::from(n)).await,
            Op::TakeToTheEndOfTheEpoch => {
                let (first, epoch) = match self.seen.last() {
                    Some(last) => (self.seen.partition_point(|one| one.epoch < last.epoch) as u64, last.epoch),
                    None => (0, 0),
                };
                let length = account::samples_at(&self.events, first).div_ceil(BATCH_SIZE) as u64;
                let at_end = self.step() == first + length && epoch + 1 < EPOCHS;
                let next = account::samples_at(&self.events, self.step()).div_ceil(BATCH_SIZE) as u64;
                self.take_to(first + length + if at_end { next } else { 0 }).await
            }
            Op::Push(seed) => {
                let mut random = random(u64::from(seed), "pushed", 0);
                let mut ids: Vec<_> = (0..30).map(|_| SampleId(random.random_range(0..FIRST as u32))).collect();
                ids.sort_unstable();
                ids.dedup();
                let vectors = (0..ids.len() * DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect();
                self.happen(What::Push(ids, vectors));
                Ok(())
            }
            Op::NewModel => self.calm().await.map(|()| self.happen(What::Model)),
            Op::NewFile => self.calm().await.map(|()| self.happen(What::File)),
            Op::Keep => {
                let state = self.streams[0].state();
                let keeping = self.streams[0].handle();
                keeping.keep(&state).await.map_err(|error| format!("keep: {error}"))?;
                self.kept = Some((state, self.events.len()));
                Ok(())
            }
            Op::Kill(ranks) => {
                self.streams.clear();
                let (step, events) = self.kept.as_ref().map_or((0, 0), |(state, events)| (state.step, *events));
                // What the trainer did since the kept state is lost.
                self.seen.truncate(step as usize);
                let undone = self.events.split_off(events);
                for event in undone.iter().rev() {
                    match event.what {
                        What::Model => drop(self.model.fetch_sub(1, Relaxed)),
                        What::File => fs::remove_file(self.file(self.files() + later_files(&undone, event))).unwrap(),
                        What::Push(..) => {}
                    }
                }
                self.start(ranks.into()).await?;
                Ok(())
            }
        }
    }

    /// Goes on until no refresh is running, so that the next one takes what happens now.
    async fn calm(&mut self) -> std::result::Result<(), String> {
        while self.step() >= EVERY && self.step() % EVERY <= LAG && !self.is_over() {
            self.take_to(self.step() + 1).await?;
        }
        Ok(())
    }

    fn happen(&mut self, what: What) {
        self.apply(Event { step: self.step(), what });
    }

    fn apply(&mut self, event: Event) {
        match event.what {
            What::Model => drop(self.model.fetch_add(1, Relaxed)),
            What::File => self.write_file(1 + self.files()),
            What::Push(..) => self.push(&event.what),
        }
        self.events.push(event);
    }

    fn push(&self, what: &What) {
        let What::Push(ids, vectors) = what else { return };
        self.streams.iter().for_each(|stream| stream.handle().push_embeddings(ids, vectors).unwrap());
    }

    async fn start(&mut self, ranks: usize) -> std::result::Result<(), String> {
        for rank in 0..ranks {
            let data = self.dir.path().join("data").display().to_string();
            let source = FileSource::open(data).await.map_err(|error| format!("open: {error}"))?;
            let encoder = Trained::newest(&self.model);
            let refresh =
                RefreshConfig { every_steps: Some(EVERY), swap_after_steps: Some(LAG), ..RefreshConfig::default() };
            let dir = |name| Some(self.dir.path().join(name));
            let builder = Pipeline::builder()
                .source(source)
                .encoder(encoder)
                .graph(GraphConfig { candidates: 40.into(), neighbors: Some(8), ..GraphConfig::default() })
                .walk(WalkConfig { batch_size: BATCH_SIZE, ..WalkConfig::default() })
                .refresh(refresh)
                .store(StoreConfig { cache_dir: dir("cache"), ..StoreConfig::default() })
                .checkpoint(CheckpointConfig { dir: dir("checkpoints"), keep: 2, ..CheckpointConfig::default() })
                .stream(StreamConfig { epochs: EPOCHS, rank, world_size: ranks, ..StreamConfig::default() })
                .seed(5);
            let builder = match &self.kept {
                Some((state, _)) => builder.resume(state.clone()),
                None => builder,
            };
            self.streams.push(builder.start().await.map_err(|error| format!("start, rank {rank}: {error}"))?);
        }
        Ok(())
    }

    /// Takes the mini-batches before `step`, as far as there are any.
    async fn take_to(&mut self, step: u64) -> std::result::Result<(), String> {
        while self.step() < step && !self.is_over() {
            let mut all: Option<Seen> = None;
            for stream in &mut self.streams {
                let one = stream.try_next().await.map_err(|error| format!("take: {error}"))?;
                let one = one.ok_or("a stream ended before its last mini-batch")?;
                let ids = one.ids.iter().map(|id| id.0);
                let all = all.get_or_insert_with(|| Seen {
                    step: one.step,
                    epoch: one.epoch,
                    graph_version: one.graph_version.unwrap().0,
                    staleness: one.staleness.unwrap(),
                    similarity: one.similarity.unwrap(),
                    ids: Vec::new(),
                });
                if (all.step, all.graph_version) != (one.step, one.graph_version.unwrap().0) {
                    return Err(format!("ranks differ at {all:?}"));
                }
                all.ids.extend(ids);
            }
            self.seen.extend(all);
        }
        Ok(())
    }

    fn step(&self) -> u64 {
        self.seen.len() as u64
    }

    fn is_over(&self) -> bool {
        let last = self.seen.last().map_or(0, |last| last.epoch);
        let first = self.seen.partition_point(|one| one.epoch < last) as u64;
        let length = account::samples_at(&self.events, first).div_ceil(BATCH_SIZE) as u64;
        last + 1 == EPOCHS && self.step() == first + length
    }

    /// The files that were added so far.
    fn files(&self) -> usize {
        self.events.iter().filter(|event| matches!(event.what, What::File)).count()
    }

    fn file(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("data/{number:03}.parquet"))
    }

    fn write_file(&self, number: usize) {
        let (first, rows) = if number == 0 { (0, FIRST) } else { (FIRST + (number - 1) * MORE, MORE) };
        let table = numbers(first as u32..(first + rows) as u32);
        let options = ParquetOptions {
            codec: 0,
            newer: false,
            dictionary: false,
            special_encodings: false,
            indexed: false,
            page_rows: 1000,
            group_rows: 1000,
        };
        let new = self.dir.path().join("new");
        fs::write(&new, tables::parquet(&table, &options)).unwrap();
        fs::rename(new, self.file(number)).unwrap();
    }
}

/// The number of an undone file among those that are undone, from 1.
fn later_files(undone: &[Event], event: &Event) -> usize {
    let files = undone.iter().filter(|other| matches!(other.what, What::File));
    1 + files.take_while(|other| !std::ptr::eq(*other, event)).count()
}

/// Rows of a column `n`.
pub fn numbers(numbers: Range<u32>) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(numbers));
    RecordBatch::try_from_iter([("n", numbers)]).unwrap()
}

/// A model in training.
pub struct Trained {
    columns: Vec<String>,
    /// The version of this encoder.
    version: u64,
    /// The version of the newest model.
    newest: Arc<AtomicU64>,
}

impl Trained {
    pub fn newest(newest: &Arc<AtomicU64>) -> Self {
        Self { columns: vec!["n".into()], version: newest.load(Relaxed), newest: newest.clone() }
    }
}

/// What version `version` of the model makes of row `n`.
fn vector_of(version: u64, n: u32, vector: &mut [f32]) {
    let mut random = random(version, "vector", u64::from(n));
    vector.fill_with(|| random.random_range(-1.0..1.0));
}

/// The vectors of the rows 0 to `rows`, row-major.
pub fn vectors_of(version: u64, rows: usize) -> Vec<f32> {
    let mut vectors = vec![0.0; rows * DIMENSION];
    (0..).zip(vectors.chunks_exact_mut(DIMENSION)).for_each(|(n, vector)| vector_of(version, n, vector));
    vectors
}

impl Encoder for Trained {
    fn name(&self) -> &str {
        "trained"
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        let (version, newest) = (self.newest.load(Relaxed), self.newest.clone());
        let newer = || Arc::new(Self { columns: self.columns.clone(), version, newest }) as Arc<dyn Encoder>;
        Ok((version != self.version).then(newer))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        let numbers = rows.column(0).as_primitive::<UInt32Type>().values();
        for (&n, vector) in numbers.iter().zip(vectors.chunks_exact_mut(DIMENSION)) {
            vector_of(self.version, n, vector);
        }
        Ok(())
    }
}

pub const DIMENSION: usize = 6;
const EPOCHS: u64 = 4;

/// The most ranks of a run. Of a short last mini-batch, samples that the ranks do not share evenly are left out.
const MOST_RANKS: usize = 4;
