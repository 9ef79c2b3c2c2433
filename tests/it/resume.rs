//! A run that ends anywhere is resumed as if it had not ended.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use prosampler::config::{CheckpointConfig, RefreshConfig, Resume, Similarity, Storage, StoreConfig, StreamConfig};
use prosampler::embeddings::EmbeddingTable;
use prosampler::refresh::AgeSummary;
use prosampler::source::FileSource;
use prosampler::{Error, MiniBatch, MiniBatchStream, ModelVersion, PipelineBuilder, Result, SampleId, State};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use tempfile::TempDir;

use crate::support::{pipeline, rows, vectors, walk_config, write_parquet};

const SAMPLES: usize = 700;
const BATCH_SIZE: usize = 24;
const EPOCHS: u64 = 3;

fn builder(dir: &Path) -> PipelineBuilder {
    let refresh = RefreshConfig { every_steps: Some(7), swap_after_steps: Some(3), ..RefreshConfig::default() };
    pipeline(SAMPLES, BATCH_SIZE)
        .refresh(refresh)
        .stream(StreamConfig { epochs: EPOCHS, ..StreamConfig::default() })
        .checkpoint(CheckpointConfig { dir: Some(dir.into()), ..CheckpointConfig::default() })
}

/// The parts of a mini-batch that must be the same after a resume.
type Seen = (u64, u64, Option<u64>, Option<u64>, Vec<u32>, Option<f32>);

async fn take(stream: &mut MiniBatchStream, n: usize) -> Vec<Seen> {
    let seen = |m: MiniBatch| {
        let ids = m.ids.iter().map(|id| id.0).collect();
        (m.step, m.epoch, m.graph_version.map(|version| version.0), m.staleness, ids, m.similarity)
    };
    crate::support::take(stream, n).await.into_iter().map(seen).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_run_is_the_uninterrupted_one() {
    let dir = TempDir::new().unwrap();
    let whole = take(&mut builder(&dir.path().join("whole")).start().await.unwrap(), usize::MAX).await;
    assert_eq!(whole.len(), 90);
    assert!(whole.iter().any(|seen| seen.2 > Some(10)));

    // A run with a checkpoint folder draws the same mini-batches.
    let refresh = RefreshConfig { every_steps: Some(7), swap_after_steps: Some(3), ..RefreshConfig::default() };
    let stream = StreamConfig { epochs: EPOCHS, ..StreamConfig::default() };
    let plain = pipeline(SAMPLES, BATCH_SIZE).refresh(refresh).stream(stream);
    assert_eq!(take(&mut plain.start().await.unwrap(), usize::MAX).await, whole);

    let mut generator = ChaCha8Rng::seed_from_u64(11);
    for round in 0..6 {
        let dir = dir.path().join(round.to_string());
        let mut all = Vec::new();
        let mut state: Option<State> = None;
        loop {
            let builder = builder(&dir);
            let mut stream = match state {
                // The trainer may keep the state in any format.
                Some(state) => {
                    let json = serde_json::to_string(&state).unwrap();
                    builder.resume(serde_json::from_str(&json).unwrap()).start().await.unwrap()
                }
                None => builder.start().await.unwrap(),
            };
            let more = take(&mut stream, generator.random_range(1..25)).await;
            let ended = more.is_empty();
            all.extend(more);
            state = Some(stream.state());
            assert_eq!(state.as_ref().unwrap().step, all.len() as u64);
            if ended {
                break;
            }
        }
        assert!(all == whole, "round {round}");
    }
}

/// A stretch is left out as if the trainer had taken it and thrown it away: within an epoch, over its end, over a
/// refresh, and beyond the end of the run.
#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_stretch_is_left_out_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let whole = take(&mut builder(&dir.path().join("whole")).start().await.unwrap(), usize::MAX).await;
    for (at, skipped) in [(0, 5), (3, 1), (10, 0), (20, 25), (29, 2), (31, 40), (80, 500)] {
        let dir = dir.path().join(format!("{at}-{skipped}"));
        let mut stream = builder(&dir).start().await.unwrap();
        take(&mut stream, at).await;
        let state = stream.state().skip(skipped);
        drop(stream);

        // Nothing has been left out yet, so that a run that is resumed twice leaves out the same.
        let mut stream = builder(&dir).resume(state.clone()).start().await.unwrap();
        assert_eq!(stream.state(), state);
        let next = take(&mut stream, 4).await;
        let then = stream.state();
        assert_eq!(then.skips, if next.is_empty() { (at as u64 + skipped) - 90 } else { 0 });
        drop(stream);

        let rest = take(&mut builder(&dir).resume(then).start().await.unwrap(), usize::MAX).await;
        let expected = &whole[whole.len().min(at + skipped as usize)..];
        assert!([next, rest].concat() == expected, "{skipped} from {at}");
    }

    let state = builder(&dir.path().join("end")).start().await.unwrap().state();
    assert_eq!(state.skip(2).skip(3), state.skip(5));
    let mut changed = state.skip(2);
    changed.skips = 3;
    let error = builder(&dir.path().join("end")).resume(changed).start().await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

/// Vectors for a few samples, which depend on the step alone.
fn push(stream: &MiniBatchStream, step: u64) {
    let mut generator = ChaCha8Rng::seed_from_u64(step);
    let ids: Vec<_> = (step as u32 % 5..SAMPLES as u32).step_by(5).map(SampleId).collect();
    let vectors: Vec<f32> = (0..ids.len() * 8).map(|_| generator.random_range(-1.0..1.0)).collect();
    stream.handle().push_embeddings(&ids, &vectors).unwrap();
}

/// The trainer pushes vectors after every mini-batch, also during a refresh, and keeps a state wherever the run ends.
async fn train(stream: &mut MiniBatchStream, n: usize) -> Vec<Seen> {
    let mut all = Vec::new();
    while all.len() < n {
        let one = take(stream, 1).await;
        if one.is_empty() {
            break;
        }
        all.extend(one);
        push(stream, stream.state().step);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_wait_are_part_of_a_kept_state() {
    let dir = TempDir::new().unwrap();
    let whole = train(&mut builder(&dir.path().join("whole")).start().await.unwrap(), usize::MAX).await;
    let plain = take(&mut builder(&dir.path().join("plain")).start().await.unwrap(), usize::MAX).await;
    assert_ne!(whole, plain);
    let mut generator = ChaCha8Rng::seed_from_u64(12);
    for round in 0..6 {
        let dir = dir.path().join(round.to_string());
        let mut all = Vec::new();
        let mut state = None;
        loop {
            let builder = builder(&dir);
            let builder = if let Some(state) = state.take() { builder.resume(state) } else { builder };
            let mut stream = builder.start().await.unwrap();
            let more = train(&mut stream, generator.random_range(1..25)).await;
            let ended = more.is_empty();
            all.extend(more);
            let now = stream.state();
            stream.handle().keep(&now).await.unwrap();
            if ended {
                break;
            }
            // Pushes after the state are lost with the run, and pushed again.
            let later = train(&mut stream, generator.random_range(0..9)).await;
            assert!(whole[all.len()..].starts_with(&later), "round {round}, after {} steps", all.len());
            state = Some(now);
        }
        assert!(all == whole, "round {round}");
    }
}

/// Without fixed steps a refresh takes the pushes that have arrived. If that refresh is lost, the next one takes them.
#[tokio::test(flavor = "multi_thread")]
async fn pushes_are_taken_again_if_their_refresh_was_lost() {
    let dir = TempDir::new().unwrap();
    let builder = || {
        let dir = Some(dir.path().into());
        pipeline(SAMPLES, BATCH_SIZE).checkpoint(CheckpointConfig { dir, ..CheckpointConfig::default() })
    };
    let mut stream = builder().start().await.unwrap();
    take(&mut stream, 3).await;
    push(&stream, 3);
    stream.handle().refresh_now().await.unwrap();
    push(&stream, 4);
    let expected = stream.handle().refresh_now().await.unwrap();
    assert_eq!((expected.pushed, expected.graph_version.0), (140, 3));
    let embeddings = stream.snapshot().unwrap().embeddings.clone();
    // The last mini-batch of the state came from graph 1.
    let state = stream.state();
    assert_eq!(state.graph_version, 1);
    stream.handle().keep(&state).await.unwrap();
    drop(stream);
    let stream = builder().resume(state).start().await.unwrap();
    let found = stream.handle().refresh_now().await.unwrap();
    assert_eq!((found.pushed, found.graph_version.0), (280, 2));
    let vector = |table: &EmbeddingTable, id: u32| table.get(SampleId(id)).into_owned();
    for id in 0..SAMPLES as u32 {
        assert_eq!(vector(&stream.snapshot().unwrap().embeddings, id), vector(&embeddings, id), "sample {id}");
    }
    assert_eq!(
        stream.snapshot().unwrap().age(10),
        AgeSummary { mean: (420.0 * 10.0 + 280.0 * 7.0) / 700.0, p95: 10, never_pushed: 420 }
    );
}

/// The process that the test below starts and kills: a trainer that prints its mini-batches and keeps its state.
#[tokio::test(flavor = "multi_thread")]
async fn trainer_that_is_killed() {
    let Some(dir) = std::env::var_os("PROSAMPLER_TEST_TRAINER").map(PathBuf::from) else { return };
    let kept = dir.join("state.json");
    let builder = builder(&dir.join("checkpoints"));
    let mut stream = match std::fs::read(&kept) {
        Ok(state) => builder.resume(serde_json::from_slice(&state).unwrap()).start().await.unwrap(),
        // If it was killed before its first state, it begins again.
        Err(_) => builder.start().await.unwrap(),
    };
    loop {
        let seen = take(&mut stream, 1).await;
        let mut out = std::io::stdout().lock();
        writeln!(out, "seen {}", serde_json::to_string(&seen).unwrap()).unwrap();
        out.flush().unwrap();
        let state = stream.state();
        std::fs::write(dir.join("state.tmp"), serde_json::to_vec(&state).unwrap()).unwrap();
        std::fs::rename(dir.join("state.tmp"), &kept).unwrap();
        stream.handle().keep(&state).await.unwrap();
        if seen.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_is_the_uninterrupted_one() {
    let dir = TempDir::new().unwrap();
    let whole = take(&mut builder(&dir.path().join("whole")).start().await.unwrap(), usize::MAX).await;
    let mut generator = ChaCha8Rng::seed_from_u64(12);
    let mut kills = 0;
    while kills < 20 {
        let dir = TempDir::new().unwrap();
        let mut seen: Vec<Option<Seen>> = vec![None; whole.len()];
        loop {
            let mut trainer = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "resume::trainer_that_is_killed", "--nocapture"])
                .env("PROSAMPLER_TEST_TRAINER", dir.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let lines = BufReader::new(trainer.stdout.take().unwrap()).lines();
            let reader = std::thread::spawn(move || {
                let told = |line: String| line.strip_prefix("seen ").map(ToOwned::to_owned);
                lines.map_while(Result::ok).filter_map(told).collect::<Vec<_>>()
            });
            std::thread::sleep(Duration::from_millis(generator.random_range(20..160)));
            let ended = trainer.try_wait().unwrap();
            trainer.kill().unwrap();
            trainer.wait().unwrap();
            for line in reader.join().unwrap() {
                // The last line may be incomplete.
                let Ok(more) = serde_json::from_str::<Vec<Seen>>(&line) else { continue };
                for one in more {
                    let place = one.0 as usize;
                    assert!(seen[place].as_ref().is_none_or(|before| *before == one), "another step {place}");
                    seen[place] = Some(one);
                }
            }
            match ended {
                Some(status) => {
                    assert!(status.success(), "a resumed run failed");
                    break;
                }
                None => kills += 1,
            }
        }
        let seen: Vec<_> = seen.into_iter().map(Option::unwrap).collect();
        assert!(seen == whole);
    }
    println!("{kills} kills");
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_cannot_be_resumed_say_why() {
    let dir = TempDir::new().unwrap();
    let mut stream = builder(dir.path()).start().await.unwrap();
    take(&mut stream, 5).await;
    let early = stream.state();
    take(&mut stream, 60).await;
    stream.handle().keep(&stream.state()).await.unwrap();
    take(&mut stream, 1).await;
    let late = stream.state();
    stream.handle().keep(&late).await.unwrap();
    drop(stream);
    let refused = async |builder: PipelineBuilder| match builder.start().await {
        Err(error @ Error::State { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let message = refused(builder(dir.path())).await;
    assert!(message.contains("holds a run that was saved at step 66; resume that, clear the folder"), "{message}");
    let message = refused(builder(dir.path()).resume(early.clone())).await;
    assert!(message.contains("has no graph 1 any more; set checkpoint.resume = \"latest\""), "{message}");
    let message = refused(builder(dir.path()).seed(8).resume(late.clone())).await;
    assert!(message.contains("it was made with seed 7, and the settings say 8"), "{message}");
    let message = refused(builder(dir.path()).walk(walk_config(25)).resume(late.clone())).await;
    assert!(message.contains("walk.batch_size = 24, and now it is 25"), "{message}");
    let message = refused(builder(dir.path()).checkpoint(CheckpointConfig::default()).resume(late.clone())).await;
    assert!(message.contains("no checkpoint.dir"), "{message}");
    let message = refused(builder(dir.path()).source(crate::support::source(650)).resume(late.clone())).await;
    assert!(message.contains("the rows are not those"), "{message}");

    // The run goes on from the newest graph and repeats the epoch.
    let newest =
        CheckpointConfig { dir: Some(dir.path().into()), resume: Resume::Latest, ..CheckpointConfig::default() };
    let mut stream = builder(dir.path()).checkpoint(newest).resume(early).start().await.unwrap();
    let first = take(&mut stream, 1).await.remove(0);
    assert_eq!((first.0, first.1), (0, 0));
    assert!(first.2 > Some(5));
}

/// A trainer that is killed between its first `keep` and its own checkpoint has no state to go on from.
#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_that_lost_its_first_state_begins_again() {
    let dir = TempDir::new().unwrap();
    let mut stream = builder(dir.path()).start().await.unwrap();
    let seen = take(&mut stream, 12).await;
    stream.handle().keep(&stream.state()).await.unwrap();
    drop(stream);
    assert_eq!(take(&mut builder(dir.path()).start().await.unwrap(), 12).await, seen);
}

/// A state does not depend on the rank, so any number of processes can go on from it.
#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_ranks_may_change() {
    let dir = TempDir::new().unwrap();
    let whole = take(&mut builder(&dir.path().join("whole")).start().await.unwrap(), usize::MAX).await;
    let run = dir.path().join("run");
    let start = async |rank, world_size, state: Option<&State>| {
        let stream = StreamConfig { epochs: EPOCHS, rank, world_size, ..StreamConfig::default() };
        let builder = builder(&run).stream(stream);
        match state {
            Some(state) => builder.resume(state.clone()),
            None => builder,
        }
        .start()
        .await
        .unwrap()
    };
    let (mut state, mut step): (Option<State>, usize) = (None, 0);
    for (world_size, steps) in [(2, 17), (1, 8), (4, 20), (3, 15)] {
        let mut streams = Vec::new();
        for rank in 0..world_size {
            streams.push(start(rank, world_size, state.as_ref()).await);
        }
        for _ in 0..steps {
            let mut ids = Vec::new();
            for stream in &mut streams {
                let seen = take(stream, 1).await.remove(0);
                assert_eq!((seen.0, seen.1, seen.2), (whole[step].0, whole[step].1, whole[step].2));
                ids.extend(seen.4);
            }
            // If the last mini-batch does not divide by the ranks, the rest is left out.
            assert_eq!(ids, whole[step].4[..whole[step].4.len() / world_size * world_size], "step {step}");
            step += 1;
        }
        assert!(streams.iter().all(|stream| stream.state() == streams[0].state()));
        state = Some(streams[0].state());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_cannot_share_a_checkpoint_folder() {
    let dir = TempDir::new().unwrap();
    let mut stream = builder(dir.path()).start().await.unwrap();
    take(&mut stream, 5).await;
    let error = builder(dir.path()).resume(stream.state()).start().await.unwrap_err().to_string();
    assert!(error.contains("is in use by a run that has not ended; end that, or name another"), "{error}");
    let state = stream.state();
    drop(stream);
    builder(dir.path()).resume(state).start().await.unwrap();
}

/// If a checkpoint cannot be saved, no run can be resumed from there, but no mini-batch is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_if_a_checkpoint_cannot_be_saved() {
    let dir = TempDir::new().unwrap();
    let whole = take(&mut builder(&dir.path().join("whole")).start().await.unwrap(), usize::MAX).await;
    // The second graph is used from step 10 on.
    let run = dir.path().join("run");
    let mut stream = builder(&run).start().await.unwrap();
    std::fs::create_dir_all(run.join("left-10.arrow").join("in the way")).unwrap();
    let mut seen = take(&mut stream, 12).await;
    assert_eq!(stream.counts().unsaved, 1);
    let lost = stream.state();
    std::fs::remove_dir_all(run.join("left-10.arrow")).unwrap();
    seen.extend(take(&mut stream, 8).await);
    let kept = stream.state();
    seen.extend(take(&mut stream, usize::MAX).await);
    assert!(seen == whole);
    drop(stream);
    let error = builder(&run).resume(lost).start().await.unwrap_err().to_string();
    assert!(error.contains("checkpoint.resume = \"latest\""), "{error}");
    // This state is too old by now, since only the last few graphs are kept.
    let error = builder(&run).resume(kept).start().await.unwrap_err().to_string();
    assert!(error.contains("has no graph"), "{error}");
}

/// Files that were added to a source are there after a resume, with the ids that they had.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_resumes_with_the_files_that_were_added() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    write_parquet(&data.join("b.parquet"), &rows(SAMPLES).slice(0, 400), 100);
    let cache_dir = Some(dir.path().join("cache"));
    let start = async |state: Option<State>| {
        let source = FileSource::open(data.display().to_string()).await.unwrap();
        let store = StoreConfig { cache_dir: cache_dir.clone(), ..StoreConfig::default() };
        let checkpoint =
            CheckpointConfig { dir: Some(dir.path().join("checkpoints")), keep: 50, ..CheckpointConfig::default() };
        let builder = builder(dir.path()).checkpoint(checkpoint).source(source).store(store);
        match state {
            Some(state) => builder.resume(state),
            None => builder,
        }
        .start()
        .await
        .unwrap()
    };
    let mut stream = start(None).await;
    take(&mut stream, 3).await;
    write_parquet(&data.join("a.parquet"), &rows(SAMPLES).slice(400, 300), 100);
    let mut whole = take(&mut stream, 30).await;
    let state = stream.state();
    assert_eq!(stream.samples(), SAMPLES);
    whole.extend(take(&mut stream, usize::MAX).await);
    drop(stream);
    let mut resumed = start(Some(state)).await;
    assert_eq!(take(&mut resumed, usize::MAX).await, whole[30..]);
}

#[test]
fn embeddings_are_saved_in_every_storage() {
    let dir = TempDir::new().unwrap();
    for storage in [Storage::F32, Storage::F16, Storage::I8] {
        for similarity in [Similarity::Cosine, Similarity::Dot] {
            let mut table = EmbeddingTable::with_capacity(90, 7, storage, similarity, ModelVersion(4)).unwrap();
            table.push(&mut vectors(90, 7, 3, 1)).unwrap();
            let path = dir.path().join("embeddings.arrow");
            table.save(&path).unwrap();
            assert_eq!(EmbeddingTable::open(&path).unwrap(), table);
            let whole = std::fs::read(&path).unwrap();
            std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
            let error = EmbeddingTable::open(&path).unwrap_err().to_string();
            assert!(error.contains("embeddings.arrow`"), "{error}");
        }
    }
}

/// The shares of all ranks together are the mini-batches of a single process, and each rank gets equally many.
#[tokio::test(flavor = "multi_thread")]
async fn ranks_share_the_same_mini_batches() {
    let run = async |rank, world_size| {
        let builder = pipeline(SAMPLES + 2, BATCH_SIZE).stream(StreamConfig {
            epochs: 2,
            rank,
            world_size,
            ..StreamConfig::default()
        });
        let mut stream = builder.start().await.unwrap();
        let expected = stream.mini_batches_per_epoch() * 2;
        let seen = take(&mut stream, usize::MAX).await;
        assert_eq!(seen.len() as u64, expected);
        seen
    };
    // 702 = 29 × 24 + 6, so the last mini-batch has one sample for each of four ranks, and two are left out.
    let one = run(0, 1).await;
    for world_size in [2, 4] {
        let mut shares = Vec::new();
        for rank in 0..world_size {
            shares.push(run(rank, world_size).await);
        }
        for (step, whole) in one.iter().enumerate() {
            let share = whole.4.len() / world_size;
            let together: Vec<u32> = shares.iter().flat_map(|rank| rank[step].4.clone()).collect();
            assert_eq!(together, whole.4[..share * world_size]);
            assert!(shares.iter().all(|rank| rank[step].4.len() == share && rank[step].5 == whole.5));
        }
    }
    // Six samples are too few for eight ranks.
    let eight = run(5, 8).await;
    assert_eq!((one.len(), eight.len()), (60, 58));
}
