use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::channel;

use super::*;
use crate::error::Error;
use crate::graph::ProximityGraph;
use crate::sample::{GraphVersion, SampleId};

fn folder(dir: &Path, rank: usize) -> SharedFolder {
    SharedFolder { dir: dir.join(FOLDER), rank, opened: Once::new(), is_alone: AtomicBool::new(false) }
}

fn graph(similarity: f32) -> ProximityGraph {
    ProximityGraph::from_parts(vec![SampleId(1), SampleId(0)], vec![similarity; 2], 1, GraphVersion(1))
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join(FOLDER)).unwrap().count()
}

const RECIPE: Recipe = Recipe(7);

#[test]
fn one_rank_makes_it_while_the_others_help_and_wait() {
    let dir = tempfile::TempDir::new().unwrap();
    let (begun, has_begun) = channel();
    let (helped, has_helped) = channel();
    let helps = AtomicUsize::new(0);
    let maker = &folder(dir.path(), 0);
    let made = std::thread::scope(|scope| {
        let make = move |_: Report<'_>| {
            begun.send(()).unwrap();
            // All others have helped before it is made.
            (0..3).for_each(|_| has_helped.recv().unwrap());
            Ok(graph(0.5))
        };
        let first =
            scope.spawn(move || maker.get(RECIPE, make, |_| panic!("nobody to help"), &mut |_| Ok(())).unwrap());
        has_begun.recv().unwrap();
        let others: Vec<_> = (1..4)
            .map(|rank| {
                let (helped, helps, dir) = (helped.clone(), &helps, dir.path());
                scope.spawn(move || {
                    let help = |report: Report<'_>| {
                        helps.fetch_add(1, Relaxed);
                        report(rank)?;
                        helped.send(()).unwrap();
                        Ok(())
                    };
                    let mut reports = Vec::new();
                    let mut report = |done| {
                        reports.push(done);
                        Ok(())
                    };
                    let make = |_: Report<'_>| -> Result<ProximityGraph> { panic!("made twice") };
                    let shared = folder(dir, rank).get(RECIPE, make, help, &mut report).unwrap();
                    // While it waits, its progress stays where it is.
                    assert!(reports.iter().all(|&done| done == rank), "{reports:?}");
                    shared
                })
            })
            .collect();
        let mut made = vec![first.join().unwrap()];
        made.extend(others.into_iter().map(|other| other.join().unwrap()));
        made
    });
    assert_eq!(helps.load(Relaxed), 3);
    assert!(made.iter().all(|shared| shared.value == graph(0.5) && shared.origin._file.is_some()));
    // The file stays until nobody has it in use.
    for shared in made {
        assert_eq!(files(dir.path()), 1);
        drop(shared);
    }
    assert_eq!(files(dir.path()), 0);
}

#[test]
fn another_rank_makes_what_one_could_not() {
    let dir = tempfile::TempDir::new().unwrap();
    let get = |rank, made: Result<ProximityGraph>| {
        folder(dir.path(), rank).get(RECIPE, |_| made, |_| Ok(()), &mut |_| Ok(()))
    };
    assert!(matches!(get(0, Err(Error::Cancelled)), Err(Error::Cancelled)));
    assert_eq!(get(1, Ok(graph(0.25))).unwrap().value, graph(0.25));
}

#[test]
fn waiting_ends_when_the_work_is_cancelled() {
    let dir = tempfile::TempDir::new().unwrap();
    let folder = folder(dir.path(), 1);
    folder.open();
    let path = folder.dir.join(format!("graph-{RECIPE}.arrow"));
    let claim = Claim::of(&path, 0).unwrap().unwrap();
    let mut looks = 0;
    let mut report = |_| {
        looks += 1;
        if looks == 3 { Err(Error::Cancelled) } else { Ok(()) }
    };
    let got = folder.get::<ProximityGraph>(RECIPE, |_| panic!("it is claimed"), |_| Ok(()), &mut report);
    assert!(matches!(got, Err(Error::Cancelled)));
    drop(claim);
}

#[test]
fn a_claim_counts_for_half_an_hour() {
    let dir = tempfile::TempDir::new().unwrap();
    let folder = folder(dir.path(), 1);
    folder.open();
    let path = folder.dir.join("graph-a.arrow");
    let claim = Claim::of(&path, 0).unwrap().unwrap();
    assert!(folder.claim(&path, Duration::from_secs(1799)).is_none());
    assert!(folder.claim(&path, Duration::from_secs(1800)).is_some());
    claim.end();
}

#[test]
fn a_damaged_file_is_made_anew() {
    let dir = tempfile::TempDir::new().unwrap();
    let get = || folder(dir.path(), 0).get(RECIPE, |_| Ok(graph(0.5)), |_| Ok(()), &mut |_| Ok(()));
    let first = get().unwrap();
    let path = dir.path().join(FOLDER).join(format!("graph-{RECIPE}.arrow"));
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // Renamed, so that the mapping of the first stays as it is.
    std::fs::write(path.with_extension("damaged"), bytes).unwrap();
    std::fs::rename(path.with_extension("damaged"), &path).unwrap();
    assert_eq!(get().unwrap().value, first.value);
}
