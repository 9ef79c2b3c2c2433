//! The statistics of a graph are those that counting by the definitions gives.

use std::collections::BTreeSet;

use proptest::prelude::*;
use prosampler::graph::{GraphStatistics, ProximityGraph};
use prosampler::{GraphVersion, SampleId};

fn graph(lists: &[Vec<usize>], similarities: Vec<f32>) -> ProximityGraph {
    let ids = lists.iter().flatten().map(|&id| SampleId::new(id)).collect();
    ProximityGraph::new(ids, similarities, lists[0].len(), GraphVersion(1)).unwrap()
}

/// Everything within reach of `start`, edges taken both ways.
fn reachable(lists: &[Vec<usize>], start: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::from([start]);
    loop {
        let touches = |i: &usize| reached.contains(i) || lists[*i].iter().any(|n| reached.contains(n));
        let mut more: BTreeSet<_> = (0..lists.len()).filter(touches).collect();
        more.extend(reached.iter().flat_map(|&i| lists[i].iter().copied()));
        if more.len() == reached.len() {
            return reached;
        }
        reached = more;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn statistics_are_those_of_the_definitions(
        (len, degree) in (2usize..150).prop_flat_map(|len| (Just(len), 1..len.min(4))),
        spread in 1usize..150,
        seed: u64,
    ) {
        use rand::{RngExt, SeedableRng};
        let mut generator = rand::rngs::ChaCha8Rng::seed_from_u64(seed);
        // Neighbors are near by on a line, so that there are several components.
        let mut list = |i: usize| -> Vec<usize> {
            let low = (i / spread * spread).min(len - degree - 1);
            let high = (low + spread.max(degree + 1)).min(len);
            let mut others: Vec<_> = (low..high).filter(|&other| other != i).collect();
            (0..degree).map(|_| others.swap_remove(generator.random_range(0..others.len()))).collect()
        };
        let lists: Vec<_> = (0..len).map(&mut list).collect();
        let similarities: Vec<f32> = (0..len * degree).map(|_| generator.random_range(-1f32..1.0)).collect();
        let found = graph(&lists, similarities.clone()).statistics();

        let edges: Vec<_> = (0..len).flat_map(|i| lists[i].iter().map(move |&j| (i, j))).collect();
        let mut degrees: Vec<_> = (0..len).map(|i| edges.iter().filter(|(_, j)| *j == i).count()).collect();
        let variance = degrees.iter().map(|&d| (d as f64 - degree as f64).powi(2)).sum::<f64>() / len as f64;
        degrees.sort_unstable();
        let exceeded = |d: usize| degrees.iter().filter(|&&other| other <= d).count() as f64 >= 0.99 * len as f64;
        let hubs = degrees[len - len.div_ceil(100)..].iter().sum::<usize>() as f64;
        let reverses = edges.iter().filter(|(i, j)| edges.contains(&(*j, *i))).count() as f64;
        let components: BTreeSet<_> = (0..len).map(|i| reachable(&lists, i)).collect();

        let GraphStatistics { samples, neighbors, in_degree_p99, in_degree_max, without_in_edges, .. } = found;
        prop_assert_eq!((samples, neighbors), (len, degree));
        prop_assert!((found.in_degree_variance - variance).abs() < 1e-9);
        prop_assert_eq!(in_degree_p99, (0..=len).find(|&d| exceeded(d)).unwrap());
        prop_assert_eq!((in_degree_max, without_in_edges),
            (degrees[len - 1], degrees.iter().filter(|&&d| d == 0).count()));
        prop_assert!((found.hub_share - hubs / edges.len() as f64).abs() < 1e-12);
        prop_assert!((found.reciprocity - reverses / edges.len() as f64).abs() < 1e-12);
        prop_assert_eq!(found.components, components.len());
        prop_assert_eq!(found.largest_component, components.iter().map(BTreeSet::len).max().unwrap());
        let mean = similarities.iter().map(|&s| f64::from(s)).sum::<f64>() / edges.len() as f64;
        prop_assert!((found.mean_similarity - mean).abs() < 1e-9);
    }
}

#[test]
fn statistics_print_in_a_few_lines() {
    // 0 ⇄ 1 and 2 → 3 → 4 → 2.
    let lists = [1, 0, 3, 4, 2].map(|neighbor| vec![neighbor]);
    let text = graph(&lists, vec![0.5; 5]).statistics().to_string();
    assert_eq!(text.lines().count(), 6);
    for part in ["5 samples, 1 neighbors each", "components   2, the largest of 3 samples", "reciprocity  40.0 %"] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    let empty = ProximityGraph::new(Vec::new(), Vec::new(), 3, GraphVersion(1)).unwrap().statistics();
    assert_eq!(empty, GraphStatistics { neighbors: 3, ..GraphStatistics::default() });
}
