//! What each dial does, the others at their defaults.

use prosampler::ComputePool;
use prosampler::config::{Candidates, GraphConfig, SamplerKind, Schedule, WalkConfig};

use crate::data::{Data, Epoch};

/// A setting, and an epoch of mini-batches for each of its values.
pub struct Dial {
    pub name: &'static str,
    pub rows: Vec<Row>,
}

/// What mini-batches are like with one value of a dial.
pub struct Row {
    pub value: String,
    /// The mean similarity, and the share of pairs with the same label.
    pub mean: [f64; 2],
    quarters: [f64; 4],
    prefix_bias: String,
}

impl Row {
    fn new(value: impl Into<String>, epoch: &Epoch) -> Self {
        let quarters = [0.0, 0.25, 0.5, 0.75].map(|from| epoch.mean(from, from + 0.25)[0]);
        Self { value: value.into(), mean: epoch.mean(0.0, 1.0), quarters, prefix_bias: epoch.prefix_bias() }
    }
}

/// All dials, and a uniform epoch's similarity and share of pairs with the same label.
pub fn all(data: &Data, pool: &ComputePool) -> (Vec<Dial>, [f64; 2]) {
    let n = data.table.len();
    let size = |candidates| GraphConfig { candidates, ..GraphConfig::default() }.size(n).candidates;
    let default = data.graph(size(Candidates::Auto).max(data.neighbors), pool);
    let walk = || data.walk(0.2);
    let uniform = data.epoch(&default, &WalkConfig { sampler: SamplerKind::Uniform, ..walk() }).mean(0.0, 1.0);

    let shares = [0.005, 0.01, 0.02, 0.04, 0.1, 1.0].map(|share| {
        let graph = data.graph(size(Candidates::Share(share)).clamp(data.neighbors, n - 1), pool);
        Row::new(Candidates::Share(share).to_string(), &data.epoch(&graph, &walk()))
    });
    let of = |value: &str, walk: WalkConfig| Row::new(value, &data.epoch(&default, &walk));
    let number = |value: f64| Schedule::Constant(value);
    let alphas = [0.0, 0.05, 0.1, 0.2, 0.5, 0.8].map(|alpha| of(&alpha.to_string(), data.walk(alpha)));
    let starts = [1.0, 2.0, 4.0, 8.0, 16.0]
        .map(|starts| of(&starts.to_string(), WalkConfig { starts: number(starts), ..walk() }));
    let random = [0.0, 0.25, 0.5, 0.75]
        .map(|share| of(&share.to_string(), WalkConfig { random_share: number(share), ..walk() }));
    let samplers = [
        ("random_walk", SamplerKind::RandomWalk),
        ("knn", SamplerKind::Knn),
        ("communities", SamplerKind::Communities),
        ("clusters", SamplerKind::Clusters),
    ]
    .map(|(name, sampler)| of(name, WalkConfig { sampler, ..walk() }));
    let dial = |name, rows| Dial { name, rows };
    let dials = vec![
        dial("graph.candidates", shares.into()),
        dial("walk.restart_probability", alphas.into()),
        dial("walk.starts", starts.into()),
        dial("walk.random_share", random.into()),
        dial("walk.sampler", samplers.into()),
    ];
    (dials, uniform)
}

/// Prints a table of all dials.
pub fn print(dials: &[Dial], uniform: [f64; 2]) {
    println!("\n| dial | value | mean in-batch similarity | pairs with the same label | gain kept | come by half |");
    println!("|---|---|---|---|---|---|");
    println!("| uniform | | {:.3} | {:.1} % | | |", uniform[0], 100.0 * uniform[1]);
    for Dial { name, rows } in dials {
        for Row { value, mean: [similarity, shared], quarters, prefix_bias } in rows {
            let kept = 100.0 * (quarters[3] - uniform[0]) / (quarters[0] - uniform[0]);
            let shared = 100.0 * shared;
            println!("| `{name}` | {value} | {similarity:.3} | {shared:.1} % | {kept:.0} % | {prefix_bias} |");
        }
    }
}
