//! The same seed gives the same mini-batches on any number of threads.

use futures::TryStreamExt;
use prosampler::config::ComputeConfig;
use prosampler::graph;
use prosampler::{ComputePool, GraphVersion, SampleId};

use crate::support::{graph_config, pipeline, table};

async fn run(seed: u64, threads: usize) -> Vec<Vec<SampleId>> {
    let stream = pipeline(3000, 50).seed(seed).compute(ComputeConfig { threads }).start().await.unwrap();
    stream.map_ok(|mini_batch| mini_batch.ids).try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn seeds_decide_and_threads_do_not() {
    let one = run(1, 1).await;
    assert_eq!(one, run(1, 2).await);
    assert_eq!(one, run(1, 4).await);
    assert_ne!(one, run(2, 2).await);
}

#[test]
fn graphs_are_equal_bit_for_bit() {
    let table = table(5000, 24, 20, 4);
    let build = |threads: usize, seed: u64, version: u64| {
        let pool = ComputePool::new(threads).unwrap();
        pool.install(|| graph::build(&table, &graph_config(300, 20), seed, GraphVersion(version)).unwrap())
    };
    let one = build(1, 7, 1);
    assert_eq!(one, build(2, 7, 1));
    assert_eq!(one, build(4, 7, 1));
    assert_ne!(one.neighbors(SampleId(0)), build(1, 8, 1).neighbors(SampleId(0)));
    // A refresh draws other candidates.
    assert_ne!(one.neighbors(SampleId(0)), build(1, 7, 2).neighbors(SampleId(0)));
}
