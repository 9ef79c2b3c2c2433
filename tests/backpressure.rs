//! The producer has begun the mini-batches that were taken, those that wait in the channel, and one more.
//!
//! This is a binary of its own because blocking threads do not inherit a thread's subscriber, so the counter is global.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use prosampler::config::StreamConfig;
use tracing::span;
use tracing::subscriber::Subscriber;

#[allow(dead_code, unused_imports)]
#[path = "it/support/mod.rs"]
mod support;

use support::pipeline;

const SAMPLES: usize = 400;
const BATCH_SIZE: usize = 10;

/// Counts the mini-batches begun, by the producer's own span.
#[derive(Clone, Default)]
struct Begun(Arc<AtomicUsize>);

impl Subscriber for Begun {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.name() == "mini_batch"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        self.0.fetch_add(1, Ordering::SeqCst);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Waits until `begun` reaches `expected`, and asserts that it stays there.
async fn settles_at(begun: &Begun, expected: usize) {
    for _ in 0..2000 {
        if begun.0.load(Ordering::SeqCst) == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The producer gets time to go beyond that.
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(begun.0.load(Ordering::SeqCst), expected);
}

#[test]
fn produced_is_delivered_and_prefetch_and_one_in_hand() {
    let begun = Begun::default();
    tracing::subscriber::set_global_default(begun.clone()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for prefetch in [1, 4] {
            begun.0.store(0, Ordering::SeqCst);
            let config = StreamConfig { prefetch, epochs: 3, ..StreamConfig::default() };
            let mut stream = pipeline(SAMPLES, BATCH_SIZE).stream(config).start().await.unwrap();
            settles_at(&begun, prefetch + 1).await;
            for delivered in 1..=7 {
                stream.next().await.unwrap().unwrap();
                settles_at(&begun, delivered + prefetch + 1).await;
            }
        }
    });
}
