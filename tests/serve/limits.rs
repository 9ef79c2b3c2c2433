//! Whom a server lets in, and what it bears.

use std::time::Duration;

use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use futures::{StreamExt, TryStreamExt};
use prosampler::Error;
use prosampler::config::StreamConfig;
use prosampler::serve::{RemoteOptions, RemoteStream, ServeOptions, Server, TlsFiles};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::{Code, Request};

use crate::runs::{Running, client};
use crate::support::{path, pipeline};

const TOKEN: &str = "a-token-that-is-long-enough";

fn with_token(token: Option<&str>) -> RemoteOptions {
    let mut options = RemoteOptions::default();
    options.token = token.map(Into::into);
    options
}

fn guarded() -> ServeOptions {
    let mut options = ServeOptions::default();
    options.token = Some(TOKEN.into());
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_the_token_gets_in() {
    let server = Running::start(|| pipeline(100, 20), guarded()).await;
    for wrong in [None, Some(""), Some("a-token-that-is-long-enougH"), Some("a-token-that-is-long")] {
        let error = server.stream(with_token(wrong)).await.unwrap_err().to_string();
        assert!(error.contains("the token is missing or wrong"), "{error}");
    }
    let right: Vec<_> = server.stream(with_token(Some(TOKEN))).await.unwrap().try_collect().await.unwrap();
    assert_eq!(right.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_open_to_others_by_oversight() {
    let refused = |options| async { Server::start(|| pipeline(100, 20), options).await.unwrap_err().to_string() };
    let mut open = ServeOptions::default();
    open.address = ([0, 0, 0, 0], 0).into();
    let error = refused(open.clone()).await;
    assert!(error.contains("--token-file") && error.contains("--tls-cert"), "{error}");
    open.token = Some(TOKEN.into());
    let error = refused(open.clone()).await;
    assert!(!error.contains("--token-file") && error.contains("--tls-cert"), "{error}");
    open.token = Some("short".into());
    assert!(refused(open.clone()).await.contains("can be guessed"));
    (open.token, open.insecure) = (None, true);
    Server::start(|| pipeline(100, 20), open).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_sent_in_the_clear_and_a_uri_is_checked() {
    let options = with_token(Some(TOKEN));
    let stream = RemoteStream::connect("http://192.0.2.1:8815", options);
    let error = stream.await.unwrap_err().to_string();
    assert!(error.contains("in the clear"), "{error}");
    for wrong in ["nowhere", "grpc://127.0.0.1:8815", "//"] {
        let stream = RemoteStream::connect(wrong, RemoteOptions::default());
        let error = stream.await.unwrap_err().to_string();
        assert!(error.contains("is no uri of a server"), "{error}");
    }
}

/// The messages of a client that sends what it likes.
async fn exchange(server: &Running, messages: Vec<FlightData>) -> tonic::Status {
    let mut client = client(server).await;
    let messages = futures::stream::iter(messages).chain(futures::stream::pending());
    let answer = match client.do_exchange(Request::new(messages)).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status,
    };
    answer.try_for_each(|_| async { Ok(()) }).await.unwrap_err()
}

fn first(ticket: &str, credits: &'static str) -> FlightData {
    FlightData::new().with_descriptor(FlightDescriptor::new_cmd(ticket.to_owned())).with_app_metadata(credits)
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_by_name() {
    let server = Running::start(|| pipeline(100, 20), ServeOptions::default()).await;
    let cases = [
        (vec![first("{", "")], "command of the first message is wrong"),
        (vec![first(r#"{"path": "/etc/passwd"}"#, "")], "unknown field `path`"),
        (vec![first(r#"{"rank": 3}"#, "")], "rank 3 of 1"),
        (vec![first(r#"{"world_size": 4}"#, "")], "4 ranks"),
        (vec![first("{}", r#"{"credits": -1}"#)], "credits are wrong"),
        (
            vec![first("{}", r#"{"credits": 2, "taken": 7}"#), FlightData::new().with_app_metadata(r#"{"taken": 7}"#)],
            "said to be taken",
        ),
        (vec![first(r#"{"state": {"step": 3}}"#, "")], "missing field"),
    ];
    for (messages, expected) in cases {
        let status = exchange(&server, messages).await;
        assert!(status.message().contains(expected), "{expected}: {status}");
        assert_ne!(status.code(), Code::Internal);
    }
    let mut client = client(&server).await;
    let status = client.do_get(Ticket::new("nonsense")).await.unwrap_err();
    assert!(status.message().contains("the ticket is wrong"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_are_refused() {
    let mut options = ServeOptions::default();
    options.max_message_bytes = 4096;
    let server = Running::start(|| pipeline(400, 300), options).await;
    let status = exchange(&server, vec![first(&format!("{{\"a\": \"{}\"}}", "x".repeat(5000)), "")]).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let status = exchange(&server, vec![first("{}", r#"{"credits": 1}"#)]).await;
    assert!(status.message().contains("raise --max-message-bytes"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_are_let_go() {
    let mut options = ServeOptions::default();
    options.max_idle = Duration::from_millis(200);
    let server = Running::start(|| pipeline(400, 20), options).await;
    // Without any message, without a credit, and with credits whose mini-batches nobody reads.
    for messages in [vec![], vec![first("{}", "")]] {
        let status = exchange(&server, messages).await;
        assert!(status.message().contains("nothing came from the client"), "{status}");
    }
    let mut rest = server.stream(RemoteOptions::default()).await.unwrap();
    assert_eq!(rest.next().await.unwrap().unwrap().step, 0);
}

/// Connections beyond the limit wait, and get in when one ends.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited() {
    let mut options = ServeOptions::default();
    options.max_connections = 2;
    let server = Running::start(|| pipeline(100, 20), options).await;
    // Half open: they never say anything.
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The server's HTTP/2 preface shows that it was accepted.
        stream.read_exact(&mut [0; 9]).await.unwrap();
        silent.push(stream);
    }
    let connect = server.stream(RemoteOptions::default());
    let waits = tokio::time::timeout(Duration::from_millis(300), connect).await;
    assert!(waits.is_err(), "{waits:?}");
    silent.pop();
    assert_eq!(server.stream(RemoteOptions::default()).await.unwrap().samples(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_read_is_named() {
    let mut options = ServeOptions::default();
    options.tls = Some(TlsFiles { certificate: "no-such.pem".into(), key: "no-such.key".into() });
    options.address.set_port(0);
    let error = Server::start(|| pipeline(100, 20), options).await.unwrap_err().to_string();
    assert!(error.contains("cannot read `no-such.pem`"), "{error}");
}

/// A certificate of these tests for 127.0.0.1, and its key. Made by `openssl req -x509 -newkey ec`; it guards nothing.
fn tls() -> TlsFiles {
    TlsFiles { certificate: path("tests/data/tls/cert.pem"), key: path("tests/data/tls/key.pem") }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_needs_a_certificate_that_the_client_knows() {
    let mut options = guarded();
    options.tls = Some(tls());
    let server = Running::start(|| pipeline(100, 20), options).await;
    let uri = format!("https://{}", server.address);
    let connect = async |uri: &str, ca: Option<TlsFiles>| {
        let mut options = with_token(Some(TOKEN));
        options.retries = 0;
        options.ca_certificate = ca.map(|files| files.certificate);
        RemoteStream::connect(uri, options).await
    };
    let right: Vec<_> = connect(&uri, Some(tls())).await.unwrap().try_collect().await.unwrap();
    assert_eq!(right.len(), 5);
    // Not known, and in the clear to a server that speaks TLS.
    assert!(matches!(connect(&uri, None).await, Err(Error::Server { .. })));
    assert!(matches!(connect(&server.uri, Some(tls())).await, Err(Error::Server { .. })));
}

/// A client of `DoGet` that does not read is let go, and holds nothing up.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_let_go() {
    let mut options = ServeOptions::default();
    // So long that a busy machine does not hold up the first mini-batch for as long.
    options.max_idle = Duration::from_millis(1500);
    let many = StreamConfig { epochs: 3000, ..StreamConfig::default() };
    let server = Running::start(move || pipeline(400, 200).stream(many.clone()), options).await;
    let mut frames = client(&server).await.do_get(Ticket::new("{}")).await.unwrap().into_inner();
    frames.try_next().await.unwrap().unwrap();
    // Longer than it may be silent; what is on the way then is all that it gets.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut got = 0;
    let ended = loop {
        match frames.try_next().await {
            Ok(Some(_)) => got += 1,
            Ok(None) => panic!("all {got} mini-batches came"),
            Err(status) => break status,
        }
    };
    assert!(ended.message().contains("nothing came from the client"), "{ended}");
    assert!(got < 6000, "{got}");
}
