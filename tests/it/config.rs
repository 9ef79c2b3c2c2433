//! A pipeline file's faults are reported all at once, each with its key, its line and a remedy.

use prosampler::config::{FeatureKind, GraphBuilder, ImageSize, SamplerKind, Similarity};
use prosampler::{Error, PipelineConfig};

use crate::support::path;

fn faults(text: &str) -> Vec<(Option<usize>, String, String)> {
    match PipelineConfig::from_toml(text) {
        Err(Error::Config(faults)) => faults.faults.into_iter().map(|f| (f.line, f.key, f.message)).collect(),
        other => panic!("expected faults, got {other:?}"),
    }
}

#[test]
fn all_faults_of_a_file_come_at_once() {
    let text = "
seed = -1
[source]
url = 'a.parquet'
[graph]
candidates = 10
neighbours = 5
neighbors = 20
similarity = 'cosin'
[walk]
batch_size = 0
restart_probability = 1.0
sampler = 'random_walk'
[steam]
prefetch = 2
[stream]
prefetch = 'many'
epochs = 0
";
    let found = faults(text);
    let expected = [
        (Some(2), "seed", "invalid value"),
        (Some(4), "source.url", "did you mean `uri`?"),
        (Some(7), "graph.neighbours", "did you mean `neighbors`?"),
        (Some(8), "graph.neighbors", "is 20, but only 10 candidates are drawn"),
        (Some(9), "graph.similarity", "expected `cosine` or `dot`"),
        (Some(11), "walk.batch_size", "at least 2"),
        (Some(12), "walk.restart_probability", "below 1"),
        (Some(14), "steam", "did you mean `stream`?"),
        (Some(17), "stream.prefetch", "expected a whole number of at least 0"),
        (Some(18), "stream.epochs", "at least 1"),
        (None, "source.uri", "is required"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, key, message), (expected_line, expected_key, part)) in found.iter().zip(expected) {
        assert_eq!((line, key.as_str()), (&expected_line, expected_key), "{message}");
        assert!(message.contains(part), "{key}: {message}");
    }
}

#[test]
fn impossible_values_are_refused() {
    let base = "source.uri = 'a'\n";
    for (setting, key) in [
        ("walk.restart_probability = 1.0", "walk.restart_probability"),
        ("walk.restart_probability = 1.5", "walk.restart_probability"),
        ("walk.restart_probability = -0.1", "walk.restart_probability"),
        ("walk.restart_probability = nan", "walk.restart_probability"),
        ("walk.restart_probability = { from = 0.2, to = 1, steps = 9 }", "walk.restart_probability"),
        ("walk.restart_probability = { from = 0.2, to = 0.1, steps = 0 }", "walk.restart_probability"),
        ("walk.starts = 0", "walk.starts"),
        ("walk.starts = 1.5", "walk.starts"),
        ("walk.starts = 257", "walk.starts"),
        ("walk.starts = { from = 1, to = 9, epochs = 0 }", "walk.starts"),
        ("walk = { starts = { from = 9, to = 1, steps = 5 }, batch_size = 8 }", "walk.starts"),
        ("walk.random_share = -0.1", "walk.random_share"),
        ("walk.random_share = nan", "walk.random_share"),
        ("walk.random_share = { from = 1, to = 1.1, steps = 5 }", "walk.random_share"),
        ("walk.warm_up = { steps = 0 }", "walk.warm_up"),
        ("walk.warm_up = { epochs = 0 }", "walk.warm_up"),
        ("walk.warm_up = { step = 5 }", "walk.warm_up"),
        ("walk.warm_up = 5", "walk.warm_up"),
        ("walk.warm_up = { steps = 5, epochs = 5 }", "walk.warm_up"),
        ("walk.target_similarity = 1.5", "walk.target_similarity"),
        ("walk.target_similarity = inf", "walk.target_similarity"),
        ("walk = { target_similarity = 0.5, sampler = 'uniform' }", "walk.target_similarity"),
        ("walk = { target_similarity = 0.5, random_share = 0.1 }", "walk.random_share"),
        ("walk = { coverage = 'paper', sampler = 'clusters' }", "walk.coverage"),
        ("walk = { coverage = 'paper', sampler = 'communities' }", "walk.coverage"),
        ("walk.negative_ranks = [30, 100]", "walk.negative_ranks"),
        ("walk = { negatives = 3, negative_ranks = [5, 5] }", "walk.negative_ranks"),
        ("walk = { negatives = 3, negative_ranks = [5, 7] }", "walk.negative_ranks"),
        ("walk = { negatives = 3, negative_ranks = [5] }", "walk.negative_ranks"),
        ("graph.neighbors = 50\nwalk = { negatives = 1, negative_ranks = [30, 100] }", "walk.negative_ranks"),
        (
            "graph.neighbors = 50\nguards.skip_nearest = 9\nwalk = { negatives = 1, negative_ranks = [3, 9] }",
            "walk.negative_ranks",
        ),
        ("walk = { negatives = 1, negative_choice = 'top' }", "walk.negative_choice"),
        ("walk = { negatives = 1, negative_choice = 'hardest', negative_ranks = [0, 9] }", "walk.negative_choice"),
        ("walk = { negatives = 1, negative_relative_margin = 0.05 }", "walk.negative_relative_margin"),
        ("walk = { negatives = 1, negative_absolute_margin = 0.1 }", "walk.negative_absolute_margin"),
        ("walk.batch_size = 0", "walk.batch_size"),
        ("walk.batch_size = 1", "walk.batch_size"),
        ("graph = { candidates = 1000, neighbors = 2000 }", "graph.neighbors"),
        ("graph.candidates = 0", "graph.candidates"),
        ("graph.candidates = '0 %'", "graph.candidates"),
        ("graph.candidates = '101 %'", "graph.candidates"),
        ("graph.candidates = 'nan %'", "graph.candidates"),
        ("graph.neighbors = 0", "graph.neighbors"),
        ("graph = { device = 'cuda', builder = 'hnsw' }", "graph.device"),
        ("refresh.gpu_share = 0.0", "refresh.gpu_share"),
        ("refresh.gpu_share = 1.5", "refresh.gpu_share"),
        ("stream.prefetch = 0", "stream.prefetch"),
        ("encode.max_tokens = 1", "encode.max_tokens"),
        ("encode.batch_rows = 70_000", "encode.batch_rows"),
        ("refresh.every_steps = 0", "refresh.every_steps"),
        ("store.cache_dir = ''", "store.cache_dir"),
        ("compute.threads = 100000", "compute.threads"),
        ("encode.image.std = [0.0]", "encode.image.std"),
        ("encode.image.channels = 2", "encode.image.channels"),
        ("encode.image = { size = 100, crop = [90, 120] }", "encode.image.crop"),
        ("encode.image.height = 28", "encode.image.height"),
        ("encode.graph.node_width = 0", "encode.graph.node_width"),
        ("encode.tensor.inputs = { x = '' }", "encode.tensor.inputs"),
        ("encode = { image = {}, graph = {} }", "encode.graph"),
        ("encode = { image = {}, feature = 'text' }", "encode.image"),
        ("encode = { image = {}, prefix = 'query: ' }", "encode.prefix"),
        ("encode = { max_tokens = 1, views = [{}, {}] }", "encode.max_tokens"),
        ("source.uri = []", "source.uri"),
    ] {
        let text = if setting.starts_with("source") { setting.into() } else { format!("{base}{setting}") };
        let found = faults(&text);
        assert_eq!(found.len(), 1, "{setting}: {found:?}");
        assert_eq!(found[0].1, key);
    }
}

/// A schedule of an earlier release is told with its own numbers in the new form, and on which line it is.
#[test]
fn a_former_schedule_is_told_in_the_new_form() {
    let text = "source.uri = 'a'\n[walk]\nrestart_probability = { start = 0.2, end = 0.05, per_epoch = 0.02 }\n";
    let found = faults(text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].0, found[0].1.as_str()), (Some(3), "walk.restart_probability"));
    assert!(found[0].2.contains("{ from = 0.2, to = 0.05, epochs = 8 }"), "{}", found[0].2);
}

#[test]
fn text_that_is_not_toml_is_named_with_its_line() {
    let found = faults("source.uri = 'a'\n[graph\nneighbors = 5\n");
    assert!(found.iter().any(|(line, _, message)| *line == Some(2) && message.starts_with("not TOML")), "{found:?}");
}

#[test]
fn settings_of_a_file_take_effect() {
    let text = "
seed = 9
source = { uri = ['a', 'b/*.parquet'], columns = ['x'] }
graph = { similarity = 'dot', builder = 'hnsw' }
walk = { sampler = 'uniform', drop_last = true }
refresh.every_steps = 5
";
    let config = PipelineConfig::from_toml(text).unwrap();
    assert_eq!(config.seed, 9);
    assert_eq!(config.source.uri, ["a", "b/*.parquet"]);
    assert_eq!((config.graph.similarity, config.graph.builder), (Similarity::Dot, GraphBuilder::Hnsw));
    assert_eq!(config.walk.sampler, SamplerKind::Uniform);
    assert!(config.walk.drop_last);
    assert_eq!(config.walk.batch_size, 256);
    assert_eq!(config.refresh.every_steps, Some(5));
}

#[test]
fn overrides_change_one_setting_and_are_checked_like_the_file() {
    let file = path("pipelines/text.toml");
    let set = |settings: &[&str]| {
        let settings: Vec<_> = settings.iter().map(|s| (*s).to_owned()).collect();
        PipelineConfig::from_file_with(&file, &settings)
    };
    let plain = set(&[]).unwrap();
    let changed = set(&["graph.neighbors=50", "walk.sampler=uniform", "seed=3"]).unwrap();
    assert_eq!((changed.graph.neighbors, changed.graph.candidates), (Some(50), plain.graph.candidates));
    assert_eq!((changed.walk.sampler, changed.walk.batch_size), (SamplerKind::Uniform, plain.walk.batch_size));
    assert_eq!(changed.seed, 3);
    let error = set(&["graph.neighbours=50", "nonsense", "walk.batch_size=1"]).unwrap_err().to_string();
    assert!(error.contains("3 faults") && error.contains("did you mean `neighbors`?"), "{error}");
}

/// Tables within a section are merged as sections are, and their faults have lines and nearest keys too.
#[test]
fn tables_within_sections_are_read_like_sections() {
    let text = "
source.uri = 'a'
[encode]
column = 'jpeg'
[encode.image]
crop = 224
mean = [0.5]
syze = 256
";
    let found = faults(text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].0, found[0].1.as_str()), (Some(8), "encode.image.syze"));
    assert!(found[0].2.contains("did you mean `size`?"), "{found:?}");
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("p.toml");
    std::fs::write(&file, text.replace("syze", "size")).unwrap();
    let config = PipelineConfig::from_file_with(&file, &["encode.image.crop=[100, 120]".into()]).unwrap().encode;
    assert_eq!(config.kind(), FeatureKind::Image);
    let image = config.image.unwrap();
    assert_eq!((image.crop, image.size, image.mean), (Some([100, 120]), Some(ImageSize::Shorter(256)), vec![0.5]));
}

#[test]
fn settings_may_come_without_a_file() {
    let settings = ["source.uri = 'a'", "checkpoint.dir = 'kept'", "walk.batch_size=64"].map(String::from);
    let config = PipelineConfig::from_settings(&settings).unwrap();
    assert_eq!((config.source.uri, config.walk.batch_size), (vec!["a".to_owned()], 64));
    assert_eq!(config.checkpoint.dir, Some("kept".into()));
    let error = PipelineConfig::from_settings(&["steam.prefetch=1".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("did you mean `stream`?") && error.contains("source.uri: is required"), "{error}");
}

#[test]
fn a_label_must_be_among_the_columns() {
    let found = faults("source = { uri = 'a', columns = ['x'] }\nreport.label = 'y'\n");
    assert_eq!((found.len(), found[0].1.as_str()), (1, "report.label"));
}

#[test]
fn shipped_pipelines_are_short_and_sound() {
    let mut count = 0;
    for entry in std::fs::read_dir(path("pipelines")).unwrap() {
        let file = entry.unwrap().path();
        let config = PipelineConfig::from_file(&file).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.lines().count() < 40, "{} has 40 lines or more", file.display());
        assert!(text.contains('#'), "{} has no comments", file.display());
        assert!(config.encode.model.is_none_or(|m| m.is_file()), "{} names a model that is not there", file.display());
        count += 1;
    }
    assert!(count > 0);
}
