//! A simple model of a run: which graph each mini-batch comes from, how stale it is, and which samples are left.

use std::collections::BTreeSet;

use prosampler::SampleId;

/// Samples of the first file, and of each file that is added.
pub const FIRST: usize = 304;
pub const MORE: usize = 104;
pub const BATCH_SIZE: usize = 24;
pub const EVERY: u64 = 6;
pub const LAG: u64 = 3;

/// What happened, and after how many delivered mini-batches.
#[derive(Clone, Debug)]
pub struct Event {
    pub step: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Push(Vec<SampleId>, Vec<f32>),
    Model,
    File,
}

impl Event {
    /// The step at which the refresh that takes it begins.
    pub fn due(&self) -> u64 {
        (self.step / EVERY + 1) * EVERY
    }

    /// Whether mini-batch `step` was drawn with it.
    pub fn is_used_at(&self, step: u64) -> bool {
        step >= self.due() + LAG
    }
}

/// A mini-batch, of all ranks together.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub step: u64,
    pub epoch: u64,
    pub graph_version: u64,
    pub staleness: u64,
    pub similarity: f32,
    pub ids: Vec<u32>,
}

pub fn samples_at(events: &[Event], step: u64) -> usize {
    let files = events.iter().filter(|event| matches!(event.what, What::File) && event.is_used_at(step));
    FIRST + MORE * files.count()
}

/// Checks a run of one rank that nothing interrupted.
pub fn check(events: &[Event], seen: &[Seen]) -> Result<(), String> {
    let (mut left, mut epoch) = (BTreeSet::new(), None);
    for (place, one) in seen.iter().enumerate() {
        let step = place as u64;
        let wrong = |what: &str| Err(format!("step {step}: {what}: {one:?}"));
        if one.step != step {
            return wrong("out of its turn");
        }
        if one.graph_version != 1 + step.saturating_sub(LAG) / EVERY {
            return wrong("another graph");
        }
        if one.staleness != staleness(events, one) {
            return wrong(&format!("its staleness must be {}", staleness(events, one)));
        }
        if epoch != Some(one.epoch) {
            if !left.is_empty() || one.epoch != epoch.map_or(0, |epoch| epoch + 1) {
                return wrong("an epoch has ended early");
            }
            epoch = Some(one.epoch);
            left = (0..samples_at(events, step) as u32).collect();
        }
        if !one.ids.iter().all(|id| left.remove(id)) {
            return wrong("a sample comes twice, or is none of this epoch");
        }
    }
    Ok(())
}

/// The mean age of its samples' embeddings.
fn staleness(events: &[Event], one: &Seen) -> u64 {
    let used: Vec<_> = events.iter().filter(|event| event.is_used_at(one.step)).collect();
    // A new model embeds all samples, so that earlier pushes are gone, also those of the same refresh.
    let embedded = used.iter().rfind(|event| matches!(event.what, What::Model)).map(|event| event.due());
    let made = |id: u32| {
        let pushed = used.iter().rfind(|event| {
            let later = embedded.is_none_or(|embedded| event.due() > embedded);
            later && matches!(&event.what, What::Push(ids, _) if ids.contains(&SampleId(id)))
        });
        pushed.map_or(embedded.unwrap_or(0), |event| event.step)
    };
    one.ids.iter().map(|&id| one.step - made(id)).sum::<u64>() / one.ids.len() as u64
}
