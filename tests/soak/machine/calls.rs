//! Refreshes that the trainer asks for are compared with a simple model of what is in each graph.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::TryStreamExt;
use proptest::prelude::*;
use prosampler::config::{CheckpointConfig, GraphConfig, Similarity, StreamConfig, WalkConfig};
use prosampler::embeddings::EmbeddingTable;
use prosampler::source::MemorySource;
use prosampler::{MiniBatchStream, ModelVersion, Pipeline, SampleId, State};
use rand::RngExt;
use tempfile::TempDir;

use super::world::{DIMENSION, Trained, numbers, vectors_of};
use crate::support::random;

#[derive(Clone, Copy, Debug)]
pub enum Call {
    Take(u8),
    Push(u8),
    NewModel,
    Refresh,
    Keep,
    /// The process ends, and goes on from the state that was kept last, or begins.
    Kill,
}

pub fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        3 => (1u8..12).prop_map(Call::Take),
        4 => any::<u8>().prop_map(Call::Push),
        1 => Just(Call::NewModel),
        3 => Just(Call::Refresh),
        3 => Just(Call::Keep),
        2 => Just(Call::Kill),
    ]
}

/// Embeddings are a model's, except those that were pushed since.
#[derive(Clone, Default)]
struct Account {
    model: u64,
    pushed: BTreeMap<usize, Vec<f32>>,
}

/// What the model says of a graph, and how many pushes came before it.
type Made = (u64, Account, usize);

struct Trainer {
    dir: TempDir,
    /// `None` between the end of one process and the start of the next.
    stream: Option<MiniBatchStream>,
    newest: Arc<AtomicU64>,
    pushes: Vec<(usize, Vec<f32>)>,
    graphs: Vec<Made>,
    kept: Option<(State, Made, usize)>,
}

/// Goes through all events.
pub async fn live(calls: &[Call]) -> Result<(), String> {
    let (dir, newest) = (TempDir::new().unwrap(), Arc::default());
    let stream = Some(start(&dir, &newest, None).await?);
    let graphs = vec![(1, Account::default(), 0)];
    let mut trainer = Trainer { dir, stream, newest, pushes: Vec::new(), graphs, kept: None };
    for call in calls {
        trainer.act(*call).await?;
    }
    trainer.act(Call::Refresh).await
}

impl Trainer {
    fn stream(&self) -> &MiniBatchStream {
        self.stream.as_ref().unwrap()
    }

    async fn act(&mut self, call: Call) -> Result<(), String> {
        match call {
            Call::Take(n) => {
                let stream = self.stream.as_mut().unwrap();
                for _ in 0..n {
                    stream.try_next().await.map_err(|error| format!("take: {error}"))?;
                }
            }
            Call::Push(seed) => {
                let mut random = random(u64::from(seed), "pushed", 1);
                let id = random.random_range(0..SAMPLES);
                let vector: Vec<f32> = (0..DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect();
                self.stream().handle().push_embeddings(&[SampleId::new(id)], &vector).unwrap();
                self.pushes.push((id, vector));
            }
            Call::NewModel => drop(self.newest.fetch_add(1, Relaxed)),
            Call::Refresh => self.refresh().await?,
            Call::Keep => {
                let state = self.stream().state();
                self.stream().handle().keep(&state).await.map_err(|error| format!("keep: {error}"))?;
                let made = self.graphs.iter().find(|(version, ..)| *version == state.graph_version);
                let made = made.ok_or("a state of no graph that there was")?.clone();
                self.kept = Some((state, made, self.pushes.len()));
            }
            Call::Kill => {
                self.stream = None;
                let (state, made, pushes) = match self.kept.clone() {
                    Some((state, made, pushes)) => (Some(state), made, pushes),
                    None => (None, (1, Account { model: self.newest.load(Relaxed), pushed: BTreeMap::new() }, 0), 0),
                };
                self.pushes.truncate(pushes);
                self.graphs = vec![made];
                self.stream = Some(start(&self.dir, &self.newest, state).await?);
            }
        }
        Ok(())
    }

    async fn refresh(&mut self) -> Result<(), String> {
        let refreshed = self.stream().handle().refresh_now().await.map_err(|error| format!("refresh: {error}"))?;
        let (version, before, taken) = self.graphs.last().unwrap().clone();
        let model = self.newest.load(Relaxed);
        let mut after = Account { model, ..before.clone() };
        if model == before.model {
            after.pushed.extend(self.pushes[taken..].iter().cloned());
        } else {
            after.pushed.clear();
        }
        if refreshed.skipped && (model != before.model || taken < self.pushes.len()) {
            return Err("a refresh was skipped that had something to do".into());
        }
        if !refreshed.skipped {
            if refreshed.graph_version.0 != version + 1 {
                return Err(format!("graph {} after graph {version}", refreshed.graph_version));
            }
            self.graphs.push((version + 1, after.clone(), self.pushes.len()));
        }
        let mut expected = vectors_of(model, SAMPLES);
        for (id, vector) in &after.pushed {
            expected[id * DIMENSION..][..DIMENSION].copy_from_slice(vector);
        }
        let expected = EmbeddingTable::new(expected, DIMENSION, Similarity::Cosine, ModelVersion(1)).unwrap();
        let found = self.stream().snapshot().unwrap();
        match (0..SAMPLES).map(SampleId::new).find(|&id| found.embeddings.get(id) != expected.get(id)) {
            Some(id) => Err(format!("in graph {} sample {id} has another vector", refreshed.graph_version)),
            None => Ok(()),
        }
    }
}

async fn start(dir: &TempDir, newest: &Arc<AtomicU64>, state: Option<State>) -> Result<MiniBatchStream, String> {
    let builder = Pipeline::builder()
        .source(MemorySource::new(vec![numbers(0..SAMPLES as u32)]).unwrap())
        .encoder(Trained::newest(newest))
        .graph(GraphConfig { candidates: 40.into(), neighbors: Some(8), ..GraphConfig::default() })
        .walk(WalkConfig { batch_size: 24, ..WalkConfig::default() })
        .checkpoint(CheckpointConfig { dir: Some(dir.path().into()), keep: 2, ..CheckpointConfig::default() })
        .stream(StreamConfig { epochs: 100, ..StreamConfig::default() })
        .seed(5);
    let builder = if let Some(state) = state { builder.resume(state) } else { builder };
    builder.start().await.map_err(|error| format!("start: {error}"))
}

const SAMPLES: usize = 200;
