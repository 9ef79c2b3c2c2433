//! The same seed gives the same mini-batches on any number of threads.

use futures::TryStreamExt;
use prosampler::config::{ComputeConfig, SamplerKind, StreamConfig, WalkConfig};
use prosampler::graph;
use prosampler::{ComputePool, GraphVersion, SampleId};

use crate::support::{graph_config, pipeline, table, walk_config};

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

/// Ranks that draw the same have the same digests; others have not, even while they draw the same ids.
#[tokio::test]
async fn digests_tell_whether_ranks_draw_the_same() {
    let run = async |rank, seed, neighbors| {
        let walk = WalkConfig { sampler: SamplerKind::Uniform, ..walk_config(50) };
        let stream = StreamConfig { rank, world_size: 2, ..StreamConfig::default() };
        let builder = pipeline(1000, 50).seed(seed).graph(graph_config(40, neighbors)).walk(walk).stream(stream);
        let drawn = builder.start().await.unwrap().map_ok(|mini_batch| (mini_batch.ids, mini_batch.digest));
        drawn.try_collect::<Vec<_>>().await.unwrap().into_iter().unzip::<_, _, Vec<_>, Vec<_>>()
    };
    let (ids, digests) = run(0, 7, 10).await;
    let (others, of_other_rank) = run(1, 7, 10).await;
    assert!(ids != others && digests == of_other_rank);
    let all_differ = |others: Vec<u64>| digests.iter().zip(others).all(|(one, other)| *one != other);
    // Only the graph differs, from which uniform mini-batches are not drawn.
    let (same_ids, of_other_graph) = run(0, 7, 9).await;
    assert!(same_ids == ids && all_differ(of_other_graph));
    assert!(all_differ(run(0, 8, 10).await.1));
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
