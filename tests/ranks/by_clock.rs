//! Ranks whose refreshes no step triggers: rank 0 decides at which step each begins.

use std::fs;
use std::path::Path;

use prosampler::config::RefreshConfig;
use prosampler::{Error, State};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Rank, Start, started, tell, told};
use crate::support::{TestEncoder, assert_says, pipeline};
use crate::training::{SAMPLES, Seen, builder, kept_at, step};

/// How many steps after its begin a refresh is used.
const LAG: u64 = 12;

/// The steps between two decisions.
const EVERY: u64 = 10;

/// A clock that does not fire in a test: `refresh_now` of rank 0 takes its place.
fn refresh() -> RefreshConfig {
    RefreshConfig { every_seconds: Some(1e6), swap_after_steps: Some(LAG), ..RefreshConfig::default() }
}

/// The process that the tests below start. It takes a step for each `step`.
#[tokio::test(flavor = "multi_thread")]
async fn rank() {
    let Some(Start { rank, world_size, state }) = started() else { return };
    let encoder = TestEncoder::new(SAMPLES);
    let state: Option<State> = state.map(|state| serde_json::from_value(state).unwrap());
    let step_now = state.as_ref().map_or(0, |state| state.step);
    let mut builder = builder(Path::new("."), kept_at(step_now, &encoder), rank, world_size).refresh(refresh());
    if let Some(state) = state {
        builder = builder.resume(state);
    }
    let mut stream = builder.start().await.unwrap();
    while let Some(what) = told() {
        match what.as_str() {
            "step" => tell(&step(&mut stream, &encoder).await.map_err(|error| error.to_string())),
            "call" => {
                let handle = stream.handle();
                tokio::spawn(async move { handle.refresh_now().await });
                // So that the worker has the call before the next step.
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                tell(&());
            }
            _ => {
                let state = stream.state();
                stream.handle().keep(&state).await.unwrap();
                tell(&state);
            }
        }
    }
}

fn start(dir: &Path, state: Option<&Value>) -> [Rank; 2] {
    [0, 1].map(|rank| Rank::start("by_clock::rank", dir, &Start { rank, world_size: 2, state: state.cloned() }))
}

fn take(ranks: &mut [Rank; 2]) -> Seen {
    ranks.iter_mut().for_each(|rank| rank.say("step"));
    let [first, second] = ranks.each_mut().map(|rank| rank.hear::<Result<Seen, String>>().unwrap());
    assert_eq!((first.step, first.digest), (second.step, second.digest));
    first
}

fn ask<T: serde::de::DeserializeOwned>(rank: &mut Rank, what: &str) -> T {
    rank.say(what);
    rank.hear()
}

#[test]
fn rank_0_decides_and_a_resumed_run_repeats_it() {
    let dir = TempDir::new().unwrap();
    let mut ranks = start(dir.path(), None);
    let mut seen: Vec<Seen> = (0..25).map(|_| take(&mut ranks)).collect();
    // A wish of another rank does not count.
    ask::<()>(&mut ranks[1], "call");
    seen.extend((25..35).map(|_| take(&mut ranks)));
    ask::<()>(&mut ranks[0], "call");
    seen.extend((35..45).map(|_| take(&mut ranks)));

    let state: Value = ask(&mut ranks[0], "keep");
    let kept = dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    for entry in fs::read_dir(dir.path().join("checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, kept.join(path.file_name().unwrap())).unwrap();
    }
    seen.extend((45..90).map(|_| take(&mut ranks)));
    ranks.into_iter().for_each(Rank::end);
    // The call came after step 34, so the refresh began at step 40.
    let versions: Vec<_> = seen.iter().map(|seen| seen.graph_version).collect();
    let used_from = 4 * EVERY + LAG;
    assert!(
        versions.iter().zip(0..).all(|(&version, step)| version == 1 + u64::from(step >= used_from)),
        "{versions:?}"
    );

    // The run of the state has decided about the refresh at step 40, and its graph was not used yet.
    fs::remove_dir_all(dir.path().join("checkpoints")).unwrap();
    fs::rename(kept, dir.path().join("checkpoints")).unwrap();
    let mut ranks = start(dir.path(), Some(&state));
    for seen in &seen[45..] {
        assert_eq!(take(&mut ranks), *seen);
    }
    ranks.into_iter().for_each(Rank::end);
}

#[test]
fn without_rank_0_the_others_end_where_they_need_it() {
    let dir = TempDir::new().unwrap();
    let mut ranks = start(dir.path(), None);
    (0..25).for_each(|_| drop(take(&mut ranks)));
    let [first, mut second] = ranks;
    first.kill();
    // It has decided about step 20, so the next graph may be used from step 30 + 12 on.
    for step in 25..3 * EVERY + LAG {
        assert_eq!(ask::<Result<Seen, String>>(&mut second, "step").unwrap().step, step);
    }
    let error = ask::<Result<Seen, String>>(&mut second, "step").unwrap_err();
    assert_says(&error, &["rank 0", "at step 30", "has ended", "start all ranks again"]);
    second.end();
}

#[tokio::test]
async fn ranks_without_a_folder_for_decisions_are_refused() {
    let stream = prosampler::config::StreamConfig { world_size: 2, ..Default::default() };
    let start = async |refresh| pipeline(SAMPLES, 24).stream(stream.clone()).refresh(refresh).start().await;
    let error = start(refresh()).await.unwrap_err();
    assert!(matches!(error, Error::Config(_)));
    assert_says(&error.to_string(), &["refresh.every_seconds", "checkpoint.dir", "refresh.every_steps"]);
    let error = start(RefreshConfig { when_easier: Some(0.15), ..RefreshConfig::default() }).await.unwrap_err();
    assert_says(&error.to_string(), &["refresh.when_easier", "checkpoint.dir"]);
    // Fixed steps need none.
    start(RefreshConfig { every_steps: Some(10), ..RefreshConfig::default() }).await.unwrap();
}
