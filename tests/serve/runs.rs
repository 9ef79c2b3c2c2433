//! Trainers elsewhere get the mini-batches of a run in process, each once, whatever happens to their connections.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor};
use futures::TryStreamExt;
use prosampler::config::{CheckpointConfig, MaskConfig, RefreshConfig, StreamConfig, WalkConfig};
use prosampler::serve::{Facts, RemoteHandle, RemoteOptions, RemoteStream, ServeOptions, Server};
use prosampler::{MiniBatch, PipelineBuilder, SampleId, State};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;

use crate::support::{TestEncoder, pipeline, walk_config};

const SAMPLES: usize = 500;

/// Two epochs of 21 mini-batches, refreshed at known steps, for so many ranks.
fn builder(world_size: usize, dir: Option<&Path>) -> PipelineBuilder {
    pipeline(SAMPLES, 24)
        .walk(WalkConfig { negatives: 2, ..walk_config(24) })
        .mask(MaskConfig { max_similarity: Some(0.8), ..MaskConfig::default() })
        .refresh(RefreshConfig { every_steps: Some(7), swap_after_steps: Some(3), ..RefreshConfig::default() })
        .stream(StreamConfig { epochs: 2, world_size, ..StreamConfig::default() })
        .checkpoint(CheckpointConfig { dir: dir.map(Into::into), ..CheckpointConfig::default() })
}

/// What a rank gets in process.
async fn in_process(rank: usize, world_size: usize) -> Vec<MiniBatch> {
    let stream = StreamConfig { epochs: 2, rank, world_size, ..StreamConfig::default() };
    builder(world_size, None).stream(stream).start().await.unwrap().try_collect().await.unwrap()
}

/// A server that ends with this object.
pub struct Running {
    pub uri: String,
    pub address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
}

impl Running {
    pub async fn start(make: impl Fn() -> PipelineBuilder + Send + Sync + 'static, mut options: ServeOptions) -> Self {
        options.address.set_port(0);
        let server = Server::start(make, options).await.unwrap();
        let address = server.address();
        let (end, ended) = oneshot::channel();
        tokio::spawn(server.run(async { drop(ended.await) }));
        Self { uri: format!("http://{address}"), address, end: Some(end) }
    }

    pub async fn stream(&self, options: RemoteOptions) -> prosampler::Result<RemoteStream> {
        RemoteStream::connect(&self.uri, options).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.end.take());
    }
}

/// A client that says what it likes.
pub async fn client(server: &Running) -> FlightServiceClient<Channel> {
    FlightServiceClient::new(Channel::from_shared(server.uri.clone()).unwrap().connect().await.unwrap())
}

fn rank(rank: usize, world_size: usize) -> RemoteOptions {
    let mut options = RemoteOptions::default();
    (options.rank, options.world_size) = (rank, world_size);
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn all_ranks_get_what_they_would_get_in_process() {
    for world_size in [1, 2, 3] {
        let server = Running::start(move || builder(world_size, None), ServeOptions::default()).await;
        let mut ranks = Vec::new();
        for number in 0..world_size {
            let stream = server.stream(rank(number, world_size)).await.unwrap();
            assert_eq!((stream.samples(), stream.mini_batches_per_epoch()), (SAMPLES, 21));
            ranks.push(tokio::spawn(stream.try_collect::<Vec<_>>()));
        }
        for (number, served) in ranks.into_iter().enumerate() {
            let served = served.await.unwrap().unwrap();
            let expected = in_process(number, world_size).await;
            assert_eq!(served.len(), 42);
            assert!(served.iter().any(|mini_batch| mini_batch.graph_version.unwrap().0 > 3));
            let widths = served.iter().map(|mini_batch| mini_batch.mask().unwrap().value_length(0));
            assert!(widths.max() == Some(24 * 3));
            // The feedback is not there without a target, so mini-batches are equal in all that they have.
            assert!(served == expected, "rank {number} of {world_size}");
        }
    }
}

/// So many mini-batches come as credits were given, and then no more.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_without_a_credit() {
    let server = Running::start(|| builder(1, None), ServeOptions::default()).await;
    let mut client = client(&server).await;
    let (credits, given) = mpsc::unbounded_channel();
    let give = |credit: u64, taken: u64| {
        let text = format!("{{\"credits\": {credit}, \"taken\": {taken}}}");
        let command = FlightDescriptor::new_cmd("{}");
        credits.send(FlightData::new().with_descriptor(command).with_app_metadata(text)).unwrap();
    };
    give(0, 0);
    let messages = futures::stream::unfold(given, |mut given| async { Some((given.recv().await?, given)) });
    let mut frames = client.do_exchange(messages).await.unwrap().into_inner();
    assert!(!frames.try_next().await.unwrap().unwrap().data_header.is_empty());
    let mut step = 0;
    for credit in [1, 3, 2, 5] {
        give(credit, step);
        for _ in 0..credit {
            let frame = frames.try_next().await.unwrap().unwrap();
            let facts: Facts = serde_json::from_slice(&frame.app_metadata).unwrap();
            assert_eq!(facts.step, step);
            step += 1;
        }
        let more = tokio::time::timeout(Duration::from_millis(100), frames.try_next()).await;
        assert!(more.is_err(), "a mini-batch without a credit after step {step}");
    }
}

/// Passes bytes on between clients and a server, and cuts every connection after so many of them.
async fn flaky(server: SocketAddr, cuts: Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let Ok(mut server) = TcpStream::connect(server).await else { return };
            let cuts = cuts.clone();
            tokio::spawn(async move {
                let mut left = 12_000 + cuts.load(Ordering::SeqCst) * 3_331 % 40_000;
                let (mut up, mut down) = (vec![0; 4096], vec![0; 4096]);
                loop {
                    let most = left.min(4096) as usize;
                    let passed = tokio::select! {
                        n = client.read(&mut up) => {
                            let n = n.unwrap_or(0);
                            if n == 0 || server.write_all(&up[..n]).await.is_err() { return }
                            0
                        }
                        n = server.read(&mut down[..most]) => {
                            let n = n.unwrap_or(0);
                            if n == 0 || client.write_all(&down[..n]).await.is_err() { return }
                            n
                        }
                    };
                    left -= passed as u64;
                    if left == 0 {
                        cuts.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_lose_and_repeat_nothing() {
    let server = Running::start(|| builder(2, None), ServeOptions::default()).await;
    let cuts = Arc::new(AtomicU64::new(0));
    let address = flaky(server.address, cuts.clone()).await;
    let mut ranks = Vec::new();
    for number in 0..2 {
        let uri = format!("http://{address}");
        let stream = RemoteStream::connect(&uri, rank(number, 2)).await.unwrap();
        ranks.push(tokio::spawn(stream.try_collect::<Vec<_>>()));
    }
    for (number, served) in ranks.into_iter().enumerate() {
        assert!(served.await.unwrap().unwrap() == in_process(number, 2).await, "rank {number}");
    }
    assert!(cuts.load(Ordering::SeqCst) > 4, "{cuts:?}");
}

/// A trainer that dies goes on from the state that it has kept, and the whole run goes back with it.
#[tokio::test(flavor = "multi_thread")]
async fn trainers_go_on_from_a_kept_state() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().to_owned();
    let server = Running::start(move || builder(2, Some(&folder)), ServeOptions::default()).await;
    let (mut first, mut second) = (server.stream(rank(0, 2)).await.unwrap(), server.stream(rank(1, 2)).await.unwrap());
    let mut state = None;
    for step in 0..30 {
        first.try_next().await.unwrap().unwrap();
        second.try_next().await.unwrap().unwrap();
        if step == 11 {
            assert_eq!(first.state(), second.state());
            first.handle().keep(&first.state()).await.unwrap();
            state = Some(first.state());
        }
    }
    let state = state.unwrap();

    let mut options = rank(0, 2);
    // While another rank is there, none goes back alone.
    drop(first);
    options.state = Some(state.clone());
    let error = server.stream(options.clone()).await.unwrap_err().to_string();
    assert!(error.contains("ranks [1] are connected"), "{error}");
    drop(second);

    let ranks = rejoin(&server.uri, 2, &state).await;
    let ranks: Vec<_> = ranks.into_iter().map(|stream| tokio::spawn(stream.try_collect::<Vec<_>>())).collect();
    for (number, served) in ranks.into_iter().enumerate() {
        assert!(served.await.unwrap().unwrap() == in_process(number, 2).await[12..]);
    }

    // Another server goes on from the state that was kept last.
    drop(server);
    let folder = dir.path().to_owned();
    let server = Running::start(move || builder(2, Some(&folder)), ServeOptions::default()).await;
    let mut options = rank(1, 2);
    options.state = Some(state);
    let again: Vec<_> = {
        let mut other = options.clone();
        other.rank = 0;
        tokio::spawn(server.stream(other).await.unwrap().try_collect::<Vec<_>>());
        server.stream(options).await.unwrap().try_collect().await.unwrap()
    };
    assert!(again == in_process(1, 2).await[12..]);
}

/// All ranks go on from a state, once the server has noticed that those before have left.
async fn rejoin(uri: &str, world_size: usize, state: &State) -> Vec<RemoteStream> {
    let mut ranks = Vec::new();
    for number in 0..world_size {
        let mut options = rank(number, world_size);
        options.state = Some(state.clone());
        ranks.push(loop {
            match RemoteStream::connect(uri, options.clone()).await {
                Ok(stream) => break stream,
                Err(error) => assert!(error.to_string().contains("are connected"), "{error}"),
            }
            tokio::task::yield_now().await;
        });
    }
    ranks
}

/// Mini-batches that a state leaves out are left out for all ranks, within an epoch and over its end, also where
/// connections break.
#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_stretch_is_left_out_for_all_ranks() {
    for (world_size, skipped) in [(1, 3), (2, 3), (2, 15)] {
        let dir = TempDir::new().unwrap();
        let folder = dir.path().to_owned();
        let server = Running::start(move || builder(world_size, Some(&folder)), ServeOptions::default()).await;
        let mut ranks = Vec::new();
        for number in 0..world_size {
            ranks.push(server.stream(rank(number, world_size)).await.unwrap());
        }
        for _ in 0..12 {
            for stream in &mut ranks {
                stream.try_next().await.unwrap().unwrap();
            }
        }
        let kept = ranks[0].state();
        ranks[0].handle().keep(&kept).await.unwrap();
        drop(ranks);

        let state = kept.skip(skipped);
        let cuts = Arc::new(AtomicU64::new(0));
        let uri = format!("http://{}", flaky(server.address, cuts.clone()).await);
        let ranks = rejoin(&uri, world_size, &state).await;
        assert!(ranks.iter().all(|stream| stream.state() == state));
        if world_size > 1 {
            // Another stretch would be other mini-batches.
            let mut options = rank(0, world_size);
            options.state = Some(kept.skip(skipped + 1));
            let error = server.stream(options).await.unwrap_err().to_string();
            let expected = format!("leaves out {} mini-batches, which is not held, and ranks [1]", skipped + 1);
            assert!(error.contains(&expected), "{error}");
        }
        let ranks: Vec<_> = ranks.into_iter().map(|stream| tokio::spawn(stream.try_collect::<Vec<_>>())).collect();
        for (number, served) in ranks.into_iter().enumerate() {
            let expected = &in_process(number, world_size).await[12 + skipped as usize..];
            assert!(served.await.unwrap().unwrap() == expected, "rank {number} of {world_size} without {skipped}");
        }
        assert!(cuts.load(Ordering::SeqCst) > 0);
    }
}

/// While samples are embedded, the server says that it is there, and whoever comes waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_samples_are_embedded_waits() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut options = ServeOptions::default();
    options.address = address;
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    let make = move || {
        let gate = gate.clone();
        // It ends when the gate is opened, and at once from then on.
        builder(1, None).encoder(TestEncoder::new(SAMPLES).before_each_call(move |_| {
            let _ = gate.lock().unwrap().recv();
        }))
    };
    let (end, ended) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        Server::start(make, options).await.unwrap().run(async { drop(ended.await) }).await.unwrap();
    });
    let mut raw = loop {
        match TcpStream::connect(address).await {
            Ok(raw) => break raw,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    // By such a ping, clients see whether the server is alive.
    let (settings, ping) = ([0, 0, 0, 4, 0, 0, 0, 0, 0], [0, 0, 8, 6, 0, 0, 0, 0, 0]);
    raw.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &ping, b"are you?"].concat()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"are you?") {
        let more = tokio::time::timeout(Duration::from_secs(10), raw.read_buf(&mut answer)).await;
        assert!(more.expect("no answer").unwrap() > 0, "{answer:?}");
    }

    let uri = format!("http://{address}");
    let handle = RemoteHandle::connect(&uri, &rank(0, 1)).await.unwrap();
    let mut status = std::pin::pin!(handle.status());
    let mut stream = std::pin::pin!(RemoteStream::connect(&uri, rank(0, 1)));
    let wait = Duration::from_millis(50);
    assert!(tokio::time::timeout(wait, &mut status).await.is_err());
    assert!(tokio::time::timeout(wait, &mut stream).await.is_err());
    drop(open);
    assert_eq!(status.await.unwrap().samples, SAMPLES);
    let served: Vec<_> = stream.await.unwrap().try_collect().await.unwrap();
    assert!(served == in_process(0, 1).await);
    drop(end);
    server.await.unwrap();
}

/// Where nobody listens, a trainer is told; the retries are for connections that were there.
#[tokio::test(flavor = "multi_thread")]
async fn no_server_is_an_error_and_no_wait() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let uri = format!("http://{free}");
    let told = tokio::time::timeout(Duration::from_secs(60), RemoteStream::connect(&uri, rank(0, 1))).await;
    let error = told.expect("it waits").unwrap_err().to_string();
    assert!(error.contains("cannot be reached") && error.contains("refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_and_refreshes_go_over_the_connection() {
    let server = Running::start(|| pipeline(SAMPLES, 24), ServeOptions::default()).await;
    let mut stream = server.stream(rank(0, 1)).await.unwrap();
    let mut local = pipeline(SAMPLES, 24).start().await.unwrap();
    assert_eq!(stream.try_next().await.unwrap(), local.try_next().await.unwrap());
    let handle = stream.handle();
    assert_eq!((stream.dimension(), stream.has_checkpoints()), (8, false));
    let before = handle.status().await.unwrap();
    assert_eq!((before.samples, before.mini_batches_per_epoch), (SAMPLES, 21));
    assert_eq!((before.graph_version, before.model_version, before.refreshes.published), (Some(1), Some(1), 0));
    let ids: Vec<_> = (0..40).map(SampleId).collect();
    handle.push_embeddings(&ids, &vec![0.5; 40 * 8]).await.unwrap();
    let refreshed = handle.refresh_now().await.unwrap();
    assert_eq!((refreshed.graph_version, refreshed.pushed, refreshed.skipped), (2, 40, false));
    assert!(refreshed.seconds > 0.0 && refreshed.drift.is_none());
    let after = handle.status().await.unwrap();
    assert_eq!((after.graph_version, after.refreshes.published), (Some(2), 1));
    let expected = local.handle();
    expected.push_embeddings(&ids, &vec![0.5; 40 * 8]).unwrap();
    expected.refresh_now().await.unwrap();
    assert_eq!(handle.neighbors(SampleId(7)).await.unwrap(), expected.neighbors(SampleId(7)).unwrap());
    let error = handle.neighbors(SampleId(500)).await.unwrap_err().to_string();
    assert!(error.contains("sample 500"), "{error}");
    let error = handle.push_embeddings(&[SampleId(500)], &[0.5; 8]).await.unwrap_err().to_string();
    assert!(error.contains("sample 500"), "{error}");
    let error = handle.keep(&stream.state()).await.unwrap_err().to_string();
    assert!(error.contains("checkpoint.dir"), "{error}");
}
