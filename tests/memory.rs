//! Graphs, refreshes and streams take the memory that is documented. An allocator counts all bytes of the process, so
//! the tests run one at a time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use prosampler::arrow::array::{AsArray, BinaryArray, RecordBatch, UInt32Array};
use prosampler::arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use prosampler::config::{
    GraphBuilder, GraphConfig, Precision, RefreshConfig, Similarity, Storage, StreamConfig, WalkConfig,
};
use prosampler::embeddings::EmbeddingTable;
use prosampler::encode::Encoder;
use prosampler::source::{FileSource, MemorySource};
use prosampler::store::Store;
use prosampler::{ComputePool, GraphVersion, ModelVersion, Pipeline, Result, SampleId, graph};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALONE: Mutex<()> = Mutex::new(());

const SAMPLES: usize = 24_000;
const DIMENSION: usize = 64;
const K: usize = 16;
/// Of embeddings and graph: f32 numbers; an id and a similarity for each neighbor.
const SNAPSHOT: usize = SAMPLES * (4 * DIMENSION + 8 * K);
/// A thread's buffers.
const THREAD: usize = 6 << 20;

#[test]
fn building_needs_the_memory_that_it_says() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = ComputePool::new(2).unwrap();
    for storage in [Storage::F32, Storage::I8] {
        let mut table =
            EmbeddingTable::with_capacity(SAMPLES, DIMENSION, storage, Similarity::Cosine, ModelVersion(1)).unwrap();
        let mut state = 1u32;
        for _ in 0..SAMPLES {
            let mut number = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            let mut vector: [f32; DIMENSION] = std::array::from_fn(|_| number());
            table.push(&mut vector).unwrap();
        }
        let sampled = |precision| (GraphBuilder::Sampled, precision, 64 << 20);
        for (builder, precision, bound) in [
            sampled(Precision::F32),
            sampled(Precision::I8),
            (GraphBuilder::Exact, Precision::F32, (K + 136) * SAMPLES),
            (GraphBuilder::Exact, Precision::I8, (K + 136) * SAMPLES),
            (GraphBuilder::NnDescent, Precision::I8, (K + 220) * SAMPLES),
        ] {
            let config = GraphConfig {
                builder,
                precision,
                candidates: 1000.into(),
                neighbors: Some(K),
                ..GraphConfig::default()
            };
            let before = NOW.load(Relaxed);
            PEAK.store(before, Relaxed);
            let graph = pool.install(|| graph::build(&table, &config, 1, GraphVersion(1)).unwrap());
            let beside = PEAK.load(Relaxed) - before - 8 * K * SAMPLES;
            println!("{storage:?} {builder:?} {precision:?}: {} bytes a sample beside", beside / SAMPLES);
            assert!(beside < bound + 2 * THREAD, "{builder:?} in {precision:?}: {beside} bytes");
            assert_eq!(graph.len(), SAMPLES);
        }
    }
}

/// A cache of 800 rows of 1 MB is built with less than half of them in memory, since bytes limit record batches too.
#[test]
fn long_rows_are_cached_in_bounded_memory() {
    const ROWS: usize = 800;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("long.parquet");
    let schema = Arc::new(Schema::new(vec![
        Field::new("n", DataType::UInt32, false),
        Field::new("long", DataType::Binary, false),
    ]));
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(parquet::basic::Compression::ZSTD(Default::default()))
        .set_dictionary_enabled(false)
        .build();
    let sink = std::fs::File::create(&file).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(sink, schema.clone(), Some(properties)).unwrap();
    for first in (0..ROWS).step_by(20) {
        let numbers = UInt32Array::from_iter_values(first as u32..first as u32 + 20);
        let long = BinaryArray::from_iter_values((first..first + 20).map(|row| vec![row as u8; 1 << 20]));
        writer.write(&RecordBatch::try_new(schema.clone(), vec![Arc::new(numbers), Arc::new(long)]).unwrap()).unwrap();
        if first % 200 == 180 {
            writer.flush().unwrap();
        }
    }
    writer.close().unwrap();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let store = runtime.block_on(async {
        let source = FileSource::open(file.display().to_string()).await.unwrap();
        let columns = ["n", "long"].map(str::to_owned);
        Store::build(&source, &columns, &Default::default(), &mut |_| {}).await.unwrap()
    });
    let peak = PEAK.load(Relaxed) - before;
    println!("{} MB for {ROWS} MB", peak >> 20);
    assert!(peak < 400 << 20, "{peak} bytes");
    let ids = [799, 0, 400].map(SampleId);
    let rows = store.gather(&ids).unwrap();
    assert_eq!(rows["n"].as_primitive::<UInt32Type>().values(), &[799, 0, 400]);
    assert!((0..3).all(|row| rows["long"].as_binary::<i32>().value(row) == vec![ids[row].0 as u8; 1 << 20]));
}

/// A model of which there is a newer version at each refresh.
struct AlwaysNewer {
    columns: [String; 1],
    version: u64,
    newest: Arc<AtomicU64>,
}

impl Encoder for AlwaysNewer {
    fn name(&self) -> &str {
        "always newer"
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        let version = self.newest.fetch_add(1, Relaxed) + 1;
        Ok(Some(Arc::new(Self { columns: self.columns.clone(), version, newest: self.newest.clone() })))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        for (n, vector) in
            rows.column(0).as_primitive::<UInt32Type>().values().iter().zip(vectors.chunks_mut(DIMENSION))
        {
            for (i, x) in vector.iter_mut().enumerate() {
                *x = (f64::from(*n + 1) * (1.0 + i as f64 * 0.37) + self.version as f64 * 0.1).sin() as f32;
            }
        }
        Ok(())
    }
}

/// A run of ten thousand steps has at least one refresh in each thousand, which embeds all samples anew, and a trainer
/// that is slower than the stream. Between refreshes it has the memory of one snapshot, and during one that of two and
/// of the graph's scratch. It does not grow, and a dropped stream frees everything.
#[test]
fn a_long_run_takes_no_more_memory_than_a_short_one() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let empty = NOW.load(Relaxed);
    runtime.block_on(async {
        let numbers = Arc::new(UInt32Array::from_iter_values(0..SAMPLES as u32));
        let rows = RecordBatch::try_from_iter([("n", numbers as _)]).unwrap();
        let encoder = AlwaysNewer { columns: ["n".into()], version: 0, newest: Arc::default() };
        let mut stream = Pipeline::builder()
            .source(MemorySource::new(vec![rows]).unwrap())
            .encoder(encoder)
            .graph(GraphConfig { candidates: 200.into(), neighbors: Some(K), ..GraphConfig::default() })
            .walk(WalkConfig { batch_size: 64, ..WalkConfig::default() })
            .stream(StreamConfig { epochs: 1000, ..StreamConfig::default() })
            .refresh(RefreshConfig { every_steps: Some(250), ..RefreshConfig::default() })
            .start()
            .await
            .unwrap();
        let handle = stream.handle();
        let (mut least, mut most) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            let (mut low, published) = (usize::MAX, handle.counts().published);
            PEAK.store(NOW.load(Relaxed), Relaxed);
            for _ in 0..1000 {
                stream.next().await.unwrap().unwrap();
                tokio::time::sleep(Duration::from_micros(200)).await;
                low = low.min(NOW.load(Relaxed) - empty);
            }
            least.push(low);
            most.push(PEAK.load(Relaxed) - empty);
            // At least one refresh for each thousand steps, however fast these are.
            while handle.counts().published == published {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let mb =
            |bytes: &Vec<usize>| bytes.iter().map(|b| format!("{:.1}", *b as f64 / 1e6)).collect::<Vec<_>>().join(" ");
        println!(
            "a snapshot is {:.1} MB; each thousand steps: least {} MB, most {} MB",
            SNAPSHOT as f64 / 1e6,
            mb(&least),
            mb(&most)
        );
        println!("{:?}", handle.counts());
        // The epoch's sampler, mini-batches that wait, and tasks.
        let beside = 2 << 20;
        assert!(least.iter().all(|&bytes| bytes < SNAPSHOT + beside), "{least:?}");
        // `sampled` packs all embeddings where they are small, and encoding takes 8,192 rows at a time.
        let scratch = SAMPLES * 4 * DIMENSION + 8192 * 4 * DIMENSION + 2 * THREAD;
        assert!(most.iter().all(|&bytes| bytes < 2 * SNAPSHOT + scratch + beside), "{most:?}");
        let (first, last) = (most[1].max(most[2]), most[8].max(most[9]));
        assert!(last < first + (1 << 20), "{most:?}");
        drop((stream, handle));
        for _ in 0..500 {
            if NOW.load(Relaxed) < empty + (128 << 10) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} bytes are left of a stream that was dropped", NOW.load(Relaxed) - empty);
    });
}
