//! The stream ends with its consumer, with its last epoch, and with its first error.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{Stream, StreamExt};
use prosampler::config::{RefreshConfig, StreamConfig};
use prosampler::{Error, MiniBatchStream};

use crate::support::{TestEncoder, pipeline};

const SAMPLES: usize = 400;
const BATCH_SIZE: usize = 10;

async fn start() -> MiniBatchStream {
    pipeline(SAMPLES, BATCH_SIZE).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_ends_its_tasks_and_frees_its_snapshot() {
    let mut stream = pipeline(SAMPLES, BATCH_SIZE)
        .refresh(RefreshConfig { every_steps: Some(2), ..RefreshConfig::default() })
        .stream(StreamConfig { prefetch: 2, epochs: 1000, ..StreamConfig::default() })
        .start()
        .await
        .unwrap();
    for _ in 0..5 {
        stream.next().await.unwrap().unwrap();
    }
    let snapshot = Arc::downgrade(&stream.snapshot().unwrap());
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(tasks >= 2, "producer and worker should be alive, {tasks} tasks are");
    drop(stream);
    for _ in 0..5000 {
        if snapshot.strong_count() == 0 && tokio::runtime::Handle::current().metrics().num_alive_tasks() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("five seconds after the drop, the snapshot or a task is still alive");
}

#[tokio::test]
async fn an_idle_stream_on_one_thread_still_starts_and_ends() {
    let delivered = start().await.map(|item| item.map(|m| m.ids.len()).unwrap()).fold(0, |a, n| async move { a + n });
    assert_eq!(delivered.await, SAMPLES);
}

#[tokio::test]
async fn a_panic_in_the_compute_pool_is_an_error_with_its_message() {
    let encoder = TestEncoder::new(SAMPLES).altered(|_, _, _| panic!("out of ideas"));
    let error = pipeline(SAMPLES, BATCH_SIZE).encoder(encoder).start().await.unwrap_err();
    let died = |message: &str| message.starts_with("out of ideas (") && message.contains("ending.rs");
    assert!(matches!(&error, Error::TaskDied { task: "encode", message, .. } if died(message)), "{error}");
}

#[tokio::test]
async fn a_stream_knows_its_length() {
    let mut stream = start().await;
    assert_eq!((stream.mini_batches_per_epoch(), stream.samples()), (40, SAMPLES));
    assert_eq!(stream.size_hint().1, Some(40));
    stream.next().await.unwrap().unwrap();
    assert_eq!((stream.size_hint().1, stream.delivered()), (Some(39), 1));
    assert_eq!(stream.by_ref().count().await, 39);
    assert_eq!(stream.size_hint(), (0, Some(0)));
    assert!(stream.next().await.is_none());
}

/// The waits of trainer and producer are counted, on a clock that moves only while both are idle.
#[tokio::test(start_paused = true)]
async fn waits_are_counted() {
    let mut stream = pipeline(SAMPLES, BATCH_SIZE)
        .stream(StreamConfig { prefetch: 3, ..StreamConfig::default() })
        .start()
        .await
        .unwrap();
    // Three mini-batches wait and one is in the producer's hand, so for ten steps of a second the producer waits.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stream.next().await.unwrap().unwrap();
    }
    let counts = stream.counts();
    assert_eq!((counts.delivered, counts.trainer_wait), (10, Duration::ZERO));
    assert!(counts.walks.moves >= 90, "{counts:?}");
    // From here on the trainer asks at once and waits for as long as a walk takes, which is no time on this clock.
    assert_eq!(stream.by_ref().take(20).count().await, 20);
    let counts = stream.counts();
    assert_eq!(counts.delivered, 30);
    let waited = counts.producer_wait.as_secs_f64();
    assert!((waited - 10.0).abs() < 0.02, "{waited}");
}

#[tokio::test]
async fn encoding_happens_once_for_all_refreshes() {
    let encoder = TestEncoder::new(SAMPLES);
    let calls = encoder.calls.clone();
    let stream = pipeline(SAMPLES, BATCH_SIZE)
        .encoder(encoder)
        .refresh(RefreshConfig { every_steps: Some(5), ..RefreshConfig::default() })
        .start();
    assert_eq!(stream.await.unwrap().count().await, 40);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_dropped_embeds_no_more() {
    let samples = 3 * 8192;
    let (begun, is_begun) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let encoder = TestEncoder::new(samples).altered(move |_, n, _| {
        if n == 0 {
            begun.send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
        }
    });
    let calls = encoder.calls.clone();
    let task = tokio::spawn(pipeline(samples, BATCH_SIZE).encoder(encoder).start());
    tokio::task::spawn_blocking(move || is_begun.recv().unwrap()).await.unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    go_on.send(()).unwrap();
    // The encoder is dropped when its work has ended.
    while go_on.send(()).is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}
