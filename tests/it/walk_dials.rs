//! The dials that shape a mini-batch: at the paper's values they change nothing, elsewhere they do what they say.

use std::sync::Arc;

use prosampler::config::{Coverage, GuardsConfig, SamplerKind, Similarity, WalkConfig};
use prosampler::embeddings::EmbeddingTable;
use prosampler::graph::ProximityGraph;
use prosampler::walk::{Draw, EpochSampler, Groups, Guards};
use prosampler::{GraphVersion, ModelVersion, SampleId};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::support::vectors;

const LEN: usize = 700;
const DEGREE: usize = 10;

/// A random graph in which low ids are hubs.
fn random_graph(len: usize, seed: u64) -> ProximityGraph {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let neighbor = |_| SampleId::new((generator.random::<f64>().powi(2) * len as f64) as usize);
    let neighbors = (0..len * DEGREE).map(neighbor).collect();
    ProximityGraph::new(neighbors, vec![0.5; len * DEGREE], DEGREE, GraphVersion(1)).unwrap()
}

fn checksum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0xcbf2_9ce4_8422_2325, |sum, number| (sum ^ number).wrapping_mul(0x0100_0000_01b3))
}

/// All ids and negatives of an epoch as one number.
fn checksum_of(draws: &[Draw]) -> u64 {
    checksum(draws.iter().flat_map(|draw| {
        let ids = draw.ids.iter().map(|id| u64::from(id.0));
        let negatives = draw.negatives.iter().map(|id| id.map_or(u64::MAX, |id| u64::from(id.0)));
        ids.chain(negatives).chain([draw.counts.moves, draw.counts.uniform_top_ups])
    }))
}

/// With one walk, no random share and no warm-up, mini-batches are those of the walk before there were such dials.
#[test]
fn at_the_papers_values_mini_batches_are_the_papers() {
    const EXPECTED: [u64; 8] = [
        13_464_664_396_634_321_794,
        12_262_557_050_535_244_490,
        14_299_457_290_424_327_372,
        12_863_993_706_600_162_641,
        11_122_950_157_661_293_899,
        14_172_303_781_319_503_758,
        16_219_513_174_847_533_805,
        9_403_321_656_874_729_860,
    ];
    let graph = random_graph(LEN, 3);
    let table = EmbeddingTable::new(vectors(LEN, 4, 5, 3), 4, Similarity::Cosine, ModelVersion(1)).unwrap();
    let config = GuardsConfig { skip_nearest: 2, ..GuardsConfig::default() };
    let guards = Guards::new(&config, Arc::new(Groups::default()), Arc::new(table));
    let mut found = Vec::new();
    for sampler in [SamplerKind::RandomWalk, SamplerKind::Knn] {
        for coverage in [Coverage::Exact, Coverage::Paper] {
            for guarded in [false, true] {
                let config = WalkConfig { batch_size: 32, sampler, coverage, negatives: 2, ..WalkConfig::default() };
                let mut epoch = EpochSampler::new(LEN, &config, 11, 2);
                let draws: Vec<_> = std::iter::from_fn(|| match guarded {
                    true => epoch.next_guarded(&graph, &guards),
                    false => epoch.next(&graph),
                })
                .collect();
                found.push(checksum_of(&draws));
            }
        }
    }
    assert_eq!(found, EXPECTED);
}
