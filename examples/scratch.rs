#![allow(missing_docs)]
use prosampler::config::*;
use prosampler::graph;
use prosampler::store::EmbeddingTable;
use prosampler::*;
use rand::{RngExt, SeedableRng};
use std::time::Instant;
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let n: usize = args[1].parse().unwrap();
    let d: usize = args[2].parse().unwrap();
    let mut g = rand::rngs::ChaCha8Rng::seed_from_u64(1);
    let table = if let Some(f) = args.get(4) {
        let b = std::fs::read(f).unwrap();
        let v: Vec<f32> = b.as_chunks::<4>().0.iter().take(n * d).map(|c| f32::from_le_bytes(*c)).collect();
        EmbeddingTable::new(v, d, Similarity::Cosine, ModelVersion(1)).unwrap()
    } else {
        let low = 24usize; // low intrinsic dimension within clusters
        let mut gs = move || {
            let mut s = 0f32;
            for _ in 0..6 {
                s += g.random_range(-1.0f32..1.0);
            }
            s
        };
        let centers: Vec<f32> = (0..500 * d).map(|_| gs()).collect();
        let basis: Vec<f32> = (0..low * d).map(|_| gs()).collect();
        let mut v = Vec::with_capacity(n * d);
        for i in 0..n {
            let c = (i * 7919) % 500;
            let z: Vec<f32> = (0..low).map(|_| gs()).collect();
            for k in 0..d {
                let mut x = centers[c * d + k];
                for l in 0..low {
                    x += 0.15 * z[l] * basis[l * d + k];
                }
                v.push(x);
            }
        }
        EmbeddingTable::new(v, d, Similarity::Cosine, ModelVersion(1)).unwrap()
    };
    let pool = ComputePool::new(2).unwrap();
    for what in args[3].split(',') {
        let t = |name: &str, f: &mut (dyn FnMut() -> graph::ProximityGraph + Send)| {
            let c0 = cpu();
            let b = Instant::now();
            let gr = pool.install(|| f());
            let s = b.elapsed().as_secs_f64();
            let c = cpu() - c0;
            let r = pool.install(|| graph::recall(&gr, &table, 256, 5));
            println!("{name}: {s:.3} s, cpu {c:.2} s, recall {r:.4} (gauge {:.2})", b.elapsed().as_secs_f64() - s);
            gr
        };
        let cfg = |m: usize, k: usize, p: Precision| GraphConfig {
            candidates: m,
            neighbors: k,
            precision: p,
            ..GraphConfig::default()
        };
        match what {
            "s100" => {
                for p in [Precision::F32, Precision::I8, Precision::Bf16] {
                    t(&format!("M1000 K100 {p:?}"), &mut || {
                        graph::build(&table, &cfg(1000, 100, p), 1, GraphVersion(1))
                    });
                }
            }
            "s16" => {
                for p in [Precision::F32, Precision::I8] {
                    t(&format!("M1000 K16 {p:?}"), &mut || graph::build(&table, &cfg(1000, 16, p), 1, GraphVersion(1)));
                }
            }
            "ex" => {
                for p in [Precision::F32, Precision::I8] {
                    t(&format!("exact K16 {p:?}"), &mut || graph::build(&table, &cfg(n, 16, p), 1, GraphVersion(1)));
                }
            }
            "i8" => {
                for p in [Precision::I8] {
                    t(&format!("exact K16 {p:?}"), &mut || graph::build(&table, &cfg(n, 16, p), 1, GraphVersion(1)));
                }
            }
            "desc" => {
                t("descent K16", &mut || {
                    graph::build(
                        &table,
                        &GraphConfig { builder: GraphBuilder::NnDescent, ..cfg(n, 16, Precision::F32) },
                        1,
                        GraphVersion(1),
                    )
                });
            }
            "f100" => {
                t("F32 K100", &mut || graph::build(&table, &cfg(1000, 100, Precision::F32), 1, GraphVersion(1)));
            }
            "f16" => {
                t("F32 K16", &mut || graph::build(&table, &cfg(1000, 16, Precision::F32), 1, GraphVersion(1)));
            }
            "j16" => {
                t("I8 K16", &mut || graph::build(&table, &cfg(1000, 16, Precision::I8), 1, GraphVersion(1)));
            }
            "row" => {
                t("per row", &mut || graph::build_per_row(&table, &cfg(1000, 16, Precision::F32), 1, GraphVersion(1)));
            }
            _ => {}
        }
    }
}
