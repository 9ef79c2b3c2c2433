use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::graph::GraphConfig;

/// M in the paper: how many others, drawn uniformly, a sample's neighbors are chosen from.
///
/// In a pipeline file it is a number (`1000`), a share of the samples (`"1 %"`), or `"auto"`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Candidates {
    /// It follows the number of samples N: min(1000, max(N / 100, min(N / 10, 128))), and at least 8. If rows are pairs
    /// or texts it is [`AutoNearest`](Self::AutoNearest).
    #[default]
    Auto,
    /// What `"auto"` means if rows are pairs, or texts that a model embeds: all others, so that neighbors are the
    /// nearest of all; and unless K is given, it is at most 32. Training on them gained by mini-batches as hard as
    /// that, see docs/evidence.md.
    AutoNearest,
    /// So many; 1 to 2³² − 1.
    Number(usize),
    /// This share of the samples, above 0 and at most 1.
    Share(f64),
}

/// M and K for a data set of a certain size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraphSize {
    /// M: the candidates of each sample.
    pub candidates: usize,
    /// K: the neighbors of each sample.
    pub neighbors: usize,
    /// What M would be if K had not raised it.
    pub asked: usize,
}

impl GraphConfig {
    /// M and K for a data set of `samples`, before they are limited to the N − 1 others that a sample has.
    ///
    /// Unless K is given, it is M / 8, within 4 to 100, or to 32 for [`Candidates::AutoNearest`]. If K is given and M
    /// is no number, M is at least min(8 K, N / 10), so that neighbors are chosen, and at least K.
    #[must_use]
    pub fn size(&self, samples: usize) -> GraphSize {
        let asked = self.candidates.of(samples);
        let Some(neighbors) = self.neighbors else {
            let most = if self.candidates == Candidates::AutoNearest { MOST_NEAREST } else { MAX_NEIGHBORS };
            let neighbors = (asked / 8).clamp(MIN_NEIGHBORS, most).min(asked);
            return GraphSize { candidates: asked, neighbors, asked };
        };
        let candidates = match self.candidates {
            Candidates::Number(number) => number,
            Candidates::Auto | Candidates::AutoNearest | Candidates::Share(_) => {
                asked.max((8 * neighbors).min(samples / 10)).max(neighbors)
            }
        };
        GraphSize { candidates, neighbors, asked }
    }

    /// These settings, where `"auto"` means what it does if rows are pairs or texts.
    pub(super) fn nearest(mut self) -> Self {
        if self.candidates == Candidates::Auto {
            self.candidates = Candidates::AutoNearest;
        }
        self
    }
}

impl Candidates {
    fn of(self, samples: usize) -> usize {
        match self {
            Self::Auto => (samples / 100).max((samples / 10).min(128)).clamp(2 * MIN_NEIGHBORS, 1000),
            Self::AutoNearest => samples.max(2 * MIN_NEIGHBORS),
            Self::Number(number) => number,
            Self::Share(share) => ((share * samples as f64).round() as usize).max(1),
        }
    }
}

impl From<usize> for Candidates {
    fn from(number: usize) -> Self {
        Self::Number(number)
    }
}

/// As a pipeline file has it.
impl fmt::Display for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto | Self::AutoNearest => f.write_str("auto"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Share(share) => write!(f, "{} %", share * 100.0),
        }
    }
}

impl Serialize for Candidates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => number.serialize(serializer),
            Self::Auto | Self::AutoNearest | Self::Share(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Candidates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrShare;

        impl Visitor<'_> for NumberOrShare {
            type Value = Candidates;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number such as 1000, a share of the samples such as \"1 %\", or \"auto\"")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Candidates, E> {
                usize::try_from(number).map(Candidates::Number).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Candidates, E> {
                u64::try_from(number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
                    .and_then(|number| self.visit_u64(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Candidates, E> {
                if text == "auto" {
                    return Ok(Candidates::Auto);
                }
                if let Ok(number) = text.parse() {
                    return Ok(Candidates::Number(number));
                }
                let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
                let percent = percent.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))?;
                Ok(Candidates::Share(percent / 100.0))
            }
        }

        deserializer.deserialize_any(NumberOrShare)
    }
}

/// The limits of K if it follows M.
const MIN_NEIGHBORS: usize = 4;
const MAX_NEIGHBORS: usize = 100;
const MOST_NEAREST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn size(candidates: Candidates, neighbors: Option<usize>, samples: usize) -> (usize, usize) {
        let GraphSize { candidates, neighbors, .. } =
            GraphConfig { candidates, neighbors, ..GraphConfig::default() }.size(samples);
        (candidates, neighbors)
    }

    /// The table of docs/sampling.md.
    #[test]
    fn the_defaults_follow_the_number_of_samples() {
        let sizes = [
            (60, (8, 4)),
            (188, (18, 4)),
            (1_000, (100, 12)),
            (10_000, (128, 16)),
            (31_095, (310, 38)),
            (100_000, (1000, 100)),
            (1_000_000, (1000, 100)),
        ];
        for (samples, expected) in sizes {
            assert_eq!(size(Candidates::Auto, None, samples), expected, "{samples} samples");
        }
    }

    #[test]
    fn pairs_have_all_others_as_candidates() {
        let auto = GraphConfig::default().nearest();
        let sizes =
            [(5, (8, 4)), (30, (30, 4)), (200, (200, 25)), (31_095, (31_095, 32)), (1_000_000, (1_000_000, 32))];
        for (samples, expected) in sizes {
            let GraphSize { candidates, neighbors, .. } = auto.size(samples);
            assert_eq!((candidates, neighbors), expected, "{samples} pairs");
        }
        let given = GraphConfig { candidates: 70.into(), ..GraphConfig::default() };
        assert_eq!(given.clone().nearest(), given);
        assert_eq!(serde_json::to_string(&Candidates::AutoNearest).unwrap(), "\"auto\"");
    }

    #[test]
    fn a_given_k_wins_and_never_makes_the_graph_of_nearest_neighbors() {
        assert_eq!(size(Candidates::Auto, Some(32), 10_000), (256, 32));
        assert_eq!(size(Candidates::Auto, Some(32), 1_000), (100, 32));
        assert_eq!(size(Candidates::Auto, Some(32), 188), (32, 32));
        assert_eq!(size(Candidates::Share(0.01), Some(32), 100_000), (1000, 32));
        assert_eq!(size(Candidates::Share(0.001), Some(32), 100_000), (256, 32));
        assert_eq!(size(Candidates::Share(0.001), None, 100_000), (100, 12));
        assert_eq!(size(Candidates::Number(20), Some(32), 100_000), (20, 32));
        assert_eq!(size(Candidates::Number(3), None, 100_000), (3, 3));
    }

    #[test]
    fn a_setting_reads_as_it_is_written() {
        for (text, value) in
            [("1000", 1000.into()), ("\"1 %\"", Candidates::Share(0.01)), ("\"auto\"", Candidates::Auto)]
        {
            assert_eq!(serde_json::from_str::<Candidates>(text).unwrap(), value);
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
        }
        assert_eq!(serde_json::from_str::<Candidates>("\"0.5%\"").unwrap(), Candidates::Share(0.005));
        assert_eq!(serde_json::from_str::<Candidates>("\"70\"").unwrap(), 70.into());
        for text in ["\"one\"", "-3", "1.5", "\"% 3\"", "true"] {
            let error = serde_json::from_str::<Candidates>(text).unwrap_err().to_string();
            assert!(error.contains("a share of the samples such as \"1 %\""), "{text}: {error}");
        }
    }
}
