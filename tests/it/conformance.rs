//! Apache's conformance files, if they are on this machine, are read as pyarrow reads them, and the rest is refused by
//! name.
//!
//! `tests/data/conformance/expected.tsv` is what pyarrow reads, `docs/conformance.md` names every file that is read
//! otherwise, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures::TryStreamExt;
use glob::Pattern;
use prosampler::Result;
use prosampler::source::{FileSource, Source};

use crate::canonical::Digest;
use crate::support::path;

/// What came of a file: its rows and a digest for each column, or the error.
type Outcome = Result<(usize, Vec<String>), String>;

fn folder() -> Option<PathBuf> {
    Some(path("../shared/data/conformance")).filter(|folder| folder.is_dir())
}

/// What pyarrow makes of each file, by its path in the folder, and how many rows its footer promises.
fn expected() -> BTreeMap<String, Outcome> {
    let text = fs::read_to_string(path("tests/data/conformance/expected.tsv")).unwrap();
    let outcome = |line: &str| {
        let mut cells = line.split('\t').map(str::to_owned);
        let (file, rows) = (cells.next().unwrap(), cells.next().unwrap());
        let outcome = match rows.parse() {
            Ok(rows) => Ok((rows, cells.collect())),
            Err(_) => Err(cells.next().unwrap_or_default()),
        };
        (file, outcome)
    };
    text.lines().filter(|line| !line.starts_with('#')).map(outcome).collect()
}

async fn read(file: &Path) -> Outcome {
    let read = async {
        let source = FileSource::open(file.display().to_string()).await?;
        let schema = source.schema();
        let fields = || schema.fields().iter().map(|field| field.name());
        let is_twin = |name: &String| fields().filter(|other| *other == name).count() > 1;
        let columns: Vec<_> = fields().filter(|name| !is_twin(name)).cloned().collect();
        let mut digests = vec![Digest::default(); columns.len()];
        let (mut rows, promised) = (0, source.rows());
        let mut batches = source.read(&columns)?;
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows();
            batch.columns().iter().zip(&mut digests).for_each(|(column, digest)| digest.add(column));
        }
        assert!(promised.is_none_or(|promised| promised == rows), "{}: {rows} of {promised:?} rows", file.display());
        let mut digests = digests.into_iter().map(Digest::text);
        let of_all = fields().map(|name| if is_twin(name) { Some(UNKNOWN.to_owned()) } else { digests.next() });
        Ok::<_, prosampler::Error>((rows, of_all.flatten().collect()))
    };
    read.await.map_err(|error| error.to_string())
}

/// Digests agree, but for those that pyarrow cannot make, and of columns that share a name, which cannot be read.
fn agree(ours: &Outcome, theirs: &Outcome) -> bool {
    match (ours, theirs) {
        (Ok((rows, digests)), Ok((other, others))) => {
            let same = |(a, b): (&String, &String)| a == b || [a, b].iter().any(|text| *text == UNKNOWN);
            rows == other && digests.len() == others.len() && digests.iter().zip(others).all(same)
        }
        (Err(_), Err(_)) => true,
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_as_pyarrow_reads_them() {
    let Some(folder) = folder() else { return };
    let told = fs::read_to_string(path("docs/conformance.md")).unwrap();
    let (mut unlike, mut alike) = (BTreeSet::new(), 0);
    for (file, theirs) in expected() {
        let ours = read(&folder.join(&file)).await;
        if let Err(error) = &ours {
            assert!(error.contains(&file), "{file} is not named in: {error}");
            assert!(!error.contains("this is a defect"), "{file}: {error}");
        }
        if agree(&ours, &theirs) {
            alike += 1;
        } else {
            println!("{file}\n  ours   {ours:?}\n  theirs {theirs:?}");
            unlike.insert(file.rsplit('/').next().unwrap().to_owned());
        }
    }
    println!("{alike} files are read alike, {} are not", unlike.len());
    let rows = told.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let patterns: Vec<_> = rows.map(|(pattern, _)| Pattern::new(pattern).unwrap()).collect();
    let untold: Vec<_> = unlike.iter().filter(|file| !patterns.iter().any(|p| p.matches(file))).collect();
    assert!(untold.is_empty(), "docs/conformance.md does not name {untold:#?}");
    let stale: Vec<_> = patterns.iter().filter(|p| !unlike.iter().any(|file| p.matches(file))).collect();
    assert!(stale.is_empty(), "docs/conformance.md names what is read alike: {stale:?}");
}

/// The command succeeds if and only if all rows can be read, and names the file that cannot be.
#[tokio::test(flavor = "multi_thread")]
async fn inspect_fails_where_a_file_cannot_be_read() {
    let Some(folder) = folder() else { return };
    for file in expected().into_keys() {
        let at = folder.join(&file);
        let ours = read(&at).await;
        let command = Command::new(env!("CARGO_BIN_EXE_prosampler")).arg("inspect").arg(&at).output().unwrap();
        let said = String::from_utf8_lossy(&command.stderr);
        assert!(!said.contains("panicked") && command.status.code().is_some(), "{file}: {said}");
        assert_eq!(command.status.success(), ours.is_ok(), "{file}: {ours:?}: {said}");
        assert!(command.status.success() || said.contains(&file), "{file}: {said}");
    }
}

const UNKNOWN: &str = "?";
