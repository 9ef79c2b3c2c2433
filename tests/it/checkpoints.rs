//! Checkpoint files are used only if they are as they were written, and stay for as long as a state needs them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use prosampler::config::{CheckpointConfig, RefreshConfig, Resume, StreamConfig};
use prosampler::{Error, MiniBatch, MiniBatchStream, PipelineBuilder, SampleId, State};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use tempfile::TempDir;

use crate::support::pipeline;

const SAMPLES: usize = 700;
const BATCH_SIZE: usize = 24;

fn builder(dir: &Path) -> PipelineBuilder {
    let refresh = RefreshConfig { every_steps: Some(7), swap_after_steps: Some(3), ..RefreshConfig::default() };
    pipeline(SAMPLES, BATCH_SIZE)
        .refresh(refresh)
        .stream(StreamConfig { epochs: 3, ..StreamConfig::default() })
        .checkpoint(CheckpointConfig { dir: Some(dir.into()), ..CheckpointConfig::default() })
}

async fn take(stream: &mut MiniBatchStream, n: usize) -> Vec<Vec<u32>> {
    let seen = |mini_batch: MiniBatch| mini_batch.ids.iter().map(|id| id.0).collect();
    crate::support::take(stream, n).await.into_iter().map(seen).collect()
}

async fn keep(stream: &MiniBatchStream) -> State {
    let state = stream.state();
    stream.handle().keep(&state).await.unwrap();
    state
}

/// A vector that waits for the next refresh.
fn push(stream: &MiniBatchStream) {
    let dimension = stream.snapshot().unwrap().embeddings.dimension();
    stream.handle().push_embeddings(&[SampleId(3)], &vec![0.5; dimension]).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Drops a stream, and waits until its tasks have ended.
async fn end(stream: MiniBatchStream, dir: &Path) {
    drop(stream);
    let lock = fs::File::open(dir.join("lock")).unwrap();
    while lock.try_lock().is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A flipped bit anywhere in a checkpoint is an error that names the file, unless no reader depends on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_noticed() {
    let dir = TempDir::new().unwrap();
    let (sound, damaged) = (dir.path().join("sound"), dir.path().join("damaged"));
    let mut stream = builder(&sound).start().await.unwrap();
    take(&mut stream, 40).await;
    push(&stream);
    let state = keep(&stream).await;
    let expected = take(&mut stream, 10).await;
    end(stream, &sound).await;
    let mut generator = ChaCha8Rng::seed_from_u64(21);
    let mut told = 0;
    let used = [
        format!("graph-{}.arrow", state.graph_version),
        "embeddings-1.arrow".into(),
        "pushed-1.arrow".into(),
        format!("waiting-{}.arrow", state.step),
    ];
    let files = names(&sound).into_iter().filter(|name| name != "lock");
    for name in files {
        let whole = fs::read(sound.join(&name)).unwrap();
        for _ in 0..12 {
            let _ = fs::remove_dir_all(&damaged);
            copy(&sound, &damaged);
            let (place, bit) = (generator.random_range(0..whole.len()), generator.random_range(0..8));
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << bit;
            fs::write(damaged.join(&name), bytes).unwrap();
            match builder(&damaged).resume(state.clone()).start().await {
                Ok(mut stream) => {
                    let taken = take(&mut stream, 10).await;
                    assert!(taken == expected, "byte {place} of {name}, bit {bit}");
                    // A mapped file that is cut short ends the process.
                    end(stream, &damaged).await;
                }
                Err(error) => {
                    told += 1;
                    let text = error.to_string();
                    assert!(text.contains(&name), "byte {place} of {name}, bit {bit}: {text}");
                    let remedies = ["checkpoint.resume = \"latest\"", "start anew"];
                    assert!(remedies.iter().any(|remedy| text.contains(remedy)), "{text}");
                }
            }
        }
    }
    assert!(told >= 12 * used.len() / 2, "{told} flips were told");
}

/// A file may be cut short anywhere, be empty, or be replaced by another file of the run.
#[tokio::test(flavor = "multi_thread")]
async fn cut_or_swapped_files_are_noticed() {
    let dir = TempDir::new().unwrap();
    let (sound, damaged) = (dir.path().join("sound"), dir.path().join("damaged"));
    let mut stream = builder(&sound).start().await.unwrap();
    take(&mut stream, 40).await;
    push(&stream);
    let state = keep(&stream).await;
    end(stream, &sound).await;
    let waiting = format!("waiting-{}.arrow", state.step);
    let graph = format!("graph-{}.arrow", state.graph_version);
    let left = format!("left-{}.arrow", state.graph_used_from_step);
    for name in [&graph, &left, &waiting, "embeddings-1.arrow", "pushed-1.arrow", "manifest.json"] {
        let whole = fs::read(sound.join(name)).unwrap();
        let other = fs::read(sound.join("graph-1.arrow")).unwrap();
        for bytes in [&whole[..0], &whole[..1], &whole[..whole.len() / 2], &whole[..whole.len() - 2], &other] {
            let _ = fs::remove_dir_all(&damaged);
            copy(&sound, &damaged);
            fs::write(damaged.join(name), bytes).unwrap();
            let error = builder(&damaged).resume(state.clone()).start().await.unwrap_err().to_string();
            assert!(error.contains(name), "{name} with {} bytes: {error}", bytes.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_noticed() {
    let dir = TempDir::new().unwrap();
    let mut stream = builder(dir.path()).start().await.unwrap();
    take(&mut stream, 12).await;
    let state = keep(&stream).await;
    end(stream, dir.path()).await;
    let text = serde_json::to_string(&state).unwrap();
    for (from, to) in [
        (r#""step":12"#, r#""step":13"#),
        (r#""seed":7"#, r#""seed":6"#),
        (r#""graph_used_from_step":10"#, r#""graph_used_from_step":9"#),
        (r#""graph.neighbors":""#, r#""graph.neighbors":"1"#),
    ] {
        let damaged = text.replace(from, to);
        assert_ne!(damaged, text, "{from} is not in {text}");
        let damaged: State = serde_json::from_str(&damaged).unwrap();
        let error = builder(dir.path()).resume(damaged).start().await.unwrap_err();
        assert!(matches!(&error, Error::State { .. }) && error.to_string().contains("the state is damaged"), "{error}");
    }
}

/// A state that a trainer has kept can be resumed, however many graphs were made since.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_was_kept_stays_resumable() {
    let dir = TempDir::new().unwrap();
    let run = dir.path().join("run");
    let whole = take(&mut builder(&dir.path().join("whole")).start().await.unwrap(), usize::MAX).await;
    let mut stream = builder(&run).start().await.unwrap();
    take(&mut stream, 12).await;
    let first = keep(&stream).await;
    take(&mut stream, 60).await;
    // States that are not kept do not hold any files.
    for _ in 0..100 {
        let _ = stream.state();
    }
    end(stream, &run).await;
    let mut stream = builder(&run).resume(first.clone()).start().await.unwrap();
    assert!(take(&mut stream, 30).await == whole[12..42]);
    // The state before the last one is still kept, since the trainer may not have saved the last one yet.
    keep(&stream).await;
    assert!(take(&mut stream, 30).await == whole[42..72]);
    end(stream, &run).await;
    let mut stream = builder(&run).resume(first.clone()).start().await.unwrap();
    assert!(take(&mut stream, 30).await == whole[12..42]);
    keep(&stream).await;
    take(&mut stream, 20).await;
    keep(&stream).await;
    take(&mut stream, 1).await;
    keep(&stream).await;
    end(stream, &run).await;
    let error = builder(&run).resume(first).start().await.unwrap_err().to_string();
    assert!(error.contains("has no graph"), "{error}");
}

/// The graph in use is still there when a trainer resumes after a long pause.
#[tokio::test(flavor = "multi_thread")]
async fn the_graph_in_use_is_never_removed() {
    let dir = TempDir::new().unwrap();
    let refresh = RefreshConfig::default();
    let mut stream = builder(dir.path()).refresh(refresh.clone()).start().await.unwrap();
    take(&mut stream, 3).await;
    for _ in 0..8 {
        let vectors = vec![1.0; stream.snapshot().unwrap().embeddings.dimension()];
        stream.handle().push_embeddings(&[prosampler::SampleId(0)], &vectors).unwrap();
        stream.handle().refresh_now().await.unwrap();
    }
    let state = keep(&stream).await;
    assert_eq!((state.graph_version, stream.snapshot().unwrap().graph_version().0), (1, 9));
    let names = names(dir.path());
    let graphs = names.iter().filter(|name| name.starts_with("graph-")).count();
    assert!((5..=7).contains(&graphs), "{names:?}");
    let next = take(&mut stream, 1).await;
    end(stream, dir.path()).await;
    let mut stream = builder(dir.path()).refresh(refresh).resume(state).start().await.unwrap();
    assert_eq!(take(&mut stream, 1).await, next);
}

/// If a run was killed before it saved anything, the same start begins again in the same folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_saved_nothing_begins_again_in_its_folder() {
    let dir = TempDir::new().unwrap();
    let mut stream = builder(dir.path()).start().await.unwrap();
    let whole = take(&mut stream, 30).await;
    end(stream, dir.path()).await;
    // A killed process leaves half-written files, and other programs have files here too.
    for name in [".building-graph-9-x", "graph-99.arrow", "notes.txt", "graph-mine.arrow"] {
        fs::write(dir.path().join(name), "half").unwrap();
    }
    let mut stream = builder(dir.path()).start().await.unwrap();
    assert!(take(&mut stream, 30).await == whole);
    end(stream, dir.path()).await;
    // The same holds if it was killed between its first `keep` and its own first checkpoint.
    let mut stream = builder(dir.path()).start().await.unwrap();
    take(&mut stream, 5).await;
    keep(&stream).await;
    end(stream, dir.path()).await;
    let mut stream = builder(dir.path()).start().await.unwrap();
    assert!(take(&mut stream, 29).await == whole[..29]);
    keep(&stream).await;
    take(&mut stream, 1).await;
    keep(&stream).await;
    end(stream, dir.path()).await;
    let names = names(dir.path());
    assert!(names.contains("notes.txt") && names.contains("graph-mine.arrow"), "{names:?}");
    assert!(!names.contains("graph-99.arrow") && !names.contains(".building-graph-9-x"), "{names:?}");
    let error = builder(dir.path()).start().await.unwrap_err().to_string();
    assert!(error.contains("holds a run that was saved at step 30; resume that, clear the folder"), "{error}");
}

/// With `checkpoint.resume = "latest"` a run goes on from the newest snapshot that is undamaged.
#[tokio::test(flavor = "multi_thread")]
async fn latest_goes_on_from_the_newest_sound_snapshot() {
    let dir = TempDir::new().unwrap();
    let mut stream = builder(dir.path()).start().await.unwrap();
    take(&mut stream, 40).await;
    let state = keep(&stream).await;
    end(stream, dir.path()).await;
    let newest = names(dir.path())
        .iter()
        .filter_map(|name| name.strip_prefix("graph-")?.strip_suffix(".arrow")?.parse::<u64>().ok())
        .max()
        .unwrap();
    let path = dir.path().join(format!("graph-{newest}.arrow"));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let latest =
        CheckpointConfig { dir: Some(dir.path().into()), resume: Resume::Latest, ..CheckpointConfig::default() };
    let mut stream = builder(dir.path()).checkpoint(latest).resume(state).start().await.unwrap();
    assert_eq!(stream.snapshot().unwrap().graph_version().0, newest - 1);
    assert_eq!(take(&mut stream, 1).await.len(), 1);
}

/// Rows that come from no file are recognised by their content.
#[tokio::test(flavor = "multi_thread")]
async fn other_rows_of_the_same_number_are_refused() {
    let dir = TempDir::new().unwrap();
    let mut stream = builder(dir.path()).start().await.unwrap();
    take(&mut stream, 5).await;
    let state = keep(&stream).await;
    end(stream, dir.path()).await;
    let reversed = prosampler::source::MemorySource::new({
        let rows = crate::support::rows(SAMPLES);
        vec![rows.slice(1, SAMPLES - 1), rows.slice(0, 1)]
    });
    let error = builder(dir.path()).source(reversed.unwrap()).resume(state).start().await.unwrap_err().to_string();
    assert!(error.contains("the rows are not those of the run"), "{error}");
}
