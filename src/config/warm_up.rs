use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// How long a run draws uniform mini-batches before walks begin; at least 1.
///
/// In a pipeline file it is `{ steps = 1000 }` or `{ epochs = 1 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmUp {
    /// Up to this step of the run: its mini-batch is the first from a walk.
    Steps(u64),
    /// This many whole epochs.
    Epochs(u64),
}

impl WarmUp {
    /// Whether the mini-batch of `step`, which lies in `epoch`, belongs to the warm-up; both count from 0.
    #[must_use]
    pub fn lasts(self, step: u64, epoch: u64) -> bool {
        match self {
            Self::Steps(steps) => step < steps,
            Self::Epochs(epochs) => epoch < epochs,
        }
    }

    /// The first step after the warm-up; `None` if epochs decide.
    #[must_use]
    pub fn end(self) -> Option<u64> {
        match self {
            Self::Steps(steps) => Some(steps),
            Self::Epochs(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for WarmUp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StepsOrEpochs;

        impl<'de> Visitor<'de> for StepsOrEpochs {
            type Value = WarmUp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(FORMS)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WarmUp, A::Error> {
                let keys: BTreeMap<String, u64> = BTreeMap::deserialize(MapAccessDeserializer::new(map))?;
                let mut keys = keys.iter().map(|(key, &count)| (key.as_str(), count));
                match (keys.next(), keys.next()) {
                    (Some(("steps", steps)), None) => Ok(WarmUp::Steps(steps)),
                    (Some(("epochs", epochs)), None) => Ok(WarmUp::Epochs(epochs)),
                    _ => Err(A::Error::custom(format!("does not say how long it takes; write {FORMS}"))),
                }
            }
        }

        deserializer.deserialize_any(StepsOrEpochs)
    }
}

/// How warm-ups are written.
const FORMS: &str = "`{ steps = 1000 }` or `{ epochs = 1 }`";
