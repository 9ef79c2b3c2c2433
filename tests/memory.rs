//! What building a graph takes beside embeddings and graph, byte by byte. Alone in its process: it counts everything.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use prosampler::config::{GraphBuilder, GraphConfig, Precision, Similarity, Storage};
use prosampler::store::EmbeddingTable;
use prosampler::{ComputePool, GraphVersion, ModelVersion, graph};

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

const SAMPLES: usize = 24_000;
const DIMENSION: usize = 64;
const K: usize = 16;
/// A thread's buffers.
const THREAD: usize = 6 << 20;

#[test]
fn building_needs_the_memory_that_it_says() {
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
            (GraphBuilder::Exact, Precision::F32, 40 * SAMPLES),
            (GraphBuilder::Exact, Precision::I8, (K + 40) * SAMPLES),
            (GraphBuilder::NnDescent, Precision::I8, (K + 210) * SAMPLES),
        ] {
            let config = GraphConfig { builder, precision, candidates: 1000, neighbors: K, ..GraphConfig::default() };
            let before = NOW.load(Relaxed);
            PEAK.store(before, Relaxed);
            let graph = pool.install(|| graph::build(&table, &config, 1, GraphVersion(1)));
            let beside = PEAK.load(Relaxed) - before - 8 * K * SAMPLES;
            println!("{storage:?} {builder:?} {precision:?}: {} bytes a sample beside", beside / SAMPLES);
            assert!(beside < bound + 2 * THREAD, "{builder:?} in {precision:?}: {beside} bytes");
            assert_eq!(graph.len(), SAMPLES);
        }
    }
}
