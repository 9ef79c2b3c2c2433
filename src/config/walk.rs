use serde::{Deserialize, Serialize};

use super::check::{Check, Checker};
use super::schedule::Schedule;
use super::warm_up::WarmUp;

/// `[walk]`: how mini-batches are drawn from the graph.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct WalkConfig {
    /// B in the paper: samples in a mini-batch, 2 to the data set's size; default 256.
    pub batch_size: usize,
    /// How mini-batches are chosen. Default `random_walk`.
    pub sampler: SamplerKind,
    /// α in the paper: the probability of going back to the start instead of on to a neighbor; 0 up to but not
    /// including 1. Larger values keep a mini-batch nearer to its start, at 1 / (1 − α) times the steps. Default 0.1,
    /// or 0.5 if rows are pairs or texts, which gain by harder mini-batches (docs/evidence.md). A number or a
    /// [`Schedule`], such as `{ from = 0.2, to = 0.05, epochs = 8 }`.
    pub restart_probability: Option<Schedule>,
    /// How many walks of B / `starts` samples each make a mini-batch, from unrelated starts; whole numbers from 1 to B,
    /// default 1, which is the paper's. More starts make a mini-batch of several neighborhoods: each sample keeps a few
    /// hard negatives, and the others are as far as chance has them. Touch it if mini-batches of one neighborhood have
    /// too many false negatives. A number or a [`Schedule`], rounded while it moves.
    pub starts: Schedule,
    /// The share of a mini-batch that is drawn uniformly, 0 to 1; default 0, which is the paper's. 1 makes mini-batches
    /// uniform. Touch it if training on hard mini-batches alone is unstable, or makes unrelated samples similar. A
    /// number or a [`Schedule`], such as `{ from = 1, to = 0.1, steps = 10_000 }` for mini-batches that grow harder.
    pub random_share: Schedule,
    /// The mean in-batch similarity at which mini-batches are held, by moving the random share from one to the next: −1
    /// to 1 for cosine; default: none. `random_share` must then be left at 0. Touch it if mini-batches should stay as
    /// hard as they are while the model learns, or as hard for one data set as for another.
    pub target_similarity: Option<f64>,
    /// How long a run draws uniform mini-batches before walks begin: `{ steps = 1000 }` or `{ epochs = 1 }`; default:
    /// walks begin at once. Touch it if a model that has learned nothing yet has no useful neighbors.
    pub warm_up: Option<WarmUp>,
    /// A column: makes mini-batches of samples with one value of it, such as `"task"`, or `"source"` for one of
    /// [`[[sources]]`](super::NamedSource). Walks stay among them. The values of mini-batches are random, in proportion
    /// to the samples that remain. What is left of a value at the end makes a smaller mini-batch; a single sample, or
    /// with `drop_last` fewer than B, is left out of the epoch and counted. Nulls count as a value. Explicit negatives
    /// have the same value. Costs 16 bytes a sample. Touch it if samples of different tasks are told apart too easily
    /// to be negatives of each other. Default: none.
    pub same: Option<String>,
    /// The share of a mini-batch that has one value of `same`, above 0 to 1; the rest is drawn uniformly among the
    /// others. Below 1 mini-batches are full as long as samples remain, whatever their values. Default 1.
    pub same_share: f64,
    /// How often each sample is drawn in an epoch. Default `exact`: once.
    pub coverage: Coverage,
    /// Samples in an epoch, at least B; default: all. The others sit out, other ones in each epoch, so that
    /// ⌈N / `epoch_samples`⌉ epochs in a row have every sample. If guards would end an epoch before it has as many
    /// mini-batches, it goes on with samples that it has had. Costs 8 N bytes while an epoch begins. Touch it so that
    /// runs over shards that were written apart have epochs of one length, or where something is to happen more often
    /// than once through the data, such as an evaluation.
    pub epoch_samples: Option<usize>,
    /// Explicit hard negatives of each sample beside those that the mini-batch has anyway, 0 to 1,000; default 0. They
    /// are columns `negative_1`, `negative_2`, …; see [`MiniBatch::negatives`](crate::MiniBatch::negatives).
    pub negatives: usize,
    /// The ranks of the neighbors that explicit negatives are chosen from: the first, and one beyond the last, up to
    /// `graph.neighbors`; default: walks from the sample find them. Neighbors before the first rank are never its
    /// negatives. Touch it if the nearest neighbors are likely positives: `[30, 100]` over an `exact` graph.
    pub negative_ranks: Option<[usize; 2]>,
    /// Which of the neighbors at `negative_ranks` become explicit negatives. Default `random`.
    pub negative_choice: NegativeChoice,
    /// By how much the similarity of a sample and its explicit negatives must be below that of its own pair; default:
    /// none. Needs [`[pairs]`](super::PairsConfig). Each candidate costs d multiplications. Touch it if negatives as
    /// similar as the positive are likely positives too.
    pub negative_absolute_margin: Option<f64>,
    /// The same as a share of the similarity of its own pair: 0.05 is what NV-Retriever (arXiv 2407.15831) calls 95 %
    /// of the positive. `guards.max_relative_to_positive` holds between all samples of a mini-batch, this between a
    /// sample and its own explicit negatives alone. Default none.
    pub negative_relative_margin: Option<f64>,
    /// Leaves out an epoch's last mini-batch if it would be short. Default false: every sample exactly once.
    pub drop_last: bool,
    /// A column of whole numbers that says how long samples are, in tokens for example: the samples of a mini-batch are
    /// dealt to the ranks of `stream.world_size` so that their sums are nearly equal and none waits for another that
    /// has longer texts. The longest goes first, each to the rank with the least sum that has places left. Which
    /// samples a mini-batch has does not change. No null, 0 to 2³² − 1; 4 bytes a sample. Default: none, and ranks
    /// have their samples as walks found them. Touch it if ranks wait for each other.
    pub length_column: Option<String>,
    /// A column of numbers: of four random samples that remain, a walk starts at the one with the greatest, for
    /// importance, difficulty or losses of an earlier run. Every sample still comes once an epoch, those of small
    /// weight late. [`push_losses`](crate::RefreshHandle::push_losses) does the same with losses of this run, which
    /// replace the column's numbers. For the samplers `random_walk` and `knn`. Costs 4 bytes a sample. Default: none,
    /// and starts are uniform.
    pub weight_column: Option<String>,
    /// Orders the samples of each rank by `length_column`, longest first, for a trainer that cuts its share into
    /// smaller pieces, so that one is padded to what is long in it alone. Default false.
    pub order_by_length: bool,
}

/// How mini-batches are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// Random walk with restart on the proximity graph.
    #[default]
    RandomWalk,
    /// Nearest first: a sample, its neighbors from the most similar on, then theirs. For comparison.
    Knn,
    /// A mini-batch of one community of the proximity graph, or of `starts` communities; this is B3 (arXiv 2505.11293).
    /// The samples are divided once for each graph, into communities of B / `starts` samples that keep as many edges
    /// as possible within them. Which communities come together is random; what is left of one waits for a later
    /// mini-batch. Takes a few passes over the N K edges on one thread, and up to 20 N K bytes meanwhile, again if
    /// `starts` changes. Not with the paper's coverage. For comparison.
    Communities,
    /// A mini-batch of one cluster of k-means over the embeddings, or of `starts` clusters, drawn in proportion to what
    /// remains of them; these are TAS (arXiv 2104.06967) and Arctic-Embed (arXiv 2407.18887). There are N / B clusters,
    /// at most 2 √N, made once for each table of embeddings, by at most 18 N √N d multiplications. Not with the paper's
    /// coverage. For comparison.
    Clusters,
    /// A plain shuffle. For comparison.
    Uniform,
}

/// Which of the neighbors at some ranks become explicit negatives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NegativeChoice {
    /// Random ones, others in each epoch.
    #[default]
    Random,
    /// The first that may be: the hardest.
    Top,
}

impl SamplerKind {
    /// Returns its name in pipeline files: `random_walk`, `knn`, `communities`, `clusters` or `uniform`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RandomWalk => "random_walk",
            Self::Knn => "knn",
            Self::Communities => "communities",
            Self::Clusters => "clusters",
            Self::Uniform => "uniform",
        }
    }

    /// Whether mini-batches start at samples that weights and losses can choose.
    pub(crate) fn has_starts(self) -> bool {
        matches!(self, Self::RandomWalk | Self::Knn)
    }
}

/// How often each sample is drawn in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// Every sample exactly once, as far as guards allow; an epoch has N / B mini-batches.
    #[default]
    Exact,
    /// As in the paper's reference code: each mini-batch starts at an unseen sample, and may include samples that the
    /// epoch has seen already. An epoch ends when fewer than B samples are unseen, with these as a small mini-batch if
    /// there are at least two. It has several times N / B mini-batches; their number is not known in advance. For
    /// comparison only.
    Paper,
}

impl WalkConfig {
    /// α, where it does not depend on whether rows are pairs or texts.
    pub(crate) fn alpha(&self) -> Schedule {
        self.restart_probability.unwrap_or(Schedule::Constant(0.1))
    }

    /// These settings with what they are by default if rows are pairs or texts.
    pub(super) fn nearest(self) -> Self {
        Self { restart_probability: self.restart_probability.or(Some(Schedule::Constant(0.5))), ..self }
    }

    /// What is wrong with `negative_ranks` if samples have `neighbors`, of which walks skip the first `skipped`.
    pub(crate) fn ranks_beyond(&self, neighbors: usize, skipped: usize) -> Option<String> {
        let [first, end] = self.negative_ranks?;
        if end > neighbors {
            return Some(format!(
                "is [{first}, {end}], but samples have {neighbors} neighbors; raise graph.neighbors to {end}, or end \
                 at {neighbors}"
            ));
        }
        (end <= skipped).then(|| {
            format!(
                "is [{first}, {end}], all of which guards.skip_nearest ({skipped}) refuses; skip fewer, or go further"
            )
        })
    }

    /// The margins that are set.
    pub(crate) fn margins(&self) -> Vec<&'static str> {
        let set = [
            (self.negative_absolute_margin.is_some(), "walk.negative_absolute_margin"),
            (self.negative_relative_margin.is_some(), "walk.negative_relative_margin"),
        ];
        set.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect()
    }

    /// The margins between a sample's own pair and its explicit negatives, each with its key.
    fn negative_margins(&self) -> [(&'static str, Option<f64>); 2] {
        [
            ("negative_absolute_margin", self.negative_absolute_margin),
            ("negative_relative_margin", self.negative_relative_margin),
        ]
    }

    /// Requires of what chooses explicit negatives that there is something to choose.
    fn check_negatives(&self, check: &mut Checker<'_>) {
        let Self { negatives, negative_ranks: ranks, negative_choice: choice, .. } = *self;
        let set = [("negative_ranks", ranks.is_some()), ("negative_choice", choice != NegativeChoice::Random)];
        let margins = self.negative_margins();
        for (key, is_set) in set.into_iter().chain(margins.map(|(key, margin)| (key, margin.is_some()))) {
            let message = "chooses explicit negatives, but there are none; set walk.negatives, or take this out";
            check.require(!is_set || negatives > 0, key, message);
        }
        let message = "is `top`, but walks have no ranks; set walk.negative_ranks, such as [0, 30]";
        check.require(choice != NegativeChoice::Top || ranks.is_some(), "negative_choice", message);
        if let Some([first, end]) = ranks {
            let message = format!(
                "is [{first}, {end}], too few ranks for {negatives} negatives; give the first, and one beyond the last"
            );
            check.require(end > first && end - first >= negatives, "negative_ranks", message);
        }
        for (key, margin) in margins {
            check.require(margin.is_none_or(f64::is_finite), key, "must be a finite number");
        }
    }

    /// Whether the mini-batch of `step`, which lies in `epoch`, belongs to the warm-up; both count from 0.
    #[must_use]
    pub fn is_warm_up(&self, step: u64, epoch: u64) -> bool {
        self.warm_up.is_some_and(|warm_up| warm_up.lasts(step, epoch))
    }
}

impl Default for WalkConfig {
    fn default() -> Self {
        Self {
            batch_size: 256,
            sampler: SamplerKind::RandomWalk,
            restart_probability: None,
            starts: Schedule::Constant(1.0),
            random_share: Schedule::Constant(0.0),
            target_similarity: None,
            warm_up: None,
            same: None,
            same_share: 1.0,
            coverage: Coverage::Exact,
            epoch_samples: None,
            negatives: 0,
            negative_ranks: None,
            negative_choice: NegativeChoice::Random,
            negative_absolute_margin: None,
            negative_relative_margin: None,
            drop_last: false,
            length_column: None,
            weight_column: None,
            order_by_length: false,
        }
    }
}

impl Check for WalkConfig {
    const SECTION: &'static str = "walk";

    fn check(&self, check: &mut Checker<'_>) {
        let size = self.batch_size;
        let message = format!("is {size}, but a mini-batch needs at least 2 samples, or there is no negative");
        check.require(size >= 2, "batch_size", message);
        let outside = self.alpha().ends().into_iter().find(|alpha| !(0.0..1.0).contains(alpha));
        let alpha = outside.unwrap_or_default();
        let message =
            format!("is {alpha}; it must be at least 0 and below 1, or the walk never leaves its start (0.1 is usual)");
        check.require(outside.is_none(), "restart_probability", message);
        check.schedule(self.alpha(), "restart_probability");
        let is_count = |starts: &f64| starts.fract() == 0.0 && (1.0..=size.max(1) as f64).contains(starts);
        let outside = self.starts.ends().into_iter().find(|starts| !is_count(starts));
        let starts = outside.unwrap_or_default();
        let message = format!("is {starts}; it must be a whole number from 1 to walk.batch_size, which is {size}");
        check.require(outside.is_none(), "starts", message);
        check.schedule(self.starts, "starts");
        let outside = self.random_share.ends().into_iter().find(|share| !(0.0..=1.0).contains(share));
        let share = outside.unwrap_or_default();
        check.require(outside.is_none(), "random_share", format!("is {share}; it must lie between 0 and 1"));
        check.schedule(self.random_share, "random_share");
        if let Some(target) = self.target_similarity {
            check.require(target.is_finite(), "target_similarity", "must be a finite number");
            let is_free = self.random_share == Schedule::Constant(0.0);
            let message = "must be left at 0 with walk.target_similarity, which moves it; leave one of them out";
            check.require(is_free, "random_share", message);
            let message = "moves the random share, but walk.sampler is `uniform`; choose another one, or leave it out";
            check.require(self.sampler != SamplerKind::Uniform, "target_similarity", message);
        }
        let is_named = self.same.as_ref().is_none_or(|column| !column.is_empty());
        check.require(is_named, "same", "is empty; name a column, or leave it out");
        let is_share = self.same_share > 0.0 && self.same_share <= 1.0;
        let message = format!("is {}; it must be above 0 and at most 1", self.same_share);
        check.require(is_share, "same_share", message);
        let message = "needs walk.same; name a column there, or leave it out";
        check.require(self.same_share == 1.0 || self.same.is_some(), "same_share", message);
        let is_paper = self.coverage == Coverage::Paper;
        let name = match self.sampler {
            SamplerKind::Communities => Some("communities"),
            SamplerKind::Clusters => Some("clusters"),
            SamplerKind::RandomWalk | SamplerKind::Knn | SamplerKind::Uniform => None,
        };
        let message = format!(
            "is `paper`, but walk.sampler is `{}`, whose samples come once an epoch; set coverage to `exact`, or \
             sampler to `random_walk`",
            name.unwrap_or_default()
        );
        check.require(!is_paper || name.is_none(), "coverage", message);
        let message = format!(
            "is {}, fewer than a mini-batch; give walk.batch_size ({size}) or more, or leave it out",
            self.epoch_samples.unwrap_or(0)
        );
        check.require(self.epoch_samples.is_none_or(|samples| samples >= size.max(2)), "epoch_samples", message);
        let is_some_time = !matches!(self.warm_up, Some(WarmUp::Steps(0) | WarmUp::Epochs(0)));
        check.require(is_some_time, "warm_up", "must be at least 1 step or epoch; leave it out for no warm-up");
        let given = self.length_column.as_ref().is_none_or(|column| !column.is_empty());
        check.require(given, "length_column", "is empty; name a column, or leave the key out");
        let given = self.weight_column.as_ref().is_none_or(|column| !column.is_empty());
        check.require(given, "weight_column", "is empty; name a column, or leave the key out");
        let message = "is for walks that have starts; set walk.sampler to `random_walk` or `knn`, or leave it out";
        check.require(self.sampler.has_starts() || self.weight_column.is_none(), "weight_column", message);
        let message = "needs walk.length_column; name the column of lengths, or leave it out";
        check.require(self.length_column.is_some() || !self.order_by_length, "order_by_length", message);
        check.require(self.negatives <= 1000, "negatives", "must lie between 0 and 1,000");
        self.check_negatives(check);
    }
}
