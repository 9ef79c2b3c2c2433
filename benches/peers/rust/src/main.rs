//! hnsw_rs and instant-distance for `benches/graph`, on rayon's threads. Same jobs and answers as `graph.py`.

use std::error::Error;
use std::fs;
use std::io::stdin;
use std::time::Instant;

use hnsw_rs::prelude::*;
use instant_distance::{Builder, Point, Search};
use rayon::prelude::*;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    println!("ready hnsw_rs 0.3.4, instant-distance 0.6.1");
    for line in stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [peer, path, dimension, rows, k, out, ref arguments @ ..] = words[..] else {
            return Err(format!("not a job: {line}").into());
        };
        let (dimension, rows, k): (usize, usize, usize) = (dimension.parse()?, rows.parse()?, k.parse()?);
        let bytes = fs::read(path)?;
        let floats: Vec<f32> =
            bytes.as_chunks().0.iter().take(rows * dimension).map(|b| f32::from_le_bytes(*b)).collect();
        let vectors: Vec<&[f32]> = floats.chunks_exact(dimension).collect();
        let arguments = arguments.iter().map(|a| a.parse()).collect::<std::result::Result<Vec<usize>, _>>()?;
        let begun = Instant::now();
        let found = match (peer, &arguments[..]) {
            ("hnsw_rs", &[links, ef]) => hnsw(&vectors, k, links, ef),
            ("instant-distance", &[construction, search]) => instant(&vectors, k, construction, search),
            _ => return Err(format!("no such peer: {line}").into()),
        };
        let seconds = begun.elapsed().as_secs_f64();
        let mut ids = Vec::with_capacity(rows * k * 4);
        for (row, found) in found.iter().enumerate() {
            let others = found.iter().copied().filter(|&id| id != row as i32).chain(std::iter::repeat(-1));
            ids.extend(others.take(k).flat_map(i32::to_le_bytes));
        }
        fs::write(out, ids)?;
        println!("{seconds} {rows}");
    }
    Ok(())
}

/// Euclidean distance orders vectors of unit length as their cosine does.
fn hnsw(vectors: &[&[f32]], k: usize, links: usize, ef: usize) -> Vec<Vec<i32>> {
    let index = Hnsw::<f32, DistL2>::new(links, vectors.len(), 16, 200, DistL2);
    let places: Vec<_> = vectors.iter().copied().zip(0..).collect();
    index.parallel_insert_slice(&places);
    let found = |vector: &&[f32]| index.search(vector, k + 1, ef).iter().map(|n| n.d_id as i32).collect();
    vectors.par_iter().map(found).collect()
}

#[derive(Clone)]
struct Unit<'a>(&'a [f32]);

impl Point for Unit<'_> {
    fn distance(&self, other: &Self) -> f32 {
        let mut sums = [0f32; 16];
        for (x, y) in self.0.as_chunks::<16>().0.iter().zip(other.0.as_chunks::<16>().0) {
            for i in 0..16 {
                sums[i] += x[i] * y[i];
            }
        }
        1.0 - sums.iter().sum::<f32>()
    }
}

fn instant(vectors: &[&[f32]], k: usize, construction: usize, search: usize) -> Vec<Vec<i32>> {
    let points = vectors.iter().map(|v| Unit(v)).collect();
    let builder = Builder::default().ef_construction(construction).ef_search(search);
    let map = builder.build(points, (0..vectors.len() as i32).collect());
    let found = |vector: &&[f32]| {
        let mut state = Search::default();
        map.search(&Unit(vector), &mut state).take(k + 1).map(|item| *item.value).collect()
    };
    vectors.par_iter().map(found).collect()
}
