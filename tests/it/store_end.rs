//! A store has all rows of its source, or it is not built at all.

use std::sync::Arc;

use futures::{StreamExt, stream};
use prosampler::arrow::array::RecordBatch;
use prosampler::arrow::datatypes::SchemaRef;
use prosampler::config::StoreConfig;
use prosampler::source::{Fingerprint, RecordBatches, Source, SourceFile};
use prosampler::store::Store;
use prosampler::{Error, Result};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::support::rows;

/// A source that gives another number of rows than it promises, or never ends.
struct Breaking {
    promised: usize,
    given: usize,
    hangs: Option<Arc<Notify>>,
}

impl Source for Breaking {
    fn uri(&self) -> &str {
        "breaking"
    }

    fn schema(&self) -> SchemaRef {
        rows(0).schema()
    }

    fn rows(&self) -> Option<usize> {
        Some(self.promised)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let source_file = SourceFile { uri: "breaking".into(), version: "1".into() };
        Some(Fingerprint { settings: String::new(), files: vec![source_file] })
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        assert_eq!(columns, ["n", "text"]);
        let batches: Vec<Result<RecordBatch>> = vec![Ok(rows(self.given))];
        let given = stream::iter(batches);
        Ok(match self.hangs.clone() {
            None => given.boxed(),
            Some(notify) => given
                .chain(stream::once(async move {
                    notify.notify_one();
                    std::future::pending().await
                }))
                .boxed(),
        })
    }
}

fn columns() -> Vec<String> {
    ["n", "text"].map(str::to_owned).to_vec()
}

fn caches(dir: &TempDir) -> usize {
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|extension| extension != "lock")).count()
}

#[tokio::test]
async fn a_source_with_another_number_of_rows_is_an_error() {
    let dir = TempDir::new().unwrap();
    let config = StoreConfig { cache_dir: Some(dir.path().into()), ..StoreConfig::default() };
    for given in [90, 110] {
        let source = Breaking { promised: 100, given, hangs: None };
        let error = Store::build(&source, &columns(), &config, &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, Error::RowCount { found, expected: 100, .. } if found == given), "{error}");
        assert_eq!(caches(&dir), 0);
    }
    let source = Breaking { promised: 100, given: 100, hangs: None };
    assert_eq!(Store::build(&source, &columns(), &config, &mut |_| {}).await.unwrap().len(), 100);
    assert_eq!(caches(&dir), 1);
}

/// If the build is dropped, the rows that were read until then do not become a cache.
#[test]
fn a_dropped_build_leaves_no_cache() {
    let dir = TempDir::new().unwrap();
    let config = StoreConfig { cache_dir: Some(dir.path().into()), ..StoreConfig::default() };
    let read = Arc::new(Notify::new());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let source = Breaking { promised: 100, given: 50, hangs: Some(read.clone()) };
        let (columns, mut progress) = (columns(), |_| {});
        let build = Store::build(&source, &columns, &config, &mut progress);
        tokio::select! {
            _ = build => panic!("it ends"),
            () = read.notified() => {}
        }
    });
    // This waits for the thread that writes.
    drop(runtime);
    assert_eq!(caches(&dir), 0);
}
