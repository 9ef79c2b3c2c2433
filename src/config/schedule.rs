use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

/// A number that may change during a run.
///
/// In a pipeline file it is a number, `{ from = 0.2, to = 0.05, steps = 10_000 }` or
/// `{ from = 0.2, to = 0.05, epochs = 8 }`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// The same number at every step.
    Constant(f64),
    /// In a straight line over steps, counted from the run's first one.
    Steps {
        /// The number at step 0.
        from: f64,
        /// The number from step `steps` on.
        to: f64,
        /// How many steps it takes; at least 1.
        steps: u64,
    },
    /// In a straight line over epochs, in each of which it is constant.
    Epochs {
        /// The number in epoch 0.
        from: f64,
        /// The number from epoch `epochs` on.
        to: f64,
        /// How many epochs it takes; at least 1.
        epochs: u64,
    },
}

impl Schedule {
    /// The number at `step` of the run, which lies in `epoch`; both count from 0.
    #[must_use]
    pub fn at(self, step: u64, epoch: u64) -> f64 {
        let (from, to, passed, all) = match self {
            Self::Constant(number) => return number,
            Self::Steps { from, to, steps } => (from, to, step, steps),
            Self::Epochs { from, to, epochs } => (from, to, epoch, epochs),
        };
        if passed >= all { to } else { from + (to - from) * (passed as f64 / all as f64) }
    }

    /// The first number and the last one, between which all others lie.
    pub(super) fn ends(self) -> [f64; 2] {
        match self {
            Self::Constant(number) => [number; 2],
            Self::Steps { from, to, .. } | Self::Epochs { from, to, .. } => [from, to],
        }
    }

    /// What is wrong with how long it takes, if anything is.
    pub(super) fn fault(self) -> Option<&'static str> {
        match self {
            Self::Steps { steps: 0, .. } => Some("has a schedule over 0 steps; give at least 1, or a plain number"),
            Self::Epochs { epochs: 0, .. } => Some("has a schedule over 0 epochs; give at least 1, or a plain number"),
            _ => None,
        }
    }

    /// The schedule of these keys, or what is wrong with them.
    fn of_keys(keys: &BTreeMap<String, f64>) -> Result<Self, String> {
        let number = |key: &str| keys.get(key).copied();
        if let (Some(start), Some(end), Some(per_epoch)) = (number("start"), number("end"), number("per_epoch")) {
            return Err(in_new_form(start, end, per_epoch));
        }
        if let Some(unknown) = keys.keys().find(|key| !["from", "to", "steps", "epochs"].contains(&key.as_str())) {
            return Err(format!("has a schedule with the unknown key `{unknown}`; write {FORMS}"));
        }
        let whole = |key: &str| match number(key) {
            Some(count) if !(0.0..MAX_COUNT).contains(&count) || count.fract() != 0.0 => {
                Err(format!("has a schedule with {key} = {count}; give a whole number of at least 1"))
            }
            count => Ok(count.map(|count| count as u64)),
        };
        match (number("from"), number("to"), whole("steps")?, whole("epochs")?) {
            (Some(from), Some(to), Some(steps), None) => Ok(Self::Steps { from, to, steps }),
            (Some(from), Some(to), None, Some(epochs)) => Ok(Self::Epochs { from, to, epochs }),
            (_, _, Some(_), Some(_)) => {
                Err("has a schedule over both `steps` and `epochs`; leave one of them out".to_owned())
            }
            _ => Err(format!("has a schedule that lacks a key; write {FORMS}")),
        }
    }
}

/// What to write instead of the schedules `{ start, end, per_epoch }` of earlier releases.
fn in_new_form(start: f64, end: f64, per_epoch: f64) -> String {
    let epochs = ((start - end) / per_epoch).abs().ceil();
    if (1.0..MAX_COUNT).contains(&epochs) {
        format!(
            "has a schedule {{ start, end, per_epoch }}, which is now written over epochs: \
             {{ from = {start}, to = {end}, epochs = {epochs} }}"
        )
    } else {
        format!("has a schedule {{ start, end, per_epoch }} that stays at {start}; write {start} alone")
    }
}

impl From<f64> for Schedule {
    fn from(number: f64) -> Self {
        Self::Constant(number)
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (from, to, unit, count) = match *self {
            Self::Constant(number) if number.fract() == 0.0 && number.abs() < MAX_COUNT => {
                return serializer.serialize_i64(number as i64);
            }
            Self::Constant(number) => return serializer.serialize_f64(number),
            Self::Steps { from, to, steps } => (from, to, "steps", steps),
            Self::Epochs { from, to, epochs } => (from, to, "epochs", epochs),
        };
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("from", &Self::Constant(from))?;
        map.serialize_entry("to", &Self::Constant(to))?;
        map.serialize_entry(unit, &count)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrSchedule;

        impl<'de> Visitor<'de> for NumberOrSchedule {
            type Value = Schedule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number, {FORMS}")
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Schedule, E> {
                Ok(number.into())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Schedule, E> {
                Ok((number as f64).into())
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Schedule, E> {
                Ok((number as f64).into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Schedule, A::Error> {
                let keys = BTreeMap::deserialize(MapAccessDeserializer::new(map))?;
                Schedule::of_keys(&keys).map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_any(NumberOrSchedule)
    }
}

/// How schedules are written.
const FORMS: &str = "`{ from, to, steps }` or `{ from, to, epochs }`";

/// A bound of counts, up to which every whole number is exact as f64.
const MAX_COUNT: f64 = (1u64 << 53) as f64;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Schedule, String> {
        #[derive(Deserialize)]
        struct Holder {
            dial: Schedule,
        }
        toml::from_str::<Holder>(&format!("dial = {text}")).map(|of| of.dial).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn steps_move_at_each_step_and_epochs_at_each_epoch() {
        let steps = Schedule::Steps { from: 8.0, to: 2.0, steps: 4 };
        let epochs = Schedule::Epochs { from: 8.0, to: 2.0, epochs: 4 };
        for (passed, expected) in [(0, 8.0), (1, 6.5), (2, 5.0), (3, 3.5), (4, 2.0), (5, 2.0), (u64::MAX, 2.0)] {
            assert_eq!(steps.at(passed, 77), expected);
            assert_eq!(epochs.at(77, passed), expected);
            assert_eq!(Schedule::Constant(0.3).at(passed, passed), 0.3);
        }
    }

    #[test]
    fn all_forms_survive_toml_and_json() {
        for (text, expected) in [
            ("0.2", Schedule::Constant(0.2)),
            ("3", Schedule::Constant(3.0)),
            ("{ from = 0.25, to = 0, steps = 100 }", Schedule::Steps { from: 0.25, to: 0.0, steps: 100 }),
            ("{ epochs = 8, to = 4, from = 1 }", Schedule::Epochs { from: 1.0, to: 4.0, epochs: 8 }),
        ] {
            let schedule = read(text).unwrap();
            assert_eq!(schedule, expected);
            let json = serde_json::to_string(&schedule).unwrap();
            assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule, "{json}");
        }
        assert_eq!(serde_json::to_string(&Schedule::Constant(3.0)).unwrap(), "3");
    }

    #[test]
    fn the_former_form_shows_the_new_one_with_its_numbers() {
        for (old, new) in [
            ("{ start = 0.2, end = 0.05, per_epoch = 0.02 }", "{ from = 0.2, to = 0.05, epochs = 8 }"),
            ("{ start = 0, end = 0.5, per_epoch = -0.25 }", "{ from = 0, to = 0.5, epochs = 2 }"),
            ("{ start = 0.2, end = 0.2, per_epoch = 0 }", "write 0.2 alone"),
            ("{ start = 0.2, end = 0.1, per_epoch = 0 }", "write 0.2 alone"),
        ] {
            let message = read(old).unwrap_err();
            assert!(message.contains(new), "{message}");
        }
    }

    #[test]
    fn what_is_no_schedule_says_so() {
        for (text, part) in [
            ("'much'", "expected a number, `{ from, to, steps }` or `{ from, to, epochs }`"),
            ("{ from = 1, to = 2 }", "lacks a key"),
            ("{ from = 1, steps = 2 }", "lacks a key"),
            ("{ from = 1, to = 2, steps = 3, epochs = 4 }", "leave one of them out"),
            ("{ from = 1, too = 2, steps = 3 }", "unknown key `too`"),
            ("{ from = 1, to = 2, steps = 1.5 }", "steps = 1.5; give a whole number"),
            ("{ from = 1, to = 2, epochs = -1 }", "epochs = -1; give a whole number"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
