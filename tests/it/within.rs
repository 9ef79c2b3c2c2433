//! `pairs.within` leaves out the pairs whose positive is not among the nearest to its anchor, and no others.

use std::collections::HashSet;
use std::path::Path;

use futures::TryStreamExt;
use prosampler::config::{CheckpointConfig, Coverage, GraphOver, PairsConfig, RefreshConfig, StreamConfig, WalkConfig};
use prosampler::report::Observer;
use prosampler::{MiniBatch, MiniBatchStream, PipelineBuilder, SampleId};
use tempfile::TempDir;

use crate::support::pairs::{PAIRS, PairOracle, pair_encoder, pair_pipeline, pair_vectors, positive_of};
use crate::support::{DIMENSION, assert_says, walk_config};

fn pairs(within: usize) -> PairsConfig {
    PairsConfig {
        anchor: Some("question".into()),
        positive: Some("answer".into()),
        graph_over: GraphOver::Cross,
        within: Some(within),
        ..PairsConfig::default()
    }
}

fn pipeline(within: usize) -> PipelineBuilder {
    let walk = WalkConfig { negatives: 2, ..walk_config(12) };
    pair_pipeline().pairs(pairs(within)).walk(walk).stream(StreamConfig { epochs: 2, ..StreamConfig::default() })
}

/// Whether so many positives are nearer to an anchor than its own; `None` where rounding decides.
fn expected(oracle: &PairOracle, row: usize, within: usize) -> Option<bool> {
    let own = oracle.cosine(row, row);
    let others = (0..PAIRS).filter(|&other| positive_of(other) != positive_of(row));
    let margins: Vec<f64> = others.map(|other| oracle.cosine(row, other) - own).collect();
    let beyond = |margin: f64| margins.iter().filter(|other| **other > margin).count() >= within;
    (beyond(1e-5) == beyond(-1e-5)).then(|| beyond(0.0))
}

fn drawn(mini_batches: &[MiniBatch]) -> HashSet<usize> {
    mini_batches.iter().flat_map(|mini_batch| &mini_batch.ids).map(|id| id.index()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_are_left_out_are_those_of_brute_force() {
    let (_, oracle) = pair_vectors();
    let mut counts = Vec::new();
    for within in [3, 10, 40, PAIRS] {
        let mut stream = pipeline(within).start().await.unwrap();
        let table = stream.snapshot().unwrap().embeddings.clone();
        let left_out: HashSet<_> = (0..PAIRS).filter(|&row| table.is_inconsistent(SampleId::new(row))).collect();
        let mut known = 0;
        for row in 0..PAIRS {
            let Some(expected) = expected(&oracle, row, within) else { continue };
            assert_eq!(left_out.contains(&row), expected, "row {row} within {within}");
            known += 1;
        }
        assert!(known > PAIRS - 10, "{known}");
        assert_eq!((stream.inconsistent(), table.inconsistent()), (left_out.len(), left_out.len()));
        counts.push(left_out.len());

        let walk = walk_config(12);
        let mut observer = Observer::new(stream.samples(), &walk, 3, None);
        let mut all = Vec::new();
        while let Some(mini_batch) = stream.try_next().await.unwrap() {
            observer.observe(&mini_batch).unwrap();
            all.push(mini_batch);
        }
        let ids: Vec<_> = all.iter().flat_map(|mini_batch| mini_batch.ids.clone()).collect();
        assert_eq!(ids.len() + stream.counts().unplaced as usize, 2 * (PAIRS - left_out.len()));
        assert!(drawn(&all).is_disjoint(&left_out));
        let negatives = all.iter().flat_map(|mini_batch| mini_batch.negatives.iter().flatten());
        let of_left_out = negatives.filter(|id| left_out.contains(&id.index())).count();
        assert_eq!(of_left_out > 0, !left_out.is_empty(), "their positives are negatives of others");
        let summary = observer.summary(stream.snapshot().as_deref());
        assert_eq!(summary.inconsistent, left_out.len());
        assert_eq!(summary.to_string().contains("left out"), !left_out.is_empty());
    }
    assert!(counts[0] > counts[1] && counts[1] > counts[2] && counts[2] > counts[3] && counts[3] == 0, "{counts:?}");
}

/// A trainer that has learnt each pair: its positive is where its anchor is.
#[tokio::test(flavor = "multi_thread")]
async fn pairs_come_back_when_a_refresh_finds_them_consistent() {
    let (vectors, _) = pair_vectors();
    let mut stream = pipeline(3).stream(StreamConfig { epochs: 3, ..StreamConfig::default() }).start().await.unwrap();
    let left_out = stream.inconsistent();
    let mut all = vec![stream.try_next().await.unwrap().unwrap()];
    let handle = stream.handle();
    for row in 0..PAIRS {
        let anchor = &vectors[row * 2 * DIMENSION..][..DIMENSION];
        handle.push_embeddings(&[SampleId::new(row)], &[anchor, anchor].concat()).unwrap();
    }
    handle.refresh_now().await.unwrap();
    assert_eq!(stream.inconsistent(), 0);
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        all.push(mini_batch);
    }
    let of_epoch = |epoch| drawn(&all.iter().filter(|of| of.epoch == epoch).cloned().collect::<Vec<_>>()).len();
    // The epoch that had begun goes on without them.
    assert!(left_out > 50 && of_epoch(0) <= PAIRS - left_out, "{left_out} and {}", of_epoch(0));
    assert_eq!(of_epoch(2), PAIRS);
}

type Seen = (u64, Option<u64>, Vec<SampleId>);

async fn take(stream: &mut MiniBatchStream, n: usize, pushed: &[f32]) -> Vec<Seen> {
    let handle = stream.handle();
    let mut seen = Vec::new();
    while seen.len() < n
        && let Some(MiniBatch { step, graph_version, ids, .. }) = stream.try_next().await.unwrap()
    {
        let of = |id: &SampleId| &pushed[(id.index() + 7) % PAIRS * 2 * DIMENSION..][..2 * DIMENSION];
        handle.push_embeddings(&ids, &ids.iter().flat_map(of).copied().collect::<Vec<_>>()).unwrap();
        seen.push((step, graph_version.map(|version| version.0), ids));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_run_leaves_out_the_same() {
    let (vectors, _) = pair_vectors();
    let dir = TempDir::new().unwrap();
    let builder = |dir: &Path| {
        let refresh = RefreshConfig { every_steps: Some(9), swap_after_steps: Some(2), ..RefreshConfig::default() };
        let checkpoint = CheckpointConfig { dir: Some(dir.into()), ..CheckpointConfig::default() };
        pipeline(10).refresh(refresh).checkpoint(checkpoint).stream(StreamConfig { epochs: 4, ..Default::default() })
    };
    let whole = take(&mut builder(&dir.path().join("whole")).start().await.unwrap(), usize::MAX, &vectors).await;
    let dir = dir.path().join("parts");
    let (mut all, mut state) = (Vec::new(), None);
    for part in [11, 20, 31, 17, usize::MAX] {
        let mut stream = match state {
            Some(state) => builder(&dir).resume(state).start().await.unwrap(),
            None => builder(&dir).start().await.unwrap(),
        };
        all.extend(take(&mut stream, part, &vectors).await);
        let now = stream.state();
        stream.handle().keep(&now).await.unwrap();
        state = Some(now);
    }
    assert!(all == whole, "{} and {} mini-batches", all.len(), whole.len());
    let changed = builder(&dir).pairs(pairs(11)).resume(state.unwrap());
    assert_says(&changed.start().await.unwrap_err().to_string(), &["pairs.within"]);
}

#[tokio::test]
async fn what_cannot_be_left_out_is_refused() {
    let refused = async |builder: PipelineBuilder| builder.start().await.unwrap_err().to_string();
    assert_says(&refused(pipeline(0)).await, &["pairs.within", "at least 1"]);
    let mean = PairsConfig { graph_over: GraphOver::Mean, ..pairs(2) };
    let message = refused(pipeline(2).encoder(pair_encoder(GraphOver::Mean)).pairs(mean)).await;
    assert_says(&message, &["pairs.within", "graph_over = \"cross\""]);
    let walk = WalkConfig { coverage: Coverage::Paper, ..walk_config(12) };
    assert_says(&refused(pipeline(2).walk(walk)).await, &["pairs.within", "walk.coverage"]);
    let walk = walk_config(500);
    assert_says(
        &refused(pipeline(2).walk(walk)).await,
        &["pairs.within", "leaves", "of 600 pairs, and 500 are needed"],
    );
}
