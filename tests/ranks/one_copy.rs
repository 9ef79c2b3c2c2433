//! Ranks with one cache folder have one copy of embeddings and graph, which one of them makes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use prosampler::State;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Rank, Start, started, tell, told};
use crate::support::TestEncoder;
use crate::training::{SAMPLES, Seen, builder, kept_at, step};

/// The process that the tests below start. It takes a step for each `step`, and keeps its state for each `keep`.
#[tokio::test(flavor = "multi_thread")]
async fn rank() {
    let Some(Start { rank, world_size, state }) = started() else { return };
    let encoder = TestEncoder::new(SAMPLES);
    let state: Option<State> = state.map(|state| serde_json::from_value(state).unwrap());
    let step_now = state.as_ref().map_or(0, |state| state.step);
    let mut builder = builder(Path::new("."), kept_at(step_now, &encoder), rank, world_size);
    if let Some(state) = state {
        builder = builder.resume(state);
    }
    let mut stream = builder.start().await.unwrap();
    while let Some(what) = told() {
        match what.as_str() {
            "step" => tell(&step(&mut stream, &encoder).await.unwrap()),
            "maps" => tell(&mapped()),
            _ => {
                let state = stream.state();
                stream.handle().keep(&state).await.unwrap();
                tell(&state);
            }
        }
    }
}

/// The names of the shared files that this process has mapped.
fn mapped() -> BTreeSet<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let names = maps.lines().filter_map(|line| line.split_once("/shared/")).map(|(_, name)| name.to_owned());
    names.collect()
}

/// The names in the folder of shared files.
fn shared(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir.join("cache/shared")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn start(dir: &Path, world_size: usize, state: Option<&Value>) -> Vec<Rank> {
    let of = |rank| Start { rank, world_size, state: state.cloned() };
    (0..world_size).map(|rank| Rank::start("one_copy::rank", dir, &of(rank))).collect()
}

/// All ranks take a step, which must be that of one rank alone.
fn take(ranks: &mut [Rank], expected: &Seen) {
    ranks.iter_mut().for_each(|rank| rank.say("step"));
    let seen: Vec<Seen> = ranks.iter_mut().map(Rank::hear).collect();
    let ids: Vec<u32> = seen.iter().flat_map(|seen| seen.ids.clone()).collect();
    assert_eq!(ids, expected.ids[..expected.ids.len() / ranks.len() * ranks.len()], "step {}", expected.step);
    for seen in seen {
        let Seen { step, digest, graph_version, similarity, .. } = *expected;
        assert_eq!((seen.step, seen.digest, seen.graph_version), (step, digest, graph_version), "step {step}");
        assert_eq!(seen.similarity, similarity, "step {step}");
    }
}

/// The steps of one rank that shares with nobody.
async fn alone(steps: usize) -> Vec<Seen> {
    let dir = TempDir::new().unwrap();
    let encoder = TestEncoder::new(SAMPLES);
    let mut stream = builder(dir.path(), kept_at(0, &encoder), 0, 1).start().await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..steps {
        seen.push(step(&mut stream, &encoder).await.unwrap());
    }
    assert!(seen.iter().any(|seen| seen.graph_version > 2));
    assert!(!dir.path().join("cache/shared").exists());
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn all_ranks_map_what_one_has_made() {
    let expected = alone(48).await;
    for world_size in [2, 4] {
        let dir = TempDir::new().unwrap();
        let mut ranks = start(dir.path(), world_size, None);
        let mut names = BTreeSet::new();
        for (number, expected) in expected.iter().enumerate() {
            take(&mut ranks, expected);
            if cfg!(target_os = "linux") && number % 7 == 5 {
                // Between two refreshes, all have the newest snapshot and no other, unless one is late to drop it.
                ranks.iter_mut().for_each(|rank| rank.say("maps"));
                let maps: Vec<BTreeSet<String>> = ranks.iter_mut().map(Rank::hear).collect();
                let common = maps.iter().fold(maps[0].clone(), |all, map| all.intersection(map).cloned().collect());
                let is_new = |prefix: &str| common.iter().any(|name| name.starts_with(prefix) && !names.contains(name));
                assert!(is_new("embeddings-") && is_new("graph-"), "step {number}: {maps:?}");
                assert!(maps.iter().all(|map| map.len() <= 4), "step {number}: {maps:?}");
                names.extend(common);
            }
        }
        ranks.into_iter().for_each(Rank::end);
        assert_eq!(shared(dir.path()), BTreeSet::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_with_other_numbers_of_ranks() {
    let expected = alone(60).await;
    let dir = TempDir::new().unwrap();
    let mut steps = expected.iter();
    let mut state: Option<Value> = None;
    for (world_size, count) in [(1, 17), (4, 20), (2, 23)] {
        let mut ranks = start(dir.path(), world_size, state.as_ref());
        steps.by_ref().take(count).for_each(|expected| take(&mut ranks, expected));
        ranks.iter_mut().for_each(|rank| rank.say("keep"));
        let states: Vec<Value> = ranks.iter_mut().map(Rank::hear).collect();
        assert!(states.iter().all(|other| *other == states[0]));
        state = Some(states[0].clone());
        ranks.into_iter().for_each(Rank::end);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_killed_ranks_have_left_is_removed() {
    let expected = alone(40).await;
    let dir = TempDir::new().unwrap();
    let mut ranks = start(dir.path(), 2, None);
    expected[..20].iter().for_each(|expected| take(&mut ranks, expected));
    // The files stay for the other rank.
    ranks.pop().unwrap().kill();
    assert!(shared(dir.path()).len() >= 2);
    ranks[0].say("keep");
    let state: Value = ranks[0].hear();
    ranks.pop().unwrap().kill();
    let left = shared(dir.path());
    assert!(left.len() >= 2);

    let mut ranks = start(dir.path(), 2, Some(&state));
    expected[20..].iter().for_each(|expected| take(&mut ranks, expected));
    assert!(shared(dir.path()).is_disjoint(&left));
    ranks.into_iter().for_each(Rank::end);
    assert_eq!(shared(dir.path()), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_that_cannot_share_make_their_own() {
    let expected = alone(20).await;
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("cache")).unwrap();
    fs::write(dir.path().join("cache/shared"), "no folder").unwrap();
    let mut ranks = start(dir.path(), 2, None);
    expected.iter().for_each(|expected| take(&mut ranks, expected));
    ranks.into_iter().for_each(Rank::end);
}
