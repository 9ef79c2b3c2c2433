//! For every n, the n-th request to a server fails while a file is read. It is sent again, or the error names the
//! object.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::TryStreamExt;
use prosampler::Result;
use prosampler::arrow::array::RecordBatch;
use prosampler::arrow::compute::concat_batches;
use prosampler::config::SourceConfig;
use prosampler::source::{FileSource, Source};

use crate::outcome::{Outcome, Tally};
use crate::part::{self, Part};
use crate::support::{random, runtime};
use crate::tables::{self, KINDS, ParquetOptions};

pub const PART: Part = Part {
    name: "failing requests",
    share: 5,
    goal: 20 * FAILURES.len() as u64,
    slice: 2 * FAILURES.len() as u64,
    round,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    /// Status 503, which is temporary.
    Unavailable,
    /// The connection ends without an answer.
    Reset,
    /// The connection ends in the middle of the answer.
    CutShort,
    /// Status 404: the object is gone.
    Gone,
    /// Status 403: access is refused.
    Forbidden,
    /// The answer has other bytes than were asked for, and fewer.
    Fewer,
}

const FAILURES: [Failure; 6] =
    [Failure::Unavailable, Failure::Reset, Failure::CutShort, Failure::Gone, Failure::Forbidden, Failure::Fewer];

#[test]
fn a_failing_request_is_sent_again_or_names_the_object() {
    part::slice(&PART);
}

fn round(_: u64, number: u64) -> Tally {
    let failure = FAILURES[(number % FAILURES.len() as u64) as usize];
    let n = number / FAILURES.len() as u64;
    let mut random = random(0, "requests", 0);
    let table = tables::table(&KINDS, 400, true, &mut random);
    let options = ParquetOptions {
        codec: 0,
        newer: false,
        dictionary: true,
        special_encodings: false,
        indexed: false,
        page_rows: 100,
        group_rows: 100,
    };
    let server = Server::start(tables::parquet(&table, &options), failure, n);
    let read = runtime().block_on(read(server.port));
    let failed = server.requests.load(Relaxed) > n;
    let passes = matches!(failure, Failure::Unavailable | Failure::Reset | Failure::CutShort);
    let outcome = match read {
        Ok(rows) if rows.columns() == table.columns() => Outcome::Right,
        Ok(rows) => Outcome::Fault(format!("other rows, {} of them", rows.num_rows())),
        Err(error) if passes => Outcome::Fault(format!("what passes ended it: {error}")),
        Err(error) if error.to_string().contains("data.parquet") => Outcome::Refused,
        Err(error) => Outcome::Fault(format!("the object is not named: {error}")),
    };
    let target = format!("{failure:?}");
    let mut tally = Tally::of(&target, outcome, &format!("request {n}"));
    if !failed {
        tally.count(&target, "of these not reached", 1);
    }
    tally
}

async fn read(port: u16) -> Result<RecordBatch> {
    let uri = vec![format!("http://127.0.0.1:{port}/data.parquet")];
    let options = [("allow_http".to_owned(), "true".to_owned())].into();
    let source = FileSource::open_all(&SourceConfig { uri, options, ..SourceConfig::default() }).await?;
    let schema = source.schema();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let batches: Vec<_> = source.read(&names)?.try_collect().await?;
    Ok(concat_batches(&schema, &batches).expect("record batches of one schema"))
}

/// Serves one object, in ranges, and fails once.
struct Server {
    port: u16,
    requests: Arc<AtomicU64>,
}

impl Server {
    fn start(object: Vec<u8>, failure: Failure, nth: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, requests) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
        let (object, counted) = (Arc::new(object), requests.clone());
        // The thread ends with the process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(std::result::Result::ok) {
                let (object, counted) = (object.clone(), counted.clone());
                // A client that closes the connection gets no more answers.
                std::thread::spawn(move || serve(client, &object, failure, nth, &counted).ok());
            }
        });
        Self { port, requests }
    }
}

fn serve(mut client: TcpStream, object: &[u8], failure: Failure, nth: u64, count: &AtomicU64) -> std::io::Result<()> {
    let mut lines = BufReader::new(client.try_clone()?);
    loop {
        let (mut method, mut range) = (String::new(), None);
        loop {
            let mut line = String::new();
            if lines.by_ref().read_line(&mut line)? == 0 {
                return Ok(());
            }
            if method.is_empty() {
                method = line.split(' ').next().unwrap_or_default().to_owned();
            }
            if let Some(asked) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                let (from, to) = asked.trim().split_once('-').unwrap_or_default();
                range = from.parse::<usize>().ok().zip(to.parse::<usize>().ok());
            }
            if line == "\r\n" {
                break;
            }
        }
        let fails = count.fetch_add(1, Relaxed) == nth;
        let refuse = match failure {
            Failure::Unavailable => Some("503 Service Unavailable"),
            Failure::Gone => Some("404 Not Found"),
            Failure::Forbidden => Some("403 Forbidden"),
            _ => None,
        };
        if fails && failure == Failure::Reset {
            return client.shutdown(Shutdown::Both);
        }
        if let Some(status) = refuse.filter(|_| fails) {
            write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        let (from, to) =
            range.map_or((0, object.len()), |(from, to)| (from.min(object.len()), (to + 1).min(object.len())));
        let mut body = &object[from..to];
        if fails && failure == Failure::Fewer {
            body = &body[..body.len() / 2];
        }
        let end = (from + body.len()).saturating_sub(1);
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        let content_range = range.map(|_| format!("Content-Range: bytes {from}-{end}/{}\r\n", object.len()));
        let content_range = content_range.unwrap_or_default();
        write!(
            client,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{content_range}Accept-Ranges: bytes\r\n\
             ETag: \"one\"\r\nLast-Modified: Tue, 01 Jan 2030 00:00:00 GMT\r\n\r\n",
            body.len()
        )?;
        if method == "HEAD" {
            continue;
        }
        if fails && failure == Failure::CutShort {
            client.write_all(&body[..body.len() / 2])?;
            return client.shutdown(Shutdown::Both);
        }
        client.write_all(body)?;
    }
}
