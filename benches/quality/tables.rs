//! Similarity, false negatives and prefix bias over M and α, and over the course of an epoch.

use prosampler::ComputePool;
use prosampler::config::{Coverage, GraphConfig, SamplerKind, WalkConfig};

use crate::data::{Data, Epoch};

const ALPHAS: [f64; 3] = [0.05, 0.2, 0.5];

/// Similarity and false negatives over M and α.
pub fn hardness(data: &Data, pool: &ComputePool) {
    println!("| sampler | M | α | mean in-batch similarity | pairs with the same label | come by half |");
    println!("|---|---|---|---|---|---|");
    let (n, k) = (data.table.len(), data.neighbors);
    let of = |sampler| WalkConfig { sampler, ..data.walk(0.0) };
    let mut all = vec![k, 100, GraphConfig::default().size(n).candidates, 1000, n - 1];
    all.dedup();
    for candidates in all {
        let graph = data.graph(candidates.max(k), pool);
        let name = if candidates == n - 1 { "N".into() } else { candidates.to_string() };
        let line = |sampler: &str, alpha: &str, epoch: &Epoch| {
            let [similarity, shared] = epoch.mean(0.0, 1.0);
            println!(
                "| {sampler} | {name} | {alpha} | {similarity:.3} | {:.1} % | {} |",
                100.0 * shared,
                epoch.prefix_bias()
            );
        };
        if candidates == k {
            line("uniform", "–", &data.epoch(&graph, &of(SamplerKind::Uniform)));
        }
        for alpha in ALPHAS {
            let epoch = data.epoch(&graph, &data.walk(alpha));
            line("random_walk", &alpha.to_string(), &epoch);
        }
        line("knn", "–", &data.epoch(&graph, &of(SamplerKind::Knn)));
        line("communities", "–", &data.epoch(&graph, &of(SamplerKind::Communities)));
        if candidates == k {
            line("clusters", "–", &data.epoch(&graph, &of(SamplerKind::Clusters)));
        }
    }
}

/// Similarity by quarter of an epoch, over M and α; the curves of M = 1000, α = 0.2.
pub fn course(data: &Data, pool: &ComputePool) -> Vec<(&'static str, Epoch)> {
    println!("\n| coverage | M | α | mini-batches | 1st quarter | 2nd | 3rd | 4th | gain kept | come by half |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut curves = Vec::new();
    let graph = data.graph(1000, pool);
    let uniform = data.epoch(&graph, &WalkConfig { sampler: SamplerKind::Uniform, ..data.walk(0.0) });
    let [base, _] = uniform.mean(0.0, 1.0);
    let line = |name: &str, candidates: usize, alpha: f64, epoch: &Epoch| {
        let quarters = [0.0, 0.25, 0.5, 0.75].map(|from| epoch.mean(from, from + 0.25)[0]);
        let kept = 100.0 * (quarters[3] - base) / (quarters[0] - base);
        let [a, b, c, d] = quarters.map(|q| format!("{q:.3}"));
        let (count, bias) = (epoch.mini_batches.len(), epoch.prefix_bias());
        println!("| {name} | {candidates} | {alpha} | {count} | {a} | {b} | {c} | {d} | {kept:.0} % | {bias} |");
    };
    let (count, bias) = (uniform.mini_batches.len(), uniform.prefix_bias());
    println!("| uniform | – | – | {count} | {base:.3} | | | | | {bias} |");
    for candidates in [1000, 4000] {
        let other = (candidates != 1000).then(|| data.graph(candidates, pool));
        let graph = other.as_ref().unwrap_or(&graph);
        for alpha in ALPHAS {
            for (name, coverage) in [("exact", Coverage::Exact), ("paper", Coverage::Paper)] {
                let epoch = data.epoch(graph, &WalkConfig { coverage, ..data.walk(alpha) });
                line(name, candidates, alpha, &epoch);
                if (candidates, alpha) == (1000, 0.2) {
                    curves.push((name, epoch));
                }
            }
        }
    }
    curves.push(("uniform", uniform));
    curves
}
