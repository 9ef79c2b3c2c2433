//! The settings that a run's mini-batches depend on, as a state carries them from one release to the next.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::config::{PipelineConfig, WalkConfig};

/// These settings by their keys in a pipeline file, each value as JSON.
pub(crate) fn settings(config: &PipelineConfig) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let PipelineConfig { graph, walk, guards, mask, pairs, encode, mixture, shard, .. } = config;
    section("graph", graph, &mut settings);
    let walk = WalkConfig { restart_probability: Some(walk.alpha()), ..walk.clone() };
    section("walk", &walk, &mut settings);
    section("guards", guards, &mut settings);
    section("mask", mask, &mut settings);
    section("pairs", pairs, &mut settings);
    section("mixture", mixture, &mut settings);
    section("shard", shard, &mut settings);
    let weights: BTreeMap<_, _> = config.sources.iter().map(|source| (&source.name, source.weight)).collect();
    let weights = weights.into_iter().filter_map(|(name, weight)| Some((name, weight?)));
    add("sources.weight".into(), &weights.collect::<BTreeMap<_, _>>(), &mut settings);
    add("encode.storage".into(), &encode.storage, &mut settings);
    add("encode.on_bad_sample".into(), &encode.on_bad_sample, &mut settings);
    settings
}

fn section(name: &str, config: &impl Serialize, settings: &mut BTreeMap<String, String>) {
    if let Ok(Value::Object(fields)) = serde_json::to_value(config) {
        for (key, value) in fields {
            add(format!("{name}.{key}"), &value, settings);
        }
    }
}

fn add(key: String, value: &impl Serialize, settings: &mut BTreeMap<String, String>) {
    // This never fails: keys are texts, and a number that JSON cannot express becomes null.
    settings.insert(key, serde_json::to_string(value).unwrap_or_default());
}

/// Settings that were renamed: the key in an old state, and today's.
pub(super) const RENAMED: &[(&str, &str)] = &[];

/// Settings whose default has changed: the key, and the default when states did not carry the setting yet.
pub(super) const FORMER_DEFAULTS: &[(&str, &str)] = &[];

/// The first difference between a state's settings and today's, in a sentence.
///
/// A setting that the state lacks had its default then.
pub(super) fn difference(
    of_state: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
    renamed: &[(&str, &str)],
    former_defaults: &[(&str, &str)],
) -> Option<String> {
    let today = |key: &str| renamed.iter().find(|(old, _)| *old == key).map_or(key, |(_, new)| new).to_owned();
    let then: BTreeMap<String, &String> = of_state.iter().map(|(key, value)| (today(key), value)).collect();
    if let Some(key) = then.keys().find(|key| !now.contains_key(*key)) {
        return Some(format!(
            "the state has the setting {key}, which this release does not know; resume with the one that made it"
        ));
    }
    let defaults = settings(&PipelineConfig::default());
    let default = |key: &str| {
        let former = former_defaults.iter().find(|(former, _)| *former == key).map(|(_, value)| (*value).to_owned());
        former.or_else(|| defaults.get(key).cloned())
    };
    now.iter().find_map(|(key, value)| {
        let then = then.get(key).map(|value| (*value).clone()).or_else(|| default(key))?;
        let is_same = then == *value || as_json(&then).is_some_and(|then| Some(then) == as_json(value));
        (!is_same).then(|| format!("it was made with {key} = {then}, and now it is {value}; give the same"))
    })
}

fn as_json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Schedule;

    fn texts(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
        settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn renamed_and_missing_settings_are_compared_as_they_were() {
        let mut now = settings(&PipelineConfig::default());
        let same = |then: &[(&str, &str)], now: &BTreeMap<_, _>, renamed: &[_], former: &[_]| {
            difference(&texts(then), now, renamed, former)
        };
        assert_eq!(same(&[], &now, &[], &[]), None);
        assert_eq!(same(&[("walk.b", "256")], &now, &[("walk.b", "walk.batch_size")], &[]), None);
        let other = same(&[("walk.b", "99")], &now, &[("walk.b", "walk.batch_size")], &[]).unwrap();
        assert_eq!(other, "it was made with walk.batch_size = 99, and now it is 256; give the same");
        let unknown = same(&[("walk.b", "256")], &now, &[], &[]).unwrap();
        assert!(unknown.contains("walk.b, which this release does not know"), "{unknown}");
        // The default was 100 then: a state without the setting was made with that.
        let former = same(&[], &now, &[], &[("walk.batch_size", "100")]).unwrap();
        assert!(former.contains("walk.batch_size = 100, and now it is 256"), "{former}");
        now.insert("walk.batch_size".into(), "100".into());
        assert_eq!(same(&[], &now, &[], &[("walk.batch_size", "100")]), None);
    }

    #[test]
    fn the_order_of_a_schedule_s_keys_does_not_matter() {
        let mut config = PipelineConfig::default();
        config.walk.restart_probability = Some(Schedule::Epochs { from: 0.1, to: 0.05, epochs: 8 });
        let now = settings(&config);
        let schedule = |first: &str, second: &str| format!(r#"{{"epochs":8,{first},{second}}}"#);
        for text in [schedule(r#""from":0.1"#, r#""to":0.05"#), schedule(r#""to":5e-2"#, r#""from":0.1"#)] {
            let then = texts(&[("walk.restart_probability", &text)]);
            assert_eq!(difference(&then, &now, &[], &[]), None);
        }
        let then = texts(&[("walk.restart_probability", &schedule(r#""from":0.2"#, r#""to":0.05"#))]);
        assert!(difference(&then, &now, &[], &[]).is_some());
    }
}
